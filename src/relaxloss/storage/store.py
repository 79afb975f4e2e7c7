"""The store: results by content key. An entry is whole and verified, or it is not there.

An entry is a directory ``<stage>/<key>/`` with its files and ``manifest.json`` (what it is, and each file's SHA-256).
It is written under another name, flushed to the disk, and renamed, so that a killed process leaves nothing
half-written under a key; leftovers are removed by the next writer. There is one writer at a time.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch

from relaxloss.errors import UserError

MANIFEST = "manifest.json"
SCRATCH = "scratch"


class MissingEntry(UserError):
    """An entry that must be there is not, or is damaged."""


@dataclass(frozen=True)
class Entry:
    """One stored result, as listed: `bytes` on disk, and `sound`, whether its files match their hashes."""

    stage: str
    key: str
    about: Mapping[str, Any]
    bytes: int
    sound: bool


class Store:
    """Results under one directory. Reading needs no lock; `writing` takes it."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def path(self, stage: str, key: str) -> Path:
        """Where an entry is, or would be."""
        return self.root / stage / key

    def scratch(self, key: str) -> Path:
        """A directory for checkpoints of a job under way; removed when its result is stored."""
        return self.root / SCRATCH / key

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Be the one writer; a second one is told so. Leftovers of a killed writer are removed first."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = (self.root / "lock").open("a+")
        except OSError as error:
            raise UserError(
                f"cannot write the store {self.root}: {error.strerror}; expected a directory that you may write"
            ) from None
        with lock:
            _lock(lock, self.root)
            for leftover in self.root.glob("*/*.part"):
                shutil.rmtree(leftover, ignore_errors=True)
            yield

    def put(self, stage: str, key: str, files: Mapping[str, bytes], about: Mapping[str, Any]) -> None:
        """Store an entry; one that is already there and sound is kept."""
        final = self.path(stage, key)
        if final.exists():
            if self.get(stage, key) is not None:
                return
            shutil.rmtree(final, ignore_errors=True)
        part = final.with_name(f"{key}.{os.getpid()}.part")
        try:
            part.mkdir(parents=True, exist_ok=True)
            hashes = {}
            for name, content in files.items():
                _write(part / name, content)
                hashes[name] = hashlib.sha256(content).hexdigest()
            _write(part / MANIFEST, json.dumps({"about": dict(about), "sha256": hashes}, indent=1).encode())
            os.replace(part, final)
            _flush_directory(final.parent)
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                size = sum(len(content) for content in files.values())
                raise UserError(
                    f"the disk of {self.root} is full: could not write {size / 1e6:.1f} MB; nothing stored before is "
                    "lost: free some space and run the same command again"
                ) from None
            raise UserError(
                f"cannot write the store {self.root}: {error.strerror or error}; nothing stored before is lost: see "
                "that it can be written, and run the same command again"
            ) from None
        shutil.rmtree(self.scratch(key), ignore_errors=True)

    def get(self, stage: str, key: str) -> dict[str, bytes] | None:
        """The entry's files, verified; None if there is none, or with a warning if it is damaged."""
        files: dict[str, bytes] = {}

        def digest(path: Path) -> str:
            files[path.name] = path.read_bytes()
            return hashlib.sha256(files[path.name]).hexdigest()

        return files if self._sound(stage, key, digest) else None

    def verified(self, stage: str, key: str) -> Path | None:
        """The entry's directory, whose files are as they were written; None as from `get`."""
        return self.path(stage, key) if self._sound(stage, key, file_digest) else None

    def _sound(self, stage: str, key: str, digest: Callable[[Path], str]) -> bool:
        """Whether the entry is there and whole. Nothing is removed if it is not: the reader may be a worker, or another
        machine that cannot see the whole file yet.
        """
        path = self.path(stage, key)
        if not path.exists():
            return False
        try:
            hashes = json.loads((path / MANIFEST).read_text())["sha256"]
            if hashes and all(digest(path / name) == expected for name, expected in hashes.items()):
                return True
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                raise  # too many open files: nothing is said of this one
        warnings.warn(f"store: entry {stage}/{key} is damaged; it will be made again", stacklevel=3)
        return False

    def has(self, stage: str, key: str) -> bool:
        """Whether the entry is there (its files are verified when they are read)."""
        return (self.path(stage, key) / MANIFEST).exists()

    def entries(self, *, verify: bool = False) -> Iterator[Entry]:
        """All entries; with `verify`, every file is hashed."""
        for manifest_path in sorted(self.root.glob(f"*/*/{MANIFEST}")):
            folder = manifest_path.parent
            size = sum(file.stat().st_size for file in folder.iterdir())
            try:
                manifest = json.loads(manifest_path.read_text())
                hashes = manifest["sha256"].items()
                sound = not verify or all(file_digest(folder / name) == digest for name, digest in hashes)
                about = manifest["about"]
            except (ValueError, KeyError, OSError, TypeError, AttributeError):
                sound, about = False, {}
            yield Entry(folder.parent.name, folder.name, about, size, sound)

    def remove(self, stage: str, key: str) -> None:
        """Delete an entry."""
        shutil.rmtree(self.path(stage, key), ignore_errors=True)


def repair(store: Store) -> int:
    """Remove every damaged entry, for the writer; how many there were."""
    damaged = [entry for entry in store.entries(verify=True) if not entry.sound]
    for entry in damaged:
        store.remove(entry.stage, entry.key)
    return len(damaged)


def _lock(handle: Any, root: Path) -> None:
    if sys.platform == "win32":  # pragma: no cover
        return
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.seek(0)
        holder = handle.read().strip() or "another process"
        raise UserError(f"{root} is being written by {holder}; wait for it to end, or choose another --out") from None
    handle.truncate(0)
    handle.write(f"process {os.getpid()}")
    handle.flush()


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hex digits; it is never read whole."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush_directory(path: Path) -> None:
    if sys.platform != "win32":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all; a `UserError` if the disk is full or the place cannot be written."""
    if path.is_dir():
        raise UserError(f"{path} is a directory; expected the name of a file to write")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(part, content.encode() if isinstance(content, str) else content)
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; expected a place with room that you may write"
        ) from None


def pack_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Arrays → npz bytes, without pickle."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def unpack_arrays(content: bytes) -> dict[str, npt.NDArray[Any]]:
    """The inverse of `pack_arrays`."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def pack_array(array: npt.NDArray[Any]) -> bytes:
    """An array → npy bytes, without pickle."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def pack_weights(state: Mapping[str, torch.Tensor]) -> bytes:
    """A state dict → safetensors bytes. Tied weights are written once under each of their names."""
    packed: bytes = safetensors.torch.save(
        {name: tensor.detach().contiguous().clone() for name, tensor in state.items()}
    )
    return packed


def unpack_weights(content: bytes) -> dict[str, torch.Tensor]:
    """The inverse of `pack_weights`; damaged bytes are a UserError."""
    try:
        loaded: dict[str, torch.Tensor] = safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise UserError(f"the weights cannot be read ({error}); the file is damaged or is not safetensors") from None
    return loaded

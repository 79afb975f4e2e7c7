"""Files from the web: downloaded once, verified, and read from inside their archives without extracting anything."""

from __future__ import annotations

import contextlib
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, ClassVar

import numpy as np
import pooch

from relaxloss.data.dataset import Array, Dataset, Source
from relaxloss.errors import UserError

BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError)
BLOCK = 1 << 24  # bytes of text that are parsed at once


def download(urls: tuple[str, ...], folder: Path, sha256: str | None, name: str) -> Path:
    """The path of the file in `folder`, fetched from the first address that answers unless it is there already.

    Raises `UserError` if no address answers (with how to put the file there by hand) or if the file's SHA-256 is not
    the expected one.
    """
    path = folder / _file_of(urls)
    by_hand = f"fetch it elsewhere and put it at {path}, or put a prepared {name}.npz into {folder}"
    failures = []
    for url in () if path.exists() else urls:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            pooch.retrieve(url, known_hash=sha256 and f"sha256:{sha256}", fname=path.name, path=folder)
            break
        except (OSError, ValueError) as error:  # no network, HTTP errors; a wrong hash
            failures.append(f"{url} ({error})")
    if not path.exists():
        raise UserError(f"cannot download {name}: tried {' and '.join(failures)}; check the network, or {by_hand}")
    if sha256 and (got := pooch.file_hash(str(path))) != sha256:
        raise UserError(f"{path} has SHA-256 {got}; expected {sha256}: delete it and try again, or {by_hand}")
    return path


def _file_of(urls: tuple[str, ...]) -> str:
    return urls[0].rsplit("/", 1)[-1]


@contextlib.contextmanager
def tar_member(archive: Path, member: str) -> Iterator[IO[bytes]]:
    """The regular file whose path inside the tar archive ends in `member`, as a stream. Nothing is written to disk."""
    with tarfile.open(archive) as tar:
        for entry in tar:
            stream = tar.extractfile(entry) if entry.isfile() and _ends_in(entry.name, member) else None
            if stream is not None:
                yield stream
                return
    raise UserError(f"{archive}: holds no file {member}; expected the upstream archive: delete it and try again")


def _ends_in(path: str, member: str) -> bool:
    wanted = PurePosixPath(member).parts
    return PurePosixPath(path).parts[-len(wanted) :] == wanted


def read_bits(stream: IO[bytes], columns: int, *, labelled: bool) -> tuple[Array, Array]:
    """Comma-separated bits ``(M, columns)`` uint8, and the label in front of each row ``(M,)`` (else empty).

    A bit is one character, so the end of every row has the same width and whole blocks of rows are read as arrays; a
    block that is written in another way (``1.0``, quoted bits) is parsed number by number. Raises `ValueError`.
    """
    bits, labels, row = [np.empty((0, columns), np.uint8)], [np.empty(0, np.int64)], 0
    while lines := stream.readlines(BLOCK):
        try:
            block, heads = _plain_bits(lines, columns, labelled)
        except ValueError:
            try:
                table = np.loadtxt(lines, delimiter=",", quotechar='"', comments=None, ndmin=2)
            except ValueError as error:
                raise ValueError(f"after row {row}: {error}") from None
            if table.shape[1] != columns + labelled or ((table[:, labelled:] != 0) & (table[:, labelled:] != 1)).any():
                raise ValueError(
                    f"after row {row}: {table.shape[1]} values a row; expected {'label and ' * labelled}{columns} bits"
                ) from None
            block, heads = table[:, labelled:].astype(np.uint8), table[:, :labelled].ravel().astype(np.int64)
        bits.append(block)
        labels.append(heads)
        row += len(block)
    return np.concatenate(bits), np.concatenate(labels)


def _plain_bits(lines: list[bytes], columns: int, labelled: bool) -> tuple[Array, Array]:
    """Rows ``label,0,1,...`` (the label perhaps in quotes) or ``0,1,...``; `ValueError` if any is written otherwise."""
    width = 2 * columns - 1
    rows = [line.rstrip() for line in lines]
    text = np.frombuffer(b"".join(row[-width:] for row in rows), np.uint8).reshape(len(rows), width)
    block = text[:, ::2] - ord("0")
    heads = [row[:-width] for row in rows]
    if (block > 1).any() or (text[:, 1::2] != ord(",")).any() or any(head[-1:] != b"," * labelled for head in heads):
        raise ValueError("no plain bits")
    return block, np.array([int(head[:-1].strip(b'"')) for head in heads] if labelled else [], np.int64)


@dataclass(frozen=True)
class Upstream(Source):
    """A source that is one file on the web. A subclass sets the constants and overrides `read`.

    The SHA-256 is checked where one is known for certain; shape and labels are checked always.
    """

    urls: ClassVar[tuple[str, ...]]
    sha256: ClassVar[str | None] = None
    shape: ClassVar[tuple[int, ...]]

    def file(self) -> str:
        """The last part of the first address."""
        return _file_of(self.urls)

    def read(self, path: Path) -> tuple[Array, Array]:
        """``x`` and ``y`` (int64, from 0) of the upstream file."""
        raise NotImplementedError

    def fetch(self, folder: Path) -> Dataset:
        """Download, verify, read and check; see the class."""
        path = download(self.urls, folder, self.sha256, self.name)
        try:
            x, y = self.read(path)
        except UserError:
            raise
        except BROKEN as error:
            raise UserError(f"{path}: cannot be read ({error}); delete it and try again") from None
        present = np.unique(y)
        if x.shape != self.shape or not np.array_equal(present, np.arange(self.num_classes or 0)):
            raise UserError(
                f"{path}: holds {x.shape} with {len(present)} labels from {present.min(initial=0)} to "
                f"{present.max(initial=0)}; expected {self.shape} with {self.num_classes} labels from 0: "
                "delete it and try again"
            )
        digest = self.sha256 or pooch.file_hash(str(path))
        provenance = f"{self.about}; {path.name}, sha256 {digest}{'' if self.sha256 else ' (not pinned)'}"
        return Dataset(self.name, x, y, len(present), provenance)

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
import pyarrow as pa
import pyarrow.csv

from relaxloss.data.base import Array, Dataset, Source
from relaxloss.errors import UserError

BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, pa.ArrowInvalid)


def download(urls: tuple[str, ...], folder: Path, sha256: str | None, name: str) -> Path:
    """The path of the file in `folder`, fetched from the first address that answers unless it is there already.

    Raises `UserError` if no address answers (with how to put the file there by hand) or if the file's SHA-256 is not
    the expected one.
    """
    path = folder / urls[0].rsplit("/", 1)[-1]
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
    """Comma-separated bits ``(M, columns)`` uint8, and the label in front of each row ``(M,)`` (else empty)."""
    names = ["label"] * labelled + [f"bit{index}" for index in range(columns)]
    table = pyarrow.csv.read_csv(
        stream,
        pyarrow.csv.ReadOptions(column_names=names, block_size=1 << 26),  # few blocks: each has thousands of columns
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={name: pa.int16() if name == "label" else pa.uint8() for name in names}, null_values=[]
        ),
    )
    x = np.empty((len(table), columns), np.uint8)
    for index in range(columns):
        x[:, index] = table.column(index + labelled).to_numpy()
    y = table.column(0).to_numpy().astype(np.int64) if labelled else np.empty(0, np.int64)
    return x, y


@dataclass(frozen=True)
class Upstream(Source):
    """A source that is one file on the web. A subclass sets the constants and overrides `read`.

    The SHA-256 is checked where one is known for certain; shape and labels are checked always.
    """

    urls: ClassVar[tuple[str, ...]]
    sha256: ClassVar[str | None] = None
    shape: ClassVar[tuple[int, ...]]

    def read(self, path: Path) -> tuple[Array, Array]:
        """``x`` and ``y`` (int64, from 0) of the upstream file."""
        raise NotImplementedError

    def fetch(self, folder: Path) -> Dataset:
        """Download, verify, read and check; see the class."""
        path = download(self.urls, folder, self.sha256, self.name)
        try:
            x, y = self.read(path)
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

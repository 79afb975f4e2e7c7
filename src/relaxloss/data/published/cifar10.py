"""CIFAR-10 (Krizhevsky 2009), training and test sets merged as in the RelaxLoss paper (appendix, data sets).

The *binary* version is read, a plain array of bytes with the same images in the same order: the Python version is a
pickle, and this package unpickles nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from relaxloss.data.dataset import Array, sources
from relaxloss.data.published.archives import Upstream, tar_member
from relaxloss.errors import UserError


def read_records(archive: Path, members: tuple[str, ...], labels: int) -> tuple[Array, Array]:
    """Records of `labels` label bytes (the last is the class) and an image → ``(M, 3, 32, 32)`` and ``(M,)``."""
    size = labels + 3 * 32 * 32
    parts = []
    for member in members:
        with tar_member(archive, member) as stream:
            content = stream.read()
        if not content or len(content) % size:
            raise UserError(f"{archive}: {member} has {len(content)} bytes; expected records of {size}")
        parts.append(np.frombuffer(content, np.uint8).reshape(-1, size))
    records = np.concatenate(parts)
    return records[:, labels:].reshape(-1, 3, 32, 32), records[:, labels - 1].astype(np.int64)


@sources.register("cifar10")
@dataclass(frozen=True)
class Cifar10(Upstream):
    """60,000 colour images of 32 × 32, 10 classes."""

    about = "CIFAR-10: 60,000 colour images 32x32, 10 classes, training and test sets merged (Krizhevsky 2009)"
    urls = ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",)
    sha256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
    shape = (60_000, 3, 32, 32)
    num_classes = 10

    def read(self, path: Path) -> tuple[Array, Array]:
        """The five training batches, then the test batch."""
        batches = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
        return read_records(path, batches, labels=1)

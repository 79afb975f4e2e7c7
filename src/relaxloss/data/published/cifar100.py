"""CIFAR-100 (Krizhevsky 2009) with its fine labels, both sets merged; see `relaxloss.data.published.cifar10`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from relaxloss.data.dataset import Array, sources
from relaxloss.data.published.archives import Upstream
from relaxloss.data.published.cifar10 import read_records


@sources.register("cifar100")
@dataclass(frozen=True)
class Cifar100(Upstream):
    """60,000 colour images of 32 × 32, 100 classes."""

    about = "CIFAR-100: 60,000 colour images 32x32, 100 classes, training and test sets merged (Krizhevsky 2009)"
    urls = ("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",)
    sha256 = "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"
    shape = (60_000, 3, 32, 32)
    num_classes = 100

    def read(self, path: Path) -> tuple[Array, Array]:
        """The training set, then the test set; a record has the coarse label before the fine one."""
        return read_records(path, ("train.bin", "test.bin"), labels=2)

"""What the tests share: one thread, tiny data, tiny recipes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from relaxloss.data import Column, Dataset
from relaxloss.defenses import Defense
from relaxloss.training import Progress, Session
from relaxloss.training.task import Recipe, Task

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def blobs() -> Dataset:
    """300 samples of 4 overlapping normal classes in 12 dimensions: small, and not separable."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 300)
    x = rng.normal(size=(4, 12))[y] * 0.8 + rng.normal(size=(300, 12))
    return Dataset("blobs", x.astype(np.float32), y.astype(np.int64), 4, "normal classes made for tests")


@pytest.fixture(scope="session")
def table() -> Dataset:
    """200 rows of two numeric columns with gaps and one categorical column."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 3)).astype(np.float32)
    x[:, 2] = rng.integers(0, 3, 200)
    x[rng.random(200) < 0.1, 0] = np.nan
    y = (x[:, 1] + (x[:, 2] == 1) > 0).astype(np.int64)
    columns = (Column("age"), Column("dose"), Column("ward", ("a", "b", "c")))
    return Dataset("table", x, y, 2, "rows made for tests", columns)


@pytest.fixture(scope="session")
def images() -> Dataset:
    """60 small images of 3 classes."""
    rng = np.random.default_rng(2)
    y = np.arange(60) % 3
    x = (rng.integers(0, 200, (60, 3, 8, 8)) + 20 * y[:, None, None, None]).astype(np.uint8)
    return Dataset("images", x, y.astype(np.int64), 3, "noise made for tests")


@pytest.fixture(scope="session")
def tiny_recipe() -> Recipe:
    """A small network and a short schedule."""
    return Recipe(model="mlp:hidden=32", epochs=6, milestones=(4,), batch_size=32)


@pytest.fixture
def task(blobs: Dataset, tiny_recipe: Recipe) -> Task:
    """100 members and 60 reference rows of the blobs."""
    return Task.of(blobs, np.arange(100), reference=np.arange(200, 260), recipe=tiny_recipe, seed=3)


def interrupted(defense: Defense, task: Task, folder: Path, where: tuple[str, int]) -> list[tuple[str, int]]:
    """Cut a fit in a phase and epoch, fit again from its checkpoints, and demand the uninterrupted fit bit for bit.

    Returns the phases and epochs that the second fit ran.
    """
    whole = defense.fit(task, Session())

    def cut(progress: Progress) -> None:
        if (progress.phase, progress.epoch) == where:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        defense.fit(task, Session(folder, every=0, tell=cut))
    told: list[tuple[str, int]] = []
    again = defense.fit(task, Session(folder, every=0, tell=lambda p: told.append((p.phase, p.epoch))))
    states = (fit.network.state_dict().values() for fit in (again, whole))
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
    assert again.history == whole.history
    return told

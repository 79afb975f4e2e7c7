"""SELENA: nobody is taught by a model that saw him; the student against a plain script; resuming, bit for bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from conftest import interrupted
from relaxloss import seeds
from relaxloss.data import Dataset
from relaxloss.defenses import NONE, selena
from relaxloss.defenses.distillation import Student
from relaxloss.defenses.selena import Selena, left_out, soft_cross_entropy
from relaxloss.errors import UserError
from relaxloss.training import Fit, Recipe, Session, Task, predict

RECIPE = Recipe(model="mlp:hidden=32", epochs=4, milestones=(3,), batch_size=64)


@pytest.fixture(scope="module")
def task() -> Task:
    x, y = load_digits(return_X_y=True)
    data = Dataset("digits", x[:300].astype(np.float32), y[:300].astype(np.int64), 10, "sklearn")
    return Task.of(data, np.arange(200), recipe=RECIPE, seed=4)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_every_row_is_left_out_of_exactly_l_models() -> None:
    out = left_out(20_000, 25, 10, torch.Generator().manual_seed(0))
    assert (out.sum(1) == 10).all()
    assert out.sum(0) == pytest.approx([8000] * 25, abs=4 * (20_000 * 0.4 * 0.6) ** 0.5)
    pairs = out.double().T @ out.double() / 20_000
    off = pairs[~torch.eye(25, dtype=torch.bool)]
    assert off == pytest.approx(np.full(600, 10 * 9 / (25 * 24)), abs=0.015)


class Watched:
    """Plain training that notes which rows each sub-model saw, and which rows it was asked about."""

    def __init__(self, task: Task) -> None:
        self.number = {row.numpy().tobytes(): i for i, row in enumerate(task.members.x)}
        assert len(self.number) == len(task.members)
        self.seen: list[set[int]] = []
        self.asked: list[set[int]] = []

    def rows(self, x: torch.Tensor) -> set[int]:
        return {self.number[row.numpy().tobytes()] for row in x}

    def fit(self, task: Task, session: Session) -> Fit:
        self.seen.append(self.rows(task.members.x))
        return NONE.fit(task, session)

    def predict(self, network: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        self.asked.append(self.rows(x))
        return predict(network, x)


def test_nobody_is_taught_by_a_model_that_saw_him(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(task)
    monkeypatch.setattr(selena, "NONE", watched)
    monkeypatch.setattr(selena, "predict", watched.predict)
    Selena(k=5, l=2).fit(task, Session())
    assert len(watched.seen) == len(watched.asked) == 5
    for seen, asked in zip(watched.seen, watched.asked, strict=True):
        assert not seen & asked
        assert seen | asked == set(range(200))
    assert [sum(i in asked for asked in watched.asked) for i in range(200)] == [2] * 200


def test_nobody_is_taught_by_a_model_that_saw_another_row_of_his(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    whose = torch.arange(200).flip(0) // 8 * 3
    task = dataclasses.replace(task, members=dataclasses.replace(task.members, whose=whose))
    watched = Watched(task)
    monkeypatch.setattr(selena, "NONE", watched)
    monkeypatch.setattr(selena, "predict", watched.predict)
    Selena(k=5, l=2).fit(task, Session())
    for seen, asked in zip(watched.seen, watched.asked, strict=True):
        persons = [{int(whose[row]) for row in rows} for rows in (seen, asked)]
        assert not persons[0] & persons[1]
        assert len(asked) == 8 * len(persons[1])


def test_student_learns_the_mean_of_the_models_that_never_saw(task: Task) -> None:
    """Teacher and student, written out; the student's answers are the mean of the left-out models' probabilities."""
    out = left_out(200, 4, 2, seeds.generator(4, "selena", "split"))
    mean = torch.zeros(200, 10, dtype=torch.float64)
    for i in range(4):
        part = dataclasses.replace(task, members=task.members.take((~out[:, i]).nonzero()[:, 0]))
        network = NONE.fit(dataclasses.replace(part, seed=seeds.seed(4, "selena", i)), Session()).network
        for row in range(200):
            if out[row, i]:
                mean[row] += predict(network, task.members.x[row : row + 1])[0].double().softmax(0) / 2
    assert mean.sum(1) == pytest.approx(np.ones(200))
    wanted = Student(mean.float(), soft_cross_entropy).fit(task, Session()).network
    given = Selena(k=4, l=2).fit(task, Session()).network
    for a, b in zip(given.parameters(), wanted.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_soft_cross_entropy_is_the_formula() -> None:
    chance = torch.Generator().manual_seed(0)
    logits, q = torch.randn(6, 4, generator=chance).double(), torch.rand(6, 4, generator=chance).double()
    q = q / q.sum(1, keepdim=True)
    printed = -(q * logits.softmax(1).log()).sum(1).mean()
    assert soft_cross_entropy(logits, q, torch.zeros(6)).item() == pytest.approx(printed.item(), abs=1e-12)


def test_protects_members(task: Task) -> None:
    """Where plain training memorises noise labels, SELENA's student answers members as it answers others."""
    chance = torch.Generator().manual_seed(0)
    noise = dataclasses.replace(task.members, y=torch.randint(10, (200,), generator=chance))
    memorised = dataclasses.replace(task, members=noise, recipe=dataclasses.replace(RECIPE, epochs=40, milestones=()))

    def hits(defense: Selena | None) -> float:
        network = (defense or NONE).fit(memorised, Session()).network
        return (predict(network, noise.x).argmax(1) == noise.y).float().mean().item()

    assert hits(None) > 0.6
    assert hits(Selena(k=3, l=1)) < 0.3


@pytest.mark.parametrize("where", [("teacher-0", 2), ("teacher-1", 4), ("model", 2)])
def test_resumes_bit_for_bit(task: Task, tmp_path: Path, where: tuple[str, int]) -> None:
    defense = Selena(k=3, l=1)
    told = interrupted(defense, task, tmp_path, where)
    phases = ["teacher-0", "teacher-1", "teacher-2", "model"]
    expected = [(phase, epoch) for phase in phases for epoch in range(1, 5)]
    assert told == expected[expected.index(where) :]


def test_settings(task: Task) -> None:
    points = [Selena(**setting) for setting in Selena.sweep]
    assert Selena() in points
    seen = [1 - point.l / point.k for point in points]
    assert seen == sorted(seen, reverse=True)  # mildest first: each model sees ever fewer of the members
    assert sum(point.k * share + 1 for point, share in zip(points, seen, strict=True)) == pytest.approx(31)  # trainings
    for wrong in ({"k": 1}, {"l": 0}, {"k": 5, "l": 5}):
        with pytest.raises(UserError, match=r"k=|l="):
            Selena(**wrong)
    few = dataclasses.replace(task, members=task.members.take(torch.arange(2)))
    with pytest.raises(UserError, match="2 members"):
        Selena(k=3, l=2).fit(few, Session())

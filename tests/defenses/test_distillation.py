"""Distillation: one student against a plain script of the formula; DMP; resuming, bit for bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F

from conftest import interrupted
from relaxloss import seeds
from relaxloss.data import Dataset
from relaxloss.defenses import NONE
from relaxloss.defenses.distillation import Distillation
from relaxloss.errors import UserError
from relaxloss.training import Recipe, Session, Task, predict
from relaxloss.training.task import make_network

RECIPE = Recipe(model="mlp:hidden=32", epochs=6, milestones=(4,), batch_size=64)
MEMBERS, REFERENCE = np.arange(200), np.arange(200, 380)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    x, y = load_digits(return_X_y=True)
    return Dataset("digits", x[:600].astype(np.float32), y[:600].astype(np.int64), 10, "sklearn")


@pytest.fixture(scope="module")
def task(digits: Dataset) -> Task:
    return Task.of(digits, MEMBERS, reference=REFERENCE, recipe=RECIPE, seed=4)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("on", ["members", "reference"])
def test_student_is_the_script(task: Task, on: str) -> None:
    """The teacher's answers, and the student's steps, written out from the formula."""
    temperature, weight = 3.0, 0.7
    teacher = NONE.fit(dataclasses.replace(task, seed=seeds.seed(4, "distillation", "teacher")), Session()).network
    rows = task.members if on == "members" else task.reference
    soft = (predict(teacher, rows.x) / temperature).softmax(1)
    student = make_network(NONE, task.encoder, task.shape, 10, RECIPE, 4)
    optimiser = torch.optim.SGD(student.net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    order = seeds.generator(4, "order")
    for epoch in range(RECIPE.epochs):
        for group in optimiser.param_groups:
            group["lr"] = 0.1 if epoch < 4 else 0.01
        for index in torch.randperm(len(rows), generator=order).split(64):
            logits = student(rows.x[index])
            p = (logits / temperature).softmax(1)
            gap = (soft[index] * (soft[index].log() - p.log())).sum(1).mean()
            loss = (1 - weight) * F.cross_entropy(logits, rows.y[index]) + weight * temperature**2 * gap
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    fit = Distillation(temperature=temperature, weight=weight, on=on).fit(task, Session())
    for given, wanted in zip(fit.network.parameters(), student.parameters(), strict=True):
        torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-5)
    assert not same(fit.network, teacher)


def test_weight_zero_is_plain_training(task: Task) -> None:
    assert same(Distillation(weight=0).fit(task, Session()).network, NONE.fit(task, Session()).network)


def test_distilled_answers_are_the_teachers(task: Task) -> None:
    long = dataclasses.replace(task, recipe=dataclasses.replace(RECIPE, epochs=40, milestones=()))
    teacher = NONE.fit(dataclasses.replace(long, seed=seeds.seed(4, "distillation", "teacher")), Session()).network
    wanted = predict(teacher, task.members.x).div(4).log_softmax(1)

    def gap(network: torch.nn.Module) -> float:
        given = predict(network, task.members.x).div(4).log_softmax(1)
        return F.kl_div(given, wanted, reduction="batchmean", log_target=True).item()

    distilled = Distillation(weight=1.0, temperature=4.0).fit(long, Session()).network
    assert gap(distilled) < 0.3 * gap(NONE.fit(long, Session()).network)


def test_dmp_never_uses_the_members_except_through_the_teacher(task: Task) -> None:
    """With other labels for the members and the old teacher's answers, nothing changes; labels of the reference do."""
    defense = Distillation(weight=1.0, temperature=4.0, on="reference")
    assert defense.needs_reference()
    assert not Distillation().needs_reference()
    first = defense.fit(task, Session()).network
    wrong = dataclasses.replace(task.reference, y=(task.reference.y + 1) % 10)
    assert same(defense.fit(dataclasses.replace(task, reference=wrong), Session()).network, first)
    half = dataclasses.replace(defense, weight=0.5)
    assert not same(
        half.fit(dataclasses.replace(task, reference=wrong), Session()).network, half.fit(task, Session()).network
    )
    with pytest.raises(UserError, match="reference"):
        defense.fit(dataclasses.replace(task, reference=task.reference.take(torch.arange(0))), Session())


@pytest.mark.parametrize("where", [("teacher", 2), ("teacher", 6), ("model", 3)])
def test_resumes_bit_for_bit(task: Task, tmp_path: Path, where: tuple[str, int]) -> None:
    defense = Distillation()
    told = interrupted(defense, task, tmp_path, where)
    expected = [("teacher", e) for e in range(1, 7)] + [("model", e) for e in range(1, 7)]
    assert told == expected[expected.index(where) :]  # the epoch that was cut is done again, those before it are not


def test_settings() -> None:
    assert [Distillation(**setting).weight for setting in Distillation.sweep] == [0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.0]
    for wrong in ({"weight": 1.5}, {"temperature": 0}, {"on": "test"}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            Distillation(**wrong)

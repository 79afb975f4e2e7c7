"""HAMP: the loss against the printed formula, the release against a loop, and its promises on real digits."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from relaxloss import defenses
from relaxloss.data import Column, Dataset
from relaxloss.defenses import NONE
from relaxloss.defenses.hamp import HAMP, RandomOrder, reordered
from relaxloss.errors import UserError
from relaxloss.storage.store import pack_weights, unpack_weights
from relaxloss.training import Recipe, Session, Task, predict
from relaxloss.training.task import Network

RECIPE = Recipe(model="mlp:hidden=32", epochs=12, milestones=(), batch_size=64)


def task_on(data: Dataset) -> Task:
    return Task.of(data, np.arange(0, len(data), 2), recipe=RECIPE, seed=5)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    x, y = load_digits(return_X_y=True)
    return Dataset("digits", x[:600].astype(np.float32), y[:600].astype(np.int64), 10, "sklearn")


@pytest.fixture(scope="module")
def plain(digits: Dataset) -> Network:
    return NONE.fit(task_on(digits), Session()).network


def test_loss_is_the_printed_formula() -> None:
    chance = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 5, generator=chance, dtype=torch.float64).mul(3).requires_grad_(True)
    targets = torch.tensor([0, 1, 2, 3, 4, 0, 1])
    gamma, alpha = 0.6, 0.3
    low, high = 0.2, 1.0  # p by bisection on the entropy
    for _ in range(200):
        p = (low + high) / 2
        entropy = -p * math.log(p) - (1 - p) * math.log((1 - p) / 4)
        low, high = (p, high) if entropy > gamma * math.log(5) else (low, p)
    soft = torch.full((7, 5), (1 - p) / 4, dtype=torch.float64)
    soft[range(7), targets] = p
    f = logits.softmax(1)
    printed = ((soft * (soft / f).log()).sum(1) + alpha * (f * f.log()).sum(1)).mean()
    loss = HAMP(gamma=gamma, alpha=alpha).loss(logits, targets, None)
    assert loss.item() == pytest.approx(printed.item(), abs=1e-12)
    wanted, given = (torch.autograd.grad(value, logits)[0] for value in (printed, loss))
    torch.testing.assert_close(given, wanted, rtol=0, atol=1e-12)


def test_reordered_is_the_loop() -> None:
    chance = np.random.default_rng(0)
    scores, others = (torch.from_numpy(chance.normal(size=(50, 8)).round(1)) for _ in range(2))  # with ties
    expected = torch.empty_like(others)
    for i in range(50):
        ranked = sorted(range(8), key=lambda c: (-scores[i, c].item(), c))
        for c, value in zip(ranked, sorted(others[i].tolist(), reverse=True), strict=True):
            expected[i, c] = value
    given = reordered(scores, others)
    torch.testing.assert_close(given, expected, rtol=1e-12, atol=0)
    assert torch.equal(given.argmax(1), scores.argmax(1))


def test_release_keeps_order_and_nothing_else(digits: Dataset, plain: Network) -> None:
    release = HAMP(train=False).release(plain, task_on(digits)).eval()
    x = torch.from_numpy(digits.x)
    before, after = predict(plain, x), predict(release, x)
    assert torch.equal(before.argmax(1), after.argmax(1))
    assert torch.equal(before.argsort(dim=1, stable=True), after.argsort(dim=1, stable=True))
    fake = predict(plain, release.random_inputs(x))
    torch.testing.assert_close(after.sort(1).values, fake.sort(1).values, rtol=1e-5, atol=1e-5)
    together = np.corrcoef(before.amax(1), after.amax(1))[0, 1]
    assert abs(together) < 4 / math.sqrt(len(x))
    assert before.amax(1).std() > 0.1
    assert after.amax(1).std() > 0.1


def test_release_answers_the_same_query_the_same(digits: Dataset, plain: Network) -> None:
    release = HAMP(train=False).release(plain, task_on(digits)).eval()
    x = torch.from_numpy(digits.x[:40])
    first = release(x)
    assert torch.equal(first, release(x))
    with torch.inference_mode():
        assert torch.equal(first, release(x))
    other = RandomOrder(plain, release.key.flip(0))
    assert not torch.allclose(first, other(x))
    assert release(x[:0]).shape == (0, 10)


def kinds() -> list[Dataset]:
    chance = np.random.default_rng(1)
    y = np.arange(400) % 3
    table = np.stack([chance.normal(50, 9, 400), chance.integers(4, size=400), np.full(400, 7.0)], 1)
    table[::7, 0] = np.nan
    columns = (Column("a"), Column("b", ("p", "q", "r", "s")), Column("c"))
    return [
        Dataset("image", chance.integers(256, size=(400, 3, 8, 8), dtype=np.uint8), y, 3, ""),
        Dataset("bits", chance.integers(2, size=(400, 30), dtype=np.uint8), y, 3, ""),
        Dataset("table", table.astype(np.float32), y, 3, "", columns),
    ]


@pytest.mark.parametrize("data", kinds(), ids=lambda data: data.name)
def test_random_inputs_are_of_the_datas_kind(data: Dataset) -> None:
    task = Task.of(data, np.arange(400), recipe=RECIPE)
    net = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(data.shape)), 3))
    release = HAMP(train=False).release(Network(task.encoder, net), task)
    x = torch.from_numpy(data.x)
    rows = release.random_inputs(x)
    assert rows.shape == x.shape
    assert rows.dtype == x.dtype
    assert release(x).isfinite().all()
    if data.kind == "image":
        assert rows.float().mean() == pytest.approx(127.5, abs=1)
        assert (rows.min(), rows.max()) == (0, 255)
    elif data.kind == "bits":
        assert rows.float().mean() == pytest.approx(0.5, abs=0.02)
        assert torch.equal(release.random_inputs(x.float()), rows)
    else:
        assert rows[:, 0].mean() == pytest.approx(50, abs=3)
        assert rows[:, 0].std() == pytest.approx(9, abs=1.5)
        assert torch.bincount(rows[:, 1].long(), minlength=4) == pytest.approx([100] * 4, abs=40)
        assert len(rows[:, 1].unique()) == 4
    assert len(rows.unique(dim=0)) == len(x.float().nan_to_num(-1).unique(dim=0))


def test_training_raises_entropy(digits: Dataset, plain: Network) -> None:
    task = task_on(digits)

    def entropy(network: nn.Module) -> float:
        log_p = predict(network, task.members.x).double().log_softmax(1)
        return -(log_p.exp() * log_p).sum(1).mean().item()

    modest = HAMP(gamma=0.8, alpha=0.0).fit(task, Session()).network
    bonus = HAMP(gamma=0.8, alpha=0.5).fit(task, Session()).network
    assert entropy(plain) < 0.3
    assert entropy(modest) == pytest.approx(0.8 * math.log(10), abs=0.1)
    assert entropy(bonus) > entropy(modest) + 0.1
    hits = (predict(modest, task.members.x).argmax(1) == task.members.y).float().mean()
    assert hits > 0.9


def test_parts_and_their_training() -> None:
    both, release = HAMP(), HAMP(train=False)
    assert both.trainer == dataclasses.replace(both, reorder=False)
    assert both.trainer.trainer == both.trainer
    assert release.trainer == NONE
    assert defenses.parse("relaxloss:alpha=1+hamp:train=false").trainer == defenses.parse("relaxloss:alpha=1")
    with pytest.raises(UserError, match="release-time"):
        defenses.parse("none+hamp")
    with pytest.raises(UserError, match="gamma"):
        HAMP(gamma=1.0)


@pytest.mark.parametrize("setting", [{"train": False, "reorder": False}, {"gamma": 0, "alpha": 0, "reorder": False}])
def test_neutral_is_plain_training(digits: Dataset, plain: Network, setting: dict) -> None:
    task = task_on(digits)
    defense = HAMP(**setting)
    network = defense.fit(task, Session()).network
    assert defense.release(network, task) is network
    for given, wanted in zip(network.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(given, wanted)


def test_saved_and_loaded_and_composed(digits: Dataset, plain: Network) -> None:
    x = torch.from_numpy(digits.x[:50])
    for defense in (HAMP(train=False), defenses.parse("none+hamp:train=false+hamp:train=false")):
        release = defense.release(plain, task_on(digits)).eval()
        fresh = NONE.fit(dataclasses.replace(task_on(digits), seed=9), Session()).network
        shell = defense.release(fresh, None).eval()
        assert not torch.equal(shell(x), release(x))
        shell.load_state_dict(unpack_weights(pack_weights(release.state_dict())))
        assert torch.equal(shell(x), release(x))

"""MemGuard against a per-sample loop of its printed algorithm, and its promises on a trained model, as numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from relaxloss import defenses
from relaxloss.data import Dataset
from relaxloss.defenses import NONE, Defense, memguard
from relaxloss.defenses._queries import digests, keep_label, secret_key, uniforms
from relaxloss.defenses.memguard import Attacker, MemGuard, phase_one, phase_two
from relaxloss.errors import UserError
from relaxloss.storage.store import pack_weights, unpack_weights
from relaxloss.training import Recipe, Session, Task, predict

MEMBERS, REFERENCE, OTHERS = np.arange(150), np.arange(150, 300), np.arange(300, 400)


def slow_phase_one(z: torch.Tensor, attacker: nn.Module, iterations: int = 300) -> torch.Tensor:
    """Phase I for one row of logits, any order: the printed objective, its gradient by autograd, one step at a time."""
    s = torch.softmax(z, 0)
    label = int(z.argmax())
    others = [c for c in range(len(z)) if c != label]

    def h(x: torch.Tensor) -> torch.Tensor:
        return attacker(torch.softmax(x, 0)[None])[0]

    with torch.no_grad():
        initial = torch.sigmoid(h(z)).item()
    answer = z.clone()
    if abs(initial - 0.5) <= 1e-5:
        return answer
    c3 = 0.1
    while c3 <= 1e5:
        x = z.clone()
        for _ in range(iterations):
            x.requires_grad_(True)
            gap = x[others].max() - x[label]
            loss = h(x).abs() + 10 * F.relu(gap) + c3 * (torch.softmax(x, 0) - s).abs().sum()
            (gradient,) = torch.autograd.grad(loss, x)
            x = (x - 0.1 * gradient / gradient.norm()).detach()
            with torch.no_grad():
                score = torch.sigmoid(h(x)).item()
            if int(x.argmax()) == label and (score - 0.5) * (initial - 0.5) <= 0:
                break
        else:
            return answer
        answer, c3 = x, c3 * 10
    return answer


def example(rows: int, classes: int, *, steep: float = 1.0, seed: int = 0) -> tuple[torch.Tensor, Attacker]:
    """Ascending logits of confident members and doubtful others, and an attacker that tells them apart.

    `steep` multiplies h: a steep attacker outweighs larger c3.
    """
    chance = torch.Generator().manual_seed(seed)
    member = (torch.arange(rows) % 2 == 0).float()
    z = torch.randn(rows, classes, generator=chance) * (1 + 2 * torch.rand(rows, 1, generator=chance))
    z[:, 0] += torch.where(member > 0, 10.0, 3.0)
    z = z.sort(1).values
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        attacker = Attacker(classes)
    attacker.fit(z.softmax(1), member, chance, MemGuard(epochs=40_000 // max(rows, 64), lr=1e-2))
    attacker.double().requires_grad_(False)
    for parameter in attacker.layers[-1].parameters():
        parameter *= steep
    return z.double(), attacker


@pytest.fixture(scope="module")
def digits() -> tuple[Dataset, Task, nn.Module, nn.Module]:
    x, y = load_digits(return_X_y=True)
    data = Dataset("digits", x[:400].astype(np.float32), y[:400].astype(np.int64), 10, "sklearn")
    recipe = Recipe(model="mlp:hidden=64", epochs=20, milestones=(), batch_size=64)
    task = Task.of(data, MEMBERS, reference=REFERENCE, recipe=recipe, seed=3)
    network = NONE.fit(task, Session()).network
    return data, task, network, MemGuard(budget=0.3, epochs=60, lr=0.03).release(network, task).eval()


def answers(release: nn.Module, data: Dataset, rows: np.ndarray) -> torch.Tensor:
    return predict(release, torch.from_numpy(data.x[rows])).double()


def noised_and_clean(release: nn.Module, network: nn.Module, data: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """Ascending clean logits of all rows, and phase I's."""
    z = answers(network, data, np.arange(len(data))).sort(1).values
    return phase_one(z, release.attacker), z  # independent of the budget


def test_slope_is_autograds() -> None:
    z, attacker = example(40, 12)
    p = z.softmax(1).requires_grad_(True)
    h = attacker(p)
    (gradient,) = torch.autograd.grad(h.sum(), p)
    value, slope = attacker.slope(p.detach())
    torch.testing.assert_close(value, h.detach(), rtol=0, atol=1e-14)
    torch.testing.assert_close(slope, gradient, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("classes", "steep"), [(2, 1.0), (10, 1.0), (10, 1e3), (100, 1.0), (100, 1e5)])
def test_phase_one_equals_the_loop(classes: int, steep: float) -> None:
    z, attacker = example(64, classes, steep=steep, seed=classes)
    z = z[:6]
    fast = phase_one(z, attacker)
    slow = torch.stack([slow_phase_one(row, attacker) for row in z])
    assert (fast.softmax(1) - slow.softmax(1)).abs().max() <= 1e-4
    moved = (fast.softmax(1) - z.softmax(1)).abs().sum(1) > 1e-3
    assert moved.float().mean() > 0.8


def test_phase_one_fools_the_attacker_and_keeps_the_label() -> None:
    z, attacker = example(200, 30)
    noised = phase_one(z, attacker)
    moved = (noised != z).any(1)
    assert moved.float().mean() > 0.9
    assert (attacker(noised.softmax(1)) * attacker(z.softmax(1)) <= 0)[moved].all()
    assert (noised.argmax(1) == 29).all()


def test_larger_c3_keeps_closer(monkeypatch: pytest.MonkeyPatch) -> None:
    """All seven weights of the distance are tried, and the last success is closer than the first."""
    z, attacker = example(40, 10, steep=1e5, seed=10)
    distances, answers = [], []
    for levels in (1, 6, 7):
        monkeypatch.setattr(memguard, "LEVELS", levels)
        answers.append(phase_one(z, attacker, iterations=100))
        distances.append((answers[-1].softmax(1) - z.softmax(1)).abs().sum(1).mean())
    assert distances[2] < distances[0] - 0.002
    assert (answers[2] != answers[1]).any(1).sum() > 20


def test_undecided_rows_get_no_noise() -> None:
    z, attacker = example(50, 10)
    for parameter in attacker.layers[-1].parameters():
        parameter.zero_()
    assert torch.equal(phase_one(z, attacker), z)


def test_a_hard_answer_has_no_slope_and_stays() -> None:
    """A probability of exactly 1 has gradient 0: the row ends after its iterations, unchanged and without NaN."""
    z, attacker = example(50, 10)
    z[:5, :-1], z[:5, -1] = -2000.0, 0.0
    noised = phase_one(z, attacker)
    assert torch.equal(noised[:5], z[:5])
    assert noised.isfinite().all()


def test_phase_two_is_the_formula() -> None:
    z, attacker = example(60, 10)
    s, r = z.softmax(1), phase_one(z, attacker).softmax(1)
    r[:5] = s[:5]
    r[5:10] = F.one_hot(torch.full((5,), 9), 10)
    for budget in (0.0, 0.05, 0.4, 2.0):
        chance = phase_two(s, r, attacker, budget)
        for i in range(60):
            g = [torch.sigmoid(attacker(p[i : i + 1].sort(1).values)).item() for p in (s, r)]
            distance = (s[i] - r[i]).abs().sum().item()
            expected = 0.0 if abs(g[0] - 0.5) <= abs(g[1] - 0.5) else min(budget / distance, 1.0)
            assert chance[i].item() == pytest.approx(expected, abs=1e-12)
    assert (chance[:5] == 0).all()
    assert (chance == 1).any()


def test_label_never_changes_and_answers_are_normalised(digits: tuple) -> None:
    data, _, network, release = digits
    rows = np.arange(len(data))
    log_p, logits = answers(release, data, rows), answers(network, data, rows)
    assert torch.equal(log_p.argmax(1), logits.argmax(1))
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(len(data), dtype=torch.float64), rtol=0, atol=1e-5)
    changed = (log_p.exp() - logits.softmax(1)).abs().sum(1) > 1e-4
    assert 0.1 < changed.double().mean() < 1


def test_expected_distance_is_within_the_budget(digits: tuple) -> None:
    """Exactly, in expectation over the draw; and the draws of many rows agree with it."""
    data, _, network, release = digits
    noised, z = noised_and_clean(release, network, data)
    distance = (noised.softmax(1) - z.softmax(1)).abs().sum(1)
    for budget in (0.05, 0.3, 1.0):
        expected = phase_two(z.softmax(1), noised.softmax(1), release.attacker, budget) * distance
        assert (expected <= budget + 1e-12).all()
        assert (expected > 0.99 * budget).any() or budget == 1
    expected = phase_two(z.softmax(1), noised.softmax(1), release.attacker, release.budget) * distance
    released = answers(release, data, np.arange(len(data))).exp()
    measured = (released - answers(network, data, np.arange(len(data))).softmax(1)).abs().sum(1)
    spread = (expected * (distance - expected).clamp_min(0)).sum().sqrt() / len(data)
    assert abs(measured.mean() - expected.mean()) < 4 * spread + 1e-5
    assert expected.mean() > 0


def test_attacker_loses(digits: tuple) -> None:
    """At a large budget the surrogate itself tells members from others no better than a guess; before, it did."""
    data, task, network, _ = digits
    release = MemGuard(budget=2.0, epochs=60, lr=0.03).release(network, task).eval()
    rows = np.concatenate([MEMBERS, REFERENCE])
    member = torch.arange(len(rows)) < len(MEMBERS)

    def gain(p: torch.Tensor) -> float:
        g = release.attacker(p.sort(1).values).sigmoid() - 0.5
        return g.abs().mean().item()

    assert (
        (release.attacker(answers(network, data, rows).softmax(1).sort(1).values) > 0) == member
    ).float().mean() > 0.55
    assert gain(answers(release, data, rows).exp()) < 0.2 * gain(answers(network, data, rows).softmax(1))


def test_one_draw_per_input(digits: tuple) -> None:
    data, _, _, release = digits
    x = torch.from_numpy(data.x[:30])
    first = release(x)
    assert torch.equal(first, release(x))
    shuffled = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(release(x[shuffled]), first[shuffled], rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.cat([release(part) for part in x.split(7)]), first, rtol=0, atol=1e-5)
    with torch.inference_mode():
        assert torch.equal(first, release(x))


def test_draws_are_uniform_and_of_the_value() -> None:
    key = torch.arange(32, dtype=torch.uint8)
    x = torch.arange(40_000, dtype=torch.float32)[:, None]
    draws = uniforms(digests(x, key))
    assert np.histogram(draws, 20, (0, 1))[0] == pytest.approx(2000, abs=200)
    bits = torch.tensor([[0, 1, 1]], dtype=torch.uint8)
    assert digests(bits, key) == digests(bits.float(), key) == digests(torch.tensor([[-0.0, 1, 1]]), key)
    nan = torch.tensor([[np.nan, 1.0]])
    other = torch.tensor([[-1.0, 1.0]]).copysign(nan).where(~nan.isnan(), -nan)
    assert not torch.equal(nan.view(torch.int32), other.view(torch.int32))
    assert digests(nan, key) == digests(other, key)
    assert digests(nan, key) != digests(torch.tensor([[0.0, 1.0]]), key)
    assert digests(bits, key) != digests(bits, key.flip(0))


def test_keep_label_breaks_ties_only() -> None:
    output = torch.tensor([[0.5, 0.5, -1.0], [1.0, 2.0, 3.0]])
    kept = keep_label(output, torch.tensor([1, 2]))
    assert kept.argmax(1).tolist() == [1, 2]
    assert torch.equal(kept[1], output[1])
    torch.testing.assert_close(kept, output, rtol=1e-6, atol=0)


def test_tied_logits_keep_the_networks_label(digits: tuple) -> None:
    """Equal logits, and some so near that their float32 log-probabilities are equal."""
    _, task, network, _ = digits
    guard = MemGuard(budget=2.0, epochs=1).release(network, task)
    near = [0.0, 1e-9, 2e-9, *[-5.0] * 7]
    masked = [1.0, 3.0, *[-torch.inf] * 8]
    guard.network = Table(torch.tensor([[3.0, 3.0, 3.0, *[0.0] * 7], [1.0] * 10, near, masked]))
    assert torch.tensor(near).log_softmax(0).argmax() == 0
    out = guard(torch.arange(4.0)[:, None])
    assert out.argmax(1).tolist() == [0, 0, 2, 1]
    torch.testing.assert_close(out.exp().sum(1), torch.ones(4))


class Table(nn.Module):
    """Row i of fixed logits for the input i."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("logits", logits)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits[x[:, 0].long()]


def test_saved_and_loaded(digits: tuple) -> None:
    data, task, _, release = digits
    state = unpack_weights(pack_weights(release.state_dict()))
    shell = MemGuard(budget=0.3).release(NONE.fit(task, Session()).network, None).eval()
    assert not torch.equal(shell.key, release.key)
    shell.load_state_dict(state)
    rows = np.arange(100)
    assert torch.equal(answers(shell, data, rows), answers(release, data, rows))


def test_settings() -> None:
    guard: Defense = defenses.parse("memguard:budget=0.5")
    assert guard.trainer == NONE
    assert guard.needs_reference()
    assert not MemGuard(budget=0).needs_reference()
    assert [setting["budget"] for setting in MemGuard.sweep] == sorted(setting["budget"] for setting in MemGuard.sweep)
    with pytest.raises(UserError, match="budget"):
        MemGuard(budget=2.5)


def test_errors(digits: tuple) -> None:
    data, task, network, _ = digits
    alone = Task.of(data, MEMBERS, recipe=task.recipe)
    assert MemGuard(budget=0).release(network, alone) is network
    with pytest.raises(UserError, match="reference"):
        MemGuard().release(network, alone)
    with pytest.raises(UserError, match="Linear"):
        MemGuard().release(nn.Linear(3, 2), None)


def test_behind_another_defense(digits: tuple) -> None:
    data, task, network, _ = digits
    both = defenses.parse("relaxloss:alpha=0.5+memguard:budget=1,epochs=2")
    assert str(both.trainer) == "relaxloss:alpha=0.5"
    out = answers(both.release(network, task).eval(), data, OTHERS)
    assert torch.equal(out.argmax(1), answers(network, data, OTHERS).argmax(1))
    twice = defenses.parse("none+memguard:budget=1,epochs=2+memguard:budget=1,epochs=2")
    assert answers(twice.release(network, task).eval(), data, OTHERS).isfinite().all()


def test_key_comes_from_the_seed(digits: tuple) -> None:
    _, task, _, release = digits
    assert torch.equal(release.key, secret_key(task, "memguard"))
    assert len(set(release.key.tolist())) > 16
    seeds_and_names = [(seed, name) for seed in (1, 2, 3) for name in ("memguard", "hamp")]
    keys = {bytes(secret_key(replace(task, seed=seed), name).tolist()) for seed, name in seeds_and_names}
    assert len(keys) == 6, "of each seed and each release another"


def test_groups_of_other_sizes_weigh_the_same_to_the_surrogate() -> None:
    """Where nothing tells members, it is undecided, and does not say what most are."""
    torch.manual_seed(0)
    attacker, p = Attacker(4), torch.full((100, 4), 0.25)
    guard = MemGuard(epochs=200, lr=0.1)
    attacker.fit(p, (torch.arange(100) < 90).float(), torch.Generator().manual_seed(0), guard)
    assert attacker(p[:1]).sigmoid().item() == pytest.approx(0.5, abs=0.05)

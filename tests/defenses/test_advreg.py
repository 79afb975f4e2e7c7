"""Adversarial regularisation: the first rounds against a script that follows the paper step by step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from relaxloss import seeds, training
from relaxloss.data import Dataset, Encoder
from relaxloss.defenses import NONE, parse
from relaxloss.defenses.advreg import AdvReg, Attacker
from relaxloss.training import Session, State
from relaxloss.training.task import Recipe, Task, make_network

RECIPE = Recipe(model="mlp:hidden=16", epochs=2, milestones=(), batch_size=32)


def make_task(dataset: Dataset, members: int = 100, recipe: Recipe = RECIPE) -> Task:
    return Task.of(dataset, np.arange(members), reference=np.arange(200, 260), recipe=recipe, seed=3)


def by_hand(task: Task, weight: float, gain: str, rounds: tuple[int, int]) -> nn.Module:
    """Two networks in turn, nothing shared with the defense but the initial weights and the random streams.

    Every attacker batch goes through the target anew, and the log gain and its sigmoid are written out.
    """
    recipe = task.recipe
    target = make_network(NONE, task.encoder, task.shape, task.num_classes, recipe, task.seed)
    with seeds.isolated(task.seed, "advreg"):
        attacker = Attacker(task.num_classes, "small")
    order, chance = seeds.generator(task.seed, "order"), seeds.generator(task.seed, "chance")
    sgd = torch.optim.SGD(target.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    adam = torch.optim.Adam(attacker.parameters(), lr=1e-2)
    x, y, rx, ry = task.members.x, task.members.y, task.reference.x, task.reference.y
    for epoch in range(recipe.epochs):
        sgd.param_groups[0]["lr"] = recipe.learning_rate(epoch)
        for step, index in enumerate(torch.randperm(len(y), generator=order).split(32)):
            if epoch >= 1 and step % rounds[1] == 0:
                sides = []
                for size in (len(y), len(ry)):
                    need = 32 * rounds[0]
                    shuffles = [torch.randperm(size, generator=chance) for _ in range(-(-need // size))]
                    sides.append(torch.cat(shuffles)[:need].split(32))
                for m, r in zip(*sides, strict=True):
                    with torch.no_grad():
                        z_m, z_r = target(x[m]), target(rx[r])
                    h_m, h_r = torch.sigmoid(attacker(z_m, y[m])), torch.sigmoid(attacker(z_r, ry[r]))
                    if gain == "square":
                        bad = ((h_m - 1).square().sum() + h_r.square().sum()) / 64
                    else:
                        bad = -(h_m.log().sum() + (1 - h_r).log().sum()) / 64
                    adam.zero_grad()
                    bad.backward()
                    adam.step()
            logits = target(x[index])
            loss = nn.functional.cross_entropy(logits, y[index])
            if epoch >= 1:
                h = torch.sigmoid(attacker(logits, y[index]))
                loss = loss + weight * (h.mean() - 0.5 if gain == "square" else h.log().mean())
            sgd.zero_grad()
            loss.backward()
            sgd.step()
    return target


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything in float64. The attacker's first gradients cancel almost to nothing and Adam scales what is left to
    full steps: in float32 two orders of summation differ by a hundredth after 100 steps, in float64 by 1e-11."""
    encode = Encoder.forward
    monkeypatch.setattr(Encoder, "forward", lambda self, x: encode(self, x).double())
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("gain", ["square", "log"])
@pytest.mark.parametrize(("schedule", "rounds"), [("tabular", (50, 2)), ("images", (4, 4))])
def test_first_rounds_equal_a_script_step_by_step(
    blobs: Dataset, gain: Literal["square", "log"], schedule: Literal["tabular", "images"], rounds: tuple[int, int]
) -> None:
    task = make_task(blobs)
    defense = AdvReg(weight=30.0, schedule=schedule, warmup=1, attacker="small", attacker_lr=1e-2, gain=gain)
    networks = training.fit(defense, task).network, by_hand(task, 30.0, gain, rounds), training.fit(NONE, task).network
    ours, theirs, plain = (torch.cat([p.detach().flatten() for p in network.parameters()]) for network in networks)
    assert (ours - plain).abs().max() > 0.1  # the game was played
    assert (ours - theirs).abs().max() < 1e-9


def test_the_attacker_learns_who_is_a_member_and_the_game_lowers_what_it_knows(blobs: Dataset) -> None:
    """On an overfitted target the attacker's gain is well above chance, and less where the target plays against it."""
    recipe = Recipe(model="mlp:hidden=64", epochs=30, milestones=(25,), batch_size=32)
    gains = {}
    for weight in (1e-6, 5.0):
        task, kept = make_task(blobs, 60, recipe), []

        class Kept(AdvReg):
            def finish(self, state: State) -> dict[str, float | str]:
                kept.append(state)  # noqa: B023
                return {}

        training.fit(Kept(weight=weight, warmup=5, attacker="small"), task)
        attacker, network = kept[0].extras["attacker"], kept[0].network.eval()
        with torch.no_grad():
            h = [attacker(network(s.x), s.y).sigmoid() for s in (task.members, task.reference)]
        gains[weight] = (h[0][:, None] > h[1]).double().mean().item()
    assert gains[1e-6] > 0.75
    assert gains[5.0] < gains[1e-6] - 0.05


def test_only_the_trained_network_changes(blobs: Dataset) -> None:
    """The attacker's round leaves the target alone, its mode too; the target's step leaves the attacker alone."""
    seen = []

    class Watched(AdvReg):
        def train_attacker(self, state: State, steps: int) -> None:
            before = training.copy_of(state.network)
            super().train_attacker(state, steps)
            assert steps == 50
            assert state.network.training
            assert all(torch.equal(before[name], value) for name, value in state.network.state_dict().items())
            assert all(p.grad is None or not p.requires_grad for p in state.extras["attacker"].parameters())
            assert not state.extras["attacker"].training
            seen.append(training.copy_of(state.extras["attacker"]))

        def loss(self, logits: torch.Tensor, targets: torch.Tensor, state: State) -> torch.Tensor:
            if seen:
                now = state.extras["attacker"].state_dict()
                assert all(torch.equal(value, now[name]) for name, value in seen[-1].items())
            return super().loss(logits, targets, state)

    training.fit(Watched(weight=2.0, warmup=1, attacker="small"), make_task(blobs), Session())
    assert len(seen) == 2  # one epoch after the warm-up, of four batches, with a round before every second
    assert not torch.equal(seen[0]["on_both.0.weight"], seen[1]["on_both.0.weight"])


def test_the_attacker_is_the_papers(blobs: Dataset) -> None:
    attacker = Attacker(100)
    layers = [(m.in_features, m.out_features) for m in attacker.modules() if isinstance(m, nn.Linear)]
    assert layers == [
        (100, 1024), (1024, 512), (512, 64),
        (100, 128), (128, 64),
        (128, 512), (512, 256), (256, 128), (128, 64), (64, 1),
    ]  # fmt: skip
    weights = torch.cat([m.weight.flatten() for m in attacker.modules() if isinstance(m, nn.Linear)])
    assert weights.mean().item() == pytest.approx(0, abs=1e-4)
    assert weights.std().item() == pytest.approx(0.01, rel=0.01)
    assert isinstance(attacker.on_both[-1], nn.Linear)  # no ReLU at the end
    torch.manual_seed(0)
    for p in attacker.parameters():
        nn.init.normal_(p, 0, 0.1)
    z = torch.randn(8, 100)
    assert not torch.equal(attacker(z, torch.zeros(8).long()), attacker(z, torch.ones(8).long()))  # the label counts


def test_a_small_reference_set_is_enough(blobs: Dataset) -> None:
    recipe = replace(RECIPE, epochs=2)
    task = Task.of(blobs, np.arange(100), reference=np.arange(200, 205), recipe=recipe, seed=3)
    history = training.fit(parse("advreg:weight=2,warmup=0,attacker=small"), task).history
    assert np.isfinite(history[-1]["train_loss"])


def test_the_target_stands_still_while_the_attacker_learns(images: Dataset) -> None:
    """In eval mode: batch norm's running statistics are used and not moved, though its batches would give others."""
    recipe = Recipe(model="resnet20:blocks=1,width=4", epochs=1, milestones=(), batch_size=16)
    task = Task.of(images, np.arange(32), reference=np.arange(32, 60), recipe=recipe, seed=3)
    seen = []

    class Watched(AdvReg):
        def train_attacker(self, state: State, steps: int) -> None:
            before = training.copy_of(state.network)
            modes: list[bool] = []
            with state.network.net.register_forward_hook(lambda net, *_: modes.append(net.training)):
                super().train_attacker(state, steps)
            after = state.network.state_dict()
            assert all(torch.equal(value, after[name]) for name, value in before.items())
            seen.append((steps, modes, state.network.training))

    training.fit(Watched(weight=2.0, warmup=0, attacker="small"), task)
    assert len(seen) == 1  # images: one pass each
    steps, modes, back = seen[0]
    assert steps == 2
    assert modes
    assert not any(modes)
    assert back


def test_what_auto_means(blobs: Dataset, images: Dataset) -> None:
    """Tables: rounds and, below 20,000 members, the small attacker; images: passes and the large one."""
    nets = Recipe(model="mlp:hidden=16", epochs=1, milestones=(), batch_size=16)
    pictures = Task.of(images, np.arange(32), reference=np.arange(32, 60), recipe=nets, seed=3)
    for task, schedule, size in ((make_task(blobs), "tabular", "small"), (pictures, "images", "large")):
        found = []
        for settings in ("", f",schedule={schedule},attacker={size}"):
            network = training.fit(parse(f"advreg:weight=3,warmup=0,attacker_lr=0.01{settings}"), task).network
            found.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
        assert torch.equal(*found)

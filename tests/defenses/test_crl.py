"""CRL: both losses' gradients against float64 autograd of the printed formulas, and training against a plain script."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from relaxloss import functional, seeds, training
from relaxloss.data import Dataset
from relaxloss.defenses import NONE
from relaxloss.defenses.crl import CRL
from relaxloss.errors import UserError
from relaxloss.training import Session, State, predict
from relaxloss.training.task import Recipe, Task, make_network

RECIPE = Recipe(model="mlp:hidden=16", epochs=6, milestones=(4,), batch_size=32)


def bounded(rows: torch.Tensor, t: float) -> torch.Tensor:
    return torch.stack([row / (1 + t * row.square().sum().sqrt()) for row in rows])


def printed_loss(z: torch.Tensor, y: torch.Tensor, alpha: float, t: float, upper: float, ascent: bool) -> torch.Tensor:
    """RelaxLoss on z / (1 + t ‖z‖), sample by sample; the soft labels from the softmax of z itself."""
    log_p, raw = bounded(z, t).log_softmax(1), z.detach().softmax(1)
    mean = -sum(log_p[i, y[i]] for i in range(len(y))) / len(y)
    if mean >= alpha:
        return mean
    if ascent:
        return -mean
    total = torch.zeros((), dtype=z.dtype)
    for i, label in enumerate(y.tolist()):
        own = min(raw[i, label].item(), upper)
        for c in range(z.shape[1]):
            total = total - (own if c == label else (1 - own) / (z.shape[1] - 1)) * log_p[i, c]
    return total / len(y)


def printed_center_loss(
    f: torch.Tensor, c: torch.Tensor, p: torch.Tensor, alpha: float, upper: float, ascent: bool
) -> torch.Tensor:
    """Half the mean squared distance; below alpha ascending, or each sample between its centre and the origin."""
    b = len(f)
    mean = sum(((f[i] - c[i]) ** 2).sum() for i in range(b)) / (2 * b)
    if mean >= alpha:
        return mean
    if ascent:
        return -mean
    shares = [min(value, upper) for value in p.tolist()]
    return sum(
        w * ((f[i] - c[i]) ** 2).sum() + (1 - w) * (f[i] ** 2).sum() for i, w in enumerate(shares)
    ) / (2 * b)  # fmt: skip


def gradients(value: torch.Tensor, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(value, inputs, allow_unused=True)


@pytest.mark.parametrize("ascent", [True, False])
@pytest.mark.parametrize("alpha", [0.1, 100.0])
def test_gradients_are_those_of_the_printed_losses(alpha: float, ascent: bool) -> None:
    chance = torch.Generator().manual_seed(0)
    z, f, c = (torch.randn(9, 5, generator=chance, dtype=torch.float64).mul(3).requires_grad_() for _ in range(3))
    y = torch.arange(9) % 5
    given = functional.crl_loss(z, y, alpha=alpha, t=0.2, ascent=ascent, upper=0.7)
    wanted = printed_loss(z, y, alpha, 0.2, 0.7, ascent)
    torch.testing.assert_close(gradients(given, z), gradients(wanted, z), rtol=0, atol=1e-12)
    p = z.softmax(1).amax(1)
    assert p.max() > 0.8  # the bound on the confidence acts
    given = functional.relaxed_center_loss(f, c, p, alpha=alpha, ascent=ascent, upper=0.8)
    wanted = printed_center_loss(f, c, p.detach(), alpha, 0.8, ascent)
    torch.testing.assert_close(gradients(given, f, c), gradients(wanted, f, c), rtol=0, atol=1e-12)
    assert gradients(given, z) == (None,)  # none through the confidence


def test_the_bound_on_the_logits_is_not_in_the_soft_labels() -> None:
    z, y = torch.tensor([[6.0, 0.0, 0.0]], requires_grad=True), torch.zeros(1, dtype=torch.int64)
    given, mixed = (
        functional.relax_loss(
            functional.crl_logits(z, 1.0), y, alpha=9.0, ascent=False, confidence=each.softmax(1)[:, 0]
        )
        for each in (z, functional.crl_logits(z, 1.0))
    )
    assert functional.crl_loss(z, y, alpha=9.0, t=1.0, ascent=False) == given != mixed


def test_wrong_shapes_and_settings_are_refused() -> None:
    f, p = torch.zeros(4, 3), torch.zeros(4)
    for wrong in ((f, f[:2], p), (f, f, p[:2]), (f[0], f[0], p)):
        with pytest.raises(UserError, match=r"\(B, F\)"):
            functional.relaxed_center_loss(*wrong, alpha=0.1, ascent=True)
    with pytest.raises(UserError, match="alpha"):
        functional.relaxed_center_loss(f, f, p, alpha=-1.0, ascent=True)


def by_hand(task: Task, defense: CRL) -> tuple[nn.Module, torch.Tensor]:
    """CRL step by step: its network and its centres; counts nothing and hooks nothing."""
    recipe = task.recipe
    network = make_network(defense, task.encoder, task.shape, task.num_classes, recipe, task.seed)
    body, head = network.net[:-1], network.net[-1]  # type: ignore[index]
    with seeds.isolated(task.seed, "crl"):
        centers = torch.randn(task.num_classes, head.in_features).requires_grad_()
    sgd = recipe.make_optimiser(network.net.parameters())
    own = torch.optim.SGD(
        [centers], lr=defense.center_lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )  # fmt: skip
    order = seeds.generator(task.seed, "order")
    for epoch in range(recipe.epochs):
        sgd.param_groups[0]["lr"] = recipe.learning_rate(epoch)
        for index in torch.randperm(len(task.members), generator=order).split(recipe.batch_size):
            x, y = task.members.x[index], task.members.y[index]
            features = body(task.encoder(x))
            z = head(features)
            ascent = epoch % 2 == 1
            loss = printed_loss(z, y, defense.alpha, defense.t, defense.upper, ascent)
            f, c = bounded(features, defense.center_t), bounded(centers[y], defense.center_t)
            p = z.detach().softmax(1)[torch.arange(len(y)), y]
            loss = loss + defense.weight * printed_center_loss(f, c, p, defense.center_alpha, defense.upper, ascent)
            for optimiser in (sgd, own):
                optimiser.zero_grad()
            loss.backward()
            for optimiser in (sgd, own):
                optimiser.step()
    return network, centers.detach()


class Kept(CRL):
    """Keeps its state."""

    def finish(self, state: State) -> dict[str, float | str]:
        object.__setattr__(self, "state", state)
        return {}


@pytest.mark.parametrize(
    "settings",
    [
        {"alpha": 1.2, "t": 0.3, "weight": 0.5, "upper": 0.6, "center_alpha": 0.4},  # both losses come below alpha
        {"alpha": 0.5, "weight": 2.0, "center_alpha": 0.0, "center_t": 0.5, "center_lr": 0.5},
    ],
)
def test_training_equals_a_script_step_by_step(blobs: Dataset, settings: dict[str, Any]) -> None:
    task = Task.of(blobs, np.arange(96), recipe=RECIPE, seed=3)
    defense = Kept(**settings)
    ours, (theirs, centers) = training.fit(defense, task).network, by_hand(task, defense)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    learned = defense.state.extras["centers"].weight.detach()  # type: ignore[attr-defined]
    torch.testing.assert_close(learned, centers, rtol=1e-3, atol=1e-4)
    with seeds.isolated(task.seed, "crl"):
        drawn = torch.randn_like(centers)
    assert (learned - drawn).abs().max() > 0.02  # they moved
    plain, single = (training.fit(each, task).network for each in (NONE, CRL(**settings | {"weight": 0.0})))
    for other in (plain, single):
        assert max((a - b).abs().max() for a, b in zip(ours.parameters(), other.parameters(), strict=True)) > 0.02


def test_the_bounded_loss_ends_near_alpha_and_features_gather(blobs: Dataset) -> None:
    """Each part's effect: the mean loss of the bounded logits is held at alpha; a class's features come together."""
    recipe = replace(RECIPE, epochs=40, milestones=(30,), model="mlp:hidden=32")
    task = Task.of(blobs, np.arange(96), recipe=recipe, seed=3)

    def spread(network: nn.Module) -> float:
        """The features' variance within classes as a share of the whole."""
        with torch.no_grad():
            f = bounded(network.net[:-1](task.encoder(task.members.x)), 1.0)  # type: ignore[index,operator]
        within = sum(((f[task.members.y == k] - f[task.members.y == k].mean(0)) ** 2).sum() for k in range(4))
        return float(within / ((f - f.mean(0)) ** 2).sum())

    found = {}
    for name, defense in (("none", NONE), ("held", CRL(alpha=1.0, t=0.3, weight=0.0)), ("gathered", CRL(
        alpha=0.0, t=0.0, weight=5.0, center_alpha=0.0))):  # fmt: skip
        network = defense.fit(task, Session()).network
        z = functional.crl_logits(predict(network, task.members.x), 0.3)
        found[name] = nn.functional.cross_entropy(z, task.members.y).item(), spread(network)
    assert found["none"][0] < 0.5
    assert found["held"][0] == pytest.approx(1.0, abs=0.1)
    assert found["gathered"][1] < found["none"][1] - 0.1

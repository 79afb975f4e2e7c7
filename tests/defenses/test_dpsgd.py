"""DP-SGD: the clipped and noisy step against loops over samples, the account against closed forms."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

from relaxloss import seeds, training
from relaxloss.data import Dataset
from relaxloss.defenses import NONE, _privacy, parse
from relaxloss.defenses.dpsgd import DPSGD, without_batch_norm
from relaxloss.errors import MissingExtra, UserError
from relaxloss.models import ResNet20
from relaxloss.models import parse as parse_model
from relaxloss.trained import train
from relaxloss.training import Session, State
from relaxloss.training.task import Network, Recipe, Task, make_network

MLP = Recipe(model="mlp:hidden=16", epochs=3, milestones=(2,), batch_size=16)
RESNET = Recipe(
    model="resnet20:blocks=1,width=8", epochs=2, milestones=(), batch_size=16, lr=0.01
)  # a small step: rounding must not grow


class Twice(nn.Module):
    """A network that uses a layer twice."""

    def __init__(self, shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.first, self.block, self.head = nn.Linear(*shape, 16), nn.Linear(16, 16), nn.Linear(16, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.first(x))
        logits: torch.Tensor = self.head(hidden + self.block(torch.tanh(self.block(hidden))))
        return logits


@pytest.fixture(params=["ghost", "per sample", "ghost, persons", "per sample, persons", "per sample, twice"])
def case(request: pytest.FixtureRequest, blobs: Dataset, images: Dataset) -> tuple[str, Task]:
    mode, _, persons = request.param.partition(", ")
    if persons == "persons":
        blobs, images = visiting(blobs), visiting(images)
    if persons == "twice":
        return mode, Task.of(blobs, np.arange(100), recipe=replace(MLP, model=f"{__name__}:Twice"), seed=3)
    if mode == "ghost":
        return mode, Task.of(blobs, np.arange(100), recipe=MLP, seed=3)
    return mode, Task.of(images, np.arange(40), recipe=RESNET, seed=3)


def visiting(dataset: Dataset) -> Dataset:
    """The samples as visits of persons, some with one and some with many, in an order that tells nothing."""
    rng = np.random.default_rng(5)
    persons = len(dataset) // 2
    return replace(dataset, groups=np.minimum(*rng.integers(0, persons, (2, len(dataset)))))


def fit(defense: DPSGD, task: Task, session: Session | None = None) -> training.Fit:
    return defense.fit(task, session or Session())


def parameters(network: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def by_hand(defense: DPSGD, task: Task, clip: float) -> tuple[Network, list[float]]:
    """SGD on the same Poisson samples, a person at a time: the mean gradient of their samples, clipped.

    These are summed, over the expected number. Where nobody has several samples, that is a sample at a time.
    """
    recipe = task.recipe
    network = make_network(defense, task.encoder, task.shape, task.num_classes, recipe, task.seed)
    optimiser = recipe.make_optimiser(network.net.parameters())
    order, norms, whose = seeds.generator(task.seed, "order"), [], task.members.persons
    persons, steps = len(whose.unique()), math.ceil(len(whose) / recipe.batch_size)
    for epoch in range(recipe.epochs):
        optimiser.param_groups[0]["lr"] = recipe.learning_rate(epoch)
        for _ in range(steps):
            drawn = torch.rand(persons, dtype=torch.float64, generator=order) < 1 / steps
            total = [torch.zeros_like(p) for p in network.parameters()]
            for i in drawn.nonzero()[:, 0]:
                loss = F.cross_entropy(network(task.members.x[whose == i]), task.members.y[whose == i])
                gradient = torch.autograd.grad(loss, list(network.parameters()))
                norm = math.sqrt(sum(g.double().square().sum().item() for g in gradient))
                norms.append(norm)
                for sum_, g in zip(total, gradient, strict=True):
                    sum_ += g * min(1, clip / norm)
            for p, sum_ in zip(network.parameters(), total, strict=True):
                p.grad = sum_ / (persons / steps)
            optimiser.step()
    return network, norms


def test_no_noise_and_no_clip_is_plain_sgd(case: tuple[str, Task]) -> None:
    mode, task = case
    fitted = fit(DPSGD(noise=0, clip=1e6), task)
    network, norms = by_hand(DPSGD(), task, 1e6)
    assert fitted.facts["clipping"] == mode
    assert len(norms) > 10
    torch.testing.assert_close(parameters(fitted.network), parameters(network), rtol=1e-3, atol=1e-4)


def test_each_sample_is_clipped_by_itself(case: tuple[str, Task]) -> None:
    _, task = case
    clip = 1.0 if task.recipe.model != RESNET.model else 5.0 if task.members.whose is not None else 10.0
    fitted = fit(DPSGD(noise=0, clip=clip), task)
    network, norms = by_hand(DPSGD(), task, clip)
    assert 0.1 < np.mean(np.array(norms) > clip) < 0.95  # some are clipped and some are not
    torch.testing.assert_close(parameters(fitted.network), parameters(network), rtol=1e-3, atol=1e-4)
    loose = parameters(fit(DPSGD(noise=0, clip=1e6), task).network)
    assert (parameters(network) - loose).abs().max() > 0.01


class OneStep(DPSGD):
    """One batch of one person, with all their samples, per training."""

    def batches(self, state: State) -> Iterator[torch.Tensor]:
        persons = state.task.members.persons
        yield (persons == persons.bincount().argmax()).nonzero()[:, 0]


@pytest.mark.parametrize("clip", [0.01, 0.5])
def test_nobody_moves_the_sum_by_more_than_the_clip(case: tuple[str, Task], clip: float) -> None:
    _, task = case
    plain = replace(task, recipe=replace(task.recipe, epochs=1, milestones=(), momentum=0.0, weight_decay=0.0, lr=1.0))
    expected = task.members.num_persons / math.ceil(len(task.members) / task.recipe.batch_size)
    start = parameters(make_network(DPSGD(), task.encoder, task.shape, task.num_classes, plain.recipe, task.seed))
    moved = (parameters(fit(OneStep(noise=0, clip=clip), plain).network) - start) * expected
    assert moved.norm().item() == pytest.approx(clip, rel=1e-3)


def test_noise_of_a_batch_is_normal_with_the_level_of_the_formula(case: tuple[str, Task]) -> None:
    """A step with noise less the same step without it: lr σ C / expected size, normal."""
    _, task = case
    plain = replace(task, recipe=replace(task.recipe, epochs=1, milestones=(), momentum=0.0, weight_decay=0.0, lr=1.0))
    quiet, noisy = (parameters(fit(OneStep(noise=noise, clip=0.7), plain).network).double() for noise in (0, 2.0))
    expected = task.members.num_persons / math.ceil(len(task.members) / task.recipe.batch_size)
    drawn = (noisy - quiet) / (2.0 * 0.7 / expected)
    n = len(drawn)
    assert drawn.square().sum().item() == pytest.approx(n, abs=5 * math.sqrt(2 * n))
    assert stats.kstest(drawn.numpy(), "norm").pvalue > 1e-3


def test_noise_of_an_empty_batch_is_normal_with_the_level_of_the_formula(case: tuple[str, Task]) -> None:
    """An empty Poisson batch is a step of noise alone: lr σ C / expected size, normal, fresh for every number."""
    _, task = case
    recipe = replace(task.recipe, momentum=0.0, weight_decay=0.0, lr=0.5, channels_last=False)
    network = make_network(DPSGD(), task.encoder, task.shape, task.num_classes, recipe, task.seed)
    streams = {name: seeds.generator(0, name) for name in ("order", "augment", "chance")}
    state = State(replace(task, recipe=recipe), network, recipe.make_optimiser(network.net.parameters()), streams)
    defense = DPSGD(noise=2.0, clip=0.7)
    defense.prepare(state)
    nothing = torch.arange(0)
    start = parameters(network)
    for _ in range(2):
        before = parameters(network)
        logits = defense.step(state, training.Batch(task.members.x[nothing], task.members.y[nothing], nothing))
        assert logits.shape == (0, task.num_classes)
    steps = math.ceil(len(task.members) / recipe.batch_size)
    level = 0.5 * 2.0 * 0.7 / (task.members.num_persons / steps)
    n = len(start)
    for moved in ((before - start).double() / level, (parameters(network) - before).double() / level):
        assert moved.square().sum().item() == pytest.approx(n, abs=5 * math.sqrt(2 * n))
        assert stats.kstest(moved.numpy(), "norm").pvalue > 1e-3
    both = torch.stack([before - start, parameters(network) - before])
    assert abs(torch.corrcoef(both)[0, 1].item()) < 5 / math.sqrt(n)
    assert defense.finish(state)["steps"] == 2


def test_batches_are_poisson_samples(blobs: Dataset) -> None:
    recipe = replace(MLP, batch_size=10)
    task = Task.of(blobs, np.arange(95), recipe=recipe, seed=0)
    network = make_network(NONE, task.encoder, task.shape, task.num_classes, recipe, 0)
    optimiser = recipe.make_optimiser(network.net.parameters())
    state = State(task, network, optimiser, {"order": seeds.generator(0, "order")})
    drawn = [index for _ in range(300) for index in DPSGD().batches(state)]
    counts = torch.zeros(len(drawn), 95)
    for row, index in zip(counts, drawn, strict=True):
        row[index] = 1
        assert len(index.unique()) == len(index)
    n = counts.numel()
    assert len(drawn) == 300 * 10
    assert counts.mean().item() == pytest.approx(0.1, abs=5 * math.sqrt(0.09 / n))
    sizes = counts.sum(1)
    assert sizes.var().item() == pytest.approx(95 * 0.09, rel=0.15)  # binomial, not fixed
    assert abs(torch.corrcoef(counts[:, :2].T)[0, 1].item()) < 5 / math.sqrt(len(drawn))


def test_persons_are_drawn_with_all_their_samples(blobs: Dataset) -> None:
    recipe = replace(MLP, batch_size=10)
    task = Task.of(visiting(blobs), np.arange(95), recipe=recipe, seed=0)
    network = make_network(NONE, task.encoder, task.shape, task.num_classes, recipe, 0)
    optimiser = recipe.make_optimiser(network.net.parameters())
    state = State(task, network, optimiser, {"order": seeds.generator(0, "order")})
    persons = task.members.persons
    assert persons.bincount().max() > 3
    drawn = [index for _ in range(300) for index in DPSGD().batches(state)]
    counts = torch.zeros(len(drawn), task.members.num_persons)
    for row, index in zip(counts, drawn, strict=True):
        chosen = persons[index].unique()
        row[chosen] = 1
        assert index.tolist() == [place for person in chosen for place in (persons == person).nonzero()[:, 0]]
    assert counts.mean().item() == pytest.approx(0.1, abs=5 * math.sqrt(0.09 / counts.numel()))
    assert abs(torch.corrcoef(counts[:, :2].T)[0, 1].item()) < 5 / math.sqrt(len(drawn))


def along(shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """A network with a linear layer that is applied to each feature by itself."""
    first = (nn.Unflatten(1, (shape[0], 1)), nn.Linear(1, 8), nn.Tanh(), nn.Flatten())
    return nn.Sequential(*first, nn.Linear(8 * shape[0], num_classes))


def test_a_layer_along_a_sequence_is_clipped_by_person(blobs: Dataset) -> None:
    recipe = replace(MLP, model=parse_model("test_dpsgd:along"))
    task = Task.of(visiting(blobs), np.arange(100), recipe=recipe, seed=3)
    fitted = fit(DPSGD(noise=0, clip=2.0), task)
    network, norms = by_hand(DPSGD(), task, 2.0)
    assert fitted.facts["clipping"] == "ghost"
    assert 0.1 < np.mean(np.array(norms) > 2) < 0.95
    torch.testing.assert_close(parameters(fitted.network), parameters(network), rtol=1e-3, atol=1e-4)


def test_chunks_are_cut_between_persons() -> None:
    counts = torch.tensor([2, 1, 7, 1, 1, 2])
    cut = [(start, stop, each.tolist()) for start, stop, each in _privacy.chunks(counts, 3)]
    assert cut == [(0, 3, [2, 1]), (3, 10, [7]), (10, 12, [1, 1]), (12, 14, [2])]
    assert [stop for _, stop, _ in _privacy.chunks(torch.ones(7, dtype=torch.long), 3)] == [3, 6, 7]


def test_copies_share_one_clipped_gradient_and_chunks_change_nothing(
    images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Augmentation multiplicity against a loop: the mean gradient of a sample's copies is clipped."""
    clip = 0.5
    recipe = replace(RESNET, epochs=1, momentum=0.0, weight_decay=0.0)
    task = Task.of(images, np.arange(40), recipe=recipe, seed=3)
    defense = DPSGD(noise=0, clip=clip, multiplicity=3)
    whole = parameters(fit(defense, task).network)
    monkeypatch.setattr(_privacy, "GRADIENTS", 1)
    torch.testing.assert_close(parameters(fit(defense, task).network), whole, rtol=1e-4, atol=1e-6)

    network = make_network(defense, task.encoder, task.shape, task.num_classes, recipe, 3)
    order, augment = seeds.generator(3, "order"), seeds.generator(3, "augment")
    for _ in range(3):
        drawn = (torch.rand(40, dtype=torch.float64, generator=order) < 1 / 3).nonzero()[:, 0]
        copies = [training.crop_flip(task.members.x[drawn], augment) for _ in range(3)]
        total = [torch.zeros_like(p) for p in network.parameters()]
        for i, member in enumerate(drawn):
            x = torch.stack([copy[i] for copy in copies])
            loss = F.cross_entropy(network(x), task.members.y[member].expand(3))
            gradient = torch.autograd.grad(loss, list(network.parameters()))
            norm = math.sqrt(sum(g.square().sum().item() for g in gradient))
            for sum_, g in zip(total, gradient, strict=True):
                sum_ += g * min(1, clip / norm)
        with torch.no_grad():
            for p, sum_ in zip(network.parameters(), total, strict=True):
                p -= recipe.lr * sum_ / (40 / 3)
    torch.testing.assert_close(whole, parameters(network), rtol=1e-3, atol=1e-5)


def test_averaged_weights_are_the_moving_average(blobs: Dataset) -> None:
    task = Task.of(blobs, np.arange(100), recipe=MLP, seed=3)
    seen: list[torch.Tensor] = []

    class Watched(DPSGD):
        def step(self, state: State, batch: training.Batch) -> torch.Tensor:
            logits = super().step(state, batch)
            seen.append(parameters(state.network).double())
            return logits

    fitted = fit(Watched(ema=0.9, noise=0.3), task)
    average = seen[0]
    for n, now in enumerate(seen[1:], 1):
        decay = min(0.9, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * now
    torch.testing.assert_close(parameters(fitted.network).double(), average, rtol=1e-4, atol=1e-5)
    assert (average - seen[-1]).abs().max() > 0.01


def test_weak_preset_changes_the_recipe_and_resumes(images: Dataset, blobs: Dataset, tmp_path: Path) -> None:
    weak = parse("dpsgd:preset=weak,multiplicity=2")
    assert isinstance(weak, DPSGD)
    task = Task.of(images, np.arange(40), recipe=replace(RESNET, epochs=3, optimiser="adam"), seed=3)
    recipe = weak.recipe(task)
    assert (recipe.optimiser, recipe.momentum, recipe.weight_decay, recipe.augment) == ("sgd", 0, 0, "crop_flip")
    assert recipe.lr > task.recipe.lr
    assert parse("dpsgd:preset=weak").copies(task) == 8  # type: ignore[attr-defined]
    rows = Task.of(blobs, np.arange(100), recipe=MLP)
    assert parse("dpsgd:preset=weak").copies(rows) == 1  # type: ignore[attr-defined]
    assert DPSGD().recipe(rows) == replace(MLP, channels_last=False)

    class Interrupted(Exception):
        pass

    def interrupt(progress: training.Progress) -> None:
        if progress.epoch == 2:
            raise Interrupted

    straight = fit(weak, task)
    with pytest.raises(Interrupted):
        fit(weak, task, Session(tmp_path, every=0, tell=interrupt))
    told: list[Any] = []
    resumed = fit(weak, task, Session(tmp_path, every=0, tell=told.append))
    assert len(told) == 2
    assert torch.equal(parameters(resumed.network), parameters(straight.network))
    assert resumed.facts == straight.facts
    assert straight.facts["steps"] == 9


def test_the_result_is_a_plain_network(case: tuple[str, Task]) -> None:
    _, task = case
    fitted = fit(DPSGD(), task)
    built = make_network(DPSGD(), task.encoder, task.shape, task.num_classes, task.recipe, 0)
    assert fitted.network.state_dict().keys() == built.state_dict().keys()
    for (_, ours), (_, fresh) in zip(fitted.network.named_modules(), built.named_modules(), strict=True):
        assert vars(ours).keys() == vars(fresh).keys()
        assert not ours._forward_hooks
        assert not ours._backward_hooks
    for p in fitted.network.parameters():
        assert not vars(p)
        assert p.grad is None


def test_batch_norm_becomes_group_norm_and_the_facts_say_so(images: Dataset) -> None:
    torch.manual_seed(0)
    net = ResNet20(blocks=1, width=8).build((3, 8, 8), 3)
    norms = [(name, m.num_features) for name, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1)
    before = {name: value for name, value in net.state_dict().items() if "running" not in name and "num_" not in name}
    changed = without_batch_norm(net)
    assert all(torch.equal(before[name], value) for name, value in changed.state_dict().items())
    assert before.keys() == changed.state_dict().keys()
    groups = {name: m for name, m in changed.named_modules() if isinstance(m, nn.GroupNorm)}
    assert [(name, m.num_channels) for name, m in groups.items()] == norms
    assert isinstance(without_batch_norm(nn.BatchNorm1d(6)), nn.GroupNorm)
    task = Task.of(images, np.arange(40), recipe=replace(RESNET, epochs=1), seed=3)
    assert "7 batch-norm layers" in str(fit(DPSGD(), task).facts["normalisation"])


def gaussian_delta(epsilon: float, mu: float) -> float:
    """δ(ε) of the Gaussian mechanism with sensitivity / noise = μ (Balle & Wang, ICML 2018, theorem 8)."""
    low, high = stats.norm.cdf(mu / 2 - epsilon / mu), stats.norm.cdf(-mu / 2 - epsilon / mu)
    return float(low - math.exp(epsilon) * high)


@pytest.mark.parametrize(("noise", "steps", "tight"), [(4.0, 16, 0.03), (10.0, 40, 0.03), (0.5, 9, 3.0)])
def test_epsilon_without_subsampling_is_the_closed_form(noise: float, steps: int, tight: float) -> None:
    """T full batches at σ are one Gaussian mechanism with μ = √T / σ."""
    ours = _privacy.epsilon(noise, 1.0, steps, 1e-5)
    mu = math.sqrt(steps) / noise
    assert gaussian_delta(ours, mu) <= 1e-5  # a bound
    assert gaussian_delta(ours - tight, mu) > 1e-5  # and a tight one (Rényi accounting is looser, at large ε)


def test_epsilon_at_the_ends_and_the_noise_for_it() -> None:
    assert _privacy.epsilon(0.0, 0.1, 10, 1e-5) == math.inf
    assert _privacy.epsilon(1.0, 0.1, 0, 1e-5) == 0
    assert 1e4 < _privacy.epsilon(0.01, 1 / 8, 960, 1e-4) < 1e7  # the baseline's noise guarantees nothing
    grown = [_privacy.epsilon(noise, 1 / 8, 100, 1e-4) for noise in (3.0, 0.3, 0.1, 0.03, 0.01)]
    assert grown == sorted(grown)
    noise = _privacy.noise_for(8.0, 1 / 8, 100, 1e-4)
    assert 7.97 < _privacy.epsilon(noise, 1 / 8, 100, 1e-4) <= 8, "none of it is given away"
    with pytest.raises(UserError, match="epsilon=1e-12"):
        _privacy.noise_for(1e-12, 1.0, 10**6, 1e-9)


def test_target_epsilon_is_kept_and_reported(blobs: Dataset) -> None:
    task = Task.of(blobs, np.arange(100), recipe=MLP, seed=3)
    facts = fit(DPSGD(target_epsilon=20.0), task).facts
    assert 19.9 < facts["epsilon"] <= 20  # type: ignore[operator]
    assert facts["delta"] == pytest.approx(0.001)
    assert facts["steps"] == 3 * 7
    assert facts["sampling_rate"] == pytest.approx(1 / 7)
    with pytest.raises(UserError, match="one of the two"):
        DPSGD(noise=0.5, target_epsilon=3.0)


def test_what_epsilon_does_not_cover_is_said(blobs: Dataset) -> None:
    """A table's encoder holds its members' means, and MemGuard's attacker is fitted on their outputs: without noise."""
    with_one, without = (blobs.encoder(np.arange(count)).offset for count in (100, 99))
    assert (with_one != without).any(), "who knows the others reads the last member off the encoder"
    private = DPSGD(target_epsilon=20.0)
    assert ["means" in text for text in private.uncovered(blobs)] == [True]
    bits = Dataset("bits", np.zeros((9, 4), np.uint8), np.arange(9) % 2, 2, "made")
    assert private.uncovered(bits) == ()
    both = parse("dpsgd:target_epsilon=20.0+memguard")
    assert ["fitted on the members" in text for text in both.uncovered(bits)] == [True]
    facts = train(blobs, defense=private, recipe=MLP).facts
    assert "means" in facts["epsilon_does_not_cover"]


def test_what_cannot_be_trained_is_explained(blobs: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task.of(blobs, np.arange(100), recipe=MLP, seed=3)
    with pytest.raises(UserError, match="is for images"):
        fit(DPSGD(multiplicity=2), task)
    network = make_network(NONE, task.encoder, task.shape, task.num_classes, MLP, 0)
    network.net[0].register_buffer("mask", torch.ones(1))  # type: ignore[index]
    optimiser = MLP.make_optimiser(network.net.parameters())
    streams = {"chance": seeds.generator(0, "chance")}
    with pytest.raises(UserError, match="replace these layers"):
        _privacy.Privacy(State(task, network, optimiser, streams), 1.0, 1.0, 0.1, 1e-3, ghost=True)
    monkeypatch.setitem(sys.modules, "opacus.grad_sample", None)
    with pytest.raises(MissingExtra, match=r"relaxloss\[dpsgd\]"):
        fit(DPSGD(), task)


def test_an_epoch_that_draws_nobody_is_noise_alone(blobs: Dataset) -> None:
    """Of two persons, each is in one of ten batches on average: in a ninth of the epochs nobody is in any."""
    few = replace(blobs, groups=np.arange(len(blobs)) // (len(blobs) // 2))
    task = Task.of(few, np.arange(200), recipe=replace(MLP, epochs=40, batch_size=20), seed=3)
    fitted = fit(DPSGD(noise=1.0), task)
    nobody = [math.isnan(row["train_loss"]) for row in fitted.history]
    assert 0 < sum(nobody) < 20
    assert fitted.facts["steps"] == 400

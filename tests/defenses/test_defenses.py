"""The conformance suite: what every registered defense must do. A new method is picked up without an edit here."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import random
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import relaxloss.nn
from relaxloss import data, seeds, training
from relaxloss.defenses import NONE, Defense, NoDefense, defenses, parse
from relaxloss.errors import UserError
from relaxloss.experiments import jobs
from relaxloss.specs import content_key, plain
from relaxloss.storage.store import pack_weights, unpack_weights
from relaxloss.training import Fit, Progress, Session
from relaxloss.training.task import Network, Recipe, Task, make_network

CLASSES = list(defenses)
ALONE = [cls(**cls.active) for cls in CLASSES]  # each where it acts
BY_RELEASE = [
    [defense for defense in (cls(**settings) for settings in (cls.active, *cls.sweep)) if defense.trainer == NONE]
    for cls in CLASSES
    if cls is not NoDefense
]
RELEASES = [found[0] for found in BY_RELEASE if found]  # of each method that can act on the release alone
TRAINED = parse("relaxloss:alpha=1")
BEHIND = [parse(f"{TRAINED}+{release}") for release in RELEASES]
SUBJECTS = [*ALONE, *BEHIND]
TRAINERS = list(dict.fromkeys(subject.trainer for subject in SUBJECTS))
each_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.name)
each = pytest.mark.parametrize("defense", SUBJECTS, ids=str)
each_trainer = pytest.mark.parametrize("trainer", TRAINERS, ids=str)


@functools.cache
def task(seed: int = 0, *, reference: bool = True) -> Task:
    digits = data.load("digits")
    recipe = Recipe(model="mlp:hidden=32", epochs=4, milestones=(3,), batch_size=64)
    others = np.arange(200, 400) if reference else None
    return Task.of(digits, np.arange(200), reference=others, recipe=recipe, seed=seed)


@functools.cache
def trained(trainer: Defense, seed: int = 0) -> Fit:
    return trainer.fit(task(seed), Session())


def weights_of(defense: Defense) -> dict[str, torch.Tensor]:
    fit = trained(defense.trainer)
    return fit.network.state_dict() if defense.snapshot is None else fit.snapshots[defense.snapshot]


def network_of(defense: Defense) -> Network:
    return jobs.network_of(defense, task(), weights_of(defense))


@functools.cache
def released(defense: Defense) -> nn.Module:
    return defense.release(network_of(defense), task()).eval()


def queries() -> torch.Tensor:
    return torch.from_numpy(data.load("digits").x[:300])


def outputs(defense: Defense, rows: int = 300) -> torch.Tensor:
    return answer(released(defense), rows)


@torch.no_grad()
def answer(release: nn.Module, rows: int = 300) -> torch.Tensor:
    out: torch.Tensor = release(queries()[:rows])
    return out


def global_streams() -> tuple[Any, ...]:
    """Where torch's, numpy's and Python's own generators stand."""
    _, numbers, *rest = np.random.get_state()
    return torch.get_rng_state().tolist(), numbers.tolist(), rest, random.getstate()


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@each_class
def test_every_form_of_a_spec_is_the_same_spec(cls: type[Defense]) -> None:
    names = {known.__name__: known for known in CLASSES}
    settings = [{}, cls.active, cls.neutral or {}, *cls.sweep]
    for defense in (cls(**setting) for setting in settings):
        key = content_key("test", 1, defense=defense)
        for other in (parse(str(defense)), eval(repr(defense), names), parse(plain(defense)), parse(defense)):
            assert other == defense
            assert content_key("test", 1, defense=other) == key


@each_class
def test_a_sweep_is_a_curve(cls: type[Defense]) -> None:
    points = [cls(**setting) for setting in cls.sweep]
    assert len(points) >= 3 or cls is NoDefense
    assert len(set(points)) == len(points)
    assert cls.about


@each_class
def test_bad_settings_are_the_users_error(cls: type[Defense]) -> None:
    for field in dataclasses.fields(cls):
        with pytest.raises(UserError, match=field.name):
            cls(**{field.name: object()})
        if isinstance(getattr(cls(), field.name), float | int) and not isinstance(getattr(cls(), field.name), bool):
            with pytest.raises(UserError, match=field.name):
                cls(**{field.name: -1})
    with pytest.raises(UserError, match="nonsense"):
        parse(f"{cls.name}:nonsense=1")


@each_trainer
def test_same_seed_same_weights_and_nothing_else_is_touched(trainer: Defense) -> None:
    inputs = task().members.x.clone(), task().members.y.clone(), task().reference.x.clone()
    before = global_streams()
    again = trainer.fit(task(), Session())
    assert global_streams() == before
    after = task().members.x, task().members.y, task().reference.x
    assert all(torch.equal(one, other) for one, other in zip(inputs, after, strict=True))
    first = trained(trainer)
    assert same(first.network.state_dict(), again.network.state_dict())
    assert first.history == again.history
    assert first.facts == again.facts


@each_trainer
def test_another_seed_gives_other_weights(trainer: Defense) -> None:
    assert not same(trained(trainer).network.state_dict(), trained(trainer, 1).network.state_dict())


@each
def test_release_draws_from_no_global_stream_and_repeats_itself(defense: Defense) -> None:
    before = global_streams()
    again = answer(defense.release(network_of(defense), task()).eval())
    assert global_streams() == before
    assert torch.equal(again, outputs(defense))


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls.neutral is not None], ids=lambda cls: cls.name)
def test_neutral_settings_equal_no_defense_bit_for_bit(cls: type[Defense]) -> None:
    neutral = cls(**cls.neutral)  # type: ignore[arg-type]
    assert same(trained(neutral.trainer).network.state_dict(), trained(NONE).network.state_dict())
    assert torch.equal(outputs(neutral), outputs(NONE))


@pytest.mark.parametrize("defense", [d for d in SUBJECTS if d != NONE], ids=str)
def test_active_settings_act(defense: Defense) -> None:
    ours, plainly = (outputs(d).double().softmax(1) for d in (defense, NONE))
    assert (ours - plainly).abs().sum(1).max() > 0.05  # for a release-time defense on a few samples only


@each
def test_release_is_a_probability_of_each_class_whatever_the_batches(defense: Defense) -> None:
    whole = outputs(defense)
    assert whole.shape == (300, 10)
    assert whole.dtype == torch.float32
    assert not whole.isnan().any()
    assert (whole < torch.inf).all()
    torch.testing.assert_close(whole.double().softmax(1).sum(1), torch.ones(300, dtype=torch.float64))
    with torch.no_grad():
        parts = torch.cat([released(defense)(part) for part in queries().split([1, 99, 200])])
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4)


@each_trainer
def test_resumed_training_is_bit_for_bit_the_same(trainer: Defense, tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    told: list[Progress] = []
    trainer.fit(task(), Session(tell=told.append))
    whole = len(told)
    assert whole >= 2

    def interrupt(progress: Progress) -> None:
        told.append(progress)
        if len(told) == whole // 2 + 1:
            raise Interrupted

    told.clear()
    with pytest.raises(Interrupted):
        trainer.fit(task(), Session(tmp_path, every=0, tell=interrupt))
    told.clear()
    resumed = trainer.fit(task(), Session(tmp_path, every=0, tell=told.append))
    assert len(told) == whole - whole // 2  # the checkpoint was used
    straight = trained(trainer)
    assert same(resumed.network.state_dict(), straight.network.state_dict())
    assert resumed.history == straight.history
    assert resumed.facts == straight.facts
    assert resumed.snapshots.keys() == straight.snapshots.keys()
    assert all(same(resumed.snapshots[epoch], straight.snapshots[epoch]) for epoch in straight.snapshots)


@each
def test_saved_and_loaded_gives_the_same_outputs(defense: Defense) -> None:
    stored = unpack_weights(pack_weights(weights_of(defense)))
    shell = defense.release(jobs.network_of(defense, task(1), stored), None).eval()  # another seed: all must be stored
    shell.load_state_dict(unpack_weights(pack_weights(released(defense).state_dict())))
    assert torch.equal(answer(shell), outputs(defense))


@each_trainer
def test_history_is_finite(trainer: Defense) -> None:
    history = trained(trainer).history
    assert history
    for row in history:
        assert np.isfinite(row["train_loss"])
        assert 0 <= row["train_accuracy"] <= 1


@pytest.mark.parametrize("defense", [d for d in SUBJECTS if d.needs_reference()], ids=str)
def test_a_missing_reference_set_is_the_users_error(defense: Defense) -> None:
    alone = task(reference=False)
    with pytest.raises(UserError, match="reference"):
        defense.release(defense.trainer.fit(alone, Session()).network.eval(), alone)


def test_early_stopping_is_a_run_that_stopped() -> None:
    """Every epoch, whether a snapshot of the shared training or a training of its own, against a shorter recipe."""
    long = dataclasses.replace(task(), recipe=dataclasses.replace(task().recipe, epochs=12))
    shared = parse("early_stopping:epoch=5").trainer
    assert shared == parse("early_stopping:epoch=10").trainer == parse("early_stopping:epoch=none")
    kept = shared.fit(long, Session()).snapshots
    for epoch in (5, 7, 10, 12):
        defense = parse(f"early_stopping:epoch={epoch}")
        ours = kept[epoch] if defense.snapshot else defense.fit(long, Session()).network.state_dict()
        short = dataclasses.replace(long, recipe=dataclasses.replace(long.recipe, epochs=epoch))
        assert same(ours, training.fit(NONE, short).network.state_dict())
    assert same(kept[100], kept[250])  # past the end: no stop
    assert same(kept[100], training.fit(NONE, long).network.state_dict())


def test_dropout_finds_the_last_layer_of_any_network_and_leaves_its_weights() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, 3)), nn.Identity())
    weight = net[1][1].weight  # type: ignore[index]
    built = parse("dropout:rate=0.8").build(net)
    assert [type(m) for m in built.modules() if not list(m.children())] == [
        nn.Linear, nn.ReLU, nn.Dropout, nn.Linear, nn.Identity,
    ]  # fmt: skip
    assert built[1][1][1].weight is weight  # type: ignore[index]
    seen = built[1][1][0](torch.ones(20_000))  # type: ignore[index]
    assert (seen == 0).float().mean().item() == pytest.approx(0.8, abs=0.01)
    assert seen.max().item() == pytest.approx(5.0)
    assert isinstance(parse("dropout").build(nn.Linear(4, 3)), nn.Sequential)
    with pytest.raises(UserError, match="Linear"):
        parse("dropout").build(nn.Conv2d(3, 3, 1))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (lambda each: each, r"gave a tensor \(\d+,\); expected a scalar"),
        (lambda each: each.mean().detach(), r"gave a tensor \(\) without a gradient"),
        (lambda each: each.detach().mean().item(), "gave float"),
        (lambda each: None, "gave NoneType"),
    ],
)
def test_a_loss_that_is_none_is_named(value: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    each = functools.partial(nn.functional.cross_entropy, reduction="none")
    monkeypatch.setattr(NoDefense, "loss", lambda self, logits, targets, state: value(each(logits, targets)))
    with pytest.raises(UserError, match=rf"none: its loss\(\) {said}"):
        training.fit(NONE, task())


class HeadFirst(nn.Module):
    """Its first layer was assigned after its last one."""

    def __init__(self, shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(8, num_classes)
        self.body = nn.Linear(shape[0], 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.body(x).relu())
        return out


class Gated(nn.Module):
    """Its logits come from a convolution; its only linear layer is a gate."""

    def __init__(self, shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.gate, self.head = nn.Linear(shape[0], shape[0]), nn.Conv1d(shape[0], num_classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head((x * self.gate(x).sigmoid())[:, :, None])[:, :, 0]
        return out


@pytest.mark.parametrize("name", ["dropout", "crl"])
def test_a_gate_is_not_taken_for_the_last_layer(name: str) -> None:
    gated = dataclasses.replace(task(), recipe=dataclasses.replace(task().recipe, model=f"{__name__}:Gated"))
    with pytest.raises(UserError, match=r"gate[.1]*; but head \(Conv1d\) computes last"):
        training.fit(parse(name), gated)


@pytest.mark.parametrize("name", ["dropout", "crl"])
def test_a_network_whose_last_layer_is_not_found_is_refused(name: str) -> None:
    strange = dataclasses.replace(task(), recipe=dataclasses.replace(task().recipe, model=f"{__name__}:HeadFirst"))
    with pytest.raises(UserError, match=r"last one of the network, body[.1]*; but head \(Linear\) computes last"):
        training.fit(parse(name), strange)


def test_without_the_stop_gradient_it_is_the_criterion_without_it() -> None:
    """And another model than with it, or the ablation would show nothing."""
    given, chance = task(), seeds.generator(task().seed, "order")
    network = make_network(NONE, given.encoder, given.shape, given.num_classes, given.recipe, given.seed)
    optimiser = given.recipe.make_optimiser(network.net.parameters())
    criterion = relaxloss.nn.RelaxLoss(alpha=1.0, stop_gradient=False)
    for epoch in range(given.recipe.epochs):
        optimiser.param_groups[0]["lr"] = given.recipe.learning_rate(epoch)
        criterion.set_epoch(epoch)
        for index in torch.randperm(len(given.members), generator=chance).split(given.recipe.batch_size):
            optimiser.zero_grad()
            criterion(network(given.members.x[index]), given.members.y[index]).backward()
            optimiser.step()
    stopped, unstopped = (trained(parse(f"{name}:alpha=1.0")).network for name in ("relaxloss", "relaxloss_unstopped"))
    for mine, theirs in zip(unstopped.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    assert max((a - b).abs().max() for a, b in zip(stopped.parameters(), network.parameters(), strict=True)) > 1e-3


@each_class
def test_every_setting_reaches_the_model(cls: type[Defense]) -> None:
    """Each field, at some other value, gives other weights, answers or facts: none is read in vain."""
    for field in typing.get_type_hints(cls, include_extras=True).items():
        if field[0] not in {known.name for known in dataclasses.fields(cls)}:
            continue
        pairs = [(base, other) for base in (cls(**cls.active), cls()) for other in alternatives(base, *field)]
        assert pairs, field[0]
        assert any(differ(*pair) for pair in pairs), f"{cls.name}: {field[0]} changes nothing"


def alternatives(base: Defense, name: str, hint: Any) -> Iterator[Defense]:
    """The defense with other values of one field, as far as they are valid."""
    listed = (value for part in (hint, *typing.get_args(hint)) for value in typing.get_args(part))
    for value in (*listed, 20, 0.25, 2, 0.9, 0.5, True, False, None):
        with contextlib.suppress(UserError):
            other = dataclasses.replace(base, **{name: value})
            if other != base:
                yield other


def differ(one: Defense, other: Defense) -> bool:
    try:
        return (
            not same(weights_of(one), weights_of(other))
            or trained(one.trainer).facts != trained(other.trainer).facts
            or not torch.equal(outputs(one, 40), outputs(other, 40))
        )
    except UserError:  # it reached the training, which cannot do it here, as copies of images
        return True


@pytest.mark.parametrize(("both", "release"), list(zip(BEHIND, RELEASES, strict=True)), ids=str)
def test_a_release_time_defense_stands_behind_any_training(both: Defense, release: Defense) -> None:
    assert both.trainer == TRAINED
    ours, plainly = outputs(both, 60), outputs(TRAINED, 60)
    assert torch.equal(ours, answer(release.release(network_of(TRAINED), task()).eval(), 60))
    assert not torch.equal(ours, plainly)
    assert torch.equal(ours.argmax(1), plainly.argmax(1))
    assert torch.equal(outputs(parse(f"none+{release}"), 60), outputs(release, 60))
    for trainer in (trainer for trainer in TRAINERS if trainer != NONE):
        parse(f"{trainer}+{release}")
        for front in (TRAINED, release):
            with pytest.raises(UserError, match="changes the training"):
                parse(f"{front}+{trainer}")


def test_losses_end_where_they_should() -> None:
    """The effects of the losses, as numbers, after enough epochs to fit the members."""
    longer = dataclasses.replace(task(), recipe=dataclasses.replace(task().recipe, epochs=40, milestones=(30,)))
    facts = {}
    specs = ("none", "confidence_penalty:beta=1", "flooding:level=1", "flooding:level=1,per_sample=true", "crl")
    for spec in (*specs, "label_smoothing:smoothing=0.3", "ccl:a=1,beta=0.2", "ccl:a=0.5,beta=0.2"):
        defense = parse(spec)
        logits = training.predict(defense.fit(longer, Session()).network, longer.members.x).double()
        log_p = logits.log_softmax(1)
        losses = nn.functional.cross_entropy(logits, longer.members.y, reduction="none")
        entropy, confidence = -(log_p.exp() * log_p).sum(1).mean().item(), losses.neg().exp().mean().item()
        facts[spec] = losses.mean().item(), losses.var().item(), entropy, confidence
    assert facts["none"][0] < 0.02
    assert facts["confidence_penalty:beta=1"][2] > facts["none"][2] + 0.5
    assert facts["flooding:level=1"][0] == pytest.approx(1, abs=0.3)
    assert facts["flooding:level=1,per_sample=true"][0] == pytest.approx(1, abs=0.3)
    assert facts["flooding:level=1"][1] > 10 * facts["none"][1]
    assert facts["crl"][0] > 10 * facts["none"][0]
    assert facts["label_smoothing:smoothing=0.3"][3] == pytest.approx(0.7 + 0.3 / 10, abs=0.03)
    convex, concave = facts["ccl:a=1,beta=0.2"], facts["ccl:a=0.5,beta=0.2"]
    assert concave[0] == pytest.approx(convex[0], rel=0.2)
    assert concave[1] > 2 * convex[1]  # at an equal mean the concave term spreads the losses


@pytest.mark.parametrize("cls", [cls for cls in defenses if cls.in_nats], ids=lambda cls: cls.name)
def test_more_than_a_guesss_loss_is_refused(cls: type[Defense]) -> None:
    (field,) = cls.in_nats
    log_3 = 1.0986122886681098
    cls(**{field: log_3}).check(3)
    wrong = cls(**{field: 1.0986122886681101})
    with pytest.raises(UserError, match=f"got {field}=1.0986.*3 classes a guess.*less, such as {field}=0.55"):
        wrong.check(3)
    with pytest.raises(UserError, match="a guess"):
        parse(f"{wrong}+memguard").check(3)
    assert wrong.below_guess(3) == cls(**{field: 0.55})
    assert wrong.below_guess(4) == wrong

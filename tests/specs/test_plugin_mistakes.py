"""What the author of a defense or an attack gets wrong is told in their terms, and nothing is wrong in silence."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from relaxloss import attacks, defenses
from relaxloss.attacks import Attack
from relaxloss.attacks.base import Needs
from relaxloss.compute.engine import Engine
from relaxloss.data import Dataset
from relaxloss.defenses import Defense
from relaxloss.errors import UserError
from relaxloss.experiments.plan import Experiment
from relaxloss.experiments.result import Result
from relaxloss.experiments.run import run
from relaxloss.games import FiveFolds, RandomHalves
from relaxloss.trained import train
from relaxloss.training import Session
from relaxloss.training.task import Recipe, Task

TINY = Recipe(model="mlp:hidden=8", epochs=2, milestones=(), batch_size=32)
HERE = Engine("inprocess")


@pytest.fixture(autouse=True)
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is registered here is gone afterwards."""
    for registry in (defenses.defenses, attacks.attacks):
        registry.names()
        monkeypatch.setattr(registry, "_classes", dict(registry._classes))


def defense(**hooks: Any) -> Defense:
    cls = dataclass(frozen=True)(type("Own", (Defense,), {"__doc__": "Own.", "about": "own", **hooks}))
    return defenses.register("own")(cls)()


def compared(blobs: Dataset, out: Path, *own: Defense, attack: Any = "loss", game: Any = None) -> Result:
    spec = Experiment(
        "blobs", defenses=("none", *own), attacks=attack, recipe=TINY, shadows="same", game=game or FiveFolds()
    )
    return run(spec, out, data=blobs, engine=HERE)


def plain_step(state: Any, batch: Any) -> torch.Tensor:
    logits = state.forward(batch.x)
    state.descend(F.cross_entropy(logits, batch.y))
    return logits.detach()


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "step without a result": ({"step": lambda self, s, b: None}, r"own: its step\(\) returned NoneType; expected"),
    "step with the loss": ({"step": lambda self, s, b: plain_step(s, b).sum()}, r"its step\(\) returned a tensor \(\)"),
    "batches of lists": ({"batches": lambda self, s: iter([[0, 1]])}, r"its batches\(\) yielded list; expected int64"),
    "no batches": ({"batches": lambda self, s: iter(())}, r"its batches\(\) yielded nothing in epoch 1; expected pla"),
    "batches as a mask": (
        {"batches": lambda self, s: iter([torch.ones(len(s.task.members), dtype=torch.bool)])},
        r"its batches\(\) yielded torch.bool",
    ),
    "extras without a state": (
        {"prepare": lambda self, s: s.extras.update(mean=0.5)}, r"its prepare\(\) put a float into extras\['mean'\]"
    ),
    "no network": ({"build": lambda self, net: None}, r"its build\(\) returned NoneType; expected the network"),
    "a network for a fit": ({"fit": lambda self, t, s: nn.Linear(2, 2)}, r"its fit\(\) returned Linear; expected a"),
    "nothing to release": ({"release": lambda self, n, t: None}, r"its release\(\) returned NoneType; expected a"),
    "no facts": ({"finish": lambda self, s: None}, r"its finish\(\) returned NoneType; expected a dict"),
    "facts of several numbers": (
        {"finish": lambda self, s: {"means": torch.zeros(3)}}, r"its finish\(\) gave 'means': Tensor; expected numbers"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("hooks", "says"), WRONG.values(), ids=WRONG)
def test_a_hook_that_gives_something_else_is_told(blobs: Dataset, hooks: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        train(blobs, defense(**hooks), recipe=TINY)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda z: z.softmax(1), "the release answers probabilities: all are in 0..1 and each row sums to 1"),
        (
            lambda z: torch.cat([z, z], 1),
            r"the release answers \(\d+, \d+\); expected logits or",
        ),
        (lambda z: z.argmax(1), r"the release answers"),
    ],
)
def test_a_release_of_no_logits_costs_its_own_defense_only(
    blobs: Dataset, tmp_path: Path, answer: Any, says: str
) -> None:
    class Answering(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return answer(self.network(x))

    with pytest.warns(UserWarning, match="the result is of the rest"):
        result = compared(blobs, tmp_path, defense(release=lambda self, network, task: Answering(network)))
    assert set(result.rows["defense"]) == {"none"}
    assert any(re.search(says, failure) for failure in result.failures), result.failures


def test_facts_of_one_number_are_numbers(blobs: Dataset) -> None:
    own = defense(finish=lambda self, s: {"a": torch.tensor(1.5), "b": np.float32(2.5), "c": np.int64(3), "d": "four"})
    facts = own.fit(Task.of(blobs, np.arange(60), recipe=TINY), Session()).facts
    assert facts == {"a": 1.5, "b": 2.5, "c": 3, "d": "four"}
    assert {type(value) for value in facts.values()} == {float, int, str}


def test_a_defense_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match=r"Own overrides none of loss, step, .*; it has losses \(did you mean loss\?\)"):
        defense(losses=lambda self, logits, targets, state: None)
    with pytest.raises(UserError, match=r"overrides none of loss, step, [\w, ]*$|so that it is no defense$"):
        defense()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"sweep": ({"gama": 2.0},)}, "unknown field in the sweep of defense 'mine' 'gama': did you mean 'gamma'"),
        ({"sweep": {"gamma": 2.0}}, r"sweep = \{'gamma': 2.0\}; expected settings: dicts of fields and values"),
        ({"active": {"beta": 1}}, "unknown field in the active of defense 'mine' 'beta'"),
        ({"neutral": {"gamm": 1}}, "unknown field in the neutral of defense 'mine' 'gamm'"),
    ],
)
def test_settings_of_fields_that_are_not_there_are_told_at_once(given: dict[str, Any], says: str) -> None:
    @dataclass(frozen=True)
    class Mine(Defense):
        gamma: float = 1.0

        def loss(self, logits: torch.Tensor, targets: torch.Tensor, state: Any) -> torch.Tensor:
            return self.gamma * F.cross_entropy(logits, targets)

    for name, value in given.items():
        setattr(Mine, name, value)
    with pytest.raises(UserError, match=says):
        defenses.register("mine")(Mine)


def test_a_field_that_can_change_is_told() -> None:
    @defenses.register("listed")
    @dataclass(frozen=True)
    class Listed(Defense):
        weights: list[float] = field(default_factory=lambda: [1.0])

        def loss(self, logits: torch.Tensor, targets: torch.Tensor, state: Any) -> torch.Tensor:
            return F.cross_entropy(logits, targets)

    with pytest.raises(UserError, match=r"listed: weights is a list; .* declare it as tuple\[float, ...\]"):
        Listed()


def test_what_draws_from_the_global_generators_is_repeatable(blobs: Dataset, tmp_path: Path) -> None:
    def mixed(self: Defense, state: Any, batch: Any) -> torch.Tensor:
        share = np.random.beta(0.4, 0.4) * random.random()
        other = torch.from_numpy(np.random.permutation(len(batch.y)))
        logits = state.forward(share * batch.x + (1 - share) * batch.x[other])
        state.descend(F.cross_entropy(logits, batch.y))
        return logits.detach()

    own = defense(step=mixed)
    task = Task.of(blobs, np.arange(120), recipe=Recipe(model="mlp:hidden=8", epochs=4, milestones=(), batch_size=32))
    before = np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]
    whole, again = (own.fit(task, Session()).network.state_dict() for _ in range(2))
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before  # type: ignore[index]
    assert all(torch.equal(whole[key], again[key]) for key in whole)

    class Cut(Exception): ...

    def tell(progress: Any) -> None:
        if progress.epoch == 3:
            raise Cut

    with pytest.raises(Cut):
        own.fit(task, Session(tmp_path, every=0.0, tell=tell))
    resumed = own.fit(task, Session(tmp_path, every=0.0)).network.state_dict()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


@dataclass(frozen=True)
class Compared(Attack):
    """How far the margin is above its mean over the shadows without the sample; NaN where all have it."""

    about: ClassVar[str] = "attack-R"
    needs: ClassVar[Needs] = Needs(shadows=2)
    noise: float = 0.0

    def score(self, evidence: Any) -> Any:
        assert len(evidence.shadows) >= 2, "as it asked for"
        out = ~evidence.shadow_member[:, evidence.asked]
        losses = np.stack([self._losses(shadow.take(evidence.asked)) for shadow in evidence.shadows])
        with np.errstate(invalid="ignore"):
            mean = (losses * out).sum(0) / out.sum(0)
        return mean - self._losses(evidence.target) + self.noise * np.random.randn(len(mean))

    @staticmethod
    def _losses(seen: Any) -> Any:
        return -attacks.functional.loss(seen.plain, seen.labels)


def test_an_attack_is_rehearsed_with_as_many_shadows_as_it_needs(blobs: Dataset, tmp_path: Path) -> None:
    attacks.attacks.register("compared")(Compared)
    assert (Needs().rehearsal, Needs(shadows=2).rehearsal, Needs(shadows=1, rehearsal=1).rehearsal) == (1, 3, 1)
    few = compared(blobs, tmp_path / "few", attack="compared", game=FiveFolds(shadows=2)).rows
    row = few[few["attack"] == "compared"].set_index("measure")
    assert np.isfinite(row.loc["auc", "value"])
    assert "needs one more of them" in row.loc["balanced_accuracy", "note"]


def test_a_rehearsal_that_has_no_number_costs_the_threshold_only(blobs: Dataset, tmp_path: Path) -> None:
    attacks.attacks.register("compared")(Compared)
    rows = compared(blobs, tmp_path, attack="compared", game=FiveFolds(shadows=4)).rows
    row = rows[rows["attack"] == "compared"].set_index("measure")
    assert np.isfinite(row.loc["auc", "value"]), "no asked sample is in a shadow; of the rehearsed some are in all"
    assert "cannot be rehearsed" in row.loc["balanced_accuracy", "note"]
    with pytest.raises(UserError, match="gave NaN for"):
        compared(blobs, tmp_path / "halves", attack="compared", game=RandomHalves(models=3))


def test_an_attack_that_draws_from_the_global_generator_is_repeatable(blobs: Dataset, tmp_path: Path) -> None:
    attacks.attacks.register("compared")(Compared)
    game = FiveFolds(shadows=3)
    first, second = (
        compared(blobs, tmp_path / name, attack="compared:noise=1", game=game).rows["value"].tolist() for name in "ab"
    )
    np.testing.assert_array_equal(first, second)


def test_a_slotted_object_of_a_script_counts(tmp_path: Path) -> None:
    script = """
from dataclasses import dataclass
import relaxloss as rl
from relaxloss.defenses import Defense, register
from relaxloss.specs import content_key

@dataclass(frozen=True, slots=True)
class Settings:
    factor: float

SETTINGS = Settings({factor})

@register("slotted")
@dataclass(frozen=True)
class Slotted(Defense):
    def loss(self, logits, targets, state):
        return SETTINGS.factor * super().loss(logits, targets, state)

print(content_key("test", 1, defense=Slotted()))
"""
    found = []
    for factor in (1.0, 2.0):
        done = subprocess.run(
            [sys.executable, "-c", script.format(factor=factor)], capture_output=True, text=True, check=True
        )
        found.append(done.stdout)
    assert found[0] != found[1]

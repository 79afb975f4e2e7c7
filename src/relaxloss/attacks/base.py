"""The attack: a frozen dataclass that turns evidence into one score per asked sample, higher = member."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, InstanceOf

from relaxloss.errors import UserError, unknown
from relaxloss.signals.signals import Signals
from relaxloss.specs import Registry, Spec, split_list

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Needs:
    """What an attack must be given.

    Attributes:
        shadows: how many shadow models at least.
        aligned: whether some shadows must have been trained on asked samples (the LiRA game).
        queries: the names of the queries in `relaxloss.signals.QUERIES`.
        population: whether it needs reference samples that are in no model.
        rehearsal: how many shadows a rehearsal needs, in which `score` is called with a shadow in the target's place,
            for a threshold. 0: one more than the attack, for the one that is the target cannot be compared with itself.
    """

    shadows: int = 0
    aligned: bool = False
    queries: tuple[str, ...] = ("plain",)
    population: bool = False
    rehearsal: int = 0

    def __post_init__(self) -> None:
        if not self.rehearsal:
            object.__setattr__(self, "rehearsal", self.shadows + 1)

    def __str__(self) -> str:
        """In words."""
        kind = " trained on asked samples (the game random_halves)" if self.aligned else ""
        parts = [f"{self.shadows} shadow{'s' * (self.shadows > 1)} or more{kind}"] if self.shadows else []
        parts += [f"the query {name}" for name in self.queries if name != "plain"]
        parts += ["reference samples that are in no model"] * self.population
        return ", ".join(parts) or "the model's answers only"


@dataclass(frozen=True, eq=False)
class Evidence:
    """What an attacker holds. There is no field for the target's membership.

    Attributes:
        target: the target's signals on the asked samples ``(N,)``.
        asked: ``(N,)`` the asked samples' places in the pool.
        shadows: each shadow's signals on the whole pool ``(M,)``.
        shadow_member: ``(K, M)`` who is in which shadow.
        fit: the places in the pool on which the attacker may fit with the shadows.
        population: places in the pool of samples that are in no model.
        population_target: the target's signals on them.
        num_classes: C.
        seed: for attacks that draw random numbers.
        x: ``(M, ...)`` the pool's raw rows, as the attacker knows them; None: it has predictions only.
        aligned: whether the game trains shadows on asked samples; found from `shadow_member` if left out, and kept by
            `mirrored`, so that the rehearsal is played in the target's way.
    """

    target: Signals
    asked: npt.NDArray[np.int64]
    shadows: tuple[Signals, ...]
    shadow_member: npt.NDArray[np.bool_]
    fit: npt.NDArray[np.int64]
    population: npt.NDArray[np.int64]
    population_target: Signals | None
    num_classes: int
    seed: int = 0
    x: npt.NDArray[Any] | None = None
    aligned: bool | None = None

    def __post_init__(self) -> None:
        if self.aligned is None:
            object.__setattr__(self, "aligned", bool(self.shadow_member[:, self.asked].any()))

    def mirrored(self) -> tuple[Evidence, npt.NDArray[np.bool_]]:
        """The attacker's rehearsal: the first shadow as target on the fit samples, and its membership there.

        With more than one shadow, the others stay shadows; the only one stays its own shadow, as in the paper.
        """
        first, rest = self.shadows[0], slice(1 if len(self.shadows) > 1 else 0, None)
        evidence = replace(
            self,
            target=first.take(self.fit),
            asked=self.fit,
            shadows=self.shadows[rest],
            shadow_member=self.shadow_member[rest],
            population_target=first.take(self.population) if self.population_target is not None else None,
        )
        return evidence, self.shadow_member[0, self.fit]


@dataclass(frozen=True)
class Attack(Spec):
    """Base of all attacks. A subclass says what it `needs` and overrides `score`.

    Class attributes:
        needs: what the evidence must hold.
        about: one line for ``relaxloss list``.
    """

    about: ClassVar[str] = ""
    needs: ClassVar[Needs] = Needs()

    def score(self, evidence: Evidence) -> Scores:
        """One score per asked sample ``(N,)`` float64; higher = member."""
        raise NotImplementedError

    def score_all(self, rows: tuple[Evidence, ...]) -> list[Scores]:
        """The scores for several targets; an attack that can share work between them overrides this."""
        return [self.score(evidence) for evidence in rows]


def check(attack: Attack, evidence: Evidence) -> None:
    """A clear error where the evidence lacks what the attack needs."""
    needs = attack.needs
    if needs.aligned and not evidence.aligned:
        raise UserError(f"attack {attack.name} needs shadows trained on asked samples: use the game random_halves")
    if len(evidence.shadows) < needs.shadows:
        raise UserError(
            f"attack {attack.name} needs at least {needs.shadows} shadow models, got {len(evidence.shadows)}"
        )
    if needs.population and evidence.population_target is None:
        raise UserError(f"attack {attack.name} needs reference samples that are in no model; the game sets none aside")
    observed = {"white_box": evidence.target.gradient_norms, "perturbed": evidence.target.hits}
    for query in needs.queries:
        if observed.get(query, evidence) is None:
            raise UserError(f"attack {attack.name} needs the query {query!r}, which the model was not asked")


def checked(attack: Attack, scores: Any, n: int) -> Scores:
    """An attack's scores as float64 ``(n,)``; a clear error if they are of another shape, no numbers, or NaN."""
    found = np.asarray(scores)
    if found.shape != (n,) or found.dtype.kind not in "fiub":
        raise UserError(
            f"attack {attack} gave scores of shape {found.shape} ({found.dtype}); expected ({n},) numbers, one per "
            "asked sample: see its score()"
        )
    if lacking := int(np.isnan(found).sum()):
        raise UserError(f"attack {attack} gave NaN for {lacking} of {n} samples; expected numbers: see its score()")
    return found.astype(np.float64)


attacks: Registry[Attack] = Registry("attack", "relaxloss.attacks")

SETS: dict[str, tuple[str, ...]] = {
    "blackbox": ("correctness", "confidence", "loss", "entropy", "modified_entropy", "neural"),
    "whitebox": ("grad_x_l1", "grad_x_l2", "grad_w_l1", "grad_w_l2"),
}
SETS["paper"] = SETS["blackbox"] + SETS["whitebox"]
SETS["modern"] = ("lira", "lira_offline", "rmia", "quantile", "label_only", "calibration")


def parse(given: str | Mapping[str, Any] | Attack) -> Attack:
    """An attack from its spec."""
    return attacks.parse(given)


def parse_list(text: str, usable: Callable[[Attack], bool] = lambda attack: True) -> tuple[Attack, ...]:
    """Attacks from a comma-separated list of specs and of the sets ``all`` and `SETS`.

    Of a set, only the usable ones are taken; what is named by itself always is.
    """
    names: list[str] = []
    for piece in split_list(text):
        if piece == "all" or piece in SETS:
            names += [name for name in SETS.get(piece, attacks.names()) if usable(parse(name))]
        elif piece.partition(":")[0] not in attacks.names():
            raise unknown("attack or attack set", piece, [*attacks.names(), *SETS, "all"])
        else:
            names.append(piece)
    return tuple(parse(name) for name in dict.fromkeys(names))


AttackField = Annotated[InstanceOf[Attack], BeforeValidator(parse)]

"""RMIA, the robust membership inference attack (Zarifzadeh, Liu, Shokri, ICML 2024), online and offline.

Threat model: black-box; the attacker knows the label, has shadow models (few are enough) and population samples that it
knows to be in no model: the game's reference set.

Differences from the paper: one query instead of 18 augmented ones; the offline `a` is tuned on a shadow, if there are
two (else it is 0.3, which the paper reports for CIFAR-10); equal shares are ordered by the sample's own ratio,
since a population of a few hundred could not resolve a false-positive rate of 0.1 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat

from relaxloss.attacks import functional
from relaxloss.attacks._leave_one_out import Statistics
from relaxloss.attacks.base import Attack, Evidence, Needs, Scores, attacks

UNTUNED = 0.3  # offline_a where there is no second shadow to tune it with


@attacks.register("rmia")
@dataclass(frozen=True)
class Rmia(Attack):
    """The share of the population z with ``(p_x / Pr(x)) / (p_z / Pr(z)) > gamma``.

    Attributes:
        gamma: by how much x must beat z.
        mode: ``online``: Pr(x) is the mean over all shadows, in or out; ``offline``: ``((1 + a) mean over the shadows
            that lack x + (1 - a)) / 2``; ``auto``: online where the game trains shadows on asked samples.
        offline_a: a; None: tuned.
    """

    about: ClassVar[str] = "the share of the population that the sample's likelihood ratio beats (Zarifzadeh 2024)"
    needs: ClassVar[Needs] = Needs(shadows=1, population=True)
    gamma: PositiveFloat = 1.0
    mode: Literal["auto", "online", "offline"] = "auto"
    offline_a: Annotated[float, Field(ge=0, le=1)] | None = None

    def score(self, evidence: Evidence) -> Scores:
        """The share of every asked sample ``(N,)``, from 0 to 1 plus less than 1/Z."""
        return self.score_all((evidence,))[0]

    def score_all(self, rows: tuple[Evidence, ...]) -> list[Scores]:
        """Each target's scores, with each shadow's statistic computed once."""
        of = Statistics(functional.loss)
        return [self._one(evidence, of) for evidence in rows]

    def _one(self, evidence: Evidence, of: Statistics) -> Scores:
        assert evidence.population_target is not None  # `needs.population`
        online = self.mode == "online" or (self.mode == "auto" and evidence.aligned)
        population = functional.Population(
            of.plain(evidence.population_target),
            of.shadows(evidence, evidence.population),
            evidence.shadow_member[:, evidence.population],
        )
        return functional.rmia(
            of.plain(evidence.target),
            of.shadows(evidence, evidence.asked),
            evidence.shadow_member[:, evidence.asked],
            population,
            self.gamma,
            None if online else self._a(evidence, of),
            break_ties=True,
        )

    def _a(self, evidence: Evidence, of: Statistics) -> float:
        if self.offline_a is not None:
            return self.offline_a
        member = evidence.shadow_member[:, evidence.fit]
        if len(member) < 2 or member[0].all() or not member[0].any():
            return UNTUNED
        return functional.rmia_tune_a(of.shadows(evidence, evidence.fit), member)

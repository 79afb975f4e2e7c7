"""Difficulty calibration (Watson, Guo, Cormode, Sablayrolles, ICLR 2022).

Threat model: black-box; the attacker knows the label and has shadow models, of which one is enough. A hard sample has a
high loss in every model; what counts is how much lower the target's loss is than that of models without the sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from relaxloss.attacks import functional
from relaxloss.attacks._leave_one_out import Statistics
from relaxloss.attacks.base import Attack, Evidence, Needs, Scores, attacks


@attacks.register("calibration")
@dataclass(frozen=True)
class Calibration(Attack):
    """``mean loss over the shadows that lack the sample - the target's loss``; losses are cross-entropies."""

    about: ClassVar[str] = "how much lower the loss is than that of shadows without the sample (Watson 2022)"
    needs: ClassVar[Needs] = Needs(shadows=1)

    def score(self, evidence: Evidence) -> Scores:
        """The calibrated score of every asked sample ``(N,)``."""
        return self.score_all((evidence,))[0]

    def score_all(self, rows: tuple[Evidence, ...]) -> list[Scores]:
        """Each target's scores, with each shadow's losses computed once."""
        of = Statistics(functional.loss)
        return [self._one(evidence, of) for evidence in rows]

    def _one(self, evidence: Evidence, of: Statistics) -> Scores:
        shadows, member = of.shadows(evidence, evidence.asked), evidence.shadow_member[:, evidence.asked]
        return functional.difficulty_calibration(of.plain(evidence.target), shadows, member)

"""LiRA, the likelihood-ratio attack (Carlini et al., S&P 2022), online and offline.

Threat model: black-box; the attacker knows the label and trains shadow models on data like the target's. Online: the
asked samples themselves are in some of the shadows. Offline: they need be in none.
Images are asked under 18 flips and shifts, and the queries' scores are averaged (a game's augmented queries).

Differences from the paper's code: see `relaxloss.attacks.functional.lira`; one spread for all samples with fewer than
63 shadows (64 models, one of them attacked). With few shadows all of that is noisy: 16 or more are worth having.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from relaxloss.attacks import functional
from relaxloss.attacks._leave_one_out import Statistics, circle
from relaxloss.attacks.base import Attack, Evidence, Needs, Scores, attacks

STATISTICS = {"logit_margin": functional.logit_margin, "hinge": functional.hinge}


@attacks.register("lira")
@dataclass(frozen=True)
class Lira(Attack):
    """``mean over queries of log N(t; mu_in, sigma_in) - log N(t; mu_out, sigma_out)``.

    Attributes:
        statistic: t: ``logit_margin``, the paper's, or ``hinge``, which the largest other logit alone decides.
        variance: ``global``: one spread for all samples; ``sample``: each its own; ``auto``: its own from 63 shadows.
    """

    version: ClassVar[int] = 2
    about: ClassVar[str] = "likelihood ratio of the margin, in against out of the shadows (Carlini 2022)"
    needs: ClassVar[Needs] = Needs(shadows=2, aligned=True, queries=("plain", "augmented"))
    online: ClassVar[bool] = True
    statistic: Literal["logit_margin", "hinge"] = "logit_margin"
    variance: Literal["auto", "global", "sample"] = "auto"

    def score(self, evidence: Evidence) -> Scores:
        """The log-likelihood ratio of every asked sample ``(N,)``."""
        return self.score_all((evidence,))[0]

    def score_all(self, rows: tuple[Evidence, ...]) -> list[Scores]:
        """Each target's scores; in a leave-one-out game from one pass over all models, equal to one by one."""
        of = Statistics(STATISTICS[self.statistic])
        game = circle(rows)
        if game is None:
            return [self._one(evidence, of) for evidence in rows]
        asked = rows[0].asked
        models = np.stack([of.queries(model)[:, asked] for model in game.models])
        targets = np.empty_like(models)
        for place, evidence in zip(game.out, rows, strict=True):
            targets[place] = of.queries(evidence.target)
        scores = functional.lira_leave_one_out(
            models, game.member, targets=targets, online=self.online, variance=self.variance
        )
        return list(scores[game.out])

    def _one(self, evidence: Evidence, of: Statistics) -> Scores:
        shadows = np.stack([of.queries(shadow)[:, evidence.asked] for shadow in evidence.shadows])
        member = evidence.shadow_member[:, evidence.asked]
        return functional.lira(of.queries(evidence.target), shadows, member, online=self.online, variance=self.variance)


@attacks.register("lira_offline")
@dataclass(frozen=True)
class OfflineLira(Lira):
    """``mean over queries of (t - mu_out) / sigma_out``, over the shadows that lack the sample."""

    about = "how far the margin is above that of the shadows without the sample (Carlini 2022)"
    needs = Needs(shadows=1, queries=("plain", "augmented"))
    online = False

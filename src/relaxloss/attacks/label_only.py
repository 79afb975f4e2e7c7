"""Label-only attacks: does the answer survive a perturbed query?

Sources: Choquette-Choo et al. (ICML 2021); Li & Zhang (CCS 2021).

Threat model: the attacker sees the answered class alone, of the plain query and of perturbed ones (`signals.perturbed`:
flips and shifts of images, flipped bits, noise on numbers), and knows the label. Defenses that change confidences and
keep labels do not touch it. With shadows it learns which perturbations tell members apart; without, it counts.

Difference from the papers: the logistic regression takes the place of a threshold on the count or the distance to the
boundary, which costs thousands of queries per sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from relaxloss import seeds
from relaxloss.attacks.base import Attack, Evidence, Needs, Scores, attacks
from relaxloss.errors import UserError
from relaxloss.signals.signals import Signals

LIMIT = 50_000  # rows to fit on


@attacks.register("label_only")
@dataclass(frozen=True)
class LabelOnly(Attack):
    """How often the perturbed queries are answered right, or the logit of a logistic regression on which ones are.

    Attributes:
        rule: ``logistic``: fitted on the shadows' members and non-members; ``count``: the share of right answers;
            ``auto``: logistic if there are shadows.
    """

    about: ClassVar[str] = "how often perturbed queries are answered right, weighed on shadows"
    needs: ClassVar[Needs] = Needs(queries=("plain", "perturbed"))
    rule: Literal["auto", "logistic", "count"] = "auto"

    def score(self, evidence: Evidence) -> Scores:
        """The share, or the fitted logit of membership, of every asked sample ``(N,)``."""
        asked = _hits(evidence.target)
        member = evidence.shadow_member[:, evidence.fit].reshape(-1)
        both = bool(member.any() and not member.all())
        if self.rule == "logistic" and not both:
            raise UserError("label_only:rule=logistic needs shadows with members and non-members; or rule=count")
        if self.rule == "count" or not both:
            return np.asarray(asked.mean(axis=1, dtype=np.float64))
        hits = np.concatenate([_hits(shadow)[evidence.fit] for shadow in evidence.shadows])
        if len(hits) > LIMIT:
            rows = seeds.rng(evidence.seed, "label_only", "rows").permutation(len(hits))[:LIMIT]
            hits, member = hits[rows], member[rows]
        fitted = LogisticRegression(class_weight="balanced", max_iter=1000).fit(hits, member)
        return np.asarray(fitted.decision_function(asked), dtype=np.float64)


def _hits(signals: Signals) -> npt.NDArray[np.bool_]:
    """``(n, Q)``"""
    assert signals.hits is not None  # needs.queries
    return signals.hits.T

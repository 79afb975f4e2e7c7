"""Metric-based attacks: one number per sample, no training (Yeom et al. 2018; Song & Mittal 2021; RelaxLoss).

Threat model: black-box; the attacker knows the true label (not for `entropy`) and, for a decision, a threshold that it
chooses on a shadow model. AUC needs no threshold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from relaxloss.attacks import functional
from relaxloss.attacks.base import Attack, Evidence, Scores, attacks


@dataclass(frozen=True)
class Threshold(Attack):
    """A score that is a function of the plain query's logits and the label alone."""

    statistic: ClassVar[Callable[..., Scores]]

    def score(self, evidence: Evidence) -> Scores:
        """The statistic of every asked sample ``(N,)``."""
        return type(self).statistic(evidence.target.plain, evidence.target.labels)


@attacks.register("correctness")
@dataclass(frozen=True)
class Correctness(Threshold):
    """1 where the label is predicted right, else 0: the accuracy gap as an attack (Yeom et al. 2018)."""

    about = "is the label predicted right?"
    statistic = staticmethod(functional.correctness)


@attacks.register("confidence")
@dataclass(frozen=True)
class Confidence(Threshold):
    """The true class's probability p_y."""

    about = "the true class's probability"
    statistic = staticmethod(functional.confidence)


@attacks.register("loss")
@dataclass(frozen=True)
class Loss(Threshold):
    """The negative cross-entropy log p_y: orders like `confidence`, without its saturation at 1."""

    about = "the negative cross-entropy"
    statistic = staticmethod(functional.loss)


@attacks.register("entropy")
@dataclass(frozen=True)
class Entropy(Threshold):
    """The negative entropy of the posterior; needs no label."""

    about = "the negative entropy of the posterior"
    statistic = staticmethod(functional.entropy)


@attacks.register("modified_entropy")
@dataclass(frozen=True)
class ModifiedEntropy(Threshold):
    """Song & Mittal's modified entropy, negated: entropy that knows which class is right."""

    about = "the negative modified entropy (Song & Mittal 2021)"
    statistic = staticmethod(functional.modified_entropy)

"""Attacks as pure functions of arrays: numpy in, float64 scores out, and a higher score always means member."""

from relaxloss.attacks.functional.likelihood import lira, lira_leave_one_out
from relaxloss.attacks.functional.reference import (
    Population,
    attack_r,
    base,
    difficulty_calibration,
    rmia,
    rmia_tune_a,
)
from relaxloss.attacks.functional.statistics import (
    confidence,
    correctness,
    entropy,
    hinge,
    logit_margin,
    loss,
    modified_entropy,
)

__all__ = [
    "Population",
    "attack_r",
    "base",
    "confidence",
    "correctness",
    "difficulty_calibration",
    "entropy",
    "hinge",
    "lira",
    "lira_leave_one_out",
    "logit_margin",
    "loss",
    "modified_entropy",
    "rmia",
    "rmia_tune_a",
]

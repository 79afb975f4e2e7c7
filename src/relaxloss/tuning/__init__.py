"""Tuning: the search for a defense's strength."""

from relaxloss.tuning.tune import (
    DOWN,
    SETTINGS,
    Line,
    Objective,
    TunedField,
    Tuning,
    games_of,
    measure,
    strength_of,
    tune,
)

__all__ = [
    "DOWN",
    "SETTINGS",
    "Line",
    "Objective",
    "TunedField",
    "Tuning",
    "games_of",
    "measure",
    "strength_of",
    "tune",
]

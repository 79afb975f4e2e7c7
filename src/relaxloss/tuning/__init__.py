"""Tuning: the search for a defense's strength."""

from relaxloss.tuning.tune import (
    DOWN,
    SETTINGS,
    Line,
    Strength,
    Tuning,
    Wish,
    games_of,
    measure,
    strength_of,
    tune,
)

__all__ = [
    "DOWN",
    "SETTINGS",
    "Line",
    "Strength",
    "Tuning",
    "Wish",
    "games_of",
    "measure",
    "strength_of",
    "tune",
]

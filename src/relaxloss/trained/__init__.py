"""Trained models: train one, save it, load it, predict with it."""

from relaxloss.trained.trained import (
    CARD,
    DAMAGE,
    DRAWN,
    FINGERPRINT,
    FORMAT,
    GUESSABLE,
    HISTORY,
    NETWORK,
    PRIVATE_CARD,
    PRIVATE_HISTORY,
    RELEASE,
    SEED,
    SPLIT,
    Trained,
    train,
)

__all__ = [
    "CARD",
    "DAMAGE",
    "DRAWN",
    "FINGERPRINT",
    "FORMAT",
    "GUESSABLE",
    "HISTORY",
    "NETWORK",
    "PRIVATE_CARD",
    "PRIVATE_HISTORY",
    "RELEASE",
    "SEED",
    "SPLIT",
    "Trained",
    "train",
]

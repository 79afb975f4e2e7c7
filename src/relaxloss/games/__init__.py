"""Games: who is in which model, and whose membership the attacker must decide."""

from relaxloss.games.games import (
    FEWEST,
    GAMES,
    Design,
    FiveFolds,
    Flags,
    Game,
    GameField,
    Indices,
    RandomHalves,
    Redrawn,
    TuningFolds,
    coins,
    five_folds,
    parse,
    permuted,
)

__all__ = [
    "FEWEST",
    "GAMES",
    "Design",
    "FiveFolds",
    "Flags",
    "Game",
    "GameField",
    "Indices",
    "RandomHalves",
    "Redrawn",
    "TuningFolds",
    "coins",
    "five_folds",
    "parse",
    "permuted",
]

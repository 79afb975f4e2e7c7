"""Several defenses at once: a comma-separated list, ``all``, every setting of their sweeps."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from relaxloss.defenses.base import NONE, Defense, defenses, parse
from relaxloss.specs import split_list


def parse_list(text: str, num_classes: int | None = None) -> tuple[Defense, ...]:
    """Defenses from a comma-separated list.

    ``all`` stands for every installed one at its default, no defense first; ablations are named one by one. With
    `num_classes`, a default in nats that is above a guess's loss with so many classes is halfway to it instead.
    """
    found: list[Defense] = []
    for piece in split_list(text):
        if piece == "all":
            every = [parse(cls.name) for cls in defenses if not cls.ablation]
            every = [each.below_guess(num_classes) if num_classes else each for each in every]
            found += [NONE, *installed(every)]
        else:
            found.append(parse(piece))
    return tuple(dict.fromkeys(found))


def installed(found: Iterable[Defense]) -> list[Defense]:
    """Those whose optional dependency is there; a warning names the others."""
    kept = []
    for defense in found:
        if defense.installed:
            kept.append(defense)
        else:
            warnings.warn(f"{defense.name} is left out: {defense.requires} is not installed", stacklevel=2)
    return kept


def swept(given: Sequence[Any], num_classes: int, epochs: int) -> tuple[Defense, ...]:
    """Each defense followed by every setting of its sweep that so many classes and epochs can have."""
    found: list[Defense] = []
    for defense in map(parse, given):
        found.append(defense)
        points = [replace(defense, **settings) for settings in defense.sweep]
        found += [point for point in points if not point.above_guess(num_classes) and (point.snapshot or 0) <= epochs]
    return tuple(dict.fromkeys(found))

"""What chose a setting: on which games its strength was tuned, and whether those touch the samples asked about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, InstanceOf, NonNegativeInt

from relaxloss.data import Dataset
from relaxloss.defenses import Defense, DefenseField
from relaxloss.games import Design, GameField, Indices
from relaxloss.specs import Spec, build


@dataclass(frozen=True)
class Tuned(Spec):
    """The games whose results chose a defense's settings, and the data that they were played on.

    Attributes:
        defense: the setting chosen.
        games: the games, such as `relaxloss.games.TuningFolds`.
        seed: the seed that they were drawn with.
        data: the data set's fingerprint.
    """

    defense: DefenseField
    games: tuple[GameField, ...]
    seed: NonNegativeInt
    data: str

    def used(self, dataset: Dataset) -> Indices:
        """The samples that had a part in the choice: in a model, asked about, fitted on, or set aside."""
        found = [np.zeros(0, np.int64)]
        for game in self.games:
            design = game.draw_from(dataset, self.seed)
            found += [np.flatnonzero(design.member.any(axis=0)), design.asked, design.fit, design.reference]
        return np.unique(np.concatenate(found))

    def __str__(self) -> str:
        """One sentence for reports."""
        count = f"{len(self.games)} games {self.games[0].name}" if self.games else "no game"
        return f"{self.defense} was chosen on folds 3 to 5 of the five folds of seed {self.seed} ({count})."


def read(given: Any) -> Any:
    """A `Tuned` from its dict."""
    return build(Tuned, given) if isinstance(given, Mapping) else given


TunedField = Annotated[InstanceOf[Tuned], BeforeValidator(read)]


def on_asked(tuned: tuple[Tuned, ...], defense: Defense, design: Design, dataset: Dataset) -> bool | None:
    """Whether samples that a drawing asks about chose the defense's settings; None: on other data.

    A defense that nobody tuned was set by hand, and no sample chose it.
    """
    mine = [each for each in tuned if each.defense == defense]
    here = [each for each in mine if each.data == dataset.fingerprint]
    if any(np.isin(design.asked, each.used(dataset)).any() for each in here):
        return True
    return False if len(here) == len(mine) else None

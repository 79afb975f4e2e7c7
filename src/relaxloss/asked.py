"""Whom an attacker is asked about: single samples, or persons with all the samples that they have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from relaxloss.attacks.base import Scores
from relaxloss.attacks.functional.shapes import bounded

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Asked:
    """N samples as those of P persons; each of another, unless somebody says whose they are.

    Attributes:
        records: ``(P,)`` the sample that stands for each person: the first one.
        person: ``(N,)`` each sample's person, as a place in `records`.
    """

    records: Ints
    person: Ints

    @staticmethod
    def of(samples: Ints, persons: Ints) -> Asked:
        """The given places ``(N,)`` in a pool of which each sample is of the person in `persons` ``(M,)``."""
        _, first, person = np.unique(persons[samples], return_index=True, return_inverse=True)
        return Asked(samples[first], person)

    def mean(self, values: Scores) -> Scores:
        """The mean over each person's samples, ``(..., N)`` → ``(..., P)``: his rows together tell more than one.

        Infinite values count as one beyond the most extreme finite one.
        """
        if len(self.records) == len(self.person):  # each of another
            return values[..., np.argsort(self.person)]
        (finite,) = bounded(np.asarray(values, dtype=np.float64))
        lines = finite.reshape(-1, finite.shape[-1])
        sums = np.stack([np.bincount(self.person, line) for line in lines])
        return (sums / np.bincount(self.person)).reshape(*finite.shape[:-1], -1)

"""Whom an attacker is asked about: single samples, or persons with all the samples that they have."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from relaxloss.attacks.base import Scores
from relaxloss.attacks.functional.shapes import bounded

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Grouping:
    """N samples as those of P persons; each of another, unless somebody says whose they are.

    Attributes:
        records: ``(P,)`` the sample that stands for each person: the first one.
        person: ``(N,)`` each sample's person, as a place in `records`.
    """

    records: Ints
    person: Ints

    @staticmethod
    def of(samples: Ints, persons: Ints) -> Grouping:
        """The given places ``(N,)`` in a pool of which each sample is of the person in `persons` ``(M,)``."""
        _, first, person = np.unique(persons[samples], return_index=True, return_inverse=True)
        return Grouping(samples[first], person)

    @property
    def single(self) -> bool:
        """Whether each person has one sample."""
        return len(self.records) == len(self.person)

    @functools.cached_property
    def counts(self) -> Ints:
        """How many samples each person has ``(P,)``."""
        return np.bincount(self.person)

    def mean(self, values: Scores) -> Scores:
        """The mean over each person's samples, ``(..., N)`` → ``(..., P)``.

        Infinite values count as one beyond the most extreme finite one.
        """
        if self.single:
            return self._by_person(values)
        (finite,) = bounded(np.asarray(values, dtype=np.float64))
        means: Scores = np.add.reduceat(self._by_person(finite), self._starts, axis=-1) / self.counts
        return means

    def largest(self, values: Scores) -> Scores:
        """The largest of each person's samples, ``(..., N)`` → ``(..., P)``."""
        found: Scores = np.maximum.reduceat(self._by_person(values), self._starts, axis=-1)
        return found

    def scores(self, attack: str, values: Scores) -> dict[str, Scores]:
        """An attack's scores of persons from those of samples, ``(..., N)`` → ``(..., P)``, by the attack's name.

        The mean finds a person all of whose samples leak a little; the largest, as an attack of its own
        (``rows=max``), one of whom a single sample leaks.
        """
        if self.single:
            return {attack: self._by_person(values)}
        other = f"{attack}{',' if ':' in attack else ':'}rows=max"
        return {attack: self.mean(values), other: self.largest(values)}

    @property
    def _starts(self) -> Ints:
        return np.cumsum(self.counts) - self.counts

    @functools.cached_property
    def _order(self) -> Ints:
        return np.argsort(self.person, kind="stable")

    def _by_person(self, values: Scores) -> Scores:
        return values[..., self._order]

"""Signals: what an observer of a released model writes down, as arrays.

A query is one way of asking; each is stored by itself, so that an attack which needs one more does not repeat the
others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

VERSION = 2
STAY = ("logits", "augmented")  # arrays that are too large to be held for dozens of models
Float = npt.NDArray[np.floating[Any]]
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Answers:
    """``(A, m, C)`` in an npy file, or ``(m, C)`` of one query; open only while a part of it is read."""

    path: Path

    def __len__(self) -> int:
        return len(self._open())

    def __getitem__(self, at: Any) -> Float:
        return np.array(self._open()[at])

    def _open(self) -> Float:
        array: Float = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return array[None] if array.ndim == 2 else array


@dataclass(frozen=True, eq=False)
class Signals:
    """Observations of one model on n samples, none of which can be written to.

    What a model answers to all queries about a whole pool can be gigabytes, and an attack looks at dozens of models: so
    the answers may rest in a file, and those about chosen samples are taken out when they are read.

    Attributes:
        answers: ``(A, m, C)``, logits of the pool, or of the n samples alone; read them by `plain`, `query`, `logits`.
        labels: ``(n,)``.
        gradient_norms: ``(n, 4)``: x-L1, x-L2, w-L1, w-L2 of the cross-entropy, seen by a white-box observer.
        hits: ``(Q, n)`` bool: is the answered label right under each of Q perturbed queries?
        rows: ``(n,)``, where the samples are among the m answered; None: they are those, in their order.
    """

    answers: Float | Answers
    labels: npt.NDArray[np.int64]
    gradient_norms: Float | None = None
    hits: npt.NDArray[np.bool_] | None = None
    rows: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            array = getattr(self, field.name)
            if isinstance(array, np.ndarray):
                object.__setattr__(self, field.name, fixed(array))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def queries(self) -> int:
        """A, in how many ways each sample was asked."""
        return len(self.answers)

    @property
    def logits(self) -> Float:
        """``(A, n, C)``, the plain query first; log-probabilities where the release gives probabilities."""
        return fixed(self.answers[:] if self.rows is None else self.answers[:, self.rows])

    @property
    def plain(self) -> Float:
        """``(n, C)``, the plain query's."""
        return self.query(0)

    def query(self, number: int) -> Float:
        """``(n, C)``, that query's."""
        return fixed(self.answers[number] if self.rows is None else self.answers[number, self.rows])

    def take(self, rows: Any) -> Signals:
        """The samples at `rows`: places, or booleans ``(n,)``, or a slice."""
        rows = np.arange(len(self))[rows]
        norms = None if self.gradient_norms is None else self.gradient_norms[rows]
        hits = None if self.hits is None else self.hits[:, rows]
        chosen = rows if self.rows is None else self.rows[rows]
        return Signals(self.answers, self.labels[rows], norms, hits, chosen)

    @staticmethod
    def join(parts: Iterable[Mapping[str, Any]], labels: npt.NDArray[np.int64]) -> Signals:
        """One object from what `read` or `observe` gave of several queries."""
        arrays: dict[str, Any] = {}
        for part in parts:
            arrays |= part
        answers = arrays["augmented"] if len(arrays.get("augmented", ())) else arrays["logits"]
        if isinstance(answers, np.ndarray) and answers.ndim == 2:  # one query's
            answers = answers[None]
        return Signals(answers, labels, arrays.get("gradient_norms"), arrays.get("hits"))


def read(folder: Path) -> dict[str, Any]:
    """The arrays of one query by their names, from their npy files; the answers stay there."""
    found = {path.stem: path for path in sorted(folder.glob("*.npy"))}
    return {name: Answers(path) if name in STAY else np.load(path, allow_pickle=False) for name, path in found.items()}


def fixed(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same numbers, not to be written to: one attack must not change what the next one sees."""
    view = array.view()
    view.flags.writeable = False
    return view

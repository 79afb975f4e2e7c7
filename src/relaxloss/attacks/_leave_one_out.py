"""What the attacks that compare with shadows share: a statistic per model, computed once for all targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from relaxloss.attacks.base import Evidence, Scores
from relaxloss.signals.signals import Signals

Bools = npt.NDArray[np.bool_]


class Statistics:
    """A statistic of each model's signals, kept while this object lives: K shadows serve K + 1 targets.

    Only ``(A, n)`` numbers per model are kept and stacked, never logits ``(K, n, C)``.
    """

    def __init__(self, statistic: Callable[..., Scores]) -> None:
        self._statistic = statistic
        self._kept: dict[int, tuple[Signals, list[Scores]]] = {}  # the signals too, so that no id is used twice

    def queries(self, signals: Signals) -> Scores:
        """``(A, n)``, one row per query."""
        return np.stack(self._rows(signals, signals.queries))

    def plain(self, signals: Signals) -> Scores:
        """``(n,)``, the plain query's."""
        return self._rows(signals, 1)[0]

    def shadows(self, evidence: Evidence, places: npt.NDArray[np.int64]) -> Scores:
        """``(K, n)``: each shadow's plain statistic at places in the pool."""
        return np.stack([self.plain(shadow)[places] for shadow in evidence.shadows])

    def _rows(self, signals: Signals, count: int) -> list[Scores]:
        _, rows = self._kept.setdefault(id(signals), (signals, []))
        for number in range(len(rows), count):
            rows.append(self._statistic(signals.query(number), signals.labels))
        return rows[:count]


class Circle(NamedTuple):
    """Models each of which is left out of one target's shadows: `out[t]` is target t's place among the models."""

    models: list[Signals]
    member: Bools
    out: list[int]


def circle(rows: Sequence[Evidence]) -> Circle | None:
    """The models of a leave-one-out game with their membership on the asked samples ``(K+1, N)``.

    None if it is no such game: every target must lack exactly one model, and every model be lacking once.
    """
    asked = rows[0].asked
    found = {
        id(shadow): (shadow, member)
        for row in rows
        for shadow, member in zip(row.shadows, row.shadow_member, strict=True)
    }
    order = list(found)
    out = []
    for row in rows:
        lacking = set(order) - {id(shadow) for shadow in row.shadows}
        if len(lacking) != 1 or len(row.shadows) != len(order) - 1 or not np.array_equal(row.asked, asked):
            return None
        out.append(order.index(lacking.pop()))
    if sorted(out) != list(range(len(order))):
        return None
    return Circle([shadow for shadow, _ in found.values()], np.stack([m[asked] for _, m in found.values()]), out)

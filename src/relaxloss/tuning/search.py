"""Search along one strength: which setting to try next, and which of those tried is the best. No training here.

Accuracy and leakage are noisy functions of the strength, dear to evaluate; leakage falls with it, roughly, and accuracy
has no shape that one could rely on. So: an even grid over the whole range, then bisection of the gaps next to the best
setting found and across the bound.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from relaxloss.errors import UserError

GRID = 4  # settings tried at first: the ends of the range, and two between them
NARROW = 0.02  # of the range: gaps that bisection would make narrower are left alone
DIGITS = 3  # significant digits of a strength: more could not be told apart
LOG = 10.0  # from this ratio of its ends on, a range is searched on a logarithmic scale


@dataclass(frozen=True)
class Range:
    """Where a strength may lie: from `low` to `high`, whole numbers only if `whole`."""

    low: float
    high: float
    whole: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise UserError(f"got a range from {self.low:g} to {self.high:g}; expected --low below --high, both finite")

    @property
    def log(self) -> bool:
        """Whether places are even on a logarithmic scale."""
        return self.low > 0 and self.high >= LOG * self.low

    def place(self, strength: float) -> float:
        """Where a strength lies: 0 at the low end, 1 at the high end."""
        if self.log:
            return math.log(strength / self.low) / math.log(self.high / self.low)
        return (strength - self.low) / (self.high - self.low)

    def at(self, place: float) -> float:
        """The strength at a place, rounded to what is worth writing down, and within the range."""
        if place in (0, 1) and not self.whole:
            return self.high if place else self.low
        span = self.high / self.low if self.log else self.high - self.low
        exact = self.low * span**place if self.log else self.low + span * place
        rounded = float(round(exact)) if self.whole else float(f"{exact:.{DIGITS}g}")
        return min(max(rounded, self.low), self.high)


@dataclass(frozen=True)
class Point:
    """One setting that was tried: its strength, the test accuracy and the strongest attack's leakage (AUC or TPR)."""

    strength: float
    accuracy: float
    leakage: float


@dataclass(frozen=True)
class Goal:
    """What the best setting is. One of the two is given, the other None.

    Attributes:
        bound: the most accurate setting whose leakage is at most this.
        floor: the least leaky setting whose accuracy is at least this.
    """

    bound: float | None = None
    floor: float | None = None

    def slack(self, point: Point) -> float:
        """How far inside the bound, or above the floor, a setting is; below 0 it does not meet it."""
        if self.bound is not None:
            return self.bound - point.leakage
        assert self.floor is not None
        return point.accuracy - self.floor

    def gain(self, point: Point) -> float:
        """What is to be as large as possible: the accuracy under a bound, the privacy above a floor."""
        return point.accuracy if self.bound is not None else -point.leakage

    def met(self, point: Point) -> bool:
        """Whether a setting is allowed."""
        return self.slack(point) >= 0

    def best(self, points: Sequence[Point]) -> Point:
        """The allowed setting of the largest gain (of equals, of most slack); if none is allowed, the nearest to it."""
        allowed = [point for point in points if self.met(point)]
        if allowed:
            return max(allowed, key=lambda point: (self.gain(point), self.slack(point)))
        return max(points, key=lambda point: (self.slack(point), self.gain(point)))


def first(range_: Range, given: float | None = None, grid: int = GRID) -> tuple[float, ...]:
    """The strengths to try at first: an even grid, of which the inner point nearest to `given` is moved onto it.

    Of a grid of two, which has none, the nearest end is. So a strength that somebody set by hand is always among those
    compared.
    """
    found = [range_.at(step / (grid - 1)) for step in range(grid)]
    if given is not None and range_.low < given < range_.high:
        place = range_.place(given)
        movable = range(1, grid - 1) or range(grid)
        found[min(movable, key=lambda step: abs(step / (grid - 1) - place))] = given
    return tuple(sorted(set(found)))


def following(points: Sequence[Point], goal: Goal, range_: Range, asked: Collection[float] = ()) -> float | None:
    """The strength to try next, none of those `asked` for already; None where all gaps of interest are narrow.

    Of interest are the gaps beside the best setting, and those across the bound whose forbidden end has the larger
    gain. The widest is bisected first; one that leads to a larger gain counts as twice as wide.
    """
    best = goal.best(points)
    ordered = sorted(points, key=lambda point: point.strength)
    found: dict[float, float] = {}
    for left, right in itertools.pairwise(ordered):
        ends = range_.place(left.strength), range_.place(right.strength)
        width, middle = ends[1] - ends[0], range_.at(sum(ends) / 2)
        promising = any(goal.gain(end) > goal.gain(best) for end in (left, right))
        across = goal.met(left) != goal.met(right)
        if (best in (left, right) or (across and promising)) and left.strength < middle < right.strength:
            open_ = width >= 2 * NARROW and middle not in asked  # what was asked for, and is no point, has failed
            found[middle] = width * (1 + promising) if open_ else 0.0
    middle = max(found, key=lambda each: found[each], default=0.0)
    return middle if found.get(middle) else None


def search(
    evaluate: Callable[[tuple[float, ...]], Sequence[Point]],
    goal: Goal,
    range_: Range,
    *,
    settings: int = 8,
    given: float | None = None,
) -> list[Point]:
    """All points tried, in order: the grid at once, then one at a time until `settings` were asked for.

    `evaluate` may return fewer points than it was asked for: a setting that cannot be trained is passed over.
    """
    asked = set(first(range_, given, min(GRID, settings)))
    points = list(evaluate(tuple(sorted(asked))))
    while points and len(asked) < settings:
        strength = following(points, goal, range_, asked)
        if strength is None:
            break
        asked.add(strength)
        points += evaluate((strength,))
    return points

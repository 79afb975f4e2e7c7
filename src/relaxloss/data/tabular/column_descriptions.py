"""What is known of a table's columns beforehand, from a data dictionary: ranges of numbers and dates, and categories.

An encoder that is fitted on the members holds their means, deviations and rare categories, which no noise covers. Of a
column that is described it holds the description instead, which says nothing about anybody.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from relaxloss.data.dataset import Array
from relaxloss.data.tabular import dates
from relaxloss.errors import UserError
from relaxloss.validation import listed

Known = tuple[float, float] | tuple[str, ...]
WANTED = "the two ends of a range, as in age = [0, 110], or categories, as in ward = ['A', 'B']"
MOST_BEYOND = 0.5  # share of a column's values beyond the range: more, and it is of another unit


def read(given: Mapping[str, Sequence[Any]]) -> dict[str, Known]:
    """Columns' names → the two ends of a range, or categories; dates become text.

    Raises `UserError` for what is neither.
    """
    if not isinstance(given, Mapping):
        raise UserError(f"got a description of columns that is {type(given).__name__}; expected name = {WANTED}")
    return {str(name): _known(str(name), values) for name, values in given.items()}


def _known(name: str, values: Any) -> Known:
    if isinstance(values, (list, tuple)) and values:
        items = tuple(each.isoformat() if isinstance(each, datetime.date) else each for each in values)
        if all(isinstance(each, str) for each in items):
            if len(set(items)) == len(items):
                return items
        elif len(items) == 2 and all(_is_number(each) for each in items) and items[0] < items[1]:
            return float(items[0]), float(items[1])
    raise UserError(f"column {name!r} is described as {values!r}; expected {WANTED}, from low to high, none twice")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def bounds(known: Known, name: str, *, is_date: bool) -> tuple[float, float]:
    """The range of a column of numbers, or of dates in days since 1970-01-01.

    Raises `UserError` if the description is of another kind.
    """
    holds = "dates" if is_date else "numbers"
    if is_date and len(known) == 2 and (ends := dates.parsed(pa.array([str(each) for each in known]))) is not None:
        low, high = (float(day) for day in dates.days(ends))
        if low < high:
            return low, high
    elif not is_date and not isinstance(known[0], str):
        return float(known[0]), float(known[1])
    raise UserError(f"column {name!r} holds {holds} and is described as {list(known)}; expected {WANTED}")


def clip(numbers: Array, ends: tuple[float, float], name: str) -> int:
    """Bring values ``(n,)`` beyond the range to its ends, in place; how many there were.

    Raises `UserError` if more than half are.
    """
    with np.errstate(invalid="ignore"):  # of missing values
        beyond = int(((numbers < ends[0]) | (numbers > ends[1])).sum())
    if beyond > MOST_BEYOND * len(numbers):
        raise UserError(
            f"column {name!r}: {beyond:,} of {len(numbers):,} values are beyond the range {ends[0]:g} to {ends[1]:g} "
            "that it is described with; expected nearly all within (is it of another unit?)"
        )
    np.clip(numbers, *ends, out=numbers)
    return beyond


def categories(known: Known, found: Sequence[str], name: str) -> list[str]:
    """The described categories, in sorted order, of a column that holds the values `found`.

    Raises `UserError` if the column holds others, or the description is of another kind.
    """
    if not all(isinstance(each, str) for each in known):
        raise UserError(f"column {name!r} holds text and is described as {list(known)}; expected {WANTED}")
    others = [each for each in found if each not in known]
    if others:
        raise UserError(
            f"column {name!r} holds {listed(map(repr, others))}; expected only what it is described "
            f"with, {listed(map(repr, known))}: add what is missing there, or correct the data"
        )
    return sorted(str(each) for each in known)

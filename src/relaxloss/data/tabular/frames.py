"""Tables in memory: as a data set, and as rows with given columns, which is how a saved model is asked."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute

from relaxloss.data.dataset import FEWEST_MEMBERS, Array, Column, Dataset
from relaxloss.data.tabular import column_descriptions, dates, labels
from relaxloss.data.tabular.files import as_text, codes_of, of_table, without_views
from relaxloss.errors import UserError
from relaxloss.validation import differ, listed, named

STRANGE = 0.1  # share of a column's values that may be unknown: in training, too, a few are of rare categories
KNOWN = 5  # categories that a message names


def from_frame(
    frame: Any,
    *,
    label: str,
    name: str = "table",
    drop: str | Sequence[str] = (),
    columns: Mapping[str, Sequence[Any]] | None = None,
    group: str | None = None,
) -> Dataset:
    """The data set of a table in memory: a pandas DataFrame, or whatever Arrow takes for a table (polars' frames).

    As `relaxloss.data.load` of a file that holds it, by the same rules and with the same options; `name` is what it is
    called in reports. The index of a pandas frame is left out: who wants it as a column says ``frame.reset_index()``.

    Raises `UserError` for what is no table, and whatever in it cannot be used as it is.
    """
    if isinstance(frame, pd.DataFrame):
        names = [str(each) for each in frame.columns]
        arrays = [_arrow(series, each)[0] for each, (_, series) in zip(names, frame.items(), strict=True)]
    else:
        try:
            table = without_views(pa.table(frame))
        except (pa.ArrowException, TypeError, ValueError) as error:
            kind = type(frame).__name__
            raise UserError(
                f"got {kind} as a table ({error}); expected a pandas DataFrame, or a table of Arrow's"
            ) from None
        names, arrays = table.column_names, table.columns
    differ(names, "the table")
    named(names, "the table")
    return of_table(
        pa.table(arrays, names),
        name,
        label=str(label),
        drop=[str(each) for each in ((drop,) if isinstance(drop, (str, int)) else drop)],  # as the columns' names are
        columns=column_descriptions.read(columns or {}),
        group=None if group is None else str(group),
    )


def encode(frame: pd.DataFrame, columns: Sequence[Column]) -> Array:
    """Rows of a table as ``(n, D)`` float32: codes of categories, days of dates, NaN where a value is missing.

    Other columns are not looked at. Numbers beyond a column's bounds are taken to their ends, as in training. Dates may
    be given as text (YYYY-MM-DD), as pandas reads them. A category that the columns do not know is missing, as the
    encoder treats it; a warning is raised where more than a tenth are.

    Raises `UserError` for a column that is absent, there twice, or of another kind.
    """
    x = np.empty((len(frame), len(columns)), np.float32)
    names, strange = [str(each) for each in frame.columns], []
    for index, column in enumerate(columns):
        values = _values(frame, names, column.name)
        if values.null_count == len(values):
            x[:, index] = np.nan
        elif column.categories:
            x[:, index] = codes = _codes(values, column)
            unknown, given = int(np.isnan(codes).sum()) - values.null_count, len(values) - values.null_count
            if unknown > STRANGE * given and any(known is not None for known in column.categories):
                strange.append(f"{column.name} ({unknown:,} of {given:,})")
        else:
            x[:, index] = _days(values, column.name) if column.dates else _numbers(values, column.name)
            if column.bounds is not None:
                np.clip(x[:, index], *column.bounds, out=x[:, index])
    if strange:
        warnings.warn(
            f"values that the model did not learn: {listed(strange)}; they count as missing (is their spelling another "
            f"one here? Or did fewer than {FEWEST_MEMBERS} of those it was trained on have them?)",
            stacklevel=4,
        )
    return x


def _values(frame: pd.DataFrame, names: list[str], name: str) -> pa.Array:
    """The column `name` of a frame whose columns have these names, decoded."""
    if names.count(name) != 1:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
        hint = f" (is {near[0]!r} it?)" if near and not names.count(name) else ""
        raise UserError(
            f"the table has {names.count(name) or 'no'} column{'s' * (names.count(name) > 1)} {name!r}{hint}; expected "
            f"one of each that the model was trained on; it has {listed(names)}"
        )
    return _arrow(frame.iloc[:, names.index(name)], name)[1]


def _arrow(series: pd.Series[Any], name: str) -> tuple[pa.Array, pa.Array]:
    """A column as Arrow's; and with the values of its categories, whose own codes are not ours, nor their numbers."""
    if isinstance(series.dtype, pd.SparseDtype):
        series = pd.Series(np.asarray(series))
    try:
        values = pa.array(series, from_pandas=True)
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        return values, values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        kinds = listed(sorted({type(each).__name__ for each in series.dropna()}))
        raise UserError(
            f"column {name!r} holds what no column of a table can ({kinds}); expected numbers, text or dates, all of "
            "one kind: convert it (astype, pandas.to_numeric, pandas.to_datetime)"
        ) from None


def _codes(values: pa.Array, column: Column) -> Array:
    """The places of the values in the column's categories, NaN for missing and unknown ones."""
    kind, categories = values.type, column.categories or ()
    try:
        places = codes_of(as_text(values), categories)
    except pa.ArrowException:
        places = np.full(len(values), -1)
    learned = [repr(each) for each in categories if each is not None]
    if not labels.is_text(kind) and (places < 0).all() and len(learned) == len(categories):
        raise UserError(
            f"column {column.name!r} holds {_kind(values)}; the model learned {listed(learned, KNOWN)} there: write "
            "them so"
        )
    return np.where(places < 0, np.nan, places)


def _days(values: pa.Array, name: str) -> Array:
    found = values if dates.is_date(values.type) else dates.parsed(values)
    if found is None:
        raise UserError(
            f"column {name!r} holds {_kind(values)}; the model was trained on dates there: give dates "
            "(pandas.to_datetime), or text as YYYY-MM-DD"
        )
    return dates.days(found)


def _numbers(values: pa.Array, name: str) -> Array:
    kind, types = values.type, pa.types
    if types.is_boolean(kind):
        values = values.cast(pa.int8())
    elif not (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)):
        raise UserError(
            f"column {name!r} holds {_kind(values)}; the model was trained on numbers there: convert it "
            "(pandas.to_numeric)"
        )
    numbers: Array = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    infinite = np.abs(numbers) > np.finfo(np.float32).max
    if infinite.any():
        raise UserError(
            f"column {name!r} holds infinite values (or beyond float32) in {infinite.sum():,} of {len(numbers):,} "
            "rows; expected finite numbers, or missing ones"
        )
    return numbers


def _kind(values: pa.Array) -> str:
    """What a column holds, with its first value, in words."""
    kind = "text" if labels.is_text(values.type) else "dates" if dates.is_date(values.type) else str(values.type)
    first = next(each for each in values.to_pylist() if each is not None)
    return f"{kind} ({first!r}, ...)"

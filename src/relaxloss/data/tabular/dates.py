"""Dates and times as days since 1970-01-01."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute

from relaxloss.data.dataset import Array
from relaxloss.data.tabular import labels


def parsed(values: pa.Array) -> pa.Array | None:
    """Text of dates (YYYY-MM-DD, with a time or without; empty: missing) as dates; None if it holds anything else."""
    if not labels.is_text(values.type):
        return None
    filled = pa.compute.utf8_trim_whitespace(values)
    filled = pa.compute.if_else(pa.compute.equal(filled, ""), pa.scalar(None, filled.type), filled)
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            return filled.cast(kind)
        except pa.ArrowInvalid:
            continue
    return None


def is_date(kind: pa.DataType) -> bool:
    """Whether it is a type of dates, with times or without."""
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def days(values: pa.Array) -> Array:
    """Dates as float64 ``(n,)``, NaN where missing."""
    micros = values.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
    since: Array = micros.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False) / 86_400e6
    return since

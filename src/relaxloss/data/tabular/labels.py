"""Labels of any type → ``0 .. C-1``, or a clear refusal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from relaxloss.errors import UserError

MANY_CLASSES, FEW_ROWS = 1000, 10  # more classes need on average so many rows each
SHOWN = 10


def encode(column: pa.Array, what: str) -> tuple[npt.NDArray[np.int64], list[str]]:
    """The codes ``(M,)`` int64 of the labels in sorted order, and the C labels as text.

    Whole numbers sort as numbers, text as text. Raises `UserError` for missing labels, fractions (a regression target),
    a single class, and more than 1,000 classes of fewer than ten rows on average. The message calls them `what`.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        missing = np.isnan(values)
    elif pa.types.is_integer(kind) or pa.types.is_boolean(kind) or is_text(kind):
        missing = column.is_null().to_numpy(zero_copy_only=False)
        values = column.to_numpy(zero_copy_only=False) if not missing.any() else np.empty(0)
    else:
        raise UserError(f"{what} has the type {kind}; expected whole numbers, text, or true and false")
    if missing.any():
        raise UserError(
            f"{what} is missing in {missing.sum():,} of {len(missing):,} rows (the first: row {missing.argmax() + 1}); "
            "remove these rows or fill in the labels"
        )
    if values.dtype.kind == "f":
        if not np.isfinite(values).all() or (values != np.floor(values)).any():
            raise UserError(
                f"{what} holds fractions or infinite values, as a regression target does; expected classes: "
                "whole numbers, text, or true and false (cut the values into ranges first)"
            )
        if np.abs(values).max(initial=0) < 2**53:
            values = values.astype(np.int64)
    names, codes = np.unique(values, return_inverse=True)
    if len(names) < 2:
        raise UserError(f"{what} has {len(names)} class; expected at least 2 to tell apart")
    if len(names) > MANY_CLASSES and len(values) < FEW_ROWS * len(names):
        raise UserError(
            f"{what} has {len(names):,} different values in {len(values):,} rows; expected at most {MANY_CLASSES:,} "
            f"classes, or {FEW_ROWS} rows of each on average (is it an identifier, or a regression target?)"
        )
    if is_text(kind):
        _unlike(names.tolist(), what)
    return codes.astype(np.int64), [str(name) for name in names.tolist()]


def _unlike(names: Sequence[str], what: str) -> None:
    """Refuse names that differ in spaces around them only, or in case (single letters may): they look alike."""
    read: dict[str, list[str]] = {}
    for name in names:
        bare = name.strip()
        read.setdefault(bare if len(bare) == 1 else bare.casefold(), []).append(name)
    alike = [" and ".join(map(repr, group)) for group in read.values() if len(group) > 1]
    if alike:
        raise UserError(
            f"{what} has classes that differ in case or in spaces only: {', '.join(alike[:SHOWN])}; expected one "
            "spelling of each class: write them alike, or rename those that differ"
        )


def numbered(names: Sequence[str]) -> str:
    """What the codes of the labels are, for the provenance: the first ten as ``a = 0, b = 1, ...``."""
    shown = ", ".join(f"{name} = {code}" for code, name in enumerate(names[:SHOWN]))
    return f"{shown}{', ...' if len(names) > SHOWN else ''}"


def is_text(kind: pa.DataType) -> bool:
    """Whether an Arrow type holds text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))

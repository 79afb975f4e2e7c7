"""Columns that a user hands over, checked: numbers, true labels, flags of membership, names of samples.

Each function takes an array of anything and what to call it, and raises `UserError`: what was got, what was expected,
what to do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from relaxloss.errors import UserError

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

FEWEST_OF_EACH = 5
FRONT = re.compile(r"(p|prob|proba|probability|logit|score|class|pred|prediction)([_ .:=-]|(?=\d))")
SHOWN = 10
MEMBER_WORDS = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "member", "members", "in", "train"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n", "nonmember", "non-member", "non_member", "out", "test"), False),
}
KINDS = {"c": "complex numbers", "b": "true and false", "O": "Python objects", "U": "text", "S": "text"}
FORMS = {
    1: "(N,), one per sample",
    2: "(N, C), one row per sample and one column per class",
    3: "(K, N, C), one block per model",
}
EXACT = 2**53  # from here on not every whole number is a float64


def numbers(values: Any, what: str, ndims: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Finite numbers (``-inf`` allowed) as float64 with one of the allowed numbers of dimensions."""
    array = as_array(values, what)
    if array.dtype.kind not in "fiu":
        raise UserError(
            f"{what} hold {KINDS.get(array.dtype.kind, array.dtype)}; expected probabilities or logits: convert them "
            "to numbers with a decimal point, and drop columns that are no class"
        )
    if array.ndim not in ndims:
        raise UserError(
            f"{what} have shape {array.shape}, {array.ndim} dimensions; expected {FORMS[ndims[-1]]}: reshape them"
        )
    array = array.astype(np.float64)
    wrong = np.isnan(array) | (array == np.inf)
    if wrong.any():
        rows = np.flatnonzero(wrong.reshape(-1, array.shape[-1]).any(axis=1) if array.ndim > 1 else wrong)
        raise UserError(
            f"{what} hold NaN, missing or infinite values in {len(rows):,} rows (the first: row {rows[0] + 1}); "
            "expected finite numbers: mend the model's output, or leave these samples out"
        )
    return array


def as_array(values: Any, what: str) -> npt.NDArray[Any]:
    """An array of anything that numpy, torch, jax or pandas calls one."""
    try:
        if hasattr(values, "detach"):
            values = values.detach().cpu()
            values = values.float() if values.is_floating_point() and values.element_size() < 4 else values
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{what} are no array ({error}); expected rows of equal length: pad or convert them") from None


def membership(values: npt.NDArray[Any], what: str) -> Bools:
    """Booleans from true and false, 0 and 1, or words; some of each."""
    if values.dtype.kind in "biuf":
        if not ((values == 0) | (values == 1)).all():
            odd = values[~((values == 0) | (values == 1))][0]
            raise UserError(
                f"{what} holds {odd}; expected 1 for samples that the model was trained on, and 0 for others"
            )
        flags = values.astype(bool)
    else:
        words, codes = np.unique(text(values, what), return_inverse=True)
        read = [MEMBER_WORDS.get(word.strip().lower()) for word in words.tolist()]
        strange = [word for word, flag in zip(words.tolist(), read, strict=True) if flag is None]
        if strange:
            raise UserError(
                f"{what} holds {listed(map(repr, strange))}; expected 1/0, true/false, yes/no, member/nonmember, "
                "in/out or train/test: rename the values, or name the right column"
            )
        flags = np.array(read, dtype=bool)[codes]
    inside = int(flags.sum())
    for count, name, other in ((inside, "members", "non-members"), (len(flags) - inside, "non-members", "members")):
        if count < FEWEST_OF_EACH:
            raise UserError(
                f"{what} marks {count} of {len(flags):,} samples as {name}; expected at least {FEWEST_OF_EACH} {name} "
                f"and {FEWEST_OF_EACH} {other}: an audit compares samples that the model was trained on with others"
            )
    return flags


def column(values: Any, n: int, what: str) -> npt.NDArray[Any]:
    """``(n,)`` or ``(n, 1)`` values of any kind as ``(n,)``; none may be missing."""
    array = as_array(values, what)
    if array.shape == (n, 1):
        array = array[:, 0]
    if array.shape != (n,):
        raise UserError(f"{what} has shape {array.shape}; expected ({n},), one value per row of predictions")
    if array.dtype.kind in "fO":
        missing = np.array([value is None or value != value for value in array.tolist()])
        if missing.any():
            raise UserError(
                f"{what} is missing in {int(missing.sum()):,} of {n:,} rows (the first: row {missing.argmax() + 1}); "
                "expected one value per sample: fill them in, or leave these samples out"
            )
    return array


def text(values: npt.NDArray[Any], what: str) -> npt.NDArray[np.str_]:
    """Text as numpy's own strings."""
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    elif values.dtype.kind == "O" and not all(isinstance(value, str) for value in values):
        kinds = sorted({type(value).__name__ for value in values})
        raise UserError(f"{what} mixes or holds {listed(kinds)}; expected one kind of value: whole numbers, or text")
    elif values.dtype.kind not in "OU":
        raise UserError(f"{what} holds {values.dtype}; expected whole numbers, or text")
    return values.astype(str)


def ids(values: npt.NDArray[Any], at: str) -> npt.NDArray[np.str_]:
    """Names of samples as text, all different."""
    texts = values.astype(str) if values.dtype.kind in "iuf" else text(values, f"{at}ids")
    names, counts = np.unique(texts, return_counts=True)
    if counts.max() > 1:
        twice = names[counts > 1]
        raise UserError(
            f"{at}{len(twice):,} ids stand for several samples: {listed(twice.tolist())}; expected one row per id: "
            "a sample that is both member and non-member, or that counts twice, spoils the figures"
        )
    return texts


def persons(values: npt.NDArray[Any], what: str) -> tuple[Ints, npt.NDArray[np.str_]]:
    """Which person each sample ``(n,)`` is of, as numbers from 0, and their names ``(P,)``, without blanks around."""
    if values.dtype.kind == "f" and (np.abs(values) >= EXACT).any():
        raise UserError(
            f"{what} holds numbers of 16 digits or more as floating point, which no longer tells them apart; expected "
            "whole numbers, or text: give them shorter numbers, or save the table as Parquet with the column as text"
        )
    names, codes = np.unique(
        values if values.dtype.kind in "biufM" else np.char.strip(text(values, what)), return_inverse=True
    )
    return codes.reshape(-1).astype(np.int64), names.astype(str)


def groups(values: npt.NDArray[Any], member: Bools, shadow_member: Bools, at: str) -> tuple[Ints, npt.NDArray[np.str_]]:
    """As `persons`; each is on one side, and in a shadow ``(K, n)`` with all samples or with none."""
    codes, names = persons(values, f"{at}groups")
    both = np.intersect1d(codes[member], codes[~member])
    if len(both):
        raise UserError(
            f"{at}{len(both):,} of {len(names):,} groups have samples among the members and among the non-members: "
            f"{listed(names[both].tolist())}; expected each on one side: a person whom the model was trained on is no "
            "non-member, so split by person, or leave their non-member samples out"
        )
    for place, inside in enumerate(shadow_member, 1):
        if len(torn := np.intersect1d(codes[inside], codes[~inside])):
            raise UserError(
                f"{at}shadow {place} was trained on some samples of {len(torn):,} groups and not on others: "
                f"{listed(names[torn].tolist())}; expected all of a person's or none: a shadow that knows the person "
                "is none without him, so train shadows by person, or leave the shadows out"
            )
    return codes, names


def labels(
    values: npt.NDArray[Any], columns: int, classes: Sequence[str] | None, at: str
) -> tuple[Ints, tuple[str, ...], list[str]]:
    """Places among the columns ``(n,)``, the classes' names, and what was decided, in sentences.

    A label is the name of a column, with or without ``p_`` or the like before it, or else its place, from 0. Of two
    classes one column will do: the one that it is named after (``dead`` or ``p_dead``), or else the last in order.
    """
    if isinstance(classes, str):
        raise UserError(f"{at}classes={classes!r} is text; expected a list of names, one per column")
    twice = [name for name, count in Counter(map(str, classes if classes is not None else ())).items() if count > 1]
    if twice:
        raise UserError(f"{at}{len(twice)} names of classes stand for several columns: {listed(map(repr, twice))}")
    if values.dtype.kind == "f":
        if not (np.isfinite(values) & (values == np.floor(values))).all():
            raise UserError(f"{at}labels hold fractions, as a regression target does; expected classes: whole numbers "
                            "or names (cut the values into ranges first)")  # fmt: skip
        values = values.astype(np.int64)
    found, codes = np.unique(values if values.dtype.kind in "biu" else text(values, f"{at}labels"), return_inverse=True)
    texts = [str(int(value)) if found.dtype.kind == "b" and classes is None else str(value) for value in found.tolist()]
    if len(texts) < 2:
        raise UserError(f"{at}all {len(values):,} labels are {texts[0]!r}; expected at least two classes: is this the "
                        "column of the true labels?")  # fmt: skip
    if classes is not None and len(classes) != columns:
        raise UserError(f"{at}got {len(classes)} names of classes for {columns} columns; expected one per column")
    names = tuple(map(str, classes)) if classes is not None else tuple(str(c) for c in range(max(columns, 2)))
    notes = []
    if columns == 1:
        if len(texts) > 2:
            raise UserError(f"{at}one column of predictions, but {len(texts)} different labels: {listed(texts)}; "
                            "expected one column per class")  # fmt: skip
        positive = _named_after(names[0], texts) if classes is not None else texts[1]
        names = (next(text for text in texts if text != positive), positive)
        notes = [f"The one column was taken as that of class {positive!r} against {names[0]!r}."]
    table = {name: place for place, name in enumerate(names)}
    numbered = _numbered(names) if found.dtype.kind in "iu" else {}
    if not set(texts) <= table.keys() and set(texts) & numbered.keys():
        table = numbered
    bare = {[*_ever_barer(name)][-1]: place for place, name in enumerate(names)}
    whole = len(bare) == len(names) and set(texts) <= bare.keys() and bare != {str(c): c for c in range(len(names))}
    if not set(texts) & table.keys() and whole:
        table = bare
        notes.append(f"Labels were taken as names of columns: {texts[0]!r} is {names[bare[texts[0]]]!r}.")
    if not set(texts) & table.keys():
        lower = {name.lower(): place for name, place in table.items()}
        if len(lower) == len(table) and set(map(str.lower, texts)) & lower.keys():
            table, texts = lower, [text.lower() for text in texts]
        elif found.dtype.kind in "biu":
            table = {str(place): place for place in range(len(names))}
            texts = [str(int(value)) for value in found.tolist()]
            notes.append(f"Labels were taken as places of columns: 0 is {names[0]!r}.")
    strange = [text for text in texts if text not in table]
    if strange:
        known = f"0 to {columns - 1}" if list(table) == [str(c) for c in range(columns)] else listed(map(repr, table))
        raise UserError(
            f"{at}labels hold {listed(map(repr, strange))}, for which there is no column; expected {known}: number the "
            "classes from 0 in the columns' order, or name the columns as the labels"
        )
    return np.array([table[text] for text in texts], np.int64)[codes.reshape(-1)], names, notes


def _numbered(names: Sequence[str]) -> dict[str, int]:
    """The places by the whole numbers that the names are, ``01`` and ``1.0`` too; empty if any is none."""
    try:
        values = [float(name) for name in names]
    except ValueError:
        return {}
    table = {str(int(value)): place for place, value in enumerate(values) if value.is_integer()}
    return table if len(table) == len(names) else {}


def _ever_barer(column: str) -> Iterator[str]:
    """A column's name, and what is left of it without each ``p``, ``prob_``, ``class_`` or the like before it."""
    name = column.strip()
    yield name
    while front := FRONT.match(name):
        name = name[front.end() :]
        yield name


def _named_after(column: str, labels: list[str]) -> str:
    """The label that the only column is called, perhaps with ``p_``, ``prob_`` or the like before it; else the last."""
    known = {label.casefold(): label for label in labels}
    return next((known[name] for name in _ever_barer(column.casefold()) if name in known), labels[-1])


def named(columns: Sequence[str], at: str) -> None:
    """Refuse a table in which a column has no name."""
    if "" in columns:
        raise UserError(
            f"{at}: column {columns.index('') + 1} has no name (a row number that was saved along?); name it, or "
            "remove it"
        )


def differ(columns: Sequence[str], at: str) -> None:
    """Refuse a table in which several columns have one name."""
    if double := sorted(name for name, count in Counter(columns).items() if count > 1):
        raise UserError(f"{at}: has several columns named {listed(double)}; give each column a name of its own")


def listed(names: Any, shown: int = SHOWN) -> str:
    """The first names, and how many more there are."""
    found = list(names)
    return ", ".join(found[:shown]) + (f" and {len(found) - shown:,} more" if len(found) > shown else "")

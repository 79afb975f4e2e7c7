"""A user's own table, CSV (also gzipped) or Parquet, as a data set. What was done to it is said in the provenance."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from relaxloss import validation
from relaxloss.data.dataset import Array, Column, Dataset
from relaxloss.data.npz import FEWEST_ROWS
from relaxloss.data.tabular import column_descriptions, dates, labels, suspicious_text
from relaxloss.errors import UserError, unknown
from relaxloss.validation import listed

MOST_CATEGORIES = 1000
INDEX = re.compile(r"__index_level_\d+__")
BLOCK = 1 << 24  # bytes: more than any one row


def read(
    path: Path,
    name: str,
    *,
    label: str | None,
    drop: Sequence[str] = (),
    columns: Mapping[str, column_descriptions.Known] | None = None,
    group: str | None = None,
) -> Dataset:
    """The data set of a file; see `of_table`."""
    drop = [column for column in drop if not INDEX.fullmatch(column)]  # which is left out anyway
    return of_table(read_table(path), name, path, label=label, drop=drop, columns=columns, group=group)


def of_table(
    table: pa.Table,
    name: str,
    path: Path | None = None,
    *,
    label: str | None,
    drop: Sequence[str] = (),
    columns: Mapping[str, column_descriptions.Known] | None = None,
    group: str | None = None,
) -> Dataset:
    """The data set of a table with one column of labels; `path` is where it was read from.

    Numeric columns become float32, dates the days since 1970-01-01, and text, true/false and categories become codes in
    the sorted order of the values. Missing values stay missing (NaN); the encoder fills them from the members only.
    `columns` describes some or all of them (`described`): values beyond a range are taken to its ends, and what has
    categories is read as such, numbers too. The column `group` says whose row each is, and is no feature.

    Raises `UserError` for whatever cannot be used as it is: no or unknown label column, missing labels, regression
    targets, columns without a name or of the same name, infinite values, more than 1,000 categories in a column, text
    that is numbers or dates but for an odd cell.
    """
    names = table.column_names
    at, called = (str(path), path.name) if path else ("the table", "the table")
    for column in drop:
        if column not in names:
            raise unknown(f"column to drop from {called}", column, names)
    if label is None:
        raise UserError(f"{at}: which column holds the label? Give --label (label=...): one of {listed(names)}")
    if label not in names:
        raise unknown(f"label column of {called}", label, names)
    if label in drop:
        raise UserError(f"{at}: {label!r} is the label and to be dropped as well; choose one")
    if len(table) < FEWEST_ROWS:
        raise UserError(f"{at}: has {len(table)} rows of data; expected at least {FEWEST_ROWS}")
    y, classes = labels.encode(_whole(table, label), f"{at}: the label column {label!r}")
    columns = columns or {}
    for column in columns:
        if column not in names:
            raise unknown(f"described column of {called}", column, names)
    if group is not None:
        if group not in names:
            raise unknown(f"column of persons of {called}", group, names)
        if group == label or group in drop or group in columns:
            raise UserError(f"{at}: {group!r} names the persons; it is no label and no feature: name it once")
    kept = [column for column in names if column not in (label, group) and column not in drop]
    if not kept:
        raise UserError(f"{at}: has no column beside the label; expected at least one feature")
    persons = None if group is None else _persons(_whole(table, group), f"{at}: the column of persons {group!r}")
    x = np.empty((len(table), len(kept)), np.float32)
    features, notes, unusable = [], _Notes(), []
    for index, column in enumerate(kept):
        try:
            x[:, index], feature = _feature(_whole(table, column), column, notes, columns.get(column))
            features.append(feature)
        except UserError as error:
            unusable.append(str(error))
    if unusable:  # all at once, so that nobody has to mend a file column by column
        raise UserError(f"{at}: {'; '.join(unusable)}")
    said = [
        f"{f'file {called}' if path else 'a table in memory'}: {len(table):,} rows, "
        f"{sum(each.categories is None for each in features)} numeric and "
        f"{sum(each.categories is not None for each in features)} categorical columns",
        f"label {label!r}: {labels.numbered(classes)}",
        *([_counted(persons, str(group))] if persons is not None else []),
        *([f"dropped on request: {listed(sorted(set(drop)))}"] if drop else []),
        *notes.lines(),
    ]
    return Dataset(name, x, y, len(classes), "; ".join(said), tuple(features), tuple(classes), persons)


def frames(path: Path, columns: Sequence[Column], *, keep: Sequence[str] = ()) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of a table as a saved model with these columns is asked, labels or not; and the columns to `keep`.

    What a CSV's column holds is told from all its values, and a file of few rows may hold other kinds than the training
    data did ("0123" alone is a number, "True" alone true). So the columns of categories are read as the text that they
    are, unless more of the categories are met as the training's reader made them. What is to be kept is kept as it is.

    Raises `UserError` for an unknown column to keep.
    """
    table = read_table(path)
    for name in keep:
        if name not in table.column_names:
            raise unknown(f"column of {path.name} to keep", name, table.column_names)
    if path.name.endswith(".parquet"):
        return _frame(table), _frame(table.select(keep))
    named = {column.name: column.categories for column in columns if column.categories}
    texts = read_table(path, text=table.column_names)
    for place, name in enumerate(table.column_names):
        known = named.get(name)
        if known and _met(texts.column(name), known) >= _met(as_text(_whole(table, name)), known):
            table = table.set_column(place, name, texts.column(name))
    kept = read_table(path, text=keep, nulls=False) if keep else texts
    return _frame(table), _frame(kept.select(keep))


def _met(values: pa.Array, categories: Sequence[str | None]) -> int:
    """How many of the values are among the categories."""
    known = pa.array([each for each in categories if each is not None], pa.string())
    return int(pa.compute.sum(pa.compute.is_in(values, value_set=known)).as_py() or 0)


def _frame(table: pa.Table) -> pd.DataFrame:
    """All columns, an index that pandas wrote among them; whole numbers stay such beside missing ones."""
    found: pd.DataFrame = table.to_pandas(ignore_metadata=True, integer_object_nulls=True)
    return found


def read_table(path: Path, *, text: Sequence[str] = (), nulls: bool = True) -> pa.Table:
    """The table of a CSV or Parquet file, each column with a name of its own; of a CSV some columns as text."""
    table = read_parquet(path) if path.name.endswith(".parquet") else read_csv(path, text=text, nulls=nulls)
    validation.differ(table.column_names, str(path))
    return table


def read_csv(path: Path, *, text: Sequence[str] = (), nulls: bool = True) -> pa.Table:
    """The table of a comma-separated file with one row of column names; the columns in `text` as they are written.

    Without `nulls`, no text means a missing value: NA is itself.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error}); check that it is whole") from None
    if not content.strip():
        raise UserError(f"{path}: the file is empty; expected a row of column names, then the data")
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}: line {line} holds bytes that are no UTF-8 text; save the file as UTF-8") from None
    header = re.sub(r'"[^"]*"', "", content.split(b"\n", 1)[0].decode())  # without quoted names
    for separator, said in ((";", "semicolons"), ("\t", "tabs")):
        if header.count(separator) > header.count(","):
            raise UserError(
                f"{path}: the columns seem separated by {said}; expected commas and a decimal point: save it with them"
            )
    try:
        table = _parsed(content, text, nulls=nulls)
    except pa.ArrowInvalid:
        raise UserError(
            f"{path}: is no CSV with one row of column names and as many values in each row: {_fault(content)}"
        ) from None
    validation.named(table.column_names, str(path))
    return table


def _parsed(content: bytes, text: Sequence[str] = (), *, threads: bool = True, nulls: bool = True) -> pa.Table:
    return pyarrow.csv.read_csv(
        pa.BufferReader(content),
        pyarrow.csv.ReadOptions(block_size=BLOCK, use_threads=threads),
        pyarrow.csv.ParseOptions(newlines_in_values=b'"' in content),
        convert_options=pyarrow.csv.ConvertOptions(
            strings_can_be_null=nulls, column_types={name: pa.string() for name in text}
        ),
    )


def _fault(content: bytes) -> str:
    """What is wrong with a file that cannot be parsed: its first bad row's number, and no row of a patient's."""
    try:
        _parsed(content, threads=False)  # which counts the rows
    except pa.ArrowInvalid as error:
        if found := re.search(r"(Row #\d+: )?Expected \d+ columns, got \d+", str(error)):
            return found.group()
    return "it cannot be parsed"


def read_parquet(path: Path) -> pa.Table:
    """The table of a Parquet file, without the row numbers that pandas saves along where it cannot do without."""
    try:
        table = without_views(pyarrow.parquet.read_table(path))
        return table.drop_columns([name for name in table.column_names if INDEX.fullmatch(name)])
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: is truncated or no Parquet file ({error})") from None


def without_views(table: pa.Table) -> pa.Table:
    """Text of Arrow's newer kind, for which many of its functions do not exist, as that of the older."""
    for place, field in enumerate(table.schema):
        if pa.types.is_string_view(field.type):
            table = table.set_column(place, field.name, table.column(place).cast(pa.large_string()))
    return table


class _Notes:
    """What the provenance has to say about the columns."""

    def __init__(self) -> None:
        self.categories: list[str] = []
        self.numerals: list[str] = []
        self.missing: list[str] = []
        self.dates: list[str] = []
        self.constant: list[str] = []
        self.identifiers: list[str] = []
        self.known: list[str] = []
        self.clipped: list[str] = []

    def lines(self) -> list[str]:
        said = {
            "categories": self.categories,
            "text of numbers only, taken as categories": self.numerals,
            "missing values": self.missing,
            "dates as days since 1970-01-01": self.dates,
            "constant": self.constant,
            "different in every row (identifiers? consider --drop)": self.identifiers,
            "described beforehand": self.known,
            "values taken to the ends of the described range": self.clipped,
        }
        return [f"{what}: {listed(names)}" for what, names in said.items() if names]


def _feature(
    values: pa.Array, name: str, notes: _Notes, known: column_descriptions.Known | None
) -> tuple[Array, Column]:
    """A column as float32 ``(M,)``, and what it is."""
    kind, types = values.type, pa.types
    if values.null_count == len(values):
        raise UserError(f"column {name!r} has no value in any row; drop it with --drop {name}")
    categories: tuple[str, ...] | None = None
    found = dates.parsed(values)
    if found is not None and found.null_count < len(found):
        values, kind = found, found.type
    is_number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    named = is_number and known is not None and isinstance(known[0], str)  # numbers that are names
    if named or types.is_dictionary(kind) or types.is_boolean(kind) or labels.is_text(kind):
        codes, categories = _categories(values, name, known)
        notes.categories.append(f"{name} ({len(categories)})")
        if all(map(suspicious_text.NUMBER.fullmatch, categories)):
            notes.numerals.append(name)
        numbers = codes.astype(np.float64)
        numbers[codes < 0] = np.nan
    elif is_number:
        numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    elif dates.is_date(kind):
        numbers = dates.days(values)
        notes.dates.append(name)
    else:
        raise UserError(
            f"column {name!r} has the type {kind}; expected numbers, text, true/false or dates: "
            f"convert it, or drop it with --drop {name}"
        )
    missing = np.isnan(numbers)
    too_large = np.abs(numbers) > np.finfo(np.float32).max
    if too_large.any():
        raise UserError(
            f"column {name!r} holds infinite values (or beyond float32) in {too_large.sum():,} of "
            f"{len(numbers):,} rows; replace them, or leave them empty (missing)"
        )
    if missing.any():
        notes.missing.append(f"{name} ({missing.sum():,})")
    distinct = len(values.unique().drop_null()) if types.is_integer(kind) else len(np.unique(numbers[~missing]))
    if distinct == 1 and not missing.any():
        notes.constant.append(name)
    elif distinct == len(numbers) and (categories is not None or types.is_integer(kind)):
        notes.identifiers.append(name)
    numbers, bounds = numbers.astype(np.float32), None
    if known is not None:
        notes.known.append(name)
        if categories is None:
            bounds = column_descriptions.bounds(known, name, is_date=name in notes.dates)
            if beyond := column_descriptions.clip(numbers, bounds, name):
                notes.clipped.append(f"{name} ({beyond:,})")
    return numbers, Column(name, categories, name in notes.dates, known is not None, bounds)


def _categories(values: pa.Array, name: str, known: column_descriptions.Known | None) -> tuple[Array, tuple[str, ...]]:
    """The codes of the values in the sorted order of their text, -1 where missing, and that order."""
    declared = pa.types.is_dictionary(values.type)
    if declared:
        values = values.cast(values.type.value_type)
    text = as_text(values)
    order = sorted(value for value in text.unique().to_pylist() if value is not None)
    if known is not None:
        order = column_descriptions.categories(known, order, name)
    elif not declared and (why := suspicious_text.mistaken(order)):
        raise UserError(f"column {name!r} holds {why}; or drop it with --drop {name}")
    if len(order) > MOST_CATEGORIES:
        raise UserError(
            f"column {name!r} has {len(order):,} different values in {len(values):,} rows; expected at most "
            f"{MOST_CATEGORIES:,} categories: group them, or drop it with --drop {name} (an identifier tells nothing)"
        )
    return codes_of(text, order), tuple(order)


def as_text(values: pa.Array) -> pa.Array:
    """Values as text; whole numbers as such, which pandas makes fractions beside missing ones."""
    kind = values.type
    if pa.types.is_floating(kind) and pa.compute.all(pa.compute.equal(values, pa.compute.floor(values))).as_py():
        values = values.cast(pa.int64(), safe=False)
    return values.cast(pa.string())


def codes_of(text: pa.Array, order: Sequence[str | None]) -> Array:
    """The places of the values in `order`, -1 for a missing or unknown one."""
    known = pa.array(order, pa.string())
    places: Array = pa.compute.index_in(text, value_set=known, skip_nulls=True).fill_null(-1).to_numpy(False)
    return places


def _persons(values: pa.Array, at: str) -> Array:
    """Whose row each is ``(M,)``, as numbers from 0."""
    types = pa.types
    if types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if types.is_floating(values.type):
        values = pa.compute.if_else(pa.compute.is_nan(values), None, values)
    if values.null_count:
        raise UserError(
            f"{at} is empty in {values.null_count:,} of {len(values):,} rows; expected whose row each is: fill it in, "
            "or leave these rows out"
        )
    if not (types.is_integer(values.type) or types.is_floating(values.type)):
        try:
            values = values.cast(pa.string())
        except pa.ArrowException:
            raise UserError(f"{at} holds {values.type}; expected persons' numbers or names: convert it") from None
    return validation.persons(values.to_numpy(zero_copy_only=False), at)[0]


def _counted(persons: Array, name: str) -> str:
    rows = np.unique(persons, return_counts=True)[1]
    span = f"{rows.min():,}" if rows.min() == rows.max() else f"{rows.min():,} to {rows.max():,}"
    return f"persons {name!r}: {len(rows):,}, of {span} rows each"


def _whole(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name).combine_chunks()
    return pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column

"""Predictions in a file: a CSV or Parquet table, or arrays in an npz. Nothing is unpickled, no header is trusted."""

from __future__ import annotations

import itertools
import math
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet

from relaxloss.auditing.predictions import KINDS, Kind, Predictions, of_arrays, summing
from relaxloss.data.tabular import files
from relaxloss.data.tabular.labels import is_text
from relaxloss.errors import UserError, no_such_file, unknown
from relaxloss.storage.store import file_digest
from relaxloss.validation import differ, listed

LIMIT = 8 * 10**9  # bytes: more in one file is a mistake, or an attack on the reader's memory
DEFLATE = 1040  # no deflated byte makes more bytes than this
PREFIXES = {"prob_": "probs", "logit_": "logits"}
SUFFIXES = (".csv", ".parquet", ".npz")
TABLE = "expected the columns label, member, then one per class with its probability or logit"
MOST_COLUMNS = 1000  # of classes in a table; of more, only arrays are read in a sensible time
ARRAYS = "expected the arrays labels and member (N,), and probs or logits (N, C), as numpy.savez writes them"


def read(
    path: Path | str,
    *,
    kind: Kind = "auto",
    label: str | None = None,
    member: str | None = None,
    group: str | None = None,
) -> Predictions:
    """The predictions in a ``.csv``, ``.parquet`` or ``.npz`` file.

    A table has a column of true labels (`label`), one of membership (`member`), perhaps one of names (``id``), one of
    persons (`group`; not looked for unless it is named), and one per class. If some of these start with ``prob_`` or
    ``logit_``, they are the classes' and the rest is left out. An npz has ``labels``, ``member``, ``probs`` or
    ``logits``, and perhaps ``ids``, ``classes``, ``shadow_probs`` or ``shadow_logits`` ``(K, N, C)`` with
    ``shadow_member (K, N)``. See `predictions.of_arrays` for the rest.
    """
    path = Path(path)
    if kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    if path.is_dir():
        raise UserError(f"{path} is a directory; expected a file of predictions ({', '.join(SUFFIXES)})")
    if not path.name.endswith(SUFFIXES):
        raise UserError(f"{path}: unknown kind of file; expected {', '.join(SUFFIXES)}: save the predictions as one")
    if not path.exists():
        raise no_such_file(path, SUFFIXES)
    try:
        size = path.stat().st_size
        source = {"file": path.name, "bytes": size, "sha256": file_digest(path) if size <= LIMIT else ""}
        source |= {"label": label, "member": member, "kind": kind} | ({"group": group} if group else {})
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected a file that you may read") from None
    if not size:
        raise UserError(f"{path}: the file is empty; {ARRAYS if path.suffix == '.npz' else TABLE}")
    if size > LIMIT:
        raise UserError(f"{path}: has {size / 1e9:.1f} GB; expected at most {LIMIT / 1e9:.0f}: audit a part of it")
    reader = _npz if path.suffix == ".npz" else _table
    return of_arrays(**reader(path, kind, label, member, group), where=str(path), source=source)


# Tables


def _table(path: Path, kind: Kind, label: str | None, member: str | None, group: str | None) -> dict[str, Any]:
    label, member = label or "label", member or "member"
    table = _parquet(path) if path.suffix == ".parquet" else _csv(path)
    names = table.column_names
    differ(names, str(path))
    roles = {"label": label, "member": member} | ({"group": group} if group else {})
    for option, name in roles.items():
        if name not in names:
            found = unknown("column", name, names[:50])
            raise UserError(f"{path}: {found}; {TABLE}: name the right one with --{option}")
    for one, other in itertools.combinations(roles, 2):
        if roles[one] == roles[other]:
            raise UserError(f"{path}: {roles[one]!r} is named as {one} and as {other}; expected two columns")
    if not len(table):
        raise UserError(f"{path}: has column names and no rows; {TABLE}")
    rest = [name for name in names if name not in (label, member, group, "id")]
    kind, columns, prefix = _classes(path, rest, kind)
    outputs = np.empty((len(table), len(columns)))
    for place, name in enumerate(columns):
        outputs[:, place] = _number(_whole(table, name), f"{path}: column {name!r}")
    classes = [name.removeprefix(prefix) for name in columns]
    left = [name for name in rest if name not in columns]
    notes = [f"Columns left out, since the classes' start with {prefix}: {listed(left)}."] if left else []
    taken: dict[str, Any] = {"outputs": outputs, "kind": kind, "classes": classes, "notes": notes}
    ids = "" if group == "id" else "id"  # which then names persons
    for key, own in (("labels", label), ("member", member), ("ids", ids), ("groups", group or "")):
        if own in names:
            taken[key] = _values(_whole(table, own), f"{path}: column {own!r}")
    if not prefix and not summing(outputs).all():
        _no_strangers(path, columns, taken["labels"])
    return taken


def _no_strangers(path: Path, columns: list[str], labels: npt.NDArray[Any]) -> None:
    """Refuse numeric columns that seem to be no class (an identifier, an age): as logits they would spoil all."""
    found = set(map(str, np.unique(labels).tolist()))
    strange = [name for name in columns if name not in found and not name.isdigit()]
    if not found & set(columns):
        places = labels.max() + 1 if labels.dtype.kind in "iu" else len(columns)
        strange = columns if 1 < places < len(columns) else []
    if strange:
        raise UserError(
            f"{path}: has {len(columns)} columns of numbers, and labels {listed(sorted(found))}: no label belongs to "
            f"{'one' if strange == columns else listed(map(repr, strange))} of them; expected one column per class: "
            "remove what is no class, or name the classes' columns prob_<class> or logit_<class>"
        )


def _classes(path: Path, rest: list[str], kind: Kind) -> tuple[Kind, list[str], str]:
    """The kind of the numbers, the classes' columns, and their names' prefix."""
    groups = {prefix: [name for name in rest if name.startswith(prefix)] for prefix in PREFIXES}
    present = [prefix for prefix in PREFIXES if groups[prefix] and kind in ("auto", PREFIXES[prefix])]
    if len(present) == 2:
        raise UserError(f"{path}: has columns of both prob_... and logit_...; expected one kind: say --kind probs or "
                        "--kind logits")  # fmt: skip
    prefix = present[0] if present else ""
    columns = groups[prefix] if prefix else rest
    if not columns:
        raise UserError(f"{path}: has no column beside {listed(['label', 'member', 'id'])}; {TABLE}")
    if len(columns) > MOST_COLUMNS:
        raise UserError(f"{path}: has {len(columns):,} columns of classes; expected at most {MOST_COLUMNS:,}: {TABLE} "
                        "(for more classes hand over an .npz)")  # fmt: skip
    said: Kind = "probs" if prefix == "prob_" else "logits" if prefix == "logit_" else kind
    return said, columns, prefix


def _csv(path: Path) -> pa.Table:
    with path.open("rb") as file:
        first = file.readline(1 << 24)
    if first.count(b",") > 2 * MOST_COLUMNS + 100:
        raise UserError(f"{path}: has {first.count(b',') + 1:,} columns; expected at most {MOST_COLUMNS:,} classes: "
                        "are the samples in columns? Transpose the table (with more, an .npz is read)")  # fmt: skip
    return files.read_csv(path)


def _parquet(path: Path) -> pa.Table:
    try:
        about = pyarrow.parquet.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: is truncated or no Parquet file ({error}); save it again") from None
    claimed = about.num_rows * about.num_columns * 8
    if claimed > LIMIT:
        raise UserError(
            f"{path}: claims {about.num_rows:,} rows of {about.num_columns:,} columns, {claimed / 1e9:.1f} GB; "
            f"expected at most {LIMIT / 1e9:.0f} GB: audit a part of it"
        )
    return files.read_parquet(path)


def _whole(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name).combine_chunks()
    column = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _number(column: pa.Array, what: str) -> npt.NDArray[np.float64]:
    kind, types = column.type, pa.types
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)) or types.is_boolean(kind):
        shown = next((repr(value) for value in column.to_pylist() if not _is_number(value)), kind)
        raise UserError(
            f"{what} holds {shown}; expected a class's probability or logit in every row: mend the values, remove the "
            "column, or name the classes' columns prob_<class> or logit_<class>, so that others are left out"
        )
    if column.null_count:
        row = column.is_null().to_pylist().index(True) + 1
        raise UserError(
            f"{what} is missing in {column.null_count:,} of {len(column):,} rows (the first: row {row}); expected a "
            "number for every sample: fill them in, or leave these samples out"
        )
    values: npt.NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return values


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return not isinstance(value, bool)


def _values(column: pa.Array, what: str) -> npt.NDArray[Any]:
    kind, types = column.type, pa.types
    if column.null_count:
        row = column.is_null().to_pylist().index(True) + 1
        raise UserError(f"{what} is missing in {column.null_count:,} of {len(column):,} rows (the first: row {row}); "
                        "expected a value for every sample: fill them in, or leave these samples out")  # fmt: skip
    if is_text(kind):
        return np.array(column.to_pylist(), dtype=str)
    if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
        return np.asarray(column.to_numpy(zero_copy_only=False))
    raise UserError(f"{what} has the type {kind}; expected whole numbers, text, or true and false: convert it")


# Arrays


def _npz(path: Path, kind: Kind, label: str | None, member: str | None, group: str | None) -> dict[str, Any]:
    label, member = label or "labels", member or "member"
    arrays = _arrays(path)
    for option, key in (("label", label), ("member", member), ("group", group)):
        if key is not None and key not in arrays:
            found = unknown(f"array for --{option} in {path.name}", key, arrays)
            raise UserError(f"{found}; {ARRAYS}: name the right one with --{option}")
    given = [name for name in ("logits", "probs") if name in arrays]
    given = [name for name in given if kind in ("auto", name)] or given
    if len(given) == 2:
        raise UserError(f"{path}: holds both probs and logits; expected one kind: say --kind probs or --kind logits")
    if not given:
        raise UserError(f"{path}: holds {listed(sorted(arrays)) or 'nothing'}, and neither probs nor logits; {ARRAYS}")
    name = given[0]
    if kind not in ("auto", name):
        raise UserError(f"{path}: holds {name}, but --kind says {kind}; expected the same: leave --kind out, or rename")
    shadows = [key for key in ("shadow_logits", "shadow_probs") if key in arrays]
    if shadows and shadows != [f"shadow_{name}"] and f"shadow_{name}" not in shadows:
        raise UserError(f"{path}: holds {name} and {shadows[0]}; expected shadows of the same kind, shadow_{name}")
    left = sorted(arrays.keys() - {label, member, group, name, "ids", "classes", f"shadow_{name}", "shadow_member"})
    return {
        "notes": [f"Arrays left out: {listed(left)}."] if left else [],
        "outputs": arrays[name], "kind": name, "labels": arrays[label], "member": arrays[member],
        "ids": None if group == "ids" else arrays.get("ids"), "groups": arrays[group] if group else None,
        "classes": _names(arrays.get("classes"), path),
        "shadow_outputs": arrays.get(f"shadow_{name}"), "shadow_member": arrays.get("shadow_member"),
    }  # fmt: skip


def _names(classes: npt.NDArray[Any] | None, path: Path) -> list[str] | None:
    if classes is None:
        return None
    if classes.ndim != 1 or classes.dtype.kind not in "Uiu":
        raise UserError(f"{path}: classes is {classes.dtype} {classes.shape}; expected (C,) names, one per column")
    return [str(name) for name in classes.tolist()]


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Every array of an npz, after all headers have been checked against the bytes that are there."""
    found, total = {}, 0
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            for name, info in entries.items():
                with archive.open(info) as file:
                    total += _claimed(file, info, f"{path}: the array {name!r}")
            if total > LIMIT:
                raise UserError(
                    f"{path}: claims {total / 1e9:.1f} GB; expected at most {LIMIT / 1e9:.0f} GB: audit a part of it"
                )
            for name, info in entries.items():
                with archive.open(info) as file:
                    found[name] = np.lib.format.read_array(file, allow_pickle=False)
    except UserError:
        raise
    except (ValueError, OSError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: is truncated, damaged or no npz file ({error}); {ARRAYS}") from None
    return found


def _claimed(file: IO[bytes], info: zipfile.ZipInfo, what: str) -> int:
    """The bytes that an array's header says it has, if so many can be there."""
    version = np.lib.format.read_magic(file)
    header: dict[Any, Callable[..., Any]] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in header:
        raise UserError(f"{what} is in numpy's format {version}; expected plain arrays: save it with numpy.savez")
    shape, _, dtype = header[version](file)
    if dtype.hasobject or dtype.fields:
        raise UserError(
            f"{what} holds Python objects or records ({dtype}), and these are never unpickled; expected plain numbers "
            "or text: convert it with array.astype(...) and save again"
        )
    claimed: int = math.prod(shape) * int(dtype.itemsize)
    most = min(info.file_size, info.compress_size * (1 if info.compress_type == zipfile.ZIP_STORED else DEFLATE))
    if claimed > most or any(length < 0 for length in shape):
        raise UserError(
            f"{what} claims the shape {shape}, {claimed / 1e9:.3g} GB, but the file holds at most {most:,} bytes of "
            "it; expected as many as it claims: the file is damaged or forged, save it again"
        )
    return claimed

"""NPZ files: the package's own prepared form, and a user's arrays in the same keys."""

from __future__ import annotations

import json
import os
import secrets
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from relaxloss import validation
from relaxloss.data.dataset import Array, Column, Dataset
from relaxloss.data.tabular import labels
from relaxloss.errors import UserError

FEWEST_ROWS = 10
EXPECTED = "expected x (or x_packed and x_columns) and y, as numpy.savez(file, x=x, y=y) writes them"


def read(path: Path, name: str, *, num_classes: int | None = None, about: str = "") -> Dataset:
    """The data set of an npz file.

    Keys: ``x`` (uint8 images ``(M, channels, height, width)``, or bits or numbers ``(M, D)``), or ``x_packed`` and
    ``x_columns`` (bits packed along axis 1, most significant first); ``y (M,)``; optional ``num_classes``,
    ``provenance`` (else `about` and the file's name), ``columns`` (JSON: name and categories of each), and ``classes``
    (what the labels are called, as text), and ``groups (M,)`` (whose row each is: see ``Dataset.groups``).

    Labels are kept when they run from 0 or the number of classes is known; else they are numbered in sorted order, and
    the provenance says so. Raises `UserError` for anything else; never unpickles.
    """
    arrays = _arrays(path)
    if "y" not in arrays or not ("x" in arrays or {"x_packed", "x_columns"} <= arrays.keys()):
        raise UserError(f"{path}: holds {', '.join(sorted(arrays)) or 'nothing'}; {EXPECTED}")
    x, notes = _features(arrays, path)
    if arrays["y"].shape != (len(x),):
        raise UserError(f"{path}: y has shape {arrays['y'].shape}; expected ({len(x)},), one label per row of x")
    if len(x) < FEWEST_ROWS:
        raise UserError(f"{path}: has {len(x)} rows; expected at least {FEWEST_ROWS}")
    try:
        if num_classes is None and "num_classes" in arrays:
            num_classes = int(arrays["num_classes"].item())
        columns = tuple(Column.read(*each) for each in json.loads(str(arrays.get("columns", "[]"))))
    except (ValueError, TypeError, IndexError) as error:
        raise UserError(f"{path}: num_classes or columns cannot be read ({error}); leave them out") from None
    y, num_classes, classes = _labels(arrays["y"], num_classes, path)
    renamed = [f"labels numbered in sorted order: {labels.numbered(classes)}"] if classes else []
    if "classes" in arrays:
        classes = tuple(map(str, arrays["classes"].ravel()))
    groups = None
    if "groups" in arrays:
        at = f"{path}: groups"
        groups = validation.persons(validation.column(arrays["groups"], len(x), at), at)[0]
    if "provenance" in arrays:  # written with the file, and with all that was to be said of x
        provenance, notes = str(arrays["provenance"]), []
    else:
        provenance = f"{about}{about and '; '}file {path.name}"
    return Dataset(name, x, y, num_classes, "; ".join([provenance, *notes, *renamed]), columns, classes, groups)


def rows(path: Path) -> Array:
    """The ``x`` of an npz file, in the form that `read` takes; other arrays are not looked at."""
    arrays = _arrays(path)
    if "x" not in arrays and not {"x_packed", "x_columns"} <= arrays.keys():
        raise UserError(f"{path}: holds {', '.join(sorted(arrays)) or 'nothing'}; expected x, the rows to predict")
    return _features(arrays, path)[0]


def write(dataset: Dataset, path: Path, *, made_by: str = "") -> None:
    """Write the prepared form atomically: whoever reads at the same time sees the whole file or none.

    `made_by` is the digest of a third party's code that made it, for `maker`.
    """
    arrays: dict[str, Any] = {"y": dataset.y, "num_classes": dataset.num_classes, "provenance": dataset.provenance}
    if made_by:
        arrays["made_by"] = made_by
    if dataset.kind == "bits":
        arrays |= {"x_packed": np.packbits(dataset.x, axis=1), "x_columns": dataset.x.shape[1]}
    else:
        arrays["x"] = dataset.x
    if dataset.columns:
        arrays["columns"] = json.dumps([column.written() for column in dataset.columns])
    if dataset.classes:
        arrays["classes"] = np.array(dataset.classes)
    if dataset.groups is not None:
        arrays["groups"] = dataset.groups
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            np.savez(file, **arrays)
        part.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}; set RELAXLOSS_DATA to a folder with room to write") from None
    finally:
        part.unlink(missing_ok=True)


def maker(path: Path) -> str:
    """The digest of the code that made a prepared file; empty if it does not say."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return str(arrays["made_by"])
    except (ValueError, OSError, EOFError, KeyError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error):
        return ""  # `read` says what is wrong with it, if anything is


def _arrays(path: Path) -> dict[str, Array]:
    if not os.path.getsize(path):
        raise UserError(f"{path}: the file is empty; {EXPECTED}")
    try:
        with path.open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            loaded = {key: arrays[key] for key in arrays.files} if isinstance(arrays, np.lib.npyio.NpzFile) else None
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            raise UserError(
                f"{path}: holds Python objects (dtype object) or no npz at all, and these are never unpickled; "
                "expected arrays of numbers or text: convert with array.astype(...) and save again"
            ) from None
        raise UserError(f"{path}: is truncated or no npz file ({error}); {EXPECTED}") from None
    if loaded is None:
        raise UserError(f"{path}: holds a single array; {EXPECTED}")
    return loaded


def _features(arrays: dict[str, Array], path: Path) -> tuple[Array, list[str]]:
    if "x" not in arrays:
        packed, count = arrays["x_packed"], arrays["x_columns"]
        if count.ndim or count.dtype.kind not in "iu" or packed.ndim != 2 or packed.dtype != np.uint8:
            raise UserError(
                f"{path}: x_packed is {packed.dtype} {packed.shape}; expected uint8 (M, ceil(x_columns / 8))"
            )
        if packed.shape[1] != -(-int(count) // 8):
            raise UserError(
                f"{path}: x_packed has {packed.shape[1]} bytes a row; {count} bits need {-(-int(count) // 8)}"
            )
        return np.unpackbits(packed, axis=1, count=int(count)), []
    x = arrays["x"]
    if x.dtype.kind not in "buif":
        raise UserError(f"{path}: x has dtype {x.dtype}; expected numbers (text columns: use CSV or Parquet)")
    if x.ndim == 4 and x.shape[1] not in (1, 3, 4) and x.shape[3] in (1, 3, 4):
        raise UserError(
            f"{path}: x has shape {x.shape}, channels last; expected (M, channels, height, width): "
            "save x.transpose(0, 3, 1, 2)"
        )
    if x.dtype == np.uint8 or (x.dtype == bool and x.ndim == 2):
        return x.astype(np.uint8, copy=False), []
    if x.ndim != 2:
        raise UserError(
            f"{path}: x is {x.dtype} {x.shape}; expected (M, D), or uint8 (M, channels, height, width) for images"
        )
    with np.errstate(over="ignore"):
        converted = x.astype(np.float32, copy=False)
    infinite = np.isinf(converted)
    if infinite.any():
        raise UserError(
            f"{path}: x holds infinite values (or beyond float32) in {infinite.any(1).sum():,} of {len(x):,} rows; "
            "replace them, or mark them missing with NaN"
        )
    missing = int(np.isnan(converted).sum())
    return converted, [f"{missing:,} missing values"] if missing else []


def _labels(y: Array, num_classes: int | None, path: Path) -> tuple[Array, int, tuple[str, ...]]:
    """The labels from 0, how many classes, and what they were called, if that is not what they are now."""
    y = y.astype(np.float64) if y.dtype.kind == "f" else y.astype(y.dtype.newbyteorder("="))
    if num_classes is not None and y.dtype.kind in "iu":
        return y.astype(np.int64), num_classes, ()
    if y.dtype.kind not in "biufU":
        raise UserError(f"{path}: y has dtype {y.dtype}; expected whole numbers or text")
    codes, names = labels.encode(pa.array(y, from_pandas=True), f"{path}: the label y")
    if names == [str(code) for code in range(len(names))]:
        return codes, len(names), ()
    return codes, len(names), tuple(names)

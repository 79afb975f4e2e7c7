"""What a trained model answers to the rows of a file, as a table in a file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from relaxloss.data import Column, npz
from relaxloss.data.tabular import files
from relaxloss.errors import UserError, no_such_file
from relaxloss.storage import directories
from relaxloss.storage.store import write_atomically
from relaxloss.trained import Trained

PREFIX = "prob_"  # by which `relaxloss audit` knows the columns of classes, too
PREDICTED = "predicted"


def table(model: Trained, path: Path, *, keep: Sequence[str] = ()) -> pd.DataFrame:
    """One line per row of the file: the columns to `keep`, ``predicted``, and ``prob_...`` of each class.

    A model of a table is asked with a ``.csv``, ``.csv.gz`` or ``.parquet`` file, any other with the ``x`` of an
    ``.npz`` file.
    """
    kinds = (".csv", ".csv.gz", ".parquet") if model.card["columns"] else (".npz",)
    if not path.name.endswith(kinds):
        what = "a table" if model.card["columns"] else "arrays"
        raise UserError(f"{path}: the model was trained on {what}; expected a file of {', '.join(kinds)}")
    if not path.is_file():
        raise no_such_file(path, kinds)
    columns = [Column.read(*column) for column in model.card["columns"]]
    keep = list(dict.fromkeys(keep))
    names = list(model.classes) or [str(place) for place in range(model.card["num_classes"])]
    answers = [PREDICTED, *(f"{PREFIX}{name}" for name in names)]
    for name in keep:
        if name in answers:
            raise UserError(f"{path}: cannot keep {name}, as one of the answers is called; rename the column")
    if columns:
        rows, found = files.frames(path, columns, keep=keep)
        log_p = model.predict_log_proba(rows)
    elif keep:
        raise UserError(f"{path}: has no columns to keep ({', '.join(keep)}); only a table has: leave --keep out")
    else:
        log_p, found = model.predict_log_proba(npz.rows(path)), pd.DataFrame()
    values = [np.array(names)[log_p.argmax(1)], *np.exp(log_p).T]
    return found.assign(**dict(zip(answers, values, strict=True)))


def check(out: Path, *, overwrite: bool) -> None:
    """A clear error now, rather than after the work, if the answers cannot be written to `out`."""
    if not out.name.endswith((".csv", ".parquet")):
        raise UserError(f"--out {out}: unknown kind of file; expected a .csv or .parquet file")
    if out.exists() and not overwrite:
        raise UserError(f"--out {out} is there already; give another name, or --overwrite to replace it")
    directories.writable(out.parent)


def write(answers: pd.DataFrame, out: Path) -> None:
    """Write them, whole or not at all."""
    if out.name.endswith(".csv"):
        write_atomically(out, answers.to_csv(index=False))
        return
    buffer = io.BytesIO()
    answers.to_parquet(buffer, index=False)
    write_atomically(out, buffer.getvalue())

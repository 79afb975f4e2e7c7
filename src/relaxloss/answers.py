"""What a trained model answers to the rows of a file, as a table in a file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from relaxloss import places
from relaxloss.data import files, prepared
from relaxloss.errors import UserError, unknown
from relaxloss.store import write_atomically
from relaxloss.trained import Trained

PREFIX = "prob_"  # by which `relaxloss audit` knows the columns of classes, too
PREDICTED = "predicted"


def table(model: Trained, path: Path, *, keep: Sequence[str] = ()) -> pd.DataFrame:
    """One line per row of the file: the columns to `keep`, ``predicted``, and ``prob_...`` of each class.

    A model of a table is asked with a ``.csv``, ``.csv.gz`` or ``.parquet`` file, any other with the ``x`` of an
    ``.npz`` file.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; expected the rows to predict")
    kinds = (".csv", ".csv.gz", ".parquet") if model.card["columns"] else (".npz",)
    if not path.name.endswith(kinds):
        what = "a table" if model.card["columns"] else "arrays"
        raise UserError(f"{path}: the model was trained on {what}; expected a file of {', '.join(kinds)}")
    rows = files.frame(path) if model.card["columns"] else prepared.rows(path)
    given = list(rows.columns) if isinstance(rows, pd.DataFrame) else []
    for name in keep:
        if name not in given:
            raise unknown(f"column of {path.name} to keep", name, given)
    log_p = model.predict_log_proba(rows)
    names = list(model.classes) or [str(place) for place in range(log_p.shape[1])]
    found = {name: rows[name] for name in keep}
    found |= {PREDICTED: np.array(names)[log_p.argmax(1)]}
    found |= {f"{PREFIX}{name}": column for name, column in zip(names, np.exp(log_p).T, strict=True)}
    if len(found) < len(keep) + 1 + len(names):
        twice = [name for name in keep if name == PREDICTED or name.removeprefix(PREFIX) in names]
        raise UserError(f"{path}: cannot keep {', '.join(twice)}, which the answers are called; rename the column")
    return pd.DataFrame(found)


def check(out: Path, *, overwrite: bool) -> None:
    """A clear error now, rather than after the work, if the answers cannot be written to `out`."""
    if not out.name.endswith((".csv", ".parquet")):
        raise UserError(f"--out {out}: unknown kind of file; expected a .csv or .parquet file")
    if out.exists() and not overwrite:
        raise UserError(f"--out {out} is there already; give another name, or --overwrite to replace it")
    places.writable(out.parent)


def write(answers: pd.DataFrame, out: Path) -> None:
    """Write them, whole or not at all."""
    if out.name.endswith(".csv"):
        write_atomically(out, answers.to_csv(index=False))
        return
    buffer = io.BytesIO()
    answers.to_parquet(buffer, index=False)
    write_atomically(out, buffer.getvalue())

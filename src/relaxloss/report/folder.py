"""A result's directory: the table, the curves, the charts and the page, written whole or not at all, and read back."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from relaxloss.errors import UserError
from relaxloss.flags import Flag
from relaxloss.report import charts, drawing, page, tables
from relaxloss.results import COLUMNS, Result
from relaxloss.store import write_atomically

TABLE, EXPERIMENT, FACTS = "results.csv", "experiment.toml", "details/facts.json"
CURVES = {name: f"details/{name}.csv" for name in ("histograms", "roc", "history")}
TEXTS = frozenset(
    {"dataset", "model", "defense", "settings", "game", "measure", "attack", "note", "membership", "phase"}
)


def save(result: Result, out: Path | str) -> None:
    """Write the whole directory: results.csv, experiment.toml, details/, charts/, report.html."""
    out = Path(out)
    facts: dict[str, Any] = {"facts": result.facts, "failures": list(result.failures)}
    if hasattr(result, "flags"):
        facts["flags"] = [dataclasses.asdict(flag) for flag in result.flags]
    write_atomically(out / TABLE, result.rows.to_csv(index=False))
    for name, place in CURVES.items():
        write_atomically(out / place, getattr(result, name).to_csv(index=False))
    write_atomically(out / EXPERIMENT, page.settings(result))
    table = tables.summary(result)
    drawn = []
    for figure in charts.figures(result, table):
        text = drawing.svg(figure)
        drawn.append((figure, text))
        write_atomically(out / "charts" / f"{figure.name}.svg", text)
        write_atomically(out / "charts" / f"{figure.name}.png", drawing.png(text))
    write_atomically(out / page.NAME, page.html(result, table, drawn))
    write_atomically(out / FACTS, json.dumps(facts, indent=1))


def load(out: Path | str) -> Result:
    """Read back what `save` wrote; numbers to the last digit."""
    out = Path(out)
    if not (out / TABLE).is_file():
        raise UserError(
            f"{out} is not a run's directory: there is no {TABLE} in it; give the --out of a finished compare"
        )
    try:
        facts = json.loads((out / FACTS).read_text(encoding="utf-8"))
        known: dict[str, Any] = {"facts": facts["facts"], "failures": tuple(facts["failures"])}
        if "flags" in {field.name for field in dataclasses.fields(Result)}:
            known["flags"] = tuple(Flag(**flag) for flag in facts.get("flags", ()))
    except FileNotFoundError:
        raise _damaged(out / FACTS, "it is missing") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(out / FACTS, str(error)) from None
    rows = _read(out / TABLE)
    if tuple(rows.columns) != COLUMNS or not len(rows):
        raise _damaged(out / TABLE, f"it has {len(rows)} rows, and not exactly the columns {', '.join(COLUMNS)}")
    curves: dict[str, Any] = {name: _read(out / place) for name, place in CURVES.items()}
    return Result(rows, **curves, **known, out=out)


def _read(path: Path) -> pd.DataFrame:
    """A table as `save` wrote it. Numbers go through Python's `float`, which takes back exactly what its repr gave."""
    try:
        text = path.read_text(encoding="utf-8")
        if not text.strip():
            return pd.DataFrame()
        frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
        for name in frame:
            if name == "adaptive":
                frame[name] = _modes(frame[name])
            elif name not in TEXTS:
                frame[name] = _numbers(frame[name])
    except FileNotFoundError:
        raise _damaged(path, "it is missing") from None
    except (OSError, ValueError) as error:  # ParserError and UnicodeDecodeError are ValueErrors
        raise _damaged(path, str(error).strip()) from None
    return frame


def _modes(texts: pd.Series[Any]) -> pd.Series[Any]:
    known = {"True": True, "False": False, "": None}
    wrong = sorted(set(texts) - set(known))
    if wrong:
        raise ValueError(f"adaptive is {wrong[0]!r}; expected True, False or nothing")
    values = pd.Series([known[text] for text in texts], index=texts.index, dtype=object)
    return values.astype(bool) if len(values) and values.notna().all() else values


def _numbers(texts: pd.Series[Any]) -> pd.Series[Any]:
    try:
        return pd.Series([int(text) for text in texts], index=texts.index, dtype=np.int64)
    except ValueError:
        values = [math.nan if text == "" else float(text) for text in texts]
        return pd.Series(values, index=texts.index, dtype=np.float64)


MEND = "run the same compare command again: it is made from the store"


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path} is damaged: {why}; {MEND}")

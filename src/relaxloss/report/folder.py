"""A result's directory: the table, the curves, the charts and the page, written whole or not at all, and read back."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

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
    facts = {"facts": result.facts, "failures": list(result.failures)}
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
    return Result(rows, **{name: _read(out / place) for name, place in CURVES.items()}, **known, out=out)


def _read(path: Path) -> pd.DataFrame:
    try:
        names = path.read_text(encoding="utf-8").partition("\n")[0].strip().split(",")
        if names == [""]:
            return pd.DataFrame()
        numbers = [name for name in names if name not in TEXTS and name != "adaptive"]
        frame = pd.read_csv(
            path, dtype={name: str for name in names if name not in numbers}, keep_default_na=False,
            na_values={name: [""] for name in numbers}, float_precision="round_trip",
        )  # fmt: skip
        if "adaptive" in frame:
            modes = {"True": True, "False": False, "": None}
            adaptive = pd.Series([modes[text] for text in frame["adaptive"]], dtype=object, index=frame.index)
            frame["adaptive"] = adaptive.astype(bool) if len(frame) and adaptive.notna().all() else adaptive
        wrong = [name for name in numbers if not pd.api.types.is_numeric_dtype(frame[name])]
        if wrong:
            raise UserError(f"{path} is damaged: column {wrong[0]} holds something that is no number; {MEND}")
    except FileNotFoundError:
        raise _damaged(path, "it is missing") from None
    except KeyError as error:
        raise _damaged(path, f"adaptive is {error}; expected True, False or nothing") from None
    except (OSError, UnicodeDecodeError, pd.errors.ParserError) as error:
        raise _damaged(path, str(error).strip()) from None
    return frame


MEND = "run the same compare command again: it is made from the store"


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path} is damaged: {why}; {MEND}")

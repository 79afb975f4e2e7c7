"""A result's directory: the table, the curves, the charts and the page, written whole or not at all, and read back."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from relaxloss.errors import UserError
from relaxloss.evaluation.flags import Flag
from relaxloss.experiments.merge import merge
from relaxloss.experiments.plan import Experiment
from relaxloss.experiments.result import COLUMNS, Result
from relaxloss.report import charts, style
from relaxloss.report.comparison import page, tables
from relaxloss.specs import build
from relaxloss.storage import directories
from relaxloss.storage.store import write_atomically

EXPERIMENT, FACTS = "experiment.toml", directories.MARKS["compare"]
TABLES = {"rows": "results.csv"} | {name: f"details/{name}.csv" for name in ("histograms", "roc", "history", "records")}
COMPRESSED = frozenset({"histograms", "roc", "history"})  # the curves, of which charts are drawn: NAME.csv.gz
EPOCHS = 100  # of a training's history that are kept
MOST_BYTES = 1 << 30  # that a compressed table may unpack to
TEXTS = frozenset(
    {"dataset", "model", "defense", "settings", "game", "measure", "attack", "note", "membership", "phase"}
)


def save(result: Result, out: Path | str) -> None:
    """Write the whole directory: results.csv, experiment.toml, details/, charts/, report.html.

    Curves are compressed, and a training's history is thinned to at most `EPOCHS` epochs, the first and last included.
    """
    out = Path(out)
    result = dataclasses.replace(result, history=thinned(result.history))
    table = tables.summary(result)
    drawn = charts.drawn(result, table)
    directories.claim(out, "compare")
    for figure, text in drawn:
        write_atomically(out / "charts" / f"{figure.name}.svg", text)
        write_atomically(out / "charts" / f"{figure.name}.png", style.png(text))
    write_atomically(out / page.NAME, page.html(result, table, drawn))
    write_atomically(out / EXPERIMENT, page.settings(result))
    facts: dict[str, Any] = {"facts": result.facts, "failures": list(result.failures), "sha256": {}}
    facts["flags"] = [dataclasses.asdict(flag) for flag in result.flags]
    for name, place in TABLES.items():
        content = getattr(result, name).to_csv(index=False, lineterminator="\n").encode()
        facts["sha256"][place] = hashlib.sha256(content).hexdigest()
        write_table(out / place, content, compress=name in COMPRESSED)
    write_atomically(out / FACTS, json.dumps(facts, indent=1))


def thinned(history: pd.DataFrame) -> pd.DataFrame:
    """At most `EPOCHS` epochs of each training, evenly spaced, the first and the last among them."""
    if not len(history):
        return history
    trainings = history.groupby(["defense", "settings", "seed"], sort=False)
    place, size = trainings.cumcount(), trainings["epoch"].transform("size")
    step = np.maximum((size - 1) / (EPOCHS - 1), 1.0)
    kept: pd.DataFrame = history[np.rint(np.rint(place / step) * step) == place]
    return kept.reset_index(drop=True)


def write_table(path: Path, content: bytes, *, compress: bool) -> None:
    """Write a CSV's bytes to the path, or compressed to ``PATH.gz``; the other of the two is removed."""
    packed = path.with_name(f"{path.name}.gz")
    if compress:
        write_atomically(packed, gzip.compress(content, mtime=0))
    else:
        write_atomically(path, content)
    (path if compress else packed).unlink(missing_ok=True)


def has_results(out: Path) -> bool:
    """Whether the directory is a run's: it has ``results.csv``, or ``results.csv.gz``."""
    return any((out / f"{TABLES['rows']}{end}").is_file() for end in ("", ".gz"))


def content_of(path: Path) -> bytes:
    """The bytes of a CSV, from the path or from ``PATH.gz``; none if neither can be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    try:
        with gzip.open(path.with_name(f"{path.name}.gz")) as file:
            return file.read(MOST_BYTES)
    except (OSError, EOFError, zlib.error):
        return b""


def load(out: Path | str) -> Result:
    """Read back what `save` wrote; numbers to the last digit. What is not as it was written is a `UserError`.

    A directory of runs of one experiment, with other seeds or defenses each, is read as their union (see `merge`).
    """
    out = Path(out)
    parts = [part for part in sorted(out.glob("*")) if has_results(part)]
    if not parts:
        return _load_own(out)
    if has_results(out) and "parts" not in _facts(out)["facts"]:
        raise UserError(
            f"{out} is a run itself, and there are runs in it ({', '.join(part.name for part in parts)}); expected the "
            "one or the other: move those elsewhere, or name the directory of the one that you mean"
        )
    return dataclasses.replace(merge([load(part) for part in parts]), out=out)


def _load_own(out: Path) -> Result:
    """The run of that very directory."""
    if not has_results(out):
        raise UserError(
            f"{out} is not a run's directory: there is no {TABLES['rows']} in it; give the --out of a finished compare"
        )
    facts = _facts(out)
    try:
        found: dict[str, Any] = {"facts": facts["facts"], "failures": tuple(facts["failures"])}
        found["flags"] = tuple(Flag(**flag) for flag in facts.get("flags", ()))
        hashes = dict(facts["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(out / FACTS, f"{type(error).__name__}: {error}") from None
    for name, place in TABLES.items():
        if name == "records" and place not in hashes:  # a run of a version without that table
            continue
        content = content_of(out / place)
        if hashlib.sha256(content).hexdigest() != hashes.get(place):
            raise _damaged(out / place, "it is not as it was written")
        found[name] = read(content.decode())
    if tuple(found["rows"].columns) != COLUMNS:
        raise _damaged(out / TABLES["rows"], f"expected the columns {', '.join(COLUMNS)}")
    return Result(**found, out=out)


def _facts(out: Path) -> dict[str, Any]:
    """What `save` wrote of the run itself."""
    try:
        content: dict[str, Any] = json.loads((out / FACTS).read_text(encoding="utf-8"))
        return content | {"facts": dict(content["facts"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(out / FACTS, f"{type(error).__name__}: {error}") from None


def lost(there: dict[str, Any], *, experiment: Experiment, fingerprint: str, recipe: dict[str, Any]) -> str:
    """What a run's facts hold that the result of an experiment would not; empty if nothing.

    Args:
        there: the run's facts, as `save` wrote them.
        experiment: the other one.
        fingerprint: of its data.
        recipe: the settings of its recipe.
    """
    facts = there["facts"]
    if facts.get("fingerprint", fingerprint) != fingerprint:
        return f"they are of other data ({facts['experiment']['dataset']})"
    try:
        old = build(Experiment, facts["experiment"])
    except UserError:  # of another version, or with specs that are not registered: the very same one may come again
        mine = json.loads(json.dumps(experiment.settings()))
        names = ("defenses", "attacks", "seeds", "game", "shadows")
        gone = [name for name in names if facts["experiment"][name] != mine[name]]
        return f"they have other {' and '.join(gone)}, of a version or a plugin that is not here" if gone else ""
    for name in ("defenses", "attacks", "seeds"):
        if gone := [str(each) for each in getattr(old, name) if each not in getattr(experiment, name)]:
            return f"{name} {', '.join(gone)}, which this experiment lacks"
    if experiment.shadows not in (old.shadows, "both"):
        return f"shadows {old.shadows}"
    if old.game != experiment.game:
        return f"they are of the game {old.game}"
    mine = json.loads(json.dumps(recipe))
    theirs = facts["experiment"].get("recipe") or mine
    changed = [f"{name} {value}" for name, value in theirs.items() if name in mine and mine[name] != value]
    return f"they are of a recipe with {', '.join(changed)}" if changed else ""


def read(text: str) -> pd.DataFrame:
    """A table as `save` wrote it. Numbers go through Python's `float`, which takes back exactly what its repr gave."""
    if not text.strip():
        return pd.DataFrame()
    frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    for name in frame:
        if name == "adaptive":
            modes = [{"True": True, "False": False, "": None}[text] for text in frame[name]]
            frame[name] = pd.Series(modes, dtype=object if None in modes else bool, index=frame.index)
        elif name not in TEXTS:
            frame[name] = _numbers(frame[name])
    return frame


def _numbers(texts: pd.Series[Any]) -> pd.Series[Any]:
    try:
        return pd.Series([int(text) for text in texts], index=texts.index, dtype=np.int64)
    except ValueError:
        values = [math.nan if text == "" else float(text) for text in texts]
        return pd.Series(values, index=texts.index, dtype=np.float64)


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path} is damaged: {why}; run the same compare command again: it is made from the store")

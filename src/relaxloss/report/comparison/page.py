"""The page: one HTML file with everything in it, to be read, mailed and printed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import pandas as pd
import tomli_w

from relaxloss.evaluation import flags
from relaxloss.evaluation.rows import TPRS
from relaxloss.experiments.result import Result
from relaxloss.report import charts, formatting, style
from relaxloss.report.comparison import single_records, tables
from relaxloss.report.comparison.frontier import frontier
from relaxloss.report.comparison.headline import doubts, headline, selections
from relaxloss.report.formatting import MODES
from relaxloss.report.style import Figure
from relaxloss.storage.store import write_atomically

NAME = "report.html"
FRONT = (
    *("top1", "delta_top1", "top5", "delta_top5", "auc_adaptive", "delta_auc_adaptive"),
    *("auc_nonadaptive", "delta_auc_nonadaptive"),
)
MOST_LINES = 20  # in a table; of more, one setting of each defense, and all at the end
LEAKAGE = tuple(f"{name}_{mode}" for mode in MODES for name in ("selected_auc", *TPRS))
TRAINING = ("train_top1", "member_loss", "member_loss_variance", "test_loss", "test_loss_variance", "calibration_error")


def write(result: Result, out: Path | str) -> Path:
    """Write ``report.html`` under `out`, and return its path."""
    table = tables.summary(result)
    path = Path(out) / NAME
    write_atomically(path, html(result, table, charts.drawn(result, table)))
    return path


def html(result: Result, table: pd.DataFrame, drawn: list[tuple[Figure, str]]) -> str:
    """The page's text, from the result, its `tables.summary`, and its figures with their SVG."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("relaxloss.report", "templates"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    hues = style.colours(table["defense"]) | {formatting.NONE: "var(--none)"}
    lines = [
        line | {"hue": hues[line["defense"]], "title": formatting.title(line["defense"])}
        for line in tables.records(table)
    ]
    kept = tables.representatives(table, limit=len(table)).index if len(table) > MOST_LINES else table.index
    chosen = [lines[place] for place in kept]
    rows = result.rows
    return environment.get_template("page.html.j2").render(
        dataset=rows["dataset"].iloc[0],
        model=rows["model"].iloc[0],
        game=rows["game"].iloc[0].replace(",", ", "),
        facts=result.facts,
        headline=[*doubts(result), *headline(table), *selections(result)],
        intervals=list(dict.fromkeys(table["interval"])),
        lines=lines,
        chosen=chosen,
        front=FRONT,
        leakage=LEAKAGE,
        training=TRAINING,
        reasons=tables.reasons(table),
        attacks=_attack_grid(tables.attacks_table(result), {(line["defense"], line["settings"]) for line in chosen}),
        reported=tables.records(tables.reported(result)),
        figures=[(figure, markupsafe.Markup(embedded(text, figure.name))) for figure, text in drawn],
        frontier=_frontier(frontier(result, table), hues),
        flags=formatting.grouped(result.flags),
        failures=result.failures,
        single=single_records.context(result, pd.DataFrame(lines)),
        settings=settings(result),
        duration=formatting.duration(float(result.facts.get("seconds", 0))),
        seeds=rows["seed"].nunique(),
        value=formatting.value,
        interval=formatting.interval,
        title=formatting.title,
        titled=flags.title,
        ink=style.INK,
        rule=style.RULE,
        paper=style.PAPER,
        none_hue=style.COLOURS[formatting.NONE],
    )


def _frontier(table: pd.DataFrame, hues: Mapping[str, str]) -> dict[str, Any]:
    """The `frontier` for the page: shares as columns, defenses as rows; empty if there is none."""
    if table.empty:
        return {}
    lines = [
        {"defense": defense, "label": "", "hue": hues[str(defense)], "cells": tables.records(group)}
        for defense, group in table.groupby("defense", sort=False)
    ]
    return {"shares": list(table["share"].unique()), "mode": MODES[table.attrs["mode"]], "lines": lines}


def settings(result: Result) -> str:
    """The experiment with all its fields, as TOML, which has no None: it is left out, or "none" within a spec."""
    return written(result.facts.get("experiment", {}))


def written(fields: Mapping[str, Any]) -> str:
    """The fields of an experiment as TOML."""
    return tomli_w.dumps({key: _written(value) for key, value in fields.items() if value is not None})


def _written(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _written(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_written(item) for item in value]
    return "none" if value is None else value


def embedded(svg: str, name: str) -> str:
    """SVG to stand inside a page, with its caption as its accessible name."""
    return svg[svg.index("<svg") :].replace("<svg", f'<svg role="img" aria-labelledby="caption-{name}"', 1)


def _attack_grid(table: pd.DataFrame, chosen: set[tuple[str, str]]) -> dict[str, Any]:
    """Attacks as columns, defenses as rows, each cell the quantities of one line of `tables.attacks_table`."""
    names = list(table["attack"].drop_duplicates())
    rows = []
    for (defense, settings_of), group in table.groupby(["defense", "settings"], sort=False):
        if (defense, settings_of) not in chosen:
            continue
        cells = {line["attack"]: line for line in tables.records(group)}
        known = {mode: [n for n in names if not math.isnan(cells[n][f"auc_{mode}"])] for mode in MODES}
        worst = {m: max(found, key=lambda n: cells[n][f"auc_{m}"], default="") for m, found in known.items()}
        rows.append({"defense": defense, "label": group["label"].iloc[0], "cells": cells, "worst": worst})
    return {"names": names, "rows": rows}

"""What a report says of single records: who was attacked, of what kind the canaries are, and which records leak."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from relaxloss.evaluation import one_run_audit
from relaxloss.evaluation.records import LEAKING
from relaxloss.evaluation.rows import FPRS
from relaxloss.experiments.result import Result
from relaxloss.report import formatting
from relaxloss.report.comparison import tables
from relaxloss.report.comparison.tables import Line

LISTED = 10  # records shown per defense; the table in the run's directory has all
KINDS = {
    "clean": "random samples as they are, so that the figures are of the average record",
    "mislabelled": "samples with a random wrong label, which stand for the worst-protected records: an outlier is "
    "remembered because nothing else explains it",
    "vulnerable": "the samples that another run, on the same data, found to leak most",
}


def attacked(result: Result) -> int:
    """How many samples (or persons) were attacked at each seed."""
    first = result.records["seed"].iloc[0]
    return int(result.records.loc[result.records["seed"] == first, "record"].nunique())


def asked(result: Result) -> str:
    """Whose membership was attacked, in a game of several targets; empty in others."""
    game = result.facts.get("experiment", {}).get("game", {})
    if "models" not in game or result.records.empty:
        return ""
    count, models = attacked(result), game["models"]
    who = "persons, with all samples of theirs," if "persons" in result.facts else "samples"
    each = f"each in about half of the {models} models, by a coin flip of its own"
    if not game.get("canaries"):
        return (
            f"Attacked were {count:,} {who} as they come, {each}: the average record. Records that stand out are "
            "protected less; canary_kind=mislabelled asks about such."
        )
    return (
        f"Attacked were canaries only: {count:,} {KINDS[game['canary_kind']]}. They were {each}; all other samples "
        f"were in every model.{'' if game['canary_kind'] == 'clean' else ' These figures are the worst case.'}"
    )


def leaks(result: Result, table: pd.DataFrame) -> list[Line]:
    """Per line of `tables.summary` of a game of several targets: records that leak, and the lower bound of ε.

    `leaking_records` is the mean over seeds; `epsilon`, which holds for a choice made beforehand, is the first seed's,
    in the mode that heads the report.
    """
    rows = result.rows[result.rows["measure"].isin([LEAKING, one_run_audit.MEASURE])]
    if rows.empty:
        return []
    adaptive = tables.headed_by(table) == "adaptive"
    found = []
    for line in tables.records(table):
        mine = rows[(rows["defense"] == line["defense"]) & (rows["settings"] == line["settings"])]
        bounds = mine[(mine["measure"] == one_run_audit.MEASURE) & (mine["adaptive"] == adaptive)]
        leaking = mine[mine["measure"] == LEAKING]
        bound = tables.records(bounds)[0] if len(bounds) else {"value": math.nan, "note": "not measured", "attack": ""}
        found.append(
            line
            | {"leaking": float(leaking["value"].mean()), "of": int(leaking["n"].iloc[0])}
            | {"epsilon": bound["value"], "epsilon_note": bound["note"], "epsilon_attack": bound["attack"]}
        )
    return found


def most(result: Result, line: Line, count: int = LISTED) -> list[Line]:
    """The first `count` records of one defense's table, first seed, as readers see them."""
    table = result.records
    if table.empty:
        return []
    mine = table[(table["defense"] == line["defense"]) & (table["settings"] == line["settings"])]
    lines = tables.records(mine[mine["seed"] == mine["seed"].iloc[0]].head(count))
    return [_said(item, result.facts.get("classes") or ()) for item in lines]


def _said(item: Line, classes: Sequence[str]) -> Line:
    """A line of the table with its numbers written out, and its class by name where it has one."""
    names = {name: classes[item[name]] if classes else item[name] for name in ("label", "trained_as") if name in item}
    label = f"{names['label']}" + (f" (trained as {names['trained_as']})" if "trained_as" in names else "")
    head = {"record": f"{item['record']:,}", "label": label}
    if "gap" not in item:
        return head | {"score": f"{item['score']:.4g}", "rank": item["rank"], "fpr": formatting.percent(item["fpr"])}
    hits = {}
    for fpr in FPRS:
        found, accused = item[f"found_at_{fpr:g}_fpr"], item[f"accused_at_{fpr:g}_fpr"]
        known = not math.isnan(found)
        hits[f"found_{fpr:g}"] = f"{found:.0f} of {item['models_in']}" if known else "not measured"
        hits[f"accused_{fpr:g}"] = f"{accused:.0f} of {item['models_out']}" if known else "not measured"
    chance = item["by_chance"]
    return head | hits | {
        "gap": formatting.plain(item["gap"]),
        "auc": formatting.area(item["auc"]),
        "by_chance": "under 0.001" if chance < 0.001 else formatting.plain(chance),
    }  # fmt: skip


def epsilon(value: float) -> str:
    """A lower bound of ε."""
    return "not measured" if math.isnan(value) else f"{value:.2f}"


def context(result: Result, table: pd.DataFrame) -> dict[str, Any]:
    """All that the page's section needs."""
    shown = tables.records(tables.representatives(table, limit=3))
    return {
        "asked": asked(result),
        "leaks": leaks(result, table),
        "several": "gap" in result.records,
        "lists": [(line, most(result, line)) for line in shown if most(result, line)],
        "fprs": [(f"{fpr:g}", f"{100 * fpr:g} %") for fpr in FPRS],
        "epsilon": epsilon,
        "total": 0 if result.records.empty else attacked(result),
    }

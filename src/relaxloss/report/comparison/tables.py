"""The numbers of a report: one line per defense and settings, and the AUC of every attack."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from typing import Any

import pandas as pd
from scipy import special

from relaxloss.evaluation import one_run_audit
from relaxloss.evaluation.records import LEAKING
from relaxloss.evaluation.rows import TPRS
from relaxloss.experiments.result import Result
from relaxloss.report import formatting

Line = dict[str, Any]
MODES = ("adaptive", "nonadaptive")
UTILITY = (
    *("top1", "top5", "train_top1", "accuracy_gap", "calibration_error"),
    *("member_loss", "member_loss_variance", "test_loss", "test_loss_variance", "loss_gap"),
)
ABSENT = {
    "adaptive": "not measured: no shadow was trained with the target's own defense (shadows=undefended, or no shadows)",
    "nonadaptive": "not measured: every shadow was trained with the target's own defense (shadows=same)",
}
KEEPS = 0.99  # of the accuracy without defense: what a setting must reach to represent its defense


def summary(result: Result) -> pd.DataFrame:
    """One line per defense and settings, in the order of the experiment.

    Columns: ``defense``, ``settings`` (all fields), ``label`` (the short form of the settings), ``seeds`` (how many),
    ``interval`` (what the intervals are); the measures of utility (`UTILITY`); and per mode, ``adaptive`` and
    ``nonadaptive``: ``auc_<mode>`` of the strongest attack, ``attack_<mode>`` (which it was), ``selected_auc_<mode>``
    (attack chosen on one half of the samples, measured on the other), and `TPRS` with ``_<mode>``, each of the attack
    that is the strongest there.

    Every quantity q has ``q_low``, ``q_high`` and ``q_note``; what was not measured is NaN, and the note says why.
    ``delta_top1``, ``delta_top5``, ``delta_auc_<mode>`` are ``100·(value / no defense's - 1)``, as on the poster.

    Over several seeds a quantity is their mean; its interval is Student's t from 3 seeds on, the range of 2 seeds, and
    the run's own for 1.
    """
    level = _level(result)
    rows = _largest(result.rows[result.rows["measure"].isin([*UTILITY, "auc", *TPRS])])
    groups = _groups(rows[rows["attack"].isin(["", "max", "selected"])], "measure", "attack")
    lines = []
    for line in _names(result):
        head = line["defense"], line["settings"]
        for name in UTILITY:
            line |= estimate(name, groups[*head, name, "", ""], level)
        for mode in MODES:
            for measure in ("auc", *TPRS):
                found = groups[*head, measure, "max", mode]
                line |= estimate(f"{measure}_{mode}", found, level, ABSENT[mode])
            found = groups[*head, "auc", "selected", mode]
            absent = ABSENT[mode] if math.isnan(line[f"auc_{mode}"]) else "not measured: too few samples to halve"
            line |= estimate(f"selected_auc_{mode}", found, level, absent)
            line[f"attack_{mode}"] = _attacks(groups[*head, "auc", "max", mode])
        lines.append(line)
    return pd.DataFrame(_with_changes(lines))


def estimate(name: str, found: list[Line], level: float, absent: str = "not measured") -> Line:
    """One quantity from its rows, one per seed: value, interval, and a note if it was not measured."""
    value = low = high = math.nan
    values = [float(row["value"]) for row in found]
    missing = [row for row in found if math.isnan(row["value"])]
    note = "" if found else absent
    if missing:
        note = str(missing[0]["note"]) or "not measured"
        if len(missing) < len(found):
            note += f" (in {len(missing)} of {len(found)} seeds)"
    elif len(found) == 1:
        value, low, high = (float(found[0][column]) for column in ("value", "low", "high"))
    elif len(found) == 2:
        value, low, high = statistics.fmean(values), min(values), max(values)
    elif found:
        value = statistics.fmean(values)
        spread = statistics.stdev(values) if all(map(math.isfinite, values)) else math.nan
        half = float(special.stdtrit(len(found) - 1, (1 + level) / 2)) * spread / math.sqrt(len(found))
        low, high = value - half, value + half
        if name.startswith(("top", "train_top1", "auc", "selected_auc", "tpr")):
            low, high = max(low, 0.0), min(high, 1.0)
    return {name: value, f"{name}_low": low, f"{name}_high": high, f"{name}_note": note}


def records(frame: pd.DataFrame) -> list[Line]:
    """The rows of a table as dicts."""
    return [{str(name): item for name, item in line.items()} for line in frame.to_dict("records")]


def _largest(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with ``max`` at each low FPR as `measures.worst` has it: older results have the largest AUC's there."""
    low = rows["measure"].isin(TPRS)
    made = rows[low & ~rows["attack"].isin(["", "max", "selected"])]
    if made.empty:
        return rows
    who = ["defense", "settings", "adaptive", "seed", "measure"]
    best = made.sort_values("value", ascending=False, kind="stable").drop_duplicates(who)
    return pd.concat([rows[~(low & (rows["attack"] == "max"))], best.assign(attack="max")])


def _names(result: Result) -> list[Line]:
    rows, level = result.rows, _level(result)
    lines: list[Line] = []
    pairs = rows[["defense", "settings"]].drop_duplicates()
    short: dict[tuple[Any, str], str] = {}
    for defense, group in pairs.groupby("defense", sort=False):
        settings = [str(each) for each in group["settings"]]
        short |= {
            (defense, each): label
            for each, label in zip(settings, formatting.labels(settings, str(defense)), strict=True)
        }
    for line in records(pairs):
        defense, settings = line["defense"], line["settings"]
        group = rows[(rows["defense"] == defense) & (rows["settings"] == settings)]
        seeds = group["seed"].nunique()
        kind = f"{100 * level:g} % t-interval over {seeds} seeds"
        kind = {1: f"{100 * level:g} % interval within the run", 2: "range of 2 seeds"}.get(seeds, kind)
        head = {"defense": defense, "settings": settings, "label": short[defense, settings]}
        lines.append(head | {"seeds": seeds, "interval": kind})
    return lines


def _with_changes(lines: list[Line]) -> list[Line]:
    baseline = next((line for line in lines if line["defense"] == formatting.NONE), None)
    for line in lines:
        for name in ("top1", "top5", "auc_adaptive", "auc_nonadaptive"):
            value, note = math.nan, ""
            if baseline is None:
                note = "not measured: no model without defense is in this comparison"
            elif line is baseline:
                note = "baseline"
            elif math.isnan(line[name]) or math.isnan(baseline[name]):
                note = str(line[f"{name}_note"] or baseline[f"{name}_note"])
            elif baseline[name] == 0:
                note = "not measured: the value without defense is 0"
            else:
                value = 100 * (line[name] / baseline[name] - 1)
            line |= {f"delta_{name}": value, f"delta_{name}_note": note}
    return lines


def _attacks(found: list[Line]) -> str:
    return " or ".join(dict.fromkeys(str(row["note"]).removeprefix("by ") for row in found))


def _groups(rows: pd.DataFrame, *columns: str) -> defaultdict[tuple[Any, ...], list[Line]]:
    """Rows by (defense, settings, *columns, mode): ``adaptive``, ``nonadaptive``, or empty where it has no meaning."""
    groups: defaultdict[tuple[Any, ...], list[Line]] = defaultdict(list)
    for row in records(rows):
        mode: str = "" if pd.isna(row["adaptive"]) else MODES[0] if row["adaptive"] else MODES[1]
        key = [row[name] for name in ("defense", "settings", *columns)]
        groups[(*key, mode)].append(row)
    return groups


def _level(result: Result) -> float:
    return float(result.facts.get("experiment", {}).get("level", 0.95))


def attacks_table(result: Result) -> pd.DataFrame:
    """AUC of every attack on every defense: ``defense, settings, label, attack``, and per mode value and interval.

    The attacks ``max`` and ``selected`` are left to `summary`. Quantities as there.
    """
    rows, level = result.rows, _level(result)
    rows = rows[(rows["measure"] == "auc") & ~rows["attack"].isin(["max", "selected"])]
    groups = _groups(rows, "attack")
    lines = []
    for line in _names(result):
        for attack in rows["attack"].unique():
            item: Line = {name: line[name] for name in ("defense", "settings", "label")} | {"attack": attack}
            for mode in MODES:
                found = groups[line["defense"], line["settings"], attack, mode]
                item |= estimate(f"auc_{mode}", found, level, ABSENT[mode])
            lines.append(item)
    return pd.DataFrame(lines)


def reported(result: Result) -> pd.DataFrame:
    """What the defenses say of themselves (ε, epochs, ...): ``defense, settings, label, measure, value, seeds``."""
    rows = result.rows[
        (result.rows["attack"] == "") & ~result.rows["measure"].isin([*UTILITY, LEAKING, one_run_audit.MEASURE])
    ]
    lines = {(line["defense"], line["settings"]): line["label"] for line in _names(result)}
    found = []
    for (defense, settings, measure), group in rows.groupby(["defense", "settings", "measure"], sort=False):
        head = {"defense": defense, "settings": settings, "label": lines[defense, settings], "measure": measure}
        found.append(head | {"value": float(group["value"].mean()), "seeds": len(group)})
    return pd.DataFrame(found)


def reasons(table: pd.DataFrame) -> list[str]:
    """Why something in a `summary` was not measured: each reason once, with the quantities that it holds for."""
    found: dict[str, dict[str, None]] = {}
    for name in (
        "top1",
        "top5",
        *(f"{measure}_{mode}" for mode in MODES for measure in ("auc", "selected_auc", *TPRS)),
    ):
        for note in table.loc[table[name].isna(), f"{name}_note"]:
            found.setdefault(str(note).removeprefix("not measured").lstrip(": "), {})[formatting.quantity(name)] = None
    return [f"Not measured: {', '.join(names)}" + (f": {why}" if why else "") + "." for why, names in found.items()]


def headed_by(table: pd.DataFrame) -> str:
    """The mode that heads the report: ``adaptive``, unless nothing adaptive was measured."""
    return "adaptive" if table["auc_adaptive"].notna().any() else "nonadaptive"


def representatives(table: pd.DataFrame, limit: int = 6) -> pd.DataFrame:
    """One line of `summary` per defense, `limit` at most: no defense, RelaxLoss, then by the strongest attack's AUC.

    Of several settings: the lowest AUC among those that keep 99 % of the accuracy without defense; if none does, the
    first in the experiment's order.
    """
    auc = f"auc_{headed_by(table)}"
    plain = table.loc[table["defense"] == formatting.NONE, "top1"]
    enough = KEEPS * float(plain.iloc[0]) if len(plain) else math.inf
    chosen = []
    for _, group in table.groupby("defense", sort=False):
        keeping = group[(group["top1"] >= enough) & group[auc].notna()]
        chosen.append(keeping[auc].idxmin() if len(group) > 1 and len(keeping) else group.index[0])
    ranks = {formatting.NONE: 0, "relaxloss": 1}
    found = table.loc[chosen]
    strongest = found[auc].fillna(math.inf)
    order = sorted(found.index, key=lambda i: (ranks.get(found["defense"][i], 2), strongest[i]))
    return found.loc[order[:limit]]

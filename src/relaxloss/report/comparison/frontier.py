"""The least leaky setting of each defense at a given accuracy, chosen on other seeds than it is shown on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from relaxloss.experiments.result import Result
from relaxloss.report import formatting
from relaxloss.report.comparison import tables
from relaxloss.report.comparison.tables import MODES, Line

SHARES = (0.99, 0.95, 0.9, 0.8)
FEWEST_SEEDS = 3
AGAINST = "relaxloss"


def frontier(result: Result, summary: pd.DataFrame, shares: Sequence[float] = SHARES) -> pd.DataFrame:
    """One line per defense and share of no defense's accuracy; empty with fewer than 3 seeds or without no defense.

    A defense of which no setting was measured at every seed has no line. `summary` is the result's.

    Each seed is left out in turn. Of a defense's settings that were measured at every seed, and whose mean accuracy
    over the *other* seeds is at least ``share`` times no defense's there, the one with the lowest mean AUC of the
    strongest attack over these seeds is taken, and measured at the seed left out: neither the setting nor its luck was
    chosen on the models that the figure is about. (Seeds split the same pool: most of its samples are asked at others
    too.)

    Columns: ``defense``, ``share``, ``settings`` (what was chosen, most often first, in short form), ``top1`` and
    ``auc``: the means over the seeds left out, with ``_low``, ``_high`` (Student's t) and ``_note``; NaN where at some
    seed no setting keeps enough. `auc` is adaptive unless nothing adaptive was measured; `attrs["mode"]` says which.
    ``difference``, likewise: the mean over the seeds of the AUC less RelaxLoss's at the same seed and share.
    """
    rows, level = result.rows, float(result.facts.get("experiment", {}).get("level", 0.95))
    mode = tables.headed_by(summary)
    labels = {(line["defense"], line["settings"]): line["label"] for line in tables.records(summary)}
    top1 = _by_seed(rows[rows["measure"] == "top1"])
    strongest = (rows["measure"] == "auc") & (rows["attack"] == "max") & (rows["adaptive"] == (mode == MODES[0]))
    auc = _by_seed(rows[strongest])
    seeds = list(top1.columns)
    plain = top1[top1.index.get_level_values("defense") == formatting.NONE].dropna()
    if len(seeds) < FEWEST_SEEDS or not len(plain):
        return pd.DataFrame()
    whole = [
        key for key in top1.index if key in auc.index and top1.loc[key].notna().all() and auc.loc[key].notna().all()
    ]
    chosen: dict[tuple[str, float], list[Any]] = {}
    for defense in dict.fromkeys(key[0] for key in whole):
        own = [key for key in whole if key[0] == defense]
        for share in shares:
            chosen[defense, share] = [
                _chosen(top1.loc[own], auc.loc[own], plain.iloc[0], seed, share) for seed in seeds
            ]
    lines = []
    for (defense, share), cells in chosen.items():
        line: Line = {"defense": defense, "share": share, "settings": _names(cells, labels)}
        own_auc, rivals = _at(auc, cells), _at(auc, chosen.get((AGAINST, share), [None] * len(seeds)))
        differences = [value - rival for value, rival in zip(own_auc, rivals, strict=True)]
        for name, values in (("top1", _at(top1, cells)), ("auc", own_auc), ("difference", differences)):
            line |= tables.estimate(name, [{"value": value, "note": ""} for value in values], level)
        lines.append(line)
    table = pd.DataFrame(lines)
    table.attrs["mode"] = mode
    return table


def _by_seed(rows: pd.DataFrame) -> pd.DataFrame:
    """Values with (defense, settings) as rows, in the order of the experiment, and seeds as columns."""
    return rows.pivot_table("value", ["defense", "settings"], "seed", sort=False)


def _chosen(top1: pd.DataFrame, auc: pd.DataFrame, plain: pd.Series[float], seed: Any, share: float) -> Any:
    """The setting chosen on all seeds but one, with that seed; None if none keeps enough."""
    others = [each for each in top1.columns if each != seed]
    enough = top1[others].mean(axis=1) >= share * plain[others].mean()
    return (auc.loc[enough, others].mean(axis=1).idxmin(), seed) if enough.any() else None


def _at(table: pd.DataFrame, chosen: list[Any]) -> list[float]:
    """The values of the settings chosen at the seeds left out; NaN where there is none."""
    return [math.nan if each is None else float(table.loc[each]) for each in chosen]


def _names(chosen: list[Any], labels: dict[Any, str]) -> str:
    """The short forms of the settings chosen, most often first; empty if some seed has none."""
    if None in chosen:
        return ""
    return " or ".join(label for label, _ in Counter(labels[key] for key, _ in chosen).most_common())

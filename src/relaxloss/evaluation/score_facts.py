"""What the scores of an evaluation tell of the evaluation itself, for the flags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from relaxloss import metrics
from relaxloss.attacks.base import Scores
from relaxloss.evaluation import flags, rows


def graded(table: Mapping[str, Scores], member: npt.NDArray[np.bool_]) -> str:
    """The strongest attack by AUC of those whose scores order samples; of all, if there are none."""
    found = {name: scores for name, scores in table.items() if name.split(":")[0] not in flags.DISCRETE} or table
    return max(found, key=lambda name: metrics.auc(found[name], member))


def facts(
    table: Mapping[str, Scores], member: npt.NDArray[np.bool_], clusters: metrics.Clusters | None = None
) -> dict[str, Any]:
    """What the scores of whom is asked tell of an evaluation, as fields of `Facts`."""
    nonmembers, level = int((~member).sum()), flags.AUC_LEVEL
    intervals = {name: rows.auc_interval(each, member, clusters, level) for name, each in table.items()}
    told = {"nonmembers": nonmembers, "lowest_fpr": min(rows.FPRS), "auc_intervals": intervals}
    best, kinds = graded(table, member), {name: name.split(":")[0] for name in table}
    if kinds[best] in flags.DISCRETE:
        return told
    ahead = None
    if labelled := [name for kind in ("label_only", "correctness") for name in table if kinds[name] == kind]:
        low, high = rows.auc_difference_interval(table[labelled[0]], table[best], member, clusters, level)
        ahead = (low if intervals[labelled[0]][0] > 0.5 else min(low, 0.0)), high
    resolved = [fpr for fpr in rows.FPRS if metrics.resolvable(nonmembers, fpr)]
    return told | {
        "tied_pairs": metrics.tied_share(table[best], member),
        "tied_top": metrics.tied_top(table[best], member, min(resolved)) if resolved else 0,
        "label_only_advantage": ahead,
    }

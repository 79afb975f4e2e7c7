"""Intervals where the same records are asked of several models, so that scores are no independent draws.

Entries ``(N,)`` belong to a record and to a model each. An outlier is found in model after model, and a model that fits
closely betrays more of all its records: entries that share a record or a model are alike, and intervals that count each
entry once are too narrow. The variance is the two-way cluster-robust one (Cameron, Gelbach, Miller 2011): the sums of
squared cluster totals over records and over models, less those over entries, which were counted twice. Each of the
three carries its factor G / (G − 1) for G clusters.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from relaxloss.errors import UserError
from relaxloss.metrics.curve import (
    Floats,
    auc,
    balanced_accuracy,
    beaten,
    groups,
    threshold_at_fpr,
    true_positives,
)
from relaxloss.metrics.intervals import (
    Interval,
    auc_difference_interval,
    auc_interval,
    check_level,
    clopper_pearson,
    wilson,
)

Ints = npt.NDArray[np.int64]


class Clusters(NamedTuple):
    """The record and the model that each entry ``(N,)`` belongs to; any numbers."""

    records: npt.NDArray[np.int64]
    models: npt.NDArray[np.int64]

    def take(self, chosen: npt.NDArray[np.bool_]) -> Clusters:
        """Those of some entries."""
        return Clusters(self.records[chosen], self.models[chosen])


def clustered_auc_interval(
    scores: npt.ArrayLike, member: npt.ArrayLike, clusters: Clusters, level: float = 0.95
) -> Interval:
    """Interval of the AUC over records and models, on the logit scale, with Student's t; it holds `auc_interval`.

    An entry's influence is DeLong's: ``(placement − AUC) / n`` of a member, ``(1 − placement − AUC) / m`` of a
    non-member. The degrees of freedom are those of the smaller number of clusters, less 1.
    """
    low, high = auc_interval(scores, member, level)
    area, deviation = auc(scores, member), math.sqrt(_two_way(_influence(scores, member), _codes(member, clusters)))
    if not 0 < area < 1 or deviation == 0:
        return low, high
    half = _quantile(clusters, level) * deviation / (area * (1 - area))
    centre = float(special.logit(area))
    return min(low, float(special.expit(centre - half))), max(high, float(special.expit(centre + half)))


def clustered_auc_difference_interval(
    scores: npt.ArrayLike,
    other_scores: npt.ArrayLike,
    member: npt.ArrayLike,
    clusters: Clusters,
    level: float = 0.95,
) -> Interval:
    """Interval of ``auc(scores) − auc(other_scores)``, paired; it holds `auc_difference_interval`."""
    low, high = auc_difference_interval(scores, other_scores, member, level)
    influence = _influence(scores, member) - _influence(other_scores, member)
    half = _quantile(clusters, level) * math.sqrt(_two_way(influence, _codes(member, clusters)))
    centre = auc(scores, member) - auc(other_scores, member)
    return min(low, max(centre - half, -1.0)), max(high, min(centre + half, 1.0))


def clustered_tpr_interval(
    scores: npt.ArrayLike, member: npt.ArrayLike, clusters: Clusters, fpr: float = 0.001, level: float = 0.95
) -> Interval:
    """Interval of `tpr_at_fpr` over records, models and the threshold's uncertainty.

    As ``tpr_interval(threshold="estimated")``, with effective numbers in place of the numbers of members and
    non-members (Korn and Graubard 1998): each is divided by its `design_effect`, that of the members' hits and that of
    the non-members' false positives at the threshold.
    """
    members, others = (np.sort(group) for group in groups(scores, member))
    n, m, tail = len(members), len(others), (1 - check_level(level)) / 2
    inside, _ = np.asarray(member).astype(bool), _codes(member, clusters)
    above = np.asarray(scores, dtype=np.float64) > threshold_at_fpr(scores, member, fpr)
    n_effective, m_effective = (_effective(above[part], clusters.take(part), level) for part in (inside, ~inside))
    rate = float(above[inside].mean())
    low, high = clopper_pearson(rate * n_effective, n_effective, level)
    few, many = (stats.binom.ppf(q, round(m_effective), fpr) * m / round(m_effective) for q in (tail, 1 - tail))
    few, many = math.floor(few), min(math.ceil(many), m)
    fewest = (true_positives(members, others, max(few - 1, 0)) + true_positives(members, others, few)) / 2
    most = true_positives(members, others, many)
    down, up = math.hypot(rate - low, rate - fewest / n), math.hypot(high - rate, most / n - rate)
    return max(rate - down, 0.0), min(rate + up, 1.0)


def clustered_balanced_accuracy_interval(
    scores: npt.ArrayLike, member: npt.ArrayLike, threshold: npt.ArrayLike, clusters: Clusters, level: float = 0.95
) -> Interval:
    """As `balanced_accuracy_interval`, with the effective numbers of `clustered_tpr_interval` in Wilson's limits."""
    centre = balanced_accuracy(scores, member, threshold)  # and all checks
    inside, _ = np.asarray(member).astype(bool), _codes(member, clusters)
    right = (np.asarray(scores, dtype=np.float64) >= np.asarray(threshold, dtype=np.float64)) == inside
    down = up = 0.0
    for part in (inside, ~inside):
        n, rate = _effective(right[part], clusters.take(part), level), float(right[part].mean())
        low, high = wilson(rate * n, n, level)
        down, up = math.hypot(down, (rate - low) / 2), math.hypot(up, (high - rate) / 2)
    return centre - down, centre + up


def design_effect(values: npt.ArrayLike, clusters: Clusters) -> float:
    """The two-way variance of the values' mean over that of independent values; at least 1, and 1 if all are equal."""
    x = np.asarray(values, dtype=np.float64)
    plain = float(x.var()) / max(len(x) - 1, 1)
    if plain == 0:
        return 1.0
    return max(1.0, _two_way((x - x.mean()) / len(x), _codes(x, clusters)) / plain)


def _effective(hits: npt.NDArray[np.bool_], clusters: Clusters, level: float) -> float:
    """How many independent entries tell as much as these.

    Where none or all are hit, nothing shows how alike they are: then as many as there are different records. Few
    clusters estimate a variance badly: the number shrinks by the squared ratio of the normal to Student's quantile.
    """
    if hits.all() or not hits.any():
        return float(len(np.unique(clusters.records)))
    shrink = float(stats.norm.ppf((1 + level) / 2)) / _quantile(clusters, level)
    return max(len(hits) * shrink**2 / design_effect(hits, clusters), 1.0)


def _influence(scores: npt.ArrayLike, member: npt.ArrayLike) -> Floats:
    """What each entry adds to the AUC's error ``(N,)``."""
    members, others = groups(scores, member)
    inside = np.asarray(member).astype(bool)
    placements = beaten(members, np.sort(others))
    influence = np.empty(len(inside))
    influence[inside] = (placements - placements.mean()) / len(members)
    influence[~inside] = (1 - placements.mean() - beaten(others, np.sort(members))) / len(others)
    return influence


def _two_way(influence: Floats, codes: Clusters) -> float:
    """The variance of the influences' sum, with entries that share a record or a model correlated."""
    both = np.unique(codes.records * (codes.models.max() + 1) + codes.models, return_inverse=True)[1]
    totals = [np.bincount(each, influence) for each in (*codes, both)]
    record, model, entry = (float(np.square(t).sum()) * len(t) / max(len(t) - 1, 1) for t in totals)
    return max(record + model - entry, record, model)


def _quantile(clusters: Clusters, level: float) -> float:
    freedom = max(min(len(np.unique(each)) for each in clusters) - 1, 1)
    return float(special.stdtrit(freedom, (1 + check_level(level)) / 2))


def _codes(member: npt.ArrayLike, clusters: Clusters) -> Clusters:
    """The clusters as numbers from 0."""
    shapes = {np.shape(member), *(np.shape(each) for each in clusters)}
    if len(shapes) > 1:
        raise UserError(f"clusters have shapes {[np.shape(each) for each in clusters]}; expected {np.shape(member)}")
    return Clusters(*(np.unique(each, return_inverse=True)[1].astype(np.int64) for each in clusters))

"""Intervals of AUCs and rates, and the ε bound of one run. Arguments as in `relaxloss.metrics.curve`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from relaxloss.errors import UserError
from relaxloss.metrics.curve import Floats, allowed, beaten, counts, groups, true_positives

Interval = tuple[float, float]


def auc_interval(scores: npt.ArrayLike, member: npt.ArrayLike, level: float = 0.95) -> Interval:
    """DeLong's interval of the AUC on the logit scale, with Student's t at Welch's degrees of freedom.

    On the AUC itself DeLong's normal interval (Biometrics 1988) covers an AUC of 0.95 in only 86 to 90 % of audits of
    100 samples; logit and t bring that to 93 to 95 %. Where DeLong's variance is 0, the interval is exact instead:
    of k = min(n_members, n_nonmembers) disjoint pairs all were won (lost, tied), so that at least a share
    ``((1-level)/2)^(1/k)`` of all pairs is won (lost; tied: ``(1-level)^(1/k)``). Where it is 0 on one side only, the
    n samples of that side may still hide a share ``1 - ((1-level)/2)^(1/n)`` of others, of any rank: that is joined by
    square-and-add. Of scores of two values (correctness) the AUC is a balanced accuracy; Clopper and Pearson's limits
    of the two rates are joined likewise, for DeLong's interval covers as little as 57 % if one of the values is rare.
    No interval has zero width.
    """
    area, variances, sizes = _delong(scores, member)
    return _auc_limits(scores, member, area[0], variances[:, 0, 0], sizes, check_level(level))


def auc_difference_interval(
    scores: npt.ArrayLike, other_scores: npt.ArrayLike, member: npt.ArrayLike, level: float = 0.95
) -> Interval:
    """DeLong's interval of ``auc(scores) − auc(other_scores)``, paired: both attacks scored the same samples.

    Student's t as in `auc_interval`, no logit: differences are nearly symmetric. An attack whose own variance is 0 has
    never failed or told nothing apart on these samples, be it on one side; then both AUCs' limits are joined by
    square-and-add (Newcombe).
    """
    area, variances, sizes = _delong(scores, member, other_scores)
    check_level(level)
    difference = float(area[0] - area[1])
    own = [variances[:, i, i] for i in (0, 1)]
    if min(sizes) == 1 or any(v.min() == 0 for v in own):
        (low, high), (other_low, other_high) = (
            _auc_limits(each, member, area[i], own[i], sizes, level) for i, each in enumerate((scores, other_scores))
        )
        down = math.hypot(area[0] - low, other_high - area[1])
        up = math.hypot(high - area[0], area[1] - other_low)
    else:
        down = up = _half_width(own[0] + own[1] - 2 * variances[:, 0, 1], sizes, level)
    return max(difference - down, -1.0), min(difference + up, 1.0)


def tpr_interval(
    scores: npt.ArrayLike,
    member: npt.ArrayLike,
    fpr: float = 0.001,
    level: float = 0.95,
    threshold: Literal["given", "estimated"] = "given",
) -> Interval:
    """Interval of `tpr_at_fpr`, by Clopper and Pearson (Biometrika 1934).

    Args:
        threshold: ``"given"``: Clopper-Pearson of the TPR alone, as if the threshold had been known beforehand. But it
            was found on the non-members, and 12 false positives of 12,000 may mean a true FPR of .05 to .18 %: that
            interval covers the TPR at a true FPR of 0.1 % in 25 to 85 % of audits only. So ``"estimated"`` adds the
            threshold's own uncertainty: with q, Q the binomial limits of the number of non-members above the threshold
            sought, the TPRs at q and Q false positives are joined to Clopper-Pearson's limits by sums of squared
            distances (Newcombe's square-and-add, 1998). Measured coverage is 94 to 99 %.
    """
    members, others = (np.sort(group) for group in groups(scores, member))
    n, m, tail = len(members), len(others), (1 - check_level(level)) / 2
    hits = true_positives(members, others, allowed(m, fpr))
    low, high = clopper_pearson(hits, n, level)
    if threshold == "given":
        return low, high
    if threshold != "estimated":
        raise UserError(f"threshold={threshold!r}; expected 'estimated' or 'given'")
    few, many = (int(stats.binom.ppf(q, m, fpr)) for q in (tail, 1 - tail))
    # the threshold sought lies between two order statistics: below, take half of each
    fewest = (true_positives(members, others, max(few - 1, 0)) + true_positives(members, others, few)) / 2
    most = true_positives(members, others, many)
    rate = hits / n
    down, up = math.hypot(rate - low, rate - fewest / n), math.hypot(high - rate, most / n - rate)
    return max(rate - down, 0.0), min(rate + up, 1.0)


def balanced_accuracy_interval(
    scores: npt.ArrayLike, member: npt.ArrayLike, threshold: npt.ArrayLike, level: float = 0.95
) -> Interval:
    """Interval of `balanced_accuracy`: Wilson's limits of TPR and TNR, joined by square-and-add (Newcombe 1998).

    The threshold must come from elsewhere (shadows, another half): chosen on these samples it flatters the attack.
    """
    return _balanced(counts(scores, member, threshold), wilson, level)


def clopper_pearson(hits: float, n: float, level: float = 0.95) -> Interval:
    """Clopper and Pearson's exact interval of a proportion; it covers at least, and for small n more than, `level`.

    `hits` and `n` may be effective numbers, not whole ones.
    """
    if not 0 <= hits <= n or n == 0:
        raise UserError(f"got {hits} hits of {n}; expected 0 <= hits <= n and n > 0")
    tail = (1 - check_level(level)) / 2
    low = 0.0 if hits == 0 else float(special.betaincinv(hits, n - hits + 1, tail))
    high = 1.0 if hits == n else float(special.betaincinv(hits + 1, n - hits, 1 - tail))
    return low, high


def wilson(hits: float, n: float, level: float = 0.95) -> Interval:
    """Wilson's score interval (1927) of a proportion: never of zero width, right on average also near 0 and 1."""
    if not 0 <= hits <= n or n == 0:
        raise UserError(f"got {hits} hits of {n}; expected 0 <= hits <= n and n > 0")
    z = float(special.ndtri((1 + check_level(level)) / 2))
    p, scale = hits / n, 1 + z * z / n
    centre = (p + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    # at the ends the formula gives exactly 0 and 1, rounding does not
    return (0.0 if hits == 0 else centre - half), (1.0 if hits == n else centre + half)


def one_run_epsilon(m: int, r: int, v: int, delta: float, beta: float) -> float:
    """Lower bound of ε at confidence 1 − β from one training run (Steinke, Nasr, Jagielski, NeurIPS 2023).

    m canaries were each included with probability ½, r of them guessed, v guesses were right; r was fixed beforehand.
    The largest ε with ``P[B ≥ v] + 2mδ·max_{1≤i≤v} (1/i)·Σ_{k≤i} P[B = v−k] < β``, B ~ Bin(r, 1/(1+e^−ε)); 0 if none.
    """
    if not 0 <= v <= r <= m or m < 1:
        raise UserError(f"got v={v} right of r={r} guesses on m={m} canaries; expected 0 <= v <= r <= m and m >= 1")
    if not 0 <= delta <= 1 or not 0 < beta < 1:
        raise UserError(f"got delta={delta}, beta={beta}; expected 0 <= delta <= 1 and 0 < beta < 1")

    def refuted(epsilon: float) -> bool:
        q = special.expit(epsilon)
        p = float(stats.binom.sf(v - 1, r, q))
        if delta > 0 and v > 0:
            below = np.cumsum(stats.binom.pmf(np.arange(v - 1, -1, -1), r, q)) / np.arange(1, v + 1)
            p += 2 * m * delta * float(below.max())
        return p < beta

    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while refuted(high):
        low, high = high, 2 * high
    while high - low > 1e-9 * max(high, 1.0):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def check_level(level: float) -> float:
    """The confidence level, if it is one."""
    if not 0 < level < 1:
        raise UserError(f"level={level!r}; expected a confidence level between 0 and 1, such as 0.95")
    return level


def _delong(
    scores: npt.ArrayLike, member: npt.ArrayLike, *more: npt.ArrayLike
) -> tuple[Floats, Floats, tuple[int, int]]:
    """AUCs ``(S,)`` of S attacks, their covariances ``(2, S, S)`` from members and others, and the two counts."""
    pairs = [groups(each, member) for each in (scores, *more)]
    sizes = len(pairs[0][0]), len(pairs[0][1])
    by_member = np.stack([beaten(members, np.sort(others)) for members, others in pairs])
    by_other = np.stack([1 - beaten(others, np.sort(members)) for members, others in pairs])
    covariances = []
    for placements, n in zip((by_member, by_other), sizes, strict=True):
        centred = placements - placements[:, :1]  # exactly 0 where all are equal: no variance is told from a small one
        centred -= centred.mean(axis=1, keepdims=True)
        covariances.append(centred @ centred.T / (max(n - 1, 1) * n))
    return by_member.mean(axis=1), np.stack(covariances), sizes


def _auc_limits(
    scores: npt.ArrayLike, member: npt.ArrayLike, area: float, variances: Floats, sizes: tuple[int, int], level: float
) -> Interval:
    k, variance = min(sizes), float(variances.sum())
    if k == 1:  # one sample shows no variance
        return clopper_pearson(area, 1, level)
    if variance == 0:
        share = ((1 - level) / (2 if area in (0, 1) else 1)) ** (1 / k)
        untied = (1 - share) / 2
        return {0.0: (0.0, 1 - share), 1.0: (share, 1.0)}.get(area, (area - untied, area + untied))
    values = np.asarray(scores, dtype=np.float64)
    top = values.max()
    if ((values == top) | (values == values.min())).all():
        return _balanced(counts(scores, member, top), clopper_pearson, level)
    half = _half_width(variances, sizes, level) / (area * (1 - area))
    centre = float(special.logit(area))
    low, high = float(special.expit(centre - half)), float(special.expit(centre + half))
    hidden = sum(1 - ((1 - level) / 2) ** (1 / n) for v, n in zip(variances, sizes, strict=True) if v == 0)
    down, up = math.hypot(area - low, hidden * area), math.hypot(high - area, hidden * (1 - area))
    return max(area - down, 0.0), min(area + up, 1.0)


def _balanced(
    found: tuple[int, int, int, int], limits: Callable[[float, float, float], Interval], level: float
) -> Interval:
    """A balanced accuracy's interval of `curve.counts`: the limits of both rates, joined by square-and-add."""
    true, n, false, m = found
    (low, high), (low_fpr, high_fpr) = limits(true, n, level), limits(false, m, level)
    centre = (true / n + 1 - false / m) / 2
    return (
        centre - math.hypot(true / n - low, high_fpr - false / m) / 2,
        centre + math.hypot(high - true / n, false / m - low_fpr) / 2,
    )


def _half_width(variances: Floats, sizes: tuple[int, int], level: float) -> float:
    """t·σ for the sum of two independent means with these variances, at Welch's degrees of freedom."""
    total = max(float(variances.sum()), 0.0)
    if total == 0:
        return 0.0
    freedom = total**2 / sum(float(v) ** 2 / (n - 1) for v, n in zip(variances, sizes, strict=True))
    return float(special.stdtrit(freedom, (1 + level) / 2)) * math.sqrt(total)

"""Attacks that compare the target with the average shadow: RMIA, BASE, difficulty calibration, Attack R.

All statistics are higher for members; RMIA and BASE need them as true-class log-probabilities (`statistics.loss`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from relaxloss.attacks.functional import shapes
from relaxloss.attacks.functional.shapes import Bools, Floats
from relaxloss.errors import UserError


class Population(NamedTuple):
    """Samples z to compare with: log-probabilities ``target (Z,)``, ``shadows (K, Z)``; ``member (K, Z)`` or None if no
    shadow has any of them.
    """

    target: ArrayLike
    shadows: ArrayLike
    member: ArrayLike | None = None


def base(target: ArrayLike, shadows: ArrayLike, member: ArrayLike, *, offline_a: float | None = None) -> Floats:
    """``log p_x - log Pr(x)``: ``target (N,)``, ``shadows (K, N)`` log-probabilities, ``member (K, N)`` -> ``(N,)``.

    ``Pr(x)`` is the mean of ``p_x`` over all shadows, in or out; offline, with ``offline_a`` from 0 to 1, it is
    ``((1 + a) mean over the shadows that lack x + (1 - a)) / 2``. A sample that no shadow lacks takes the first form.
    0/0 counts as a ratio of 1: the target and all shadows agree. Means are taken in log space, so that nothing
    underflows. Ranks samples of one target as `rmia` does, ties aside.

    Sources: Lassila et al. 2025 (BASE); Zarifzadeh et al. (ICML 2024), equation 9 and section 3.3 for the offline form.
    """
    t, s, has = shapes.target_and_shadows(target, shadows, member)
    _log_probabilities(t, s)
    if offline_a is None:
        reference = _log_mean_exp(s)
    else:
        reference = _offline(_log_mean_exp(s, ~has), _checked_a(offline_a))
        everywhere = has.all(axis=0)
        if everywhere.any():
            reference[everywhere] = _log_mean_exp(s[:, everywhere])
    return _difference(t, reference)


def rmia(
    target: ArrayLike,
    shadows: ArrayLike,
    member: ArrayLike,
    population: Population,
    gamma: float = 1.0,
    offline_a: float | None = None,
    *,
    break_ties: bool = False,
) -> Floats:
    """RMIA: the share of z with ``(p_x / Pr(x)) / (p_z / Pr(z)) > gamma``, ``(N,)`` from 0 to 1.

    Arrays as in `base`, which gives the ratios of x and z. Equal to the full N x Z comparison, ties included, in
    O((N + Z) log Z) time and O(N + Z) memory: z's ratios are sorted once. With `break_ties`, equal shares are ordered
    by x's ratio, by adding less than 1/Z: a small population resolves no false-positive rate below about 1/Z otherwise.

    Source: Zarifzadeh et al. (ICML 2024), equation 4.
    """
    if not gamma > 0 or not np.isfinite(gamma):
        raise UserError(f"got gamma={gamma}: expected a positive number; 1 is usual")
    z_target, z_shadows, z_member = population
    if z_member is None:
        z_member = np.zeros(np.shape(z_shadows), dtype=np.bool_)
    x_ratio = base(target, shadows, member, offline_a=offline_a)
    z_ratio = base(z_target, z_shadows, z_member, offline_a=offline_a)
    if len(np.asarray(shadows)) != len(np.asarray(z_shadows)):
        raise UserError(
            f"got {len(np.asarray(shadows))} shadows for x and {len(np.asarray(z_shadows))} for z: the same"
        )
    if len(z_ratio) == 0:
        raise UserError("the population is empty: give samples to compare with, such as the reference fold")
    share = _share_beaten(x_ratio, z_ratio, gamma)
    if break_ties:
        ratio = np.clip(x_ratio, -1e6, 1e6)
        share += (1 + ratio / (1 + np.abs(ratio))) / (2 * len(z_ratio))
    return share


def rmia_tune_a(
    shadows: ArrayLike,
    member: ArrayLike,
    *,
    shadow: int = 0,
    candidates: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
) -> float:
    """The ``offline_a`` with the highest AUC when one shadow is attacked by means of the others (first among equals).

    ``shadows (K, M)`` log-probabilities, ``member (K, M)``, K >= 2; the target's membership is not needed. No
    population either: for one target the AUC depends on the ranks of `base` alone. Source: as `rmia`, appendix B.2.2.
    """
    s = shapes.floats("shadows", shadows, 2)
    has = shapes.membership(member, (len(s), s.shape[1]))
    if len(s) < 2 or not -len(s) <= shadow < len(s):
        raise UserError(f"got {len(s)} shadows and shadow={shadow}: expected at least 2, and one of them; or set a")
    others = np.delete(np.arange(len(s)), shadow)
    truth = has[shadow]
    if truth.all() or not truth.any():
        raise UserError("the shadow to tune on has every sample or none: give samples that it has and that it lacks")
    scores = [base(s[shadow], s[others], has[others], offline_a=a) for a in candidates]
    return float(candidates[int(np.argmax([_auc(values, truth) for values in scores]))])


def difficulty_calibration(target: ArrayLike, shadows: ArrayLike, member: ArrayLike) -> Floats:
    """``t - mean over the shadows that lack x`` of any statistic, ``(N,)``.

    Higher statistics mean member, as everywhere: give `loss` (the score is then reference loss minus target loss), not
    the cross-entropy. A sample that no shadow lacks takes the mean over all. Infinities count as in `lira`.
    Source: Watson et al. (ICLR 2022).
    """
    t, s, has = shapes.target_and_shadows(target, shadows, member)
    t, s = shapes.bounded(t, s)
    used = ~has | has.all(axis=0)
    return np.asarray(t - np.einsum("kn,kn->n", s, used) / used.sum(axis=0))


def attack_r(target: ArrayLike, shadows: ArrayLike, member: ArrayLike) -> Floats:
    """The share of the shadows lacking x whose statistic is lower than the target's, ties one half; ½ without any.

    Source: Ye et al. (CCS 2022), Attack R: reject "x is not a member" by its quantile among models without x.
    """
    t, s, has = shapes.target_and_shadows(target, shadows, member)
    lacking = ~has
    count = lacking.sum(axis=0)
    wins = (lacking & (s < t)).sum(axis=0) + 0.5 * (lacking & (s == t)).sum(axis=0)
    return np.where(count > 0, wins / np.maximum(count, 1), 0.5)


def _log_probabilities(*arrays: Floats) -> None:
    for array in arrays:
        if array.size and array.max() > 1e-6:
            raise UserError(f"got log-probabilities up to {array.max():.3g}: expected at most 0; see functional.loss")


def _checked_a(a: float) -> float:
    if not 0 <= a <= 1:
        raise UserError(f"got offline_a={a}: expected 0 to 1, or None for the online attack")
    return float(a)


def _log_mean_exp(values: Floats, chosen: Bools | None = None) -> Floats:
    """Over the chosen entries of each column of ``(K, N)``; -inf where there are none or all are -inf."""
    means = []
    for some in shapes.blocks(*values.shape):
        v = values[:, some]
        peak = (v if chosen is None else np.where(chosen[:, some], v, -np.inf)).max(axis=0)
        shift = np.where(np.isfinite(peak), peak, 0.0)
        powers = np.exp(np.minimum(v - shift, 0.0))  # entries that are not chosen may lie above the peak
        if chosen is not None:
            powers *= chosen[:, some]
        size = len(v) if chosen is None else np.maximum(chosen[:, some].sum(axis=0), 1)
        with np.errstate(divide="ignore"):
            means.append(np.log(powers.sum(axis=0) / size) + shift)
    return np.concatenate(means)


def _offline(log_out: Floats, a: float) -> Floats:
    with np.errstate(divide="ignore"):
        return np.asarray(np.logaddexp(np.log1p(a) + log_out, np.log1p(-a)) - np.log(2.0))


def _difference(t: Floats, reference: Floats) -> Floats:
    equal = t == reference  # also -inf and -inf
    return np.subtract(t, reference, out=np.zeros_like(t), where=~equal)


def _share_beaten(x_ratio: Floats, z_ratio: Floats, gamma: float) -> Floats:
    """Mean over z of ``x_ratio > z_ratio + log gamma``; log gamma is added before sorting, so ties stay exact."""
    thresholds = np.sort(z_ratio + np.log(gamma))
    return np.asarray(np.searchsorted(thresholds, x_ratio, side="left") / len(thresholds))


def _auc(scores: Floats, truth: Bools) -> float:
    ranks, n = rankdata(scores), int(truth.sum())
    return float((ranks[truth].sum() - n * (n + 1) / 2) / (n * (len(truth) - n)))

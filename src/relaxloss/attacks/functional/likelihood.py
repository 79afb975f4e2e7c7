"""LiRA, the likelihood-ratio attack: how much likelier is the target's statistic with the sample in than out?

Source: Carlini et al., *Membership Inference Attacks From First Principles* (S&P 2022), algorithm 1 and section VI.

Differences from the authors' code, on purpose: each group's spread is centred on its own per-sample mean and divided by
its degrees of freedom (NB(code): theirs is pooled around the medians, with n); a spread of zero is replaced instead of
being raised by 1e-30.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from relaxloss.attacks.functional import shapes
from relaxloss.attacks.functional.shapes import Bools, Floats
from relaxloss.errors import UserError

Variance = Literal["auto", "global", "sample"]
ENOUGH = 63  # shadows from which a spread of each sample's own beats one for all: 64 models (Carlini 2022, section VI)


class _Group(NamedTuple):
    """Of the shadows that have (or lack) each sample: how many, their mean, their sum of squared deviations; (N,)."""

    size: Floats
    mean: Floats
    squares: Floats


def lira(
    target: ArrayLike,
    shadows: ArrayLike,
    member: ArrayLike,
    *,
    online: bool = True,
    variance: Variance = "auto",
) -> Floats:
    """LiRA scores of one target: ``target (N,)`` or ``(A, N)``, ``shadows (K, N)`` or ``(K, A, N)``, ``member (K, N)``.

    Online: ``mean over queries of log N(t; mu_in, sigma_in) - log N(t; mu_out, sigma_out)``, with mean and spread over
    the shadows that have (in) or lack (out) the sample. Offline: the mean over queries of
    ``(t - mu_out) / sigma_out``, the z value whose ``Phi`` is the paper's score: Phi would tie at 1 from z = 8.3.

    ``variance="global"`` takes one sigma_in and one sigma_out (per query) from all samples, ``"sample"`` each sample's
    own, ``"auto"`` the sample's own from 63 shadows on: 64 models, one of them attacked. A sample's own spread that is
    zero or undefined (fewer than two shadows) gives way to the global one, a global one to the other group's, and at
    last to 1. A sample without shadows in one group takes the other group's mean, shifted by the mean difference of the
    groups over the other samples.
    Infinite statistics count as one unit beyond the most extreme finite one of target and shadows.

    Raises UserError for NaN, shapes that do not fit, online if no sample has both an IN and an OUT, offline without any
    OUT.
    """
    t = shapes.floats("target", target, 1, 2)
    s = shapes.floats("shadows", shadows, 2, 3)
    if s.shape[1:] != t.shape or len(s) == 0:
        raise UserError(
            f"got target {t.shape} and shadows {s.shape}: expected (N,) and (K, N), or (A, N) and (K, A, N)"
        )
    has = shapes.membership(member, (len(s), t.shape[-1]))
    own = _own_variance(variance, len(s))
    t, s = shapes.bounded(np.atleast_2d(t), s.reshape(len(s), -1, t.shape[-1]))
    scores = np.zeros(t.shape[-1])
    for query in range(len(t)):
        scores += _score(t[query], *_groups(s[:, query], has), online, own)
    return np.asarray(scores / len(t))


def lira_leave_one_out(
    statistics: ArrayLike,
    member: ArrayLike,
    *,
    targets: ArrayLike | None = None,
    online: bool = True,
    variance: Variance = "auto",
) -> Floats:
    """Every model is target once and the others are its shadows: ``(K+1, N)`` or ``(K+1, A, N)`` -> ``(K+1, N)``.

    Row j equals ``lira(targets[j], all statistics but the j-th, their member)``, in O(K A N) for all rows together:
    taking a model out of a group's mean and squares needs no second pass over the group. `targets`, of the same shape,
    are the statistics themselves if left out; others where, say, defended models are attacked with undefended shadows.
    Infinite statistics count as one unit beyond the most extreme finite one of all models.
    """
    s = shapes.floats("statistics", statistics, 2, 3)
    t = s if targets is None else shapes.floats("targets", targets, s.ndim)
    if len(s) < 2 or t.shape != s.shape:
        raise UserError(f"got models {s.shape}, targets {t.shape}: expected equal shapes, at least 2 models")
    has = shapes.membership(member, (len(s), s.shape[-1]))
    own = _own_variance(variance, len(s) - 1)
    t, s = shapes.bounded(*(array.reshape(len(s), -1, s.shape[-1]) for array in (t, s)))
    scores = np.zeros((len(s), s.shape[-1]))
    for query in range(s.shape[1]):
        x = s[:, query]
        inside, outside = _groups(x, has)
        for j in range(len(s)):
            scores[j] += _score(t[j, query], _without(j, inside, x, has), _without(j, outside, x, ~has), online, own)
    return np.asarray(scores / s.shape[1])


def _own_variance(variance: str, shadows: int) -> bool:
    if variance not in ("auto", "global", "sample"):
        raise UserError(f"got variance={variance!r}: expected 'auto', 'global' or 'sample'")
    return variance == "sample" or (variance == "auto" and shadows >= ENOUGH)


def _groups(x: Floats, has: Bools) -> tuple[_Group, _Group]:
    """Moments of the IN and of the OUT entries of each column of ``x (K, N)``, in two passes."""
    parts = []
    for some in shapes.blocks(*x.shape):
        block, with_it = x[:, some], has[:, some].astype(np.float64)
        without_it = 1 - with_it
        size = with_it.sum(axis=0)
        sizes = size, len(x) - size
        means = [_mean(block, *pair) for pair in zip((with_it, without_it), sizes, strict=True)]
        deviations = with_it * means[0]  # both groups' in one array: an entry is in one of them
        deviations += without_it * means[1]
        np.subtract(block, deviations, out=deviations)
        np.square(deviations, out=deviations)
        squares = [np.einsum("kn,kn->n", deviations, weights) for weights in (with_it, without_it)]
        parts.append([_moments(*each) for each in zip(sizes, means, squares, strict=True)])
    inside, outside = (
        _Group(*(np.concatenate(field) for field in zip(*groups, strict=True))) for groups in zip(*parts, strict=True)
    )
    return inside, outside


def _group(x: Floats, weights: Floats) -> _Group:
    """Moments over the entries of each column whose weight is 1 and not 0."""
    size = weights.sum(axis=0)
    mean = _mean(x, weights, size)
    deviations = x - mean
    deviations *= weights
    return _moments(size, mean, np.einsum("kn,kn->n", deviations, deviations))


def _mean(x: Floats, weights: Floats, size: Floats) -> Floats:
    return np.asarray(np.einsum("kn,kn->n", x, weights) / np.maximum(size, 1))


def _moments(size: Floats, mean: Floats, squares: Floats) -> _Group:
    squares[squares <= 1e-20 * size * mean**2] = 0.0  # the mean's rounding, not a spread
    return _Group(size, mean, squares)


def _without(j: int, group: _Group, x: Floats, chosen: Bools) -> _Group:
    """The group with model j taken out where it is in."""
    out = chosen[j]
    size = group.size - out
    left = np.maximum(size, 1)
    deviation = np.where(out, x[j] - group.mean, 0.0)
    mean = np.where(size > 0, group.mean - deviation / left, 0.0)
    squares = np.where(size > 1, group.squares - deviation**2 * (group.size / left), 0.0)
    lost = np.flatnonzero(out & (size > 1) & (squares <= 1e-6 * group.squares))  # cancelled: too few digits left
    if lost.size:
        rest = np.delete(np.arange(len(x)), j)
        exact = _group(x[np.ix_(rest, lost)], chosen[np.ix_(rest, lost)].astype(np.float64))
        mean[lost], squares[lost] = exact.mean, exact.squares
    return _Group(size, mean, squares)


def _score(t: Floats, inside: _Group, outside: _Group, online: bool, own: bool) -> Floats:
    has_in, has_out = inside.size > 0, outside.size > 0
    if t.size and not (has_out.any() and (has_in.any() or not online)):
        missing = "OUT" if not has_out.any() else "IN"
        raise UserError(
            f"no asked sample has an {missing} shadow (a model trained {'with' if missing == 'IN' else 'without'} it): "
            "train shadows on random halves, or take the offline attack (online=False), which needs OUT shadows only"
        )
    both = has_in & has_out
    if t.size and online and not both.any():
        raise UserError(
            "no asked sample has both an IN and an OUT shadow, so that nothing tells what its presence does: train two "
            "shadows or more on random halves, or take the offline attack (online=False)"
        )
    shift = float(np.mean((inside.mean - outside.mean)[both])) if both.any() else 0.0
    mean_in = np.where(has_in, inside.mean, outside.mean + shift)
    mean_out = np.where(has_out, outside.mean, inside.mean - shift)
    pooled_in, pooled_out = _pooled(inside), _pooled(outside)
    sigma_out = _spread(outside, pooled_out or pooled_in or 1.0, own)
    z_out = (t - mean_out) / sigma_out
    if not online:
        return np.asarray(z_out)
    sigma_in = _spread(inside, pooled_in or pooled_out or 1.0, own)
    z_in = (t - mean_in) / sigma_in
    return np.asarray(0.5 * (z_out**2 - z_in**2) + np.log(sigma_out / sigma_in))


def _pooled(group: _Group) -> float:
    """One standard deviation for all samples, each centred on its own mean; 0 if there is no spread to measure."""
    freedom = np.maximum(group.size - 1, 0).sum()
    return float(np.sqrt(group.squares.sum() / freedom)) if freedom > 0 else 0.0


def _spread(group: _Group, pooled: float, own: bool) -> Floats:
    if not own:
        return np.full(len(group.size), pooled)
    sigma = np.sqrt(group.squares / np.maximum(group.size - 1, 1))
    return np.where(sigma > 0, sigma, pooled)

"""One number per sample from a model's answer: the statistics that thresholds cut and that LiRA and RMIA compare.

Each takes ``logits (..., N, C)`` and ``labels (N,)`` and gives ``(..., N)`` float64; higher = member. Logits may be
unnormalised or log-probabilities; ``-inf`` is a probability of zero. Probabilities near 0 and 1 keep their digits: sums
run over the *other* classes, so that 1 - p is never taken by subtraction from a number near 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from relaxloss.errors import UserError

Floats = NDArray[np.float64]


def correctness(logits: ArrayLike, labels: ArrayLike) -> Floats:
    """1 if the true class has the largest logit, else 0; among m classes tied for it, 1/m whatever their order.

    Source: Yeom et al. (CSF 2018), the gap attack.
    """
    z, y = _checked(logits, labels)
    top = z == z.max(axis=-1, keepdims=True)
    return np.asarray(_at(top, y) / top.sum(axis=-1), dtype=np.float64)


def confidence(logits: ArrayLike, labels: ArrayLike) -> Floats:
    """``p_y``, the probability of the true class.

    NB: float64 has no number between 1 - 1e-16 and 1, so that very confident samples tie here and not in `loss`.
    """
    margin = logit_margin(logits, labels)
    return np.asarray(np.exp(-np.logaddexp(0.0, -margin)), dtype=np.float64)


def loss(logits: ArrayLike, labels: ArrayLike) -> Floats:
    """``log p_y``, minus the cross-entropy (Yeom et al. 2018), as ``-log(1 + exp(-margin))``."""
    return np.asarray(0.0 - np.logaddexp(0.0, -logit_margin(logits, labels)), dtype=np.float64)


def entropy(logits: ArrayLike, labels: ArrayLike) -> Floats:
    """``sum_c p_c log p_c``, minus the entropy of the prediction (Shokri et al. 2017); the labels are only checked."""
    z, _ = _checked(logits, labels)
    logs, _ = _log_probabilities(z)
    return np.asarray(_weighted(np.exp(logs), logs).sum(axis=-1))


def modified_entropy(logits: ArrayLike, labels: ArrayLike) -> Floats:
    """``(1 - p_y) log p_y + sum_{c != y} p_c log(1 - p_c)``, minus the modified entropy.

    ``-inf`` when ``p_y = 0``, with 0 log 0 = 0. Source: Song & Mittal (USENIX Security 2021), equation 8.
    """
    z, y = _checked(logits, labels)
    logs, rests = _log_probabilities(z)
    true = _weighted(np.exp(_at(rests, y)), _at(logs, y))
    others = _weighted(np.exp(_others(logs, y)), rests)
    return np.asarray(true + np.sort(others, axis=-1).sum(axis=-1))  # sorted: equal sums must not differ by rounding


def logit_margin(logits: ArrayLike, labels: ArrayLike) -> Floats:
    """``z_y - log sum_{c != y} exp z_c = log(p_y / (1 - p_y))``, from ``-inf`` to ``inf``.

    Source: Carlini et al. (S&P 2022), the statistic of LiRA, in its numerically stable form.
    """
    z, y = _checked(logits, labels)
    return _at(z, y) - _log_sum_exp(_others(z, y))


def hinge(logits: ArrayLike, labels: ArrayLike) -> Floats:
    """``z_y - max_{c != y} z_c`` (Carlini et al. 2022; Bertran et al. 2023)."""
    z, y = _checked(logits, labels)
    return np.asarray(_at(z, y) - _others(z, y).max(axis=-1))


def _checked(logits: ArrayLike, labels: ArrayLike) -> tuple[Floats, NDArray[np.int64]]:
    z, y = np.asarray(logits), np.asarray(labels)
    if z.dtype.kind not in "fiu" or z.ndim < 2 or z.shape[-1] < 2:
        raise UserError(
            f"got logits of {z.dtype} and shape {z.shape}: expected numbers (N, C) or (A, N, C) with C >= 2"
        )
    if y.dtype.kind not in "iu" or y.shape != z.shape[-2:-1]:
        raise UserError(f"got labels of {y.dtype} and shape {y.shape}: expected integers of shape ({z.shape[-2]},)")
    if y.size and (y.min() < 0 or y.max() >= z.shape[-1]):
        raise UserError(f"got labels from {y.min()} to {y.max()}: expected 0 to {z.shape[-1] - 1}, one per logit")
    z = z.astype(np.float64, copy=False)
    if z.size and not (np.isfinite(peak := z.max(axis=-1)).all()):  # NaN passes through max
        rows = int(np.sum(~np.isfinite(peak)))
        raise UserError(f"{rows} rows of logits hold NaN or +inf, or are -inf in every class: give finite logits")
    return z, y.astype(np.int64, copy=False)


def _at(values: NDArray[np.generic], y: NDArray[np.int64]) -> Floats:
    return np.asarray(values[..., np.arange(len(y)), y], dtype=np.float64)


def _others(z: Floats, y: NDArray[np.int64]) -> Floats:
    """The logits with -inf in the true class's place."""
    others = z.copy()
    others[..., np.arange(len(y)), y] = -np.inf
    return others


def _log_sum_exp(z: Floats) -> Floats:
    """Over the last axis; -inf for rows of -inf alone."""
    peak = z.max(axis=-1, keepdims=True)
    peak = np.where(np.isfinite(peak), peak, 0.0)
    with np.errstate(divide="ignore"):
        total = np.log(np.exp(z - peak).sum(axis=-1, keepdims=True)) + peak
    return np.asarray(total[..., 0])


def _log_probabilities(z: Floats) -> tuple[Floats, Floats]:
    """``log p_c`` and ``log(1 - p_c)`` for every class, both to full relative precision."""
    top = z.argmax(axis=-1)[..., None]
    peak = np.take_along_axis(z, top, axis=-1)
    rest = z - peak
    np.put_along_axis(rest, top, -np.inf, axis=-1)
    log_rest = _log_sum_exp(rest)[..., None]  # of all but the largest, relative to the largest
    total = np.log1p(np.exp(log_rest))
    logs = z - peak - total
    rests = np.log1p(-np.minimum(np.exp(logs), 0.5))  # all but the largest have p <= 1/2
    np.put_along_axis(rests, top, log_rest - total, axis=-1)
    return logs, rests


def _weighted(weights: Floats, logs: Floats) -> Floats:
    """``weights * logs`` with 0 log 0 = 0."""
    return np.multiply(weights, logs, where=weights > 0, out=np.zeros_like(logs))

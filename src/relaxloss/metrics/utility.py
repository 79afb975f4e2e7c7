"""Utility of a classifier from its logits: losses, top-k accuracy, calibration. All in float64.

Logits are ``(N, C)`` and log-probabilities will do; ``-inf`` is a class ruled out. Labels are ``(N,)`` in ``0 .. C-1``.
Every function raises `UserError` for NaN, ``+inf``, a row of ``-inf`` only, labels out of range or other lengths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from relaxloss.errors import UserError
from relaxloss.metrics.curve import Floats
from relaxloss.metrics.intervals import Interval, wilson


@dataclass(frozen=True)
class Summary:
    """Mean and variance (divisor n - 1) of n losses, of which `infinite` are ``inf``.

    One infinite loss makes the mean infinite and the variance undefined (NaN).
    """

    mean: float
    variance: float
    n: int
    infinite: int


def losses(logits: npt.ArrayLike, labels: npt.ArrayLike) -> Floats:
    """Cross-entropies ``log(1 + Σ_{c≠y} exp(z_c − z_y))``, ``(N,)`` float64, ``inf`` where the label is ruled out.

    Written with the label left out of the sum, a loss far below 1e-16 keeps its digits and is not rounded to 0.
    """
    z, y = _checked(logits, labels)
    rows = np.arange(len(y))
    others = z.copy()
    others[rows, y] = -np.inf
    top = others.max(axis=1)
    shift = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):  # log 0 = -inf is meant: every other class is ruled out
        rest = shift + np.log(np.exp(others - shift[:, None]).sum(axis=1))
    loss: Floats = np.logaddexp(0.0, rest - z[rows, y])
    return loss


def summary(losses: npt.ArrayLike) -> Summary:
    """Mean and variance of losses ``(N,)``: the variance is what RelaxLoss raises on members (paper, section 4)."""
    values = np.asarray(losses, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0 or np.isnan(values).any():
        raise UserError(f"losses have shape {values.shape}; expected a non-empty (N,) without NaN")
    infinite = int(np.isinf(values).sum())
    n = len(values)
    variance = float(values.var(ddof=1)) if n > 1 and not infinite else math.nan
    return Summary(mean=float(values.mean()), variance=variance, n=n, infinite=infinite)


def top_k(logits: npt.ArrayLike, labels: npt.ArrayLike, k: int = 1) -> float:
    """Share of samples whose label is among the k largest logits; of equal logits the lower class goes first.

    So ``k=1`` is the accuracy of ``argmax``, and equal logits earn no credit that a prediction would not.
    """
    return float(_hits(logits, labels, k).mean())


def accuracy_interval(logits: npt.ArrayLike, labels: npt.ArrayLike, k: int = 1, level: float = 0.95) -> Interval:
    """Wilson's interval of `top_k`."""
    hits = _hits(logits, labels, k)
    return wilson(int(hits.sum()), len(hits), level)


def calibration_error(logits: npt.ArrayLike, labels: npt.ArrayLike, bins: int = 15) -> float:
    """Expected calibration error ``Σ_b (n_b/N)·|accuracy_b − confidence_b|`` of the largest probability.

    The bins ``((b-1)/bins, b/bins]`` are of equal width (Guo et al., ICML 2017, section 2).
    """
    if bins < 1:
        raise UserError(f"bins={bins}; expected at least 1")
    z, y = _checked(logits, labels)
    confidence = np.exp(z.max(axis=1) - special.logsumexp(z, axis=1))
    gap = (z.argmax(axis=1) == y) - confidence
    bin_of = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    return float(np.abs(np.bincount(bin_of, weights=gap, minlength=bins)).sum() / len(y))


def _hits(logits: npt.ArrayLike, labels: npt.ArrayLike, k: int) -> npt.NDArray[np.bool_]:
    z, y = _checked(logits, labels)
    if not 1 <= k <= z.shape[1]:
        raise UserError(f"k={k}; expected 1 to {z.shape[1]}, the number of classes")
    own = z[np.arange(len(y)), y][:, None]
    earlier = np.arange(z.shape[1]) < y[:, None]
    rank: npt.NDArray[np.int64] = ((z > own) | ((z == own) & earlier)).sum(axis=1)
    return rank < k


def _checked(logits: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Floats, npt.NDArray[np.int64]]:
    try:
        z, y = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    except (TypeError, ValueError) as error:
        raise UserError(f"logits or labels are no arrays of numbers: {error}") from None
    if z.ndim != 2 or y.shape != z.shape[:1] or z.size == 0:
        raise UserError(f"logits have shape {z.shape}, labels {y.shape}; expected (N, C) and (N,) with N, C >= 1")
    if y.dtype.kind not in "iu":
        raise UserError(f"labels are {y.dtype}; expected integers in 0 to {z.shape[1] - 1}")
    if y.min() < 0 or y.max() >= z.shape[1]:
        raise UserError(f"labels run from {y.min()} to {y.max()}; expected 0 to {z.shape[1] - 1}, one per logit column")
    if not (np.isfinite(z.max(axis=1)).all() and not np.isnan(z).any()):
        raise UserError("logits hold NaN, +inf or rows of -inf only; expected numbers, with -inf for a class ruled out")
    return z, y.astype(np.int64)

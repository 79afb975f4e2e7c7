"""Checks that the shadow attacks share."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from relaxloss.errors import UserError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def floats(name: str, values: ArrayLike, *ndims: int) -> Floats:
    """Numbers without NaN, as float64, with one of the allowed numbers of dimensions."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiu" or array.ndim not in ndims:
        raise UserError(
            f"got {name} of {array.dtype} and shape {array.shape}: expected numbers in {_words(ndims)} dimensions"
        )
    array = array.astype(np.float64, copy=False)
    if array.size and np.isnan(array.min()):  # min carries NaN on, without a copy of the array
        raise UserError(f"{name} holds {int(np.isnan(array).sum())} NaN: drop those samples or models, or mend them")
    return array


def membership(member: ArrayLike, shape: tuple[int, int]) -> Bools:
    """The (models, samples) matrix of who is in which model."""
    array = np.asarray(member)
    if array.dtype != np.bool_ or array.shape != shape:
        raise UserError(f"got member of {array.dtype} and shape {array.shape}: expected booleans {shape}")
    return array


def target_and_shadows(target: ArrayLike, shadows: ArrayLike, member: ArrayLike) -> tuple[Floats, Floats, Bools]:
    """``target (N,)``, ``shadows (K, N)`` and ``member (K, N)`` with K >= 1, checked against each other."""
    t, s = floats("target", target, 1), floats("shadows", shadows, 2)
    if s.shape[1:] != t.shape or len(s) == 0:
        raise UserError(f"got target {t.shape} and shadows {s.shape}: expected (N,) and (K, N) with K of at least 1")
    return t, s, membership(member, (len(s), len(t)))


def _words(ndims: tuple[int, ...]) -> str:
    return " or ".join(str(n) for n in ndims)


def bounded(*arrays: Floats) -> tuple[Floats, ...]:
    """The same arrays with infinities one unit beyond the most extreme finite number of them all: order is kept."""
    with np.errstate(invalid="ignore", over="ignore"):
        if all(np.isfinite(array.sum()) for array in arrays):  # one pass for the usual case
            return arrays
    finite = [array[np.isfinite(array)] for array in arrays]
    low = min((float(f.min()) for f in finite if f.size), default=0.0) - 1.0
    high = max((float(f.max()) for f in finite if f.size), default=0.0) + 1.0
    return tuple(np.clip(array, low, high) for array in arrays)


def blocks(models: int, samples: int) -> list[slice]:
    """Columns of a (models, samples) matrix in pieces that fit a cache: several passes then cost as much as one."""
    width = max(1, 2**16 // models)
    return [slice(start, start + width) for start in range(0, max(1, samples), width)]

"""What every loss starts from: checked input, and the cross-entropy."""

from __future__ import annotations

import math
from collections.abc import Iterable
from types import NoneType

import torch
from torch.nn import functional as F

from relaxloss.errors import UserError, unknown

# The label that torch's losses skip. The default, -100, would be skipped in one branch of a loss and fail in another.
SKIP_NONE = -(2**31)
# What a setting in numbers may not be. Not the other way round: torch.compile brings numbers of types of its own.
NO_NUMBERS = (str, NoneType, list, tuple, dict, set)


def checked(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The logits in float32 or float64, after a look at shapes and types that never waits for the device."""
    if not isinstance(logits, torch.Tensor) or not isinstance(targets, torch.Tensor):
        got = f"{type(logits).__name__} as logits and {type(targets).__name__} as targets"
        raise UserError(f"got {got}; expected tensors: torch.as_tensor makes them of arrays and lists")
    shape, dtype = logits.shape, logits.dtype
    if len(shape) != 2 or shape[0] < 1 or shape[1] < 2 or not dtype.is_floating_point:
        raise UserError(f"got logits {tuple(shape)} {dtype}; expected floating (B, C) with B >= 1 and C >= 2")
    if targets.shape != shape[:1] or targets.dtype != torch.int64:
        hint = ": targets.long()" if targets.shape == shape[:1] and not targets.is_floating_point() else ""
        raise UserError(
            f"got targets {tuple(targets.shape)} {targets.dtype}; expected class indices ({shape[0]},) int64{hint}"
        )
    return logits if dtype is torch.float32 or dtype is torch.float64 else logits.float()


def within(name: str, value: float, low: float, high: float = float("inf")) -> float:
    """The setting, if it is a finite number in [low, high]."""
    if isinstance(value, NO_NUMBERS) or not low <= value <= high or value == math.inf:
        raise UserError(f"got {name}={value!r}; expected a number from {low} to {high}")
    return value


def above_zero(name: str, value: float) -> float:
    """The setting, if it is a finite number above 0."""
    if isinstance(value, NO_NUMBERS) or not 0 < value < math.inf:
        raise UserError(f"got {name}={value!r}; expected a number above 0")
    return value


def half_a_guess(classes: int) -> float:
    """A level to hold instead of one that is too high: half of log C, in two digits."""
    return float(f"{math.log(classes) / 2:.2g}")


def below_guess(name: str, value: float, classes: int, who: str = "") -> None:
    """A clear error if a mean loss is to be held above a guess's, log C: gradient ascent would end in chaos."""
    if value > math.log(classes):
        raise UserError(
            f"{who}got {name}={value:g} nats; with {classes} classes a guess has a loss of log {classes} = "
            f"{math.log(classes):.3f}: expected less, such as {name}={half_a_guess(classes):g}"
        )


def one_of(name: str, value: str, known: Iterable[str]) -> str:
    """The setting, if it is one of the known ones."""
    if value not in known:
        raise unknown(name, value, known)
    return value


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy ``L = -1/B Σ_i log p_i[y_i]``: torch's, with checked input."""
    return F.cross_entropy(checked(logits, targets), targets, ignore_index=SKIP_NONE)

"""Label smoothing (Szegedy et al., CVPR 2016, section 7): train on soft labels.

Threat model: black-box and white-box; training only, no reference data, the cost of plain training.

Useful range: `smoothing` from 0 (plain training) to below 1 (where every label is uniform); the RelaxLoss paper's
default is 0.1. Large values flatten the confidences, and may make members easier to tell (their soft labels are met).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field

from relaxloss import functional
from relaxloss.defenses.base import Defense, defenses
from relaxloss.training import State


@defenses.register("label_smoothing")
@dataclass(frozen=True)
class LabelSmoothing(Defense):
    """Descend on the cross-entropy with labels ``(1 - ε) onehot + ε / C``.

    Attributes:
        smoothing: ε, in [0, 1).
    """

    about: ClassVar[str] = "soft labels (CVPR 2016)"
    neutral: ClassVar[Mapping[str, Any] | None] = {"smoothing": 0.0}
    active: ClassVar[Mapping[str, Any]] = {"smoothing": 0.3}
    sweep: ClassVar[tuple[Mapping[str, Any], ...]] = tuple(
        {"smoothing": smoothing} for smoothing in (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
    )
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, state: State) -> torch.Tensor:
        """`relaxloss.functional.label_smoothing`."""
        return functional.label_smoothing(logits, targets, smoothing=self.smoothing)

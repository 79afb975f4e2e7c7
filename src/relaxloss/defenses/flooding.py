"""Flooding (Ishida et al., ICML 2020), and iFlood (Xie et al., ICLR 2022): keep the loss from falling below a level.

It is RelaxLoss without posterior flattening, ascending in every epoch, and stands here as that ablation: the default
level is RelaxLoss's α.

Threat model: black-box and white-box; training only, no reference data, the cost of plain training.

Useful range: `level` from 0 (plain training) to log C.

NB(paper): Ishida et al. choose the level for accuracy, from 0 to 0.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import NonNegativeFloat

from relaxloss import functional
from relaxloss.defenses.base import Defense, defenses
from relaxloss.training import State


@defenses.register("flooding")
@dataclass(frozen=True)
class Flooding(Defense):
    """Descend on ``|L - b| + b``.

    Attributes:
        level: b, in nats.
        per_sample: flood every sample's own loss (iFlood) and not the batch's mean.
    """

    about: ClassVar[str] = "keep the training loss above a level (ICML 2020): RelaxLoss's ascent alone"
    neutral: ClassVar[Mapping[str, Any] | None] = {"level": 0.0}
    active: ClassVar[Mapping[str, Any]] = {"level": 1.0}
    sweep: ClassVar[tuple[Mapping[str, Any], ...]] = tuple(
        {"level": level} for level in (0.1, 0.2, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 3.0)
    )
    in_nats: ClassVar[tuple[str, ...]] = ("level",)
    level: NonNegativeFloat = 1.0
    per_sample: bool = False

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, state: State) -> torch.Tensor:
        """`relaxloss.functional.flooding`."""
        return functional.flooding(logits, targets, level=self.level, per_sample=self.per_sample)

"""Confidence penalty (Pereyra et al., 2017, section 3): reward the entropy of the predictions.

Threat model: black-box and white-box; training only, no reference data, the cost of plain training.

Useful range: `beta` from 0 (plain training) to about 10; the RelaxLoss paper's default is 0.1, which does little where
the network can fit every label.
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


@defenses.register("confidence_penalty")
@dataclass(frozen=True)
class ConfidencePenalty(Defense):
    """Descend on the cross-entropy minus β times the mean entropy.

    Attributes:
        beta: β, at least 0.
    """

    about: ClassVar[str] = "reward the entropy of the predictions (2017)"
    neutral: ClassVar[Mapping[str, Any] | None] = {"beta": 0.0}
    active: ClassVar[Mapping[str, Any]] = {"beta": 1.0}
    sweep: ClassVar[tuple[Mapping[str, Any], ...]] = tuple(
        {"beta": beta} for beta in (0.1, 0.3, 0.5, 1.0, 2.0, 4.0, 8.0)
    )
    beta: NonNegativeFloat = 0.1

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, state: State) -> torch.Tensor:
        """`relaxloss.functional.confidence_penalty`."""
        return functional.confidence_penalty(logits, targets, beta=self.beta)

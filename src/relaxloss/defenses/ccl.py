"""CCL, the convex-concave loss (Liu et al., ICML 2024): a concave term spreads the members' losses.

The cross-entropy is convex in p_y, so its gradient vanishes as a sample is fitted and the members' losses concentrate;
the concave term's does not.

Threat model: black-box and white-box; training only, no reference data, the cost of plain training.

Useful range: `a` from 1 (the cross-entropy, scaled by `beta`) down to 0.1; `beta` 0.05 to 1. The paper's setting is
a = 0.5, β = 0.05 at learning rate 0.1. β scales the whole loss and so the learning rate: where an epoch has few steps,
0.05 leaves the network unfitted (Location30, 960 steps: 11 % training accuracy). The sweep lowers β first, then a.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, PositiveFloat

from relaxloss import functional
from relaxloss.defenses.base import Defense, defenses
from relaxloss.functional.baselines import Form
from relaxloss.training import State


@defenses.register("ccl")
@dataclass(frozen=True)
class CCL(Defense):
    """Descend on ``β [a CE - (1 - a) g(p_y)]``.

    Attributes:
        a: the share of the convex part, in [0, 1].
        beta: the scale of the whole.
        form: g: ``exp``: ``exp(p)``, or ``quadratic``: ``p + p²/2``.
    """

    about: ClassVar[str] = "a concave term beside the cross-entropy (ICML 2024)"
    neutral: ClassVar[Mapping[str, Any] | None] = {"a": 1.0, "beta": 1.0}
    active: ClassVar[Mapping[str, Any]] = {"a": 0.5}
    sweep: ClassVar[tuple[Mapping[str, Any], ...]] = (
        *({"a": 0.5, "beta": beta} for beta in (1.0, 0.5, 0.3, 0.2, 0.1, 0.05)),
        *({"a": a, "beta": 0.05} for a in (0.3, 0.1)),
    )
    a: Annotated[float, Field(ge=0, le=1)] = 0.5
    beta: PositiveFloat = 0.05
    form: Form = "exp"

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, state: State) -> torch.Tensor:
        """`relaxloss.functional.ccl`."""
        return functional.ccl(logits, targets, a=self.a, beta=self.beta, form=self.form)

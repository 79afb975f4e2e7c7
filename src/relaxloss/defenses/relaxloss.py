"""RelaxLoss (Chen, Yu, Fritz, ICLR 2022): hold the mean training loss at a target, and flatten the wrong classes.

Threat model: black-box and white-box attackers who query or hold the model; the defense acts in training only, needs
no reference data, and costs what plain training costs.

Useful range: `alpha` from 0 (plain training) to log C (the loss of a guess); the paper uses 0.4 to 1.0 for CIFAR-10,
0.5 to 3.0 for CIFAR-100, 0.8 for Purchase100, 2.5 for Texas100. `upper` 1 for images, 0.1 to 0.3 for tabular data.

NB(paper): epochs count from 1 and the even ones ascend, that is 1, 3, 5, ... of our 0-based epochs.
NB(code): the released code counts from 0, has no stop-gradient (the defense `relaxloss_unstopped`), and
``flatten="official"`` is its image branch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, NonNegativeFloat

from relaxloss.defenses.base import Defense, defenses
from relaxloss.functional import relax_loss
from relaxloss.training import State


@defenses.register("relaxloss")
@dataclass(frozen=True)
class RelaxLoss(Defense):
    """Descend while the batch's mean loss is at least α; below it, ascend in one epoch and flatten in the next.

    Attributes:
        alpha: α, the target of the mean cross-entropy in nats.
        flatten: ``all`` (the paper, tabular data), ``misclassified`` (the paper, images) or ``official``.
        upper: the bound on the true class's probability in the soft labels.
    """

    about: ClassVar[str] = "hold the mean training loss at alpha, flatten the wrong classes (ICLR 2022)"
    neutral: ClassVar[Mapping[str, Any] | None] = {"alpha": 0.0}
    active: ClassVar[Mapping[str, Any]] = {"alpha": 1.0}
    sweep: ClassVar[tuple[Mapping[str, Any], ...]] = tuple(
        {"alpha": alpha} for alpha in (0.1, 0.2, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 3.0)
    )
    in_nats: ClassVar[tuple[str, ...]] = ("alpha",)
    alpha: NonNegativeFloat = 1.0
    flatten: Literal["all", "misclassified", "official"] = "all"
    upper: Annotated[float, Field(gt=0, le=1)] = 1.0
    stop_gradient: ClassVar[bool] = True  # a class's, not a field: a field would change the key of every stored result

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, state: State) -> torch.Tensor:
        """`relaxloss.functional.relax_loss` at this epoch."""
        ascent = state.epoch % 2 == 1
        return relax_loss(
            logits,
            targets,
            alpha=self.alpha,
            ascent=ascent,
            flatten=self.flatten,
            upper=self.upper,
            stop_gradient=self.stop_gradient,
        )

    def idle(self, history: list[dict[str, float]]) -> str:
        """Above α it is plain training: said if no epoch's mean loss came below."""
        lowest = min((row["train_loss"] for row in history), default=0.0)
        if self.alpha == 0 or lowest < 1.1 * self.alpha:
            return ""
        return f"the training loss came down to {lowest:.3g} only, never to alpha={self.alpha:g}"


@defenses.register("relaxloss_unstopped")
@dataclass(frozen=True)
class UnstoppedRelaxLoss(RelaxLoss):
    """RelaxLoss whose soft labels carry their gradient, as in the released code: the ablation of the stop-gradient."""

    about: ClassVar[str] = "RelaxLoss without the stop-gradient at the soft labels, as released: an ablation"
    ablation: ClassVar[bool] = True
    stop_gradient: ClassVar[bool] = False

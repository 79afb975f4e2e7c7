"""CRL, centre-based relaxed learning (Fang & Kim, UAI 2024): RelaxLoss on bounded logits, and a relaxed centre loss.

Threat model: black-box and white-box; training only, no reference data, the cost of plain training.

Bounding the logits, ``z / (1 + t ‖z‖)``, keeps their norm below 1/t and so the loss above a floor (for C classes about
``log(1 + (C - 1) exp(-1/t))``); the centre loss pulls the features of a class together, members and others alike.

Useful range: `alpha` as RelaxLoss's, above the floor; `t` 0 to 1; `weight` 0 to 1.

NB(paper): the released settings are not to be had; the defaults are ours.
NB(code): the released code has no stop-gradient at the confidences; here there is one, as in RelaxLoss. It has a bound
of its own on the centre loss's confidences; here `upper` bounds both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import nn

from relaxloss import seeds
from relaxloss.defenses._layers import check_last, last_linear
from relaxloss.defenses.base import Defense, defenses
from relaxloss.functional import crl_logits, crl_loss, relaxed_center_loss
from relaxloss.training import Batch, State


@defenses.register("crl")
@dataclass(frozen=True)
class CRL(Defense):
    """Descend on RelaxLoss of the bounded logits plus `weight` times the relaxed centre loss of the features.

    The features are the input of the last linear layer; they and the centres are bounded like the logits. The centres
    start from standard normal numbers and are learned by SGD of their own, at a constant rate.

    Attributes:
        alpha: the target of the mean cross-entropy of the bounded logits, in nats.
        t: the bound on the logits is 1/t.
        weight: λ, of the centre loss; 0: no centres.
        upper: the bound on the confidences.
        center_alpha: the target of the mean centre loss.
        center_t: the bound on features and centres is 1/center_t.
        center_lr: the centres' learning rate.

    Raises:
        UserError: the network has no linear layer.
    """

    about: ClassVar[str] = "RelaxLoss on bounded logits, with a relaxed centre loss (UAI 2024)"
    neutral: ClassVar[Mapping[str, Any] | None] = {"alpha": 0.0, "t": 0.0, "weight": 0.0}
    active: ClassVar[Mapping[str, Any]] = {"alpha": 1.0}
    sweep: ClassVar[tuple[Mapping[str, Any], ...]] = tuple(
        {"alpha": alpha} for alpha in (0.1, 0.2, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 3.0)
    )
    in_nats: ClassVar[tuple[str, ...]] = ("alpha",)
    alpha: NonNegativeFloat = 1.0
    t: NonNegativeFloat = 0.1
    weight: NonNegativeFloat = 0.1
    upper: Annotated[float, Field(gt=0, le=1)] = 1.0
    center_alpha: NonNegativeFloat = 0.1
    center_t: NonNegativeFloat = 1.0
    center_lr: PositiveFloat = 0.1

    def prepare(self, state: State) -> None:
        """Draw the centres."""
        if not self.weight:
            return
        layer = check_last(state.network, state.task.members, "crl")
        with seeds.isolated(state.task.seed, "crl"):
            centers = nn.Embedding(layer.out_features, layer.in_features)
        recipe = state.task.recipe
        state.extras["centers"] = centers
        state.extras["centers_optimiser"] = torch.optim.SGD(
            centers.parameters(), lr=self.center_lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, state: State) -> torch.Tensor:
        """`relaxloss.functional.crl_loss` at this epoch."""
        ascent = state.epoch % 2 == 1
        return crl_loss(logits, targets, alpha=self.alpha, t=self.t, ascent=ascent, upper=self.upper)

    def step(self, state: State, batch: Batch) -> torch.Tensor:
        """One step on both losses."""
        if not self.weight:
            return super().step(state, batch)
        features: list[torch.Tensor] = []
        _, layer = last_linear(state.network.net, "crl")
        with layer.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].float())):
            logits = state.forward(batch.x)
        centers: nn.Embedding = state.extras["centers"]
        center_loss = relaxed_center_loss(
            crl_logits(features[0], self.center_t),
            crl_logits(centers(batch.y), self.center_t),
            logits.detach().softmax(1).gather(1, batch.y[:, None])[:, 0],
            alpha=self.center_alpha,
            ascent=state.epoch % 2 == 1,
            upper=self.upper,
        )
        state.extras["centers_optimiser"].zero_grad(set_to_none=True)
        state.descend(self.loss(logits, batch.y, state) + self.weight * center_loss)
        state.extras["centers_optimiser"].step()
        return logits.detach()

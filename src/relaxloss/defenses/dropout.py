"""Dropout (Srivastava et al., JMLR 2014) before the last linear layer, as in the baseline of the RelaxLoss paper.

Threat model: black-box and white-box; training only, no reference data, the cost of plain training.

Useful range: `rate` from 0 (plain training) to 0.9; the RelaxLoss paper's default is 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import nn

from relaxloss.defenses._layers import check_last, last_linear, replaced
from relaxloss.defenses.base import Defense, defenses
from relaxloss.training import State


@defenses.register("dropout")
@dataclass(frozen=True)
class Dropout(Defense):
    """Zero each input of the last linear layer with probability `rate` in training, scaling the others by 1/(1-rate).

    Attributes:
        rate: the probability, in [0, 1).

    Raises:
        UserError: the network has no linear layer, or its last one is not the one that gives the logits.
    """

    about: ClassVar[str] = "dropout before the last layer (JMLR 2014)"
    neutral: ClassVar[Mapping[str, Any] | None] = {"rate": 0.0}
    active: ClassVar[Mapping[str, Any]] = {"rate": 0.5}
    sweep: ClassVar[tuple[Mapping[str, Any], ...]] = tuple({"rate": rate} for rate in (0.1, 0.25, 0.5, 0.7, 0.8, 0.9))
    rate: Annotated[float, Field(ge=0, lt=1)] = 0.5

    def build(self, net: nn.Module) -> nn.Module:
        """The net with dropout in front of its last linear layer; at rate 0 the net as it is."""
        if self.rate == 0:
            return net
        name, layer = last_linear(net, "dropout")
        return replaced(net, name, nn.Sequential(nn.Dropout(self.rate), layer))

    def prepare(self, state: State) -> None:
        """See that it is in front of the logits."""
        if self.rate:
            check_last(state.network, state.task.members, "dropout")

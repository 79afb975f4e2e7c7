"""The paper's network for tabular data: in → 1024 → 512 → 256 → 128 → C, tanh (RelaxLoss, appendix)."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import PositiveInt
from torch import nn

from relaxloss.models.base import Model, models


@models.register("mlp")
@dataclass(frozen=True)
class MLP(Model):
    """A fully connected network over the flattened input.

    Attributes:
        hidden: the widths of the hidden layers; on the command line ``hidden=1024/512``.
        activation: ``tanh`` (the paper's) or ``relu``.
    """

    about: ClassVar[str] = "fully connected, the paper's tabular network"
    hidden: tuple[PositiveInt, ...] = (1024, 512, 256, 128)
    activation: Literal["tanh", "relu"] = "tanh"

    def build(self, shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """``(B, *shape)`` → ``(B, num_classes)``."""
        widths = [math.prod(shape), *self.hidden]
        layers: list[nn.Module] = [nn.Flatten()] if len(shape) > 1 else []
        for wide, narrow in itertools.pairwise(widths):
            layers += [nn.Linear(wide, narrow), nn.Tanh() if self.activation == "tanh" else nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(widths[-1], num_classes))

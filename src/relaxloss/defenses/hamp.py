"""HAMP (Chen, Pattabiraman, NDSS 2024): train for modest confidence, and release scores that keep only the order.

Training: soft labels of chosen entropy, and a bonus for entropy. Release: the sorted scores of an answer are replaced
by the sorted scores of a random input, so that only the order of the classes tells anything. Either part alone can be
had with `train` and `reorder`; the released part alone stands behind any other defense:
``relaxloss:alpha=1+hamp:train=false``.

Threat model: black-box attackers on scores and labels; the label never changes, so label-only attackers see the
training part only, and so do white-box ones. No reference data. Cost: nothing in training, two forward passes per
answer instead of one.

Useful range: `gamma` 0 (hard labels) to below 1 (uniform ones), `alpha` from 0. The paper's settings, as (γ, α, our
α = α·C, see below): Purchase100 0.8, 0.01, 1.0; Texas100 0.6, 0.01, 1.0; Location30 0.5, 0.001, 0.03; CIFAR-10 0.95,
0.001, 0.01; CIFAR-100 0.5, 0.005, 0.5. The default is Location30's.

NB(code): the authors' KL divides by B·C and ours by B, so our α is theirs times C (and their learning rate, in our
terms, is divided by C).
NB(paper): random inputs are of the data's kind: uniform pixels; fair bits; for tables normal numbers with the members'
mean and deviation, and categories drawn evenly. They are drawn from a keyed hash of the query, so that asking again
gives the same answer; the paper draws afresh.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat
from torch import nn

from relaxloss.data import Encoder
from relaxloss.defenses._queries import beneath, digests, keep_label, secret_key
from relaxloss.defenses.base import NONE, Defense, defenses
from relaxloss.functional import hamp_loss
from relaxloss.training import State, Task


def reordered(scores: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """The values of `others` ``(B, C)`` in the order of `scores` ``(B, C)``: the largest where the largest was.

    Of equal scores the first class gets the larger value; the class that argmax names stays the largest.

    Source: section IV.
    """
    order = scores.argsort(dim=1, descending=True, stable=True)
    values = others.sort(1, descending=True).values
    return keep_label(torch.empty_like(values).scatter_(1, order, values), order[:, 0])


class RandomOrder(nn.Module):
    """The release: each answer has the scores of a random input, drawn from the query's content, in its own order."""

    key: torch.Tensor

    def __init__(self, network: nn.Module, key: torch.Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("key", key)

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, ...)`` raw → ``(B, C)`` scores."""
        return reordered(self.network(x), self.network(self.random_inputs(x)))

    def random_inputs(self, x: torch.Tensor) -> torch.Tensor:
        """A random row of the same kind for each row of `x` ``(B, ...)``; the same for the same row."""
        encoder = beneath(self.network).encoder
        assert isinstance(encoder, Encoder)
        draws = [np.random.Generator(np.random.Philox(key=int.from_bytes(h, "little"))) for h in digests(x, self.key)]
        if not draws:
            return x
        if encoder.offset.ndim == 0:  # images and bits
            values = np.stack([draw.integers(256 if x.ndim == 4 else 2, size=x[0].numel()) for draw in draws])
            return torch.from_numpy(values.astype(np.uint8)).to(x.device).reshape(x.shape)
        normal = torch.from_numpy(np.stack([draw.standard_normal(x.shape[1]) for draw in draws])).to(x.device)
        rows = encoder.offset + encoder.scale.nan_to_num(posinf=0) * normal  # infinite of a constant column
        if encoder.sizes:
            even = torch.from_numpy(np.stack([draw.random(x.shape[1]) for draw in draws])).to(x.device)
            sizes = torch.tensor(encoder.sizes, device=x.device)
            rows = torch.where(sizes > 0, (even * sizes).floor(), rows)
        return rows.float()


@defenses.register("hamp")
@dataclass(frozen=True)
class HAMP(Defense):
    """Soft labels of entropy γ log C with an entropy bonus α H in training; only the order of the scores is released.

    Attributes:
        gamma: γ, the soft labels' entropy as a share of the largest possible.
        alpha: α, the weight of the predictions' mean entropy in nats.
        train: whether the training part acts.
        reorder: whether the release part acts.
    """

    about: ClassVar[str] = "high-entropy labels, and scores that keep only the order (NDSS 2024)"
    neutral: ClassVar[Mapping[str, Any] | None] = {"train": False, "reorder": False}
    sweep: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"train": False},
        *({"gamma": gamma} for gamma in (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)),
    )
    gamma: Annotated[float, Field(ge=0, lt=1)] = 0.5
    alpha: NonNegativeFloat = 0.03
    train: bool = True
    reorder: bool = True

    @property
    def without_effect(self) -> tuple[str, ...]:
        """The training's fields, where it does not train."""
        return () if self.train else ("gamma", "alpha")

    @property
    def trainer(self) -> Defense:
        """Plain training without the training part; with it, one training for the release part on and off."""
        return replace(self, reorder=False) if self.train else NONE

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, state: State) -> torch.Tensor:
        """`relaxloss.functional.hamp_loss`, or the plain loss."""
        if not self.train:
            return super().loss(logits, targets, state)
        return hamp_loss(logits, targets, gamma=self.gamma, alpha=self.alpha)

    def release(self, network: nn.Module, task: Task | None) -> nn.Module:
        """The network behind a `RandomOrder`, or itself."""
        return RandomOrder(network, secret_key(task, self.name)) if self.reorder else network

"""Adversarial regularisation (Nasr, Shokri, Houmansadr, CCS 2018): a min-max game against a membership attacker.

Threat model: black-box attackers like the one in the game (a network on the output and the label); attacks that it does
not play, such as a threshold on the loss, are not anticipated. Training only; needs a reference set, which must not be
the evaluation's. Cost: each target batch is paid for by 25 attacker batches on rows, so training takes several times as
long as plain training; on images by one.

Useful range: `weight` 0 (plain training) to about 10; the RelaxLoss paper's default is 1, the original's 1 to 3.

NB(paper): the original adds λ times the mean log-gain ``log h`` to the target's loss and its attacker maximises the
log-gain too; ``gain="log"`` is that.
NB(code): the released code, and so the default here, has the square error and ``λ (mean h - 1/2)``. The attacker of the
RelaxLoss authors' image code ignores the label and does not train its hidden layers; ours does neither.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import nn
from torch.nn import functional as F

from relaxloss import seeds, training
from relaxloss.defenses.base import Defense, defenses
from relaxloss.errors import UserError
from relaxloss.training import Samples, State

ROUND = {"attacker": 50, "target": 2}  # batches in a round of the released tabular code
SIZES = {  # widths of the layers on the logits, on the label, and on both
    "large": ((1024, 512, 64), (128, 64), (512, 256, 128, 64, 1)),
    "small": ((512, 64), (64,), (64, 1)),
}


class Attacker(nn.Module):
    """h: logits ``(B, C)`` and labels ``(B,)`` → the logit ``(B,)`` of being a member. ReLU, weights N(0, 0.01²)."""

    def __init__(self, classes: int, size: Literal["large", "small"] = "large") -> None:
        super().__init__()
        on_logits, on_label, on_both = SIZES[size]
        self.classes = classes
        self.on_logits = _layers((classes, *on_logits))
        self.on_label = _layers((classes, *on_label))
        self.on_both = _layers((on_logits[-1] + on_label[-1], *on_both))[:-1]
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, 0, 0.01)
                nn.init.zeros_(layer.bias)

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """``(B, C)``, ``(B,)`` → ``(B,)``; the probability is its sigmoid."""
        label = self.on_label(F.one_hot(labels, self.classes).to(logits.dtype))
        both: torch.Tensor = self.on_both(torch.cat([self.on_logits(logits), label], 1))
        return both[:, 0]


def _layers(widths: tuple[int, ...]) -> nn.Sequential:
    return nn.Sequential(*(layer for pair in itertools.pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())))


@defenses.register("advreg")
@dataclass(frozen=True)
class AdvReg(Defense):
    """Alternate between an attacker that learns to tell members from reference rows, and a target that also fools it.

    The attacker descends on ``mean (h - member)²`` over equal batches of members and reference rows, with the target in
    eval mode; the target descends on ``CE + λ (mean h - 1/2)``, with the attacker in eval mode.

    Attributes:
        weight: λ.
        schedule: ``tabular``: rounds of 50 attacker and 2 target batches; ``images``: one pass each; ``auto``: by the
            data.
        warmup: epochs of plain training at first.
        attacker: ``large`` (the original's for Purchase100 and images), ``small`` (Texas100), or ``auto``: small for
            tables of fewer than 20,000 members, between the folds of those two.
        attacker_lr: of its Adam.
        gain: ``square`` (the released code) or ``log`` (the original paper).

    Raises:
        UserError: there is no reference set.
    """

    about: ClassVar[str] = "a min-max game against a membership attacker (CCS 2018)"
    neutral: ClassVar[Mapping[str, Any] | None] = {"weight": 0.0}
    active: ClassVar[Mapping[str, Any]] = {"weight": 3.0, "warmup": 1}
    sweep: ClassVar[tuple[Mapping[str, Any], ...]] = tuple({"weight": w} for w in (0.3, 1.0, 2.0, 3.0, 6.0, 10.0))
    weight: NonNegativeFloat = 1.0
    schedule: Literal["auto", "tabular", "images"] = "auto"
    warmup: NonNegativeInt = 3
    attacker: Literal["auto", "large", "small"] = "auto"
    attacker_lr: PositiveFloat = 1e-3
    gain: Literal["square", "log"] = "square"

    @property
    def effort(self) -> float:
        """Measured on the paper's MLP: 7 with 1,000 members, 20 with 5,000; on images the attacker's share is small."""
        return 15.0 if self.weight and self.schedule != "images" else 1.0

    def needs_reference(self) -> bool:
        """Unless the weight is 0."""
        return self.weight > 0

    def prepare(self, state: State) -> None:
        """Make the attacker; its initial weights have a stream of their own."""
        if not self.weight:
            return
        if not len(state.task.reference):
            raise UserError(f"{self} got no reference set; give it one, of samples that are neither members nor asked")
        small = state.task.members.x.ndim != 4 and len(state.task.members) < 20_000
        size = ("small" if small else "large") if self.attacker == "auto" else self.attacker
        with seeds.isolated(state.task.seed, "advreg"):
            attacker = Attacker(state.task.num_classes, size)
        state.extras["attacker"] = attacker
        state.extras["attacker_optimiser"] = torch.optim.Adam(attacker.parameters(), lr=self.attacker_lr, fused=True)

    def batches(self, state: State) -> Iterator[torch.Tensor]:
        """The target's batches, with the attacker's training between them."""
        play = self.weight > 0 and state.epoch >= self.warmup
        tabular = self.schedule == "tabular" or (self.schedule == "auto" and state.task.members.x.ndim != 4)
        pass_ = -(-len(state.task.members) // _batch_size(state))
        target, attacker = (ROUND["target"], ROUND["attacker"]) if tabular else (pass_, pass_)
        for step, index in enumerate(training.shuffled_batches(state)):
            if play and step % target == 0:
                self.train_attacker(state, attacker)
            yield index

    def train_attacker(self, state: State, steps: int) -> None:
        """So many steps of the attacker, each on a batch of members and one of reference rows."""
        attacker, optimiser = state.extras["attacker"], state.extras["attacker_optimiser"]
        attacker.train().requires_grad_(True)
        batch = _batch_size(state)
        members, reference = (_outputs(state, samples, batch * steps) for samples in _sides(state))
        flags = torch.cat([torch.ones(batch), torch.zeros(batch)])
        for step in range(steps):
            rows = slice(step * batch, (step + 1) * batch)
            logits, labels = (torch.cat([a[rows], b[rows]]) for a, b in zip(members, reference, strict=True))
            h = attacker(logits, labels)
            loss = F.mse_loss(h.sigmoid(), flags)
            if self.gain == "log":
                loss = F.binary_cross_entropy_with_logits(h, flags)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        attacker.eval().requires_grad_(False)

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, state: State) -> torch.Tensor:
        """The cross-entropy, plus the attacker's gain on the batch after the warm-up."""
        plain = F.cross_entropy(logits, targets)
        if not self.weight or state.epoch < self.warmup:
            return plain
        h = state.extras["attacker"](logits, targets)
        gain = F.logsigmoid(h).mean() if self.gain == "log" else h.sigmoid().mean() - 0.5
        return plain + self.weight * gain


def _sides(state: State) -> tuple[Samples, Samples]:
    return state.task.members, state.task.reference


def _batch_size(state: State) -> int:
    return min(state.task.recipe.batch_size, *(max(1, len(side)) for side in _sides(state)))


def _outputs(state: State, samples: Samples, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels of `count` random rows, pass after pass; each distinct row goes through the network once.

    The target stands still while the attacker learns, so its outputs can be had beforehand.
    """
    passes = -(-count // len(samples))
    drawn = torch.cat([torch.randperm(len(samples), generator=state.streams["chance"]) for _ in range(passes)])[:count]
    rows, places = drawn.unique(return_inverse=True)
    with state.autocast():
        logits = training.predict(state.network, samples.x[rows])
    return logits[places], samples.y[drawn]

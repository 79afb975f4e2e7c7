"""What a defender works with: the recipe, its samples, the network made for them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, Protocol

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import nn

from relaxloss import seeds
from relaxloss.data import Dataset, Encoder
from relaxloss.data.dataset import Array
from relaxloss.errors import UserError, one_line
from relaxloss.models import MLP, Model, ModelField, ResNet20
from relaxloss.specs import Read, Spec, Written


@dataclass(frozen=True)
class Recipe(Spec):
    """How a network is trained. The defaults are the paper's for tabular data.

    Attributes:
        model: the architecture, as ``mlp``, ``resnet20``, ``mlp:activation=relu`` or ``package.module:function``.
        epochs: passes over the members.
        batch_size: members in a step.
        optimiser: ``sgd`` or ``adam``.
        lr: the learning rate at first.
        momentum: of SGD.
        weight_decay: the L2 penalty's factor.
        schedule: ``milestones`` multiplies the learning rate by `decay` at each of `milestones` (epochs, from 0);
            ``cosine`` lets it fall to 0; ``constant`` keeps it.
        milestones: the epochs at which the learning rate falls.
        decay: by what it is multiplied there.
        augment: ``crop_flip`` pads images by 4, crops at random and flips half of them.
        precision: ``bf16`` runs the forward pass under autocast.
        channels_last: the memory layout for images; faster, and the same up to rounding.
    """

    model: Read[Model | Written, ModelField] = field(default_factory=MLP)  # type: ignore[arg-type]
    epochs: PositiveInt = 120
    batch_size: Annotated[int, Field(ge=2)] = 128
    optimiser: Literal["sgd", "adam"] = "sgd"
    lr: PositiveFloat = 0.1
    momentum: NonNegativeFloat = 0.9
    weight_decay: NonNegativeFloat = 1e-4
    schedule: Literal["milestones", "cosine", "constant"] = "milestones"
    milestones: tuple[NonNegativeInt, ...] = (50, 100)
    decay: PositiveFloat = 0.1
    augment: Literal["none", "crop_flip"] = "none"
    precision: Literal["float32", "bf16"] = "float32"
    channels_last: bool = True

    def check(self) -> None:
        """Raise `UserError` if the schedule makes no sense. A recipe that was used before is read all the same."""
        late = [milestone for milestone in self.milestones if milestone > self.epochs]
        if self.schedule == "milestones" and late:
            raise UserError(
                f"recipe: milestones {', '.join(map(str, late))} lie beyond its {self.epochs} epochs, so that the "
                f"learning rate would never fall there; give milestones=(...), or take recipe.lasting({self.epochs}), "
                "which keeps the schedule's shape"
            )

    def lasting(self, epochs: int) -> Recipe:
        """The same recipe for another number of epochs: milestones move in proportion, none to the very start."""
        share = epochs / self.epochs
        milestones = tuple(max(round(milestone * share), min(milestone, 1)) for milestone in self.milestones)
        return replace(self, epochs=epochs, milestones=milestones)

    @staticmethod
    def default(dataset: Dataset) -> Recipe:
        """The paper's: the MLP for 120 epochs on rows, ResNet20 for 300 on images."""
        if dataset.kind == "image":
            return Recipe(model=ResNet20(), epochs=300, milestones=(150, 225))
        return Recipe()

    def learning_rate(self, epoch: int) -> float:
        """The learning rate of a 0-based epoch."""
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        if self.schedule == "milestones":
            return self.lr * self.decay ** sum(epoch >= milestone for milestone in self.milestones)
        return self.lr

    def make_optimiser(self, parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser, with torch's fused step."""
        if self.optimiser == "adam":
            return torch.optim.Adam(parameters, lr=self.lr, weight_decay=self.weight_decay, fused=True)
        return torch.optim.SGD(
            parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay, fused=True
        )


OF_PERSON = "one person, with all their samples"  # what ε is of, in a training's facts


@dataclass(frozen=True, eq=False)
class Samples:
    """Raw rows and their labels as tensors: `x` ``(n, ...)``, `y` ``(n,)`` int64.

    `whose` ``(n,)`` int64 numbers their persons, where one has several; None: each is of another.
    """

    x: torch.Tensor
    y: torch.Tensor
    whose: torch.Tensor | None = None

    @staticmethod
    def of(dataset: Dataset, rows: Array, labels: Array | None = None) -> Samples:
        """The given rows of a data set, with other labels than its own if wanted ``(M,)``."""
        y = dataset.y if labels is None else labels
        whose = None if dataset.groups is None else torch.from_numpy(dataset.persons[rows])
        return Samples(torch.from_numpy(dataset.x[rows]), torch.from_numpy(y[rows]), whose)

    def __len__(self) -> int:
        return len(self.y)

    @property
    def persons(self) -> torch.Tensor:
        """Whose row each is ``(n,)``, as numbers from 0."""
        return torch.arange(len(self)) if self.whose is None else self.whose.unique(return_inverse=True)[1]

    @property
    def num_persons(self) -> int:
        """How many they are of."""
        return len(self) if self.whose is None else len(self.whose.unique())

    def watched(self, members: int) -> Samples | None:
        """The rows on which a training of so many members is watched after each epoch; None if there are none.

        Evenly spaced; a quarter as many as the members, but 250 to 1,000: a training step is the work of three forward
        passes, so that watching adds a twelfth to a training of 1,000 members, and next to nothing to a large one.
        """
        if not len(self):
            return None
        most = min(max(250, members // 4), 1000)
        return self.take(torch.linspace(0, len(self) - 1, min(most, len(self))).round().long())

    def take(self, index: torch.Tensor) -> Samples:
        """The rows at `index`, in its order."""
        whose = None if self.whose is None else self.whose.index_select(0, index)
        return Samples(self.x.index_select(0, index), self.y.index_select(0, index), whose)


@dataclass(frozen=True, eq=False)
class Task:
    """All that a defender may see: its members, a disjoint reference set, the recipe and the seed."""

    members: Samples
    reference: Samples
    encoder: Encoder
    shape: tuple[int, ...]
    num_classes: int
    recipe: Recipe
    seed: int

    @staticmethod
    def of(
        dataset: Dataset,
        members: Array,
        *,
        reference: Array | None = None,
        labels: Array | None = None,
        recipe: Recipe | None = None,
        seed: int = 0,
    ) -> Task:
        """The task of training on the rows `members` (indices); `reference` must not overlap them."""
        members = np.asarray(members)
        reference = np.zeros(0, dtype=np.int64) if reference is None else np.asarray(reference)
        if len(members) < 2:
            raise UserError(f"{dataset.name}: got {len(members)} members to train on; expected at least 2")
        overlap = np.intersect1d(members, reference)
        if len(overlap):
            raise UserError(f"{dataset.name}: {len(overlap)} rows are both member and reference; keep them apart")
        return Task(
            Samples.of(dataset, members, labels),
            Samples.of(dataset, reference, labels),
            dataset.encoder(members),
            dataset.shape,
            dataset.num_classes,
            recipe or Recipe.default(dataset),
            seed,
        )


class Network(nn.Module):
    """The trained thing: the encoder of raw rows, and the net above it. ``forward`` takes raw rows to logits."""

    def __init__(
        self, encoder: nn.Module, net: nn.Module, *, num_classes: int | None = None, channels_last: bool = False
    ) -> None:
        super().__init__()
        self.encoder, self.net, self.num_classes, self.channels_last = encoder, net, num_classes, channels_last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, ...)`` raw → ``(B, C)`` logits."""
        x = self.encoder(x)
        if self.channels_last and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        logits: torch.Tensor = self.net(x)
        return logits


class Builder(Protocol):
    """Whoever changes a fresh net: a defense."""

    def build(self, net: nn.Module) -> nn.Module: ...


def make_network(
    method: Builder, encoder: Encoder, shape: tuple[int, ...], num_classes: int, recipe: Recipe, seed: int
) -> Network:
    """A fresh network as the method wants it built, its weights drawn from the seed's stream ``init``."""
    with seeds.isolated(seed, "init"):
        net = method.build(recipe.model.build(shape, num_classes))
        if not isinstance(net, nn.Module):
            raise UserError(f"{method}: its build() returned {type(net).__name__}; expected the network, a nn.Module")
        probe = encoder(torch.zeros(2, *encoder_input(encoder, shape), dtype=torch.float32))
        net.eval()
        try:
            with torch.no_grad():
                out = net(probe)
        except Exception as error:  # of the user's network, for one
            raise UserError(
                f"model {recipe.model} does not run on inputs {tuple(probe.shape)}: {one_line(error)}"
            ) from error
        net.train()
    if not isinstance(out, torch.Tensor) or tuple(out.shape) != (2, num_classes):
        got = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
        raise UserError(
            f"model {recipe.model} maps (2, {', '.join(map(str, shape))}) to {got}; expected (2, {num_classes})"
        )
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise UserError(f"model {recipe.model} has no weights to train; expected parameters that require a gradient")
    channels_last = recipe.channels_last and len(shape) == 3
    if channels_last:
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Network(encoder, net, num_classes=num_classes, channels_last=channels_last)


def encoder_input(encoder: Encoder, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of one raw row: the table's width where columns become one-hot."""
    return (len(encoder.sizes),) if encoder.sizes else shape


@torch.no_grad()
def predict(network: nn.Module, x: torch.Tensor, *, batch: int = 1024) -> torch.Tensor:
    """Outputs ``(n, C)`` on the CPU, in eval mode, in batches; the network stays where it is, its mode is put back."""
    training, held = network.training, next(itertools.chain(network.parameters(), network.buffers()), x)
    network.eval()
    parts = [network(part.to(held.device)).float().cpu() for part in x.split(batch)]
    out = torch.cat(parts) if len(x) else torch.zeros(0)
    network.train(training)
    return out

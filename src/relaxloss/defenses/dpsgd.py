"""DP-SGD (Abadi et al., CCS 2016) with Opacus: clip each sample's gradient, add Gaussian noise, account for ε.

Threat model: the strongest: an attacker who sees every intermediate model, if ε is small. At the tiny noise of the
RelaxLoss paper's baseline and of the preset ``weak`` the accountant's ε is in the thousands or more and guarantees
nothing; it is reported as it is. ε covers the weights. The encoder of a table, released with them, holds the members'
means, deviations and rare categories without noise, and no ε covers these, but for columns that are described
beforehand (`columns` of `relaxloss.data.load`; bits and images have constants in their place). Training only, no
reference data. Cost: about 2.5 times plain training for linear layers (ghost clipping: two backward passes, no sample's
gradient is ever stored), ten times and more for convolutions.

Useful range: `noise` 0.003 to 3 (σ, in units of `clip`), or `target_epsilon` 1 to 100; `clip` 0.1 to 10.

ε is of a person. Where persons have several samples (``groups``), a person's gradient is the mean over all of them, and
is clipped as one (user-level sampling; Charles et al., 2024); else each sample is a person, as in the paper.

Batches are Poisson samples: each person is in each batch with probability 1/⌈M / batch size⌉ on their own, with all
their samples, as the accountant assumes. Batch normalisation, which mixes samples, is replaced by group normalisation.
The forward pass runs in float32, whatever the recipe's precision: the bound on the norm must hold.

The preset ``weak`` is the baseline to beat (Aerni, Zhang, Tramèr, CCS 2024, after De et al., 2022): no momentum, no
weight decay, clip 1, a large learning rate, for images several augmented copies of a sample in its gradient, and the
average of the weights over time. Its noise is `noise`; σ / batch size is what counts, and 1e-4 is the authors' (0.2 at
batch 2,048, 0.00625 at 64, so about the default 0.01 at 128).

NB(paper): the RelaxLoss paper clips at 1.2 on images and 1.0 on tables; the default is 1.0 for both.
NB: the noise comes from torch's reproducible generator, which is no cryptographic one. Whoever knows the training's
seed can repeat it: `relaxloss.train(seed=None)` and the command line draw a secret one, and keep it in ``private``.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import nn
from torch.optim.swa_utils import AveragedModel

from relaxloss import training
from relaxloss.data import Dataset
from relaxloss.defenses._layers import replaced
from relaxloss.defenses._privacy import Privacy, noise_for
from relaxloss.defenses.base import Defense, defenses
from relaxloss.errors import UserError
from relaxloss.training import Batch, Fit, Recipe, Session, State, Task
from relaxloss.validation import listed


@dataclass(frozen=True)
class Preset:
    """What a preset changes of the recipe; `lr` None keeps the recipe's."""

    lr: float | None = None
    ema: float = 0.0
    copies: int = 1  # of an image
    plain: bool = False  # no momentum, no weight decay


PRESETS = {None: Preset(), "weak": Preset(lr=0.5, ema=0.999, copies=8, plain=True)}


@defenses.register("dpsgd")
@dataclass(frozen=True)
class DPSGD(Defense):
    """Step along ``(Σ_i g_i min(1, C / ‖g_i‖) + σ C N(0, I)) / expected batch size``, g_i the persons' gradients.

    That of a person is the mean over all their samples: where each sample is another person's, the sample's.

    Attributes:
        noise: σ; 0: clipping only.
        clip: C.
        target_epsilon: choose σ so that the whole training spends this ε, in place of `noise`.
        delta: δ; None: 1 / (10 P), of P persons.
        preset: ``weak``, or None: the recipe's optimiser as it is.
        lr: the learning rate, under the recipe's schedule; None: the preset's, or the recipe's.
        ema: the decay of the weights' moving average per step, 0: no average; None: the preset's, or 0. It warms up:
            the decay of step n is at most (1 + n) / (10 + n).
        multiplicity: augmented copies of an image whose mean gradient is clipped; None: the preset's for images, or 1.

    Raises:
        MissingExtra: Opacus is not installed.
        UserError: the settings contradict each other, or a layer has no gradient per sample.
    """

    about: ClassVar[str] = "clipped gradients and noise, with Opacus (CCS 2016); preset=weak is the baseline to beat"
    requires: ClassVar[str] = "opacus"
    version: ClassVar[int] = 3
    active: ClassVar[Mapping[str, Any]] = {"noise": 0.5}
    sweep: ClassVar[tuple[Mapping[str, Any], ...]] = tuple(
        {"noise": noise, "target_epsilon": None} for noise in (0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0)
    )
    noise: NonNegativeFloat = 0.01
    clip: PositiveFloat = 1.0
    target_epsilon: PositiveFloat | None = None
    delta: Annotated[float, Field(gt=0, lt=1)] | None = None
    preset: Literal["weak"] | None = None
    lr: PositiveFloat | None = None
    ema: Annotated[float, Field(ge=0, lt=1)] | None = None
    multiplicity: PositiveInt | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target_epsilon is not None and self.noise != DPSGD.noise:
            raise UserError(
                f"dpsgd got noise={self.noise} and target_epsilon={self.target_epsilon}; give one of the two"
            )

    @property
    def without_effect(self) -> tuple[str, ...]:
        """The noise, where it follows from ε."""
        return ("noise",) if self.target_epsilon is not None else ()

    @property
    def effort(self) -> float:
        """Measured on the paper's MLP, where ghost clipping applies."""
        return 2.5

    def build(self, net: nn.Module) -> nn.Module:
        """The net with group normalisation in place of batch normalisation."""
        return without_batch_norm(net)

    def uncovered(self, data: Dataset) -> tuple[str, ...]:
        """A table's encoder, but for the columns that are known beforehand."""
        names = [column.name for column in data.columns if not column.known]
        if data.kind != "table" or (data.columns and not names):
            return ()
        where = f"in {listed(names)}" if names else "in all columns"
        return (f"the means, deviations and rare categories of the members {where}",)

    def fit(self, task: Task, session: Session) -> Fit:
        """Train by the recipe as the preset changes it."""
        with warnings.catch_warnings():
            # Opacus hooks the first layer too, whose input needs no gradient.
            warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)
            return training.fit(self, dataclasses.replace(task, recipe=self.recipe(task)), session)

    def recipe(self, task: Task) -> Recipe:
        """The task's recipe, with what the preset and the fields change of it."""
        preset, recipe = PRESETS[self.preset], task.recipe
        changes: dict[str, Any] = {"precision": "float32", "lr": self.lr or preset.lr or recipe.lr}
        # Opacus (1.6) unfolds images by their strides, and is silently wrong where the channels come last.
        changes["channels_last"] = False
        if preset.plain:
            changes |= {"optimiser": "sgd", "momentum": 0.0, "weight_decay": 0.0}
        if self.copies(task) > 1:
            changes["augment"] = "crop_flip"
        return dataclasses.replace(recipe, **changes)

    def copies(self, task: Task) -> int:
        """How many augmented copies of a sample share its gradient."""
        default = PRESETS[self.preset].copies if task.members.x.ndim == 4 else 1
        return self.multiplicity or default

    def prepare(self, state: State) -> None:
        """Hook the network, wrap the optimiser, and open the account."""
        steps = _steps(state)
        delta = self.delta or 0.1 / state.task.members.num_persons
        noise = self.noise
        if self.target_epsilon is not None:
            noise = noise_for(self.target_epsilon, 1 / steps, steps * state.task.recipe.epochs, delta)
        decay = PRESETS[self.preset].ema if self.ema is None else self.ema
        if decay:
            state.extras["average"] = AveragedModel(state.network.net, multi_avg_fn=_moving_average(decay))
        privacy = Privacy(state, noise, self.clip, 1 / steps, delta, ghost=self.copies(state.task) == 1)
        state.extras["privacy"], state.optimiser = privacy, privacy.optimiser

    def batches(self, state: State) -> Iterator[torch.Tensor]:
        """Poisson samples of the persons among the members, with all their samples; they may be empty."""
        steps, members = _steps(state), state.task.members
        persons, order = members.persons.sort(stable=True)  # a person's next to each other
        count = members.num_persons
        for _ in range(steps):
            drawn = torch.rand(count, dtype=torch.float64, generator=state.streams["order"])
            yield order[(drawn < 1 / steps)[persons]]

    def step(self, state: State, batch: Batch) -> torch.Tensor:
        """One noisy step; returns the logits of the batch's first copies."""
        copies = [batch.x]
        for _ in range(self.copies(state.task) - 1):
            raw = state.task.members.x.index_select(0, batch.index)
            copies.append(training.crop_flip(raw, state.streams["augment"]))
        logits: torch.Tensor = state.extras["privacy"].step(state, torch.stack(copies, 1), batch.y, batch.index)
        if "average" in state.extras:
            state.extras["average"].update_parameters(state.network.net)
        return logits

    def finish(self, state: State) -> dict[str, float | str]:
        """Unhook the network, put the averaged weights in place, and report what was spent."""
        privacy: Privacy = state.extras["privacy"]
        privacy.unhook()
        if "average" in state.extras and state.extras["average"].n_averaged:
            state.network.net.load_state_dict(state.extras["average"].module.state_dict())
        facts = privacy.facts()
        changed = sum(hasattr(layer, MARK) for layer in state.network.net.modules())
        if changed:
            facts["normalisation"] = f"{changed} batch-norm layers became group norm: batch norm mixes samples"
        return facts


def _steps(state: State) -> int:
    return math.ceil(len(state.task.members) / state.task.recipe.batch_size)


MARK = "in_place_of_batch_norm"


def without_batch_norm(net: nn.Module) -> nn.Module:
    """The net with `nn.GroupNorm` of gcd(32, channels) groups in place of every batch norm, with the same weights."""
    for name, layer in list(net.named_modules()):
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            group = nn.GroupNorm(math.gcd(32, layer.num_features), layer.num_features, layer.eps, layer.affine)
            group.load_state_dict(
                {key: value for key, value in layer.state_dict().items() if key in ("weight", "bias")}
            )
            setattr(group, MARK, True)
            net = replaced(net, name, group)
    return net


def _moving_average(decay: float) -> Any:
    """`AveragedModel`'s update: the decay warms up, so that the first weights are soon forgotten."""

    @torch.no_grad()
    def update(averages: Any, weights: Any, count: torch.Tensor) -> None:
        n = float(count)
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + n) / (10 + n)))

    return update

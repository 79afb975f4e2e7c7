"""The defense: a frozen dataclass of hyper-parameters, with hooks from the loss to the released output.

A defense overrides the shallowest hook that does its job:

=============  ==========================================================  =============================
hook           when                                                        example
=============  ==========================================================  =============================
`loss`         every step: logits and labels → scalar                      RelaxLoss, label smoothing
`step`         every step: the whole step                                  adversarial regularisation
`batches`      every epoch: which members, in which batches                Poisson sampling (DP-SGD)
`prepare`      before the first step: change the state                     DP-SGD
`build`        the fresh net → the net                                     dropout
`done`         before every epoch: stop here?                              early stopping
`finish`       after the last step: final weights, facts                   DP-SGD
`fit`          the whole training                                          distillation, SELENA
`release`      the trained network → what the world may query              MemGuard, HAMP
=============  ==========================================================  =============================
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import BeforeValidator, InstanceOf
from torch import nn
from torch.nn import functional as F

from relaxloss import training
from relaxloss.data import Dataset
from relaxloss.errors import UserError, unknown
from relaxloss.functional.base import below_guess, half_a_guess
from relaxloss.specs import Registry, Spec
from relaxloss.training import Batch, Fit, Network, Session, State, Task

HOOKS = (
    *("loss", "step", "batches", "prepare", "build", "done", "keeps", "finish", "fit", "release", "trainer"),
    *("snapshot",),
)


@dataclass(frozen=True)
class Defense(Spec):
    """Base of all defenses; by itself it changes nothing.

    Class attributes:
        neutral: the settings at which the defense must equal no defense bit for bit; None where there are none.
        active: settings at which the conformance suite must see it act within a few epochs.
        sweep: the settings that draw its privacy-utility curve, mildest first.
        in_nats: the fields that are losses in nats, for which more than log C, a guess's loss, makes no sense.
        about: one line for ``relaxloss list``.
        requires: a module of an optional extra, without which it cannot run; the word ``all`` leaves it out then.
        ablation: another defense with a part taken out, to show what the part does; ``all`` leaves it out.
    """

    about: ClassVar[str] = ""
    ablation: ClassVar[bool] = False
    requires: ClassVar[str] = ""
    neutral: ClassVar[Mapping[str, Any] | None] = None
    active: ClassVar[Mapping[str, Any]] = {}
    sweep: ClassVar[tuple[Mapping[str, Any], ...]] = ()
    in_nats: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def registered(cls, name: str) -> None:
        """Refuse a defense that overrides no hook, and settings of fields that it does not have."""
        own = {key for key in HOOKS if getattr(cls, key) is not getattr(Defense, key)}
        if not own and name != "none":
            wrong = [key for each in cls.__mro__ if each not in Defense.__mro__ for key in vars(each) if key[0] != "_"]
            near = [f"{key} (did you mean {close[0]}?)" for key in wrong if (close := get_close_matches(key, HOOKS, 1))]
            raise UserError(
                f"defense {name!r}: {cls.__name__} overrides none of {', '.join(HOOKS)}, so that it is no defense"
                + (f"; it has {', '.join(near)}" if near else "")
            )
        known = {field.name for field in fields(cls)}
        for what, given in (("neutral", [cls.neutral or {}]), ("active", [cls.active]), ("sweep", cls.sweep)):
            if not all(isinstance(each, Mapping) for each in given) or isinstance(given, Mapping):
                raise UserError(f"defense {name!r}: {what} = {given!r}; expected settings: dicts of fields and values")
            for each in given:
                for field in each:
                    if field not in known:
                        raise unknown(f"field in the {what} of defense {name!r}", field, known)

    @property
    def installed(self) -> bool:
        """Whether the module that it requires, if any, is there."""
        return not self.requires or find_spec(self.requires) is not None

    @property
    def trainer(self) -> Defense:
        """The defense whose training yields this one's weights: itself, unless it acts on the release only.

        Defenses with equal trainers share one training.
        """
        return self

    @property
    def snapshot(self) -> int | None:
        """The epoch of the trainer's snapshot that this defense releases; None: its final weights."""
        return None

    @property
    def without_effect(self) -> tuple[str, ...]:
        """The fields that do nothing at these settings, so that no report names them."""
        return ()

    @property
    def effort(self) -> float:
        """Roughly how long its training takes, where plain training takes 1: orders jobs, tells the time left."""
        return 1.0

    def uncovered(self, data: Dataset) -> tuple[str, ...]:
        """What it releases of the members beside the weights, for the ε of a private training does not cover it."""
        return ()

    def above_guess(self, num_classes: int) -> dict[str, float]:
        """The fields in nats that are above log C, which asks for a model that knows less than a guess."""
        values = {name: float(getattr(self, name)) for name in self.in_nats}
        return {name: value for name, value in values.items() if value > math.log(num_classes)}

    def below_guess(self, num_classes: int) -> Self:
        """The same, with half of log C for every field that is `above_guess`."""
        half = half_a_guess(num_classes)
        return replace(self, **dict.fromkeys(self.above_guess(num_classes), half))

    def check(self, num_classes: int) -> None:
        """Raise `UserError` if the settings make no sense with so many classes."""
        for name, value in self.above_guess(num_classes).items():
            below_guess(name, value, num_classes, f"{self}: ")

    def build(self, net: nn.Module) -> nn.Module:
        """The fresh net, changed as the defense needs it."""
        return net

    def prepare(self, state: State) -> None:
        """Change the state before the first step; what must be saved goes into ``state.extras``."""

    def batches(self, state: State) -> Iterator[torch.Tensor]:
        """Index tensors into the members, one a step."""
        return training.shuffled_batches(state)

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, state: State) -> torch.Tensor:
        """``(B, C)`` float32 logits and ``(B,)`` labels → the scalar to descend on."""
        return F.cross_entropy(logits, targets)

    def step(self, state: State, batch: Batch) -> torch.Tensor:
        """One step of training; returns the batch's logits, detached, for the history."""
        logits = state.forward(batch.x)
        loss = self.loss(logits, batch.y, state)
        if not isinstance(loss, torch.Tensor) or loss.ndim or not loss.requires_grad:
            got = f"a tensor {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__
            without = " without a gradient" if isinstance(loss, torch.Tensor) and not loss.requires_grad else ""
            raise UserError(
                f"{self}: its loss() gave {got}{without}; expected a scalar tensor that comes from the logits (the "
                "mean over the batch, with nothing detached that is to be learned from)"
            )
        state.descend(loss)
        return logits.detach()

    def done(self, state: State) -> bool:
        """Whether to stop before the recipe's last epoch."""
        return False

    def keeps(self, epoch: int) -> bool:
        """Whether the weights after so many epochs are kept as a snapshot."""
        return False

    def finish(self, state: State) -> dict[str, float | str]:
        """After the last step: put the final weights in place; returns the facts worth reporting."""
        return {}

    def fit(self, task: Task, session: Session) -> Fit:
        """Train the network."""
        return training.fit(self, task, session)

    def release(self, network: nn.Module, task: Task | None) -> nn.Module:
        """What the world may query: raw rows → logits or log-probabilities ``(B, C)``.

        With `task` None, an unfitted shell of the same structure, into which a saved state is loaded.
        """
        return network

    def needs_reference(self) -> bool:
        """Whether the defense cannot work without a reference set."""
        return False

    def idle(self, history: list[dict[str, float]]) -> str:
        """Why the defense did nothing in a training of this history; empty if it acted, or nobody can tell."""
        return ""


defenses: Registry[Defense] = Registry("defense", "relaxloss.defenses")


@dataclass(frozen=True)
class Composed(Defense):
    """A training defense, and release-time defenses around its network: ``relaxloss:alpha=0.5+memguard:budget=0.5``."""

    name: ClassVar[str] = "composed"
    parts: tuple[InstanceOf[Defense], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.parts) < 2:
            raise UserError("a composed defense needs at least two parts: training+release")
        for part in self.parts[1:]:
            if part.trainer != NONE:
                raise UserError(
                    f"{part} changes the training, so it cannot stand behind the '+' of {self}; "
                    "only release-time defenses (memguard, hamp:train=false) can"
                )

    def __str__(self) -> str:
        return "+".join(str(part) for part in self.parts)

    @property
    def trainer(self) -> Defense:
        """The first part's."""
        return self.parts[0].trainer

    @property
    def snapshot(self) -> int | None:
        """The first part's."""
        return self.parts[0].snapshot

    def uncovered(self, data: Dataset) -> tuple[str, ...]:
        """All parts'."""
        return tuple(text for part in self.parts for text in part.uncovered(data))

    def build(self, net: nn.Module) -> nn.Module:
        """The first part's."""
        return self.parts[0].build(net)

    def fit(self, task: Task, session: Session) -> Fit:
        """The first part's."""
        return self.parts[0].fit(task, session)

    def release(self, network: nn.Module, task: Task | None) -> nn.Module:
        """Each part's release around the one before it."""
        for part in self.parts:
            network = part.release(network, task)
        return network

    def check(self, num_classes: int) -> None:
        """Each part's."""
        for part in self.parts:
            part.check(num_classes)

    def needs_reference(self) -> bool:
        """Whether any part does."""
        return any(part.needs_reference() for part in self.parts)

    def idle(self, history: list[dict[str, float]]) -> str:
        """The first part's."""
        return self.parts[0].idle(history)


@defenses.register("none")
@dataclass(frozen=True)
class NoDefense(Defense):
    """Plain training on the cross-entropy: what every defense is measured against."""

    about: ClassVar[str] = "plain training"
    neutral: ClassVar[Mapping[str, Any] | None] = {}


NONE = NoDefense()


def parse(given: str | Mapping[str, Any] | Defense) -> Defense:
    """A defense from its spec; ``a+b`` composes."""
    if isinstance(given, str):
        parts = re.split(r"\+(?=[a-zA-Z_])", given)
        if len(parts) > 1:
            return Composed(parts=tuple(defenses.parse(part) for part in parts))
    if isinstance(given, Mapping) and given.get("name") == Composed.name:
        return Composed(parts=tuple(parse(part) for part in given["parts"]))
    return defenses.parse(given)


def fitted(defense: Defense, task: Task, session: Session) -> Fit:
    """Train under a defense; a clear error if its own `fit` returns something else."""
    fit = defense.fit(task, session)
    if not isinstance(fit, Fit):
        raise UserError(
            f"{defense}: its fit() returned {type(fit).__name__}; expected a relaxloss.training.Fit, as "
            "relaxloss.training.fit(self, task, session) makes one"
        )
    return fit


def released(defense: Defense, network: nn.Module, task: Task | None) -> nn.Module:
    """What a defense lets the world query; a clear error if it is no module."""
    release = defense.release(network, task)
    if not isinstance(release, nn.Module):
        raise UserError(f"{defense}: its release() returned {type(release).__name__}; expected a torch.nn.Module")
    return release


DefenseField = Annotated[InstanceOf[Defense], BeforeValidator(parse)]
__all__ = [
    "NONE",
    "Composed",
    "Defense",
    "DefenseField",
    "Network",
    "NoDefense",
    "defenses",
    "fitted",
    "parse",
    "released",
]

"""Training: the loop, its state, its checkpoints.

The loop calls its method's hooks (`relaxloss.defenses.Defense` has their defaults), saves itself now and then, and
resumes bit for bit: weights, optimiser, every random stream and the history are in the checkpoint.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import random
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from relaxloss import seeds
from relaxloss.errors import UserError
from relaxloss.training.task import Network, Recipe, Samples, Task, make_network, predict

VERSION = 2  # of everything here that can change a trained weight; part of every training's content key


@dataclass(eq=False)
class Batch:
    """One step's samples: raw `x` (augmented if the recipe says so), `y`, and their `index` among the members."""

    x: torch.Tensor
    y: torch.Tensor
    index: torch.Tensor


@dataclass(eq=False)
class State:
    """A training under way. `extras` holds what a defense keeps: anything with ``state_dict``/``load_state_dict``.

    `epoch` is 0-based. `streams` holds the generators ``order`` (of the batches), ``augment`` and ``chance`` (the
    defense's own).
    """

    task: Task
    network: Network
    optimiser: torch.optim.Optimizer
    streams: dict[str, torch.Generator]
    epoch: int = 0
    extras: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    snapshots: dict[int, dict[str, torch.Tensor]] = field(default_factory=dict)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The recipe's precision for a forward pass."""
        if self.task.recipe.precision == "bf16":
            return torch.autocast("cpu", dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, C)`` in float32, computed in the recipe's precision."""
        with self.autocast():
            logits: torch.Tensor = self.network(x)
        return logits.float()

    def descend(self, loss: torch.Tensor) -> None:
        """One step of the optimiser along the loss's gradient."""
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()


class Method(Protocol):
    """What the loop asks of a defense."""

    def build(self, net: nn.Module) -> nn.Module: ...
    def prepare(self, state: State) -> None: ...
    def batches(self, state: State) -> Iterator[torch.Tensor]: ...
    def step(self, state: State, batch: Batch) -> torch.Tensor: ...
    def done(self, state: State) -> bool: ...
    def keeps(self, epoch: int) -> bool: ...
    def finish(self, state: State) -> dict[str, float | str]: ...


@dataclass(frozen=True)
class Progress:
    """How far a training is: epochs done, of how many, and what the last one measured."""

    phase: str
    epoch: int
    epochs: int
    samples: int
    last: dict[str, float]


@dataclass(frozen=True)
class Session:
    """Where a training may save itself, whom it tells, and what it is watched on. Nothing here changes a weight.

    Attributes:
        folder: the directory for checkpoints; none are written without it.
        every: seconds between checkpoints.
        monitor: samples whose loss and accuracy go into the history after every epoch; never seen by the defense.
        tell: called after every epoch.
        phase: the name of the training, where a defense runs several.
    """

    folder: Path | None = None
    every: float = 30.0
    monitor: Samples | None = None
    tell: Callable[[Progress], None] | None = None
    phase: str = "model"

    def child(self, phase: str) -> Session:
        """The session of one training among several of a defense."""
        return replace(self, phase=phase)

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint's file."""
        return self.folder / f"{self.phase}.checkpoint" if self.folder else None


@dataclass(eq=False)
class Fit:
    """What a training yields: the network in eval mode, the history, snapshots by epoch, and facts worth reporting."""

    network: Network
    history: list[dict[str, float]]
    snapshots: dict[int, dict[str, torch.Tensor]] = field(default_factory=dict)
    facts: dict[str, float | str] = field(default_factory=dict)


def fit(method: Method, task: Task, session: Session | None = None) -> Fit:
    """Train by the recipe under the method's hooks, from the checkpoint if there is one."""
    session = session or Session()
    recipe = task.recipe
    with seeds.isolated(task.seed, "layers"):  # dropout and other layers that can only draw from the global stream
        state = _begin(method, task)
        saved = time.monotonic()
        _restore(state, session)
        while state.epoch < recipe.epochs and not method.done(state):
            for group in state.optimiser.param_groups:
                group["lr"] = recipe.learning_rate(state.epoch)
            state.network.train()
            losses = torch.full((len(task.members),), -1.0)  # -1: not seen in this epoch
            hits = torch.zeros(len(task.members))
            given = False
            for index in method.batches(state):
                given, batch = True, _gather(state, _places(method, index))
                logits = _logits(method, method.step(state, batch), batch, task.num_classes)
                losses[index] = F.cross_entropy(logits, batch.y, reduction="none")
                hits[index] = (logits.argmax(1) == batch.y).float()
            state.epoch += 1
            if not given:
                raise UserError(f"{method}: its batches() yielded nothing in epoch {state.epoch}; expected places")
            if losses.isnan().any():
                raise UserError(
                    f"{method}: the training diverged in epoch {state.epoch}: the loss is NaN; lower the learning rate "
                    f"(lr={recipe.lr}) or the defense's strength"
                )
            _record(state, session, losses, hits)
            if method.keeps(state.epoch):
                state.snapshots[state.epoch] = copy_of(state.network)
            if session.folder and (time.monotonic() - saved >= session.every or state.epoch == recipe.epochs):
                _save(state, session)
                saved = time.monotonic()
        facts = _facts(method, method.finish(state))
    state.network.eval()
    return Fit(state.network, state.history, state.snapshots, facts)


def _places(method: Method, index: Any) -> torch.Tensor:
    """What a defense's `batches` yields, if it is places among the members."""
    if not isinstance(index, torch.Tensor) or index.ndim != 1 or index.dtype != torch.int64:
        got = f"{index.dtype} {tuple(index.shape)}" if isinstance(index, torch.Tensor) else type(index).__name__
        raise UserError(f"{method}: its batches() yielded {got}; expected int64 tensors (B,), places of members")
    return index


def _logits(method: Method, logits: Any, batch: Batch, num_classes: int) -> torch.Tensor:
    """What a defense's `step` returns, if it is the batch's logits."""
    expected = (len(batch.y), num_classes)
    if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != expected:
        got = f"a tensor {tuple(logits.shape)}" if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise UserError(f"{method}: its step() returned {got}; expected the batch's logits {expected}, detached")
    return logits


def _facts(method: Method, facts: Any) -> dict[str, float | str]:
    """What a defense's `finish` returns, as plain numbers and texts."""
    if not isinstance(facts, Mapping):
        raise UserError(f"{method}: its finish() returned {type(facts).__name__}; expected a dict of facts, or {{}}")
    found = {}
    for name, value in facts.items():
        scalar = isinstance(value, np.generic) or (isinstance(value, torch.Tensor) and value.numel() == 1)
        one = value.item() if scalar else value
        if not isinstance(name, str) or not isinstance(one, (str, int, float)):
            raise UserError(
                f"{method}: its finish() gave {name!r}: {type(value).__name__}; expected numbers and texts, by name"
            )
        found[name] = one
    return found


def native_bf16() -> bool:
    """Whether this processor multiplies bf16 itself, and does not emulate it."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _begin(method: Method, task: Task) -> State:
    recipe = task.recipe
    if recipe.precision == "bf16" and not native_bf16():
        warnings.warn(
            "precision=bf16 on a processor without bf16 arithmetic: it is emulated, which took 78 times as long as "
            "float32 where we measured it; take precision=float32 here",
            stacklevel=3,
        )
    if recipe.augment == "crop_flip" and task.members.x.ndim != 4:
        raise UserError(f"augment=crop_flip is for images; got samples of shape {tuple(task.members.x.shape[1:])}")
    network = make_network(method, task.encoder, task.shape, task.num_classes, recipe, task.seed)
    streams = {name: seeds.generator(task.seed, name) for name in ("order", "augment", "chance")}
    state = State(task, network, recipe.make_optimiser(network.net.parameters()), streams)
    method.prepare(state)
    for name, extra in state.extras.items():
        if not hasattr(extra, "state_dict") or not hasattr(extra, "load_state_dict"):
            raise UserError(
                f"{method}: its prepare() put a {type(extra).__name__} into extras[{name!r}]; expected what has "
                "state_dict and load_state_dict, from which a training that was cut off goes on (a number: a "
                "torch.nn.Module with a buffer)"
            )
    return state


def shuffled_batches(state: State) -> Iterator[torch.Tensor]:
    """All members once in random order, in batches; a last batch of one is left out (batch norm cannot take it)."""
    order = torch.randperm(len(state.task.members), generator=state.streams["order"])
    for index in order.split(state.task.recipe.batch_size):
        if len(index) > 1:
            yield index


def _gather(state: State, index: torch.Tensor) -> Batch:
    samples = state.task.members.take(index)
    x = samples.x
    if state.task.recipe.augment == "crop_flip":
        x = crop_flip(x, state.streams["augment"])
    return Batch(x, samples.y, index)


def crop_flip(x: torch.Tensor, generator: torch.Generator, *, pad: int = 4) -> torch.Tensor:
    """Pad images ``(B, channels, H, W)`` with zeros, crop at a random place each, mirror a random half."""
    batch, _, height, width = x.shape
    padded = F.pad(x, (pad, pad, pad, pad))
    top, left = torch.randint(2 * pad + 1, (2, batch, 1), generator=generator)
    columns = torch.arange(width).expand(batch, width)
    flipped = torch.rand(batch, 1, generator=generator) < 0.5
    columns = torch.where(flipped, columns.flip(1), columns) + left
    rows = torch.arange(height).expand(batch, height) + top
    return padded[torch.arange(batch)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _record(state: State, session: Session, losses: torch.Tensor, hits: torch.Tensor) -> None:
    seen = losses >= 0
    row = {
        "epoch": state.epoch,
        "lr": state.task.recipe.learning_rate(state.epoch - 1),
        **_moments("train", losses[seen], hits[seen]),
    }
    epochs = state.task.recipe.epochs
    if session.monitor is not None:
        logits, y = predict(state.network, session.monitor.x), session.monitor.y
        row |= _moments("test", F.cross_entropy(logits, y, reduction="none"), (logits.argmax(1) == y).float())
    state.history.append(row)
    if session.tell:
        session.tell(Progress(session.phase, state.epoch, epochs, len(state.task.members), row))


def _moments(which: str, losses: torch.Tensor, hits: torch.Tensor) -> dict[str, float]:
    if not len(losses):  # Poisson samples of few persons may all be empty
        return dict.fromkeys((f"{which}_loss", f"{which}_loss_variance", f"{which}_accuracy"), math.nan)
    losses = losses.double()
    return {
        f"{which}_loss": losses.mean().item(),
        f"{which}_loss_variance": losses.var(correction=0).item(),
        f"{which}_accuracy": hits.double().mean().item(),
    }


def copy_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of a module's state, detached from it."""
    return {name: tensor.detach().clone().contiguous() for name, tensor in module.state_dict().items()}


def _save(state: State, session: Session) -> None:
    """Write the checkpoint: SHA-256 of what follows, then the state; whole or not at all."""
    content = {
        "epoch": state.epoch,
        "network": state.network.state_dict(),
        "optimiser": state.optimiser.state_dict(),
        "extras": {name: extra.state_dict() for name, extra in state.extras.items()},
        "streams": {name: stream.get_state() for name, stream in state.streams.items()},
        "global": torch.get_rng_state(),
        "numpy": _numpy_state(),
        "python": random.getstate(),
        "history": state.history,
        "snapshots": state.snapshots,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path = session.checkpoint
    assert path is not None
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(hashlib.sha256(buffer.getbuffer()).digest() + buffer.getbuffer())
        os.replace(part, path)
    except OSError as error:  # the training can go on without; only a cut would cost more
        part.unlink(missing_ok=True)
        warnings.warn(f"no checkpoint was written ({error.strerror}): {path}", stacklevel=2)


def _restore(state: State, session: Session) -> None:
    path = session.checkpoint
    if path is None or not path.exists():
        return
    stored = path.read_bytes()
    if hashlib.sha256(stored[32:]).digest() != stored[:32]:
        warnings.warn(f"checkpoint {path.name} is damaged; this training starts again", stacklevel=3)
        path.unlink()
        return
    content = torch.load(io.BytesIO(stored[32:]), weights_only=True)
    state.epoch, state.history, state.snapshots = content["epoch"], content["history"], content["snapshots"]
    state.network.load_state_dict(content["network"])
    state.optimiser.load_state_dict(content["optimiser"])
    for name, extra in state.extras.items():
        extra.load_state_dict(content["extras"][name])
    for name, stream in state.streams.items():
        stream.set_state(content["streams"][name])
    torch.set_rng_state(content["global"])
    if "numpy" in content:  # an older checkpoint has none
        kind, keys, *rest = content["numpy"]
        np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
        random.setstate(content["python"])


def _numpy_state() -> tuple[Any, ...]:
    """The state of numpy's global generator, as a checkpoint holds it."""
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    return kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest


__all__ = [
    "Batch",
    "Fit",
    "Method",
    "Network",
    "Progress",
    "Recipe",
    "Samples",
    "Session",
    "State",
    "Task",
    "fit",
    "predict",
]

"""PyTorch: audit a module that a loop of one's own trained, with its gradients, and with shadows of that loop."""

from __future__ import annotations

import gc
import multiprocessing
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Subset

from relaxloss import gradients, seeds
from relaxloss.attacks import Attack, Evidence
from relaxloss.auditing import audit, predictions
from relaxloss.auditing import shadows as shadow_jobs
from relaxloss.auditing.audit import Audit
from relaxloss.compute.engine import Engine
from relaxloss.data.dataset import Kind
from relaxloss.errors import UserError, one_line, unknown
from relaxloss.evaluation import comparability
from relaxloss.experiments.plan import queries_of
from relaxloss.integrations._torch_samples import Samples, read
from relaxloss.signals import TWICE, VIEWS, Signals, perturbations, shifted

Array: TypeAlias = npt.NDArray[Any]
Outputs = Literal["auto", "logits", "probs"]
Fit: TypeAlias = Callable[[TorchDataset[Any], int], nn.Module]
OFF = 0.02  # by which a row of probabilities may miss a sum of 1: those of bfloat16 do


def audit_module(
    model: nn.Module,
    members: Any,
    nonmembers: Any,
    *,
    fit: Fit | None = None,
    shadows: int = 0,
    outputs: Outputs = "auto",
    classes: Sequence[str] | None = None,
    groups: npt.ArrayLike | None = None,
    attacks: str | Sequence[Attack | str] = "all",
    batch_size: int = 1024,
    engine: Engine | None = None,
    name: str | None = None,
    coin_flips: bool = False,
    guesses: int | None = None,
    delta: float = 0.0,
    level: float = 0.95,
    seed: int = 0,
) -> Audit:
    """Audit a trained module: the samples that it was trained on against samples that it was not.

    The module is there, so that an attacker may hold its weights (the gradient attacks) and perturb its queries
    (label-only, the views of LiRA). It is asked in evaluation mode, where its parameters are, and left as it was.

    Args:
        model: gives for a batch x logits or probabilities ``(B, C)``, or one for class 1 of two, ``(B,)`` or
            ``(B, 1)``; or an object with ``logits``. Inputs that are mappings are its keyword arguments.
        members: what it was trained on, all of it: a pair (x, y), x ``(n, ...)`` or a mapping of such arrays, y
            ``(n,)`` the classes from 0; or a torch Dataset of such pairs, without random transforms. It is read into
            memory.
        nonmembers: the same of m others from the same population. Samples that stopped the training or chose its
            settings are none.
        fit: ``fit(dataset, seed)`` trains a new model as this one was trained and returns it. The dataset is a
            `torch.utils.data.Subset` of the N = n + m samples, the members' first (``dataset.indices``: which), in a
            random order; y is as it was given. The generators of torch, numpy and Python are seeded for it, and put
            back. How many samples there are varies: with BatchNorm, drop a last batch of one.
        shadows: how many models it trains, each on those samples that a coin chooses, on average n. 16 or more tell
            something; with a fifth of the samples in the test, 32. 0: none. If a few cannot be trained, the others do.
        outputs: what the model gives; ``auto``: probabilities if all lie in 0..1 and each row sums to 1; of one column
            if all lie in 0..1.
        classes: the classes' names.
        groups: ``(n + m,)`` whose sample each is, the members' first, where persons have several (`relaxloss.audit`). A
            shadow is then fitted on all samples of a person or on none.
        attacks: as in `relaxloss.auditing.audit.run`, as are `coin_flips`, `guesses`, `delta` and `level`.
        batch_size: how many samples are asked at a time.
        engine: where the shadows are trained; on a GPU, or if `fit` cannot be pickled, ``Engine("inprocess")``.
        name: what the model is called in the report; None: its class.
        seed: of the shadows, of the halves, and of attacks that draw random numbers.

    Raises:
        UserError: the samples, the labels and the model's answers do not fit each other; or a shadow cannot be trained.
    """
    shadow_jobs.check_count(shadows)
    if bool(shadows) != (fit is not None):
        got = f"got shadows={shadows} and {'no fit' if fit is None else 'a fit'}"
        raise UserError(f"{got}; expected both, a function that trains one and how many, or neither")
    if outputs not in (known := ("auto", "logits", "probs")):
        raise unknown("kind of outputs", outputs, known)
    if not isinstance(model, nn.Module):
        raise UserError(f"got a {type(model).__name__} as the model; expected a torch.nn.Module")
    if batch_size < 1:
        raise UserError(f"got batch_size={batch_size}; expected at least 1")
    chosen = audit.chosen_of(attacks)
    inside, outside = read(members, "members"), read(nonmembers, "nonmembers")
    pool = inside.joined(outside)
    n = len(pool.y)
    member = np.arange(n) < len(inside.y)
    raw = _ask(model, pool, batch_size)
    kind, said = _kind(raw, outputs)
    target = _Logits(model, kind)
    logits = _finite(_as_logits(torch.from_numpy(raw), kind).numpy(), kind)
    found = predictions.of_arrays(logits, pool.labels, member, kind="logits", classes=classes, groups=groups)
    asking = _Asking(pool, found.labels, logits.shape[1], kind, tuple(queries_of(chosen)), batch_size, seed)
    notes = [f"The model is a {type(model).__name__}, asked in evaluation mode. {said}"]
    norms, lacking = None, {}
    if asking.plain is None:
        lacking["perturbed"] = "not measured: the inputs are no array of numbers that could be perturbed"
    if "white_box" in asking.queries:
        norms, why = _gradient_norms(target, asking)
        lacking["white_box"] = f"not measured: there are no gradients of it: {why}"
    jobs = []
    if fit is not None:
        drawn = shadow_jobs.drawn(seed, shadows, found.persons, member)
        jobs = [_Job(fit, asking, own, chance) for own, chance in drawn]
    done = shadow_jobs.fitted(engine or Engine(), _shadow, jobs, n)
    notes += done.notes("were trained by the given function on")
    own = {"logits": logits} | _perturbed(target, asking)
    signals, *others = (Signals.join([each], found.labels) for each in (own, *done.results))
    places = np.arange(n)
    evidence = Evidence(
        replace(signals, gradient_norms=norms), places, tuple(others), done.member, places, places[:0], None,
        logits.shape[1], seed, asking.features,
    )  # fmt: skip
    few = pool.at(places[: min(TWICE, batch_size)])
    once, again = (_ask(model, few, batch_size) for _ in range(2))
    return audit.run(
        replace(found, kind="answers", notes=(*found.notes[1:], *notes), shadow_member=done.member),
        name=name or type(model).__name__, attacks=chosen, adaptive=True, coin_flips=coin_flips, guesses=guesses,
        delta=delta, level=level, seed=seed, evidence=evidence, lacking=lacking,
        known={
            "changed_on_repeat": float((once != again).any(axis=1).mean()),
            "copies": comparability.copied_rows(
                pool.bytes, found.labels, np.flatnonzero(member), np.flatnonzero(~member)
            ),
        },
    )  # fmt: skip


class _Logits(nn.Module):
    """The model with logits ``(B, C)``, C >= 2, whatever it gives."""

    def __init__(self, model: nn.Module, kind: str) -> None:
        super().__init__()
        self.model, self.kind = model, kind

    def forward(self, *inputs: torch.Tensor, **named: torch.Tensor) -> torch.Tensor:
        return _as_logits(_values(self.model(*inputs, **named)).float(), self.kind)


def _as_logits(out: torch.Tensor, kind: str) -> torch.Tensor:
    """Logits or probabilities ``(B, 1 or C)`` → logits ``(B, C)``, C >= 2."""
    if kind == "probs":
        both = torch.cat([1 - out, out], 1) if out.shape[1] == 1 else out
        return (both / both.sum(1, keepdim=True)).log()
    return torch.cat([torch.zeros_like(out), out], 1) if out.shape[1] == 1 else out


@dataclass(frozen=True, eq=False)
class _Asking:
    """What each model is asked: all samples, and in which ways."""

    pool: Samples
    labels: npt.NDArray[np.int64]
    columns: int
    kind: str
    queries: tuple[str, ...]
    batch_size: int
    seed: int

    @property
    def plain(self) -> Array | None:
        """The inputs, where they are one array of floating-point numbers or bytes, which can be perturbed."""
        x = self.pool.x.get("")
        return x if x is not None and (x.dtype.kind == "f" or (x.dtype == np.uint8 and x.ndim == 4)) else None

    @property
    def features(self) -> Array | None:
        """What an attack may learn from: images as they are, all else as rows."""
        x = self.plain
        return x if x is None or x.ndim == 4 else x.reshape(len(x), -1)

    @property
    def of(self) -> Kind:
        """As what they are perturbed."""
        x = cast(Array, self.plain)
        if x.ndim == 4:
            return "image"
        return "bits" if x.ndim == 2 and ((x == 0) | (x == 1)).all() else "table"

    def ask(self, model: nn.Module, samples: Samples) -> npt.NDArray[np.float32]:
        """A model's logits ``(N, C)``."""
        return _finite(_ask(model, samples, self.batch_size), self.kind)

    def other(self, x: torch.Tensor) -> Samples:
        """The same samples with perturbed inputs."""
        return replace(self.pool, x={"": x.to(torch.from_numpy(self.pool.x[""][:0]).dtype).numpy()})


@dataclass(frozen=True, eq=False)
class _Job:
    """One shadow, trained on the samples in `member` ``(N,)``."""

    fit: Fit
    asking: _Asking
    member: npt.NDArray[np.bool_]
    seed: int


def _shadow(job: _Job) -> dict[str, Array]:
    """Train one, and ask it."""
    asking = job.asking
    rows = shadow_jobs.rows(job.member, job.seed)
    before = [each for each in gc.get_objects() if issubclass(type(each), nn.Module)]
    with _seeded(job.seed % 2**31), _own_processes():
        model = job.fit(Subset(asking.pool, rows.tolist()), job.seed % 2**31)
    if not isinstance(model, nn.Module):
        raise UserError(f"fit gave a {type(model).__name__}; expected a torch.nn.Module, the trained shadow")
    if any(model is each for each in before):
        raise UserError(
            f"fit gave a {type(model).__name__} that was there before it was called, and may know what others were "
            "trained on; expected a new one: build it inside fit"
        )
    answering = _Logits(model, asking.kind)
    logits = asking.ask(answering, asking.pool)
    if logits.shape[1] != asking.columns:
        raise UserError(f"it answers for {logits.shape[1]} classes; expected {asking.columns}, as the audited model")
    return {"logits": logits} | _perturbed(answering, asking)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The global generators seeded inside, and as before outside."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002  # a user's loop may draw from it
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002


@contextmanager
def _own_processes() -> Iterator[None]:
    """In a worker of loky, too, a DataLoader may start processes of its own, and in the way of this platform."""
    method = multiprocessing.get_start_method(allow_none=True)
    if method != "loky":
        yield
        return
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(method, force=True)


def _perturbed(model: nn.Module, asking: _Asking) -> dict[str, Array]:
    """What it answers to other queries than the plain one, as `Signals.join` takes it."""
    wanted = {"augmented", "perturbed"} & set(asking.queries)
    if asking.plain is None or not wanted:
        return {}
    x = torch.from_numpy(np.array(asking.plain))
    if asking.of == "image":  # both are the same queries
        views = np.stack([asking.ask(model, asking.other(shifted(x, *view))) for view in VIEWS])
        both = {"augmented": views, "perturbed": views.argmax(2) == asking.labels}
        return {{"augmented": "augmented", "perturbed": "hits"}[query]: both[query] for query in wanted}
    if "perturbed" not in wanted:
        return {}
    copies = perturbations(x, asking.of, seeds.generator(asking.seed, "perturbed"))
    return {"hits": np.stack([asking.ask(model, asking.other(each)).argmax(1) == asking.labels for each in copies])}


def _gradient_norms(model: _Logits, asking: _Asking) -> tuple[npt.NDArray[np.float64] | None, str]:
    """The norms ``(N, 4)``, or why there are none."""
    if asking.plain is None or asking.plain.dtype.kind != "f":
        return None, "its inputs are not one array of floating-point numbers"
    parts = []
    method: gradients.Method | None = None
    device = _device(model)
    try:
        for places in _batches(len(asking.labels), asking.batch_size):
            rows = asking.pool.tensors(places)[""].to(device)
            own = torch.from_numpy(asking.labels[places]).to(device)
            method = method or gradients.plan(model, rows, own).method
            parts.append(gradients.norms(model, rows, own, method=method))
    except Exception as error:  # of the user's module; the other attacks can be made all the same
        return None, one_line(error)
    return np.concatenate(parts), ""


def _batches(n: int, size: int) -> list[npt.NDArray[np.int64]]:
    """The places 0 to n - 1 in parts of nearly equal length: none of one, which some models take for no batch."""
    return np.array_split(np.arange(n), -(-n // size))


def _ask(model: nn.Module, samples: Samples, batch_size: int) -> npt.NDArray[np.float32]:
    """Its outputs ``(N, C)``."""
    device, n = _device(model), len(samples)
    parts = []
    with gradients.evaluating(model), torch.no_grad():
        for places in _batches(n, batch_size):
            rows = {key: each.to(device) for key, each in samples.tensors(places).items()}
            try:
                out = _values(model(rows[""]) if "" in rows else model(**rows))
            except UserError:
                raise
            except Exception as error:  # of the user's module
                raise UserError(
                    f"the model cannot be asked about {samples.form}: {one_line(error)}; expected samples as it takes "
                    "them: convert them first (x.float(), as most models want)"
                ) from error
            if len(out) != len(places):
                raise UserError(
                    f"the model gave {tuple(out.shape)} for {len(places)} samples; expected one row of each"
                )
            parts.append(out.float().cpu().numpy())
    found = np.concatenate(parts)
    if np.isnan(found).any():
        raise UserError(
            f"the model answers NaN for {int(np.isnan(found).any(axis=1).sum())} of {n} samples; expected numbers"
        )
    return found


def _values(out: Any) -> torch.Tensor:
    """A model's output as ``(B, C)``, C >= 1."""
    out = getattr(out, "logits", out)
    if not isinstance(out, torch.Tensor) or out.ndim > 2:
        got = tuple(out.shape) if isinstance(out, torch.Tensor) else f"a {type(out).__name__}"
        raise UserError(f"the model gave {got}; expected a tensor (B, C), one row per sample, or an object with logits")
    return out if out.ndim == 2 else out.reshape(-1, 1)  # of a batch of one, squeeze() leaves no dimension


def _kind(values: npt.NDArray[np.float32], said: Outputs) -> tuple[Literal["logits", "probs"], str]:
    """Logits or probabilities, and the sentence that says which were taken."""
    within = bool(((values >= 0) & (values <= 1 + 1e-6)).all())
    one = values.shape[1] == 1
    sums = one or bool((np.abs(values.sum(axis=1) - 1) <= OFF).all())
    if said == "probs" and not within:
        raise UserError(
            "outputs='probs', but the model's answers are no probabilities: some lie outside of 0..1; expected "
            "probabilities: leave outputs= out, or say 'logits'"
        )
    if said == "auto" and within and not sums:
        raise UserError(
            "the model's answers all lie in 0..1 and do not sum to 1, as where each class has a sigmoid; expected "
            "logits, or probabilities of classes that exclude each other: say outputs='probs' to have them divided by "
            "their sum, or outputs='logits'"
        )
    if said == "logits" or (said == "auto" and not within):
        return "logits", f"Its outputs were taken as logits{', as said' if said == 'logits' else ''}."
    why = ", as said" if said == "probs" else f": all lie in 0..1{' (if they are logits, say so)' if one else ''}"
    return "probs", f"Its outputs were taken as probabilities{why}."


def _finite(logits: npt.NDArray[np.float32], kind: str) -> npt.NDArray[np.float32]:
    """Refuse logits that are infinite; a probability of 0 is none."""
    if (logits == np.inf).any() or (kind == "logits" and np.isinf(logits).any()):
        raise UserError("the model answers infinite logits; expected finite ones: see its weights")
    return logits


def _device(model: nn.Module) -> torch.device:
    return next((each.device for each in (*model.parameters(), *model.buffers())), torch.device("cpu"))

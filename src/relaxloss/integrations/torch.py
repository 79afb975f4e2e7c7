"""PyTorch: audit a module that a loop of one's own trained, with its gradients, and with shadows of that loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset, default_collate
from torch.utils.data import Dataset as TorchDataset

from relaxloss import auditing, checks, gradients, predictions, seeds, sides
from relaxloss.attacks import Attack, Evidence
from relaxloss.auditing import Audit
from relaxloss.data.base import Kind
from relaxloss.engine import Engine
from relaxloss.errors import UserError, told, unknown
from relaxloss.games import coins
from relaxloss.integrations import shadow_jobs
from relaxloss.plan import queries_of
from relaxloss.signals import TWICE, VIEWS, Signals, perturbations, shifted

Array: TypeAlias = npt.NDArray[Any]
Inputs: TypeAlias = dict[str, Array]  # by the names of the model's arguments; one without a name is called ""
Outputs = Literal["auto", "logits", "probs"]
Fit: TypeAlias = Callable[[TorchDataset[Any], int], nn.Module]
FORMS = "a pair (x, y) of arrays, or a torch Dataset of such pairs"


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
            random order. torch's generator is seeded for it, and put back.
        shadows: how many models it trains, each on those samples that a coin chooses, on average n. 16 or more tell
            something; with a fifth of the samples in the test, 32. 0: none.
        outputs: what the model gives; ``auto``: probabilities if all lie in 0..1 (and each row sums to 1).
        classes: the classes' names.
        groups: ``(n + m,)`` whose sample each is, the members' first, where persons have several (`relaxloss.audit`). A
            shadow is then fitted on all samples of a person or on none.
        attacks: as in `relaxloss.auditing.run`, as are `coin_flips`, `guesses`, `delta` and `level`.
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
    chosen = auditing.chosen_of(attacks)
    inside, outside = _read(members, "members"), _read(nonmembers, "nonmembers")
    x, y = _joined(inside[0], outside[0]), np.concatenate([inside[1], outside[1]])
    member = np.arange(len(y)) < len(inside[1])
    raw = _ask(model, x, batch_size)
    kind = _kind(raw, outputs)
    target = _Logits(model, kind)
    logits = _finite(_ask(target, x, batch_size), kind)
    found = predictions.of_arrays(logits, y, member, kind="logits", classes=classes, groups=groups)
    asking = _Asking(x, found.labels, logits.shape[1], kind, tuple(queries_of(chosen)), batch_size, seed)
    notes = [
        f"The model is a {type(model).__name__}, asked in evaluation mode; its outputs were taken as "
        f"{'logits' if kind == 'logits' else 'probabilities'}{'' if outputs == 'auto' else ', as said'}."
    ]
    norms = None
    if "white_box" in asking.queries:
        norms, why = _gradient_norms(target, asking)
        notes += [f"There are no gradients of it: {why}"] if why else []
    jobs = []
    if fit is not None:
        drawn = coins(seeds.rng(seed, "shadows"), shadows, found.persons, member.mean())
        jobs = [_Job(fit, asking, own, seeds.seed(seed, "shadow", k), model) for k, own in enumerate(drawn)]
        notes.append(f"The shadow models ({shadows}) were trained by the given function on {shadow_jobs.share(jobs)}.")
    answered = [_signals(target, asking), *shadow_jobs.results(engine or Engine(), _shadow, jobs)]
    signals, *others = (Signals.join([each], found.labels) for each in answered)
    places = np.arange(len(y))
    evidence = Evidence(
        replace(signals, gradient_norms=norms), places, tuple(others),
        np.array([job.member for job in jobs], bool).reshape(len(jobs), len(y)), places, places[:0], None,
        logits.shape[1], seed, asking.features,
    )  # fmt: skip
    again = _ask(model, _rows(x, places[:TWICE]), batch_size)
    return auditing.run(
        replace(found, kind="answers", notes=(*found.notes[1:], *notes), shadow_member=evidence.shadow_member),
        name=name or type(model).__name__, attacks=chosen, adaptive=True, coin_flips=coin_flips, guesses=guesses,
        delta=delta, level=level, seed=seed, evidence=evidence,
        known={
            "changed_on_repeat": float((raw[:TWICE] != again).any(axis=1).mean()),
            "copies": sides.copied_rows(_bytes(x), found.labels, np.flatnonzero(member), np.flatnonzero(~member)),
        },
    )  # fmt: skip


class _Logits(nn.Module):
    """The model with logits ``(B, C)``, C >= 2, whatever it gives."""

    def __init__(self, model: nn.Module, kind: str) -> None:
        super().__init__()
        self.model, self.kind = model, kind

    def forward(self, *inputs: torch.Tensor, **named: torch.Tensor) -> torch.Tensor:
        out = _values(self.model(*inputs, **named))
        if self.kind == "probs":
            return torch.cat([1 - out, out], 1).log() if out.shape[1] == 1 else out.log()
        return torch.cat([torch.zeros_like(out), out], 1) if out.shape[1] == 1 else out


@dataclass(frozen=True, eq=False)
class _Asking:
    """What each model is asked: all samples, and in which ways."""

    x: Inputs
    labels: npt.NDArray[np.int64]
    columns: int
    kind: str
    queries: tuple[str, ...]
    batch_size: int
    seed: int

    @property
    def plain(self) -> Array | None:
        """The inputs, where they are one array of floating-point numbers or bytes, which can be perturbed."""
        x = self.x.get("")
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


@dataclass(frozen=True, eq=False)
class _Job:
    """One shadow, trained on the samples in `member` ``(N,)``."""

    fit: Fit
    asking: _Asking
    member: npt.NDArray[np.bool_]
    seed: int
    target: nn.Module


def _shadow(job: _Job) -> dict[str, Array]:
    """Train one, and ask it."""
    asking = job.asking
    rows = seeds.rng(job.seed, "order").permutation(np.flatnonzero(job.member))  # what a fit holds out at the end is
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):  # nobody's side
        torch.manual_seed(job.seed)
        model = job.fit(Subset(_Pairs(asking.x, asking.labels), rows.tolist()), job.seed)
    if not isinstance(model, nn.Module):
        raise UserError(f"fit gave a {type(model).__name__}; expected a torch.nn.Module, the trained shadow")
    if model is job.target:
        raise UserError("fit gave the audited model itself; expected a new one: build it inside fit")
    return _signals(_Logits(model, asking.kind), asking)


def _signals(model: nn.Module, asking: _Asking) -> dict[str, Array]:
    """What it answers, as `Signals.join` takes it."""
    logits = _finite(_ask(model, asking.x, asking.batch_size), asking.kind)
    if logits.shape[1] != asking.columns:
        raise UserError(f"it answers for {logits.shape[1]} classes; expected {asking.columns}, as the audited model")
    found = {"logits": logits}
    if asking.plain is None:
        return found
    x = torch.from_numpy(np.array(asking.plain))
    if "augmented" in asking.queries and asking.of == "image":
        views = (_ask(model, {"": shifted(x, *view).numpy()}, asking.batch_size) for view in VIEWS)
        found["augmented"] = np.stack([_finite(view, asking.kind) for view in views])
    if "perturbed" in asking.queries:
        copies = perturbations(x, asking.of, seeds.generator(asking.seed, "perturbed"))
        answers = (_ask(model, {"": copy.to(x.dtype).numpy()}, asking.batch_size).argmax(1) for copy in copies)
        found["hits"] = np.stack([own == asking.labels for own in answers])
    return found


def _gradient_norms(model: _Logits, asking: _Asking) -> tuple[npt.NDArray[np.float64] | None, str]:
    """The norms ``(N, 4)``, or why there are none."""
    x = asking.plain
    if x is None or x.dtype.kind != "f":
        return None, "its inputs are not one array of floating-point numbers"
    parts = []
    method: gradients.Method | None = None
    device = _device(model)
    try:
        for places in np.array_split(np.arange(len(x)), -(-len(x) // asking.batch_size)):
            rows = torch.from_numpy(x[places]).to(device)
            own = torch.from_numpy(asking.labels[places]).to(device)
            method = method or gradients.plan(model, rows, own).method
            parts.append(gradients.norms(model, rows, own, method=method))
    except UserError as error:
        return None, str(error)
    return np.concatenate(parts), ""


@contextmanager
def _evaluating(model: nn.Module) -> Any:
    """Evaluation mode without gradients inside; each part's mode as before outside."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _ask(model: nn.Module, x: Inputs, batch_size: int) -> npt.NDArray[np.float32]:
    """Its outputs ``(N, C)``."""
    device, n = _device(model), len(next(iter(x.values())))
    parts = []
    with _evaluating(model):
        for start in range(0, n, batch_size):
            rows = {
                key: torch.from_numpy(np.array(each[start : start + batch_size])).to(device) for key, each in x.items()
            }
            try:
                out = _values(model(rows[""]) if "" in rows else model(**rows))
            except (RuntimeError, TypeError) as error:
                raise UserError(
                    f"the model cannot be asked about x {_told(x)}: {told(error)}; expected samples as it takes them"
                ) from error
            size = len(next(iter(rows.values())))
            if len(out) != size:
                raise UserError(f"the model gave {tuple(out.shape)} for {size} samples; expected one row of each")
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
    if not isinstance(out, torch.Tensor) or out.ndim not in (1, 2):
        got = tuple(out.shape) if isinstance(out, torch.Tensor) else f"a {type(out).__name__}"
        raise UserError(f"the model gave {got}; expected a tensor (B, C), one row per sample, or an object with logits")
    return out[:, None] if out.ndim == 1 else out


def _kind(values: npt.NDArray[np.float32], said: Outputs) -> Literal["logits", "probs"]:
    """Logits or probabilities, if nobody said which."""
    within = bool(((values >= 0) & (values <= 1)).all())
    sums = values.shape[1] == 1 or bool(predictions.summing(values.astype(np.float64)).all())
    if said == "probs" and not (within and sums):
        raise UserError(
            "outputs='probs', but the model's answers are no probabilities: they lie outside of 0..1, or do not sum to "
            "1; expected probabilities: leave outputs= out, or say 'logits'"
        )
    if said != "auto":
        return said
    return "probs" if within and sums else "logits"


def _finite(logits: npt.NDArray[np.float32], kind: str) -> npt.NDArray[np.float32]:
    """Refuse logits that are infinite; a probability of 0 is none."""
    if (logits == np.inf).any() or (kind == "logits" and np.isinf(logits).any()):
        raise UserError("the model answers infinite logits; expected finite ones: see its weights")
    return logits


def _device(model: nn.Module) -> torch.device:
    return next((each.device for each in (*model.parameters(), *model.buffers())), torch.device("cpu"))


class _Pairs(TorchDataset[Any]):
    """Samples in memory as pairs (x, y)."""

    def __init__(self, x: Inputs, y: npt.NDArray[np.int64]) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, place: int) -> tuple[Any, torch.Tensor]:
        row = {key: torch.from_numpy(np.array(each[place])) for key, each in self.x.items()}
        return row.get("", row), torch.tensor(self.y[place])


def _read(samples: Any, what: str) -> tuple[Inputs, Array]:
    """The samples' inputs and labels, in memory."""
    if isinstance(samples, DataLoader):
        raise UserError(f"got a DataLoader as {what}; expected its data set, in a fixed order: give loader.dataset")
    if isinstance(samples, IterableDataset):
        raise UserError(f"got an IterableDataset as {what}, which has no order; expected {FORMS}: read it first")
    if isinstance(samples, TensorDataset):
        samples = samples.tensors
    if isinstance(samples, (tuple, list)) and len(samples) == 2:
        x, y = samples
    elif hasattr(samples, "__getitem__") and hasattr(samples, "__len__") and not isinstance(samples, (tuple, Mapping)):
        x, y = _collated(samples, what)
    else:
        raise UserError(f"got a {type(samples).__name__} as {what}; expected {FORMS}")
    given = x if isinstance(x, Mapping) else {"": x}
    inputs = {str(key): checks.as_array(each, f"{what}: x") for key, each in given.items()}
    labels = checks.as_array(y, f"{what}: y")
    n = labels.size
    for key, each in inputs.items():
        named = f"{what}: x{f'[{key!r}]' if key else ''}"
        if each.dtype.kind not in "fiub" or each.shape[:1] != (n,):
            raise UserError(f"{named} is {each.dtype} {each.shape}; expected numbers, {n} rows, one per label")
        if each.dtype.kind == "f" and not np.isfinite(each).all():
            raise UserError(f"{named} holds NaN or infinite values; expected finite numbers, as the model takes them")
    return inputs, checks.column(labels, n, f"{what}: y")


def _collated(samples: Any, what: str) -> tuple[Any, Any]:
    """All samples of a map-style data set as one batch; refuse one that gives others when it is read again."""
    try:
        x, y = default_collate([samples[place] for place in range(len(samples))])
        again = default_collate([samples[place][0] for place in range(min(len(samples), TWICE))])
    except (TypeError, ValueError, RuntimeError, IndexError, KeyError) as error:
        raise UserError(
            f"{what} cannot be read as pairs (x, y) of one shape: {error}; expected {FORMS}: pad or crop them, or make "
            "them tensors"
        ) from None
    pairs = [(x[key], again[key]) for key in x] if isinstance(x, Mapping) else [(x, again)]
    if not all(torch.equal(one[: len(other)], other) for one, other in pairs):
        raise UserError(
            f"{what} gives other samples when it is read again: it augments at random, and a member would be asked "
            "about as nobody trained on it; expected the samples as the model is asked in use: give it the transform "
            "of the test, and let fit augment"
        )
    return x, y


def _joined(one: Inputs, other: Inputs) -> Inputs:
    """The rows of both, one after the other."""
    shapes = [{key: (each.dtype, each.shape[1:]) for key, each in part.items()} for part in (one, other)]
    if shapes[0] != shapes[1]:
        raise UserError(f"members have x {_told(one)} and non-members {_told(other)}; expected the same of a sample")
    return {key: np.concatenate([one[key], other[key]]) for key in one}


def _told(x: Inputs) -> str:
    return ", ".join(
        f"{key} {each.dtype} (N, {', '.join(map(str, each.shape[1:]))})".strip() for key, each in x.items()
    )


def _rows(x: Inputs, places: npt.NDArray[np.int64]) -> Inputs:
    return {key: each[places] for key, each in x.items()}


def _bytes(x: Inputs) -> npt.NDArray[np.uint8]:
    """Something ``(N, D)`` that is equal where samples are."""
    flat = [np.ascontiguousarray(each).reshape(len(each), -1) for each in x.values()]
    return np.concatenate([each.view(np.uint8) for each in flat], axis=1)

"""Signals: what an observer of a released model writes down, as arrays.

A query is one way of asking; each is stored by itself, so that an attack which needs one more does not repeat the
others.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from relaxloss import gradients, seeds
from relaxloss.data import Dataset
from relaxloss.data.base import Kind
from relaxloss.errors import UserError, unknown
from relaxloss.task import Network, predict

VERSION = 2
TWICE = 256  # samples that are asked twice
VIEWS = tuple(itertools.product((False, True), (0, -4, 4), (0, -4, 4)))  # of an image: see `shifted`; the first is it
STAY = ("logits", "augmented")  # arrays that are too large to be held for dozens of models
Float = npt.NDArray[np.floating[Any]]
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Answers:
    """``(A, m, C)`` in an npy file, or ``(m, C)`` of one query; open only while a part of it is read."""

    path: Path

    def __len__(self) -> int:
        return len(self._open())

    def __getitem__(self, at: Any) -> Float:
        return np.array(self._open()[at])

    def _open(self) -> Float:
        array: Float = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return array[None] if array.ndim == 2 else array


@dataclass(frozen=True, eq=False)
class Signals:
    """Observations of one model on n samples, none of which can be written to.

    What a model answers to all queries about a whole pool can be gigabytes, and an attack looks at dozens of models: so
    the answers may rest in a file, and those about chosen samples are taken out when they are read.

    Attributes:
        answers: ``(A, m, C)``, logits of the pool, or of the n samples alone; read them by `plain`, `query`, `logits`.
        labels: ``(n,)``.
        gradient_norms: ``(n, 4)``: x-L1, x-L2, w-L1, w-L2 of the cross-entropy, seen by a white-box observer.
        hits: ``(Q, n)`` bool: is the answered label right under each of Q perturbed queries?
        rows: ``(n,)``, where the samples are among the m answered; None: they are those, in their order.
    """

    answers: Float | Answers
    labels: npt.NDArray[np.int64]
    gradient_norms: Float | None = None
    hits: npt.NDArray[np.bool_] | None = None
    rows: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            array = getattr(self, field.name)
            if isinstance(array, np.ndarray):
                object.__setattr__(self, field.name, fixed(array))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def queries(self) -> int:
        """A, in how many ways each sample was asked."""
        return len(self.answers)

    @property
    def logits(self) -> Float:
        """``(A, n, C)``, the plain query first; log-probabilities where the release gives probabilities."""
        return fixed(self.answers[:] if self.rows is None else self.answers[:, self.rows])

    @property
    def plain(self) -> Float:
        """``(n, C)``, the plain query's."""
        return self.query(0)

    def query(self, number: int) -> Float:
        """``(n, C)``, that query's."""
        return fixed(self.answers[number] if self.rows is None else self.answers[number, self.rows])

    def take(self, rows: Any) -> Signals:
        """The samples at `rows`: places, or booleans ``(n,)``, or a slice."""
        rows = np.arange(len(self))[rows]
        norms = None if self.gradient_norms is None else self.gradient_norms[rows]
        hits = None if self.hits is None else self.hits[:, rows]
        chosen = rows if self.rows is None else self.rows[rows]
        return Signals(self.answers, self.labels[rows], norms, hits, chosen)

    @staticmethod
    def join(parts: Iterable[Mapping[str, Any]], labels: npt.NDArray[np.int64]) -> Signals:
        """One object from what `read` or `observe` gave of several queries."""
        arrays: dict[str, Any] = {}
        for part in parts:
            arrays |= part
        answers = arrays["augmented"] if len(arrays.get("augmented", ())) else arrays["logits"]
        if isinstance(answers, np.ndarray) and answers.ndim == 2:  # one query's
            answers = answers[None]
        return Signals(answers, labels, arrays.get("gradient_norms"), arrays.get("hits"))


def read(folder: Path) -> dict[str, Any]:
    """The arrays of one query by their names, from their npy files; the answers stay there."""
    found = {path.stem: path for path in sorted(folder.glob("*.npy"))}
    return {name: Answers(path) if name in STAY else np.load(path, allow_pickle=False) for name, path in found.items()}


def fixed(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same numbers, not to be written to: one attack must not change what the next one sees."""
    view = array.view()
    view.flags.writeable = False
    return view


def rows_of(dataset: Dataset) -> torch.Tensor:
    """The pool as a tensor; workers may hold it as a read-only memory map, which torch wants copied."""
    return torch.from_numpy(dataset.x if dataset.x.flags.writeable else dataset.x.copy())


def plain(release: nn.Module, network: Network, dataset: Dataset, labels: npt.NDArray[np.int64]) -> Arrays:
    """``logits (M, C)``: every sample asked once, as it is."""
    return {"logits": _ask(release, rows_of(dataset))}


def augmented(release: nn.Module, network: Network, dataset: Dataset, labels: npt.NDArray[np.int64]) -> Arrays:
    """``augmented (A, M, C)``: for images 2 flips × 9 shifts {0, ±4}², the plain one first; for rows ``(0, M, C)``."""
    if dataset.kind != "image":
        return {"augmented": np.zeros((0, len(dataset), dataset.num_classes), np.float32)}
    x = rows_of(dataset)
    return {"augmented": np.stack([_ask(release, shifted(x, *view)) for view in VIEWS])}


def shifted(x: torch.Tensor, flip: bool, down: int, right: int) -> torch.Tensor:
    """Images ``(n, channels, H, W)`` mirrored and moved, with zeros where nothing moved in."""
    out = torch.zeros_like(x)
    source = x.flip(3) if flip else x
    height, width = x.shape[2:]
    if abs(down) < height and abs(right) < width:
        out[:, :, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = source[
            :, :, max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)
        ]
    return out


def white_box(release: nn.Module, network: Network, dataset: Dataset, labels: npt.NDArray[np.int64]) -> Arrays:
    """``gradient_norms (M, 4)`` of the network beneath the release: its holder sees through a changed output."""
    x, y = rows_of(dataset), torch.from_numpy(labels)
    pieces, method = [], None
    for rows in torch.arange(len(y)).split(1024):
        with torch.no_grad():
            encoded = network.encoder(x[rows])
        method = method or gradients.plan(network.net, encoded, y[rows]).method
        pieces.append(gradients.norms(network.net, encoded, y[rows], method=method))
    return {"gradient_norms": np.concatenate(pieces)}


def perturbed(release: nn.Module, network: Network, dataset: Dataset, labels: npt.NDArray[np.int64]) -> Arrays:
    """``hits (Q, M)``: is the label still right when the query is perturbed?

    Images: the 18 flips and shifts. Bits: 32 copies with each bit flipped with probability 0.5 to 8 % (8 copies
    each of 4 rates). Numbers: 32 copies with normal noise of 0.1 to 0.8 of each column's deviation; codes stay.
    """
    x = rows_of(dataset)
    y = torch.from_numpy(labels)
    codes = torch.tensor([column.categories is not None for column in dataset.columns] or [False] * x.shape[1])
    chance = seeds.generator("perturbed", dataset.fingerprint)
    hits = []
    for copy in perturbations(x, dataset.kind, chance, codes):
        hits.append((torch.from_numpy(_ask(release, copy)).argmax(1) == y).numpy())
    return {"hits": np.stack(hits)}


def perturbations(
    x: torch.Tensor, kind: Kind, chance: torch.Generator, still: torch.Tensor | None = None
) -> Iterator[torch.Tensor]:
    """The queries of `perturbed` for samples ``(n, ...)``, the plain one first; `still`: which columns get no noise."""
    if kind == "image":
        yield from (shifted(x, *view) for view in VIEWS)
        return
    yield x
    if kind == "bits":
        for rate in (0.005, 0.01, 0.03, 0.08):
            for _ in range(8):
                flipped = torch.rand(x.shape, generator=chance) < rate
                yield torch.where(flipped, 1 - x, x)
        return
    deviation = torch.as_tensor(np.nan_to_num(np.nanstd(x.numpy().astype(np.float64), 0))).float()
    if still is not None:
        deviation = torch.where(still, 0.0, deviation)
    for scale in (0.1, 0.2, 0.4, 0.8):
        for _ in range(8):
            yield x + scale * deviation * torch.randn(x.shape, generator=chance)


Query = Callable[[nn.Module, Network, Dataset, npt.NDArray[np.int64]], Arrays]
QUERIES: dict[str, Query] = {"plain": plain, "augmented": augmented, "white_box": white_box, "perturbed": perturbed}


def observe(
    release: nn.Module, network: Network, dataset: Dataset, query: str, labels: npt.NDArray[np.int64] | None = None
) -> Arrays:
    """The arrays of one query over the whole pool. `network` is the model beneath the release."""
    if query not in QUERIES:
        raise unknown("query", query, QUERIES)
    release.eval()
    network.eval()
    found = QUERIES[query](release, network, dataset, dataset.y if labels is None else labels)
    if query == "plain":
        _are_logits(found["logits"], len(dataset), dataset.num_classes)
    return found


def _are_logits(answers: npt.NDArray[Any], n: int, num_classes: int) -> None:
    """Refuse what is of another shape, or probabilities: their exponentials would be taken for some."""
    if answers.shape[-2:] != (n, num_classes):
        raise UserError(
            f"the release answers {answers.shape[-2:]}; expected logits or log-probabilities ({n}, {num_classes}), one "
            "column per class"
        )
    if (answers >= 0).all() and (np.abs(answers.sum(axis=-1) - 1) < 1e-3).all():
        raise UserError(
            "the release answers probabilities: all are in 0..1 and each row sums to 1; expected logits or "
            "log-probabilities: return their logarithm"
        )


def differences(release: nn.Module, network: Network, dataset: Dataset, logits: Float) -> Arrays:
    """How a release behaves, for the flags: ``release (2,)``.

    First the share of samples whose answer to the plain query (`logits`) has another top-1 class than the network
    beneath; then the share of the first `TWICE` samples whose answer differs when they are asked twice, which a network
    of the user's own may do, too.
    """
    x = rows_of(dataset)
    first, again = (_ask(release, x[:TWICE]) for _ in range(2))
    changed = 0.0 if release is network else (_ask(network, x).argmax(1) != logits.argmax(1)).mean()
    return {"release": np.array([changed, (first != again).any(1).mean()])}


def _ask(release: nn.Module, x: torch.Tensor) -> npt.NDArray[np.float32]:
    out = predict(release, x).numpy()
    if np.isnan(out).any():
        raise UserError(
            f"the model answers NaN for {int(np.isnan(out).any(1).sum())} of {len(out)} samples; its weights are not "
            "finite: lower the learning rate or the defense's strength"
        )
    return out.astype(np.float32, copy=False)

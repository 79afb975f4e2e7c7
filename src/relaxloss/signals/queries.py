"""The queries that an attacker can send to a model: plain, augmented, perturbed, white-box."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from relaxloss import gradients, seeds
from relaxloss.data import Dataset
from relaxloss.data.dataset import Kind
from relaxloss.errors import UserError, unknown
from relaxloss.signals.signals import Arrays, Float
from relaxloss.training.task import Network, predict

TWICE = 256  # samples that are queried twice
VIEWS = tuple(itertools.product((False, True), (0, -4, 4), (0, -4, 4)))  # of an image: see `shifted`; the first is it


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

"""Quantile regression (Bertran et al., NeurIPS 2023): is the target surer than it would be on a non-member like this?

Threat model: black-box with the label; no shadows. The attacker knows some samples that are in no model (the game's
reference set), asks the target for them, and learns from a sample's features and label which hinge a non-member would
have. Without such samples it takes the shadows' answers on samples that they lack.

Differences from the paper: gradient-boosted trees throughout, where the paper has a network for images; features are
reduced (images to 4 × 4 means per channel, more than 64 columns to 32 principal components, found without labels and
membership); one quantile level for all false-positive rates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, PositiveInt
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.utils.extmath import randomized_svd
from torch.nn import functional as F

from relaxloss import seeds
from relaxloss.attacks import functional
from relaxloss.attacks.base import Attack, Evidence, Needs, Scores, attacks
from relaxloss.attacks.functional.shapes import bounded
from relaxloss.errors import UserError

Floats = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32]
LIMIT = 50_000  # rows to fit on
WIDE, COMPONENTS = 64, 32  # columns above which there are principal components instead, and how many
CATEGORIES = 255  # classes up to which the trees take the label as a category


@attacks.register("quantile")
@dataclass(frozen=True)
class Quantile(Attack):
    """``hinge - q(x, y)``, where q is the `level` quantile of the non-members' hinge given features and label.

    Attributes:
        level: of the quantile; the false-positive rate of the decision ``score > 0`` is about 1 - level.
        trees, leaves: how many trees, with so many leaves each. Small ones by default: 100 trees of 31 leaves learn 500
            reference samples by heart, and 20 % instead of 10 % of other non-members are then above their quantile.
    """

    about: ClassVar[str] = "the hinge above its quantile among similar non-members (Bertran 2023)"
    needs: ClassVar[Needs] = Needs()
    level: Annotated[float, Field(gt=0, lt=1)] = 0.9
    trees: PositiveInt = 50
    leaves: Annotated[int, Field(ge=2)] = 4

    def score(self, evidence: Evidence) -> Scores:
        """The hinge above its quantile, for every asked sample ``(N,)``."""
        return self.score_all((evidence,))[0]

    def score_all(self, rows: tuple[Evidence, ...]) -> list[Scores]:
        """Each target's scores, with the features computed once."""
        kept: dict[int, Features] = {}
        scores = []
        for evidence in rows:
            key = id(evidence.x)
            if key not in kept:
                kept[key] = features(evidence.x, len(evidence.shadow_member.T), evidence.seed)
            scores.append(self._one(evidence, kept[key]))
        return scores

    def _one(self, evidence: Evidence, table: Features) -> Scores:
        x, labels, hinge = _nonmembers(evidence, table)
        if len(hinge) > LIMIT:
            some = seeds.rng(evidence.seed, "quantile", "rows").permutation(len(hinge))[:LIMIT]
            x, labels, hinge = x[some], labels[some], hinge[some]
        asked = functional.hinge(evidence.target.plain, evidence.target.labels)
        hinge, asked = bounded(hinge, asked)
        model = HistGradientBoostingRegressor(
            loss="quantile",
            quantile=self.level,
            max_iter=self.trees,
            max_leaf_nodes=self.leaves,
            early_stopping=False,
            random_state=0,  # nothing is drawn, but without it the global generator is
            categorical_features=[x.shape[1]] if evidence.num_classes <= CATEGORIES else None,
        )
        model.fit(np.column_stack([x, labels]), hinge)
        quantile = model.predict(np.column_stack([table[evidence.asked], evidence.target.labels]))
        return np.asarray(asked - quantile, dtype=np.float64)


def _nonmembers(evidence: Evidence, table: Features) -> tuple[Features, npt.NDArray[np.int64], Floats]:
    """Features, labels and hinge of known non-members: of the target, or else of the shadows."""
    known = evidence.population_target
    if known is not None and len(known):
        return table[evidence.population], known.labels, functional.hinge(known.plain, known.labels)
    parts = []
    for shadow, member in zip(evidence.shadows, evidence.shadow_member, strict=True):
        places = evidence.fit[~member[evidence.fit]]
        seen = shadow.take(places)
        parts.append((table[places], seen.labels, functional.hinge(seen.plain, seen.labels)))
    if not sum(len(labels) for _, labels, _ in parts):
        raise UserError(
            "attack quantile needs known non-members: reference samples that are in no model, or shadows that lack "
            "samples; the game has neither"
        )
    x, y, hinge = (np.concatenate(part) for part in zip(*parts, strict=True))
    return x, y, hinge


def features(x: npt.NDArray[Any] | None, size: int, seed: int) -> Features:
    """Raw rows ``(M, ...)`` → ``(M, D)`` with D of at most 64 or so; ``(M, 0)`` where there are none. NaN may stay."""
    if x is None:
        return np.zeros((size, 0), np.float32)
    if x.ndim == 4:
        pooled = [F.adaptive_avg_pool2d(part.float(), 4).flatten(1) for part in torch.from_numpy(x).split(4096)]
        return np.asarray(torch.cat(pooled).numpy(), dtype=np.float32)
    if x.shape[1] <= WIDE:
        return x.astype(np.float32)
    chosen = np.sort(seeds.rng(seed, "quantile", "components").permutation(size)[:4096])
    sample = x[chosen].astype(np.float32)
    known = np.maximum((~np.isnan(sample)).sum(axis=0), 1)
    mean = (np.nan_to_num(sample).sum(axis=0) / known).astype(np.float32)
    deviation = np.ones_like(mean)
    if x.dtype != np.uint8:  # bits keep their scale: rare ones must not weigh most
        deviation = np.sqrt((np.nan_to_num(sample - mean) ** 2).sum(axis=0) / known).astype(np.float32) + 1e-6
    state = seeds.seed(seed, "quantile", "components") % 2**32
    filled = np.nan_to_num((sample - mean) / deviation)
    _, _, axes = randomized_svd(filled, min(COMPONENTS, size), random_state=state)
    parts = [np.nan_to_num((x[start : start + 4096] - mean) / deviation) @ axes.T for start in range(0, size, 4096)]
    return np.concatenate(parts).astype(np.float32, copy=False)

"""The blind baseline: how well are members told from non-members by their samples alone, without the model?

Source: Das, Zhang, Tramèr, *Blind baselines beat membership inference attacks for foundation models* (2024). Where
members and non-members are drawn from one population it has an AUC of one half. Where it has more, as if the
non-members are of another year, what an attack finds need not be the model's leak.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier

from relaxloss import measures, seeds
from relaxloss.asked import Asked
from relaxloss.attacks.base import Scores
from relaxloss.attacks.quantile import CATEGORIES, features

LIMIT = 20_000  # rows to fit on
WIDE = 512  # columns above which there are principal components instead


def scores(
    x: npt.NDArray[Any], labels: npt.NDArray[np.int64], member: npt.NDArray[np.bool_], asked: Asked, seed: int
) -> tuple[Scores, npt.NDArray[np.bool_]] | None:
    """Scores of persons whom it was not fitted on ``(P,)``, higher = member, and whether they are; None: too few.

    Gradient-boosted trees are fitted on a random half of the persons, with their samples' columns and labels, and asked
    about the other half. Images are pooled, and of more than 512 columns there are principal components
    (`relaxloss.attacks.quantile.features`).

    Args:
        x: ``(N, ...)`` the samples.
        labels: ``(N,)`` their classes.
        member: ``(N,)`` who was trained on.
        asked: whose samples they are.
        seed: of the halves.
    """
    half = measures.half(len(asked.records), None, seed=seed, stream="blind")
    inside = member[asked.records]
    if any(part.all() or not part.any() for part in (inside[half], inside[~half])):
        return None
    columns = x if x.ndim == 2 and x.shape[1] <= WIDE else features(x, len(x), seed)
    table = np.column_stack([columns, labels])
    rows = seeds.rng(seed, "blind", "rows").permutation(np.flatnonzero(half[asked.person]))[:LIMIT]
    if member[rows].all() or not member[rows].any():
        return None
    model = HistGradientBoostingClassifier(
        max_leaf_nodes=8,
        min_samples_leaf=40,
        learning_rate=0.05,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=0,  # nothing is drawn, but without it the global generator is
        categorical_features=[table.shape[1] - 1] if labels.max() < CATEGORIES else None,
    )
    model.fit(table[rows], member[rows])
    found = asked.mean(np.asarray(model.decision_function(table), np.float64))
    return found[~half], inside[~half]

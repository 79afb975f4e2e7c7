"""The blind baseline: how well are members told from non-members by their samples alone, without the model?

Source: Das, Zhang, Tramèr, *Blind baselines beat membership inference attacks for foundation models* (2024). Where
members and non-members are drawn from one population it has an AUC of one half. Where it has more, as if the
non-members are of another year, what an attack finds need not be the model's leak.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.stats
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from relaxloss import metrics, seeds
from relaxloss.attacks.quantile import CATEGORIES, features
from relaxloss.evaluation.grouping import Grouping

FOLDS = 5
FEWEST = 5  # persons of each side in each fold
LIMIT = 20_000  # rows to fit on
WIDE = 512  # columns above which there are principal components instead


def auc(
    x: npt.NDArray[Any],
    labels: npt.NDArray[np.int64],
    member: npt.NDArray[np.bool_],
    asked: Grouping,
    seed: int,
    level: float,
) -> tuple[float, float, float] | None:
    """How well members are told whom it was not fitted on: the AUC, and its interval; None: there are too few.

    A logistic regression and gradient-boosted trees are fitted on four folds of the persons, with their samples'
    columns and labels, and asked about the fifth, where their ranks are added. The AUC is the mean of the five folds',
    which is one half without a difference; that of all folds together would be less. Images are pooled, and of more
    than 512 columns there are principal components (`relaxloss.attacks.quantile.features`).

    The interval: σ² (1 / K + 1 / (K - 1)), σ² the mean of DeLong's variances of the K folds, as what was fitted on
    overlapping folds is not independent (Nadeau and Bengio, Machine Learning 52, 2003).

    Args:
        x: ``(N, ...)`` the samples.
        labels: ``(N,)`` their classes.
        member: ``(N,)`` who was trained on.
        asked: whose samples they are.
        seed: of the folds.
        level: of the interval.
    """
    inside = member[asked.records]
    persons = seeds.rng(seed, "blind").permutation(len(inside))
    folds = [persons[start:end] for start, end in pairwise(np.linspace(0, len(inside), FOLDS + 1).astype(int))]
    if min(min(inside[fold].sum(), (~inside[fold]).sum()) for fold in folds) < FEWEST:
        return None
    columns = x if x.ndim == 2 and x.shape[1] <= WIDE else features(x, len(x), seed)
    table = np.column_stack([columns, labels])
    areas, squares = [], []
    for fold in folds:
        out = np.isin(asked.person, fold)
        rows = seeds.rng(seed, "blind", "rows").permutation(np.flatnonzero(~out))[:LIMIT]
        ranks = np.zeros(len(fold))
        for model in _models(table.shape[1], labels):
            model.fit(table[rows], member[rows])
            told = np.zeros(len(labels))
            told[out] = model.decision_function(table[out])
            ranks += scipy.stats.rankdata(asked.mean(told)[fold])
        areas.append(metrics.auc(ranks, inside[fold]))
        low, high = metrics.auc_interval(ranks, inside[fold], level)
        squares.append(((high - low) / 2) ** 2)
    area, half = float(np.mean(areas)), math.sqrt(np.mean(squares) * (1 / FOLDS + 1 / (FOLDS - 1)))
    return area, max(area - half, 0.0), min(area + half, 1.0)


def _models(width: int, labels: npt.NDArray[np.int64]) -> tuple[Any, Any]:
    trees = HistGradientBoostingClassifier(
        max_leaf_nodes=8,
        min_samples_leaf=20,
        learning_rate=0.05,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=0,  # nothing is drawn, but without it the global generator is
        categorical_features=[width - 1] if labels.max() < CATEGORIES else None,
    )
    fill = SimpleImputer(keep_empty_features=True)
    return make_pipeline(fill, StandardScaler(), LogisticRegression(max_iter=1000)), trees

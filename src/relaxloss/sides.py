"""Are members and non-members comparable? What an audit can tell of its own samples before any attack."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.stats

from relaxloss.checks import Bools, Ints

FEWEST_EXPECTED = 5  # of a class on each side: the chi-square test's usual condition; rarer classes are counted as one


def better_than_chance(predicted: Ints, labels: Ints) -> tuple[float, float, float]:
    """Accuracy, the accuracy expected if the same labels stood in random order, and how likely chance does so well.

    With a_c predictions and b_c labels of class c among n samples, randomly ordered labels agree with μ = Σ a_c b_c / n
    of them, and the variance of that number is (Σ a_c b_c − Σ a_c b_c (a_c + b_c) / n + μ²) / (n − 1) (Hoeffding,
    Annals of Mathematical Statistics 22, 1951). The p-value is one-sided and from the normal distribution; it is 1
    where all predictions or all labels are the same.

    Args:
        predicted: ``(n,)`` classes from 0, n of at least 2.
        labels: ``(n,)`` the true ones.
    """
    n = len(labels)
    classes = int(max(predicted.max(), labels.max())) + 1
    a, b = (np.bincount(each, minlength=classes).astype(float) for each in (predicted, labels))
    mean = (a * b).sum() / n
    variance = ((a * b).sum() - (a * b * (a + b)).sum() / n + mean**2) / (n - 1)
    hits = float((predicted == labels).sum())
    if variance <= 1e-9:
        return hits / n, mean / n, 1.0
    return hits / n, mean / n, float(scipy.stats.norm.sf((hits - mean) / math.sqrt(variance)))


def copies(outputs: npt.NDArray[np.floating[Any]], labels: Ints, member: Bools) -> float:
    """The share of non-members with the very outputs and label of a member: the same record, if outputs are exact.

    Rows whose probabilities are all 0 or 1 in the outputs' precision are left out: many records share those.

    Args:
        outputs: ``(N, C)`` logits.
        labels: ``(N,)`` true classes.
        member: ``(N,)`` booleans.
    """
    top = outputs.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        graded = (np.exp(outputs - top) > 1e-7).sum(axis=1) > 1
    rows = np.ascontiguousarray(np.column_stack([outputs, labels]))
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).reshape(-1)
    return float((np.isin(keys[~member], keys[member]) & graded[~member]).mean())


def class_mix(labels: Ints, member: Bools, classes: tuple[str, ...]) -> tuple[float, str]:
    """The p-value of the chi-square test that both sides have the same mix of classes; the class that differs most.

    Args:
        labels: ``(N,)`` true classes.
        member: ``(N,)`` booleans.
        classes: their names.
    """
    counts = np.stack([np.bincount(labels[side], minlength=len(classes)) for side in (member, ~member)])
    shares = counts / counts.sum(axis=1, keepdims=True)
    most = int(np.abs(shares[0] - shares[1]).argmax())
    said = f"class {classes[most]} is {shares[0, most]:.1%} of the members and {shares[1, most]:.1%} of the non-members"
    expected = counts.sum(axis=0) * counts.sum(axis=1).min() / counts.sum()
    frequent = expected >= FEWEST_EXPECTED
    table = np.column_stack([counts[:, frequent], counts[:, ~frequent].sum(axis=1)])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return 1.0, said
    return float(scipy.stats.chi2_contingency(table, correction=False).pvalue), said

"""Are members and non-members comparable? What an audit can tell of its own samples before any attack."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.optimize
import scipy.special
import scipy.stats

from relaxloss.validation import Bools, Ints

POWER = 12  # deviations that the probabilities must claim above chance before labels at chance mean something
TWINS = 3
COARSE = 0.1  # share of the outputs' numbers that must differ: a forest's are multiples of 1 / trees
REPEATED = 30  # times as often as across the sides, rows on one side must agree to be repeats and no coarse outputs
EXCHANGED = 5  # deviations by which another order of the classes must fit better
FEWEST_EXPECTED = 5  # of a class on each side: the chi-square test's usual condition; rarer classes are counted as one


class LabelFit(NamedTuple):
    """How well probabilities fit their labels: the mean probability of the true class, against two extremes.

    Attributes:
        found: that mean.
        chance: what it would be if the same labels stood in random order.
        claimed: what it would be if the labels were drawn from the probabilities themselves.
        p: how likely labels in random order do as well as these.
    """

    found: float
    chance: float
    claimed: float
    p: float


def label_fit(logits: npt.NDArray[np.floating[Any]], labels: Ints) -> LabelFit | None:
    """Do these labels belong to these predictions? None where that cannot be told.

    With probabilities P and the n labels in random order, the sum of the true classes' probabilities has the mean
    μ = Σ_ij c_ij / n and the variance Σ_ij (c_ij - c̄_i. - c̄_.j + c̄)² / (n - 1), where c_ij = P[i, y_j] (Hoeffding,
    Annals of Mathematical Statistics 22, 1951); p is one-sided and from the normal distribution. If the probabilities
    claim no more than `POWER` deviations above chance, as those of a rare outcome may, nothing can be told.

    Args:
        logits: ``(n, C)``, n of at least 2.
        labels: ``(n,)`` true classes.
    """
    n, classes = logits.shape
    p = scipy.special.softmax(logits, axis=1)
    of_label = np.bincount(labels, minlength=classes) / n
    row, column = p @ of_label, p.mean(axis=0)
    chance = float(column @ of_label)
    spread = ((p - row[:, None] - column + chance) ** 2) @ of_label  # over j: n of it for each row i
    deviation = math.sqrt(spread.sum() * n / (n - 1))  # of the sum over the rows
    found, claimed = float(p[np.arange(n), labels].mean()), float((p**2).sum() / n)
    if deviation < 1e-9 or (claimed - chance) * n < POWER * deviation:
        return None
    return LabelFit(found, chance, claimed, float(scipy.stats.norm.sf((found - chance) * n / deviation)))


def copies(outputs: npt.NDArray[np.floating[Any]], labels: Ints, member: Bools) -> float | None:
    """The share of non-members with the very outputs and label of a member, if that is more than the outputs explain.

    Outputs may be coarse (rounded, or the few leaves of a tree): then non-members share theirs with each other as
    well. Only if a member and a non-member agree more than `TWINS` times as often as two non-members do, and the
    outputs hold many different numbers (`COARSE`), the share counts; else it cannot be told, which is None, unless no
    output is shared: 0. Rows whose probabilities are all 0 or 1 in the outputs' precision are left out.

    Args:
        outputs: ``(N, C)`` logits.
        labels: ``(N,)`` true classes.
        member: ``(N,)`` booleans.
    """
    inside, outside = _counts(outputs, labels, member)
    n, m = int(member.sum()), int((~member).sum())
    across, within = (inside * outside).sum() / (n * m), (outside * (outside - 1)).sum() / max(m * (m - 1), 1)
    if across == 0:
        return 0.0
    coarse = len(np.unique(outputs)) < COARSE * outputs.size
    return float(outside[inside > 0].sum() / m) if across > TWINS * within and not coarse else None


def repeats(outputs: npt.NDArray[np.floating[Any]], labels: Ints, member: Bools) -> float:
    """The share of samples with the very outputs and label of another of their side, if that is no chance: else 0.

    Coarse outputs are shared across the sides too: a side counts where two of its rows agree more than `REPEATED` times
    as often as a member and a non-member do. Arguments and what is left out: as in `copies`.
    """
    inside, outside = _counts(outputs, labels, member)
    n, m = int(member.sum()), int((~member).sum())
    across = (inside * outside).sum() / (n * m)
    again = 0
    for counts, size in ((inside, n), (outside, m)):
        within = (counts * (counts - 1)).sum() / max(size * (size - 1), 1)
        again += int(counts[counts > 1].sum()) if within > REPEATED * across else 0
    return again / len(labels)


def _counts(outputs: npt.NDArray[np.floating[Any]], labels: Ints, member: Bools) -> tuple[Ints, Ints]:
    """How many members, and how many non-members, have each of the different rows of outputs and label."""
    top = outputs.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        graded = (np.exp(outputs - top) > 1e-7).sum(axis=1) > 1
    rows = np.ascontiguousarray(np.column_stack([outputs, labels]))
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).reshape(-1)
    _, codes = np.unique(keys, return_inverse=True)
    inside, outside = (np.bincount(codes[side & graded], minlength=len(rows)) for side in (member, ~member))
    return inside, outside


def exchanged(logits: npt.NDArray[np.floating[Any]], labels: Ints) -> tuple[float, float, float]:
    """Would the columns fit the labels better in another order?

    The mean probability of the true class; what it would be in the order of the columns that fits best (an assignment
    problem on the classes' mean probabilities); by how many standard errors that is more. ``(p, p, 0)`` if the order
    that is given is the best.

    Args:
        logits: ``(n, C)``.
        labels: ``(n,)`` true classes.
    """
    p = scipy.special.softmax(logits, axis=1)
    fit = np.zeros((p.shape[1], p.shape[1]))
    np.add.at(fit, labels, p)
    order = scipy.optimize.linear_sum_assignment(fit, maximize=True)[1]
    rows = np.arange(len(labels))
    found, other = p[rows, labels], p[rows, order[labels]]
    gain = other - found
    error = float(gain.std() / math.sqrt(len(gain)))
    return float(found.mean()), float(other.mean()), float(gain.mean()) / error if error > 0 else 0.0


def copied_rows(x: npt.NDArray[Any], labels: Ints, members: Ints, nonmembers: Ints) -> float | None:
    """The share of non-members whose row and label are those of some member, bit for bit; None if there are none.

    Args:
        x: ``(M, ...)`` the pool's rows.
        labels: ``(M,)``.
        members: the members' places in the pool.
        nonmembers: those of the asked non-members.
    """
    if not len(nonmembers):
        return None
    known = {(x[place].tobytes(), labels[place]) for place in members}
    return float(np.mean([(x[place].tobytes(), labels[place]) in known for place in nonmembers]))


def class_mix(labels: Ints, member: Bools, classes: tuple[str, ...]) -> tuple[float, float, str]:
    """How far the mixes of classes of both sides are from each other, and the class that differs most.

    The p-value of the chi-square test that they are the same; the total variation distance between them (the share of
    samples that would have to change class); a sentence.

    Args:
        labels: ``(N,)`` true classes.
        member: ``(N,)`` booleans.
        classes: their names.
    """
    counts = np.stack([np.bincount(labels[side], minlength=len(classes)) for side in (member, ~member)])
    shares = counts / counts.sum(axis=1, keepdims=True)
    distance = float(np.abs(shares[0] - shares[1]).sum() / 2)
    most = int(np.abs(shares[0] - shares[1]).argmax())
    said = f"class {classes[most]} is {shares[0, most]:.1%} of the members and {shares[1, most]:.1%} of the non-members"
    expected = counts.sum(axis=0) * counts.sum(axis=1).min() / counts.sum()
    frequent = expected >= FEWEST_EXPECTED
    table = np.column_stack([counts[:, frequent], counts[:, ~frequent].sum(axis=1)])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return 1.0, distance, said
    return float(scipy.stats.chi2_contingency(table, correction=False).pvalue), distance, said

"""The ROC curve of membership scores: its area, its points, and the best thresholds.

Everywhere: `scores` ``(N,)`` with higher = member, ``-inf`` and ``inf`` allowed; `member` ``(N,)`` bool or 0/1; ties
count one half. Every function raises `UserError` for NaN, unequal lengths, and for samples that are all members or all
non-members.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from relaxloss.errors import UserError

Floats = npt.NDArray[np.float64]
RESOLVED = 10  # false positives below which a TPR at that FPR is "not measured"


def auc(scores: npt.ArrayLike, member: npt.ArrayLike) -> float:
    """``P(s_member > s_non) + P(s_member = s_non) / 2``, the area under the ROC curve."""
    members, others = groups(scores, member)
    return float(beaten(np.sort(members), np.sort(others)).mean())


def roc(scores: npt.ArrayLike, member: npt.ArrayLike) -> tuple[Floats, Floats, Floats]:
    """False and true positive rates of the rule ``score >= threshold`` at every distinct score, and the thresholds.

    Equal scores make one step. The first point is (0, 0) at ``inf``: nobody is called a member.
    """
    members, others = groups(scores, member)
    thresholds = np.unique(np.concatenate([members, others]))[::-1]
    tpr, fpr = ((len(part) - np.searchsorted(np.sort(part), thresholds)) / len(part) for part in (members, others))
    return np.r_[0.0, fpr], np.r_[0.0, tpr], np.r_[np.inf, thresholds]


def tpr_at_fpr(scores: npt.ArrayLike, member: npt.ArrayLike, fpr: float = 0.001) -> float:
    """The largest TPR of all thresholds whose FPR is at most `fpr`: no interpolation, and ties are not split.

    ``⌊fpr·n⌋`` of the n non-members may score above the threshold. Raises `UserError` unless ``0 <= fpr <= 1``.
    """
    members, others = groups(scores, member)
    return true_positives(np.sort(members), np.sort(others), allowed(len(others), fpr)) / len(members)


def threshold_at_fpr(scores: npt.ArrayLike, member: npt.ArrayLike, fpr: float = 0.001) -> float:
    """The score that `tpr_at_fpr` accuses strictly above: the (⌊fpr·n⌋ + 1)-th highest of the n non-members' scores."""
    _, others = groups(scores, member)
    permitted = allowed(len(others), fpr)
    return -np.inf if permitted >= len(others) else float(np.sort(others)[len(others) - 1 - permitted])


def resolvable(nonmembers: int, fpr: float) -> bool:
    """Whether so many non-members allow 10 false positives at `fpr`; a TPR at a lower FPR is "not measured"."""
    return allowed(nonmembers, fpr) >= RESOLVED


def tied_top(scores: npt.ArrayLike, member: npt.ArrayLike, fpr: float) -> int:
    """How many non-members share the score that stands between every threshold and `fpr`; 0 if ties cost little.

    Where they do, the threshold with the largest FPR up to `fpr` has less than half of it: a TPR there is one of a
    lower FPR, of 0 in the end, and says nothing of this one.
    """
    _, others = groups(scores, member)
    permitted, cut = allowed(len(others), fpr), threshold_at_fpr(scores, member, fpr)
    return 0 if 2 * int((others > cut).sum()) >= permitted else int((others == cut).sum())


def tied_share(scores: npt.ArrayLike, member: npt.ArrayLike) -> float:
    """Share of the pairs (member, non-member) with equal scores: splitting these ties moves AUC by half of it."""
    members, others = groups(scores, member)
    others.sort()
    equal = np.searchsorted(others, members, "right") - np.searchsorted(others, members, "left")
    return float(equal.mean() / len(others))


def best_threshold(scores: npt.ArrayLike, member: npt.ArrayLike) -> float:
    """The score t that maximises the balanced accuracy of ``score >= t``; the highest, if several do.

    One sort per group; only members' scores can be best, since between them a lower threshold adds nothing but false
    positives. Counts are compared as integers, so rounding decides no tie.
    """
    members, others = (np.sort(group) for group in groups(scores, member))
    true = len(members) - np.searchsorted(members, members)
    false = len(others) - np.searchsorted(others, members)
    gain = true * len(others) - false * len(members)
    return float(members[len(gain) - 1 - int(gain[::-1].argmax())])


def best_thresholds(scores: npt.ArrayLike, member: npt.ArrayLike, labels: npt.ArrayLike, num_classes: int) -> Floats:
    """`best_threshold` within each class, ``(C,)``; the global one for a class that lacks members or non-members."""
    groups(scores, member)
    s, is_member, y = np.asarray(scores, np.float64), np.asarray(member).astype(bool), np.asarray(labels)
    if y.shape != s.shape or y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= num_classes:
        raise UserError(f"labels are {y.dtype} {y.shape}; expected ({len(s)},) integers in 0 to {num_classes - 1}")
    order = np.lexsort((-s, y))
    s, is_member, y = s[order], is_member[order], y[order]
    sizes = np.bincount(y, minlength=num_classes)
    members = np.bincount(y[is_member], minlength=num_classes)
    true, rank = np.cumsum(is_member), np.arange(1, len(s) + 1)
    start, before = np.cumsum(sizes) - sizes, np.cumsum(members) - members
    true, rank = true - before[y], rank - start[y]
    gain = true * (sizes - members)[y] - (rank - true) * members[y]
    gain[:-1][(s[1:] == s[:-1]) & (y[1:] == y[:-1])] = np.iinfo(np.int64).min  # no threshold parts equal scores
    thresholds = np.full(num_classes, best_threshold(scores, member))
    present = np.flatnonzero(sizes)
    best = np.zeros(num_classes, dtype=np.int64)
    best[present] = np.maximum.reduceat(gain, start[present])
    at_best = np.flatnonzero(gain == best[y])
    classes, first = np.unique(y[at_best], return_index=True)
    decided = (members > 0) & (members < sizes)
    thresholds[classes] = np.where(decided[classes], s[at_best[first]], thresholds[classes])
    return thresholds


def balanced_accuracy(scores: npt.ArrayLike, member: npt.ArrayLike, threshold: npt.ArrayLike) -> float:
    """``(TPR + TNR) / 2`` of ``score >= threshold``; `threshold` is one number, or one per sample ``(N,)``."""
    true, n, false, m = counts(scores, member, threshold)
    return (true / n + 1 - false / m) / 2


# Beneath, also for relaxloss.metrics.intervals


def groups(scores: npt.ArrayLike, member: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Fresh arrays: the members' scores and the non-members'."""
    try:
        s, flags = np.asarray(scores, dtype=np.float64), np.asarray(member)
    except (TypeError, ValueError) as error:
        raise UserError(f"scores or member flags are no arrays of numbers: {error}") from None
    if s.ndim != 1 or flags.shape != s.shape:
        raise UserError(f"scores have shape {s.shape}, member {flags.shape}; expected (N,) for both")
    if np.isnan(s).any():
        raise UserError(
            f"{int(np.isnan(s).sum())} of {len(s)} scores are NaN; give every sample a score (-inf is legal)"
        )
    if flags.dtype.kind not in "biuf" or not ((flags == 0) | (flags == 1)).all():
        raise UserError(f"member holds {flags.dtype} values other than 0 and 1; expected booleans, true for members")
    inside = flags.astype(bool)
    if not inside.any() or inside.all():
        raise UserError(
            f"{int(inside.sum())} of {len(s)} samples are members; expected some members and some non-members"
        )
    return s[inside], s[~inside]


def beaten(scores: Floats, sorted_others: Floats) -> Floats:
    """The share of the others that each score exceeds, ties one half (DeLong's placements)."""
    left, right = (np.searchsorted(sorted_others, scores, side) for side in ("left", "right"))
    return (left + right) / (2.0 * len(sorted_others))


def allowed(nonmembers: int, fpr: float) -> int:
    """The largest k with ``k / nonmembers <= fpr``. Not ``⌊fpr·n⌋``: in floating point ``⌊0.29·100⌋`` is 28."""
    if not 0 <= fpr <= 1:
        raise UserError(f"fpr={fpr!r}; expected a false positive rate between 0 and 1, such as 0.001")
    if nonmembers < 1:
        raise UserError(f"got {nonmembers} non-members; expected at least one")
    nearest = round(fpr * nonmembers)
    return nearest - (nearest / nonmembers > fpr)


def true_positives(members: Floats, others: Floats, allowed: int) -> int:
    """Members above the (allowed + 1)-th highest non-member; both sorted."""
    if allowed >= len(others):
        return len(members)
    return len(members) - int(np.searchsorted(members, others[len(others) - 1 - allowed], "right"))


def counts(scores: npt.ArrayLike, member: npt.ArrayLike, threshold: npt.ArrayLike) -> tuple[int, int, int, int]:
    """True positives, members, false positives, non-members."""
    members, others = groups(scores, member)
    cut = np.asarray(threshold, dtype=np.float64)
    inside = np.asarray(member).astype(bool)
    if cut.shape not in ((), inside.shape) or np.isnan(cut).any():
        raise UserError(f"threshold has shape {cut.shape} or holds NaN; expected one number, or ({len(inside)},)")
    called = np.asarray(scores, dtype=np.float64) >= cut
    return int(called[inside].sum()), len(members), int(called[~inside].sum()), len(others)

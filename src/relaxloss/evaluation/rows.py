"""Measures: arrays → rows of the result table, each with its interval, its n, or the reason why it was not measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from relaxloss import metrics, seeds
from relaxloss.attacks.base import Scores

Row = dict[str, Any]
Bool = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
FPRS = (0.01, 0.001)
TPRS = tuple(f"tpr_at_{fpr:g}_fpr" for fpr in FPRS)


def row(measure: str, value: float, *, n: int, low: float = np.nan, high: float = np.nan, attack: str = "",
        note: str = "") -> Row:  # fmt: skip
    """One row's own columns; the experiment adds what it was measured on."""
    return {"measure": measure, "attack": attack, "value": value, "low": low, "high": high, "n": n, "note": note}


def utility(
    member_logits: npt.NDArray[Any],
    member_labels: Ints,
    test_logits: npt.NDArray[Any],
    test_labels: Ints,
    *,
    distinct: int | None = None,
    distinct_members: int | None = None,
    level: float = 0.95,
) -> list[Row]:
    """Accuracy (top-1, top-5) on test samples, and what differs between members and non-members.

    Where several models were asked about the same samples, `distinct` is how many different test samples there are, and
    `distinct_members` how many different members: the intervals count each once.

    ``top1``, ``top5``, ``train_top1``, ``calibration_error`` in 0..1; ``accuracy_gap`` = train - test;
    ``member_loss``, ``test_loss`` means in nats with their variances; ``loss_gap`` = test - member.
    """
    n, members = len(test_labels), len(member_labels)
    distinct, distinct_members = distinct or n, distinct_members or members
    test_hits = metrics.top_k(test_logits, test_labels, 1)
    member_hits = metrics.top_k(member_logits, member_labels, 1)
    rows = []
    for name, k in (("top1", 1), ("top5", 5)):
        if k < test_logits.shape[-1]:
            value = metrics.top_k(test_logits, test_labels, k)
            low, high = metrics.wilson(round(value * distinct, 6), distinct, level)
            rows.append(row(name, value, low=low, high=high, n=n))
        else:
            rows.append(row(name, np.nan, n=n, note=f"not measured: there are {test_logits.shape[-1]} classes"))
    low, high = metrics.wilson(round(member_hits * distinct_members, 6), distinct_members, level)
    rows.append(row("train_top1", member_hits, low=low, high=high, n=members))
    rows.append(row("accuracy_gap", member_hits - test_hits, n=n))
    rows.append(row("calibration_error", metrics.calibration_error(test_logits, test_labels), n=n))
    member_losses = metrics.losses(member_logits, member_labels)
    test_losses = metrics.losses(test_logits, test_labels)
    for name, losses in (("member", member_losses), ("test", test_losses)):
        rows.append(row(f"{name}_loss", float(losses.mean()), n=len(losses)))
        rows.append(row(f"{name}_loss_variance", float(losses.var()), n=len(losses)))
    rows.append(row("loss_gap", float(test_losses.mean() - member_losses.mean()), n=n))
    return rows


def persons_of(whose: Ints) -> int:
    """How many persons tell as much as those of the samples ``(n,)``: ``(Σk)² / Σk²`` of k samples each (Kish 1965).

    As many as there are, if all have the same number of samples; fewer, if some have many.
    """
    counts = np.unique(whose, return_counts=True)[1]
    return max(1, round(float(counts.sum()) ** 2 / float(np.square(counts, dtype=np.float64).sum())))


def skill(rows: Sequence[Row], labels: Ints) -> tuple[float, float, float]:
    """``top1`` of the rows, the lower end of its interval, and the accuracy of naming always the most frequent class.

    Args:
        rows: of `utility`.
        labels: ``(n,)`` of the test samples.
    """
    top1 = next(item for item in rows if item["measure"] == "top1")
    return float(top1["value"]), float(top1["low"]), float(np.bincount(labels).max() / len(labels))


def attack(
    name: str,
    scores: Scores,
    member: Bool,
    *,
    clusters: metrics.Clusters | None = None,
    level: float = 0.95,
    note: str = "",
) -> list[Row]:
    """AUC with DeLong's interval, and TPR at 1 % and 0.1 % FPR with Clopper-Pearson's where the FPR is resolvable.

    That takes non-members enough, and that not too many of them share a score.

    Where the same records were asked of several models, `clusters` says of which each score is, and the intervals
    reckon with both (`relaxloss.metrics.clusters`).
    """
    n = len(scores)
    low, high = auc_interval(scores, member, clusters, level)
    rows = [row("auc", metrics.auc(scores, member), low=low, high=high, n=n, attack=name, note=note)]
    nonmembers = int((~member).sum())
    for fpr, measure in zip(FPRS, TPRS, strict=True):
        if not metrics.resolvable(nonmembers, fpr):
            why = f"not measured: {nonmembers} non-members give {fpr * nonmembers:.1f} false positives, fewer than 10"
            rows.append(row(measure, np.nan, n=n, attack=name, note=why))
        elif tied := metrics.tied_top(scores, member, fpr):
            why = f"not measured: {tied} of {nonmembers} non-members share a score, so that no threshold comes near"
            rows.append(row(measure, np.nan, n=n, attack=name, note=why))
        else:
            if clusters is None:
                low, high = metrics.tpr_interval(scores, member, fpr=fpr, level=level, threshold="estimated")
            else:
                low, high = metrics.clustered_tpr_interval(scores, member, clusters, fpr=fpr, level=level)
            value = metrics.tpr_at_fpr(scores, member, fpr=fpr)
            rows.append(row(measure, value, low=low, high=high, n=n, attack=name, note=note))
    return rows


def auc_interval(
    scores: Scores, member: Bool, clusters: metrics.Clusters | None, level: float = 0.95
) -> metrics.Interval:
    """The AUC's interval, over records and models where there are several of both."""
    if clusters is None:
        return metrics.auc_interval(scores, member, level)
    return metrics.clustered_auc_interval(scores, member, clusters, level)


def auc_difference_interval(
    scores: Scores, other: Scores, member: Bool, clusters: metrics.Clusters | None, level: float = 0.95
) -> metrics.Interval:
    """The interval of the first AUC less the other, likewise."""
    if clusters is None:
        return metrics.auc_difference_interval(scores, other, member, level)
    return metrics.clustered_auc_difference_interval(scores, other, member, clusters, level)


def half(n: int, clusters: metrics.Clusters | None, *, seed: int, stream: str) -> Bool:
    """A random half of n scores ``(n,)``; where clusters are given, each record is in it with all its scores."""
    record = np.arange(n) if clusters is None else np.unique(clusters.records, return_inverse=True)[1]
    chosen: Bool = (seeds.rng(seed, stream).random(record.max() + 1) < 0.5)[record]
    return chosen


def decision(
    name: str,
    scores: Scores,
    member: Bool,
    rehearsal: tuple[Scores, Bool],
    classes: tuple[Ints, Ints] | None,
    num_classes: int,
    *,
    clusters: metrics.Clusters | None = None,
    level: float = 0.95,
) -> list[Row]:
    """Balanced accuracy at thresholds chosen on a shadow (`rehearsal`: its scores and membership).

    One threshold for all samples, and one per class (`classes`: the labels of the samples, and of the rehearsal's; None
    where they have none). Not measured where the rehearsal is NaN: it needs another shadow.
    """
    shadow_scores, shadow_member = rehearsal
    if np.isnan(shadow_scores).any():
        why = "not measured: the attack cannot be rehearsed on a shadow, mostly because it needs one more of them"
        names = ("balanced_accuracy", "balanced_accuracy_per_class")
        return [row(measure, np.nan, n=len(scores), attack=name, note=why) for measure in names]
    thresholds: dict[str, Any] = {"balanced_accuracy": metrics.best_threshold(shadow_scores, shadow_member)}
    rows = []
    if classes is not None:
        labels, shadow_labels = classes
        each = metrics.best_thresholds(shadow_scores, shadow_member, shadow_labels, num_classes)
        thresholds["balanced_accuracy_per_class"] = each[labels]
    else:
        why = "not measured: a person's samples may be of several classes"
        rows.append(row("balanced_accuracy_per_class", np.nan, n=len(scores), attack=name, note=why))
    for measure, threshold in thresholds.items():
        if clusters is None:
            low, high = metrics.balanced_accuracy_interval(scores, member, threshold, level)
        else:
            low, high = metrics.clustered_balanced_accuracy_interval(scores, member, threshold, clusters, level)
        value = metrics.balanced_accuracy(scores, member, threshold)
        rows.append(row(measure, value, low=low, high=high, n=len(scores), attack=name))
    return rows


def worst(
    table: Mapping[str, Scores],
    member: Bool,
    made: Sequence[Row],
    *,
    seed: int,
    clusters: metrics.Clusters | None = None,
    level: float = 0.95,
) -> list[Row]:
    """The strongest attack twice: ``max`` over all on all samples, and ``selected`` on one half, measured on the other.

    The maximum is taken for each measure (`made`: the rows of all attacks), so that at a low FPR another attack may be
    the strongest than by AUC. It is biased upwards by the selection; the second, chosen by its AUC, is not. A record
    that was asked of several models is in one half with all its scores.
    """
    rows = []
    for measure in ("auc", *TPRS):
        mine = [item for item in made if item["measure"] == measure and item["attack"] in table]
        most = max(mine, key=lambda item: -np.inf if np.isnan(item["value"]) else item["value"])
        rows.append(most | {"attack": "max", "note": most["note"] or f"by {most['attack']}"})
    first = half(len(member), clusters, seed=seed, stream="selection")
    if all(part.any() and not part.all() for part in (member[first], member[~first])):
        on_half = {name: metrics.auc(scores[first], member[first]) for name, scores in table.items()}
        chosen = max(on_half, key=lambda name: on_half[name])
        rest = None if clusters is None else clusters.take(~first)
        found = attack("selected", table[chosen][~first], member[~first], clusters=rest, level=level)
        rows += [item | {"note": item["note"] or f"by {chosen}"} for item in found]
    return rows


def loss_histogram(losses: npt.NDArray[np.float64], num_classes: int, bins: int = 60) -> list[Row]:
    """Shares of losses in equal bins from 0 to 3 log C; what is above falls into the last."""
    top = 3 * float(np.log(num_classes))
    counts, edges = np.histogram(np.clip(losses, 0, top), bins=bins, range=(0, top))
    shares = counts / max(len(losses), 1)
    return [
        {"left": float(left), "right": float(right), "share": float(share)}
        for left, right, share in zip(edges, edges[1:], shares, strict=False)
    ]


def thinned_roc(scores: Scores, member: Bool, points: int = 200) -> list[Row]:
    """The ROC curve at so many false-positive rates, spaced evenly on a log scale from 1 / non-members to 1."""
    fpr, tpr, _ = metrics.roc(scores, member)
    grid = np.geomspace(1 / max(int((~member).sum()), 2), 1, points)
    place = np.searchsorted(fpr, grid, side="right") - 1
    return [{"fpr": float(f), "tpr": float(t)} for f, t in zip(grid, tpr[place], strict=True)]

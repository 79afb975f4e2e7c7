"""What an audit makes of scores: the strongest attack in numbers, a line per record, facts for the flags."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.stats

from relaxloss import metrics
from relaxloss.attacks import functional
from relaxloss.attacks.base import Evidence, Scores
from relaxloss.attacks.functional.shapes import bounded
from relaxloss.auditing.predictions import Predictions
from relaxloss.evaluation import blind_baseline, comparability, flags, score_facts
from relaxloss.evaluation import rows as measures
from relaxloss.evaluation.flags import Facts, Flag
from relaxloss.evaluation.grouping import Grouping
from relaxloss.evaluation.records import exposure
from relaxloss.evaluation.rows import TPRS

FEWEST_OF_CLASS = 10  # members, and non-members, of whom an AUC within a class says anything


def worst(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The strongest attack's name and numbers, from the rows of `measures.worst`; None where not measured.

    ``attack`` has the largest AUC; ``tpr_at_..._fpr_attack`` the largest share of members found there.
    """
    found: dict[str, Any] = {}
    for which, start in (("max", ""), ("selected", "selected_")):
        mine = {item["measure"]: item for item in rows if item["attack"] == which}
        found[f"{start}attack"] = mine["auc"]["note"].removeprefix("by ") if mine else None
        if which == "max":
            for measure in TPRS:
                known = not math.isnan(mine[measure]["value"])
                found[f"{measure}_attack"] = mine[measure]["note"].removeprefix("by ") if known else None
        for measure in ("auc", *TPRS):
            item = mine.get(measure, {"value": np.nan, "low": np.nan, "high": np.nan})
            for end, key in (("", "value"), ("_low", "low"), ("_high", "high")):
                found[f"{start}{measure}{end}"] = None if math.isnan(item[key]) else float(item[key])
    return found


def shown(
    table: Mapping[str, Scores], member: npt.NDArray[np.bool_], found: Mapping[str, Any], level: float
) -> dict[str, Any]:
    """What was shown, beside `worst` (`found`), corrected for all attacks and for four tests of each.

    ``shown``: that the strongest attack's AUC is above one half; ``shown_at``: the measures at whose low FPR more
    members are found than by guessing; ``alone``: the attack by which improbably many members score above every
    non-member, how many, and the probability that k of n do in a random order, ``Π_{i<k} (n - i) / (n + m - i)``; None
    if there is none.
    """
    tests = 4 * len(table)
    corrected = 1 - (1 - level) / tests
    at = []
    for fpr, measure in zip(measures.FPRS, TPRS, strict=True):
        if (name := found[f"{measure}_attack"]) is not None:
            low, _ = metrics.tpr_interval(table[name], member, fpr=fpr, level=corrected, threshold="estimated")
            at += [measure] if low > fpr else []
    n, alone = int(member.sum()), []
    for name, scores in table.items():
        above = int((scores[member] > scores[~member].max()).sum())
        ranks = np.arange(above)
        alone.append((float(np.log((n - ranks) / (len(member) - ranks)).sum()), above, name))
    log_p, count, attack = min(alone)
    return {
        "shown": bool(metrics.auc_interval(table[found["attack"]], member, corrected)[0] > 0.5),
        "shown_at": at,
        "alone": {"attack": attack, "members": count, "p": math.exp(max(log_p, -690.0))}
        if log_p < math.log(1 - corrected)
        else None,
    }


def by_class(table: Mapping[str, Scores], found: Predictions, asked: Grouping, level: float) -> list[dict[str, Any]]:
    """The strongest attack within each class that has members and non-members enough, the most exposed class first.

    Each with an interval that is corrected for all attacks and classes. Nothing where persons have several samples,
    which may be of several classes.
    """
    if not asked.single:
        return []
    labels, member = found.labels[asked.records], found.member[asked.records]
    sizes = [np.bincount(labels[side], minlength=len(found.classes)) for side in (member, ~member)]
    places = np.flatnonzero(np.minimum(*sizes) >= FEWEST_OF_CLASS)
    corrected = 1 - (1 - level) / max(len(places) * len(table), 1)
    lines = []
    for place in places:
        inside = labels == place
        areas = {name: metrics.auc(scores[inside], member[inside]) for name, scores in table.items()}
        attack = max(areas, key=lambda name: areas[name])
        low, high = metrics.auc_interval(table[attack][inside], member[inside], corrected)
        members, others = (int(each[place]) for each in sizes)
        head = {"class": found.classes[place], "members": members, "nonmembers": others, "attack": attack}
        lines.append(head | {"auc": areas[attack], "low": low, "high": high})
    return sorted(lines, key=lambda line: -line["low"])


def records(scores: Scores, found: Predictions, asked: Grouping) -> pd.DataFrame:
    """One line per sample, or per person with several, the most exposed first; see `auditing.Audit`."""
    member, names = found.member[asked.records], np.array(found.classes)
    rank, fpr = exposure(scores, member)
    table = pd.DataFrame(
        {
            "index": asked.records,
            "label": names[found.labels[asked.records]],
            "predicted": names[found.logits[asked.records].argmax(axis=1)],
            "member": member,
            "score": scores,
            "rank": rank,
            "fpr": fpr,
        }
    )
    if not asked.single:
        table.insert(1, "samples", asked.counts)
    if found.ids is not None:
        table.insert(1, "id", found.ids[asked.records])
    return table.sort_values(["rank", "index"], ignore_index=True)


def facts(
    table: Mapping[str, Scores],
    found: Predictions,
    asked: Grouping,
    rows: Sequence[measures.Row],
    adaptive: bool | None,
    evidence: Evidence,
) -> Facts:
    """What the flags are decided on: the scores of whom is asked; `rows` hold those of `measures.utility`."""
    once = asked.records
    member = found.member[once]
    fits = {}
    logits, labels = found.logits[once], found.labels[once]  # one of each person: the others would not be independent
    for side, inside in (("the members", member), ("the non-members", ~member)):
        if (fit := comparability.label_fit(logits[inside], labels[inside])) is not None:
            fits[side] = fit
    answers, hinges = [], np.zeros((len(evidence.shadows), len(evidence.asked)))  # of each shadow, read once
    for place, shadow in enumerate(evidence.shadows):
        plain = shadow.take(evidence.asked).plain
        answers.append((place + 1, comparability.label_fit(plain[once], labels)))
        hinges[place] = bounded(functional.hinge(plain, found.labels))[0]
    each = None
    if evidence.aligned:
        has = float(found.shadow_member[:, once].mean())
        each = len(found.shadow_member) * min(has, 1 - has)
    if known := [(fit.p, place, fit) for place, fit in answers if fit is not None]:
        _, place, fit = max(known)
        fits[f"shadow {place}"] = fit  # the worst of them
    return Facts(
        **score_facts.facts(table, member),
        shadows=len(found.shadow_member),
        shadows_each=each,
        adaptive=adaptive,
        label_fit=fits or None,
        copies=comparability.copies(found.logits, found.labels, found.member),
        skill=measures.skill(rows, found.labels[~found.member]),
        repeats=comparability.repeats(logits, labels, member),
        exchanged=comparability.exchanged(logits, labels),
        bystanders=_bystanders(hinges, found, asked),
        blind=None if evidence.x is None else _blind(evidence, found, asked),
        rows_per_person=_interval(asked.counts.astype(np.float64), member),
        unlike=None if adaptive is False else _unlike(hinges, found, asked),
        class_mix=comparability.class_mix(labels, member, found.classes),
    )


def _interval(scores: Scores, member: npt.NDArray[np.bool_]) -> tuple[float, float, float]:
    """The AUC and its interval, at the level of the flags."""
    return metrics.auc(scores, member), *metrics.auc_interval(scores, member, flags.AUC_LEVEL)


def _bystanders(
    hinges: npt.NDArray[np.float64], found: Predictions, asked: Grouping
) -> tuple[float, float, float] | None:
    """Of the mean confidence of those shadows that lack a sample, for persons whom some lack."""
    member = found.member[asked.records]
    lacked = (~found.shadow_member).sum(axis=0)
    known = lacked[asked.records] > 0
    if not (known & member).any() or not (known & ~member).any():
        return None
    mean = np.where(found.shadow_member, 0, hinges).sum(axis=0) / np.maximum(lacked, 1)
    return _interval(asked.mean(mean)[known], member[known])


def _blind(evidence: Evidence, found: Predictions, asked: Grouping) -> tuple[float, float, float] | None:
    assert evidence.x is not None
    x = evidence.x[evidence.asked]
    return blind_baseline.auc(x, found.labels, found.member, asked, evidence.seed, flags.AUC_LEVEL)


def _unlike(hinges: npt.NDArray[np.float64], found: Predictions, asked: Grouping) -> tuple[float, float, float] | None:
    """The AUC of the target's confidence for its members, the shadows' mean one for theirs, their distance in errors.

    Shadows of the target's kind are as likely as it to have any AUC. The variance of one is taken as DeLong's of the
    target's, or the shadows' own if that is larger.
    """
    own = found.shadow_member[:, asked.records]
    both = np.flatnonzero(own.any(axis=1) & ~own.all(axis=1))
    if not len(both):
        return None
    member = found.member[asked.records]
    target = asked.mean(bounded(functional.hinge(found.logits, found.labels))[0])
    areas = np.array([metrics.auc(asked.mean(hinges[place]), own[place]) for place in both])
    area, low, high = _interval(target, member)
    sampled = ((high - low) / (2 * scipy.stats.norm.ppf((1 + flags.AUC_LEVEL) / 2))) ** 2
    variance = max(sampled, float(areas.var(ddof=1)) if len(areas) > 1 else 0.0, 1e-12)
    mean = float(areas.mean())
    return area, mean, (area - mean) / math.sqrt(variance * (1 + 1 / len(areas)))


def design_flags(found: Predictions, asked: Grouping) -> tuple[Flag, ...]:
    """A flag if the number of shadows that have a sample tells whether the target has it too."""
    if not len(found.shadow_member):
        return ()
    counts, member = asked.mean(found.shadow_member.sum(axis=0)), found.member[asked.records]
    area, low, high = _interval(counts, member)
    if low <= 0.5 <= high:
        return ()
    return (
        Flag(
            "shadow_design",
            raised_if="the number of shadows that were trained on a sample tells whether the target was",
            why="Attacks with shadows then read membership from the design and not from the model: if every sample is "
            "in exactly half of all models, they are right without any leak.",
            what_to_do="Put every sample into each model by a coin flip of its own.",
            detail=f"the shadows' counts alone have an AUC of {area:.3f} ({low:.3f} to {high:.3f})",
        ),
    )


def histogram(scores: Scores, member: npt.NDArray[np.bool_], bins: int = 50) -> list[dict[str, Any]]:
    """Shares in equal bins where the scores are; what is beyond falls into the first and the last.

    From the 1 % to the 99 % quantile, but no further than three interquartile ranges beyond the quartiles (Tukey's
    outer fences): a likelihood ratio has tails that would leave all else in one bin.
    """
    (values,) = bounded(scores)
    low, first, third, high = np.quantile(values, [0.01, 0.25, 0.75, 0.99])
    if third > first:
        low, high = max(low, first - 3 * (third - first)), min(high, third + 3 * (third - first))
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # one value, but for rounding
        low, high = low - 0.5, low + 0.5
    found = []
    for group, inside in (("member", member), ("test", ~member)):
        counts, edges = np.histogram(np.clip(values[inside], low, high), bins, (low, high))
        found += [
            {"membership": group, "left": float(left), "right": float(right), "share": count / inside.sum()}
            for left, right, count in zip(edges, edges[1:], counts, strict=False)
        ]
    return found

"""Flags: warnings about the evaluation itself, not about the model. A number is believed only as far as these allow.

A check looks at `Facts` and is decided only if all the facts that it needs are known: what nobody looked at is
`undecided`, never passed. A flag says what raised it, why that matters and what to do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from relaxloss.data import Dataset
from relaxloss.errors import UserError
from relaxloss.evaluation.comparability import EXCHANGED, LabelFit
from relaxloss.training.task import OF_PERSON

FALSE_POSITIVES = 10  # fewer cannot resolve a TPR: with 10, the true FPR may already be half or twice the one asked for
SHADOWS = 16  # about 8 with and 8 without each sample: fewer give no per-sample mean worth the name
EACH = 6  # shadows with, and without, each sample: 16 by fair coins give 8, and by chance hardly fewer on average
TIED = 0.05  # share of tied pairs: how they are split then moves the AUC by up to 0.025 either way
EPSILON = 10.0  # e^10 = 22,026: the odds may change so much (Ponomareva et al., JAIR 2023, call larger ε no guarantee)
CHANCE = 0.05  # p-value above which labels fit their predictions no better than in random order
COPIES = 0.01  # share of non-members: so many blur an AUC by half of that
GAIN = 0.05  # of the true class's mean probability, that another order of the columns must bring; and of an AUC
UNLIKE = 5  # standard errors by which shadows must leak otherwise than the target
MIX = 1e-3, 0.02  # p-value below which, and distance above which, the mix of classes differs between the sides
AUC_LEVEL = 0.999  # of 15 attacks, one is below at 95 % in one null run in three
DISCRETE = frozenset({"correctness", "label_only"})  # attacks whose scores tie by design


@dataclass(frozen=True)
class Facts:
    """What is known about an evaluation; None: not known.

    Attributes:
        nonmembers: how many asked samples are non-members.
        lowest_fpr: the lowest false positive rate that the report wants.
        shadows: K, how many shadow models the attacks had; 0 if none.
        shadows_each: how many of them on average have a sample, and how many lack it: the smaller of the two. None also
            where shadows are not trained on asked samples.
        adaptive: whether some attack's shadows were trained with the target's own defense and settings.
        changed_on_repeat: share of samples whose released output differs when the same query is sent twice.
        changed_labels: share of samples whose top-1 label under the release is not that of the model beneath.
        tied_pairs: `relaxloss.metrics.tied_share` of the attack that heads the report. Not of attacks that are discrete
            by design (correctness, label-only).
        tied_top: `relaxloss.metrics.tied_top` of that attack at the lowest FPR that the non-members resolve.
        label_only_advantage: interval of AUC(attack on labels alone) − AUC(best confidence attack)
            (`relaxloss.metrics.auc_difference_interval`); its lower end is at most 0 where the former finds nobody.
        reference_overlap: how many asked samples are in the reference set that the defense saw.
        auc_intervals: each attack's AUC interval at level 0.999 (`AUC_LEVEL`).
        dp: whether the defense claims differential privacy.
        epsilon: what its accountant says; None or inf if there is no account.
        uncovered: what else of the members is released, without noise.
        delta: the δ that goes with it.
        members: how many samples the target was trained on; where ε is of a person, how many persons.
        most_of_one: the most samples that one person has; where ε is of a person, 1.
        selected_on_asked: whether asked samples chose the model, its settings or the stopping time.
        idle: why the defense did nothing in this training; empty if it acted as far as one can tell.
        label_fit: `comparability.label_fit` of each side that it can be told of, by the side's name.
        copies: the share of non-members that are copies of a member: `comparability.copied_rows` where the rows are
            known, else `comparability.copies`.
        class_mix: `relaxloss.evaluation.comparability.class_mix`.
        skill: the accuracy on non-members, the lower end of its interval, and the share of their most frequent class.
        repeats: `relaxloss.evaluation.comparability.repeats`.
        exchanged: `relaxloss.evaluation.comparability.exchanged`.
        bystanders: how well models that lack a sample tell the target's members from its non-members: the AUC of their
            confidence, and its interval at level 0.999.
        blind: how well a classifier that never saw the model tells members by their samples (`blind_baseline`): its
            AUC and interval, likewise.
        rows_per_person: how well the number of a person's samples tells who is a member: its AUC and interval, too.
        unlike: the AUC of the target's confidence for its own members, the mean of the shadows' for theirs, and by how
            many standard errors they differ.
    """

    nonmembers: int | None = None
    lowest_fpr: float | None = None
    shadows: int | None = None
    shadows_each: float | None = None
    adaptive: bool | None = None
    changed_on_repeat: float | None = None
    changed_labels: float | None = None
    tied_pairs: float | None = None
    tied_top: int = 0
    label_only_advantage: tuple[float, float] | None = None
    reference_overlap: int | None = None
    auc_intervals: Mapping[str, tuple[float, float]] | None = None
    dp: bool | None = None
    epsilon: float | None = None
    uncovered: tuple[str, ...] = ()
    delta: float | None = None
    members: int | None = None
    most_of_one: int = 1
    selected_on_asked: bool | None = None
    idle: str | None = None
    label_fit: Mapping[str, LabelFit] | None = None
    copies: float | None = None
    class_mix: tuple[float, float, str] | None = None
    skill: tuple[float, float, float] | None = None
    repeats: float | None = None
    exchanged: tuple[float, float, float] | None = None
    bystanders: tuple[float, float, float] | None = None
    blind: tuple[float, float, float] | None = None
    rows_per_person: tuple[float, float, float] | None = None
    unlike: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        for name in ("lowest_fpr", "changed_on_repeat", "changed_labels", "tied_pairs", "delta", "copies", "repeats"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise UserError(f"{name}={share!r}; expected a share between 0 and 1, or None if it is not known")
        for name in ("nonmembers", "shadows", "reference_overlap", "members"):
            count = getattr(self, name)
            if count is not None and not count >= 0:
                raise UserError(f"{name}={count!r}; expected a count, or None if it is not known")
        if self.auc_intervals is not None and not self.auc_intervals:
            raise UserError("auc_intervals is empty; expected one interval per attack, or None if none is known")
        intervals = {"label_only_advantage": self.label_only_advantage, **(self.auc_intervals or {})}
        for name, interval in intervals.items():
            if interval is not None and not interval[0] <= interval[1]:
                raise UserError(f"{name}: interval {interval}; expected (low, high), or None if it is not known")


def claims(facts: Mapping[str, Any], dataset: Dataset, members: npt.NDArray[np.int64]) -> dict[str, Any]:
    """What a training's facts claim of privacy, as fields of `Facts`; `members` are places in the data set."""
    own = facts.get("epsilon_is_of") == OF_PERSON
    return {
        "dp": "epsilon" in facts,
        "epsilon": facts.get("epsilon"),
        "delta": facts.get("delta"),
        "members": len(np.unique(dataset.persons[members])) if own else len(members),
        "most_of_one": 1 if own else dataset.most_of_one,
    }


@dataclass(frozen=True)
class Flag:
    """A raised warning: its name, the rule, why it matters, what to do, and what was found here."""

    name: str
    raised_if: str
    why: str
    what_to_do: str
    detail: str


@dataclass(frozen=True)
class Check:
    """A rule: `find` says what is wrong with the facts, or None; it is called once every fact in `needs` is known.

    The title is what the rule is called before people.
    """

    name: str
    title: str
    needs: tuple[str, ...]
    find: Callable[[Facts], str | None]
    raised_if: str
    why: str
    what_to_do: str


def title(name: str) -> str:
    """What a check is called before people; an older result's name as it is."""
    return next((check.title for check in CHECKS if check.name == name), name.replace("_", " "))


def raised(facts: Facts) -> tuple[Flag, ...]:
    """The flags that the known facts raise, in the order of `CHECKS`."""
    found = [(check, check.find(facts)) for check in CHECKS if _decided(check, facts)]
    return tuple(
        Flag(check.name, check.raised_if, check.why, check.what_to_do, detail)
        for check, detail in found
        if detail is not None
    )


def passed(facts: Facts) -> tuple[str, ...]:
    """Names of the flags that were looked at and not raised."""
    return tuple(check.name for check in CHECKS if _decided(check, facts) and check.find(facts) is None)


def undecided(facts: Facts) -> dict[str, tuple[str, ...]]:
    """Names of the flags that nobody could decide, each with the facts that are missing."""
    return {check.name: _missing(check, facts) for check in CHECKS if not _decided(check, facts)}


def _missing(check: Check, facts: Facts) -> tuple[str, ...]:
    return tuple(name for name in check.needs if getattr(facts, name) is None)


def _decided(check: Check, facts: Facts) -> bool:
    return not _missing(check, facts)


# One function per check: the detail if it is raised, None if not


def _few_nonmembers(facts: Facts) -> str | None:
    assert facts.nonmembers is not None
    assert facts.lowest_fpr is not None
    expected = facts.nonmembers * facts.lowest_fpr
    if expected >= FALSE_POSITIVES * (1 - 1e-12):  # 10,000 × 0.001 is 10
        return None
    return f"{facts.nonmembers:,} non-members are {expected:.3g} false positives at an FPR of {facts.lowest_fpr:.3g}"


def _few_shadows(facts: Facts) -> str | None:
    assert facts.shadows is not None
    each = facts.shadows_each
    if facts.shadows >= SHADOWS and (each is None or each >= EACH):
        return None
    some = f", and on average only {each:.1f} on one side of a sample" if each is not None and each < EACH else ""
    return f"{facts.shadows} shadow model{'s' * (facts.shadows != 1)}{some}"


def _non_adaptive_only(facts: Facts) -> str | None:
    return None if facts.adaptive else "no attack's shadows were trained with the target's defense"


def _randomised_release(facts: Facts) -> str | None:
    share = facts.changed_on_repeat
    return f"{share:.2%} of the samples got another answer the second time" if share else None


def _release_changes_labels(facts: Facts) -> str | None:
    share = facts.changed_labels
    return f"{share:.2%} of the samples have another top-1 label under the release" if share else None


def _quantised_scores(facts: Facts) -> str | None:
    assert facts.tied_pairs is not None
    found = [f"{facts.tied_pairs:.1%} of the pairs are tied"] if facts.tied_pairs > TIED else []
    if facts.tied_top:
        found.append(
            f"{facts.tied_top:,} non-members share a score, so that no threshold comes near the lowest measured FPR"
        )
    return "; ".join(found) or None


def _masking(facts: Facts) -> str | None:
    assert facts.label_only_advantage is not None
    low, high = facts.label_only_advantage
    return f"an attack on labels alone is ahead by an AUC of {low:.3f} to {high:.3f}" if low > 0 else None


def _reference_overlap(facts: Facts) -> str | None:
    return f"{facts.reference_overlap:,} asked samples are in the reference set" if facts.reference_overlap else None


def _auc_below_half(facts: Facts) -> str | None:
    assert facts.auc_intervals is not None
    below = [f"{name} {low:.3f} to {high:.3f}" for name, (low, high) in facts.auc_intervals.items() if high < 0.5]
    return ", ".join(below) or None


def _epsilon_meaningless(facts: Facts) -> str | None:
    if not facts.dp:
        return None
    if facts.epsilon is None or not math.isfinite(facts.epsilon):
        return "the defense claims differential privacy, and there is no finite ε"
    found, k = [], facts.most_of_one
    if facts.epsilon > EPSILON:
        found.append(f"ε is {facts.epsilon:,.3g}: the odds of membership may change e^ε-fold")
    if facts.delta is not None and facts.members is not None and facts.delta * facts.members >= 1:
        found.append(
            f"δ is {facts.delta:.3g} with {facts.members:,} members: publishing one record outright would satisfy it"
        )
    if facts.uncovered:
        found.append(
            f"ε of {facts.epsilon:.3g} is the training's alone; released without noise: {', '.join(facts.uncovered)}"
        )
    if k > 1 and facts.epsilon <= EPSILON:
        found.append(
            f"ε of {facts.epsilon:.3g} is of one sample, and a person has up to {k:,}: of that person ε is at most "
            f"{k * facts.epsilon:.3g}, and δ at most {k:,}·e^{(k - 1) * facts.epsilon:.3g} times as large"
        )
    return "; ".join(found) or None


def _selection_on_asked(facts: Facts) -> str | None:
    return "asked samples chose the model, its settings or the stopping time" if facts.selected_on_asked else None


def _idle_defense(facts: Facts) -> str | None:
    return facts.idle or None


def _no_better_than_chance(facts: Facts) -> str | None:
    assert facts.label_fit is not None
    found = [
        f"the labels of {side} get a probability of {fit.found:.1%} on average, where the same labels in random "
        f"order get {fit.chance:.1%} and the model claims {fit.claimed:.1%}"
        for side, fit in facts.label_fit.items()
        if fit.p > CHANCE
    ]
    return "; ".join(found) or None


def _copies(facts: Facts) -> str | None:
    assert facts.copies is not None
    share = facts.copies
    return f"{share:.1%} of the non-members are copies of a member" if share > COPIES else None


def _no_skill(facts: Facts) -> str | None:
    assert facts.skill is not None
    accuracy, low, share = facts.skill
    if low > share:
        return None
    return f"the accuracy is {accuracy:.1%}, and always naming the most frequent class gives {share:.1%}"


def _repeats(facts: Facts) -> str | None:
    assert facts.repeats is not None
    return f"{facts.repeats:.1%} of the samples repeat another" if facts.repeats > COPIES else None


def _exchanged(facts: Facts) -> str | None:
    assert facts.exchanged is not None
    found, best, deviations = facts.exchanged
    if deviations <= EXCHANGED or best - found <= GAIN:
        return None
    return (
        f"the labels get a probability of {found:.1%} on average, and would get {best:.1%} were the columns in another "
        "order"
    )


def _class_mix(facts: Facts) -> str | None:
    assert facts.class_mix is not None
    p, distance, said = facts.class_mix
    return f"{said} (chi-square test of all classes: p = {p:.1g})" if p < MIX[0] and distance > MIX[1] else None


def _tells(found: tuple[float, float, float], what: str) -> str | None:
    """An AUC whose interval lacks one half, said."""
    area, low, high = found
    return (
        None
        if low <= 0.5 <= high
        else f"{what} an AUC of {area:.3f} ({AUC_LEVEL:.1%} interval {low:.3f} to {high:.3f})"
    )


def _populations(facts: Facts) -> str | None:
    assert facts.bystanders is not None
    return _tells(facts.bystanders, "the confidence of shadows that lack a sample has")


def _blind(facts: Facts) -> str | None:
    assert facts.blind is not None
    return (
        _tells(facts.blind, "without the model, by the samples alone, members are told with")
        if facts.blind[0] > 0.5
        else None
    )


def _rows_per_person(facts: Facts) -> str | None:
    assert facts.rows_per_person is not None
    return _tells(facts.rows_per_person, "how many samples a person has tells members with")


def _unlike(facts: Facts) -> str | None:
    assert facts.unlike is not None
    own, theirs, errors = facts.unlike
    if abs(errors) <= UNLIKE or abs(own - theirs) <= GAIN:
        return None
    return (
        f"the target's confidence tells its own members with an AUC of {own:.3f}, the shadows' tells theirs with one "
        f"of {theirs:.3f} on average"
    )


CHECKS = (
    Check(
        "auc_below_half",
        "an attack is worse than guessing",
        ("auc_intervals",),
        _auc_below_half,
        raised_if=f"an attack's AUC is below one half by its {AUC_LEVEL:.1%} interval",
        why="Guessing gives one half. Significantly less is a sign error, or a leak in the other direction: the "
        "reversed attack has an AUC of 1 − AUC.",
        what_to_do="Check the sign of the scores and of the member flags; if both are right, the leak is 1 − AUC.",
    ),
    Check(
        "no_better_than_chance",
        "labels do not fit the predictions",
        ("label_fit",),
        _no_better_than_chance,
        raised_if=f"labels fit confident predictions no better than in random order (p > {CHANCE:g})",
        why="A trained model knows something of its labels. If it does not, the labels or the columns most likely "
        "belong to other rows or classes, and then no attack is measured. If it is the non-members' alone, the "
        "model may also have learned nothing that holds for them.",
        what_to_do="Check that labels stand beside their own predictions, and that columns are in the labels' order.",
    ),
    Check(
        "copies",
        "non-members are copies of members",
        ("copies",),
        _copies,
        raised_if=f"more than {COPIES:.0%} of the non-members have the very row and label of some member; where only "
        "predictions are known, its very outputs and label, and not because outputs are coarse",
        why="The model was trained on a copy of these records: they count as non-members and look like members, so "
        "that the leakage is understated for all others.",
        what_to_do="Keep one of each record, told by its features. If these are different people with the same values, "
        "no attack can tell them apart: read the figures as too low for everybody else.",
    ),
    Check(
        "columns_exchanged",
        "columns and labels seem exchanged",
        ("exchanged",),
        _exchanged,
        raised_if=f"in another order the columns would fit the labels better by more than {GAIN:.0%} and {EXCHANGED} "
        "standard errors",
        why="A trained model knows its classes best by their own names. If others fit better, columns or labels are "
        "exchanged, and then no attack is measured.",
        what_to_do="Check that the columns are in the labels' order, and what each label stands for.",
    ),
    Check(
        "no_skill",
        "no more accurate than naming one class",
        ("skill",),
        _no_skill,
        raised_if="the accuracy on non-members is not above the share of their most frequent class, by its interval",
        why="A model that names one class for everybody is as accurate, and leaks nothing: accuracy does not say here "
        "whether a defense cost any use.",
        what_to_do="Judge usefulness by what the model is for (its ranking, the rare classes), or balance the classes.",
    ),
    Check(
        "repeats",
        "repeated rows",
        ("repeats",),
        _repeats,
        raised_if=f"more than {COPIES:.0%} of the samples have the very outputs and label of another sample of their "
        "side, and not because outputs are coarse",
        why="Repeated rows, such as several of one person, are no independent observations: all intervals are too "
        "narrow, and a few people can pass for many.",
        what_to_do="Keep one row of each person, or say whose row it is (--group, groups=).",
    ),
    Check(
        "class_mix",
        "members and non-members have other classes",
        ("class_mix",),
        _class_mix,
        raised_if=f"members and non-members have another mix of classes (p < {MIX[0]:g}, and more than {MIX[1]:.0%} of "
        "the samples would have to change class)",
        why="Attack scores differ between classes, so that a difference between the classes passes for membership, in "
        "either direction.",
        what_to_do="Take non-members from the same population as the members, or draw both with the same mix.",
    ),
    Check(
        "different_populations",
        "members and non-members are of different populations",
        ("bystanders",),
        _populations,
        raised_if="shadows that lack a sample tell by it whether the target has it (an AUC other than one half by its "
        f"{AUC_LEVEL:.1%} interval)",
        why="Such a model knows nobody's membership: it can tell the sides apart only if they are of different "
        "populations, or if the target taught it, as it does where shadows start from its weights. The attacks' scores "
        "then measure that, too.",
        what_to_do="Draw members and non-members at random from one population, and train each shadow from the start: "
        "until then no AUC here is of membership alone, and the rest may be more than this one says.",
    ),
    Check(
        "blind_baseline",
        "members can be told without the model",
        ("blind",),
        _blind,
        raised_if="a classifier that never saw the model tells members by their samples (an AUC above one half by its "
        f"{AUC_LEVEL:.1%} interval, on samples that it was not fitted on)",
        why="Members and non-members are of different populations, as if the non-members are of a later year. An "
        "attack with an AUC no larger than this has shown nothing of the model, and a larger one less than it seems.",
        what_to_do="Draw members and non-members at random from one population: hold the non-members out of the very "
        "data that the model was trained on.",
    ),
    Check(
        "rows_per_person",
        "the number of rows tells members",
        ("rows_per_person",),
        _rows_per_person,
        raised_if="the number of a person's samples tells who is a member (an AUC other than one half by its "
        f"{AUC_LEVEL:.1%} interval)",
        why="A person's score is the mean, or the largest, of the samples', and is distributed otherwise where there "
        "are more of them: the number alone then passes for membership, in either direction.",
        what_to_do="Split persons at random, or keep equally many samples of each.",
    ),
    Check(
        "unlike_shadows",
        "shadows unlike the target",
        ("unlike",),
        _unlike,
        raised_if="shadows tell their own members by their confidence otherwise than the target does, by more than "
        f"{GAIN:g} of AUC and {UNLIKE} standard errors",
        why="Shadows that were trained as the target was leak as much as it does. These were trained in another way, "
        "or on other samples than is said; attacks that use them are then weaker than they could be.",
        what_to_do="Train each shadow as the target was, on the samples that it is said to have and on no others, and "
        "to the end.",
    ),
    Check(
        "few_nonmembers",
        "too few non-members",
        ("nonmembers", "lowest_fpr"),
        _few_nonmembers,
        raised_if=f"the non-members allow fewer than {FALSE_POSITIVES} false positives at the lowest FPR asked for",
        why="The threshold at such an FPR hangs on a handful of samples, so the TPR there is not measured.",
        what_to_do="Hold out more non-members, pool several targets, or report a higher FPR.",
    ),
    Check(
        "few_shadows",
        "too few shadows",
        ("shadows",),
        _few_shadows,
        raised_if=f"the attacks had fewer than {SHADOWS} shadow models, or on average fewer than {EACH} that have a "
        "sample, or that lack it",
        why="LiRA and RMIA compare each sample with models that saw it and models that did not; with few of them they "
        "are weak, and the leakage is understated.",
        what_to_do=f"Train {SHADOWS} or more shadows (63 for a spread per sample): --shadows of relaxloss audit, "
        "shadows= of the audits in Python, the game RandomHalves. With a test of a fifth few shadows lack a sample: "
        "take twice as many.",
    ),
    Check(
        "non_adaptive_only",
        "no adaptive attack",
        ("adaptive",),
        _non_adaptive_only,
        raised_if="no attack was adaptive",
        why="An attacker who knows the defense trains shadows with it. Without such an attack, a defense that only "
        "moves the scores looks perfect.",
        what_to_do='Train the shadows with the target\'s own defense and settings (shadows="same").',
    ),
    Check(
        "randomised_release",
        "random answers",
        ("changed_on_repeat",),
        _randomised_release,
        raised_if="the release answers the same query differently",
        why="An attacker who asks again averages the noise away; this audit asked once.",
        what_to_do="Derive the noise from the query's content, or attack the mean of many answers.",
    ),
    Check(
        "release_changes_labels",
        "the release changes predicted classes",
        ("changed_labels",),
        _release_changes_labels,
        raised_if="the release changes the top-1 label of any sample",
        why="Then the accuracy of the model beneath is not the accuracy that its users get.",
        what_to_do="Measure utility on the release, or let the release keep the order of the classes.",
    ),
    Check(
        "quantised_scores",
        "coarse scores",
        ("tied_pairs",),
        _quantised_scores,
        raised_if=f"more than {TIED:.0%} of the pairs (member, non-member) have equal scores, or so many non-members "
        "share a score that no threshold comes near a low FPR",
        why="Ties dominate the ROC: an attacker who sees more digits may do better, and a low FPR cannot be reached.",
        what_to_do="Audit logits, or probabilities in full precision; if only rounded ones are released, say so.",
    ),
    Check(
        "masking",
        "the defense hides the leak",
        ("label_only_advantage",),
        _masking,
        raised_if="an attack on labels alone (label_only, or correctness) finds members, and has a significantly "
        "higher AUC than the best confidence attack",
        why="Labels hold less than confidences. If they tell more, the defense hides the leak and does not remove it.",
        what_to_do="Take the figure of the attack on labels as the headline, and attack the confidences adaptively.",
    ),
    Check(
        "reference_overlap",
        "the defense saw asked samples",
        ("reference_overlap",),
        _reference_overlap,
        raised_if="the defense's reference set holds asked samples",
        why="The defense was fitted on the very samples that it is tested on, so it looks better than it is.",
        what_to_do="Take the reference set from samples that nobody asks about.",
    ),
    Check(
        "epsilon_meaningless",
        "the privacy guarantee says too little",
        ("dp",),
        _epsilon_meaningless,
        raised_if=f"differential privacy is claimed and ε is absent, infinite or above {EPSILON:g}, or δ ≥ 1/members, "
        "or what is released holds more of the members than the training of the weights, or persons have several rows",
        why="Such a guarantee promises nothing; what protection there is, only attacks have shown.",
        what_to_do="Call it noise and not differential privacy, or train with more noise. What ε does not cover: "
        "describe a table's columns beforehand (--columns; bits and images have constants), or leave that part of the "
        "release out. Where ε counts samples, keep one of each person, or train with dpsgd, whose ε is of a person if "
        "it is told whose row each is (--group).",
    ),
    Check(
        "selection_on_asked",
        "chosen on asked samples",
        ("selected_on_asked",),
        _selection_on_asked,
        raised_if="the model, its settings or the stopping time were chosen on asked samples",
        why="The non-members among them then shaped the model, so that they look more like members.",
        what_to_do="Choose on samples that nobody asks about, such as the reference set.",
    ),
    Check(
        "idle_defense",
        "the defense never acted",
        ("idle",),
        _idle_defense,
        raised_if="the defense never came to act in the training",
        why="Then the model is a plainly trained one, and the comparison says nothing about the defense.",
        what_to_do="Train longer, or set the defense stronger (a larger alpha).",
    ),
)

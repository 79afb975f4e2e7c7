"""An audit in plain sentences and in the lines of its tables."""

from __future__ import annotations

import math
from typing import Any

from relaxloss import attacks as attack_room
from relaxloss.attacks import Attack
from relaxloss.auditing.audit import Audit
from relaxloss.evaluation.one_run_audit import MEASURE
from relaxloss.evaluation.rows import TPRS
from relaxloss.report import formatting

KINDS = {"probs": "probabilities", "logits": "logits", "answers": "answers"}
COLUMNS = {
    "auc": "AUC",
    "tpr_at_0.01_fpr": "members found at 1 % false alarms",
    "tpr_at_0.001_fpr": "members found at 0.1 % false alarms",
    "balanced_accuracy": "balanced accuracy, one threshold for all",
    "balanced_accuracy_per_class": "balanced accuracy, a threshold per class",
}
SHOWN = tuple(COLUMNS)
UTILITY = {
    "train_top1": "accuracy on members, %",
    "top1": "accuracy on non-members, %",
    "calibration_error": "calibration error on non-members, %",
    "member_loss": "mean loss of members, nats",
    "test_loss": "mean loss of non-members, nats",
}
FACTS = {
    "adaptive": "whether the shadows were trained as the target was",
    "bystanders": "whether other models tell members from non-members, too (shadows that lack samples would say)",
    "blind": "whether the samples alone, without the model, tell members (there are only predictions)",
    "changed_on_repeat": "whether the model answers the same query twice alike",
    "changed_labels": "whether what is released has other top classes than the model beneath",
    "reference_overlap": "whether a defense was fitted on some of these samples",
    "dp": "whether differential privacy is claimed",
    "label_fit": "whether the labels fit the predictions (these claim too little, or are too few, to tell)",
    "label_only_advantage": "what the labels alone tell, beside the confidences",
    "unlike": "whether shadows leak as the target does (those that have some of these samples would say)",
    "idle": "whether a defense came to act in the training",
    "selected_on_asked": "whether these samples chose the model or its settings",
}
CLASSES = 5  # shown on the page; all are in audit.json
RECORDS = 15  # shown on the page; all are in records.csv


def sentences(audit: Audit) -> list[str]:
    """What an attacker can do; how many members it finds; how the attack was chosen; and ε, if it was bounded."""
    worst, rows = audit.worst, lines(audit)
    area = f"{worst['auc']:.3f} ({percent(audit)} % interval {worst['auc_low']:.3f} to {worst['auc_high']:.3f})"
    held = "white_box" in _attack(worst["attack"]).needs.queries
    seen = "holds the model's weights" if held else f"sees the model's {KINDS[audit.facts['kind']]}"
    sees = f"An attacker who {seen}"
    said = doubts(audit)
    if said:
        said.append(f"As given, the strongest attack has an AUC of {area}.")
    elif worst["shown"]:
        said = [f"{sees} can tell members from non-members with an AUC of {area}."]
    else:
        some = worst["shown_at"] or worst["alone"]
        said = [f"{sees} was not shown to tell members from non-members{' on average' if some else ''}: the strongest "
                f"attack has an AUC of {area}, and 0.5 is guessing{_corrected(audit)}."]  # fmt: skip
        said += ["But some members are told."] if some else []
    if (alone := worst["alone"]) is not None and not doubts(audit):
        said.append(
            f"{alone['members']:,} {'member scores' if alone['members'] == 1 else 'members score'} above every "
            f"non-member (attack {formatting.attack(alone['attack'])}); in random order that has a probability of "
            f"{alone['p']:.1g}."
        )
    if (by_class := audit.facts["by_class"]) and by_class[0]["low"] > worst["auc_high"] and not doubts(audit):
        most = by_class[0]
        said.append(
            f"Of class {most['class']} ({most['members']:,} members, {most['nonmembers']:,} non-members) members are "
            f"told far better: AUC {most['auc']:.3f} ({most['low']:.3f} to {most['high']:.3f}, corrected for all "
            f"classes and attacks), by the attack {formatting.attack(most['attack'])}."
        )
    asking = [line for line in measured(audit) if "white_box" not in _attack(line["attack"]).needs.queries]
    if held and asking:
        best, low, high = (asking[0][f"auc{end}"] for end in ("", "_low", "_high"))
        name = asking[0]["attack"].replace("_", " ")
        said.append(
            f"From its answers alone, the strongest ({name}) has an AUC of {best:.3f} ({low:.3f} to {high:.3f})."
        )
    found = []
    if (told := told_without(audit)) is not None and told[1] > 0.5:
        said.append(
            f"But without the model an AUC of {told[0]:.3f} is reached, for members and non-members differ (see the "
            "warnings): this is no measure of membership alone."
        )
    for measure in TPRS:
        fpr = f"{100 * float(measure.split('_')[2]):g} %"
        alarms = f"at {fpr} false alarms"
        if worst[measure] is None:
            why = rows["max"][f"{measure}_note"].removeprefix("not measured: ")
            found.append(f"{alarms} the share of members found is not measured, since {why}")
        else:
            share, span = formatting.value(rows["max"], measure), formatting.interval(rows["max"], measure)
            other = worst[f"{measure}_attack"]
            by = f", by the attack {formatting.attack(other)}" if other != worst["attack"] else ""
            found.append(f"{alarms} it finds {share} % of the members ({span}{by}; guessing finds {fpr})")
    said.append(f"A{'; '.join(found)[1:]}.")
    about = _attack(worst["attack"]).about
    text = f"The attack is {formatting.attack(worst['attack'])} ({about}), the strongest of {len(measured(audit))}"
    if worst["selected_auc"] is not None:
        text += (
            f"; chosen on one half of the samples and measured on the other, so that luck has no part in the choice, "
            f"the strongest ({formatting.attack(worst['selected_attack'])}) has an AUC of {worst['selected_auc']:.3f} "
            f"({worst['selected_auc_low']:.3f} to {worst['selected_auc_high']:.3f})"
        )
    said.append(f"{text}.")
    bound = audit.rows[audit.rows["measure"] == MEASURE].iloc[0]
    if not math.isnan(bound["value"]):
        said.append(
            f"The training is not differentially private with an ε below {bound['value']:.2f}: {bound['note']}. That "
            "refutes no claim with a larger δ."
            if bound["value"] > 0
            else f"No lower bound of ε above 0 was shown: {bound['note']}."
        )
    return said


def _corrected(audit: Audit) -> str:
    """Why that was not shown, where the interval lies above guessing."""
    made = len(measured(audit))
    if audit.worst["auc_low"] <= 0.5:
        return ""
    return f": corrected for {made} attacks with four tests each, the interval reaches it"


def _attack(name: str) -> type[Attack]:
    return attack_room.attacks[name.split(":")[0]]


def doubts(audit: Audit) -> list[str]:
    """What must be settled before any number of this audit means something; empty if nothing.

    An attack below one half beside another that tells as much above it is no more than a flag.
    """
    raised = {flag.name: flag for flag in audit.flags}
    flag = raised.get("no_better_than_chance")
    if flag is not None and "of the members" in flag.detail:  # else it may know nothing of non-members
        return [
            f"The labels seem to belong to other rows or other columns: {flag.detail}. {flag.what_to_do} Until then no "
            "number here says anything about the model."
        ]
    if (flag := raised.get("columns_exchanged")) is not None:
        return [
            f"Classes seem to be exchanged: {flag.detail}. {flag.what_to_do} Until then no number here says anything "
            "about the model."
        ]
    if "auc_below_half" not in raised or "class_mix" in raised:
        return []
    lowest = measured(audit)[-1]
    if audit.worst["auc_low"] <= 0.5:
        return [
            f"Members and non-members seem to be swapped: the attack {lowest['attack'].replace('_', ' ')} has an AUC "
            f"of {lowest['auc']:.3f}, below guessing, so that who turns it around has {1 - lowest['auc']:.3f}. Check "
            "which samples the model was trained on before anything else here is believed."
        ]
    if 1 - lowest["auc_high"] > audit.worst["auc_high"]:
        return [
            f"The strongest attack is one turned around: {lowest['attack'].replace('_', ' ')} has an AUC of "
            f"{lowest['auc']:.3f}, below guessing, so that who turns it around has {1 - lowest['auc']:.3f}. Either "
            "some samples are on the wrong side, or the model betrays its members by being less sure of them: see the "
            "warning."
        ]
    return []


def lines(audit: Audit) -> dict[str, dict[str, Any]]:
    """By attack, and ``""`` for the model itself: each measure with ``_low``, ``_high``, ``_note``."""
    found: dict[str, dict[str, Any]] = {}
    for row in audit.rows.to_dict("records"):
        line = found.setdefault(row["attack"], {"attack": row["attack"]})
        line[str(row["measure"])] = row["value"]
        line |= {f"{row['measure']}_{key}": row[key] for key in ("low", "high", "note")}
    return found


def measured(audit: Audit) -> list[dict[str, Any]]:
    """The lines of the attacks that were made, the strongest first."""
    nothing: dict[str, Any] = dict.fromkeys(SHOWN, math.nan)
    made = [line for name, line in lines(audit).items() if name not in ("", "max", "selected", *audit.unmeasured)]
    return sorted((nothing | line for line in made if "auc" in line), key=lambda line: -line["auc"])


def unmeasured(audit: Audit) -> list[tuple[str, list[str]]]:
    """The reasons why attacks were not made, each with its attacks."""
    reasons: dict[str, list[str]] = {}
    for attack, why in audit.unmeasured.items():
        reasons.setdefault(why.removeprefix("not measured: "), []).append(attack.replace("_", " "))
    return list(reasons.items())


def blank(audit: Audit) -> list[tuple[str, str]]:
    """The measures that no attack has, in words, each with the reason of the strongest."""
    made = measured(audit)
    empty = [name for name in SHOWN if all(math.isnan(line[name]) for line in made)]
    return [(COLUMNS[name], str(made[0].get(f"{name}_note", "")).removeprefix("not measured: ")) for name in empty]


def told_without(audit: Audit) -> tuple[float, float, float] | None:
    """How well members are told without the model, by their samples or by shadows that lack them; None: not known."""
    known = [each for each in (audit.facts["blind"], audit.facts["bystanders"]) if each is not None]
    return max(known, key=lambda each: float(each[1])) if known else None


def percent(audit: Audit) -> str:
    """The intervals' level in per cent."""
    return f"{100 * audit.facts['level']:g}"


def graded(audit: Audit) -> str:
    """The attack whose scores are drawn and listed: the strongest, but for those of two values."""
    name = formatting.attack(audit.worst["graded"])
    if audit.worst["graded"] == audit.worst["attack"]:
        return f"the strongest attack ({name})"
    return f"the strongest attack that puts records in an order ({name})"


def exposed(audit: Audit) -> list[dict[str, Any]]:
    """The most exposed members."""
    table = audit.records[audit.records["member"]].head(RECORDS)
    return [{str(key): item for key, item in row.items()} for row in table.to_dict("records")]

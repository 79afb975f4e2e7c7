"""The result in plain sentences."""

from __future__ import annotations

import math

import pandas as pd

from relaxloss.experiments.result import Result
from relaxloss.experiments.tuned import Tuned
from relaxloss.report import formatting
from relaxloss.report.comparison.tables import KEEPS, Line, headed_by, records, representatives
from relaxloss.specs import build


def headline(table: pd.DataFrame) -> list[str]:
    """The first of `tables.representatives` against no defense; then the best of all; then how they were chosen."""
    mode = headed_by(table)
    auc = f"auc_{mode}"
    shown = records(representatives(table, limit=len(table)))
    baseline = next((line for line in shown if line["defense"] == formatting.NONE), None)
    others = [line for line in shown if line is not baseline]
    if not others:
        return [f"Only {_reached(shown[0], mode)}."]
    sentences = [_against(others[0], baseline, mode)]
    if len(others) > 1:
        kept = [line for line in others if baseline and line["top1"] >= KEEPS * baseline["top1"]]
        everything = [line for line in records(table) if line["defense"] != formatting.NONE]
        pool = [line for line in kept or everything if not math.isnan(line[auc])]
        among = "that keep 99 % of the accuracy" if kept else "compared"
        if pool and _none_lowers(pool, baseline, auc):
            sentences.append(f"None of the defenses {among} lowers that AUC measurably.")
        elif pool:
            best = min(pool, key=lambda line: line[auc])
            same = all(best[name] == others[0][name] for name in ("defense", "settings"))
            what = "the same" if same else _reached(best, mode)
            sentences.append(f"Of all defenses {among}, the one with the lowest AUC is {what}.")
    if len(table) > len(shown):
        sentences.append(
            "Where a defense was run at several settings, these sentences take the one with the lowest AUC among those "
            "that keep 99 % of the accuracy, or else its first; it was chosen on the samples that it is shown on."
        )
    return sentences


def _none_lowers(lines: list[Line], baseline: Line | None, auc: str) -> bool:
    """Whether no line's AUC is measurably below the baseline's; not where that cannot be told."""
    if baseline is None or math.isnan(baseline[auc]) or any(_of_two_seeds(line, baseline) for line in lines):
        return False
    return all(_compared(line, baseline, auc) >= 0 for line in lines)


def doubts(result: Result) -> list[str]:
    """That the only defense compared did nothing, so that the headline compares plain training with itself."""
    compared = {*zip(result.rows["defense"], result.rows["settings"], strict=True)} - {(formatting.NONE, "")}
    idle = [flag for flag in result.flags if flag.name == "idle_defense"]
    if len(compared) > 1 or not idle:
        return []
    return [f"This compares plain training with itself, for {idle[0].detail}. {idle[0].what_to_do}"]


def selections(result: Result) -> list[str]:
    """A sentence for every setting that was tuned: which data chose it."""
    return [str(build(Tuned, each)) for each in result.facts.get("experiment", {}).get("tuned", ())]


def _worst(mode: str) -> str:
    return "the strongest adaptive attack" if mode == "adaptive" else "the strongest attack (not adaptive)"


def _reached(line: Line, mode: str) -> str:
    accuracy, auc = formatting.value(line, "top1"), formatting.value(line, f"auc_{mode}")
    return f"{formatting.called(line)}: {accuracy} % test accuracy, and {_worst(mode)} has an AUC of {auc}"


def _against(line: Line, baseline: Line | None, mode: str) -> str:
    if baseline is None:
        return f"{_reached(line, mode)}; no model without defense is in this comparison."
    auc = f"auc_{mode}"
    accuracy = _compared(line, baseline, "top1")
    kept = accuracy == 0 and line["top1"] >= KEEPS * baseline["top1"]
    verb = {1: "raises test accuracy to", 0: "keeps" if kept else "has", -1: "lowers test accuracy to"}[accuracy]
    why = "nothing follows from two seeds" if _of_two_seeds(line, baseline) else "the intervals overlap"
    overlap = "" if kept or accuracy else f"; {why}"
    first = f"{formatting.called(line)} {verb} {formatting.value(line, 'top1')} %{'' if accuracy else ' test accuracy'}"
    first += f" (no defense: {formatting.value(baseline, 'top1')} %{overlap})"
    if math.isnan(line[auc]) or math.isnan(baseline[auc]):
        return f"{first}; the AUC of {_worst(mode)} was not measured on both."
    side = _compared(line, baseline, auc)
    moved = {1: "raises", 0: "does not measurably change", -1: "lowers"}[side]
    joint = "and" if (kept or accuracy > 0) == (side < 0) else "but"
    change = f"from {formatting.value(baseline, auc)} to {formatting.value(line, auc)}"
    if _of_two_seeds(line, baseline):
        return f"{first}; the AUC of {_worst(mode)} goes {change}, of which two seeds show nothing."
    return f"{first} {joint} {moved} the AUC of {_worst(mode)}: {change}."


def _compared(line: Line, baseline: Line, name: str) -> int:
    """Whether a quantity is above (1) or below (-1) the baseline's by disjoint intervals, or neither (0)."""
    if _of_two_seeds(line, baseline):
        return 0
    ends = [float(each[f"{name}_{end}"]) for each in (line, baseline) for end in ("low", "high")]
    if any(map(math.isnan, ends)):
        return int(line[name] > baseline[name]) - int(line[name] < baseline[name])
    return int(ends[0] > ends[3]) - int(ends[1] < ends[2])


def _of_two_seeds(line: Line, baseline: Line) -> bool:
    """Then there is no interval but their range, and two such ranges are disjoint by chance in one case of three."""
    return 2 in (line["seeds"], baseline["seeds"])

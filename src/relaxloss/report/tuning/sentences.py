"""A tuning in plain sentences, and the commands that go on from it."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

from relaxloss import games
from relaxloss.report import formatting
from relaxloss.report.comparison import tables
from relaxloss.tuning import Line, Tuning

COMPARISON = "compare.toml"


def sentences(tuning: Tuning) -> list[str]:
    """What was chosen and why; whether it lies at an end of the range; which data chose it; what to report instead."""
    line = tuning.line
    none = tables.records(tuning.table)[0]
    tried = int(tuning.table["order"].max())
    against = f"(no defense: {figures(tuning, none)})"
    aim, best = _aim(tuning)
    if tuning.met:
        found = [f"{tuning.spec} is {best} of the {tried} settings tried {aim}: {figures(tuning, line)} {against}."]
    else:
        found = [
            f"None of the {tried} settings tried is one {aim}. The nearest is {tuning.spec}: {figures(tuning, line)} "
            f"{against}. Ask for less, search a wider range (--low, --high), or take another defense."
        ]
    if line["idle"]:
        found.append(
            f"It never came to act: {line['idle']}. So it is plain training, and its figures say nothing about the "
            "defense: train longer, or search stronger settings (--low, --high)."
        )
    ends = tuning.strength.range.low, tuning.strength.range.high
    if line["strength"] in ends:
        found.append(
            f"It lies at an end of the range that was searched, {tuning.strength.field} from {ends[0]:g} to "
            f"{ends[1]:g}: a wider one may hold a better setting."
        )
    if tuning.met and tuning.bound is not None and bool(none["met"]):
        found.append("Training without a defense meets the bound already.")
    return [*found, chose(tuning)]


def chose(tuning: Tuning) -> str:
    """Which data chose, and that its own numbers flatter the choice."""
    facts = tuning.facts
    smaller = ""
    if any(games.parse(game).sets_aside for game in facts["games"]):
        smaller = (
            f" A reference set was needed, so the models had {facts['members']:,} members and not "
            f"{facts['final_members']:,}: the strength that is right for the latter may differ."
        )
    return (
        f"Chosen on {facts['samples_used']:,} of the {facts['samples']:,} samples of {facts['data']}, folds 3 to 5 at "
        f"seed {facts['seed']}, {len(facts['games'])} games for each setting; no sample of folds 1 and 2 was in any "
        f"model, attack or statistic.{smaller} What is measured on the data that chose is too kind to the choice: "
        "report the comparison on folds 1 and 2."
    )


def _aim(tuning: Tuning) -> tuple[str, str]:
    objective = tuning.objective
    if objective.keep_accuracy is not None:
        return f"with a test accuracy of at least {formatting.percent(tuning.goal.floor or 0.0)} %", "the least leaky"
    what = formatting.quantity(tuning.objective.measure)
    bound = (
        formatting.area(objective.max_auc)
        if objective.max_auc is not None
        else f"{formatting.percent(objective.max_tpr or 0.0)} %"
    )
    return f"at which the strongest adaptive attack has {'an' if what == 'AUC' else 'a'} {what} of at most {bound}", (
        "the most accurate"
    )


def figures(tuning: Tuning, line: Line) -> str:
    """Accuracy and leakage of one setting."""
    measure = tuning.objective.measure
    return (
        f"{formatting.value(line, 'top1')} % accuracy, {formatting.quantity(measure)} {formatting.value(line, measure)}"
        + ("" if measure == "auc" else " %")
    )


def command(out: Path) -> str:
    """The command that measures the chosen setting on the samples that had no part in the choice."""
    return shlex.join(["relaxloss", "compare", str(out / COMPARISON), "--out", str(out / "compare")])


def said(line: Line, name: str) -> str:
    """A quantity of a line of the table with its interval; what was not measured is said."""
    if math.isnan(float(line.get(name, math.nan))):
        return "not measured"
    span = formatting.interval(line, name)
    return formatting.value(line, name) + (f" [{span}]" if span else "")

"""The summary of a result on a terminal, or as plain lines."""

from __future__ import annotations

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from relaxloss.evaluation.rows import TPRS
from relaxloss.experiments.result import Result
from relaxloss.report import formatting
from relaxloss.report.comparison import single_records, tables
from relaxloss.report.comparison.headline import doubts, headline, selections
from relaxloss.report.formatting import MODES

WIDE = 110  # columns from which an interval stands beside its value; below, under it
CELL = 15  # columns of one defense in the table of attacks
TRAINING = ("top5", "train_top1", "member_loss", "member_loss_variance", "test_loss", "calibration_error")
HEADINGS = {
    "top1": "test\naccuracy %",
    "top5": "top-5 %",
    "train_top1": "train\naccuracy %",
    "member_loss": "member\nloss",
    "member_loss_variance": "its\nvariance",
    "test_loss": "test\nloss",
    "calibration_error": "calibration\nerror %",
    "attack": "by",
    "auc": "AUC,\n{mode}",
    "selected_auc": "attack chosen\non half",
    "delta_top1": "\nchange",
    "delta_auc": "\nchange",
} | {tpr: f"TPR % at\n{100 * float(tpr.split('_')[2]):g} % FPR" for tpr in TPRS}


def print_summary(result: Result, console: Console) -> None:
    """Print the headline, the tables of accuracy and leakage, the attacks, and the warnings.

    Every setting is in the first table; the details are of one setting per defense (`tables.representatives`).
    """
    table = tables.summary(result)
    chosen = tables.representatives(table, limit=len(table))
    mode = tables.headed_by(table)
    other = next(each for each in MODES if each != mode)
    console.print()
    for sentence in (*doubts(result), *headline(table)):
        _say(console, sentence, "bold")
    for sentence in selections(result):
        _say(console, sentence)
    _say(
        console,
        "AUC of the strongest attack: 0.5 is guessing, 1 is certainty. "
        "Changes are relative to no defense, in per cent. "
        f"In brackets: {'; '.join(dict.fromkeys(table['interval']))}.",
    )
    if said := single_records.asked(result):
        _say(console, said)
    wide = console.width >= WIDE
    front = ("top1", "delta_top1", f"auc_{mode}", f"delta_auc_{mode}", f"auc_{other}")
    _print(console, _table("Accuracy against leakage", table, front, plain=(), wide=wide))
    leakage = (f"auc_{mode}", f"attack_{mode}", f"selected_auc_{mode}", *(f"{tpr}_{mode}" for tpr in TPRS))
    plain = () if wide else (f"auc_{mode}",)
    _print(console, _table(f"Leakage in detail, {MODES[mode]} attacks", chosen, leakage, plain=plain, wide=wide))
    _print(console, _table("Training in detail", chosen, TRAINING, plain=TRAINING, wide=wide))
    for grid in _attack_tables(tables.attacks_table(result), chosen, console.width):
        _print(console, grid)
    _single(console, result, table)
    console.print()
    for reason in tables.reasons(table):
        _say(console, reason, "dim")
    for flag in formatting.grouped(result.flags):
        _say(console, formatting.warning(flag), "yellow")
    for failure in result.failures:
        _say(console, f"Failed: {failure}", "red")


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style))


def _print(console: Console, grid: Table) -> None:
    console.print()
    console.print(grid)


def _grid(heading: str, first: str) -> Table:
    grid = Table(
        title=Text(heading), title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 1)
    )
    grid.add_column(f"\n{first}", overflow="fold", min_width=10)
    return grid


def _table(heading: str, table: pd.DataFrame, names: tuple[str, ...], *, plain: tuple[str, ...], wide: bool) -> Table:
    """A line per defense and settings; the quantities in `plain` are shown without their intervals."""
    grid = _grid(heading, "defense")
    for name in names:
        measure, _, mode = name.rpartition("_")
        written = HEADINGS[measure if mode in MODES else name].format(mode=MODES.get(mode, ""))
        words_only = name.startswith("attack")
        grid.add_column(written, justify="left" if words_only else "right", no_wrap=not words_only)
    between = " " if wide else "\n"
    for line in tables.records(table):
        label = f"{between}{line['label']}" if line["label"] else ""
        called = Text.assemble(formatting.title(line["defense"]), (label, "dim"))
        cells = []
        for name in names:
            interval = "" if name in plain else formatting.interval(line, name)
            said = line[name].replace("_", " ") if name.startswith("attack") else formatting.value(line, name)
            said = {"baseline": "-", "not measured": f"not{between}measured"}.get(said, said)
            cells.append(Text.assemble(said, (f"{between}[{interval}]" if interval else "", "dim")))
        grid.add_row(called, *cells, style="bold" if line["defense"] == "relaxloss" else "")
    return grid


def _single(console: Console, result: Result, table: pd.DataFrame) -> None:
    """Which records leak, where a game of several targets can tell."""
    found = single_records.leaks(result, table)
    if not found:
        return
    grid = _grid("Single records", "defense")
    for heading in ("records\nthat leak", "\nof", "epsilon\nat least", "the most vulnerable:\nrow (gap of margins)"):
        grid.add_column(heading, justify="right")
    for line in found:
        first = single_records.most(result, line, 3)
        said = ", ".join(f"{item['record']} ({item['gap']})" for item in first)
        called = Text.assemble(formatting.title(line["defense"]), (f" {line['label']}" if line["label"] else "", "dim"))
        grid.add_row(
            called, f"{line['leaking']:,.0f}", f"{line['of']:,}", single_records.epsilon(line["epsilon"]), said
        )
    _print(console, grid)
    _say(
        console,
        "Leaking: more than chance explains, at a false discovery rate of 5 %. Gap: in standard deviations; the "
        "largest of many is partly luck. All records, with how many would look so by chance: details/records.csv.",
        "dim",
    )


def _attack_tables(table: pd.DataFrame, chosen: pd.DataFrame, width: int) -> list[Table]:
    """Attacks in rows, defenses in columns, as many side by side as fit."""
    lines = tables.records(chosen)
    names = list(table["attack"].drop_duplicates())
    cells = {(line["defense"], line["settings"], line["attack"]): line for line in tables.records(table)}
    fit = max(1, (width - max(map(len, [*names, "attack"]))) // (CELL + 2))
    grids = []
    for start in range(0, len(lines), fit):
        part = lines[start : start + fit]
        grid = _grid("AUC of every attack: adaptive / non-adaptive" if start == 0 else "", "attack")
        for line in part:
            heading = Text(f"{formatting.title(line['defense'])}\n{line['label']}")
            grid.add_column(heading, justify="right", max_width=CELL, overflow="fold", vertical="bottom")
        for name in names:
            found = [cells[line["defense"], line["settings"], name] for line in part]
            texts = [[formatting.value(cell, f"auc_{mode}") for mode in MODES] for cell in found]
            grid.add_row(Text(name), *(" / ".join(t if t[0].isdigit() else "-" for t in pair) for pair in texts))
        grids.append(grid)
    return grids

"""The summary of a result on a terminal, or as plain lines."""

from __future__ import annotations

from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from relaxloss.report import tables, words
from relaxloss.report.tables import TPRS
from relaxloss.results import Result

WIDE = 110  # columns from which an interval stands beside its value; below, under it
FRONT = ("top1", "delta_top1", "auc_{mode}", "delta_auc_{mode}", "auc_{other}")
LEAKAGE = ("auc_{mode}", "attack_{mode}", "selected_auc_{mode}", *(f"{tpr}_{{mode}}" for tpr in TPRS))
TRAINING = ("top5", "train_top1", "member_loss", "member_loss_variance", "test_loss", "calibration_error")
MODES = {"adaptive": "adaptive", "nonadaptive": "non-adaptive"}


def print_summary(result: Result, console: Console) -> None:
    """Print the headline, the tables of accuracy and leakage, the attacks, and the warnings."""
    table = tables.summary(result)
    mode = tables.headed_by(table)
    console.print()
    for sentence in tables.headline(table):
        _say(console, sentence, style="bold")
    interval = "; ".join(dict.fromkeys(table["interval"]))
    _say(console, f"AUC 0.5 is guessing, 1 is certainty. Intervals: {interval}. Changes are relative, in per cent.")
    for heading, columns in (
        ("Accuracy against the strongest attack", FRONT),
        (f"Leakage in detail ({MODES[mode]} attacks)", LEAKAGE),
        ("Training and accuracy in detail", TRAINING),
    ):
        console.print()
        console.print(_table(table, heading, columns, mode, wide=console.width >= WIDE))
    _say_reasons(table, console)
    for part in _attack_tables(tables.attacks_table(result), console.width):
        console.print()
        console.print(part)
    for flag in getattr(result, "flags", ()) or ():
        _say(console, f"warning: {flag.detail}. {flag.why} {flag.what_to_do}", style="yellow")
    for failure in result.failures:
        _say(console, f"failed: {failure}", style="red")
    console.print()


def _say(console: Console, text: str, style: str | None = None) -> None:
    console.print(Text(text, style=style or ""), highlight=False)


HEADINGS = {
    "top1": "test accuracy %",
    "top5": "top-5 %",
    "train_top1": "train accuracy %",
    "member_loss": "member loss",
    "member_loss_variance": "its variance",
    "test_loss": "test loss",
    "calibration_error": "calibration error %",
    "attack": "by",
    "selected_auc": "AUC, attack chosen on half",
    "delta_top1": "change %",
    "delta_auc": "change %",
} | {tpr: f"TPR % at {float(tpr.split('_')[2]):.1%} FPR" for tpr in TPRS}


def _heading(name: str) -> str:
    measure, _, mode = name.rpartition("_")
    if measure == "auc":
        return f"AUC {MODES[mode]}"
    return HEADINGS[measure if mode in MODES else name]


def _table(table: pd.DataFrame, heading: str, columns: tuple[str, ...], mode: str, *, wide: bool) -> Table:
    other = next(each for each in MODES if each != mode)
    names = [column.format(mode=mode, other=other) for column in columns]
    if not wide and names[0] == f"auc_{mode}":
        names.remove(f"attack_{mode}")
    grid = _grid(heading)
    grid.add_column("defense", overflow="fold", max_width=44 if wide else 24)
    for name in names:
        grid.add_column(_heading(name), justify="left" if name.startswith("attack") else "right")
    for _, row in table.iterrows():
        line: dict[str, Any] = {str(key): item for key, item in row.items()}
        under = "" if wide or names[0] != f"auc_{mode}" else line[f"attack_{mode}"]
        cells = [_cell(line, name, wide=wide, under=under if name == names[0] else "") for name in names]
        grid.add_row(_called(line, wide=wide), *cells, style="bold" if line["defense"] == "relaxloss" else "")
    return grid


def _grid(heading: str) -> Table:
    return Table(title=Text(heading), title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))  # fmt: skip


def _called(line: dict[str, Any], *, wide: bool) -> Text:
    label = f"{' ' if wide else chr(10)}{line['label']}" if line["label"] else ""
    return Text.assemble(words.title(line["defense"]), (label, "dim"))


def _cell(line: dict[str, Any], name: str, *, wide: bool, under: str) -> Text:
    if name.startswith("attack"):
        return Text(line[name])
    interval = words.interval(line, name)
    end = "".join(f"{' ' if wide else chr(10)}{part}" for part in (f"[{interval}]" if interval else "", under) if part)
    return Text.assemble(words.value(line, name), (end, "dim"))


def _say_reasons(table: pd.DataFrame, console: Console) -> None:
    for reason in reasons(table):
        _say(console, reason, style="dim")


def reasons(table: pd.DataFrame) -> list[str]:
    """Why something was not measured: every distinct note of `tables.summary`, once."""
    found: dict[str, None] = {}
    for name in [str(column) for column in table.columns if str(column).endswith("_note")]:
        quantity = name.removesuffix("_note")
        if quantity.startswith(("delta", "selected")):
            continue
        heading = quantity.removesuffix("_adaptive").removesuffix("_nonadaptive")
        said = HEADINGS.get(heading, heading.replace("_", " ").replace("auc", "AUC"))
        for note in table.loc[table[quantity].isna(), name]:
            found[f"{said}: {note}"] = None
    return list(found)


def _attack_tables(table: pd.DataFrame, width: int) -> list[Table]:
    """Attacks in rows, defenses in columns, as many side by side as fit."""
    called = table[["defense", "settings", "label"]].drop_duplicates()
    each = 18
    fit = max(1, (width - 20) // each)
    grids = []
    for start in range(0, len(called), fit):
        part = called.iloc[start : start + fit]
        grid = _grid("AUC of every attack: adaptive / non-adaptive" if start == 0 else "")
        grid.add_column("attack", overflow="fold")
        for _, line in part.iterrows():
            heading = f"{words.title(line['defense'])}\n{line['label']}".strip()
            grid.add_column(Text(heading), justify="right", width=each - 2, overflow="fold")
        for attack in table["attack"].drop_duplicates():
            cells = []
            for _, line in part.iterrows():
                is_it = (table["defense"] == line["defense"]) & (table["settings"] == line["settings"])
                found = table[is_it & (table["attack"] == attack)].iloc[0].to_dict()
                shown = (words.value(found, f"auc_{mode}") for mode in MODES)
                cells.append(" / ".join("-" if text == "not measured" else text for text in shown))
            grid.add_row(Text(attack), *cells)
        grids.append(grid)
    return grids

"""A tuning on a terminal, or as plain lines; the chosen spec is the last one, by itself."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from relaxloss.report.comparison import tables
from relaxloss.report.tuning import sentences
from relaxloss.tuning import Tuning

HEADINGS = {"top1": "test\naccuracy %", "auc": "AUC,\nadaptive", "tpr_at_0.01_fpr": "TPR % at\n1 % FPR"}


def print_tuning(tuning: Tuning, out: Path, console: Console) -> None:
    """Print every setting tried, what was chosen by which data, the command that goes on, and the spec."""
    grid = Table(box=None, pad_edge=False, padding=(0, 1))
    grid.add_column("\nsetting", overflow="fold")
    for heading in (*HEADINGS.values(), "within\nthe goal"):
        grid.add_column(heading, justify="right", no_wrap=True)
    for line in tables.records(tuning.table):
        cells = [sentences.said(line, name).replace(" [", "\n[") for name in HEADINGS]
        name = "no defense" if line["order"] == 0 else str(line["spec"])
        met = "yes" if line["met"] else "no"
        grid.add_row(Text(name), *cells, met, style="bold" if line["chosen"] else "")
    console.print()
    console.print(grid)
    console.print()
    for place, sentence in enumerate(sentences.sentences(tuning)):
        console.print(Text(sentence, style="" if place else "bold"))
    for note in dict.fromkeys(note for note in tuning.table["note"] if note):
        console.print(Text(note, style="yellow"))
    console.print()
    console.print(f"report: {out / 'report.html'}", soft_wrap=True)
    console.print(f"next: {sentences.command(out)}", soft_wrap=True)
    console.print(tuning.spec, soft_wrap=True)

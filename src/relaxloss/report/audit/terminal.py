"""An audit on a terminal, or as plain lines."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from relaxloss.auditing.audit import Audit
from relaxloss.report import formatting
from relaxloss.report.audit import sentences

COLUMNS = {"auc": "AUC", "tpr_at_0.01_fpr": "% found at\n1 % FPR", "tpr_at_0.001_fpr": "% found at\n0.1 % FPR"}


def print_audit(audit: Audit, console: Console) -> None:
    """Print the sentences, a line per attack, what was not measured, and the warnings."""
    console.print()
    for place, sentence in enumerate(sentences.sentences(audit)):
        console.print(Text(sentence, style="" if place else "bold"))
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("attack", no_wrap=True, vertical="bottom")
    for heading in COLUMNS.values():
        table.add_column(heading, justify="right", no_wrap=True, vertical="bottom")
    for line in sentences.measured(audit):
        cells = []
        for name in COLUMNS:
            span = formatting.interval(line, name)
            cells.append(Text.assemble(formatting.value(line, name), (f"\n[{span}]" if span else "", "dim")))
        table.add_row(Text(line["attack"].replace("_", " ")), *cells)
    console.print()
    console.print(table)
    console.print()
    for why, names in sentences.unmeasured(audit):
        console.print(Text(f"Not measured: {', '.join(names)}: {why}.", style="dim"))
    for note in audit.facts["notes"]:
        console.print(Text(note, style="dim"))
    for flag in audit.flags:
        console.print(Text(formatting.warning(flag), style="yellow"))

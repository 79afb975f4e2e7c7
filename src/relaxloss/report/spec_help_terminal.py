"""A manual page on a terminal, or as plain lines."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from relaxloss.report.spec_help import Page


def print_page(page: Page, console: Console) -> None:
    """Print the title, the text, what it needs, the table of fields, and the sweep."""
    console.print(Text(page.title, "bold"), soft_wrap=True)
    for paragraph in page.paragraphs:
        console.print()
        console.print(Text(paragraph))
    if page.needs:
        console.print()
        console.print(Text(f"It needs {page.needs}."))
    if page.fields:
        table = Table("field", "default", "what it is", box=None, pad_edge=False)
        for field in page.fields:
            table.add_row(field.name, field.default, Text(field.about))
        console.print()
        console.print(table)
    if page.sweep:
        console.print()
        console.print(Text(f"Its curve (--sweep): {', '.join(page.sweep)}"))
    console.print()

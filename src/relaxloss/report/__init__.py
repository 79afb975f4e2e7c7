"""Reports: a result as tables, charts, one HTML page, and a directory of files."""

from relaxloss.report.folder import load, lost, save
from relaxloss.report.frontier import frontier
from relaxloss.report.merging import merge
from relaxloss.report.page import write
from relaxloss.report.tables import attacks_table, summary
from relaxloss.report.terminal import print_summary

__all__ = ["attacks_table", "frontier", "load", "lost", "merge", "print_summary", "save", "summary", "write"]

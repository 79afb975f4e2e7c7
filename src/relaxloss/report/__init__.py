"""Reports: a result as tables, charts, one HTML page, and a directory of files."""

from relaxloss.experiments.merge import merge
from relaxloss.report.comparison.folder import load, lost, save
from relaxloss.report.comparison.frontier import frontier
from relaxloss.report.comparison.page import write
from relaxloss.report.comparison.tables import attacks_table, summary
from relaxloss.report.comparison.terminal import print_summary

__all__ = ["attacks_table", "frontier", "load", "lost", "merge", "print_summary", "save", "summary", "write"]

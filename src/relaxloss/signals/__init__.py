"""Signals: what an attacker observes of a model, and the queries that make them."""

from relaxloss.signals.queries import (
    QUERIES,
    TWICE,
    VIEWS,
    Query,
    augmented,
    differences,
    observe,
    perturbations,
    perturbed,
    plain,
    rows_of,
    shifted,
    white_box,
)
from relaxloss.signals.signals import STAY, VERSION, Answers, Arrays, Float, Signals, fixed, read

__all__ = [
    "QUERIES",
    "STAY",
    "TWICE",
    "VERSION",
    "VIEWS",
    "Answers",
    "Arrays",
    "Float",
    "Query",
    "Signals",
    "augmented",
    "differences",
    "fixed",
    "observe",
    "perturbations",
    "perturbed",
    "plain",
    "read",
    "rows_of",
    "shifted",
    "white_box",
]

"""Defenses: one file per method. `parse` makes one from ``name:field=value``."""

from relaxloss.defenses.base import NONE, Composed, Defense, DefenseField, NoDefense, defenses, parse
from relaxloss.defenses.relaxloss import RelaxLoss

register = defenses.register

__all__ = ["NONE", "Composed", "Defense", "DefenseField", "NoDefense", "RelaxLoss", "defenses", "parse", "register"]

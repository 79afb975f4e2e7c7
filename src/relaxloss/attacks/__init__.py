"""Attacks: one file per method, and `functional`, the pure scores beneath them."""

from relaxloss.attacks import functional
from relaxloss.attacks.base import SETS, Attack, AttackField, Evidence, Needs, attacks, check, parse, parse_list

register = attacks.register

__all__ = [
    "SETS",
    "Attack",
    "AttackField",
    "Evidence",
    "Needs",
    "attacks",
    "check",
    "functional",
    "parse",
    "parse_list",
    "register",
]

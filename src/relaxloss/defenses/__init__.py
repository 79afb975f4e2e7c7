"""Defenses: one file per method. `parse` makes one from ``name:field=value``."""

from relaxloss.defenses._lists import installed, parse_list, swept
from relaxloss.defenses.advreg import AdvReg
from relaxloss.defenses.base import NONE, Composed, Defense, DefenseField, NoDefense, defenses, parse
from relaxloss.defenses.ccl import CCL
from relaxloss.defenses.confidence_penalty import ConfidencePenalty
from relaxloss.defenses.crl import CRL
from relaxloss.defenses.distillation import Distillation
from relaxloss.defenses.dpsgd import DPSGD
from relaxloss.defenses.dropout import Dropout
from relaxloss.defenses.early_stopping import EarlyStopping
from relaxloss.defenses.flooding import Flooding
from relaxloss.defenses.hamp import HAMP
from relaxloss.defenses.label_smoothing import LabelSmoothing
from relaxloss.defenses.memguard import MemGuard
from relaxloss.defenses.relaxloss import RelaxLoss, UnstoppedRelaxLoss
from relaxloss.defenses.selena import Selena

register = defenses.register

__all__ = [
    "CCL",
    "CRL",
    "DPSGD",
    "HAMP",
    "NONE",
    "AdvReg",
    "Composed",
    "ConfidencePenalty",
    "Defense",
    "DefenseField",
    "Distillation",
    "Dropout",
    "EarlyStopping",
    "Flooding",
    "LabelSmoothing",
    "MemGuard",
    "NoDefense",
    "RelaxLoss",
    "Selena",
    "UnstoppedRelaxLoss",
    "defenses",
    "installed",
    "parse",
    "parse_list",
    "register",
    "swept",
]

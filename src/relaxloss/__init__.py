"""Train classifiers that do not betray who was in their training data, and prove it.

Use it: `train`, `compare`, `tune`, `audit`, `audit_model`, `Experiment`, and the rooms `data`, `nn`, `functional`,
`metrics`, `games`, `gradients`, `report`, `settings`. Extend it: `defenses.register`, `attacks.register`,
`data.register` and `models.register`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from relaxloss.errors import MissingExtra, UserError
from relaxloss.provenance import __version__

if TYPE_CHECKING:
    from relaxloss import attacks, data, defenses, functional, games, gradients, metrics, models, nn, report, settings
    from relaxloss.api import compare, tune
    from relaxloss.auditing.audit import audit
    from relaxloss.auditing.trained_model import audit_model
    from relaxloss.experiments.plan import Experiment
    from relaxloss.trained import Trained, train
    from relaxloss.training.task import Recipe

_NAMES = {
    "audit": "relaxloss.auditing.audit",
    "audit_model": "relaxloss.auditing.trained_model",
    "compare": "relaxloss.api",
    "Experiment": "relaxloss.experiments.plan",
    "Recipe": "relaxloss.training.task",
    "Trained": "relaxloss.trained",
    "train": "relaxloss.trained",
    "tune": "relaxloss.api",
}


def __getattr__(name: str) -> Any:
    """Rooms and names are imported when they are first asked for, so that ``import relaxloss`` is quick."""
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    if name in __all__:
        return importlib.import_module(f"relaxloss.{name}")
    if name == "prediction_files":  # the module's name before 0.2
        return importlib.import_module("relaxloss.auditing.readers")
    raise AttributeError(f"module 'relaxloss' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "Experiment",
    "MissingExtra",
    "Recipe",
    "Trained",
    "UserError",
    "__version__",
    "attacks",
    "audit",
    "audit_model",
    "compare",
    "data",
    "defenses",
    "functional",
    "games",
    "gradients",
    "metrics",
    "models",
    "nn",
    "report",
    "settings",
    "train",
    "tune",
]

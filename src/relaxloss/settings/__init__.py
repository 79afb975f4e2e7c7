"""Ready experiments: the paper's seven settings, and stand-ins for data that is not always at hand.

Each is one TOML file beside this module, which `relaxloss compare` also reads as a file of its own. A setting names the
data set, the model and its schedule, RelaxLoss as the paper sets it, the paper's baselines at their defaults (their
curves: ``--sweep``), its attacks, and both kinds of shadows. What stands in for what is in the setting's ``note``, and
why a number was chosen in the file's comments.

>>> load("cifar10-resnet20").defenses[1]
RelaxLoss(alpha=1.0, flatten='misclassified', upper=1.0)

Source of the numbers: the paper (Chen, Yu, Fritz, ICLR 2022) and its released code.
"""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Any

from relaxloss import games
from relaxloss.errors import unknown
from relaxloss.experiments.plan import Experiment, attacks_for
from relaxloss.specs import build

SUFFIX = ".toml"


def names() -> list[str]:
    """The settings' names, sorted."""
    files = (file.name for file in resources.files(__name__).iterdir())
    return sorted(name.removesuffix(SUFFIX) for name in files if name.endswith(SUFFIX))


def read(name: str) -> dict[str, Any]:
    """The fields of a setting as its file has them, for whoever overrides some; `UserError` for an unknown name."""
    if name not in names():
        raise unknown("setting", name, names())
    fields = tomllib.loads(resources.files(__name__).joinpath(name + SUFFIX).read_text(encoding="utf-8"))
    assert fields["setting"] == name, f"{name}{SUFFIX} calls itself {fields['setting']}"
    return fields


def load(name: str) -> Experiment:
    """The setting as an experiment; `dataclasses.replace` changes a field of it."""
    fields = read(name)
    game = games.parse(fields["game"])
    return build(Experiment, fields | {"game": game, "attacks": attacks_for(fields["attacks"], game)[0]})


def listing() -> list[tuple[str, str]]:
    """Names and one line each."""
    return [(name, read(name)["note"]) for name in names()]


__all__ = ["listing", "load", "names", "read"]

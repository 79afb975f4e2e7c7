"""Early stopping: the model after so many epochs of the recipe, as in the baseline of the RelaxLoss paper.

Threat model: black-box and white-box; training only, no reference data, at most the cost of plain training. All the
epochs of the paper's curve are snapshots of one training, so that the whole curve costs one training.

Useful range: `epoch` from 5 to the recipe's epochs. The paper has no default; 20 is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import PositiveInt

from relaxloss import training
from relaxloss.defenses.base import Defense, defenses
from relaxloss.training import Fit, Session, State, Task, copy_of

CURVE = (5, 10, 15, 20, 30, 40, 50, 60, 70, 75, 100, 150, 200, 250)  # the paper's, for tables and for images


@defenses.register("early_stopping")
@dataclass(frozen=True)
class EarlyStopping(Defense):
    """Stop after `epoch` epochs, or at the recipe's end if that comes first. The recipe's schedule stays what it is.

    Attributes:
        epoch: how many epochs; None: all of the recipe, no stop.
    """

    about: ClassVar[str] = "the model after so many epochs"
    neutral: ClassVar[Mapping[str, Any] | None] = {"epoch": None}
    active: ClassVar[Mapping[str, Any]] = {"epoch": 2}
    sweep: ClassVar[tuple[Mapping[str, Any], ...]] = tuple({"epoch": epoch} for epoch in reversed(CURVE))
    epoch: PositiveInt | None = 20

    @property
    def trainer(self) -> Defense:
        """For an epoch of the curve the training that keeps them all; any other epoch trains by itself."""
        return EarlyStopping(epoch=None) if self.epoch in CURVE else self

    @property
    def snapshot(self) -> int | None:
        """The epoch, if it is one of the curve's."""
        return self.epoch if self.epoch in CURVE else None

    def keeps(self, epoch: int) -> bool:
        """The epochs of the curve."""
        return self.epoch is None and epoch in CURVE

    def done(self, state: State) -> bool:
        """Whether `epoch` epochs are over."""
        return self.epoch is not None and state.epoch >= self.epoch

    def fit(self, task: Task, session: Session) -> Fit:
        """Train; epochs of the curve that the recipe does not reach have its final weights."""
        fit = training.fit(self, task, session)
        if self.epoch is None:
            fit.snapshots |= {e: copy_of(fit.network) for e in CURVE if e > task.recipe.epochs}
        return fit

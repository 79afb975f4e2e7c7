"""Lightning: tells a criterion the epoch, by which RelaxLoss alternates.

A criterion that is an attribute of the LightningModule is switched to the plain cross-entropy by Lightning itself where
it validates, so that ``validation_step`` may use it, too.
"""

from __future__ import annotations

from typing import Any

from relaxloss.errors import MissingExtra, UserError
from relaxloss.nn import Alternating

try:
    from lightning.pytorch import Callback
except ImportError as error:
    raise MissingExtra(f"relaxloss.integrations.lightning ({error})", "lightning") from None


class SetEpoch(Callback):
    """Before each epoch of training, ``set_epoch`` of the criteria in the LightningModule that alternate by it.

    >>> # Trainer(callbacks=[SetEpoch()]); in the LightningModule: self.criterion = relaxloss.nn.RelaxLoss(alpha=0.5)

    A run that is resumed goes on with its epoch. Of gradients that are accumulated each batch is held at alpha by its
    own mean; on several devices the mean is over all of them.

    Args:
        criteria: which; by default all among the module's parts. They become the plain cross-entropy where Lightning
            validates, also if they are no parts of it.

    Raises:
        UserError: for what is no such criterion; and at the start of the training, if there is none.
    """

    def __init__(self, *criteria: Alternating) -> None:
        for each in criteria:
            if not isinstance(each, Alternating):
                raise UserError(
                    f"got a {type(each).__name__}, which does not alternate by epoch; expected relaxloss.nn.RelaxLoss "
                    "or CRL: other criteria need no callback"
                )
        self.criteria = criteria

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Lightning calls it."""
        for criterion in self.criteria:
            criterion.eval()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Lightning calls it."""
        for criterion in self.criteria:
            criterion.train()

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Lightning calls it."""
        found = self.criteria or [part for part in pl_module.modules() if isinstance(part, Alternating)]
        if not found:
            raise UserError(
                f"{type(pl_module).__name__} has no criterion that alternates by epoch; expected one as an attribute, "
                "such as self.criterion = relaxloss.nn.RelaxLoss(alpha=0.5), or SetEpoch(criterion)"
            )
        for criterion in found:
            criterion.set_epoch(trainer.current_epoch)

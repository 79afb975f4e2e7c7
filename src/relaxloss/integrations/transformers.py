"""Hugging Face transformers: a `Trainer` that trains a classifier with a criterion of `relaxloss.nn`."""

from __future__ import annotations

from typing import Any

from relaxloss.errors import MissingExtra, UserError
from relaxloss.nn import Alternating, Criterion

try:
    from transformers import Trainer, TrainerCallback
except ImportError as error:
    raise MissingExtra(f"relaxloss.integrations.transformers ({error})", "transformers") from None


class DefendedTrainer(Trainer):
    """`transformers.Trainer` of a classifier, whose loss is the criterion's, and the cross-entropy where it evaluates.

    >>> # DefendedTrainer(model, args, train_dataset=..., criterion=relaxloss.nn.RelaxLoss(alpha=0.3))

    The criterion is told each epoch, of a resumed run too. Of gradients that are accumulated each batch is held at
    alpha by its own mean; on several devices the mean is over all of them.

    Args:
        criterion: any of `relaxloss.nn`, but for the distillation.
        given: as of `transformers.Trainer`.

    Raises:
        UserError: the criterion is none, or the arguments name another loss; in training, a batch without ``labels``.
    """

    loss_is_scaled_for_ga = False  # it is a batch's mean, so that Trainer divides by the number of accumulated batches

    def __init__(self, *given: Any, criterion: Criterion, **named: Any) -> None:
        if not isinstance(criterion, Criterion):
            raise UserError(f"got a {type(criterion).__name__} as criterion; expected one of relaxloss.nn's criteria")
        super().__init__(*given, **named)
        if self.compute_loss_func is not None or self.label_smoother is not None:
            raise UserError(
                "got another loss beside the criterion; expected neither compute_loss_func nor label_smoothing_factor "
                "(relaxloss.nn.LabelSmoothing is a criterion)"
            )
        self.model_accepts_loss_kwargs = False  # what `loss_is_scaled_for_ga` says, to older versions
        self.criterion = criterion
        if isinstance(criterion, Alternating):
            self.add_callback(_SetEpoch(criterion))

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The criterion of the model's logits and the batch's labels."""
        if "labels" not in inputs:
            raise UserError(f"got a batch of {', '.join(inputs)}; expected labels in it, one class per sample")
        outputs = model(**{name: values for name, values in inputs.items() if name != "labels"})
        self.criterion.train(model.training)
        loss = self.criterion(outputs["logits"], inputs["labels"])
        return (loss, outputs) if return_outputs else loss


class _SetEpoch(TrainerCallback):
    def __init__(self, criterion: Alternating) -> None:
        self.criterion = criterion
        self.epoch = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Trainer calls it; ``state.epoch`` is how many a resumed run has behind it."""
        self.epoch = int(state.epoch or 0)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Trainer calls it. NB: where a data set has no length, its ``state.epoch`` is a share of all steps."""
        self.criterion.set_epoch(self.epoch)
        self.epoch += 1

"""Losses as pure functions of tensors: ``(B, C)`` logits and ``(B,)`` labels to a scalar, no state, no registry.

All are means over the batch, in nats, computed in float32 at least (half precision is widened, float64 kept). They are
made of torch's own differentiable operators and never wait for a device, so they run under autocast, `torch.compile`
and `torch.func`, and can be differentiated twice. At its neutral setting a loss equals `cross_entropy` bit for bit in
value and gradient. Wrong shapes and settings raise `relaxloss.errors.UserError`; a label outside ``[0, C)`` is torch's
error, -100 too: no label is skipped.
"""

from relaxloss.functional.base import cross_entropy
from relaxloss.functional.baselines import (
    ccl,
    confidence_penalty,
    crl_logits,
    crl_loss,
    distillation,
    flooding,
    hamp_loss,
    hamp_target,
    label_smoothing,
    relaxed_center_loss,
)
from relaxloss.functional.relax import Flatten, flattened_targets, relax_loss

__all__ = [
    "Flatten",
    "ccl",
    "confidence_penalty",
    "crl_logits",
    "crl_loss",
    "cross_entropy",
    "distillation",
    "flattened_targets",
    "flooding",
    "hamp_loss",
    "hamp_target",
    "label_smoothing",
    "relax_loss",
    "relaxed_center_loss",
]

"""How well scores tell members from non-members, and what a classifier is good for: plain functions on arrays."""

from relaxloss.metrics.curve import (
    auc,
    balanced_accuracy,
    best_threshold,
    best_thresholds,
    resolvable,
    roc,
    tied_share,
    tpr_at_fpr,
)
from relaxloss.metrics.intervals import (
    auc_difference_interval,
    auc_interval,
    balanced_accuracy_interval,
    clopper_pearson,
    one_run_epsilon,
    tpr_interval,
    wilson,
)
from relaxloss.metrics.utility import Summary, accuracy_interval, calibration_error, losses, summary, top_k

__all__ = [
    "Summary",
    "accuracy_interval",
    "auc",
    "auc_difference_interval",
    "auc_interval",
    "balanced_accuracy",
    "balanced_accuracy_interval",
    "best_threshold",
    "best_thresholds",
    "calibration_error",
    "clopper_pearson",
    "losses",
    "one_run_epsilon",
    "resolvable",
    "roc",
    "summary",
    "tied_share",
    "top_k",
    "tpr_at_fpr",
    "tpr_interval",
    "wilson",
]

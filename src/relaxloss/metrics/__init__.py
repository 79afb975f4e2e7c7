"""How well scores tell members from non-members, and what a classifier is good for: plain functions on arrays."""

from relaxloss.metrics.clusters import (
    Clusters,
    clustered_auc_difference_interval,
    clustered_auc_interval,
    clustered_balanced_accuracy_interval,
    clustered_tpr_interval,
    design_effect,
)
from relaxloss.metrics.curve import (
    auc,
    balanced_accuracy,
    best_threshold,
    best_thresholds,
    resolvable,
    roc,
    threshold_at_fpr,
    tied_share,
    tpr_at_fpr,
)
from relaxloss.metrics.intervals import (
    Interval,
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
    "Clusters",
    "Interval",
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
    "clustered_auc_difference_interval",
    "clustered_auc_interval",
    "clustered_balanced_accuracy_interval",
    "clustered_tpr_interval",
    "design_effect",
    "losses",
    "one_run_epsilon",
    "resolvable",
    "roc",
    "summary",
    "threshold_at_fpr",
    "tied_share",
    "top_k",
    "tpr_at_fpr",
    "tpr_interval",
    "wilson",
]

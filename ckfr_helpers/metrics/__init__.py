"""How often a classifier is wrong, how badly, and with which interval."""

from ckfr_helpers.metrics.alignment import latent_tree_correlation
from ckfr_helpers.metrics.hierarchical import (
    hierarchical_metrics,
    minimum_risk_labels,
    minimum_risk_scores,
    mistake_distances,
    ranking,
)
from ckfr_helpers.metrics.intervals import Interval, bootstrap_interval, mean_interval, paired_difference
from ckfr_helpers.metrics.multilabel import class_average_precisions, multilabel_metrics

__all__ = [
    "Interval",
    "bootstrap_interval",
    "class_average_precisions",
    "hierarchical_metrics",
    "latent_tree_correlation",
    "mean_interval",
    "minimum_risk_labels",
    "minimum_risk_scores",
    "mistake_distances",
    "multilabel_metrics",
    "paired_difference",
    "ranking",
]

"""Find the same thing again: descriptors of pictures, search, and how well it works."""

from ckfr_helpers.retrieval.descriptors import channel_weights, class_weighted_descriptors
from ckfr_helpers.retrieval.protocols import average_precision, hierarchical_precision

__all__ = [
    "average_precision",
    "channel_weights",
    "class_weighted_descriptors",
    "hierarchical_precision",
]

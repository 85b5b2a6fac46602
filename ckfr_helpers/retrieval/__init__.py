"""Find the same thing again: descriptors of pictures, search, and how well it works."""

from ckfr_helpers.retrieval.descriptors import channel_weights, class_weighted_descriptors

__all__ = ["channel_weights", "class_weighted_descriptors"]

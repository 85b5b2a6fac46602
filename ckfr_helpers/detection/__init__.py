"""Weakly supervised detection, and what a classifier learns from it."""

from ckfr_helpers.detection.scores import detection_average_precision

__all__ = ["detection_average_precision"]

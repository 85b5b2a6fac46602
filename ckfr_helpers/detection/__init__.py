"""Weakly supervised detection, and what a classifier learns from it."""

from ckfr_helpers.detection.head import image_scores, wsddn_scores
from ckfr_helpers.detection.scores import detection_average_precision

__all__ = ["detection_average_precision", "image_scores", "wsddn_scores"]

"""From score map to box, and how good the box is: the public evaluation of Choe et al. (CVPR 2020)."""

from ckfr_helpers.attribution.boxes import (
    THRESHOLDS,
    BoxAccuracy,
    box_ious_by_contours,
    boxes_from_map,
    centre_map,
    iou_matrix,
    max_box_acc,
)
from ckfr_helpers.attribution.pixels import pxap

__all__ = [
    "THRESHOLDS",
    "BoxAccuracy",
    "box_ious_by_contours",
    "boxes_from_map",
    "centre_map",
    "iou_matrix",
    "max_box_acc",
    "pxap",
]

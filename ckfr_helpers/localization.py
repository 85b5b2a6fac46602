"""From score map to box, and how good the box is, as the field measures it.

``max_box_acc`` and ``pxap`` follow the public evaluation of Choe et al. (CVPR 2020); ``box_acc_at`` gives the
same score at a threshold fixed on validation images; ``baselines`` never look at the image.
"""

from ckfr_helpers.attribution.blind import box_acc, centre_box, centre_map
from ckfr_helpers.attribution.boxes import (
    THRESHOLDS,
    BoxAccuracy,
    FixedBoxAccuracy,
    Localization,
    box_acc_at,
    box_ious,
    boxes_from_map,
    fix_threshold,
    gt_known_localization,
    iou_matrix,
    max_box_acc,
    top1_localization,
)
from ckfr_helpers.attribution.pixels import precision_recall, pxap

__all__ = [
    "THRESHOLDS",
    "BoxAccuracy",
    "FixedBoxAccuracy",
    "Localization",
    "box_acc",
    "box_acc_at",
    "box_ious",
    "boxes_from_map",
    "centre_box",
    "centre_map",
    "fix_threshold",
    "gt_known_localization",
    "iou_matrix",
    "max_box_acc",
    "precision_recall",
    "pxap",
    "top1_localization",
]

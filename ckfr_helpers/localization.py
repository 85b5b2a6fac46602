"""From score map to box, and how good the box is, as the field measures it.

``max_box_acc`` and ``pxap`` follow the public evaluation of Choe et al. (CVPR 2020). What ``max_box_acc``
returns also gives the score at a threshold fixed on validation images (``at``), and GT-known and Top-1
localisation (``localized``). ``centre_map`` and ``centre_box`` never look at the image.
"""

from ckfr_helpers.attribution.baselines import box_acc, centre_box, centre_map
from ckfr_helpers.attribution.boxes import (
    THRESHOLDS,
    BoxAccuracy,
    Localization,
    box_ious,
    boxes_from_map,
    iou_matrix,
    max_box_acc,
)
from ckfr_helpers.attribution.pixels import precision_recall, pxap

__all__ = [
    "THRESHOLDS",
    "BoxAccuracy",
    "Localization",
    "box_acc",
    "box_ious",
    "boxes_from_map",
    "centre_box",
    "centre_map",
    "iou_matrix",
    "max_box_acc",
    "precision_recall",
    "pxap",
]

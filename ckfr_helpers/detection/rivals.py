"""What a detector is compared with: boxes that cost nothing, boxes of class maps, maps of regions' scores.

Every rival here answers with one box for each class of each picture, scored as the picture is by a
classifier; so they differ in the place alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ckfr_helpers.attribution.boxes import BoxAccuracy, box_ious_by_contours, boxes_from_map
from ckfr_helpers.attribution.cam import score_maps, upsample
from ckfr_helpers.attribution.energy import energy_in_mask
from ckfr_helpers.datasets.base import box_of_mask
from ckfr_helpers.detection.scores import corloc, detection_map, tree_credit
from ckfr_helpers.detection.tables import Detections, Objects
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.runtime import CkfrError, check_number


def one_box_each(boxes: Tensor, scores: Tensor) -> Detections:
    """A box (N, C, 4), or the same (4,) for all, for each picture and class, scored by (N, C)."""
    pictures, classes = scores.shape
    return Detections(
        boxes.expand(pictures, classes, 4).reshape(-1, 4),
        scores.reshape(-1),
        torch.arange(classes).repeat(pictures),
        torch.arange(pictures).repeat_interleave(classes),
    )


def centre_box(size: tuple[int, int], share: float = 1.0) -> Tensor:
    """(4,) whose sides are this share of a picture's (height, width); 1 is the whole picture."""
    check_number("share", share, 0, 1, above=True)
    width, height = (max(1, round(share * side)) for side in (size[1], size[0]))
    left, top = (size[1] - width) // 2, (size[0] - height) // 2
    return torch.tensor([left, top, left + width - 1, top + height - 1]).float()


def random_boxes(proposals: Tensor, pictures: int, classes: int, seed: int = 0) -> Tensor:
    """One of the proposals (R, 4), drawn uniformly for each picture and class: (N, C, 4)."""
    draw = torch.Generator().manual_seed(seed)
    return proposals[torch.randint(len(proposals), (pictures, classes), generator=draw)]


def boxes_of_maps(raw: Tensor, size: tuple[int, int], threshold: float, step: int = 4) -> Tensor:
    """The box around the largest contour of maps (N, C, h, w): (N, C, 4) in pixels of pictures of ``size``.

    Maps are enlarged to the picture's size divided by ``step`` and cut at ``threshold`` of their range.
    """
    small = (size[0] // step, size[1] // step)
    scaled = score_maps(raw.flatten(0, 1), small)
    found = torch.from_numpy(np.concatenate([boxes_from_map(one, threshold) for one in scaled])).float()
    # The public evaluation's far edges lie one pixel behind the contour, but for those at the map's own edge.
    found[:, 2:] -= (found[:, 2:] < torch.tensor([small[1] - 1, small[0] - 1])).float()
    corners = found.clamp(min=0) * step + torch.tensor([0.0, 0, step - 1, step - 1])
    return corners.reshape(*raw.shape[:2], 4)


def region_maps(boxes: Tensor, scores: Tensor, size: tuple[int, int], step: int = 4) -> Tensor:
    """Where regions say that a class is: at each place the sum of the scores of those that cover it.

    Args:
        boxes: (R, 4) in pixels of a picture of ``size`` (height, width), both ends inside.
        scores: (R, C), at least 0.
        step: pixels of the picture to a pixel of the map.

    Returns:
        (C, height / step, width / step). Of `wsddn_scores` it is at most the picture's score for the class.
    """
    if boxes.shape != (len(scores), 4):
        raise CkfrError(f"Boxes have shape {tuple(boxes.shape)}; expected ({len(scores)}, 4).")
    height, width = size[0] // step, size[1] // step
    x0, y0, x1, y1 = (boxes / step).floor().long().unbind(1)
    x0, x1 = x0.clamp(0, width - 1), (x1 + 1).clamp(1, width)
    y0, y1 = y0.clamp(0, height - 1), (y1 + 1).clamp(1, height)
    # Each box adds its score from its near corner on and takes it away behind its far edges.
    corners = scores.new_zeros(scores.shape[1], (height + 1) * (width + 1), dtype=torch.float64)
    for x, y, sign in ((x0, y0, 1), (x1, y0, -1), (x0, y1, -1), (x1, y1, 1)):
        corners.index_add_(1, y * (width + 1) + x, sign * scores.T.double())
    whole = corners.reshape(-1, height + 1, width + 1).cumsum(1).cumsum(2)
    return whole[:, :height, :width].clamp(min=0).float()


@dataclass(frozen=True)
class MapLook:
    """How class maps look at objects, one row an object: energy on it (P,), box IoUs at every threshold."""

    energy: np.ndarray
    boxes: BoxAccuracy  # of the largest contour, at IoU 0.5

    @property
    def threshold(self) -> float:
        """The score threshold at which most boxes are right."""
        return float(self.boxes.best_thresholds[0])

    def scores(self, chosen_on: "MapLook") -> dict[str, float]:
        """``energy``; ``gt_known``, at the best threshold, and ``gt_known_fixed``, at another split's."""
        return {
            "energy": float(self.energy.mean()),
            "gt_known": self.boxes.mean,
            "gt_known_fixed": float(self.boxes.at(chosen_on.threshold).mean()),
        }


def look_at(maps: Tensor, masks: Tensor) -> MapLook:
    """Raw maps (P, h, w) of classes, of any values, beside the masks (P, H, W) of their objects."""
    size = (masks.shape[1], masks.shape[2])
    boxes = [np.array([box_of_mask(mask.numpy())]) for mask in masks]
    ious = box_ious_by_contours(score_maps(maps, size), boxes)["largest"]
    return MapLook(energy_in_mask(upsample(maps, size), masks), BoxAccuracy.from_ious(ious, (0.5,)))


def box_scores(detections: Detections, objects: Objects, hierarchy: Hierarchy) -> dict[str, float]:
    """Every score of `scores` for boxes of all classes: VOC's at IoU 0.3 and 0.5, CorLoc, credit by the tree.

    Returns:
        "box_mAP@0.3", "box_mAP@0.5", "corloc" (of the given pictures), and of `scores.tree_credit`
        "mAP_tree", "located", "label_right", "hdist@box", "mistake_severity_box" in heights of the tree.
    """
    classes, heights = len(hierarchy), hierarchy.distances("lca_height")
    found = {f"box_mAP@{iou}": detection_map(detections, objects, classes, iou).mean for iou in (0.3, 0.5)}
    found["corloc"] = corloc(detections, objects, classes).mean
    credit = tree_credit(detections, objects, heights)
    renamed: Sequence[tuple[str, str]] = (
        ("hdist", "hdist@box"),
        ("mistake_severity", "mistake_severity_box"),
    )
    for old, new in renamed:
        credit[new] = credit.pop(old)
    return found | credit

"""Baselines that never look at the image: the centre map, the centre box and the whole image."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ckfr_helpers.attribution.boxes import check_iou_thresholds, iou_matrix
from ckfr_helpers.attribution.inputs import Boxes, check_boxes, to_numpy
from ckfr_helpers.runtime import CkfrError


def centre_map(height: int, width: int) -> np.ndarray:
    """A score map that looks at nothing: a round Gaussian at the centre, (H, W) float32 with maximum 1.

    The baseline of Choe et al. (CVPR 2020, §4.3): photographers centre their objects, so this scores well,
    and a method must beat it. Its deviation is a quarter of the shorter side; boxes hardly depend on that,
    because the threshold moves with it.
    """
    y, x = np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2
    squared = (y[:, None] ** 2 + x[None] ** 2) / (min(height, width) / 4) ** 2
    scores = np.exp(-squared / 2)
    return (scores / scores.max()).astype(np.float32)


def centre_box(height: int, width: int, side: float = 1.0) -> np.ndarray:
    """A box that looks at nothing, (4,) int64: centred, ``side`` of the image in each direction.

    ``side=1`` is the whole image, the other baseline every method must beat.
    """
    if not 0 < side <= 1:
        raise CkfrError(f"The side of a centre box is {side}; expected a share of the image in (0, 1].")
    wide, high = max(1, round(side * width)), max(1, round(side * height))
    x, y = (width - wide) // 2, (height - high) // 2
    return np.array([x, y, x + wide - 1, y + high - 1])


def box_acc(
    predicted: np.ndarray | Tensor, boxes: Boxes, iou_thresholds: Sequence[float] = (0.3, 0.5, 0.7)
) -> np.ndarray:
    """Accuracy per IoU level of boxes that came from no map, such as ``centre_box``; (K,) in [0, 1].

    Args:
        predicted: (N, 4), or (4,) for the same box everywhere.
        boxes: N arrays (n_i, 4) of true boxes.
    """
    guess = np.broadcast_to(to_numpy(predicted), (len(boxes), 4))
    best = [
        iou_matrix(g[None], check_boxes(true, f"image {i}")).max()
        for i, (g, true) in enumerate(zip(guess, boxes, strict=True))
    ]
    return np.array([np.mean(np.array(best) >= level) for level in check_iou_thresholds(iou_thresholds)])

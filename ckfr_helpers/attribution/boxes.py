"""Box accuracy of score maps: MaxBoxAcc, MaxBoxAccV2 and GT-known localisation.

The definitions are those of the public evaluation of Choe et al. (CVPR 2020), to the last count. Thresholds
between two neighbouring byte values leave the same pixels, so contours are traced once for each value.
MaxBoxAcc picks its threshold on the very images it reports, an upper bound: ``best_thresholds`` of validation
images and ``at`` on test images give what a user would get.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from torch import Tensor

from ckfr_helpers.attribution.inputs import Boxes, Maps, check_boxes, check_count, check_map
from ckfr_helpers.runtime import CkfrError

THRESHOLDS = np.arange(0, 1, 0.001)  # shares of the map's own maximum
NO_BOX = (0, 0, 0, 0)  # what the public evaluation predicts where no pixel is above the threshold
MAX_BOX_ACC_V2 = (0.3, 0.5, 0.7)

Contours = Literal["all", "largest"]


@dataclass(frozen=True)
class BoxAccuracy:
    """Box accuracy at every score threshold.

    Attributes:
        iou_thresholds: the K overlaps at which a box counts as right.
        ious: (N, 1000) best IoU of any predicted with any true box at each of ``THRESHOLDS``.
        counts: (K, 1000) int64, how many images are right.
    """

    iou_thresholds: tuple[float, ...]
    ious: np.ndarray
    counts: np.ndarray

    @classmethod
    def from_ious(cls, ious: np.ndarray, iou_thresholds: Sequence[float] = MAX_BOX_ACC_V2) -> "BoxAccuracy":
        """From the (N, 1000) rows of ``box_ious_by_contours``, of several batches perhaps.

        Raises:
            CkfrError: rows of another length, or IoU thresholds outside (0, 1].
        """
        ious, levels = np.asarray(ious), tuple(float(level) for level in iou_thresholds)
        if not levels or not all(0 < level <= 1 for level in levels):
            raise CkfrError(f"The IoU thresholds are {levels}; expected one or more numbers in (0, 1].")
        if ious.ndim != 2 or not len(ious) or ious.shape[1] != len(THRESHOLDS):
            raise CkfrError(f"IoUs have shape {ious.shape}; expected (N, {len(THRESHOLDS)}), N at least 1.")
        return cls(levels, ious, np.stack([(ious >= level).sum(axis=0) for level in levels]))

    @property
    def curves(self) -> np.ndarray:
        """(K, 1000) box accuracy over the score threshold, in [0, 1]."""
        return self.counts / len(self.ious)

    @property
    def per_iou(self) -> np.ndarray:
        """(K,) best accuracy over score thresholds, one threshold for all images, in [0, 1]."""
        return self.curves.max(axis=1)

    @property
    def mean(self) -> float:
        """Mean of ``per_iou``; MaxBoxAccV2 for IoU 0.3, 0.5, 0.7 and all contours."""
        return float(self.per_iou.mean())

    @property
    def best_thresholds(self) -> np.ndarray:
        """(K,) score threshold of each entry of ``per_iou``, to be used ``at`` other images.

        Where several are equally good, the middle one: the ends of a plateau carry over worst.
        """
        best = [np.flatnonzero(row == row.max()) for row in self.counts]
        return THRESHOLDS[[columns[(len(columns) - 1) // 2] for columns in best]]

    def at(self, thresholds: float | Sequence[float] | np.ndarray) -> np.ndarray:
        """Which images are right at score thresholds chosen beforehand, (N, K) bool.

        Args:
            thresholds: one for all IoU levels, or one for each, as ``best_thresholds`` of validation images.

        Raises:
            CkfrError: another number of thresholds, or one that is not among ``THRESHOLDS``.
        """
        used, levels = np.asarray(thresholds, float), np.array(self.iou_thresholds)
        if used.shape not in [(), levels.shape]:
            raise CkfrError(
                f"{used.size} score thresholds for {len(levels)} IoU levels; expected one, or one for each."
            )
        columns = []
        for threshold in np.broadcast_to(used, levels.shape).tolist():
            columns.append(int(np.abs(THRESHOLDS - threshold).argmin()))
            if not abs(threshold - THRESHOLDS[columns[-1]]) <= 1e-9:
                raise CkfrError(f"The score threshold is {threshold}; expected one of 0, 0.001, … 0.999.")
        return self.ious[:, columns] >= levels


def max_box_acc(
    score_maps: Maps,
    boxes: Boxes,
    iou_thresholds: Sequence[float] = MAX_BOX_ACC_V2,
    contours: Contours = "all",
) -> BoxAccuracy:
    """MaxBoxAccV2 (``contours="all"``) or, with ``contours="largest"`` and IoU 0.5, MaxBoxAcc.

    >>> scores = np.zeros((1, 40, 50)); scores[0, 5:21, 10:31] = 1
    >>> max_box_acc(scores, [[[10, 5, 30, 20]]]).per_iou
    array([1., 1., 1.])

    Args:
        score_maps: (N, H, W), or N maps (H, W) of any sizes, with values in [0, 1].
        boxes: N arrays (n_i, 4): the true boxes ``x0, y0, x1, y1`` in pixels of the map, both ends inclusive.
        iou_thresholds: a box is right at an IoU of at least this.
        contours: which contours of the thresholded map give boxes.

    Returns:
        The result; ``.per_iou`` and ``.mean`` are the scores, as shares (the public code prints per cent).

    Raises:
        CkfrError: a map that is not 2-D or leaves [0, 1], a box that is missing, not finite or reversed;
            named by index.

    Reference:
        Choe et al., CVPR 2020, §3.3; MaxBoxAccV2: the extended version, PAMI 2022.
    """
    return BoxAccuracy.from_ious(
        box_ious_by_contours(score_maps, boxes)[_check_contours(contours)], iou_thresholds
    )


def box_ious_by_contours(score_maps: Maps, boxes: Boxes) -> dict[str, np.ndarray]:
    """Best IoU of any predicted with any true box, per image and score threshold, (N, 1000) float64 each.

    For ``"all"`` contours and for the ``"largest"`` alone; arguments and errors as for ``max_box_acc``. Rows
    of several batches may be concatenated for ``BoxAccuracy.from_ious``.
    """
    check_count(score_maps, boxes, "score maps", "lists of boxes")
    every, largest = np.empty((2, len(score_maps), len(THRESHOLDS)))
    for index, (score_map, true) in enumerate(zip(score_maps, boxes, strict=True)):
        scores = check_map(score_map, index)
        target = check_boxes(true, f"image {index}", scores.shape)
        image = (scores * 255).astype(np.uint8)
        levels = (THRESHOLDS * int(image.max())).astype(int)  # (1000,) bytes
        # How many distinct values lie at or below each level: where that is equal, so are the pixels above.
        group = np.searchsorted(np.unique(image), levels, side="right")
        _, first, same = np.unique(group, return_index=True, return_inverse=True)
        found, starts, chosen = _contour_boxes(image, levels[first].tolist())
        overlap = iou_matrix(found, target).max(axis=1)
        every[index] = np.maximum.reduceat(overlap, starts)[same]
        largest[index] = overlap[chosen][same]
    return {"all": every, "largest": largest}


def boxes_from_map(
    score_map: np.ndarray | Tensor, threshold: float, contours: Contours = "largest"
) -> np.ndarray:
    """Boxes of the contours around what lies strictly above ``threshold`` times the map's maximum.

    Args:
        score_map: (H, W) in [0, 1].
        threshold: in [0, 1).
        contours: every contour's box, or only that of the contour with the largest area.

    Returns:
        (n, 4) int64 ``x0, y0, x1, y1``; one box ``0, 0, 0, 0`` where the map is zero everywhere.
    """
    if not 0 <= threshold < 1:
        raise CkfrError(
            f"The score threshold is {threshold}; expected a number from 0 up to, not including, 1."
        )
    image = (check_map(score_map, 0) * 255).astype(np.uint8)
    boxes, _, largest = _contour_boxes(image, [int(threshold * int(image.max()))])
    return boxes if _check_contours(contours) == "all" else boxes[largest]


def iou_matrix(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of inclusive pixel boxes, (n, 4) and (m, 4) -> (n, m).

    A box ``x0, y0, x1, y1`` covers ``x1 - x0 + 1`` by ``y1 - y0 + 1`` pixels.

    >>> iou_matrix([[0, 0, 1, 1]], [[0, 0, 1, 1], [1, 0, 2, 1], [5, 5, 6, 6]]).round(3)
    array([[1.   , 0.333, 0.   ]])
    """
    a = np.asarray(first, np.float64)[:, None]  # (n, 1, 4)
    b = np.asarray(second, np.float64)[None]  # (1, m, 4)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + 1  # (n, m, 2)
    shared = np.maximum(0, sides).prod(axis=-1)
    areas = [(box[..., 2:] - box[..., :2] + 1).prod(axis=-1) for box in (a, b)]
    return shared / (areas[0] + areas[1] - shared)


def _contour_boxes(image: np.ndarray, levels: list[int]) -> tuple[np.ndarray, list[int], list[int]]:
    """Boxes of the contours of ``image > level``, traced as the public evaluation does.

    Returns:
        Boxes (n, 4) of one level after the other; for each level the row of its first box, and the row of
        the contour with the largest area, the first of equals.
    """
    rectangles: list[Sequence[int]] = []  # x, y, w, h
    starts, largest = [], []
    for level in levels:
        _, above = cv2.threshold(image, level, 255, cv2.THRESH_BINARY)
        # The list of contours is the last but one of what findContours returns, in every version of OpenCV.
        contours = cv2.findContours(above, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[-2]
        areas = [cv2.contourArea(contour) for contour in contours] or [0.0]
        starts.append(len(rectangles))
        largest.append(len(rectangles) + areas.index(max(areas)))
        rectangles += [cv2.boundingRect(contour) for contour in contours] or [NO_BOX]
    boxes = np.array(rectangles, dtype=np.int64)
    boxes[:, 2:] += boxes[:, :2]
    height, width = image.shape
    return np.minimum(boxes, [width, height, width - 1, height - 1]), starts, largest


def _check_contours(contours: Contours) -> Contours:
    if contours not in ("all", "largest"):
        raise CkfrError(f"contours is {contours!r}; expected 'all' or 'largest'.")
    return contours


def centre_map(height: int, width: int) -> np.ndarray:
    """A score map that looks at nothing: a round Gaussian at the centre, (H, W) float32 with maximum 1.

    The baseline of Choe et al. (CVPR 2020, §4.3): photographers centre their objects, so this scores well,
    and a method must beat it. Its deviation is a quarter of the shorter side.
    """
    y, x = np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2
    squared = (y[:, None] ** 2 + x[None] ** 2) / (min(height, width) / 4) ** 2
    scores = np.exp(-squared / 2)
    return (scores / scores.max()).astype(np.float32)

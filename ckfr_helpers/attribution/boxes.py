"""Box accuracy of score maps: MaxBoxAcc, MaxBoxAccV2, GT-known and Top-1 localisation.

The definitions are those of the public evaluation of Choe et al., "Evaluating Weakly Supervised Object
Localization Methods Right" (CVPR 2020), to the last count: the byte image it thresholds, the thousand
thresholds, ``findContours``, boxes that reach one pixel past the contour, IoU with + 1 pixels. Thresholds
between two neighbouring byte values of a map leave the same pixels, so contours are traced once for each
value, at most 255 times a map instead of a thousand.

Two cautions come with these scores. MaxBoxAcc picks the score threshold on the very images it reports, so it
is an upper bound; ``best_thresholds`` of validation images and ``at`` on test images give what a user would
get. And with ``contours="all"`` a map may offer many boxes, the best of which counts.
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
class Localization:
    """Share of images whose object was found, at one score threshold.

    Attributes:
        accuracy: in [0, 1].
        threshold: the score threshold, as a share of each map's maximum.
        correct: (N,) bool, image by image, for bootstraps and paired tests.
    """

    accuracy: float
    threshold: float
    correct: np.ndarray


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
        """From the (N, 1000) rows of ``box_ious``, of several batches perhaps.

        Raises:
            CkfrError: rows of another length, or IoU thresholds outside (0, 1].
        """
        ious, levels = np.asarray(ious), check_iou_thresholds(iou_thresholds)
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
        return THRESHOLDS[[_middle_of_best(row) for row in self.counts]]

    def at(self, thresholds: float | Sequence[float] | np.ndarray) -> np.ndarray:
        """Which images are right at score thresholds chosen beforehand, (N, K) bool.

        Args:
            thresholds: one for all IoU levels, or one for each, as ``best_thresholds`` of validation images.

        Raises:
            CkfrError: another number of thresholds, or one that is not among ``THRESHOLDS``.
        """
        levels = np.array(self.iou_thresholds)
        used = np.asarray(thresholds, float)
        if used.ndim and used.shape != levels.shape:
            raise CkfrError(
                f"{used.size} score thresholds for {len(levels)} IoU levels; expected one, or one for each."
            )
        columns = [_column(threshold) for threshold in np.broadcast_to(used, levels.shape).tolist()]
        return self.ious[:, columns] >= levels

    def localized(
        self, iou_threshold: float = 0.5, threshold: float | None = None, right: np.ndarray | None = None
    ) -> Localization:
        """GT-known localisation; Top-1 localisation when ``right`` says which images were classified right.

        The maps are those of the true class, and ``contours="largest"``. For Top-1 maps of the predicted
        class would give the same number: where the prediction is wrong the map does not matter.

        Args:
            iou_threshold: any overlap; it need not be among ``iou_thresholds``.
            threshold: score threshold; None takes the best for these very images, an upper bound.
            right: (N,) bool.
        """
        hit = self.ious >= iou_threshold  # (N, 1000)
        if right is not None:
            if np.shape(right) != (len(hit),):
                raise CkfrError(
                    f"`right` has shape {np.shape(right)}; expected ({len(hit)},), one per image."
                )
            hit = hit & np.asarray(right, bool)[:, None]
        column = _middle_of_best(hit.sum(axis=0)) if threshold is None else _column(threshold)
        correct = hit[:, column]
        return Localization(float(correct.mean()), float(THRESHOLDS[column]), correct)


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
        Choe et al., CVPR 2020, §3.3, and the extended "Evaluation for Weakly Supervised Object Localization:
        Protocol, Metrics, and Datasets" (PAMI 2022), which adds MaxBoxAccV2.
    """
    levels = check_iou_thresholds(iou_thresholds)
    return BoxAccuracy.from_ious(box_ious(score_maps, boxes, contours), levels)


def box_ious(score_maps: Maps, boxes: Boxes, contours: Contours = "all") -> np.ndarray:
    """Best IoU of any predicted with any true box, per image and score threshold, (N, 1000) float64.

    Arguments and errors as for ``max_box_acc``. Rows of several batches may be concatenated for
    ``BoxAccuracy.from_ious``, so the maps of a large set need not be in memory together.
    """
    return box_ious_by_contours(score_maps, boxes)[_check_contours(contours)]


def box_ious_by_contours(score_maps: Maps, boxes: Boxes) -> dict[str, np.ndarray]:
    """``box_ious`` for ``"all"`` contours and for the ``"largest"`` alone, from tracing them once."""
    check_count(score_maps, boxes, "score maps", "lists of boxes")
    every, largest = np.empty((2, len(score_maps), len(THRESHOLDS)))
    for index, (score_map, true) in enumerate(zip(score_maps, boxes, strict=True)):
        scores = check_map(score_map, index)
        target = check_boxes(true, f"image {index}", scores.shape)
        image = _to_bytes(scores)
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
    image = _to_bytes(check_map(score_map, 0))
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


def check_iou_thresholds(levels: Sequence[float]) -> tuple[float, ...]:
    """One or more overlaps in (0, 1], as floats."""
    levels = tuple(float(level) for level in levels)
    if not levels or not all(0 < level <= 1 for level in levels):
        raise CkfrError(f"The IoU thresholds are {levels}; expected one or more numbers in (0, 1].")
    return levels


def _to_bytes(scores: np.ndarray) -> np.ndarray:
    return (scores * 255).astype(np.uint8)


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


def _middle_of_best(counts: np.ndarray) -> int:
    best = np.flatnonzero(counts == counts.max())
    return int(best[(len(best) - 1) // 2])


def _column(threshold: float) -> int:
    column = int(np.abs(THRESHOLDS - threshold).argmin())
    if not abs(threshold - THRESHOLDS[column]) <= 1e-9:
        raise CkfrError(f"The score threshold is {threshold}; expected one of 0, 0.001, … 0.999.")
    return column


def _check_contours(contours: Contours) -> Contours:
    if contours not in ("all", "largest"):
        raise CkfrError(f"contours is {contours!r}; expected 'all' or 'largest'.")
    return contours

"""Box accuracy of score maps: MaxBoxAcc, MaxBoxAccV2, GT-known and Top-1 localisation.

The definitions are those of the public evaluation of Choe et al., "Evaluating Weakly Supervised Object
Localization Methods Right" (CVPR 2020), to the last count: the byte image it thresholds, the thousand
thresholds, ``findContours``, boxes that reach one pixel past the contour, IoU with + 1 pixels. What is
computed is the same; the way is shorter (see ``contours``).

Two cautions come with these scores. MaxBoxAcc picks the score threshold on the very images it reports, so it
is an upper bound; ``fix_threshold`` on validation images and ``box_acc_at`` on test images give what a user
would get. And with ``contours="all"`` a map may offer many boxes, the best of which counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from torch import Tensor

from ckfr_helpers.attribution.contours import (
    all_contour_boxes,
    contour_box,
    find_contours,
    largest_contour_boxes,
)
from ckfr_helpers.attribution.inputs import Boxes, Maps, check_boxes, check_count, check_map, to_numpy
from ckfr_helpers.runtime import CkfrError

THRESHOLDS = np.arange(0, 1, 0.001)  # shares of the map's own maximum
NO_BOX = (0, 0, 0, 0)  # what the public evaluation predicts where no pixel is above the threshold

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
        thresholds: (T,) score thresholds, as shares of each map's maximum.
        ious: (N, T) best IoU that any predicted box has with any true box.
        counts: (K, T) int64, how many images are right.
    """

    iou_thresholds: tuple[float, ...]
    thresholds: np.ndarray
    ious: np.ndarray
    counts: np.ndarray

    @classmethod
    def from_ious(cls, ious: np.ndarray, iou_thresholds: Sequence[float] = (0.3, 0.5, 0.7)) -> "BoxAccuracy":
        """From what ``box_ious`` gave, e.g. batch by batch: (N, 1000) -> accuracy."""
        levels = check_iou_thresholds(iou_thresholds)
        counts = np.stack([(ious >= level).sum(axis=0) for level in levels])
        return cls(levels, THRESHOLDS, ious, counts)

    @property
    def curves(self) -> np.ndarray:
        """(K, T) box accuracy over the score threshold, in [0, 1]."""
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
        """(K,) score threshold of each entry of ``per_iou``; in the middle where several are equally good."""
        best = self.counts == self.counts.max(axis=1, keepdims=True)
        places = [np.flatnonzero(row) for row in best]
        return self.thresholds[[place[(len(place) - 1) // 2] for place in places]]

    def localized(
        self, iou_threshold: float = 0.5, threshold: float | None = None, right: np.ndarray | None = None
    ) -> Localization:
        """GT-known localisation; Top-1 localisation when ``right`` says which images were classified right.

        Args:
            iou_threshold: any overlap; it need not be among ``iou_thresholds``.
            threshold: score threshold; None takes the best for these very images, an upper bound.
            right: (N,) bool.
        """
        hit = self.ious >= iou_threshold  # (N, T)
        if right is not None:
            hit = hit & right[:, None]
        if threshold is None:
            totals = hit.sum(axis=0)
            best = np.flatnonzero(totals == totals.max())
            column = int(best[(len(best) - 1) // 2])
        else:
            column = _column(threshold)
        correct = hit[:, column]
        return Localization(float(correct.mean()), float(self.thresholds[column]), correct)


@dataclass(frozen=True)
class FixedBoxAccuracy:
    """Box accuracy at score thresholds that were chosen beforehand.

    Attributes:
        iou_thresholds: the K overlaps at which a box counts as right.
        thresholds: (K,) the score threshold used for each.
        correct: (N, K) bool, image by image.
    """

    iou_thresholds: tuple[float, ...]
    thresholds: np.ndarray
    correct: np.ndarray

    @property
    def per_iou(self) -> np.ndarray:
        """(K,) accuracy in [0, 1]."""
        return self.correct.mean(axis=0)

    @property
    def mean(self) -> float:
        """Mean of ``per_iou``."""
        return float(self.per_iou.mean())


def max_box_acc(
    score_maps: Maps,
    boxes: Boxes,
    iou_thresholds: Sequence[float] = (0.3, 0.5, 0.7),
    contours: Contours = "all",
) -> BoxAccuracy:
    """MaxBoxAccV2 (``contours="all"``) or, with ``contours="largest"`` and IoU 0.5, MaxBoxAcc.

    Args:
        score_maps: (N, H, W), or N maps (H, W) of any sizes, with values in [0, 1].
        boxes: N arrays (n_i, 4): the true boxes ``x0, y0, x1, y1`` in pixels of the map, both ends inclusive.
        iou_thresholds: a box is right at an IoU of at least this.
        contours: which contours of the thresholded map give boxes.

    Returns:
        The result; ``.per_iou`` and ``.mean`` are the scores, as shares (the public code prints per cent).

    Raises:
        CkfrError: a map that is not 2-D or leaves [0, 1], a box that is missing or reversed; named by index.

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
    _check_contours(contours)
    check_count(score_maps, boxes, "score maps", "lists of boxes")
    ious = np.empty((len(score_maps), len(THRESHOLDS)))
    for index, (score_map, true) in enumerate(zip(score_maps, boxes, strict=True)):
        scores = check_map(score_map, index)
        target = check_boxes(true, index, scores.shape)
        image = _to_bytes(scores)
        find = all_contour_boxes if contours == "all" else largest_contour_boxes
        levels, found = find(image, scores)
        best = np.full(256, iou_matrix(np.array([NO_BOX]), target).max())
        if len(levels):
            starts = np.flatnonzero(np.diff(levels, prepend=-1))
            best[levels[starts]] = np.maximum.reduceat(iou_matrix(found, target).max(axis=1), starts)
        ious[index] = best[(THRESHOLDS * int(image.max())).astype(int)]
    return ious


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
    _check_contours(contours)
    if not 0 <= threshold < 1:
        raise CkfrError(
            f"The score threshold is {threshold}; expected a number from 0 up to, not including, 1."
        )
    image = _to_bytes(check_map(score_map, 0))
    found = find_contours(image, int(threshold * int(image.max())))
    if not found:
        return np.array([NO_BOX])
    if contours == "largest":
        found = [max(found, key=cv2.contourArea)]
    return np.array([contour_box(contour, image.shape) for contour in found], dtype=np.int64)


def iou_matrix(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of inclusive pixel boxes, (n, 4) and (m, 4) -> (n, m).

    A box ``x0, y0, x1, y1`` covers ``x1 - x0 + 1`` by ``y1 - y0 + 1`` pixels.
    """
    a, b = (
        np.asarray(first, np.float64)[:, None],
        np.asarray(second, np.float64)[None],
    )  # (n, 1, 4), (1, m, 4)
    wide = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0]) + 1
    high = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1]) + 1
    shared = np.maximum(0, wide) * np.maximum(0, high)
    area_a = (a[..., 2] - a[..., 0] + 1) * (a[..., 3] - a[..., 1] + 1)
    area_b = (b[..., 2] - b[..., 0] + 1) * (b[..., 3] - b[..., 1] + 1)
    return shared / (area_a + area_b - shared)


def fix_threshold(validation: BoxAccuracy) -> np.ndarray:
    """The score threshold per IoU level that is best on validation images, (K,), to be used on others.

    Where several thresholds are equally good, the middle one: the ends of a plateau carry over worst.
    """
    return validation.best_thresholds


def box_acc_at(
    score_maps: Maps,
    boxes: Boxes,
    thresholds: float | Sequence[float] | np.ndarray,
    iou_thresholds: Sequence[float] = (0.3, 0.5, 0.7),
    contours: Contours = "all",
) -> FixedBoxAccuracy:
    """Box accuracy at given score thresholds: the test-set number without hindsight.

    Args:
        score_maps, boxes, iou_thresholds, contours: as for ``max_box_acc``.
        thresholds: one for all IoU levels, or one for each, as ``fix_threshold`` gives them.
    """
    levels = check_iou_thresholds(iou_thresholds)
    used = np.asarray(thresholds, float)
    if used.ndim == 0:
        used = np.full(len(levels), float(used))
    if used.shape != (len(levels),):
        raise CkfrError(
            f"{used.size} score thresholds for {len(levels)} IoU levels; expected one, or one for each."
        )
    _check_contours(contours)
    check_count(score_maps, boxes, "score maps", "lists of boxes")
    correct = np.empty((len(score_maps), len(levels)), bool)
    for index, (score_map, true) in enumerate(zip(score_maps, boxes, strict=True)):
        scores = check_map(score_map, index)
        target = check_boxes(true, index, scores.shape)
        best = {t: iou_matrix(boxes_from_map(scores, t, contours), target).max() for t in set(used.tolist())}
        correct[index] = [best[t] >= level for t, level in zip(used.tolist(), levels, strict=True)]
    return FixedBoxAccuracy(levels, used, correct)


def gt_known_localization(
    score_maps: Maps,
    boxes: Boxes,
    iou_threshold: float = 0.5,
    threshold: float | None = None,
    contours: Contours = "largest",
) -> Localization:
    """Share of images whose box is right when the map is drawn for the true class.

    Args:
        score_maps: maps of the true class; otherwise as for ``max_box_acc``.
        threshold: a score threshold fixed beforehand (to 0.001); None takes the best for these very images.
    """
    return max_box_acc(score_maps, boxes, (iou_threshold,), contours).localized(iou_threshold, threshold)


def top1_localization(
    score_maps: Maps,
    boxes: Boxes,
    predicted: np.ndarray | Tensor | Sequence[int],
    labels: np.ndarray | Tensor | Sequence[int],
    iou_threshold: float = 0.5,
    threshold: float | None = None,
    contours: Contours = "largest",
) -> Localization:
    """Share of images whose predicted class and whose box are both right.

    Where the prediction is right its map is the true class's map, and where it is wrong the map does not
    matter; so maps of the predicted and of the true class give the same number.

    Args:
        predicted, labels: (N,) class indices.
        score_maps, boxes, iou_threshold, threshold, contours: as for ``gt_known_localization``.
    """
    predicted, labels = to_numpy(predicted), to_numpy(labels)
    if predicted.shape != (len(score_maps),) or labels.shape != (len(score_maps),):
        raise CkfrError(
            f"{len(score_maps)} score maps need as many predicted classes and labels; "
            f"got shapes {predicted.shape} and {labels.shape}."
        )
    accuracy = max_box_acc(score_maps, boxes, (iou_threshold,), contours)
    return accuracy.localized(iou_threshold, threshold, predicted == labels)


def _to_bytes(scores: np.ndarray) -> np.ndarray:
    return (scores * 255).astype(np.uint8)


def _column(threshold: float) -> int:
    column = round(threshold * 1000)
    if not 0 <= column < len(THRESHOLDS) or abs(threshold - THRESHOLDS[column]) > 1e-9:
        raise CkfrError(f"The score threshold is {threshold}; expected one of 0, 0.001, … 0.999.")
    return column


def check_iou_thresholds(levels: Sequence[float]) -> tuple[float, ...]:
    """One or more overlaps in (0, 1], as floats."""
    levels = tuple(float(level) for level in levels)
    if not levels or not all(0 < level <= 1 for level in levels):
        raise CkfrError(f"The IoU thresholds are {levels}; expected one or more numbers in (0, 1].")
    return levels


def _check_contours(contours: str) -> None:
    if contours not in ("all", "largest"):
        raise CkfrError(f"contours is {contours!r}; expected 'all' or 'largest'.")

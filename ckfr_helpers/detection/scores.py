"""How good boxes are: average precision by the rules of PASCAL VOC, CorLoc, and credit by the tree.

Boxes are ``[x0, y0, x1, y1]`` in pixels. As in VOC both ends lie inside the object, so that a box covers
``x1 − x0 + 1`` columns: ``plus_one``. Without it a box covers ``x1 − x0``, as torchvision counts. A box is
*well placed* on an object at an IoU of at least ``iou``, as VOC's own program has it (chainercv asks for more
than ``iou``, so the two differ at exactly 0.5).

COCO's average precision is another: it reads 101 recall levels, and a detection whose best object is taken
may claim its second best, which VOC does not allow.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ckfr_helpers.attribution.boxes import iou_matrix
from ckfr_helpers.detection.tables import Detections, Objects, Rows, checked
from ckfr_helpers.metrics.inputs import as_distances


@dataclass(frozen=True)
class ClassScores:
    """A score of each class, (C,) float64, NaN for a class without an object that counts."""

    per_class: np.ndarray

    @property
    def mean(self) -> float:
        """Mean over the classes that have one; NaN where none has."""
        there = self.per_class[~np.isnan(self.per_class)]
        return float(there.mean()) if len(there) else float("nan")


def detection_average_precision(
    boxes: ArrayLike,
    scores: ArrayLike,
    image_ids: ArrayLike,
    true_boxes: ArrayLike,
    true_image_ids: ArrayLike,
    iou: float = 0.5,
    eleven_point: bool = False,
    *,
    plus_one: bool = True,
    difficult: ArrayLike | None = None,
) -> float:
    """Average precision of one class's detections by VOC's rules (Everingham et al., IJCV 2010, section 4.4).

    From the highest score down, a detection belongs to the object of its picture that it overlaps most. Well
    placed and the first there, it is right; the object found already, or not well placed, it is wrong; if
    that object is ``difficult``, it does not count at all, and no difficult object counts as missed.

    Args:
        boxes, scores, image_ids: (n, 4), (n,), (n,): the detections; ids are integers or names.
        true_boxes, true_image_ids: (m, 4), (m,): the objects of this class.
        iou: overlap, in (0, 1], at which a box is well placed.
        eleven_point: mean of the best precision at recall of at least 0, 0.1, … 1 (VOC 2007), compared as
            fractions, so that 3 of 10 reach 0.3; else the area under the envelope of the curve (2010 on).
        plus_one: as this module says.
        difficult: (m,) true for objects to be ignored.

    Returns:
        In [0, 1]; NaN without an object that counts, 0 without a detection.

    Raises:
        CkfrError: for lengths that differ, boxes reversed or not finite, NaN scores, ids of two kinds.
    """
    detections = Detections(boxes, scores, np.zeros(np.shape(image_ids), np.int64), image_ids)
    objects = Objects(true_boxes, np.zeros(np.shape(true_image_ids), np.int64), true_image_ids, difficult)
    found, true = checked(detections, objects, 1, iou, plus_one)
    return _average_precision(found, true, 0, np.ones(1), iou, eleven_point)


def detection_map(
    detections: Detections,
    objects: Objects,
    classes: int,
    iou: float = 0.5,
    eleven_point: bool = False,
    plus_one: bool = True,
) -> ClassScores:
    """`detection_average_precision` of each of the ``classes``; its ``mean`` is the mAP."""
    found, true = checked(detections, objects, classes, iou, plus_one)
    worth = np.eye(classes)
    rows = ((found.of(label), true.of(label), label, worth[label]) for label in range(classes))
    return ClassScores(np.array([_average_precision(*row, iou, eleven_point) for row in rows]))


def corloc(
    detections: Detections, objects: Objects, classes: int, iou: float = 0.5, plus_one: bool = True
) -> ClassScores:
    """Correct localisation (Deselaers et al., IJCV 2012), a measure for the training pictures.

    Of the pictures with an object of a class that is not difficult, the share in which the best-scored box
    for that class is well placed on one of them. A picture without a box for the class counts as wrong.
    """
    found, true = checked(detections, objects, classes, iou, plus_one)
    counted, values = true.where(~true.difficult), np.full(classes, np.nan)
    for label in range(classes):
        own, wanted = found.of(label), counted.of(label)
        if len(wanted.boxes):
            _, best = np.unique(own.images, return_index=True)  # the first row of a picture scores highest
            placed = _claims(own, wanted, np.ones(classes), iou)[best] >= 0
            values[label] = placed.sum() / len(np.unique(wanted.images))
    return ClassScores(values)


def tree_credit(
    detections: Detections, objects: Objects, distances: ArrayLike, iou: float = 0.5, plus_one: bool = True
) -> dict[str, float]:
    """How wrong the label of a well-placed box is, as the tree measures it.

    By object: of all boxes of any class that are well placed on it, the best-scored one answers for it.

    By detection, "mAP_tree": mean over classes of an average precision with partial credit. For class c, a
    box that is right by VOC's rules is worth 1. One that is well placed on no object of class c but on one of
    class y (the nearest such class in the tree, then the largest overlap) and is the first box of class c
    there is worth 1 − d(c, y) / max d. Any other is worth 0. Precision at rank k is the worth of the first k
    over k, read where an object of class c is found; recall counts those alone, so nothing is gained without
    them. Where all wrong classes are equally far this is VOC's mAP.

    Args:
        distances: (C, C) class distances, e.g. ``hierarchy.distances("lca_height")``.

    Returns:
        "located": share of objects, difficult ones left out, that a box of any class is well placed on. Of
        these, "label_right": share with the right label; "hdist": mean distance of the label, 0 where right;
        "mistake_severity": the same over the wrong ones alone. "mAP_tree". NaN where there is none to count.
    """
    matrix = as_distances(distances)
    found, true = checked(detections, objects, len(matrix), iou, plus_one)
    worth = 1 - matrix / max(matrix.max(), np.finfo(float).tiny)
    values = []
    for label in range(len(matrix)):
        eligible = true.where(~true.difficult | (true.labels == label))
        values.append(_average_precision(found.of(label), eligible, label, worth[label], iou))
    counted = true.where(~true.difficult)
    answers = _answers(found, counted, iou)
    located = answers >= 0
    given, truth = found.labels[answers[located]], counted.labels[located]
    apart = matrix[given, truth]
    return {
        "located": _mean(located),
        "label_right": _mean(given == truth),
        "hdist": _mean(apart),
        "mistake_severity": _mean(apart[given != truth]),
        "mAP_tree": ClassScores(np.array(values)).mean,
    }


def _average_precision(
    found: Rows, true: Rows, label: int, worth: np.ndarray, iou: float, eleven_point: bool = False
) -> float:
    """Of one class's detections; ``worth`` (C,) says what one is worth on an object of each class."""
    number = int(((true.labels == label) & ~true.difficult).sum())
    if not number:
        return float("nan")
    claims = _claims(found, true, worth, iou)
    claims = claims[(claims < 0) | ~true.difficult[claims]]
    first = np.zeros(len(claims), bool)
    first[np.unique(claims, return_index=True)[1]] = True
    first &= claims >= 0
    earned = np.where(first, worth[true.labels[claims]], 0.0)
    right = first & (true.labels[claims] == label)
    precision = (np.cumsum(earned) / np.arange(1, len(claims) + 1))[right]  # at recall 1/m, 2/m, …
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    if not eleven_point:
        return float(envelope.sum() / number)
    needed = -(-np.arange(11) * number // 10)  # objects that make up a recall of 0, 0.1, … 1
    reached = needed[needed <= len(envelope)]
    return float(envelope[np.maximum(reached, 1) - 1].sum() / 11) if len(envelope) else 0.0


def _claims(found: Rows, true: Rows, worth: np.ndarray, iou: float) -> np.ndarray:
    """(n,) the object that each detection is well placed on, −1 for none: the worthiest, then the nearest."""
    claims = np.full(len(found.boxes), -1)
    rank = np.unique(worth, return_inverse=True)[1]
    for rows, columns, overlap in _overlaps(found, true):
        preference = np.where(overlap >= iou, overlap + 2 * rank[true.labels[columns]], -1)
        best = preference.argmax(axis=1)
        claims[rows] = np.where(preference.max(axis=1) >= 0, columns[best], -1)
    return claims


def _answers(found: Rows, true: Rows, iou: float) -> np.ndarray:
    """(m,) the best-scored detection that is well placed on each object, −1 for none."""
    answers = np.full(len(true.boxes), -1)
    for rows, columns, overlap in _overlaps(found, true):
        placed = overlap >= iou
        answers[columns] = np.where(placed.any(axis=0), rows[placed.argmax(axis=0)], -1)
    return answers


def _overlaps(found: Rows, true: Rows) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of each picture with both: rows (r,) of detections, (t,) of objects, and their IoU (r, t)."""
    objects = _by_image(true.images)
    for image, rows in _by_image(found.images).items():
        if (columns := objects.get(image)) is not None:
            with np.errstate(invalid="ignore"):  # two boxes without area have no IoU, and are no match
                overlap = iou_matrix(found.boxes[rows], true.boxes[columns])
            yield rows, columns, overlap


def _by_image(images: np.ndarray) -> dict[int, np.ndarray]:
    """Increasing rows of each picture."""
    order = np.argsort(images, kind="stable")
    names, starts = np.unique(images[order], return_index=True)
    return dict(zip(names.tolist(), np.split(order, starts[1:]), strict=False))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")

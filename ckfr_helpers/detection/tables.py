"""Scored boxes and true ones of many pictures, as flat tables, and what makes the first of scored regions."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torchvision.ops import batched_nms

from ckfr_helpers.attribution.inputs import to_numpy
from ckfr_helpers.metrics.inputs import as_labels
from ckfr_helpers.runtime import CkfrError, check_number


class Detections(NamedTuple):
    """Scored boxes of all classes and pictures, one a row."""

    boxes: ArrayLike  # (n, 4)
    scores: ArrayLike  # (n,), of equal ones the earlier row ranks higher
    labels: ArrayLike  # (n,) integer classes
    image_ids: ArrayLike  # (n,) integers or names


class Objects(NamedTuple):
    """The true boxes of all classes and pictures, one a row."""

    boxes: ArrayLike  # (m, 4)
    labels: ArrayLike  # (m,) integer classes
    image_ids: ArrayLike  # (m,) integers or names
    difficult: ArrayLike | None = None  # (m,) true where finding or missing it counts neither way


class Rows(NamedTuple):
    """Detections from the highest score down, or objects, checked; pictures are numbered for both alike."""

    boxes: np.ndarray  # (n, 4) float64, both ends inside
    labels: np.ndarray  # (n,) int64
    images: np.ndarray  # (n,) int64
    difficult: np.ndarray  # (n,) bool

    def where(self, kept: np.ndarray) -> "Rows":
        """The rows at these places, by number or bool."""
        return Rows(*(column[kept] for column in self))

    def of(self, label: int) -> "Rows":
        """The rows of one class."""
        return self.where(self.labels == label)


def objects_of(targets: Sequence[Mapping[str, Any]], image_ids: Sequence[int] | Sequence[str]) -> Objects:
    """The objects in the targets of a source, by their ``boxes``, ``box_labels`` and perhaps ``difficult``.

    Args:
        targets: of one picture each, as `datasets.base.Target`; transformed with the picture or not.
        image_ids: one for every picture.
    """
    if len(targets) != len(image_ids) or not len(targets):
        counts = f"{len(targets)} targets and {len(image_ids)} ids"
        raise CkfrError(f"There are {counts} of pictures; expected as many of each, and at least one.")
    for target, image in zip(targets, image_ids, strict=True):
        if missing := {"boxes", "box_labels"} - set(target):
            raise CkfrError(
                f"The target of picture {image} has no {min(missing)}; it has {', '.join(target)}."
            )
    numbers = [len(target["box_labels"]) for target in targets]
    return Objects(
        torch.cat([target["boxes"].as_subclass(Tensor) for target in targets]),
        torch.cat([target["box_labels"] for target in targets]),
        np.repeat(np.asarray(image_ids), numbers),
        torch.cat(
            [
                target.get("difficult", torch.zeros(len(target["boxes"]), dtype=torch.bool))
                for target in targets
            ]
        ),
    )


def keep_best(
    boxes: Sequence[Tensor],
    region_scores: Sequence[Tensor],
    image_ids: Sequence[int] | Sequence[str],
    overlap: float = 0.4,
    least: float = 1e-3,
    plus_one: bool = True,
) -> Detections:
    """Detections of scored regions, by non-maximum suppression within each class and picture.

    Args:
        boxes, region_scores: for every picture (R, 4) and (R, C); R may differ.
        image_ids: one for every picture.
        overlap, least: of two boxes that overlap by more, the better scored stays; a score must be above
            ``least``. The defaults are those of WSDDN's own program.
        plus_one: both ends of a box lie inside, as `scores` says and WSDDN's program has it.
    """
    if not len(boxes) == len(region_scores) == len(image_ids) > 0:
        counts = f"{len(boxes)} boxes, {len(region_scores)} scores and {len(image_ids)} ids"
        raise CkfrError(f"There are {counts} of pictures; expected as many of each, and at least one.")
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for where, scores in zip(boxes, region_scores, strict=True):
        if where.shape != (len(scores), 4):
            raise CkfrError(f"Boxes have shape {tuple(where.shape)}; expected ({len(scores)}, 4).")
        region, label = (scores > least).nonzero(as_tuple=True)
        own, found = where[region], scores[region, label]
        ends = own.float() + own.new_tensor([0.0, 0.0, plus_one, plus_one])
        kept = batched_nms(ends, found.float(), label, overlap)
        parts.append((own[kept], found[kept], label[kept]))
    ids = np.repeat(np.asarray(image_ids), [len(part[0]) for part in parts])
    found_boxes, found_scores, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    return Detections(found_boxes, found_scores, labels, ids)


def checked(
    detections: Detections, objects: Objects, classes: int, iou: float, plus_one: bool
) -> tuple[Rows, Rows]:
    """Both tables as arrays, detections sorted by score."""
    check_number("iou", iou, 0, 1, above=True)
    ids = [_ids(detections.image_ids, "detections"), _ids(objects.image_ids, "objects")]
    used = [one for one in ids if one.size]  # an empty array's type says nothing
    if len({one.dtype.kind in "US" for one in used}) > 1:
        raise CkfrError("Pictures have names on one side and numbers on the other; expected the same ids.")
    images = np.unique(np.concatenate(used), return_inverse=True)[1] if used else np.zeros(0, np.int64)
    number, true_number = map(len, ids)
    scores = _column(detections.scores, number, "scores", "detections").astype(np.float64)
    if np.isnan(scores).any():
        raise CkfrError(f"The score of detection {int(np.isnan(scores).argmax())} is NaN; expected numbers.")
    marks = np.zeros(true_number) if objects.difficult is None else objects.difficult
    difficult = _column(marks, true_number, "marks of difficulty", "objects").astype(bool)
    order = np.argsort(-scores, kind="stable")
    found = Rows(
        _boxes(detections.boxes, number, "detections", plus_one),
        _labels(detections.labels, number, "detections", classes),
        images[:number],
        np.zeros(number, bool),
    )
    true = Rows(
        _boxes(objects.boxes, true_number, "objects", plus_one),
        _labels(objects.labels, true_number, "objects", classes),
        images[number:],
        difficult,
    )
    return found.where(order), true


def _ids(values: ArrayLike, what: str) -> np.ndarray:
    ids = values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iuUS"):
        shown = f"shape {ids.shape} and type {ids.dtype}"
        raise CkfrError(f"The picture ids of the {what} have {shown}; expected integers or names in a row.")
    return ids


def _column(values: ArrayLike, number: int, name: str, what: str) -> np.ndarray:
    array = to_numpy(values, f"The column of {name}")  # type: ignore[arg-type]
    if array.shape != (number,):
        raise CkfrError(f"There are {name} of shape {array.shape} for {number} {what}; expected ({number},).")
    return array


def _labels(values: ArrayLike, number: int, what: str, classes: int) -> np.ndarray:
    array = _column(values, number, "labels", what)
    return as_labels(array if number else array.astype(np.int64), classes)


def _boxes(values: ArrayLike, number: int, what: str, plus_one: bool) -> np.ndarray:
    """(n, 4) float64, both ends inside."""
    boxes = to_numpy(values, f"The boxes of the {what}").astype(np.float64)  # type: ignore[arg-type]
    boxes = boxes if boxes.size else boxes.reshape(0, 4)
    if boxes.shape != (number, 4):
        raise CkfrError(f"The boxes of the {what} have shape {boxes.shape}; expected ({number}, 4).")
    bad = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    if bad.any():
        row = int(bad.argmax())
        shown = f"Box {row} of the {what} is {boxes[row].tolist()}"
        raise CkfrError(f"{shown}; expected finite x0, y0, x1, y1 with x0 <= x1 and y0 <= y1.")
    return boxes if plus_one else boxes - [0, 0, 1, 1]

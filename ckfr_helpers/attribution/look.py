"""Where a trained network looks, over a whole split: its maps against the true boxes and masks.

Everything comes image by image, so that runs can be paired and photographs resampled.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import masks_to_boxes
from tqdm.auto import tqdm

from ckfr_helpers.attribution import boxes as box_scores
from ckfr_helpers.attribution import cam
from ckfr_helpers.attribution import energy as attention
from ckfr_helpers.attribution.inputs import check_boxes
from ckfr_helpers.attribution.pixels import average_precision, pixel_counts
from ckfr_helpers.datasets.base import Example, ImageSource
from ckfr_helpers.models.classifier import Classifier
from ckfr_helpers.runtime import CkfrError

POINTING_TOLERANCE = 0.03  # of the longer side: the usual 15 pixels of an image of 500
BACKGROUNDS = ("usual", "foreign")
Batches = Iterable[tuple[Tensor, dict[str, Any], Tensor]]  # (inputs, targets, indices)
MapMaker = Callable[[Classifier, Tensor, Tensor], Tensor]
"""(model, inputs (B, ...), classes (B,)) -> signed maps (B, h, w)."""


@dataclass(frozen=True)
class Look:
    """What a network says of a split and where its maps lie, one row an image.

    Attributes:
        indices: (N,) place of each image in its source.
        labels, predicted: (N,) true and predicted class.
        energy: (N,) share of the map's positive mass on the object: its mask, or its boxes without one.
        pointing: (N,) bool, whether the map's highest pixel lies on the object.
        ious_all: (N, 1000) best IoU per score threshold with every contour's box, for MaxBoxAccV2.
        ious_largest: (N, 1000) the same with the box of the largest contour alone, for GT-known localisation.
        pxap: pixel average precision over the split; None without masks.
    """

    indices: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    energy: np.ndarray
    pointing: np.ndarray
    ious_all: np.ndarray
    ious_largest: np.ndarray
    pxap: float | None

    @property
    def right(self) -> np.ndarray:
        """(N,) bool: classified right."""
        return self.predicted == self.labels

    @property
    def boxes(self) -> box_scores.BoxAccuracy:
        """As MaxBoxAccV2 has it: all contours, IoU 0.3, 0.5 and 0.7."""
        return box_scores.BoxAccuracy.from_ious(self.ious_all)

    @property
    def largest(self) -> box_scores.BoxAccuracy:
        """Box accuracy as GT-known localisation has it: the largest contour, IoU 0.5."""
        return box_scores.BoxAccuracy.from_ious(self.ious_largest, (0.5,))


def look(
    model: Classifier,
    loader: Batches,
    source: ImageSource,
    maps: MapMaker | None = None,
    *,
    progress: bool = False,
) -> Look:
    """Maps of the true class for every image, and everything `Look` holds of them.

    Args:
        model: a classifier, or the tail of one; put in evaluation mode.
        loader: batches (inputs, targets, indices), of pictures or, for a tail, of cached features; the
            indices point into ``source``. Inputs must show the whole picture.
        source: has boxes, or masks, or both.
        maps: makes signed maps (B, h, w); by default the closed-form class activation map.
        progress: show a bar.

    Raises:
        CkfrError: if an image has neither box nor mask, or a map is not finite; the image is named.
    """
    maps = maps or closed_form
    rows, counts = [], []
    device = next(model.parameters()).device
    model.eval()
    for inputs, targets, indices in tqdm(loader, desc=f"maps, {source.split}", disable=not progress):
        inputs, labels = inputs.to(device), targets["label"]
        with torch.inference_mode():
            predicted = model(inputs).argmax(1).tolist()
        raw = maps(model, inputs, labels)  # (B, h, w)
        for one, index, label, answer in zip(raw, indices.tolist(), labels.tolist(), predicted, strict=True):
            measured, pixels = _measure(one, source[index], source.where(index))
            rows.append((index, label, answer, *measured))
            counts += [] if pixels is None else [pixels]
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return Look(*columns, average_precision(np.sum(counts, axis=0)) if counts else None)  # type: ignore[call-arg, arg-type]


def closed_form(model: Classifier, inputs: Tensor, classes: Tensor) -> Tensor:
    """The default `MapMaker`: signed class activation maps without a backward pass."""
    return cam.class_activation_maps(model, inputs, classes, raw=True)


def _measure(raw: Tensor, example: Example, name: str) -> tuple[tuple, np.ndarray | None]:
    """What `Look` holds of one map (h, w); its `pixel_counts`, where there is a mask."""
    if not raw.isfinite().all():
        raise CkfrError(f"The map of {name} holds NaN or infinite values; expected finite ones.")
    size = (example[0].shape[-2], example[0].shape[-1])
    truth, boxes = object_mask(example, name)[None], object_boxes(example, name)
    large, scaled = (
        cam.upsample(raw[None], size).numpy(),
        cam.score_maps(raw[None], size).numpy(),
    )  # (1, H, W)
    ious = box_scores.box_ious_by_contours(scaled, [boxes])
    measured = (
        attention.energy_in_mask(large, truth)[0],
        attention.pointing_game(large, truth, round(POINTING_TOLERANCE * max(size)))[0],
        ious["all"][0],
        ious["largest"][0],
    )
    return measured, pixel_counts(scaled, truth) if "masks" in example[1] else None


def object_mask(example: Example, name: str = "the image") -> np.ndarray:
    """(H, W) uint8, 1 on any object: its masks where there are some, else the inside of its boxes."""
    image, target = example
    if "masks" in target:
        return target["masks"].any(0).numpy().astype(np.uint8)
    mask = np.zeros(image.shape[-2:], np.uint8)
    for x0, y0, x1, y1 in object_boxes(example, name).astype(int):
        mask[y0 : y1 + 1, x0 : x1 + 1] = 1
    return mask


def object_boxes(example: Example, name: str = "the image") -> np.ndarray:
    """The checked boxes (n, 4), both ends inside the object; where there are none, those of the masks."""
    image, target = example
    boxes = target.get("boxes")
    if boxes is None and "masks" in target:
        masks = target["masks"]
        boxes = masks_to_boxes(masks[masks.flatten(1).any(1)])
    return check_boxes(np.zeros((0, 4)) if boxes is None else boxes, name, tuple(image.shape[-2:]))


def per_image(test: Look, val: Look) -> dict[str, np.ndarray]:
    """Every measure that exists image by image, each (N,) float; ``…_fixed``: score thresholds of validation.

    ``box_acc_fixed`` is the mean over IoU 0.3, 0.5, 0.7 (all contours); ``gt_known_fixed`` takes the largest
    contour at IoU 0.5, ``top1_loc_fixed`` counts it only where the class is right.
    """
    known = test.largest.at(val.largest.best_thresholds)[:, 0]
    values = {
        "top1": test.right,
        "energy": test.energy,
        "pointing": test.pointing,
        "box_acc_fixed": test.boxes.at(val.boxes.best_thresholds).mean(axis=1),
        "gt_known_fixed": known,
        "top1_loc_fixed": known & test.right,
    }
    return {name: np.asarray(value, float) for name, value in values.items()}


def look_scores(test: Look, val: Look) -> dict[str, float]:
    """The scores of a split: those of `per_image`, and the official ones, thresholds picked in hindsight.

    Returns:
        The means of `per_image`, ``max_box_acc_v2``, ``gt_known`` (largest contour, IoU 0.5), and ``pxap``
        where there are masks.
    """
    scores = {name: float(value.mean()) for name, value in per_image(test, val).items()}
    scores |= {"max_box_acc_v2": test.boxes.mean, "gt_known": float(test.largest.per_iou[0])}
    return scores if test.pxap is None else scores | {"pxap": test.pxap}


def study_scores(
    model: Classifier,
    loaders: Mapping[str, Batches],
    sources: Mapping[str, ImageSource],
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Everything that a study reports of where a network looks: test scores, thresholds from validation.

    Args:
        model: a classifier, or the tail of one.
        loaders: batches, as for `look`, of "val" and "test"; if swapped, also of "usual" and "foreign".
        sources: where the boxes and masks of "val" and "test" are.

    Returns:
        `look_scores` and `per_image` of the test split, the values of an image in the loader's order; with
        swapped backgrounds also what `energy.background_swap` gives, and its means.
    """
    test, val = (look(model, loaders[split], sources[split]) for split in ("test", "val"))
    scores, images = look_scores(test, val), per_image(test, val)
    if all(background in loaders for background in BACKGROUNDS):
        on_usual, on_foreign = (_answers(model, loaders[each], test.indices) for each in BACKGROUNDS)
        swap = attention.background_swap(on_usual, on_foreign, test.labels)
        images |= swap
        scores |= {name: float(value.mean()) for name, value in swap.items()}
    return scores, images


def _answers(model: Classifier, loader: Batches, indices: np.ndarray) -> np.ndarray:
    """(N,) predicted classes; the loader must go through the same images in the same order."""
    device = next(model.parameters()).device
    answers, seen = [], []
    with torch.inference_mode():
        for inputs, _, places in loader:
            answers += model(inputs.to(device)).argmax(1).tolist()
            seen += places.tolist()
    if not np.array_equal(seen, indices):
        raise CkfrError("The swapped scenes are not those of the test split in the same order, so no pairs.")
    return np.array(answers)


def free_scores(source: ImageSource, most: int = 720) -> dict[str, float]:
    """What is had without looking at the pictures of a source: a centre map, the whole image, chance.

    Of more pictures than ``most``, every second, third, … is taken.
    """
    rows, boxes, centres, whole = [], [], [], []
    for index in range(0, len(source), max(1, len(source) // most)):
        example, name = source[index], source.where(index)
        height, width = example[0].shape[-2:]
        truth, centre = object_mask(example, name)[None], box_scores.centre_map(height, width)
        tolerance = round(POINTING_TOLERANCE * max(height, width))
        rows.append({
            "uniform_energy": attention.uniform_energy(truth),
            "centre_energy": attention.energy_in_mask([centre], truth),
            "random_point": attention.random_point_hits(truth, tolerance),
            "centre_point": attention.pointing_game([centre], truth, tolerance),
        })  # fmt: skip
        boxes.append(object_boxes(example, name))
        centres.append(centre)
        whole.append(box_scores.iou_matrix(np.array([[0, 0, width - 1, height - 1]]), boxes[-1]).max() >= 0.5)
    every, largest = box_scores.box_ious_by_contours(centres, boxes).values()
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]} | {
        "centre_max_box_acc_v2": box_scores.BoxAccuracy.from_ious(every).mean,
        "centre_gt_known": box_scores.BoxAccuracy.from_ious(largest, (0.5,)).mean,
        "whole_image_gt_known": float(np.mean(whole)),
    }

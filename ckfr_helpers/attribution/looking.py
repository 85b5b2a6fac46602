"""Where a trained network looks, over a whole split: its maps against the true boxes and masks.

This puts three rooms together that know nothing of each other: `cam` makes a map for the true class,
`localization` turns it into a box, `attention` asks how much of it lies on the object. Everything comes image
by image, so that runs can be paired and photographs resampled.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ckfr_helpers.attribution import boxes as box_scores
from ckfr_helpers.attribution import cam
from ckfr_helpers.attribution import energy as attention
from ckfr_helpers.attribution.pixels import pxap
from ckfr_helpers.datasets.base import Example, ImageSource
from ckfr_helpers.datasets.loading import TransformedView, make_loader
from ckfr_helpers.datasets.transforms import make_transform
from ckfr_helpers.models.classifier import Classifier
from ckfr_helpers.runtime import CkfrError, num_workers
from ckfr_helpers.training.run import load_run, make_fabric, open_split

POINTING_TOLERANCE = 0.03  # of the longer side: the usual 15 pixels of an image of 500
MapMaker = Callable[
    [Classifier, Tensor, Tensor], Tensor
]  # (model, inputs (B, ...), classes (B,)) -> (B, h, w)


@dataclass(frozen=True)
class Look:
    """What a network says of a split and where its maps lie, one row an image.

    Attributes:
        indices: (N,) place of each image in its source.
        labels, predicted: (N,) true and predicted class.
        energy: (N,) share of the map's positive mass on the object: its mask, or its boxes without one.
        pointing: (N,) bool, whether the map's highest pixel lies on the object.
        area: (N,) the object's share of the image: the energy of a map that is the same everywhere.
        ious_all: (N, 1000) best IoU per score threshold with every contour's box, for MaxBoxAccV2.
        ious_largest: (N, 1000) the same with the box of the largest contour alone, for GT-known localisation.
        pxap: pixel average precision over the split; NaN without masks.
    """

    indices: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    energy: np.ndarray
    pointing: np.ndarray
    area: np.ndarray
    ious_all: np.ndarray
    ious_largest: np.ndarray
    pxap: float

    @property
    def right(self) -> np.ndarray:
        """(N,) bool: classified right."""
        return self.predicted == self.labels

    @property
    def boxes(self) -> box_scores.BoxAccuracy:
        """Box accuracy as MaxBoxAccV2 has it: all contours, IoU 0.3, 0.5 and 0.7."""
        return box_scores.BoxAccuracy.from_ious(self.ious_all)

    @property
    def largest(self) -> box_scores.BoxAccuracy:
        """Box accuracy as GT-known localisation has it: the largest contour, IoU 0.5."""
        return box_scores.BoxAccuracy.from_ious(self.ious_largest, (0.5,))


def look(
    model: Classifier,
    loader: Iterable[tuple[Tensor, dict[str, Any], Tensor]],
    source: ImageSource,
    maps: MapMaker | None = None,
) -> Look:
    """Maps of the true class for every image, and everything `Look` holds of them.

    Args:
        model: a classifier, or the tail of one; put in evaluation mode.
        loader: batches (inputs, targets, indices) as `make_loader` gives them, or, for a tail,
            `CachedFeatures.loader`; the indices point into ``source``. Inputs must show the whole picture.
        source: has boxes, or masks, or both.
        maps: makes signed maps (B, h, w); by default the closed-form class activation map.

    Raises:
        CkfrError: if an image has neither box nor mask, or a map is not finite; the image is named.
    """
    maps = maps or _closed_form
    rows: list[Look] = []
    scores, masks = [], []
    device = next(model.parameters()).device
    model.eval()
    for inputs, targets, indices in loader:
        labels = targets["label"]
        examples = [source[int(index)] for index in indices]
        inputs = inputs.to(device)
        with torch.inference_mode():
            predicted = model(inputs).argmax(1).cpu().numpy()
        raw = maps(model, inputs, labels)
        row, scaled = _look_at(raw, examples, indices.numpy(), labels.numpy(), predicted)
        rows.append(row)
        if "masks" in examples[0][1]:
            scores += scaled
            masks += [target["masks"].any(0).numpy() for _, target in examples]
    joined = {
        name: np.concatenate([getattr(row, name) for row in rows])
        for name in Look.__dataclass_fields__
        if name != "pxap"
    }
    return Look(**joined, pxap=float(pxap(scores, masks)) if masks else float("nan"))


def _closed_form(model: Classifier, inputs: Tensor, classes: Tensor) -> Tensor:
    return cam.class_activation_maps(model, inputs, classes, raw=True)


def _look_at(
    raw: Tensor, examples: Sequence[Example], indices: np.ndarray, labels: np.ndarray, predicted: np.ndarray
) -> tuple[Look, list[np.ndarray]]:
    """One batch, and its maps (H, W) in [0, 1], each of its picture's size."""
    sizes = {tuple(image.shape[-2:]) for image, _ in examples}
    columns: dict[str, list] = {name: [] for name in ("energy", "pointing", "area", "all", "largest", "map")}
    for size in sizes:  # one, where every picture has the same size
        chosen = [i for i, (image, _) in enumerate(examples) if tuple(image.shape[-2:]) == size]
        large = cam.upsample(raw[chosen], size).numpy()  # (n, H, W), signed
        scaled = cam.score_maps(raw[chosen], size).numpy()  # (n, H, W) in [0, 1]
        truth = [object_mask(examples[i], int(indices[i])) for i in chosen]
        boxes = [_boxes(examples[i], int(indices[i])) for i in chosen]
        tolerance = round(POINTING_TOLERANCE * max(size))
        found = {
            "energy": attention.energy_in_mask(large, truth),
            "pointing": attention.pointing_game(large, truth, tolerance),
            "area": attention.uniform_energy(truth),
            "all": box_scores.box_ious(scaled, boxes, "all"),
            "largest": box_scores.box_ious(scaled, boxes, "largest"),
            "map": scaled,
        }
        for name, values in found.items():
            columns[name] += list(zip(chosen, values, strict=True))
    ordered = {name: [v for _, v in sorted(c, key=lambda p: p[0])] for name, c in columns.items()}
    measured = (np.array(ordered[name]) for name in ("energy", "pointing", "area", "all", "largest"))
    return Look(indices, labels, predicted, *measured, pxap=float("nan")), ordered["map"]


def object_mask(example: Example, index: int = 0) -> np.ndarray:
    """(H, W) uint8, 1 on the object: its mask where there is one, else the inside of its boxes.

    Raises:
        CkfrError: if the example has neither; ``index`` names it.
    """
    image, target = example
    if "masks" in target:
        return target["masks"].any(0).numpy().astype(np.uint8)
    height, width = image.shape[-2:]
    inside = np.zeros((height, width), np.uint8)
    for box in _boxes(example, index):
        inside |= attention.box_map(box, height, width).astype(np.uint8)
    return inside


def _boxes(example: Example, index: int) -> np.ndarray:
    boxes = example[1].get("boxes")
    if boxes is None or not len(boxes):
        raise CkfrError(f"Image {index} has no box; localisation needs at least one true box an image.")
    return boxes.numpy()


def per_image(test: Look, val: Look) -> dict[str, np.ndarray]:
    """Every measure that exists image by image, with score thresholds fixed on validation, each (N,) float.

    ``energy``, ``pointing``; ``box_acc_fixed``, the mean over IoU 0.3, 0.5, 0.7 of a right box (all
    contours); ``gt_known_fixed`` (largest contour, IoU 0.5) and ``top1_loc_fixed``, the same and classified
    right; ``top1``.
    """
    fixed = [
        test.boxes.localized(level, float(threshold)).correct
        for level, threshold in zip((0.3, 0.5, 0.7), val.boxes.best_thresholds, strict=True)
    ]
    known = test.largest.localized(0.5, float(val.largest.best_thresholds[0])).correct
    values = {
        "top1": test.right,
        "energy": test.energy,
        "pointing": test.pointing,
        "box_acc_fixed": np.mean(fixed, axis=0),
        "gt_known_fixed": known,
        "top1_loc_fixed": known & test.right,
    }
    return {name: np.asarray(value, float) for name, value in values.items()}


def look_scores(test: Look, val: Look) -> dict[str, float]:
    """The scores of a split: those of `per_image`, and the official ones, thresholds picked in hindsight.

    Returns:
        The means of `per_image`, and ``max_box_acc_v2``, ``gt_known`` (MaxBoxAcc: largest contour, IoU 0.5)
        and ``pxap``, as Choe et al. (CVPR 2020) define them.
    """
    scores = {name: float(value.mean()) for name, value in per_image(test, val).items()}
    return scores | {
        "max_box_acc_v2": test.boxes.mean,
        "gt_known": float(test.largest.per_iou[0]),
        "pxap": test.pxap,
    }


def look_at_run(
    folder: Path, data: str | None = None, root: str | Path | None = None, *, method: str | None = None
) -> dict[str, float]:
    """Localisation scores of a finished run on pictures with boxes or masks; thresholds from their val split.

    Args:
        folder: of the run, as `training.train` leaves it.
        data: another source than the run's own, with the same classes; e.g. ``"folder"``.
        root: where that source is.
        method: a method of `cam.gradient_cam`; None takes the closed form where there is one, else Grad-CAM.

    Returns:
        `look_scores`.

    Raises:
        CkfrError: if there is no such run, its classes are not the source's, or the source has no boxes.
    """
    run = load_run(folder)
    config = dataclasses.replace(run.config, devices=1)
    if data is not None:
        config = dataclasses.replace(
            config, data=data, data_options={}, root=None if root is None else str(root)
        )
    elif root is not None:
        config = dataclasses.replace(config, root=str(root))
    model = run.model.to(make_fabric(config).device)
    trained_on = open_split(run.config, "test").classes if data is not None else None
    looks = {}
    for split in ("val", "test"):
        source = open_split(config, split)
        if trained_on is not None and source.classes != trained_on:
            raise CkfrError(
                f"The run in {folder} knows {len(trained_on)} classes, {config.data} has "
                f"{len(source.classes)}, and they are not the same; expected the run's own classes."
            )
        # The whole picture, whatever the run's own test crop: a box may reach to the picture's edge.
        statistics = {"mean": model.mean, "std": model.std} if config.normalise else {}
        view = TransformedView(source, make_transform("light", train=False, size=config.size, **statistics))
        loader = make_loader(
            view, 64, train=False, workers=num_workers() if config.workers is None else config.workers
        )
        looks[split] = look(model, loader, source, _maker(model, method))
    return look_scores(looks["test"], looks["val"])


def _maker(model: Classifier, method: str | None) -> MapMaker:
    if method is None and model.gap_linear:
        return _closed_form
    name = method or "gradcam"

    def by_gradients(model: Classifier, inputs: Tensor, classes: Tensor) -> Tensor:
        return cam.gradient_cam(model, inputs, classes, name, raw=True)

    return by_gradients

"""A detector from labels alone and the small classifiers it teaches: what notebook 06 and its study run.

Of the teachers only heads are trained, on the frozen trunk's view of large scenes; students see small ones,
and their last stages learn too.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ckfr_helpers import metrics
from ckfr_helpers.attribution.boxes import iou_matrix
from ckfr_helpers.detection.networks import Detector
from ckfr_helpers.detection.rivals import (
    MapLook,
    box_scores,
    boxes_of_maps,
    centre_box,
    look_at,
    one_box_each,
    random_boxes,
    region_maps,
)
from ckfr_helpers.detection.tables import Detections, keep_best
from ckfr_helpers.models import Classifier, build_model
from ckfr_helpers.runtime import mode
from ckfr_helpers.teaching.detection_scenes import LITE, STEP, Seen, see
from ckfr_helpers.teaching.detection_training import (
    class_maps,
    region_scores,
    said,
    train_detector,
    train_plain,
    train_student,
    train_supervised,
)

LEAST = {True: 1e-3, False: 1e-2}  # a region's least score: of a product of two softmaxes, of a sigmoid


def detections_of(model: nn.Module, seen: Seen) -> Detections:
    """What is left of all regions' scores after non-maximum suppression."""
    number = len(seen.targets)
    scores = list(region_scores(model, seen))
    return keep_best(
        [seen.proposals] * number, scores, range(number), least=LEAST[isinstance(model, Detector)]
    )


def best_proposals(seen: Seen) -> Detections:
    """The ceiling of the proposals: for every object the one that overlaps it most, all scored 1."""
    found, (pictures, labels, _) = [], seen.shown
    for target in seen.targets:
        found.append(iou_matrix(target["boxes"].numpy(), seen.proposals.numpy()).argmax(1))
    return Detections(seen.proposals[np.concatenate(found)], torch.ones(len(labels)), labels, pictures)


def looks(maps: Tensor, seen: Seen) -> MapLook:
    """How maps (N, K, h, w) look at every object of its class."""
    pictures, labels, masks = seen.shown
    return look_at(maps[pictures, labels], masks)


def detector_maps(model: Detector, seen: Seen) -> Tensor:
    """(N, K, H / STEP, W / STEP): where the detector's regions say that a class is."""
    scores = region_scores(model, seen)
    return torch.stack([region_maps(seen.proposals, own, seen.size, STEP) for own in scores])


def rivals(
    seen: Seen, plain: Classifier, threshold: float, seed: int = 0, share: float = 0.5
) -> dict[str, Detections]:
    """Boxes that need no detector, all with the plain classifier's scores of whole pictures.

    Args:
        threshold: of the class maps, chosen on validation.
        share: sides of the centre's box, as shares of the picture's.
    """
    scores, size = said(plain, seen), seen.size
    boxes = {
        "random region": random_boxes(seen.proposals, len(scores), scores.shape[1], seed),
        "whole picture": centre_box(size),
        "centre": centre_box(size, share),
        "class map": boxes_of_maps(class_maps(plain, seen), size, threshold, STEP),
    }
    return {name: one_box_each(own, scores) for name, own in boxes.items()}


def label_scores(scores: Tensor, seen: Seen) -> dict[str, float]:
    """`metrics.multilabel_metrics`, and "hdist@wrong": tree height from the best wrong class to the nearest
    right one.
    """
    labels, heights = seen.labels.bool(), seen.source.hierarchy.distances("lca_height")
    wrong = scores.masked_fill(labels, -1).argmax(1)
    apart = [heights[one, own.numpy()].min() for one, own in zip(wrong.tolist(), labels, strict=True)]
    return {**metrics.multilabel_metrics(scores, seen.labels), "hdist@wrong": float(np.mean(apart))}


def pairing_scores(scores: Tensor, seen: Seen, top: int = 3) -> dict[str, float]:
    """Does a classifier take a class's partner for given? All are means over classes.

    Returns:
        "ap_with", "ap_without": average precision on the pictures without the class and those of its pictures
        that show its partner, or do not. "partner_answered": of the latter, the share in which the partner is
        among the ``top`` classes; "partner_elsewhere": the same of pictures that show neither.
    """
    labels = seen.labels.bool()
    beside = labels[:, torch.from_numpy(seen.source.partners)]  # is the class's partner there?
    found = {}
    for name, there in (("with", beside), ("without", ~beside)):
        aps = []
        for one in range(labels.shape[1]):
            kept = ~labels[:, one] | there[:, one]
            if (labels[:, one] & kept).any():
                column = slice(one, one + 1)
                aps.append(
                    metrics.multilabel_metrics(scores[kept, column], seen.labels[kept, column], top=1)["mAP"]
                )
        found[f"ap_{name}"] = float(np.mean(aps)) if aps else float("nan")
    answered = torch.zeros_like(labels).scatter_(1, scores.topk(top).indices, True)
    answered = answered[:, torch.from_numpy(seen.source.partners)]
    for name, asked in (("answered", labels & ~beside), ("elsewhere", ~labels & ~beside)):
        shares = [answered[asked[:, one], one].float().mean() for one in range(labels.shape[1])]
        found[f"partner_{name}"] = float(torch.stack(shares).nanmean())
    return found


@dataclass(frozen=True)
class DetectionLesson:
    """Scenes by split, the two teachers, and students by name."""

    network: Classifier
    seen: dict[str, Seen]
    detector: Detector
    plain: Classifier
    supervised: nn.Module
    students: dict[str, Classifier]

    @cached_property
    def threshold(self) -> float:
        """Of class maps, best on validation."""
        return looks(class_maps(self.plain, self.seen["val"]), self.seen["val"]).threshold

    @cached_property
    def detections(self) -> dict[str, Detections]:
        """Boxes on test: of the rivals, both teachers and what learnt from boxes; the best there are."""
        part = self.seen["test"]
        models = {
            "plain on regions": self.plain.classifier,
            "WSDDN": self.detector,
            "supervised": self.supervised,
        }
        found = rivals(part, self.plain, self.threshold) | {"best proposals": best_proposals(part)}
        return found | {name: detections_of(model, part) for name, model in models.items()}

    @cached_property
    def box_scores(self) -> dict[str, dict[str, float]]:
        """`detection.rivals.box_scores` of all `detections`."""
        part = self.seen["test"]
        objects, tree = part.objects, part.source.hierarchy
        return {name: box_scores(own, objects, tree) for name, own in self.detections.items()}

    @cached_property
    def label_scores(self) -> dict[str, dict[str, float]]:
        """`label_scores` on test, of both teachers and of the students."""
        part = self.seen["test"]
        models = {"WSDDN": self.detector, "plain, large": self.plain, **self.students}
        found = {name: said(model, part) for name, model in models.items()}
        found["plain on regions"] = region_scores(self.plain.classifier, part).amax(1)
        return {name: label_scores(scores, part) for name, scores in found.items()}

    @cached_property
    def looks(self) -> dict[str, dict[str, float]]:
        """Of class maps and the detector's maps on test: energy, box accuracy, thresholds from validation."""
        found = {}
        for name in ("class map", "WSDDN"):
            val, test = (
                looks(
                    class_maps(self.plain, part)
                    if name == "class map"
                    else detector_maps(self.detector, part),
                    part,
                )
                for part in (self.seen["val"], self.seen["test"])
            )
            found[name] = test.scores(chosen_on=val)
        return found


def run_detection_lesson(seed: int = 0) -> DetectionLesson:
    """Everything that the notebook shows, in minutes on two cores; ``CKFR_MODE=full`` for more scenes."""
    full = mode() == "full"
    scenes = {"train": 720, "val": 144, "test": 288} if full else {"train": 240, "val": 96, "test": 144}
    network = build_model(LITE, None).eval()
    seen = see(network, scenes, seed)
    print(f"{sum(scenes.values())} scenes seen", flush=True)
    detector, plain = train_detector(seen, seed=seed), train_plain(seen, seed=seed)
    supervised = train_supervised(seen, seed=seed)
    taught = {split: said(detector, part) for split, part in seen.items()}
    recipes: dict[str, dict[str, Any]] = {
        "plain": {},
        "taught by WSDDN": {"teacher": taught},
        "stage 1, then taught": {"teacher": taught, "features_of": detector},
    }
    students = {name: train_student(seen, seed=seed, **own) for name, own in recipes.items()}
    lesson = DetectionLesson(network, seen, detector, plain, supervised, students)
    for name, scores in lesson.label_scores.items():
        print(f"{name}: mAP {scores['mAP']:.3f} on test", flush=True)
    return lesson

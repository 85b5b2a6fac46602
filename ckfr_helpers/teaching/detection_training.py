"""Teachers, students and the ceiling of notebook 06, each trained by the one loop."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ckfr_helpers.attribution.boxes import iou_matrix
from ckfr_helpers.datasets.loading import CachedLoader
from ckfr_helpers.detection.head import TwoStream
from ckfr_helpers.detection.loading import teach
from ckfr_helpers.detection.networks import Detector, RegionStudent
from ckfr_helpers.detection.tasks import DetectorTask, FeatureTask, MultiLabelTask
from ckfr_helpers.models import CachedFeatures, Classifier
from ckfr_helpers.runtime import seed_everything
from ckfr_helpers.teaching.detection_scenes import LITE, STAGE, STAGES, Seen
from ckfr_helpers.training import TrainConfig, fit
from ckfr_helpers.training.evaluation import collect
from ckfr_helpers.training.tails import new_tail
from ckfr_helpers.training.task import Task

FEW_REGIONS = 24  # of each picture, for stage 1 and for the supervised ceiling


def train(
    model: Any, task: Task, parts: Mapping[str, CachedFeatures], epochs: int, lr: float, seed: int = 0
) -> Any:
    """Fit a model to the features of "train", and put it back to its best epoch on those of "val"."""
    config = TrainConfig(alpha=0.0, epochs=epochs, lr=lr, seed=seed, accelerator="cpu")
    first, second = (CachedLoader(parts[s], 16, train=s == "train", seed=seed) for s in ("train", "val"))
    model.load_state_dict(fit(model, task, first, second, config, progress=False).best_weights)
    return model.eval()


def train_detector(
    seen: Mapping[str, Seen],
    epochs: int = 12,
    lr: float = 1e-3,
    seed: int = 0,
    task: DetectorTask | None = None,
    **head: Any,
) -> Detector:
    """WSDDN on frozen regions; ``head`` are options of `detection.head.TwoStream`."""
    part = seen["train"]
    seed_everything(seed)
    streams = TwoStream(part.maps.features.shape[1], part.labels.shape[1], **head)
    model = Detector(streams, size=part.size)
    return train(model, task or DetectorTask(), {s: p.regions for s, p in seen.items()}, epochs, lr, seed)


def train_plain(seen: Mapping[str, Seen], epochs: int = 12, lr: float = 1e-3, seed: int = 0) -> Classifier:
    """A linear classifier on the pooled large map: no regions and one stream, all else as the detector."""
    classes = seen["train"].labels.shape[1]
    model = new_tail(LITE, STAGES, classes, seed)
    return train(model, MultiLabelTask(classes), {s: p.maps for s, p in seen.items()}, epochs, lr, seed)


def train_supervised(
    seen: Mapping[str, Seen], epochs: int = 12, lr: float = 1e-3, seed: int = 0
) -> nn.Module:
    """The ceiling: a linear classifier told which regions lie on an object, at an IoU of at least 0.5."""
    classes, parts = seen["train"].labels.shape[1], {}
    draw = np.random.default_rng(seed)
    for split in ("train", "val"):
        part, rows, labels = seen[split], [], []
        for own, target in zip(part.regions.features["regions"], part.targets, strict=True):
            placed = iou_matrix(part.proposals.numpy(), target["boxes"].numpy()) >= 0.5  # (R, n)
            told = np.zeros((len(own), classes), np.float32)
            told[:, target["box_labels"].numpy()] = placed
            some = np.concatenate([np.flatnonzero(placed.any(1)), draw.permutation(len(own))[:FEW_REGIONS]])
            rows.append(own[some])
            labels.append(torch.from_numpy(told[some]))
        number = sum(map(len, rows))
        told = {"labels": torch.cat(labels)}
        parts[split] = CachedFeatures(
            torch.cat(rows), torch.zeros(number, dtype=torch.int64), torch.arange(number), told
        )
    seed_everything(seed)
    model = nn.Linear(seen["train"].maps.features.shape[1], classes)
    return train(model, MultiLabelTask(classes), parts, epochs, lr, seed)


def train_student(
    seen: Mapping[str, Seen],
    epochs: int = 12,
    lr: float = 1e-3,
    seed: int = 0,
    teacher: Mapping[str, Tensor] | None = None,
    features_of: Detector | None = None,
    first_epochs: int = 4,
    **task: Any,
) -> Classifier:
    """A small picture's classifier, whose stages from STAGE on learn.

    Args:
        teacher: scores (N, K) of "train" and "val", as `said` gives them, for stage 2.
        features_of: a detector whose regions' features are learnt first, for ``first_epochs``: stage 1.
        task: options of `detection.tasks.MultiLabelTask`.
    """
    classes = seen["train"].labels.shape[1]
    model, parts = new_tail(LITE, STAGE, classes, seed), {s: part.small for s, part in seen.items()}
    if features_of is not None:
        projection = nn.Linear(model.embed_dim, features_of.head.width)
        student = RegionStudent(model, projection, size=seen["train"].size)
        some = {s: few_regions(seen[s], features_of, seed) for s in ("train", "val")}
        train(student, FeatureTask(), some, first_epochs, lr, seed)
    if teacher is not None:
        parts = {s: parts[s].with_targets(teacher=teacher[s]) for s in ("train", "val")}
    return train(model, MultiLabelTask(classes, teacher=teacher is not None, **task), parts, epochs, lr, seed)


def few_regions(seen: Seen, teacher: Detector, seed: int = 0) -> CachedFeatures:
    """A student's small states, a few random regions of each picture, and the teacher's features of them."""
    regions = seen.regions.features
    number = len(seen.small)
    draw = torch.Generator().manual_seed(seed)
    some = torch.rand(number, len(seen.proposals), generator=draw).argsort(1)[:, :FEW_REGIONS]
    rows = torch.arange(number)[:, None]
    with torch.no_grad():
        told = teacher.head.embed(regions["regions"][rows, some].flatten(0, 1).float())
    inputs = {"maps": seen.small.features, "boxes": regions["boxes"][rows, some]}
    inputs["counts"] = torch.full((number,), some.shape[1])
    targets = {"regions": told.unflatten(0, (number, -1))}
    return CachedFeatures(inputs, seen.small.labels, seen.small.indices, targets)


def said(model: Any, seen: Seen, **options: Any) -> Tensor:
    """(N, K) scores in [0, 1] of every picture, by a detector or a classifier of large or of small ones.

    ``options`` are those of `detection.loading.teach`.
    """
    of_maps = seen.small if not isinstance(model, Detector) and len(model.stages) else seen.maps
    features = seen.regions if isinstance(model, Detector) else of_maps
    return teach(model, CachedLoader(features, 16, train=False), **options)["teacher"]


def region_scores(model: nn.Module, seen: Seen) -> Tensor:
    """(N, R, K) scores of every region, by a detector or by a linear layer that sees one at a time."""

    def read(inputs: Any, targets: dict[str, Any]) -> dict[str, Tensor]:
        whole = isinstance(model, Detector)
        return {"scores": model(inputs) if whole else model(inputs["regions"]).sigmoid()}

    return collect(model, CachedLoader(seen.regions, 16, train=False), read)["scores"]


def class_maps(plain: Classifier, seen: Seen) -> Tensor:
    """(N, K, h, w) class activation maps, of any values, of all classes."""
    return torch.einsum("nchw,kc->nkhw", seen.maps.features.float(), plain.classifier.weight.detach())

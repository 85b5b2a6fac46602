"""Teachers and students of notebook 06, and what boxes would teach, each trained by the one loop."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ckfr_helpers.attribution.boxes import iou_matrix
from ckfr_helpers.datasets.loading import CachedLoader
from ckfr_helpers.detection.head import TwoStream, image_scores
from ckfr_helpers.detection.loading import teach
from ckfr_helpers.detection.networks import Detector, RegionStudent
from ckfr_helpers.detection.regions import padded
from ckfr_helpers.detection.tasks import DetectorTask, FeatureTask, MultiLabelTask
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.losses import AlignedTripletLoss
from ckfr_helpers.models import CachedFeatures, Classifier
from ckfr_helpers.runtime import seed_everything
from ckfr_helpers.teaching.detection_scenes import LITE, STAGE, STAGES, Seen
from ckfr_helpers.training import TrainConfig, fit
from ckfr_helpers.training.evaluation import collect
from ckfr_helpers.training.tails import new_tail
from ckfr_helpers.training.task import Task

FEW_REGIONS = 24  # of each picture, for stage 1
OTHERS = 8  # regions on no object to one that is on one, where boxes are told
LENGTH = 30.0  # of a region's features, as `detection.head.TwoStream` has it


class RegionClassifier(nn.Module):
    """Features (…, D) of regions to logits (…, K): their length set as for the detector, one hidden layer."""

    def __init__(self, features: int, classes: int, hidden: int = 128) -> None:
        super().__init__()
        first, last = nn.Linear(features, hidden), nn.Linear(hidden, classes)
        self.layers = nn.Sequential(first, nn.ReLU(), nn.Dropout(0.3), last)

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(LENGTH * F.normalize(features, dim=-1))


class AlignedDetectorTask(DetectorTask):
    """WSDDN with the aligned triplet loss between the features of each present class's best region.

    The features are what the head's two layers see, so only a hidden layer can follow. ``alpha`` weighs the
    loss on path lengths of the tree.
    """

    def __init__(self, alpha: float, hierarchy: Hierarchy) -> None:
        super().__init__()
        self.metric = AlignedTripletLoss(alpha, 1.2, 0.1 * hierarchy.distances("path"))

    def outputs(self, model: Any, inputs: Any) -> dict[str, Tensor]:
        """``scores`` (B, K) of pictures; ``best`` (B, K, D), features of every class's best region."""
        embedded = model.embed(inputs)
        scores = model.score(embedded, inputs)
        rows = padded(embedded, inputs["counts"], scores.shape[1])  # (B, R, D)
        best = scores.argmax(1)[..., None].expand(-1, -1, rows.shape[2])
        return {"scores": image_scores(scores), "best": rows.gather(1, best)}

    def losses(self, outputs: dict[str, Tensor], targets: dict[str, Any]) -> dict[str, Tensor]:
        """``image``, and ``metric`` with its weight."""
        pictures, labels = targets["labels"].nonzero(as_tuple=True)
        metric = self.metric(outputs["best"][pictures, labels], labels)
        return {**super().losses(outputs, targets), "metric": metric}


def train(
    model: Any,
    task: Task,
    parts: Mapping[str, CachedFeatures],
    epochs: int,
    lr: float,
    seed: int = 0,
    batch: int = 16,
) -> Any:
    """Fit a model to the features of "train", and put it back to its best epoch on those of "val"."""
    config = TrainConfig(alpha=0.0, epochs=epochs, lr=lr, seed=seed, accelerator="cpu", batch_size=batch)
    first, second = (CachedLoader(parts[s], batch, train=s == "train", seed=seed) for s in ("train", "val"))
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


def train_plain(seen: Mapping[str, Seen], epochs: int = 12, lr: float = 1e-2, seed: int = 0) -> Classifier:
    """A linear classifier on the pooled large map: no regions and one stream, all else as the detector."""
    classes = seen["train"].labels.shape[1]
    model = new_tail(LITE, STAGES, classes, seed)
    return train(model, MultiLabelTask(classes), {s: p.maps for s, p in seen.items()}, epochs, lr, seed)


def train_supervised(
    seen: Mapping[str, Seen], epochs: int = 20, lr: float = 1e-3, seed: int = 0
) -> nn.Module:
    """What boxes would teach: which regions lie on an object, at an IoU of at least 0.5, and of which class.

    To the task it is a classifier whose pictures are regions, most of them without a label. On scenes of 65
    photographs it is no ceiling: it learns these by heart.
    """
    classes, parts = seen["train"].labels.shape[1], {}
    draw = torch.Generator().manual_seed(seed)
    for split in ("train", "val"):
        part = seen[split]
        told = torch.zeros(len(part.targets), len(part.proposals), classes)
        for own, target in zip(told, part.targets, strict=True):
            placed = iou_matrix(part.proposals.numpy(), target["boxes"].numpy()) >= 0.5  # (R, n)
            own[:, target["box_labels"]] = torch.from_numpy(placed).float()
        told, regions = told.flatten(0, 1), part.regions.features["regions"].flatten(0, 1)
        right = told.any(1).nonzero().flatten()
        others = torch.randperm(len(told), generator=draw)[: OTHERS * len(right)]
        rows = torch.cat([right, others])
        places = torch.arange(len(rows))
        parts[split] = CachedFeatures(regions[rows], places, places, {"labels": told[rows]})
    seed_everything(seed)
    model = RegionClassifier(seen["train"].maps.features.shape[1], classes)
    return train(model, MultiLabelTask(classes), parts, epochs, lr, seed, batch=256)


def train_student(
    seen: Mapping[str, Seen],
    epochs: int = 12,
    lr: float = 3e-3,
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

"""Batches with regions, from cached maps or from pictures, and a teacher's answers to learn from."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat
from tqdm.auto import tqdm

from ckfr_helpers.datasets.base import PER_OBJECT, Example, ImageSource
from ckfr_helpers.datasets.loading import Batch
from ckfr_helpers.detection.head import image_scores
from ckfr_helpers.detection.networks import Detector
from ckfr_helpers.detection.proposals import check_boxes
from ckfr_helpers.detection.regions import Pooling, edges, pad_boxes, padded, pool_regions
from ckfr_helpers.models import CachedFeatures
from ckfr_helpers.runtime import CkfrError
from ckfr_helpers.training.evaluation import collect

AT_ONCE = 16  # pictures whose regions are pooled together


def cache_regions(
    maps: CachedFeatures,
    boxes: Sequence[Tensor],
    size: tuple[int, int],
    pooling: Pooling = "align",
    side: int = 1,
    scores: Sequence[Tensor] | None = None,
    progress: bool = True,
) -> CachedFeatures:
    """Pool the regions of cached maps once, for a `Detector` whose trunk does not change.

    Args:
        maps: with features (N, C, h, w), from `models.cache_features`.
        boxes: (n, 4) for each of their rows, in pixels of a picture of ``size``.
        size, pooling, side: as for `regions.pool_regions`.
        scores: (n,) for each of their rows, where the boxes have scores.

    Returns:
        The same with features ``regions`` (N, R, C), in the maps' precision, ``boxes``, ``counts``, and with
        scores ``box_scores``.
    """
    if len(boxes) != len(maps):
        raise CkfrError(f"There are boxes for {len(boxes)} of {len(maps)} pictures; expected them for each.")
    for row, own in zip(maps.indices.tolist(), boxes, strict=True):
        check_boxes(own, size, f"picture {row}")
    together, counts = pad_boxes(boxes)
    rows = torch.arange(len(maps)).split(AT_ONCE)
    parts = []
    for some in tqdm(rows, desc="regions", disable=not progress, leave=False):
        pooled, _ = pool_regions(maps.features[some], together[some], counts[some], size, pooling, side)
        parts.append(padded(pooled.to(maps.features.dtype), counts[some], together.shape[1]))
    features = {"regions": torch.cat(parts), "boxes": together, "counts": counts}
    if scores is not None:
        features["box_scores"] = padded(torch.cat(list(scores)).float(), counts, together.shape[1])
    return CachedFeatures(features, maps.labels, maps.indices, maps.targets)


class WithProposals(ImageSource):
    """A source whose ``boxes`` are proposals, so that they move with the picture; its own objects' are gone.

    Args:
        boxes: (n, 4) for each example, in pixels of its picture.
        scores: (n,) for each, where proposals have scores; they become ``box_scores``.
    """

    def __init__(
        self, source: ImageSource, boxes: Sequence[Tensor], scores: Sequence[Tensor] | None = None
    ) -> None:
        for what in (boxes, *([] if scores is None else [scores])):
            if len(what) != len(source):
                raise CkfrError(
                    f"There are proposals for {len(what)} of {len(source)} pictures; expected each."
                )
        self.source, self.boxes, self.scores = source, boxes, scores
        self.name, self.split, self.hierarchy = source.name, source.split, source.hierarchy
        self.labels = source.labels

    def where(self, index: int) -> str:
        return self.source.where(index)

    def __getitem__(self, index: int) -> Example:
        image, whole = self.source[index]
        size = (image.shape[-2], image.shape[-1])
        target: Any = {key: value for key, value in whole.items() if key not in PER_OBJECT}
        boxes = check_boxes(self.boxes[index], size, self.where(index))
        target["boxes"] = BoundingBoxes(boxes, format=BoundingBoxFormat.XYXY, canvas_size=size)
        if self.scores is not None:
            target["box_scores"] = self.scores[index]
        return image, target


class RegionLoader:
    """Batches of a loader with the inputs that `networks` take, and with a teacher's answers.

    Args:
        loader: from `datasets.loading.make_loader`; over `WithProposals` its view brings ``boxes`` and, if
            there are any, ``box_scores``. Without them the inputs stay pictures.
        most: rows for regions in every batch, for each picture's first; 0 for as many as a batch needs, which
            will not do for several processes.
        min_side: boxes that a crop left with a shorter side, in pixels, are dropped.
        rows: further targets by index of the example, (N, …) each, such as a teacher's answers.
    """

    def __init__(
        self, loader: DataLoader, most: int = 0, min_side: float = 1, rows: Mapping[str, Tensor] | None = None
    ) -> None:
        self.loader, self.most, self.min_side, self.rows = loader, most, min_side, rows or {}
        self.batch_sampler, self.dataset = loader.batch_sampler, loader.dataset

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        for inputs, targets, indices in self.loader:
            targets = {**targets, **{name: values[indices] for name, values in self.rows.items()}}
            if "boxes" in targets:
                boxes = [own.as_subclass(Tensor) for own in targets.pop("boxes")]
                inputs = {"maps": inputs, **self._regions(boxes, targets.pop("box_scores", None), indices)}
            yield inputs, targets, indices

    def _regions(self, boxes: list[Tensor], scores: Any, indices: Tensor) -> dict[str, Tensor]:
        """Those of a batch that are large enough, padded."""
        kept = [(edges(own)[:, 2:] - own[:, :2] >= self.min_side).all(1) for own in boxes]
        for index, some in zip(indices.tolist(), kept, strict=True):
            if not some.any():
                where = self.dataset.source.where(index)  # type: ignore[attr-defined]
                raise CkfrError(
                    f"No proposal of {where} has sides of {self.min_side:g} pixels once transformed; "
                    "expected a milder crop, a smaller min_side or more proposals."
                )
        large = [own[some] for own, some in zip(boxes, kept, strict=True)]
        together, counts = pad_boxes(large, self.most or None)
        found = {"boxes": together, "counts": counts}
        if scores is not None:
            rows = [own[some][: together.shape[1]].float() for own, some in zip(scores, kept, strict=True)]
            found["box_scores"] = padded(torch.cat(rows), counts, together.shape[1])
        return found


def teach(
    model: nn.Module, loader: Any, *, sharpen: float = 1.0, noisy: bool = False, regions: bool = False
) -> dict[str, Tensor]:
    """A teacher's answers for every example of a loader, as targets for a student.

    Args:
        model: a `Detector`; or a classifier whose call gives logits, for self-distillation and controls.
        sharpen: divides a detector's two temperatures; MLIC-KD-WSD has 2.
        noisy: with dropout, as in that source, where the teacher stands in training mode.
        regions: also what a detector's head sees of each region.

    Returns:
        ``teacher`` (N, C) in [0, 1], for `tasks.MultiLabelTask`; if asked, ``regions`` (N, R, width), 0 in
        the padding, for `tasks.FeatureTask`. On the CPU, ordered by index.
    """
    if regions and not isinstance(model, Detector):
        raise CkfrError(f"regions=True needs a Detector; got a {type(model).__name__}.")
    noise = [part for part in model.modules() if isinstance(part, nn.Dropout)]

    def read(inputs: Any, targets: dict[str, Any]) -> dict[str, Tensor]:
        for part in noise:  # `collect` puts every mode back
            part.train(noisy)
        if not isinstance(model, Detector):
            return {"teacher": model(inputs).sigmoid()}
        embedded = model.embed(inputs)
        found = {"teacher": image_scores(model.score(embedded, inputs, sharpen)).clamp(0, 1)}
        if regions:
            found["regions"] = padded(embedded, inputs["counts"], inputs["boxes"].shape[1])
        return found

    seen = collect(model, loader, read)
    return {name: rows for name, rows in seen.items() if name != "indices"}

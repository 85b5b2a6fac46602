"""Scenes of notebook 06 behind a frozen trunk: large, for teachers and boxes; small, for students."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ckfr_helpers import datasets
from ckfr_helpers.datasets.loading import TransformedView, make_loader
from ckfr_helpers.datasets.scenes.several import SeveralScenes
from ckfr_helpers.datasets.transforms import make_transform
from ckfr_helpers.detection.loading import cache_regions
from ckfr_helpers.detection.proposals import FEW, grid_boxes
from ckfr_helpers.detection.tables import Objects, objects_of
from ckfr_helpers.models import CachedFeatures, Classifier, cache_features
from ckfr_helpers.runtime import num_workers

LITE, STAGES, STAGE = "efficientnet_lite0", 9, 7  # a student's stages from STAGE on are trained
SIZE, SMALL = 384, 160  # pixels a side, for teachers and for students
STEP = 4  # pixels of a large picture to one of its masks and enlarged maps
OBJECTS = (2, 4)


@dataclass(frozen=True)
class Seen:
    """One split, seen by the frozen trunk: large maps and small states; masks (n, H / STEP, W / STEP)."""

    source: SeveralScenes
    targets: list[dict[str, Tensor]]  # "boxes" and "box_labels" of every picture, in large pixels
    masks: list[Tensor]
    maps: CachedFeatures  # (N, C, h, w) of the last stage, with targets "labels"
    small: CachedFeatures  # what enters stage STAGE
    size: tuple[int, int] = (SIZE, SIZE)  # height and width of a large picture

    @property
    def labels(self) -> Tensor:
        """(N, K), 0 or 1."""
        return self.maps.targets["labels"]

    @cached_property
    def proposals(self) -> Tensor:
        """(R, 4), the same for every picture."""
        return grid_boxes(self.size, stride=FEW)

    @cached_property
    def regions(self) -> CachedFeatures:
        """Features of the proposals, pooled once."""
        return cache_regions(self.maps, [self.proposals] * len(self.maps), self.size, progress=False)

    @property
    def objects(self) -> Objects:
        return objects_of(self.targets, range(len(self.targets)))

    @cached_property
    def shown(self) -> tuple[Tensor, Tensor, Tensor]:
        """Every object: its picture (P,), its class (P,), its mask (P, H / STEP, W / STEP)."""
        labels = [target["box_labels"] for target in self.targets]
        pictures = torch.repeat_interleave(torch.tensor([len(own) for own in labels]))
        return pictures, torch.cat(labels), torch.cat(self.masks)


def see(
    network: Classifier,
    scenes: Mapping[str, int],
    seed: int = 0,
    pairing: float = 0.0,
    sides: tuple[int, int] = (SIZE, SMALL),
    workers: int = 2,
) -> dict[str, Seen]:
    """Compose so many ``scenes`` of each split and send them through the network's frozen parts.

    Args:
        pairing: ties classes of training scenes to partners, see `datasets.scenes.several.SeveralScenes`.
        sides: pixels of a side of large and of small pictures.
        workers: processes that compose.
    """
    large, small = sides
    transform = make_transform("light", train=False, size=large, mean=network.mean, std=network.std)
    keys = ("label", "labels", "boxes", "box_labels", "masks")
    found: dict[str, Seen] = {}
    shrunk: dict[str, list[Any]] = {}
    for split, count in scenes.items():
        options: dict[str, Any] = {"size": large, "scenes": count, "seed": seed, "objects": OBJECTS}
        source = datasets.open_source("several-photos", split, **options, pairing=pairing)
        view = TransformedView(source, transform, keys=keys)
        loader = make_loader(view, 16, train=False, workers=min(workers, num_workers()))
        targets: list[dict[str, Tensor]] = []
        masks: list[Tensor] = []
        shrunk[split] = []
        batches = _noted(loader, targets, masks, shrunk[split], small)
        maps = cache_features(network.split(STAGES)[0], batches, progress=False)
        found[split] = Seen(cast(SeveralScenes, source), targets, masks, maps, maps, (large, large))
    # The trunks run one after the other: each is prepared for one size of pictures, which takes seconds.
    trunk, _ = network.split(STAGE)
    return {
        split: replace(seen, small=cache_features(trunk, shrunk[split], progress=False))
        for split, seen in found.items()
    }


def _noted(
    loader: Any, targets: list[dict[str, Tensor]], masks: list[Tensor], shrunk: list[Any], side: int
) -> Iterator[Any]:
    """The loader's batches; what else they hold, and the pictures at ``side`` pixels, goes to the lists."""
    for images, found, rows in loader:
        for boxes, labels, own in zip(found["boxes"], found["box_labels"], found["masks"], strict=True):
            targets.append({"boxes": boxes.as_subclass(Tensor), "box_labels": labels})
            masks.append(F.max_pool2d(own.as_subclass(Tensor).float(), STEP).bool())
        known = {"label": found["label"], "labels": found["labels"]}
        small = F.interpolate(images, (side, side), mode="bilinear", antialias=True, align_corners=False)
        shrunk.append((small, known, rows))
        yield images, known, rows

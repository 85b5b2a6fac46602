"""Networks to look into, trained on the spot: what notebook 04 runs.

The frozen trunk turns every scene into a map once; then one tail is trained for each alpha, from the same
weights on the same batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ckfr_helpers import datasets
from ckfr_helpers.attribution.cam import class_activation_maps
from ckfr_helpers.attribution.energy import background_swap
from ckfr_helpers.attribution.look import Look, look, look_scores
from ckfr_helpers.datasets.base import ImageSource
from ckfr_helpers.datasets.loading import CachedLoader
from ckfr_helpers.datasets.scenes.photos import class_ids
from ckfr_helpers.datasets.scenes.single import OnBackground, PhotoScenes
from ckfr_helpers.models import CachedFeatures, Classifier, build_model
from ckfr_helpers.runtime import mode
from ckfr_helpers.training import TrainConfig, cache_split, predict, train_tail

LITE, STAGE, SIZE = "efficientnet_lite0", 7, 224


@dataclass(frozen=True)
class TrainedNetwork:
    """One network, where it looks, and its (N,) answers to the test scenes on both backgrounds."""

    tail: Classifier
    val: Look
    test: Look
    usual: np.ndarray
    foreign: np.ndarray

    @property
    def scores(self) -> dict[str, float]:
        """`look_scores` of the test split, and what the swapped background costs."""
        swap = background_swap(self.usual, self.foreign, self.test.labels)
        found = look_scores(self.test, self.val)
        return found | {name: float(swap[name].mean()) for name in ("usual", "foreign", "drop")}

    @cached_property
    def threshold(self) -> float:
        """Score threshold for the one box of the largest contour, best at IoU 0.5 on validation."""
        return float(self.val.largest.best_thresholds[0])


@dataclass(frozen=True)
class LookLesson:
    """Network with ImageNet weights, scenes and their trunk outputs by split, alpha -> what was trained."""

    network: Classifier
    sources: dict[str, PhotoScenes]
    features: dict[str, CachedFeatures]
    models: dict[float, TrainedNetwork]

    @property
    def scenes(self) -> PhotoScenes:
        """The test scenes."""
        return self.sources["test"]

    def inputs(self, indices: Sequence[int], split: str = "test") -> Tensor:
        """Trunk outputs (n, C, h, w) of some scenes."""
        return self.features[split].features[torch.as_tensor(list(indices))].float()

    def maps(self, alpha: float, indices: Sequence[int], split: str = "test") -> Tensor:
        """Signed class activation maps (n, h, w) of the true class, for some scenes."""
        labels = self.features[split].labels[torch.as_tensor(list(indices))]
        return class_activation_maps(self.models[alpha].tail, self.inputs(indices, split), labels, raw=True)

    def gains(self, alpha: float) -> np.ndarray:
        """(N,) IoU of a network's box minus the baseline's on the test scenes, each at its own threshold."""
        pair = self.models[alpha], self.models[0]
        ious = [one.test.ious_largest[:, round(1000 * one.threshold)] for one in pair]
        return ious[0] - ious[1]

    def whole(self, alpha: float) -> Classifier:
        """The trunk and one trained tail as one network that takes pictures."""
        trunk, _ = self.network.split(STAGE)
        tail = self.models[alpha].tail
        return tail.with_stages(torch.nn.Sequential(*trunk, *tail.stages)).eval()

    def pictures(self, indices: Sequence[int]) -> Tensor:
        """Normalised test scenes (n, 3, 224, 224), ready for ``whole``."""
        return torch.stack([self.network.normalize(self.scenes[int(i)][0]) for i in indices])


def run_look_lesson(
    alphas: Sequence[float], bias: float = 0.9, seed: int = 0, scenes: int | None = None
) -> LookLesson:
    """Train one network for each alpha on scenes with ``bias``, look into all, print a line about each.

    There are so many training ``scenes`` a class; where None, 20, or 60 with ``CKFR_MODE=full``.
    """
    each = scenes or (60 if mode() == "full" else 20)
    network = build_model(LITE, 1).eval()

    def cached(source: ImageSource) -> CachedFeatures:
        return cache_split(source, network, STAGE, SIZE, progress=False)

    sources: dict[str, PhotoScenes] = {}
    for split, count, tie in (("train", each, bias), ("val", each // 2, 0.0), ("test", each // 2, 0.0)):
        total = max(2, count) * len(class_ids())
        options: dict[str, Any] = {"size": SIZE, "scenes": total, "seed": seed, "background_bias": tie}
        sources[split] = cast(PhotoScenes, datasets.open_source("photos", split, **options))
    features = {split: cached(source) for split, source in sources.items()}
    swapped = [cached(OnBackground(sources["test"], name)) for name in ("usual", "foreign")]
    models = {}
    for alpha in map(float, alphas):
        recipe: dict[str, Any] = {"epochs": 4, "lr": 1e-3, "seed": seed, "accelerator": "cpu"}
        config = TrainConfig(model=LITE, freeze=STAGE, alpha=alpha, **recipe)
        tail = train_tail(features, sources["test"].hierarchy, config).tail
        looks = [look(tail, CachedLoader(features[s], 64, train=False), sources[s]) for s in ("val", "test")]
        answers = [predict(tail, CachedLoader(part, 64, train=False)).logits.argmax(1) for part in swapped]
        models[alpha] = TrainedNetwork(tail, looks[0], looks[1], answers[0], answers[1])
        found = models[alpha].scores
        energy, box = found["energy"], found["gt_known_fixed"]
        said = f"top-1 {found['top1']:.2f}, energy on the object {energy:.2f}, box right {box:.2f}"
        print(f"alpha {alpha:g}: {said}", flush=True)
    return LookLesson(network, sources, features, models)

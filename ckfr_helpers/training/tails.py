"""Baseline against CKFR in minutes on a laptop: freeze the trunk, cache what it gives, train the tail.

The trunk of a pretrained network turns every picture into a small map once. What is trained, again and again
with other seeds and other alphas, is only the last stages and the classifier. Both methods start from the
same weights and see the same batches, so their difference is the loss.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ckfr_helpers.datasets.base import ImageSource
from ckfr_helpers.datasets.loading import TransformedView, make_loader
from ckfr_helpers.datasets.transforms import make_transform
from ckfr_helpers.models.classifier import Classifier, build_model
from ckfr_helpers.runtime import num_workers, seed_everything
from ckfr_helpers.training.cached import CachedFeatures, cache_features
from ckfr_helpers.training.config import TrainConfig
from ckfr_helpers.training.evaluation import Predictions, predict, score
from ckfr_helpers.training.loop import fit
from ckfr_helpers.training.run import make_loss


@dataclass(frozen=True)
class TailSettings:
    """How a tail is trained; alpha 0 is the cross-entropy baseline.

    Attributes:
        alpha, ell, measure, knowledge_scale: the metric term, as in `TrainConfig`.
        epochs, lr, batch_size, seed: the optimisation (Adam, constant learning rate).
        method, method_options: another loss than CKFR's, as in `TrainConfig`.
    """

    alpha: float = 0.0
    ell: float = 1.2
    measure: str = "path"
    knowledge_scale: float = 0.1
    epochs: int = 6
    lr: float = 3e-4
    batch_size: int = 32
    seed: int = 0
    method: str = "ckfr"
    method_options: dict[str, Any] = field(default_factory=dict)

    def baseline(self) -> "TailSettings":
        """The same run with cross-entropy alone."""
        return replace(self, alpha=0.0, method="ckfr", method_options={})


@dataclass
class TailRun:
    """One trained tail.

    Attributes:
        settings: what was asked for.
        tail: the trained tail, holding the weights of the best validation epoch.
        history: one dict an epoch.
        best_epoch: from 1.
        val, test: what it says of these splits.
        val_scores, test_scores: from `score`; severities in LCA height, as the literature reports them.
    """

    settings: TailSettings
    tail: Classifier
    history: list[dict[str, float]]
    best_epoch: int
    val: Predictions
    test: Predictions
    val_scores: dict[str, float]
    test_scores: dict[str, float]


def cache_split(
    source: ImageSource,
    model: Classifier,
    stage: int,
    size: int,
    *,
    batch_size: int = 64,
    workers: int | None = None,
    progress: bool = True,
) -> CachedFeatures:
    """Every example of a source, resized and normalised, through the first ``stage`` stages.

    Args:
        source: any image source.
        model: from `build_model`; only its trunk is used.
        stage: where to cut.
        size: side of the input in pixels.
        batch_size: images a forward pass.
        workers: loader processes; two where there are cores, by default.
        progress: show a bar.
    """
    trunk, _ = model.split(stage)
    transform = make_transform("light", train=False, size=size, mean=model.mean, std=model.std)
    loader = make_loader(
        TransformedView(source, transform),
        batch_size,
        train=False,
        workers=min(2, num_workers()) if workers is None else workers,
        drop_last=False,
    )
    device = next(model.parameters()).device.type
    return cache_features(trunk, loader, device=device, progress=progress)


def new_tail(model_name: str, stage: int, num_classes: int, seed: int) -> Classifier:
    """A pretrained tail with a new classifier that depends on the seed alone."""
    seed_everything(seed)
    _, tail = build_model(model_name, num_classes).split(stage)
    return copy.deepcopy(tail)


def train_tail(
    features: Mapping[str, CachedFeatures],
    source: ImageSource,
    settings: TailSettings,
    *,
    model_name: str = "efficientnet_lite0",
    stage: int,
    progress: bool = False,
) -> TailRun:
    """Train one tail on cached features, keep its best validation epoch, score it on val and test.

    Args:
        features: "train", "val" and "test", from `cache_split` with the same model and stage.
        source: any split of the source; gives classes and hierarchy.
        settings: loss and optimisation.
        model_name: backbone.
        stage: where it was cut.
        progress: show bars.
    """
    knowledge = source.hierarchy.distances(settings.measure)
    tail = new_tail(model_name, stage, len(source.classes), settings.seed)
    config = TrainConfig(
        method=settings.method,
        method_options=settings.method_options,
        alpha=settings.alpha,
        ell=settings.ell,
        knowledge_scale=settings.knowledge_scale,
        epochs=settings.epochs,
        lr=settings.lr,
        lr_step=settings.epochs,
        batch_size=settings.batch_size,
        seed=settings.seed,
        accelerator="cpu",
    )
    loss = make_loss(config, knowledge, source.hierarchy, tail.embed_dim)
    loaders = {
        split: features[split].loader(settings.batch_size, train=split == "train", seed=settings.seed)
        for split in ("train", "val", "test")
    }
    result = fit(tail, loss, loaders["train"], loaders["val"], config, progress=progress)
    tail.load_state_dict(result.best_weights)
    seen = {split: predict(tail, loaders[split]) for split in ("val", "test")}
    scores = {split: score(seen[split], source.hierarchy) for split in seen}
    return TailRun(
        settings, tail.eval(), result.history, result.best_epoch + 1,
        seen["val"], seen["test"], scores["val"], scores["test"],
    )  # fmt: skip


def untrained_latents(
    features: CachedFeatures,
    num_classes: int,
    *,
    model_name: str = "efficientnet_lite0",
    stage: int,
    seed: int = 0,
) -> np.ndarray:
    """(N, D) latents before any training: what the ImageNet weights alone say."""
    tail = new_tail(model_name, stage, num_classes, seed)
    with torch.inference_mode():
        return predict(tail, features.loader(256, train=False)).latents

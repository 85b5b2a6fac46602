"""Baseline against CKFR in minutes on a laptop: freeze the trunk, cache what it gives, train the tail.

Both methods start from the same weights and see the same batches, so their difference is the loss.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ckfr_helpers.datasets.base import ImageSource
from ckfr_helpers.datasets.loading import CachedLoader, TransformedView, make_loader
from ckfr_helpers.datasets.transforms import make_transform
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.models import CachedFeatures, Classifier, build_model, cache_features
from ckfr_helpers.runtime import num_workers, seed_everything
from ckfr_helpers.training.config import TrainConfig
from ckfr_helpers.training.evaluation import Predictions, predict, score
from ckfr_helpers.training.loop import fit
from ckfr_helpers.training.run import make_fabric, make_task


@dataclass
class TailRun:
    """One trained tail, on the CPU, with the weights of ``best_epoch`` (from 1); a dict an epoch its history.

    ``seen`` and ``scores`` hold for "val" and "test" what it says of that split, and `score` of that.
    """

    tail: Classifier
    history: list[dict[str, float]]
    best_epoch: int
    seen: dict[str, Predictions]
    scores: dict[str, dict[str, float]]


def cache_split(
    source: ImageSource,
    model: Classifier,
    stage: int,
    size: int,
    *,
    batch_size: int = 16,  # larger ones take a third longer on a CPU, moving memory about
    workers: int | None = None,
    progress: bool = True,
    keys: Sequence[str] = ("label",),
) -> CachedFeatures:
    """Every example, resized to ``size`` pixels and normalised, through the first ``stage`` stages.

    Of ``keys``, entries of its target, what is a tensor of one shape for all stays beside the label.
    """
    trunk, _ = model.split(stage)
    transform = make_transform("light", train=False, size=size, mean=model.mean, std=model.std)
    workers = min(2, num_workers()) if workers is None else workers
    loader = make_loader(
        TransformedView(source, transform, keys=keys), batch_size, train=False, workers=workers
    )
    device = next(model.parameters()).device.type
    return cache_features(trunk, loader, device=device, progress=progress)


def new_tail(model_name: str, stage: int, num_classes: int, seed: int) -> Classifier:
    """A pretrained tail with a new classifier that depends on the seed alone."""
    seed_everything(seed)
    _, tail = build_model(model_name, num_classes).split(stage)
    return copy.deepcopy(tail)


def train_tail(features: Mapping[str, CachedFeatures], hierarchy: Hierarchy, config: TrainConfig) -> TailRun:
    """Train one tail on cached features, keep its best validation epoch, score it on val and test.

    ``features`` are those of "train", "val" and "test", from `cache_split` with the config's ``model`` and
    ``freeze``; the config's data is not opened.
    """
    assert config.model is not None, "resolve() first"
    tail = new_tail(config.model, config.freeze, len(hierarchy), config.seed)
    fabric = make_fabric(config)
    loaders = {
        split: CachedLoader(features[split], config.batch_size, train=split == "train", seed=config.seed)
        for split in ("train", "val", "test")
    }
    task = make_task(config, hierarchy, tail.embed_dim)
    result = fit(tail, task, loaders["train"], loaders["val"], config, fabric=fabric, progress=False)
    tail.load_state_dict(result.best_weights)
    seen = {split: predict(tail, loaders[split], fabric) for split in ("val", "test")}
    scores = {split: score(seen[split], hierarchy) for split in seen}
    return TailRun(tail.cpu().eval(), result.history, result.best_epoch + 1, seen, scores)


def untrained_latents(
    features: CachedFeatures, num_classes: int, *, model_name: str, stage: int, seed: int = 0
) -> np.ndarray:
    """(N, D) latents before any training: what the ImageNet weights alone say."""
    tail = new_tail(model_name, stage, num_classes, seed)
    return predict(tail, CachedLoader(features, 256, train=False)).latents

"""Baseline and CKFR side by side on whatever is there: what notebook 03 runs.

With a GPU and mini-ImageNet the whole network is fine-tuned. Anywhere else a tail is trained on the embedded
photos' cached trunk outputs, at two strengths of background bias. The two methods differ in alpha alone.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ckfr_helpers import datasets
from ckfr_helpers.datasets.base import ImageSource
from ckfr_helpers.datasets.scenes.photos import class_ids
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.models import CachedFeatures, Classifier, build_model
from ckfr_helpers.runtime import CkfrError, mode, pick_device
from ckfr_helpers.training.config import TrainConfig
from ckfr_helpers.training.evaluation import Predictions, predict
from ckfr_helpers.training.run import make_fabric, make_model, open_split, split_loader, train
from ckfr_helpers.training.tails import cache_split, train_tail, untrained_latents

LITE, STAGE, SIZE = "efficientnet_lite0", 8, 160


@dataclass(frozen=True)
class Lesson:
    """What is trained here: ``data`` is "mini-imagenet" or "photos", of these so many ``scenes`` a class.

    ``conditions`` are names of the comparisons, e.g. "bias 0"; ``alpha`` is CKFR's weight.
    """

    data: str
    conditions: tuple[str, ...]
    alpha: float
    seed: int = 0
    epochs: int = 4
    scenes: int = 0

    def __str__(self) -> str:
        what = "mini-ImageNet, fine-tuning the whole network on the GPU"
        if self.data == "photos":
            where = " and ".join(self.conditions)
            what = f"the embedded photos: {self.scenes} training scenes a class at {where}"
        recipe = f"{self.epochs} epochs, alpha {self.alpha:g} against 0, seed {self.seed} ({mode()} run)"
        return f"{what}; {recipe}"


class Outcome(NamedTuple):
    """One trained model: a row an epoch, the epoch (from 1) that validates best, what it says of test."""

    history: list[dict[str, float]]
    best_epoch: int
    test: Predictions
    scores: dict[str, float]


class Pair(NamedTuple):
    """Both methods under one condition; ``before``: (N, D) test latents before any training."""

    condition: str
    hierarchy: Hierarchy
    baseline: Outcome
    ckfr: Outcome
    before: np.ndarray


def choose_lesson(alpha: float = 20.0) -> Lesson:
    """mini-ImageNet where there is a GPU and the data set, else the photos; ``CKFR_MODE=full`` for longer."""
    full = mode() == "full"
    if pick_device() == "cuda":
        with suppress(CkfrError):  # where it is not, the photos are
            datasets.open_source("mini-imagenet", "train")
            return Lesson("mini-imagenet", ("mini-ImageNet",), alpha, epochs=30 if full else 3)
    epochs, scenes = (6, 100) if full else (4, 20)
    return Lesson("photos", ("bias 0", "bias 0.9"), alpha, epochs=epochs, scenes=scenes)


def run_lesson(lesson: Lesson) -> list[Pair]:
    """Train both methods under every condition, and print a line about each network."""
    if lesson.data == "photos":
        return _photos(lesson)
    own: dict[str, Any] = {"alpha": lesson.alpha, "epochs": lesson.epochs, "seed": lesson.seed}
    config = TrainConfig(data="mini-imagenet", model="wide_resnet50_2", precision="bf16-mixed", **own)
    return [finetune_pair(config, condition) for condition in lesson.conditions]


def _photos(lesson: Lesson) -> list[Pair]:
    model = build_model(LITE, 1)
    classes = len(class_ids())

    def cached(split: str, each: int, bias: float = 0.0) -> tuple[ImageSource, CachedFeatures]:
        source = datasets.open_source(
            "photos", split, size=SIZE, scenes=classes * each, seed=lesson.seed, background_bias=bias
        )
        return source, cache_split(source, model, STAGE, SIZE, progress=False)

    # The bias is in the training split alone, so one validation and one test split serve every condition.
    (_, val), (test, tested) = cached("val", lesson.scenes // 2), cached("test", lesson.scenes)
    before = untrained_latents(tested, classes, model_name=LITE, stage=STAGE, seed=lesson.seed)
    config = TrainConfig(
        model=LITE, freeze=STAGE, alpha=lesson.alpha, epochs=lesson.epochs, lr=1e-3, seed=lesson.seed
    )
    pairs = []
    for condition in lesson.conditions:
        _, trained = cached("train", lesson.scenes, float(condition.split()[1]))
        features = {"train": trained, "val": val, "test": tested}

        def trained_on(asked: TrainConfig, features: dict[str, CachedFeatures] = features) -> Outcome:
            run = train_tail(features, test.hierarchy, asked)
            return Outcome(run.history, run.best_epoch, run.seen["test"], run.scores["test"])

        pairs.append(Pair(condition, test.hierarchy, *_both(condition, config, trained_on), before))
    return pairs


def finetune_pair(config: TrainConfig, condition: str) -> Pair:
    """Fine-tune a whole network twice, with alpha 0 and with the config's, and score both on test."""
    source, fabric = open_split(config, "test"), make_fabric(config)

    def said(model: Classifier) -> Predictions:
        loader = split_loader(config, source, model, fabric, train=False)
        return predict(model.to(fabric.device), loader, fabric)

    def trained(asked: TrainConfig) -> Outcome:
        run = train(asked)
        return Outcome(run.history, run.best_epoch, said(run.model), run.scores)

    before = said(make_model(config, len(source.classes))).latents
    return Pair(condition, source.hierarchy, *_both(condition, config, trained), before)


def _both(at: str, config: TrainConfig, fit: Callable[[TrainConfig], Outcome]) -> tuple[Outcome, Outcome]:
    outcomes = []
    for name, asked in (("baseline", config.baseline()), ("CKFR", config)):
        outcomes.append(one := fit(asked))
        said = f"top-1 {one.scores['top1']:.3f} on test, best epoch {one.best_epoch}"
        print(f"{at}, {name}: {said}", flush=True)
    return outcomes[0], outcomes[1]

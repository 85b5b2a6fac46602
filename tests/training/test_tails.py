"""Tails on cached features and the lesson of notebook 03, on pictures made here and a network of toy size."""

import dataclasses
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from ckfr_helpers import datasets
from ckfr_helpers.datasets.base import Example, ImageSource, make_example
from ckfr_helpers.datasets.loading import CachedLoader
from ckfr_helpers.hierarchy import Hierarchy
from ckfr_helpers.models import Classifier
from ckfr_helpers.runtime import CkfrError
from ckfr_helpers.teaching import lesson
from ckfr_helpers.training import TrainConfig, cache_split, predict, tails, train_tail
from ckfr_helpers.training.tails import new_tail, untrained_latents

TREE = Hierarchy.from_nested({"thing": {"warm": ["red", "orange"], "cold": ["blue", "green"]}})
COLOURS = np.array([(220, 30, 30), (230, 140, 20), (30, 40, 220), (30, 180, 60)])
STAGE, SIDE = 1, 8


class Colours(ImageSource):
    """Patches of one colour with noise; what is asked for beyond the split is written down."""

    asked: ClassVar[list[dict]] = []

    def __init__(self, split: str, per_class: int = 8, **options) -> None:
        self.name, self.split, self.hierarchy = "colours", split, TREE
        self.labels = np.arange(4 * per_class) % 4
        self._seed = {"train": 0, "val": 1, "test": 2}[split]
        self.asked.append({"split": split, **options})

    def __getitem__(self, index: int) -> Example:
        label = int(self.labels[index])
        generator = np.random.default_rng((self._seed, index))
        noise = generator.integers(-40, 40, (3, 12, 12))
        picture = (COLOURS[TREE.names.index(self.classes[label])][:, None, None] + noise).clip(0, 255)
        return make_example(torch.as_tensor(picture, dtype=torch.uint8), label)


def small(name: str, num_classes: int, pretrained: bool = True, weights_path=None) -> Classifier:
    """Stands for `build_model`: trunk and latent have "pretrained" weights, the classifier is the seed's."""
    state = torch.get_rng_state()
    torch.manual_seed(99)
    stages = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU()), nn.Sequential(nn.Conv2d(6, 8, 3), nn.Tanh())
    )
    torch.set_rng_state(state)
    neck = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
    return Classifier(stages, neck, nn.Linear(8, num_classes), name=name, gap_linear=True)


@pytest.fixture(autouse=True)
def _small_world(monkeypatch):
    monkeypatch.setattr(tails, "build_model", small)
    monkeypatch.setattr(lesson, "build_model", small)
    Colours.asked = []


@pytest.fixture
def features():
    model = small("any", 1)
    return {
        split: cache_split(Colours(split), model, STAGE, SIDE, batch_size=5, progress=False)
        for split in ("train", "val", "test")
    }


def fast(**changes) -> TrainConfig:
    base = {"model": "any", "freeze": STAGE, "alpha": 0.0, "epochs": 8, "lr": 1e-2, "batch_size": 8}
    return TrainConfig(**{**base, "accelerator": "cpu", **changes})


def test_cached_features_are_the_trunks_outputs_of_every_example(features):
    """Resized, normalised as the weights expect, in the source's order, whatever the batches."""
    from torchvision.transforms.v2 import functional as F

    source, model = Colours("val"), small("any", 1)
    cached = features["val"]
    assert len(cached) == len(source) == 32
    assert cached.indices.tolist() == list(range(32))
    assert cached.labels.tolist() == source.labels.tolist()
    for index in (0, 17, 31):
        picture = F.resize(source[index][0], [SIDE, SIDE], antialias=True)
        with torch.no_grad():
            expected = model.stages[0](model.normalize(picture)[None])[0]
        torch.testing.assert_close(cached.features[index].float(), expected, atol=5e-3, rtol=2e-3)


def test_a_new_tail_is_pretrained_but_for_a_classifier_of_the_seeds():
    first, again, other = (new_tail("any", STAGE, 4, seed) for seed in (0, 0, 1))
    assert len(first.stages) == 1
    pretrained = small("any", 4).stages[1].state_dict()
    for tail in (first, again, other):
        assert all(torch.equal(tail.stages[0].state_dict()[k], v) for k, v in pretrained.items())
    assert torch.equal(first.classifier.weight, again.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)


def test_training_one_tail_leaves_the_next_as_new(features):
    """Tails are copies: what one run learns is not where the next begins."""
    before = untrained_latents(features["test"], 4, model_name="any", stage=STAGE)
    train_tail(features, TREE, fast(epochs=1))
    again = untrained_latents(features["test"], 4, model_name="any", stage=STAGE)
    np.testing.assert_array_equal(again, before)
    assert before.shape == (32, 8)


def test_a_tail_learns_and_its_record_agrees_with_itself(features):
    source = Colours("test")
    run = train_tail(features, TREE, fast())
    accuracies = [row["val_top1"] for row in run.history]
    assert len(accuracies) == 8
    assert run.best_epoch == accuracies.index(max(accuracies)) + 1
    assert run.scores["val"]["top1"] == pytest.approx(
        max(accuracies)
    )  # the best epoch's weights, not the last's
    assert run.scores["test"]["top1"] > 0.6
    assert run.scores["test"]["top1"] == (run.seen["test"].logits.argmax(1) == source.labels).mean()
    again = predict(run.tail, CachedLoader(features["test"], 8, train=False))
    np.testing.assert_allclose(again.logits, run.seen["test"].logits, rtol=1e-5, atol=1e-6)


def test_alpha_draws_latents_to_the_tree_from_the_same_start(features):
    settings = fast(alpha=20.0)
    assert settings.baseline() == dataclasses.replace(settings, alpha=0.0)
    ckfr, baseline = (train_tail(features, TREE, asked) for asked in (settings, settings.baseline()))
    assert baseline.history[0]["train_metric"] == 0 < ckfr.history[0]["train_metric"]
    assert ckfr.scores["test"]["correlation"] > baseline.scores["test"]["correlation"]


# -- the lesson ----------------------------------------------------------------------------------------------


def test_the_lesson_is_the_photos_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setenv("CKFR_DEVICE", "cpu")
    monkeypatch.setenv("CKFR_MODE", "quick")
    quick = lesson.choose_lesson(alpha=7.0)
    monkeypatch.setenv("CKFR_MODE", "full")
    full = lesson.choose_lesson(alpha=7.0)
    for chosen in (quick, full):
        assert (chosen.data, chosen.conditions, chosen.alpha) == ("photos", ("bias 0", "bias 0.9"), 7.0)
    assert full.epochs > quick.epochs
    assert full.scenes > quick.scenes
    assert "alpha 7 against 0" in str(full)
    assert "(full run)" in str(full)


@pytest.mark.parametrize("there", [True, False])
def test_with_a_gpu_the_lesson_is_mini_imagenet_if_it_is_there(monkeypatch, there):
    monkeypatch.setenv("CKFR_DEVICE", "cuda")
    monkeypatch.setenv("CKFR_MODE", "quick")

    def open_source(name, split, **options):
        assert name == "mini-imagenet"
        if not there:
            raise CkfrError("It is not there.")
        return Colours(split)

    monkeypatch.setattr(datasets, "open_source", open_source)
    chosen = lesson.choose_lesson()
    assert chosen.data == ("mini-imagenet" if there else "photos")
    assert str(chosen).startswith("mini-ImageNet" if there else "the embedded photos")


def test_the_lesson_trains_both_methods_under_each_bias(monkeypatch, capsys):
    """Bias touches the training split alone; both methods share the untrained start; what is said is true."""
    monkeypatch.setattr(lesson, "STAGE", STAGE)
    monkeypatch.setattr(lesson, "SIZE", SIDE)
    monkeypatch.setattr(lesson, "class_ids", lambda: TREE.classes)

    def open_source(name, split, scenes, **options):
        return Colours(split, per_class=scenes // 4, scenes=scenes, **options)

    monkeypatch.setattr(datasets, "open_source", open_source)
    asked = lesson.Lesson("photos", ("bias 0", "bias 0.9"), alpha=20.0, epochs=2, scenes=10, seed=3)
    pairs = lesson.run_lesson(asked)
    said = capsys.readouterr().out
    assert [pair.condition for pair in pairs] == ["bias 0", "bias 0.9"]
    trained = [options for options in Colours.asked if options["split"] == "train"]
    assert [options["background_bias"] for options in trained] == [0.0, 0.9]
    assert {options["background_bias"] for options in Colours.asked if options["split"] != "train"} == {0.0}
    assert {options["seed"] for options in Colours.asked} == {3}
    assert {options["split"]: options["scenes"] for options in Colours.asked} == {
        "train": 40,
        "val": 20,
        "test": 40,
    }
    for pair in pairs:
        assert pair.hierarchy.classes == TREE.classes
        assert len(pair.before) == 40
        assert pair.baseline.history[0]["train_metric"] == 0 < pair.ckfr.history[0]["train_metric"]
        for name, outcome in (("baseline", pair.baseline), ("CKFR", pair.ckfr)):
            top1 = outcome.scores["top1"]
            line = f"{pair.condition}, {name}: top-1 {top1:.3f} on test, best epoch {outcome.best_epoch}"
            assert line in said
            assert len(outcome.history) == 2
    np.testing.assert_array_equal(pairs[0].before, pairs[1].before)


def test_fine_tuning_a_pair_differs_in_alpha_alone(monkeypatch, tmp_path):
    from ckfr_helpers.training import run as runs

    monkeypatch.setenv("CKFR_RUNS", str(tmp_path))
    monkeypatch.setattr(runs, "build_model", small)
    monkeypatch.setattr(runs, "check_model_name", lambda name: None)
    monkeypatch.setattr(
        datasets, "open_source", lambda name, split, root=None, **options: Colours(split, **options)
    )
    config = TrainConfig(
        data="colours", model="any", size=SIDE, transform="light", epochs=2, lr=1e-2, batch_size=8,
        workers=0, accelerator="cpu", alpha=20.0,
    )  # fmt: skip
    pair = lesson.finetune_pair(config, "here")
    assert pair.before.shape == (32, 8)
    assert pair.baseline.history[0]["train_metric"] == 0 < pair.ckfr.history[0]["train_metric"]
    folders = sorted(path.name for path in tmp_path.iterdir())
    assert len(folders) == 2
    for outcome in (pair.baseline, pair.ckfr):
        assert outcome.scores["top1"] == (outcome.test.logits.argmax(1) == outcome.test.labels).mean()
        accuracies = [row["val_top1"] for row in outcome.history]
        assert outcome.best_epoch == accuracies.index(max(accuracies)) + 1

"""Tails on cached features, with a network of toy size."""

import dataclasses

import numpy as np
import pytest
import torch
from flat_colours import TREE, FlatColours
from small_network import small_network

from ckfr_helpers.datasets.loading import CachedLoader
from ckfr_helpers.training import TrainConfig, cache_split, predict, tails, train_tail
from ckfr_helpers.training.tails import new_tail, untrained_latents

STAGE, SIDE = 1, 8


def colours(split: str) -> FlatColours:
    return FlatColours(split, size=12, noise=40)


@pytest.fixture(autouse=True)
def _small_network(monkeypatch):
    monkeypatch.setattr(tails, "build_model", small_network)


@pytest.fixture
def features():
    model = small_network("any", 1)
    return {
        split: cache_split(colours(split), model, STAGE, SIDE, batch_size=5, progress=False)
        for split in ("train", "val", "test")
    }


def fast(**changes) -> TrainConfig:
    base = {"model": "any", "freeze": STAGE, "alpha": 0.0, "epochs": 8, "lr": 1e-2, "batch_size": 8}
    return TrainConfig(**{**base, "accelerator": "cpu", **changes})


def test_cached_features_are_the_trunks_outputs_of_every_example(features):
    """Resized, normalised as the weights expect, in the source's order, whatever the batches."""
    from torchvision.transforms.v2 import functional as F

    source, model = colours("val"), small_network("any", 1)
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
    pretrained = small_network("any", 4).stages[1].state_dict()
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
    source = colours("test")
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

"""The lesson of notebook 03: what is chosen, and that its two networks differ in alpha alone."""

import numpy as np
import pytest
from flat_colours import TREE, FlatColours
from small_network import small_network

from ckfr_helpers import datasets
from ckfr_helpers.runtime import CkfrError
from ckfr_helpers.teaching import lesson
from ckfr_helpers.training import TrainConfig, tails
from ckfr_helpers.training import run as runs


@pytest.fixture(autouse=True)
def _small_world(monkeypatch):
    for module in (lesson, tails, runs):
        monkeypatch.setattr(module, "build_model", small_network)


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
        return FlatColours(split)

    monkeypatch.setattr(datasets, "open_source", open_source)
    chosen = lesson.choose_lesson()
    assert chosen.data == ("mini-imagenet" if there else "photos")
    assert str(chosen).startswith("mini-ImageNet" if there else "the embedded photos")


def test_the_lesson_trains_both_methods_under_each_bias(monkeypatch, capsys):
    """Bias touches the training split alone; both methods share the untrained start; what is said is true."""
    asked: list[dict] = []
    monkeypatch.setattr(lesson, "STAGE", 1)
    monkeypatch.setattr(lesson, "SIZE", 8)
    monkeypatch.setattr(lesson, "class_ids", lambda: TREE.classes)

    def open_source(name, split, scenes, size, **options):
        asked.append({"split": split, "scenes": scenes, **options})
        return FlatColours(split, size=size, per_class=scenes // 4)

    monkeypatch.setattr(datasets, "open_source", open_source)
    wanted = lesson.Lesson("photos", ("bias 0", "bias 0.9"), alpha=20.0, epochs=2, scenes=10, seed=3)
    pairs = lesson.run_lesson(wanted)
    said = capsys.readouterr().out
    assert [pair.condition for pair in pairs] == ["bias 0", "bias 0.9"]
    assert [one["background_bias"] for one in asked if one["split"] == "train"] == [0.0, 0.9]
    assert {one["background_bias"] for one in asked if one["split"] != "train"} == {0.0}
    assert {one["seed"] for one in asked} == {3}
    assert {one["split"]: one["scenes"] for one in asked} == {"train": 40, "val": 20, "test": 40}
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
    monkeypatch.setenv("CKFR_RUNS", str(tmp_path))
    monkeypatch.setattr(runs, "check_model_name", lambda name: None)
    config = TrainConfig(
        data="flat-colours", model="any", size=8, transform="light", epochs=2, lr=1e-2, batch_size=8,
        workers=0, accelerator="cpu", alpha=20.0,
    )  # fmt: skip
    pair = lesson.finetune_pair(config, "here")
    assert pair.before.shape == (32, 8)
    assert pair.baseline.history[0]["train_metric"] == 0 < pair.ckfr.history[0]["train_metric"]
    assert len(list(tmp_path.iterdir())) == 2
    for outcome in (pair.baseline, pair.ckfr):
        assert outcome.scores["top1"] == (outcome.test.logits.argmax(1) == outcome.test.labels).mean()
        accuracies = [row["val_top1"] for row in outcome.history]
        assert outcome.best_epoch == accuracies.index(max(accuracies)) + 1

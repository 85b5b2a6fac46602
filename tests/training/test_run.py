"""The loop and its checkpoints, on pictures made here: learning, repeatability, resuming, refusing."""

import csv
import dataclasses
import json
import os
import resource
import signal

import numpy as np
import pytest
import torch
from flat_colours import TREE, FlatColours
from torch import nn

from ckfr_helpers import __main__ as cli
from ckfr_helpers import datasets, training
from ckfr_helpers.datasets.loading import CachedLoader
from ckfr_helpers.hierarchy import Hierarchy
from ckfr_helpers.losses import make_loss
from ckfr_helpers.models import CachedFeatures, Classifier, cache_features
from ckfr_helpers.runtime import CkfrError
from ckfr_helpers.training import (
    ClassificationTask,
    Interrupted,
    TrainConfig,
    evaluate,
    fit,
    load_run,
    predict,
    score,
    train,
)
from ckfr_helpers.training import run as run_module
from ckfr_helpers.training.checkpoints import load_checkpoint, save_checkpoint
from ckfr_helpers.training.run import make_model, split_loader


def tiny(name: str, num_classes: int, pretrained: bool = True, weights_path=None) -> Classifier:
    """Stands for `build_model`: dropout and batch norm, but checkpoints of a few kilobytes."""
    stages = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU()),
        nn.Sequential(nn.Conv2d(8, 16, 3, stride=2), nn.ReLU()),
    )
    neck = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
    return Classifier(stages, neck, nn.Linear(16, num_classes), name=name, dropout=0.1)


@pytest.fixture(autouse=True)
def _small_world(monkeypatch):
    monkeypatch.setattr(run_module, "build_model", tiny)


def settings(**changes) -> TrainConfig:
    base = {
        "data": "flat-colours", "data_options": {"per_class": 24}, "model": "resnet18", "pretrained": False,
        "size": 32, "transform": "light",
        "epochs": 2, "lr": 1e-2, "batch_size": 24, "workers": 0, "accelerator": "cpu",
    }  # fmt: skip
    return TrainConfig(**{**base, **changes})


def without_times(history):
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in history]


def weights_equal(a: nn.Module, b: nn.Module) -> bool:
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_a_run_learns_and_leaves_a_complete_folder(tmp_path):
    run = train(settings(epochs=3, batch_size=12, data_options={"per_class": 48}), tmp_path, progress=False)
    assert run.scores["top1"] > 0.6
    assert {"crm_top1", "mistake_severity", "hdist@1", "cross_entropy"} <= set(run.scores)
    rows = list(csv.DictReader((tmp_path / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[0]["train_metric"]) > 0
    assert float(rows[-1]["train_cross_entropy"]) < float(rows[0]["train_cross_entropy"])
    assert json.loads((tmp_path / "config.json").read_text()) == dataclasses.asdict(run.config)
    assert json.loads((tmp_path / "scores.json").read_text())["scores"]["top1"] == run.scores["top1"]
    again = load_run(tmp_path)
    assert weights_equal(again.model, run.model)
    accuracies = [row["val_top1"] for row in run.history]
    assert again.best_epoch == accuracies.index(max(accuracies)) + 1
    assert evaluate(tmp_path, "val", progress=False)["top1"] == pytest.approx(max(accuracies))
    assert evaluate(tmp_path, "test", progress=False) == pytest.approx(run.scores, rel=1e-5, nan_ok=True)


def test_scores_have_one_unit_whatever_measure_a_run_was_trained_in(tmp_path):
    """With alpha 0 the measure has no part in training, so nor may it have one in the scores."""
    runs = [
        train(settings(alpha=0.0, epochs=1, measure=measure), tmp_path / measure, progress=False)
        for measure in ("path", "lca_height", "wu_palmer")
    ]
    assert runs[0].scores == pytest.approx(runs[1].scores, nan_ok=True)
    assert runs[0].scores == pytest.approx(runs[2].scores, nan_ok=True)
    assert evaluate(tmp_path / "wu_palmer", progress=False) == pytest.approx(runs[0].scores, rel=1e-5)


def test_the_metric_term_pulls_latents_towards_the_tree():
    """A tree at odds with the colours (red with blue, orange with green): only the loss can teach it."""
    other = Hierarchy.from_nested({"thing": {"first": ["red", "blue"], "second": ["orange", "green"]}})
    other = other.subset(TREE.classes)
    found = {}
    for alpha in (0.0, 5.0):
        config = settings(alpha=alpha, epochs=60, lr=3e-3)
        torch.manual_seed(0)
        model = TwoLayers()
        data = {split: cached(split) for split in ("train", "val")}
        loaders = CachedLoader(data["train"], 24, True), CachedLoader(data["val"], 24, False)
        objective = make_loss("ckfr", other, alpha=alpha, ell=1.2, knowledge_scale=1.0)
        fit(model, ClassificationTask(objective, other), *loaders, config, progress=False)
        seen = predict(model, CachedLoader(data["val"], 24, False))
        found[alpha] = score(seen, other)
    assert found[0.0]["correlation"] < 0 < 0.9 < found[5.0]["correlation"]
    assert found[5.0]["top1"] > 0.6
    # What it gets wrong it takes for its new neighbour, where the baseline takes it for its likeness.
    assert found[5.0]["mistake_severity"] < 1.5  # any of the three others alike would be 5 / 3
    baseline = found[0.0]["mistake_severity"]  # not defined where the baseline makes no mistake
    assert np.isnan(baseline) or found[5.0]["mistake_severity"] < baseline


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 8))
        self.classifier = nn.Linear(8, 4)

    def embed(self, x):
        return self.body(x)

    def classify(self, z):
        return self.classifier(z)


def cached(split: str) -> CachedFeatures:
    source = FlatColours(split, per_class=24)
    means = torch.stack([source[i][0].float().mean((1, 2)) / 255 for i in range(len(source))])
    return CachedFeatures(means, torch.as_tensor(source.labels), torch.arange(len(source)))


def test_two_equal_runs_are_equal_to_the_bit(tmp_path):
    first = train(settings(), tmp_path / "a", progress=False)
    second = train(settings(workers=1), tmp_path / "b", progress=False)
    assert without_times(first.history) == without_times(second.history)
    assert weights_equal(first.model, second.model)
    assert first.scores == pytest.approx(second.scores, rel=0, abs=0, nan_ok=True)


@pytest.mark.parametrize("stop_at", [1, 4, 6])
def test_a_run_stopped_at_any_step_ends_as_if_undisturbed(tmp_path, stop_at, monkeypatch):
    """A real signal to this process after ``stop_at`` of 8 steps; dropout makes generator state matter."""
    config = settings()
    undisturbed = train(config, tmp_path / "whole", progress=False)
    steps = {"done": 0}
    losses = ClassificationTask.losses

    def counted(*arguments):
        steps["done"] += 1
        if steps["done"] == stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        return losses(*arguments)

    monkeypatch.setattr(ClassificationTask, "losses", counted)
    with pytest.raises(Interrupted, match="Stopped in epoch"):
        train(config, tmp_path / "cut", progress=False)
    monkeypatch.setattr(ClassificationTask, "losses", losses)
    resumed = train(config, tmp_path / "cut", progress=False)
    assert without_times(resumed.history) == without_times(undisturbed.history)
    assert weights_equal(resumed.model, undisturbed.model)


def test_a_finished_run_can_be_given_more_epochs(tmp_path):
    train(settings(epochs=1), tmp_path / "short", progress=False)
    longer = train(settings(epochs=2), tmp_path / "short", progress=False)
    whole = train(settings(epochs=2), tmp_path / "whole", progress=False)
    assert without_times(longer.history) == without_times(whole.history)


def test_a_longer_run_is_not_told_as_a_shorter_one(tmp_path):
    train(settings(epochs=3), tmp_path / "run", progress=False)
    kept = (tmp_path / "run" / "config.json").read_text()
    with pytest.raises(CkfrError, match="has 3 epochs behind it already; expected at most the 2"):
        train(settings(epochs=2), tmp_path / "run", progress=False)
    assert (tmp_path / "run" / "config.json").read_text() == kept


def test_another_configuration_is_refused_in_one_sentence(tmp_path):
    train(settings(epochs=1), tmp_path, progress=False)
    with pytest.raises(CkfrError, match=r"other settings \(alpha is 5.0 here and 20.0 there\)") as caught:
        train(settings(epochs=1, alpha=5.0), tmp_path, progress=False)
    assert "\n" not in str(caught.value)
    assert json.loads((tmp_path / "config.json").read_text())["alpha"] == 20.0


def test_other_settings_are_refused_before_data_and_weights_are_touched(tmp_path, monkeypatch):
    train(settings(epochs=1), tmp_path, progress=False)
    for room, name in ((datasets, "open_source"), (run_module, "build_model")):
        monkeypatch.setattr(room, name, lambda *arguments, **options: pytest.fail("too late"))
    with pytest.raises(CkfrError, match="holds a run with other settings"):
        train(settings(epochs=1, seed=7), tmp_path, progress=False)


def test_a_run_opens_anywhere_and_without_its_data(tmp_path, monkeypatch):
    """As if trained on GPUs, in half precision, compiled, in several processes, somewhere else."""
    run = train(settings(epochs=1), tmp_path, progress=False)
    best = load_checkpoint(tmp_path / "best.pt")
    there = {"accelerator": "cuda", "precision": "16-mixed", "compile": True, "devices": 4, "root": "/there"}
    save_checkpoint(tmp_path / "best.pt", {**best, "config": best["config"] | there})
    found = evaluate(tmp_path, accelerator="cpu", root=tmp_path, progress=False)
    assert found == pytest.approx(run.scores, rel=1e-5, nan_ok=True)

    def closed(*arguments, **options):
        raise CkfrError("The data is not here.")

    monkeypatch.setattr(datasets, "open_source", closed)
    again = load_run(tmp_path)
    assert again.hierarchy.classes == TREE.classes
    assert again.hierarchy.to_pairs() == TREE.to_pairs()
    assert (again.best_epoch, len(again.history)) == (1, 1)
    assert weights_equal(again.model, run.model)


def test_data_of_other_classes_is_refused(tmp_path, monkeypatch):
    train(settings(epochs=1), tmp_path, progress=False)

    class Renamed(FlatColours):
        hierarchy = Hierarchy.from_nested({"thing": {"warm": ["red", "pink"], "cold": ["blue", "green"]}})

    monkeypatch.setattr(datasets, "open_source", lambda name, split, root=None, **options: Renamed(split))
    for work in (
        lambda: evaluate(tmp_path, progress=False),
        lambda: train(settings(), tmp_path, progress=False),
    ):
        with pytest.raises(CkfrError, match="label 1 is 'orange' there and 'pink' in this data"):
            work()


@pytest.mark.parametrize(
    ("file", "content"), [("scores.json", "{"), ("scores.json", "[]"), ("history.csv", "a\nb")]
)
def test_a_damaged_small_file_names_itself(tmp_path, file, content, capsys):
    train(settings(epochs=1), tmp_path, progress=False)
    (tmp_path / file).write_text(content)
    assert cli.main(["evaluate", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert file in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("damage", ["cut", "foreign", "pickle"])
def test_a_damaged_checkpoint_names_itself(tmp_path, damage):
    train(settings(epochs=1), tmp_path, progress=False)
    last = tmp_path / "last.pt"
    if damage == "cut":
        last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    elif damage == "foreign":
        torch.save({"weights": torch.zeros(3)}, last)
    else:
        last.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(CkfrError, match=r"last\.pt") as caught:
        train(settings(epochs=2), tmp_path, progress=False)
    assert "\n" not in str(caught.value)


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path):
    """The operating system itself refuses to write on: here at a largest size for any file."""
    train(settings(epochs=1), tmp_path, progress=False)
    before = (tmp_path / "last.pt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**12, limits[1]))
    try:
        with pytest.raises(
            CkfrError, match=r"(best|last)\.pt cannot be written .*; what was there before"
        ) as caught:
            train(settings(epochs=2), tmp_path, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "last.pt").read_bytes() == before
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_diverging_run_says_so(tmp_path):
    with pytest.raises(CkfrError, match=r"lower|learning rate"):
        train(settings(lr=1e30, epochs=5), tmp_path, progress=False)


def test_cached_trunk_and_tail_predict_as_the_whole_network():
    config = settings(freeze=1)
    model = make_model(config, 4)
    loader = split_loader(config, FlatColours("val"), model)
    trunk, tail = model.split(1)
    features = cache_features(trunk, loader, dtype=torch.float32, progress=False)
    whole = predict(model, loader)
    parts = predict(tail, CachedLoader(features, 10, train=False))
    np.testing.assert_allclose(parts.logits, whole.logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(parts.indices, whole.indices)


def test_scores_agree_with_scikit_learn_and_crm_by_hand():
    from sklearn.metrics import accuracy_score, log_loss

    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(60, 4)), np.arange(60) % 4
    from ckfr_helpers.training import Predictions

    distances = TREE.distances("lca_height")
    seen = Predictions(logits.astype(np.float32), generator.normal(size=(60, 5)), labels, np.arange(60))
    scores = score(seen, TREE)
    probabilities = np.exp(seen.logits) / np.exp(seen.logits).sum(1, keepdims=True)
    assert scores["top1"] == pytest.approx(accuracy_score(labels, logits.argmax(1)))
    assert scores["cross_entropy"] == pytest.approx(log_loss(labels, probabilities), rel=1e-5)
    decided = [
        min(range(4), key=lambda k: sum(distances[k, j] * p[j] for j in range(4))) for p in probabilities
    ]
    assert scores["crm_top1"] == pytest.approx(accuracy_score(labels, decided))
    assert scores["crm_hdist@1"] == pytest.approx(
        np.mean([distances[d, y] for d, y in zip(decided, labels, strict=True)])
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "--data", "nothing"], "no image source 'nothing'"),
        (["train", "--data", "flat-colours", "--alpha", "-1"], "alpha is -1"),
        (["train", "--data", "flat-colours", "--model", "resnet17"], "resnet17"),
        (["train", "--data", "flat-colours", "--option", "scenes"], "NAME=VALUE"),
        (["evaluate", "no-such-folder"], "no checkpoint"),
        (["train", "--data", "flat-colours", "--epochs", "2.5"], "epochs is 2.5; expected a whole number"),
        (
            ["train", "--data", "flat-colours", "--precision", "16-mixed", "--accelerator", "cpu"],
            "16-mixed needs a GPU",
        ),
        (["train", "--data", "flat-colours", "--out", "/dev/null"], "/dev/null cannot be written"),
        (["train", "--data", "photos", "--option", "nosuch=3"], "photos has no option 'nosuch'"),
        (
            ["train", "--data", "flat-colours", "--batch-size", "4", "--accumulate", "5"],
            "each process has 4 images a step",
        ),
        (
            ["train", "--data", "flat-colours", "--per-class", "0"],
            "per_class has train: 0; expected train, val, test",
        ),
        (["train", "--data", "flat-colours", "--per-class", "999"], "examples in train, not 999"),
        (
            ["train", "--data", "flat-colours", "--method", "hxe", "--alpha", "2"],
            "expected --method-option alpha=",
        ),
        (["fetch", "nothing"], "no data set 'nothing'"),
    ],
)
def test_the_command_line_answers_wrong_input_with_one_sentence(arguments, sentence, capsys, tmp_path):
    extra = ["--out", str(tmp_path / "run")] if arguments[0] == "train" and "--out" not in arguments else []
    assert cli.main([*arguments, *extra]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_the_command_line_trains_and_evaluates(tmp_path, capsys):
    flags = [
        "--model",
        "resnet18",
        "--from-scratch",
        "--size",
        "32",
        "--transform",
        "light",
        "--accelerator",
        "cpu",
    ]
    more = [
        "--alpha",
        "20",
        "--ell",
        "1.2",
        "--epochs",
        "1",
        "--lr",
        ".001",
        "--workers",
        "0",
        "--batch-size",
        "24",
    ]
    more += ["--grad-checkpointing", "--channels-last", "--accumulate", "2", "--save-every", "1"]
    where = ["--out", str(tmp_path / "run"), "--quiet"]
    assert (
        cli.main(["train", "--data", "flat-colours", "--option", "per_class=12", *flags, *more, *where]) == 0
    )
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (written["accumulate"], written["grad_checkpointing"], written["save_every"]) == (2, True, 1)
    assert written["lr"] == 0.001
    assert "top1" in capsys.readouterr().out
    assert cli.main(["evaluate", str(tmp_path / "run"), "--json", "--quiet", "--accelerator", "cpu"]) == 0
    scores = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)  # NaN is no JSON
    assert "hdist@1" in scores
    assert "hdist@20" not in scores  # there are four classes
    assert cli.main(["evaluate", str(tmp_path / "run"), "--quiet"]) == 0
    out = capsys.readouterr().out
    assert f"{scores['top1']:.4f}  share of right answers" in out


@pytest.mark.parametrize("command", ["evaluate", "look"])
def test_a_stopped_evaluation_does_not_claim_to_go_on(command, monkeypatch, capsys, tmp_path):
    from ckfr_helpers.attribution import look_run

    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "evaluate", stopped)
    monkeypatch.setattr(look_run, "look_at_run", stopped)
    assert cli.main([command, str(tmp_path)]) == 130
    assert capsys.readouterr().err == "\nckfr: Stopped.\n"

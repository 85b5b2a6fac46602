"""Studies from a file to a table, on pictures made here: what is asked, chosen, kept, reused and told."""

import json
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from study_cards import Card, answer

from ckfr_helpers import __main__ as cli
from ckfr_helpers import datasets
from ckfr_helpers.datasets.scenes.photos import class_ids
from ckfr_helpers.hierarchy import Hierarchy
from ckfr_helpers.runtime import CkfrError
from ckfr_helpers.training.evaluation import Predictions
from ckfr_helpers.training.results import CRM, SCORES, made_by, read_results
from ckfr_helpers.training.run import open_split
from ckfr_helpers.training.study import jobs as study_jobs
from ckfr_helpers.training.study.config import Executor, load_study, study_from
from ckfr_helpers.training.study.executors import compute
from ckfr_helpers.training.study.run import failed, run_study

# Lion, tiger, frying pan, guitar: two near, two far.
COLOURS = {"n02129165": (200, 160, 60), "n02129604": (210, 110, 30), "n03400231": (50, 60, 70),
           "n02676566": (120, 30, 60)}  # fmt: skip


def write_pictures(root: Path, per_class: int = 20) -> Path:
    """Tiny-ImageNet's layout: noisy patches of one colour a class."""
    generator = np.random.default_rng(0)
    root.mkdir(parents=True)
    (root / "wnids.txt").write_text("\n".join(COLOURS))
    (root / "val" / "images").mkdir(parents=True)
    lines = []
    for wnid, colour in COLOURS.items():
        folder = root / "train" / wnid / "images"
        folder.mkdir(parents=True)
        boxes = []
        for number in range(per_class + 4):
            pixels = np.array(colour) + generator.normal(0, 60, (16, 16, 3))
            picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            if number < per_class:
                picture.save(folder / f"{wnid}_{number}.JPEG", "JPEG")
                boxes.append(f"{wnid}_{number}.JPEG\t0\t0\t15\t15")
            else:
                name = f"val_{wnid}{number}.JPEG"
                picture.save(root / "val" / "images" / name, "JPEG")
                lines.append(f"{name}\t{wnid}\t0\t0\t15\t15")
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("\n".join(boxes))
    (root / "val" / "val_annotations.txt").write_text("\n".join(lines))
    return root


def asked(root: Path, **changes) -> dict:
    """Fourteen runs: two seeds of cross-entropy at two rates, of CKFR's grid of four, and of HXE."""
    base = {
        "name": "tiny",
        "datasets": [
            {
                "name": "tiny-imagenet", "label": "patches", "root": str(root), "size": 32,
                "options": {"val_fraction": 0.2}, "per_class": {"train": 10},
            }
        ],
        "stage": 8, "epochs": 1, "batch_size": 8, "seeds": 2, "lr": [1e-3, 1e-5],
        "methods": {"ckfr": {"alpha": [1, 20], "ell": [1.0, 1.5]}, "hxe": {"alpha": 0.2}},
        "executor": {"processes": 1},
    }  # fmt: skip
    return {**base, **changes}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """One whole study in this process, for all tests that only look."""
    root = write_pictures(tmp_path_factory.mktemp("data") / "pictures")
    folder = tmp_path_factory.mktemp("study")
    return root, run_study(study_from(asked(root)), folder, progress=False)


@pytest.fixture
def copied(done, tmp_path):
    """The same study in a folder that a test may spoil."""
    root, made = done
    shutil.copytree(made.folder, tmp_path / "study")
    return root, made, tmp_path / "study"


def test_every_setting_is_run_once_a_seed_and_stands_in_the_table(done):
    _, made = done
    assert not made.failures
    assert failed(made) is None
    table = read_results(made.folder / "results.csv").table
    runs = table.groupby(["method", "parameters", "seed", "split"])
    assert len(runs) == 2 * (2 * 2 + 4 * 2 + 1 * 2)
    assert runs.score.nunique().nunique() == 1
    assert {"top1", "hdist@1", "correlation", "crm_hdist@1"} <= set(table.score) <= set(SCORES)
    for path in made.folder.glob("runs/*.json"):
        record = json.loads(path.read_text())
        own = table[
            (table.method == record["settings"]["method"]) & (table.seed == record["settings"]["seed"])
        ]
        assert own.value.round(5).isin([round(value, 5) for value in record["test"].values()]).any()
        assert table.made_by.isin([made_by(record["environment"])]).all()
    learnt = table[(table.parameters == "lr=0.001") & (table.split == "test") & (table.score == "top1")]
    assert learnt.value.mean() > 0.4  # four classes by colour: it does learn


def test_a_second_start_computes_nothing_and_a_larger_study_only_what_is_new(copied, monkeypatch):
    root, made, folder = copied
    shutil.rmtree(folder / "features")  # not needed for what is finished
    worked = []
    tail = study_jobs._tail
    monkeypatch.setattr(study_jobs, "_tail", lambda job: worked.append(job) or tail(job))
    monkeypatch.setattr(study_jobs, "_cache", lambda job: pytest.fail(f"{job.name} is there"))
    again = run_study(study_from(asked(root)), folder, progress=False)
    assert not worked
    assert again.results.chosen == made.results.chosen
    assert (folder / "results.csv").read_bytes() == (made.folder / "results.csv").read_bytes()
    shutil.copytree(made.folder / "features", folder / "features")
    broken, other = sorted(folder.glob("runs/*hxe*.json"))
    broken.write_text(broken.read_text()[:100])  # cut short, as by a full disk
    foreign = json.loads(other.read_text())
    foreign["settings"]["epochs"] = 9  # belongs to other settings
    other.write_text(json.dumps(foreign))
    run_study(study_from(asked(root)), folder, progress=False)
    assert sorted((job.method, job.seed) for job in worked) == [("hxe", 0), ("hxe", 1)]
    worked.clear()
    methods = {**asked(root)["methods"], "soft-labels": {"beta": 5}}
    larger = run_study(study_from(asked(root, methods=methods)), folder, progress=False)
    assert [(job.method, job.seed) for job in worked] == [("soft-labels", 0), ("soft-labels", 1)]
    assert "soft-labels" in larger.results.methods("patches")


def test_runs_repeat_exactly(copied):
    root, _, folder = copied
    (gone,) = folder.glob("runs/*ckfr*alpha20_ell1.5*_s1_*.json")
    before = json.loads(gone.read_text())
    gone.unlink()
    run_study(study_from(asked(root)), folder, progress=False)
    after = json.loads(gone.read_text())
    assert (after["val"], after["test"], after["test_distance"]) == (
        before["val"],
        before["test"],
        before["test_distance"],
    )


def test_a_failing_run_names_itself_and_the_others_go_on(copied, monkeypatch, capsys):
    root, _, folder = copied
    for path in folder.glob("runs/*hxe*.json"):
        path.unlink()
    tail = study_jobs._tail

    def breaks(job):
        if job.seed == 1:
            raise RuntimeError("out of luck\nand more")
        return tail(job)

    monkeypatch.setattr(study_jobs, "_tail", breaks)
    file = folder.parent / "study.yaml"
    file.write_text(yaml.safe_dump(asked(root)))
    assert cli.main(["study", str(file), "--out", str(folder), "--quiet"]) == 2
    told = capsys.readouterr().err
    assert "1 of the study's jobs did not finish" in told
    assert "hxe" in told
    assert "_s1_" in told
    assert "RuntimeError: out of luck" in told
    assert len(list(folder.glob("runs/*hxe*.json"))) == 1
    (log,) = folder.glob("failed/*.txt")
    assert "and more" in log.read_text()
    found = read_results(folder / "results.csv")
    assert "hxe" not in found.methods("patches")  # not all of its seeds
    assert len(found.about["failed"]) == 1
    monkeypatch.setattr(study_jobs, "_tail", tail)
    results = folder.parent / "committed"
    assert cli.main(["study", str(file), "--out", str(folder), "--results", str(results), "--quiet"]) == 0
    assert not list(folder.glob("failed/*.txt"))
    assert {path.name for path in results.iterdir()} == {"study_tiny.csv", "study_tiny.json"}
    assert str(root.parent) not in (results / "study_tiny.json").read_text()  # no place of this machine


def test_whole_networks_are_trained_and_resumed_too(done, tmp_path):
    root, _ = done
    data = [
        {
            "name": "tiny-imagenet",
            "label": "patches",
            "root": str(root),
            "size": 32,
            "per_class": {"train": 6},
        }
    ]
    whole = asked(
        root, datasets=data, stage="none", seeds=1, lr=1e-3, methods={"hxe": {"alpha": 0.2}},
        train={"transform": "light", "workers": 0, "accelerator": "cpu", "weight_decay": "1e-4"},
    )  # fmt: skip
    made = run_study(study_from(whole), tmp_path / "study", progress=False)
    assert not made.failures
    assert made.results.methods("patches") == ["cross-entropy", "hxe", CRM]
    for path in tmp_path.glob("study/runs/*.json"):
        kept = json.loads(path.read_text())
        config = json.loads((tmp_path / "study" / "whole" / kept["name"] / "config.json").read_text())
        assert config["method"] == kept["settings"]["method"]
        assert config["weight_decay"] == 1e-4
        assert config["per_class"] == {"train": 6}
        assert len(kept["test_distance"]) == 16
        path.unlink()  # the trained network is still there: only its scores are taken again
    before = (made.folder / "results.csv").read_bytes()
    run_study(study_from(whole), tmp_path / "study", progress=False)
    assert (made.folder / "results.csv").read_bytes() == before


def test_missing_data_is_told_once_for_each_split(tmp_path):
    made = run_study(study_from(asked(tmp_path / "nowhere")), tmp_path / "study", progress=False)
    assert not len(made.results.table)
    reasons = {failure.reason for failure in made.failures}
    assert any("Tiny-ImageNet is not here" in reason for reason in reasons)
    assert "did not finish" in str(failed(made))


def test_a_stage_that_the_model_does_not_have_is_told_before_anything_is_computed(done, tmp_path):
    root, _ = done
    with pytest.raises(CkfrError, match=r"stage is 99; efficientnet_lite0 has 9"):
        run_study(study_from(asked(root, stage=99)), tmp_path / "study", progress=False)
    assert not (tmp_path / "study").exists()


def test_whole_networks_see_their_own_scenes(tmp_path, monkeypatch):
    """On photos each seed paints its own training scenes, as behind a frozen trunk; the test's are one."""
    opened = []

    class Scenes:
        classes = tuple(class_ids())

        def __init__(self, split: str, options: dict) -> None:
            self.split, self.options = split, options
            opened.append(self)

    monkeypatch.setattr(
        datasets, "open_source", lambda name, split, root=None, **options: Scenes(split, options)
    )
    configs = []
    monkeypatch.setattr(study_jobs, "train", lambda config, *_, **__: configs.append(config) or 1 / 0)
    whole = {
        "name": "x", "datasets": [{"name": "photos", "size": 96, "options": {"background_bias": 0.9}}],
        "stage": 0, "seeds": [3, 4], "methods": ["hxe"], "executor": {"processes": 1},
    }  # fmt: skip
    run_study(study_from(whole), tmp_path / "study", progress=False)
    for config in configs:
        for split in ("train", "val", "test"):
            open_split(config, split)
        train, val, test = (source.options for source in opened[-3:])
        assert train == {"background_bias": 0.9, "size": 96, "seed": config.seed}
        assert val == test == {"background_bias": 0.9, "size": 96}
    assert {config.seed for config in configs} == {3, 4}


def test_a_cache_does_not_hide_which_photograph_a_scene_shows(tmp_path, monkeypatch):
    """A cached source has no ``photo_of``; the run's record needs it for the interval over photographs."""

    def opened(config, split, progress=True):
        source = SimpleNamespace(hierarchy=tree, split=split)
        return source if config.cache else Photographs()

    class Photographs:
        def __len__(self) -> int:
            return 3

        def photo_of(self, index: int) -> int:
            return (7, 7, 9)[index]

    tree = Hierarchy.from_pairs([("all", "a"), ("all", "b")])
    seen = Predictions(np.eye(2)[[0, 1, 0]], np.eye(2)[[0, 1, 0]], np.array([0, 1, 1]), np.arange(3))
    made = SimpleNamespace(model=torch.nn.Identity(), history=[], best_epoch=1)
    monkeypatch.setattr(study_jobs, "train", lambda config, *_, **__: setattr(made, "config", config) or made)
    monkeypatch.setattr(study_jobs, "open_split", opened)
    monkeypatch.setattr(study_jobs, "split_loader", lambda *_: None)
    monkeypatch.setattr(study_jobs, "predict", lambda *_: seen)
    whole = {
        "name": "x", "datasets": [{"name": "photos"}], "stage": 0, "seeds": 1, "methods": ["hxe"],
        "train": {"cache": True, "accelerator": "cpu"}, "executor": {"processes": 1},
    }  # fmt: skip
    result = run_study(study_from(whole), tmp_path / "study", progress=False)
    assert not result.failures
    rows = result.results.table.dropna(subset="photo")
    assert rows.groupby("photo").pictures.first().to_dict() == {7: 2, 9: 1}


# -- Executors ---------------------------------------------------------------------------------------------


def test_processes_share_the_work_and_a_dead_one_costs_only_its_own_job(tmp_path):
    cards = [Card(name) for name in ("a", "dies", "b", "c")]
    results = list(compute(answer, cards, Executor(processes=2), tmp_path))
    (failure,) = [r for r in results if isinstance(r, study_jobs.Failure)]
    assert failure.name == "dies"
    assert sorted(r[0] for r in results if r is not failure) == ["a", "b", "c"]
    assert all(r.split()[-1] != str(os.getpid()) for r in results if r is not failure)


def test_ctrl_c_begins_nothing_more(tmp_path):
    """Two processes, a dozen jobs, and a caller who leaves after the first result."""
    cards = [Card(f"slow {number}", tmp_path) for number in range(12)]
    results = compute(answer, cards, Executor(processes=2), tmp_path)
    next(results)
    with pytest.raises(KeyboardInterrupt):
        results.throw(KeyboardInterrupt)
    begun = sorted(path.name for path in tmp_path.iterdir())
    assert 1 <= len(begun) <= 4
    time.sleep(1.5)
    assert sorted(path.name for path in tmp_path.iterdir()) == begun


def test_a_cluster_that_refuses_says_so_in_one_sentence(tmp_path, monkeypatch):
    submitit = pytest.importorskip("submitit")

    def refuse(*_, **__):
        raise submitit.core.utils.FailedJobError("sbatch: error: invalid partition specified: nowhere")

    monkeypatch.setattr(submitit.AutoExecutor, "submit", refuse)
    executor = Executor(kind="submitit", cluster="local")
    with pytest.raises(CkfrError, match="local refuses the jobs: sbatch: error: invalid partition"):
        list(compute(answer, [Card("a")], executor, tmp_path))


def test_the_same_file_runs_through_submitit(copied):
    """submitit's local executor: processes of their own, started and read as a cluster's jobs are."""
    pytest.importorskip("submitit")
    root, made, folder = copied
    for path in folder.glob("runs/*hxe*.json"):
        path.unlink()
    executor = {"kind": "submitit", "cluster": "local", "jobs": 1, "timeout_min": 5}
    again = run_study(study_from(asked(root, executor=executor)), folder, progress=False)
    assert not again.failures
    assert again.results.chosen == made.results.chosen
    assert list((folder / "cluster").rglob("*_submission.sh")) or list((folder / "cluster").iterdir())


def test_submitit_refuses_in_one_sentence(tmp_path):
    pytest.importorskip("submitit")
    wrong = Executor(kind="submitit", cluster="local", parameters={"timeout_mni": 5})
    with pytest.raises(CkfrError, match="submitit refuses"):
        list(compute(answer, [Card("a")], wrong, tmp_path))


# -- Files -------------------------------------------------------------------------------------------------


ONE = "name: x\ndatasets: [{name: "
X = f"{ONE}cifar10}}]\n"
HXE = f"{X}methods: [hxe]\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (X + "methods: {}\nepohcs: 3", "unknown 'epohcs'.*Did you mean 'epochs'"),
        (ONE + "cifar1O}]\nmethods: [hxe]", "Did you mean 'cifar10'"),
        (ONE + "cifar10, sise: 3}]\nmethods: [hxe]", "Did you mean 'size'"),
        (X + "methods: {hxee: }", "Did you mean 'hxe'"),
        (X + "methods: {hxe: {alhpa: 1}}", "hxe has.*Did you mean 'alpha'"),
        (X + "methods: {hxe: {alpha: low}}", "alpha is 'low'; expected a number"),
        (X + "methods: {hxe: {alpha: [1, 1]}}", "a value twice"),
        (HXE + "epochs: 2.5", "epochs is 2.5; expected a whole"),
        (HXE + "seeds: [1, 1]", "seeds is"),
        (HXE + "lr: -1", "lr is -1"),
        (HXE + "choose_by: top-1", "Did you mean 'top1'"),
        (HXE + "model: resnet81", "Unknown model 'resnet81'.*resnet18"),
        (HXE + "stage: -1", "stage is -1"),
        (ONE + "cifar10, scenes: {train: 5}}]\nmethods: [hxe]", "only photos have scenes"),
        (ONE + "photos, per_class: {train: 5}}]\nmethods: [hxe]", "expected scenes"),
        (ONE + "cifar10, per_class: {trian: 5}}]\nmethods: [hxe]", "Did you mean 'train'"),
        (ONE + "cifar10}, {name: cifar10}]\nmethods: [hxe]", "labelled 'cifar10'"),
        (HXE + "train: {precision: 32-true}", "expected stage 0"),
        (HXE + "stage: 0\ntrain: {precision: banana}", "train: precision is 'banana'; expected one of"),
        (HXE + "stage: 0\ntrain: {weight_decay: -3}", "weight_decay is -3.0; expected zero"),
        (X + "methods:\n  - ckfr: {alpha: [5]}\n  - hxe", "lists {'ckfr'.*expected names alone"),
        (X + "methods: {ckfr: {ell: 0}}", "ckfr: ell is 0"),
        (X + "methods: {ckfr: {alpha: [1, -5]}}", "ckfr: alpha is -5"),
        (X + "methods: {ckfr: {knowledge_scale: -1}}", "knowledge_scale is -1"),
        (X + "methods: {hxe: {level: sideways}}", "hxe: .*sideways"),
        (X + "methods: {soft-labels: {beta: -1}}", "soft-labels: beta is -1"),
        ("name: {{x}}\ndatasets: []", "is not YAML"),
        (ONE + "photos, options: {seed: 7}}]\nmethods: [hxe]", "seed would be overwritten"),
        (HXE + "stage: 0\ntrain: {alpha: 1}", "unknown 'alpha'"),
        (HXE + "stage: 0\ntrain: {weight_decay: much}", "weight_decay is 'much'; expected a number"),
        (HXE + "stage: 0\ntrain: {pretrained: 1}", "pretrained is 1; expected true or false"),
        (HXE + "executor: {kind: dask}", "unknown 'dask'"),
        ("name: ../x\ndatasets: [{name: cifar10}]\nmethods: [hxe]", "expected letters"),
        ("name: x\nname: y", "line 2 is not YAML: the key 'name' stands twice"),
        ("name: [x", "is not YAML"),
        ("- a", "expected name, datasets"),
        ("name: x\nmethods: [hxe]", "has no datasets"),
    ],
)  # fmt: skip
def test_wrong_files_are_told_in_one_sentence(tmp_path, text, says):
    file = tmp_path / "study.yaml"
    file.write_text(text)
    with pytest.raises(CkfrError, match=says) as caught:
        load_study(file)
    assert "\n" not in str(caught.value)
    assert cli.main(["study", str(file)]) == 2


def test_what_a_file_says_is_what_is_run(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(
        "name: x\ndatasets: [{name: tiny-imagenet, root: there.zip}]\nlr: [1e-3, 0.1]\nseeds: [3, 5]\n"
        "methods: {ckfr: {alpha: [5, 20], measure: [path, wu_palmer]}, proxy-anchor: }\n"
    )
    study = load_study(file)
    assert study.rates == (1e-3, 0.1)  # 1e-3 is a text in YAML 1.1
    assert study.datasets[0].root == str(tmp_path / "there.zip")
    assert study.grid("cross-entropy") == [{}]
    assert [(p["alpha"], p["ell"], p["measure"]) for p in study.grid("ckfr")] == [
        (5, 1.2, "path"), (5, 1.2, "wu_palmer"), (20, 1.2, "path"), (20, 1.2, "wu_palmer"),
    ]  # fmt: skip
    with pytest.raises(CkfrError, match="cannot be read"):
        load_study(tmp_path / "none.yaml")


def test_the_studies_of_this_project_are_well_formed():
    files = sorted((Path(__file__).parents[2] / "studies").glob("*.yaml"))
    sizes = {
        "photos_grid": 16,
        "cifar10_grid": 8,
        "tiny_imagenet_100": 15,
        "tiny_imagenet_scratch": 1,
        "look_photos": 4,
        "look_tiny_imagenet": 4,
    }
    assert {file.stem for file in files} == set(sizes)
    for file in files:
        study = load_study(file)
        assert study.name == file.stem
        assert len(study.grid("ckfr")) == sizes[file.stem]

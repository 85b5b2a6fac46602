"""Studies from a file to a table, on pictures made here: what is asked, chosen, kept, reused and told."""

import csv
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
from ckfr_helpers.teaching.plots import study_tables
from ckfr_helpers.teaching.plots.names import NAMES
from ckfr_helpers.teaching.plots.study import alt_text, choices, differences, grid_of, study_figure
from ckfr_helpers.teaching.plots.style import png
from ckfr_helpers.training.evaluation import Predictions
from ckfr_helpers.training.run import open_split
from ckfr_helpers.training.study import jobs as study_jobs
from ckfr_helpers.training.study.config import Executor, load_study, study_from
from ckfr_helpers.training.study.executors import compute
from ckfr_helpers.training.study.run import failed, run_study
from ckfr_helpers.training.study.summary import best_rate, summarise

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
    rows = list(csv.DictReader((made.folder / "results.csv").open()))
    assert len(rows) == 2 * 2 + 4 * 2 + 1 * 2 == len(made.table)
    keys = {(r["method"], r["alpha"], r["ell"], r["lr"], r["seed"]) for r in rows}
    assert len(keys) == len(rows)
    for row in rows:
        for split in ("val", "test"):
            assert 0 <= float(row[f"{split}_top1"]) <= 1
            assert float(row[f"{split}_hdist@1"]) >= 0
        record = next(made.folder.glob(f"runs/*{row['method']}*_s{row['seed']}_*.json"))
        assert json.loads(record.read_text())["format"] == study_jobs.FORMAT
    learnt = made.table[(made.table.method == "cross-entropy") & (made.table.lr == 1e-3)]
    assert learnt.test_top1.mean() > 0.4  # four classes by colour: it does learn


def test_choices_are_made_on_validation_and_test_is_told_for_the_chosen(done):
    _, made = done
    table = made.table
    base = table[table.method == "cross-entropy"].groupby("lr").val_top1.mean()
    found = made.summary["results"]["patches"]["methods"]
    rate = found["cross-entropy"]["chosen"]["lr"]
    assert rate == base.idxmax()
    ckfr = table[(table.method == "ckfr") & (table.lr == rate)]
    means = ckfr.groupby(["alpha", "ell"])["val_hdist@1"].mean()
    chosen = found["ckfr"]["chosen"]
    assert means[chosen["alpha"], chosen["ell"]] == pytest.approx(means.min(), rel=1e-6)
    mine = ckfr[(ckfr.alpha == chosen["alpha"]) & (ckfr.ell == chosen["ell"])].sort_values("seed")
    plain = table[(table.method == "cross-entropy") & (table.lr == rate)].sort_values("seed")
    score = found["ckfr"]["scores"]["top1"]
    assert score["mean"]["mean"] == pytest.approx(mine.test_top1.mean())
    difference = mine.test_top1.to_numpy() - plain.test_top1.to_numpy()
    assert score["difference"]["mean"] == pytest.approx(difference.mean())
    # Two values: Student's t with one degree of freedom, 12.706 standard errors to each side.
    reach = 12.7062 * difference.std(ddof=1) / np.sqrt(2)
    assert score["difference"]["high"] - score["difference"]["mean"] == pytest.approx(
        reach, rel=1e-4, abs=1e-9
    )
    crm = found["cross-entropy + CRM"]["scores"]["hdist@1"]["mean"]["mean"]
    assert crm == pytest.approx(plain["test_crm_hdist@1"].mean())


def record(method: str, seed: int, lr: float, val: float, test: float, alpha: float | None = None) -> dict:
    parameters = {} if alpha is None else {"alpha": alpha, "level": "depth"}
    scores = {"val": {"top1": val, "hdist@1": 1 - val}, "test": {"top1": test, "hdist@1": 1 - test}}
    settings = {"data": {"label": "d"}, "method": method, "parameters": parameters, "lr": lr, "seed": seed}
    return {
        "settings": settings,
        **scores,
        "test_distance": [0, 2],
        "test_groups": None,
        "name": f"{method}{seed}{lr}{alpha}",
    }


def test_a_better_test_score_never_decides():
    """Whatever test says, and whatever a setting that lacks a seed promises."""
    study = study_from({"name": "s", "datasets": [{"name": "cifar10", "label": "d"}], "seeds": 2,
                        "lr": [0.1, 0.2], "methods": {"hxe": {"alpha": [1, 2, 3]}}})  # fmt: skip
    records = [
        record("cross-entropy", s, lr, v, t)
        for s in (0, 1)
        for lr, v, t in ((0.1, 0.6, 0.1), (0.2, 0.5, 0.9))
    ]
    records += [record("hxe", s, 0.1, v, t, a) for s in (0, 1) for a, v, t in ((1, 0.7, 0.2), (2, 0.6, 0.99))]
    records += [record("hxe", 0, 0.1, 0.99, 0.99, 3), record("hxe", 1, 0.2, 0.99, 0.99, 3)]
    assert best_rate(study, "d", records) == 0.1
    found = summarise(study, records)["results"]["d"]["methods"]
    assert found["hxe"]["chosen"] == {"lr": 0.1, "alpha": 1, "level": "depth"}
    assert found["hxe"]["scores"]["top1"]["mean"]["mean"] == pytest.approx(0.2)
    assert found["cross-entropy"]["scores"]["top1"]["mean"]["mean"] == pytest.approx(0.1)


def test_scenes_are_told_over_photographs():
    study = study_from({"name": "s", "datasets": [{"name": "cifar10", "label": "d"}], "seeds": 1,
                        "methods": {"hxe": {}}})  # fmt: skip
    records = [record("cross-entropy", 0, 1e-3, 0.5, 0.5), record("hxe", 0, 1e-3, 0.5, 0.5, 0.1)]
    records[0]["test_distance"], records[1]["test_distance"] = [0, 0, 3, 3], [0, 0, 0, 0]
    for one in records:
        one["test_groups"] = [7, 7, 8, 8]
    found = summarise(study, records)["results"]["d"]
    told = found["methods"]["hxe"]["top1_over_photographs"]
    assert (told["mean"]["mean"], told["difference"]["mean"], told["mean"]["n"]) == (1, 0.5, 2)
    assert found["photographs"] == 2


def test_a_second_start_computes_nothing_and_a_larger_study_only_what_is_new(copied, monkeypatch):
    root, made, folder = copied
    shutil.rmtree(folder / "features")  # not needed for what is finished
    worked = []
    tail = study_jobs._tail
    monkeypatch.setattr(study_jobs, "_tail", lambda job: worked.append(job) or tail(job))
    monkeypatch.setattr(study_jobs, "_cache", lambda job: pytest.fail(f"{job.name} is there"))
    again = run_study(study_from(asked(root)), folder, progress=False)
    assert not worked
    assert again.summary["results"] == made.summary["results"]
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
    assert "soft-labels" in larger.summary["results"]["patches"]["methods"]


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
    summary = json.loads((folder / "summary.json").read_text())
    assert "hxe" not in summary["results"]["patches"]["methods"]  # not all of its seeds
    assert len(summary["failed"]) == 1
    monkeypatch.setattr(study_jobs, "_tail", tail)
    results = folder.parent / "committed"
    assert cli.main(["study", str(file), "--out", str(folder), "--results", str(results), "--quiet"]) == 0
    assert not list(folder.glob("failed/*.txt"))
    assert {path.name for path in results.iterdir()} == {
        f"study_tiny.{end}" for end in ("csv", "json", "png")
    }
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
    found = made.summary["results"]["patches"]["methods"]
    assert set(found) == {"cross-entropy", "hxe", "cross-entropy + CRM"}
    for path in tmp_path.glob("study/runs/*.json"):
        kept = json.loads(path.read_text())
        config = json.loads((tmp_path / "study" / "whole" / kept["name"] / "config.json").read_text())
        assert config["method"] == kept["settings"]["method"]
        assert config["weight_decay"] == 1e-4
        assert config["per_class"] == {"train": 6}
        assert len(kept["test_distance"]) == 16
        path.unlink()  # the trained network is still there: only its scores are taken again
    before = json.loads((made.folder / "summary.json").read_text())["results"]
    run_study(study_from(whole), tmp_path / "study", progress=False)
    assert json.loads((made.folder / "summary.json").read_text())["results"] == before


def test_missing_data_is_told_once_for_each_split(tmp_path):
    made = run_study(study_from(asked(tmp_path / "nowhere")), tmp_path / "study", progress=False)
    assert made.summary == {}
    reasons = {failure.reason for failure in made.failures}
    assert any("Tiny-ImageNet is not here" in reason for reason in reasons)
    assert "did not finish" in str(failed(made))


def test_figure_and_its_words(done):
    _, made = done
    read_back = json.loads((made.folder / "summary.json").read_text())
    figure = study_figure(read_back)
    assert len(figure.axes) == 5
    assert png(figure)[:4] == b"\x89PNG"
    grid = grid_of(read_back["results"]["patches"]["methods"], "hdist@1")
    assert grid.shape == (2, 2)
    assert "cross-entropy + CRM" in alt_text(read_back)


def test_tables_say_what_the_runs_say(done):
    """By hand from the table of runs: differences, stars, verdicts, and the four ways to answer."""
    _, made = done
    methods = made.summary["results"]["patches"]["methods"]
    chosen = methods["ckfr"]["chosen"]
    runs = made.table[made.table.lr == chosen["lr"]].sort_values("seed")
    base = runs[runs.method == "cross-entropy"]
    ours = runs[(runs.method == "ckfr") & (runs.alpha == chosen["alpha"]) & (runs.ell == chosen["ell"])]
    for score in ("top1", "hdist@1"):
        apart = ours[f"test_{score}"].to_numpy() - base[f"test_crm_{score}"].to_numpy()
        half = 12.706 * apart.std(ddof=1) / np.sqrt(2)  # Student's t at 95 %, one degree of freedom
        told = methods["ckfr"]["scores"][score]["over_crm"]
        assert told["mean"] == pytest.approx(apart.mean(), abs=1e-6)
        assert told["high"] - told["mean"] == pytest.approx(half, rel=1e-3, abs=1e-6)
    assert "over_crm" not in methods["cross-entropy + CRM"]["scores"]["hdist@1"]
    assert "over_crm" not in methods["ckfr"]["scores"]["alignment_pearson"]

    table = study_tables.losses([made.summary])
    rows = {name: row for (_, name), row in table.iterrows()}
    assert rows["cross-entropy"]["top-1 accuracy"] == f"{base.test_top1.mean():.3f}"
    title = f"CKFR (alpha {chosen['alpha']:g}, ell {chosen['ell']:g})"
    apart = ours.test_top1.to_numpy() - base.test_top1.to_numpy()
    assert rows[title]["top-1 accuracy"].startswith(f"{apart.mean():+.3f} ±")
    assert rows["cross-entropy + CRM"]["latent–tree correlation"] == ""
    ways = study_tables.four_ways([made.summary]).loc["tiny-imagenet, patches", "hierarchical distance@1"]
    assert ways["cross-entropy + CRM"] == pytest.approx(base["test_crm_hdist@1"].mean(), abs=1e-6)
    assert ways["CKFR"] == pytest.approx(ours["test_hdist@1"].mean(), abs=1e-6)
    assert study_tables.over_photographs([made.summary]).empty  # patches are no scenes


@pytest.mark.parametrize(
    ("low", "high", "score", "says"),
    [
        (0.1, 0.3, "top1", "better"),
        (-0.3, -0.1, "top1", "worse"),
        (-0.3, -0.1, "mistake_severity", "better"),
        (0.1, 0.3, "hdist@1", "worse"),
        (-0.1, 0.3, "hdist@1", "not told apart"),
    ],
)
def test_verdicts_know_which_way_is_better(done, low, high, score, says):
    _, made = done
    summary = json.loads(json.dumps(made.summary))
    told = summary["results"]["patches"]["methods"]["ckfr"]["scores"][score]
    told["difference"] = {"mean": (low + high) / 2, "low": low, "high": high, "n": 5}
    assert study_tables.verdicts([summary]).loc["tiny-imagenet, patches", NAMES[score]] == says


def test_choices_ring_what_was_chosen_and_differences_stand_in_their_rows(done):
    _, made = done
    methods = made.summary["results"]["patches"]["methods"]
    axis = choices([made.summary]).axes[0]
    ring = next(line for line in axis.lines if line.get_markersize() == 14)
    tried = {(one["alpha"], one["ell"]): one["hdist@1"] for one in methods["ckfr"]["validation"]}
    chosen = methods["ckfr"]["chosen"]
    assert ring.get_ydata()[0] == tried[chosen["alpha"], chosen["ell"]] == min(tried.values())
    assert [text.get_text() for text in axis.get_xticklabels()] == ["1", "20"]
    panels = differences([made.summary, made.summary]).axes
    dots = [line for line in panels[0].lines if line.get_marker() == "o"]
    told = methods["ckfr"]["scores"]["top1"]["difference"]["mean"]
    assert [dot.get_xdata()[0] for dot in dots[:2]] == [told, told]
    assert len([line for line in panels[3].lines if line.get_marker() == "o"]) == 2  # CRM moves no latents


def test_a_stage_that_the_model_does_not_have_is_told_before_anything_is_computed(done, tmp_path):
    root, _ = done
    with pytest.raises(CkfrError, match=r"stage is 99; efficientnet_lite0 has 9"):
        run_study(study_from(asked(root, stage=99)), tmp_path / "study", progress=False)
    assert not (tmp_path / "study").exists()


def test_tables_take_a_study_of_one_seed_from_its_file(copied):
    root, _, folder = copied
    run_study(study_from(asked(root, seeds=1)), folder, progress=False)
    summary = json.loads((folder / "summary.json").read_text())
    cells = study_tables.losses([summary]).to_numpy().ravel()
    assert not any("±" in cell or "nan" in cell for cell in cells)
    assert set(study_tables.verdicts([summary])["top-1 accuracy"]) == {"not told apart"}


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
    made = SimpleNamespace(model=torch.nn.Identity(), history=[{"val_top1": 1.0}])
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
    assert result.summary["results"]["photos"]["photographs"] == 2


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
    assert again.summary["results"] == made.summary["results"]
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
        (HXE + "model: resnet81", "Did you mean 'resnet18'"),
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
    sizes = {"photos_grid": 16, "cifar10_grid": 8, "tiny_imagenet_100": 15, "tiny_imagenet_scratch": 1}
    assert {file.stem for file in files} == set(sizes)
    for file in files:
        study = load_study(file)
        assert study.name == file.stem
        assert len(study.grid("ckfr")) == sizes[file.stem]

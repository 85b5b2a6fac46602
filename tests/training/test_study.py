"""Studies from a file to a table, on pictures painted here: what is asked, kept, reused and told."""

import json
import os
import shutil
from pathlib import Path

import pytest
import study_cards
import yaml
from flat_colours import FlatColours
from study_cards import Card, answer

from ckfr_helpers import __main__ as cli
from ckfr_helpers.attribution.look import free_scores
from ckfr_helpers.runtime import CkfrError
from ckfr_helpers.training.results import CRM, SCORES, made_by, read_results
from ckfr_helpers.training.study import jobs as study_jobs
from ckfr_helpers.training.study.config import Executor, load_study, study_from
from ckfr_helpers.training.study.jobs import Failure, Job, code_digest
from ckfr_helpers.training.study.run import compute, failed, run_study


def asked(**changes) -> dict:
    """Ten runs: two seeds of cross-entropy at two rates, of CKFR at two alphas, and of HXE."""
    data = {
        "name": "flat-colours",
        "label": "patches",
        "size": 32,
        "options": {"per_class": 12, "boxes": True},
    }
    base = {
        "name": "tiny", "datasets": [{**data, "per_class": {"train": 6}}],
        "stage": 8, "epochs": 2, "batch_size": 8, "seeds": 2, "lr": [3e-3, 1e-5],
        "methods": {"ckfr": {"alpha": [1, 20]}, "hxe": {"alpha": 0.2}},
        "executor": {"processes": 1},
    }  # fmt: skip
    return {**base, **changes}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """One whole study in this process, for all tests that only look."""
    return run_study(study_from(asked()), tmp_path_factory.mktemp("study"), progress=False)


@pytest.fixture
def copied(done, tmp_path):
    """The same study in a folder that a test may spoil."""
    return shutil.copytree(done.folder, tmp_path / "study")


def written(folder: Path) -> dict[str, int]:
    """Run and feature files, and when each was written."""
    files = [*folder.glob("runs/*.json"), *folder.glob("features/*.pt")]
    return {path.name: path.stat().st_mtime_ns for path in files}


def test_every_setting_is_run_once_a_seed_and_stands_in_the_table(done):
    assert not done.failures
    assert failed(done) is None
    table = read_results(done.folder / "results.csv").table
    runs = table.groupby(["method", "parameters", "seed", "split"])
    assert len(runs) == 2 * (2 * 2 + 2 * 2 + 1 * 2)
    assert {"top1", "hdist@1", "correlation", "crm_hdist@1"} <= set(table.score) <= set(SCORES)
    for path in done.folder.glob("runs/*.json"):
        record = json.loads(path.read_text())
        own = table[(table.method == record["settings"]["method"]) & (table.split == "test")]
        own = own[(own.seed == record["settings"]["seed"]) & (own.score == "cross_entropy")]
        assert own.value.sub(record["test"]["cross_entropy"]).abs().min() < 1e-5
        assert set(table.made_by) == {made_by(record["environment"])}
    slow, learnt = (
        done.results.mean("patches", "cross-entropy", "top1", f"lr={lr}") for lr in ("1e-05", "0.003")
    )
    assert learnt.mean > max(slow.mean, 0.4)  # four classes by colour: it does learn


def test_a_second_start_computes_nothing_and_a_larger_study_only_what_is_new(done, copied):
    before = written(copied)
    again = run_study(study_from(asked()), copied, progress=False)
    assert written(copied) == before
    assert again.results.chosen == done.results.chosen
    assert (copied / "results.csv").read_bytes() == (done.folder / "results.csv").read_bytes()
    broken, foreign = sorted(copied.glob("runs/*hxe*.json"))
    record = json.loads(broken.read_text())
    broken.write_text(broken.read_text()[:100])  # cut short, as by a full disk
    values = json.loads(foreign.read_text())
    values["settings"]["epochs"] = 9  # belongs to other settings
    foreign.write_text(json.dumps(values))
    larger = asked(methods={**asked()["methods"], "soft-labels": {"beta": 5}})
    made = run_study(study_from(larger), copied, progress=False)
    after = written(copied)
    changed = {name for name in after if after[name] != before.get(name)}
    assert {name.split("_")[1] for name in changed} == {"hxe", "soft-labels"}
    assert len(changed) == 4
    assert "soft-labels" in made.results.methods("patches")
    repeated = json.loads(broken.read_text())  # runs repeat exactly
    assert (repeated["val"], repeated["test"]) == (record["val"], record["test"])


def test_an_edited_loss_computes_its_runs_anew_and_a_comment_does_not(done, tmp_path, monkeypatch):
    shutil.copytree(study_jobs.PACKAGE, tmp_path / "package", ignore=shutil.ignore_patterns("__pycache__"))
    study = study_from(asked())

    def job() -> Job:
        code_digest.cache_clear()
        return Job(done.folder, study, study.datasets[0], "cross-entropy", {}, 3e-3, 0)

    assert job().finished()
    monkeypatch.setattr(study_jobs, "PACKAGE", tmp_path / "package")
    loss = tmp_path / "package" / "losses" / "triplet.py"
    loss.write_text('"""Other words."""\n# and a comment\n' + loss.read_text().split('"""', 2)[2])
    assert job().finished()
    loss.write_text(loss.read_text() + "\nEDITED = 1\n")
    assert job().finished() is None
    assert all(part.path.is_file() for part in job().features())  # the trunk's outputs know no loss
    monkeypatch.undo()
    code_digest.cache_clear()


def test_features_are_told_apart_by_what_is_in_the_pictures_and_by_the_trunk(tmp_path):
    def contents(**options) -> set[str]:
        stage = options.pop("stage", 8)
        data = {**asked()["datasets"][0], "options": {"per_class": 12, **options}}
        study = study_from(asked(datasets=[data], stage=stage))
        return set(Job(tmp_path, study, study.datasets[0], "hxe", {}, 1e-3, 0).content.values())

    first = contents()
    assert len(first) == 3
    assert contents() == first
    assert not contents(noise=5) & first
    assert not contents(stage=7) & first


def test_which_pictures_a_seed_draws():
    """Scenes to train on are a seed's own; the swapped test scenes follow it, for it deals out the places."""
    study = {"name": "x", "datasets": [{"name": "photos"}, {"name": "cifar10"}], "methods": ["hxe"]}

    def drawn(number: int, **more) -> dict[str, int]:
        whole = study_from({**study, **more})
        splits = Job(Path(), whole, whole.datasets[number], "hxe", {}, 1e-3, 4).splits
        return {split: seed for split, (_, seed) in splits.items()}

    assert drawn(0) == {"train": 4, "val": 0, "test": 0}
    assert drawn(0, scores=["look"]) == {"train": 4, "val": 0, "test": 4, "usual": 4, "foreign": 4}
    assert drawn(1) == drawn(1, scores=["look"]) == {"train": 0, "val": 0, "test": 0}


def test_a_study_may_ask_where_the_networks_look(tmp_path):
    study = study_from(asked(scores=["look"], seeds=1, lr=1e-3, methods={"ckfr": {"alpha": 1}}))
    made = run_study(study, tmp_path / "study", progress=False)
    assert not made.failures
    free = free_scores(FlatColours("test", per_class=12, boxes=True))
    for method, score, name in (
        ("uniform map", "energy", "uniform_energy"),
        ("centre map", "max_box_acc_v2", "centre_max_box_acc_v2"),
    ):
        assert made.results.level("patches", method, score) == pytest.approx(free[name], abs=1e-5)
    for method in ("cross-entropy", "ckfr", "untrained"):
        assert free["uniform_energy"] / 2 < made.results.level("patches", method, "energy") < 1
        assert made.results.level("patches", method, "gt_known") is not None
    assert made.results.mean("patches", "ckfr", "energy").n == 1
    with pytest.raises(CkfrError, match="There is no score 'looks'"):
        run_study(study_from(asked(scores=["looks"])), tmp_path / "other", progress=False)


@pytest.mark.photos
def test_scenes_bring_the_scores_of_single_photographs(tmp_path):
    data = {"name": "photos", "label": "bias 0.9", "size": 64,
            "options": {"background_bias": 0.9, "instances": 2},  # fewer places to paint
            "scenes": {"train": 24, "val": 24, "test": 48}}  # fmt: skip
    study = asked(datasets=[data], scores=["look"], seeds=1, lr=1e-3, methods={"ckfr": {"alpha": 1}})
    made = run_study(study_from(study), tmp_path / "study", progress=False)
    assert not made.failures
    rows = made.results.table.dropna(subset="photo")
    for score in ("top1", "energy", "drop"):
        own = rows[(rows.score == score) & (rows.method == "ckfr")]
        assert own.pictures.sum() == 48
        mean = made.results.values("bias 0.9", "ckfr", score).item()
        assert (own.value * own.pictures).sum() / 48 == pytest.approx(mean, abs=1e-4)


def test_a_failing_run_names_itself_and_the_others_go_on(copied, tmp_path, capsys):
    for path in copied.glob("runs/*hxe*.json"):
        path.unlink()
    seen = {
        json.loads(path.read_text())["settings"]["content"]["train"] for path in copied.glob("runs/*_s1_*")
    }
    (features,) = copied.glob(f"features/*train*{seen.pop()}.pt")
    whole = features.read_bytes()
    features.write_bytes(whole[:1000])
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(asked()))
    assert cli.main(["study", str(file), "--out", str(copied), "--quiet"]) == 2
    told = capsys.readouterr().err
    assert "1 of the study's jobs did not finish" in told
    assert "hxe" in told
    assert "_s1_" in told
    assert "cannot be read; remove the file" in told
    assert len(list(copied.glob("runs/*hxe*.json"))) == 1
    assert "Traceback" in next(copied.glob("failed/*.txt")).read_text()
    found = read_results(copied / "results.csv")
    assert "hxe" not in found.methods("patches")  # not all of its seeds
    assert len(found.about["failed"]) == 1
    features.write_bytes(whole)
    results = tmp_path / "committed"
    assert cli.main(["study", str(file), "--out", str(copied), "--results", str(results), "--quiet"]) == 0
    assert not list(copied.glob("failed/*.txt"))
    assert {path.name for path in results.iterdir()} == {"study_tiny.csv", "study_tiny.json"}


def test_whole_networks_are_trained_and_scored_again_from_their_checkpoints(tmp_path):
    whole = asked(
        stage=0, seeds=1, lr=1e-3, methods={"hxe": {"alpha": 0.2}},
        train={"transform": "light", "workers": 0, "accelerator": "cpu", "weight_decay": 1e-4},
    )  # fmt: skip
    made = run_study(study_from(whole), tmp_path / "study", progress=False)
    assert not made.failures
    assert made.results.methods("patches") == ["cross-entropy", "hxe", CRM]
    for path in tmp_path.glob("study/runs/*.json"):
        kept = json.loads(path.read_text())
        config = json.loads((tmp_path / "study" / "whole" / kept["name"] / "config.json").read_text())
        assert config["method"] == kept["settings"]["method"] or kept["settings"]["method"] == "cross-entropy"
        assert (config["weight_decay"], config["per_class"]) == (1e-4, {"train": 6})
        path.unlink()  # the trained network is still there: only its scores are taken again
    before = (made.folder / "results.csv").read_bytes()
    run_study(study_from(whole), tmp_path / "study", progress=False)
    assert (made.folder / "results.csv").read_bytes() == before


def test_a_study_whose_runs_all_fail_at_one_seed_has_a_table_and_no_figure(tmp_path, monkeypatch):
    whole = Job.compute

    def compute(job: Job) -> dict:
        return whole(job) if job.seed == 0 else 1 / 0

    monkeypatch.setattr(Job, "compute", compute)
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(asked(lr=1e-3, methods=[])))
    assert cli.main(["study", str(file), "--out", str(tmp_path / "out"), "--quiet"]) == 2
    assert (tmp_path / "out" / "results.csv").is_file()
    assert not (tmp_path / "out" / "figure.png").exists()


def test_missing_data_and_a_stage_that_is_not_there_are_told(tmp_path):
    gone = [{"name": "tiny-imagenet", "root": str(tmp_path / "nowhere")}, *asked()["datasets"]]
    study = asked(datasets=gone, seeds=1, lr=1e-3, methods={"hxe": {}})
    made = run_study(study_from(study), tmp_path / "study", progress=False)
    assert [failure.name for failure in made.failures] == ["tiny-imagenet"]
    assert "Tiny-ImageNet is not here" in str(failed(made))
    assert "hxe" in made.results.methods("patches")
    with pytest.raises(CkfrError, match=r"stage is 99; efficientnet_lite0 has 9"):
        run_study(study_from(asked(stage=99)), tmp_path / "other", progress=False)


@pytest.mark.slow
def test_a_cluster_of_processes_gives_what_each_job_says(tmp_path, monkeypatch):
    """submitit's local executor: processes of their own, started and read as a cluster's jobs are."""
    submitit = pytest.importorskip("submitit")
    # How long the results of a dead job are waited for, in case a network file system is late with them.
    monkeypatch.setattr(submitit.core.core.Job, "_results_timeout_s", 1)
    helpers = str(Path(study_cards.__file__).parent)
    monkeypatch.setenv("PYTHONPATH", helpers, prepend=os.pathsep)  # the jobs import their work from there
    executor = Executor(kind="submitit", cluster="local", jobs=2, timeout_min=5)
    results = list(compute(answer, [Card("a"), Card("dies"), Card("b")], executor, tmp_path))
    assert sorted(r.name for r in results if isinstance(r, Failure)) == ["dies"]
    answers = sorted(r for r in results if isinstance(r, str))
    assert [r[0] for r in answers] == ["a", "b"]
    assert all(r.split()[-1] != str(os.getpid()) for r in answers)
    wrong = Executor(kind="submitit", cluster="local", timeout_mni=5)
    with pytest.raises(CkfrError, match="submitit refuses"):
        list(compute(answer, [Card("a")], wrong, tmp_path))


@pytest.mark.slow
def test_processes_share_the_work_and_a_dead_one_is_told(tmp_path):
    jobs = [Card(name) for name in ("a", "b", "c", "dies")]
    results = list(compute(answer, jobs, Executor(processes=2), tmp_path))
    assert len(results) == 4
    assert all(r.split()[-1] != str(os.getpid()) for r in results if isinstance(r, str))
    assert "dies" in [r.name for r in results if isinstance(r, Failure)]


# -- Files -------------------------------------------------------------------------------------------------


ONE = "name: x\ndatasets: [{name: "
X = f"{ONE}cifar10}}]\n"
HXE = f"{X}methods: [hxe]\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (X + "methods: {}\nepohcs: 3", "study.yaml: unknown 'epohcs'; did you mean 'epochs'"),
        (ONE + "cifar1O}]\nmethods: [hxe]", "did you mean 'cifar10'"),
        (ONE + "cifar10, sise: 3}]\nmethods: [hxe]", "did you mean 'size'"),
        (X + "methods: {hxee: }", "Did you mean 'hxe'"),
        (X + "methods: {hxe: {alhpa: 1}}", "hxe: unknown 'alhpa'; did you mean 'alpha'"),
        (X + "methods: {hxe: {alpha: low}}", "alpha is 'low'; expected a number"),
        (X + "methods: {hxe: {alpha: [1, 1]}}", "alpha: .1, 1. is not as expected"),
        (X + "methods: {ckfr: {knowledge_scale: -1}}", "knowledge_scale is -1"),
        (X + "methods: {ckfr: {measure: feet}}", "ckfr: .*feet"),
        (X + "methods:\n  - ckfr: {alpha: [5]}\n  - hxe", "neither names alone"),
        (HXE + "epochs: 2.5", "epochs is 2.5; expected a valid integer"),
        (HXE + "seeds: [1, 1]", "seeds: .1, 1. is not"),
        (HXE + "seeds: 1000000000000", "1 to 1000"),
        (HXE + "lr: -1", "lr: 0 is -1; expected greater than 0"),
        (HXE + "choose_by: top-1", "choose_by is 'top-1'; expected 'top1'"),
        (ONE + "cifar10, scenes: {train: 5}}]\nmethods: [hxe]", "only photos have scenes"),
        (ONE + "photos, per_class: {train: 5}}]\nmethods: [hxe]", "expected scenes"),
        (ONE + "photos, options: {seed: 7}}]\nmethods: [hxe]", "seed, which would be overwritten"),
        (ONE + "cifar10, per_class: {trian: 5}}]\nmethods: [hxe]", "trian is 'trian'; expected 'train'"),
        (ONE + "cifar10}, {name: cifar10}]\nmethods: [hxe]", "labelled 'cifar10'"),
        (HXE + "train: {precision: 32-true}", "expected stage 0"),
        (HXE + "stage: 0\ntrain: {precision: banana}", "train: precision is 'banana'; expected one of"),
        (HXE + "stage: 0\ntrain: {alpha: 1}", "unknown 'alpha'"),
        (HXE + "executor: {kind: dask}", "kind is 'dask'; expected 'processes'"),
        (HXE + "executor: {proceses: 2}", "did you mean 'processes'"),
        ("name: ../x\ndatasets: [{name: cifar10}]\nmethods: [hxe]", "name is '../x'"),
        ("name: x\nname: y", "the key 'name' stands twice"),
        ("name: [x", "is not YAML"),
        ("name: 2020-13-45", "is not YAML"),
        ("- a", "expected a mapping"),
        ("name: x\nmethods: [hxe]", "has no datasets"),
        ("[" * 500, "is not YAML"),
        ("x" * 200_000, "expected a mapping"),
        ("a: &a [x]\nb: &b [*a, *a]", "aliases have no place"),
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
    assert study.lr == (1e-3, 0.1)  # 1e-3 is a text in YAML 1.1
    assert study.datasets[0].root == str(tmp_path / "there.zip")
    assert study.grid("cross-entropy") == [{}]
    assert [(p["alpha"], p["ell"], p["measure"]) for p in study.grid("ckfr")] == [
        (5, 1.2, "path"), (5, 1.2, "wu_palmer"), (20, 1.2, "path"), (20, 1.2, "wu_palmer"),
    ]  # fmt: skip
    with pytest.raises(CkfrError, match="cannot be read"):
        load_study(tmp_path / "none.yaml")


def test_the_studies_of_this_project_are_well_formed():
    files = sorted((Path(__file__).parents[2] / "studies").glob("*.yaml"))
    assert len(files) >= 6
    for file in files:
        study = load_study(file)
        assert study.name == file.stem
        assert study.grid("ckfr")

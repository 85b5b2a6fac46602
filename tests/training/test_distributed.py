"""Several processes: the step of two is the step of one, and a killed run ends as an undisturbed one."""

import csv
import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ckfr_helpers.runtime import CkfrError, one_thread
from ckfr_helpers.training import TrainConfig, run, train
from ckfr_helpers.training.processes import claim_error_report

TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
PATIENCE = 400  # seconds; a busy machine takes a while to import torch five times
CHILDREN = Path(f"/proc/self/task/{os.getpid()}/children")


@pytest.mark.parametrize("form", ["plain", "parts", "checkpointed"])
def test_two_processes_give_the_step_of_one(form, two_processes):
    """Half the batch each: loss and every gradient of one process with all of it, in both processes."""
    whole = two_processes["one-plain-0"]
    assert whole["losses"]["metric"] > 0
    for name in (f"one-{form}-0", f"two-{form}-0", f"two-{form}-1"):
        ours = two_processes[name]
        assert ours["losses"] == pytest.approx(whole["losses"], rel=1e-5)
        assert ours["gradients"].keys() == whole["gradients"].keys()
        for key, gradient in whole["gradients"].items():
            far = (ours["gradients"][key] - gradient).abs().max()
            assert far <= 1e-5 * gradient.abs().max(), (name, key)


@pytest.fixture(scope="module")
def forked(tmp_path_factory, pictures) -> Path:
    """What `helpers/two_processes.py` leaves: steps, an undisturbed run of two, a killed one of one."""
    out = tmp_path_factory.mktemp("two")
    settings = out / "config.json"
    settings.write_text(json.dumps(dataclasses.asdict(config(pictures))))
    script = Path(__file__).parents[1] / "helpers" / "two_processes.py"
    subprocess.run([sys.executable, str(script), str(out), str(settings)], check=True, timeout=PATIENCE)
    return out


@pytest.fixture(scope="module")
def two_processes(forked):
    return {path.stem: torch.load(path, weights_only=True) for path in forked.glob("*.pt")}


# -- killed and started again --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """48 training and 6 test pictures of three classes, in Tiny-ImageNet's layout."""
    root = tmp_path_factory.mktemp("data") / "tiny-imagenet-200"
    generator = np.random.default_rng(0)
    wnids = ("n02129165", "n02129604", "n03400231")  # lion, tiger, frying pan
    held_out = []

    def draw(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path, "JPEG")

    for label, wnid in enumerate(wnids):
        names = [f"{wnid}_{number}.JPEG" for number in range(16)]
        for name in names:
            draw(root / "train" / wnid / "images" / name)
        lines = "".join(f"{name}\t1\t2\t30\t40\n" for name in names)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(lines)
        for name in (f"val_{2 * label}.JPEG", f"val_{2 * label + 1}.JPEG"):
            draw(root / "val" / "images" / name)
            held_out.append(f"{name}\t{wnid}\t1\t2\t30\t40\n")
    (root / "val" / "val_annotations.txt").write_text("".join(held_out))
    (root / "wnids.txt").write_text("\n".join(wnids))
    return root


def config(pictures: Path) -> TrainConfig:
    """MobileNet has dropout and batch norm: generators and running statistics matter."""
    return TrainConfig(
        data="tiny-imagenet", root=str(pictures), model="mobilenet_v2", pretrained=False, size=32,
        transform="light", epochs=3, lr=1e-3, batch_size=8, workers=0, accelerator="cpu", save_every=2,
    )  # fmt: skip


@pytest.fixture
def start():
    """Start ``ckfr train`` with given settings, alone or under torchrun; nothing outlives the test."""
    started = []

    def run(*arguments) -> subprocess.Popen:
        started.append(_start(*arguments))
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            process.terminate()  # torchrun passes it on
            process.communicate(timeout=PATIENCE)


def _start(settings: TrainConfig, out: Path, launcher: tuple[str, ...] = ()) -> subprocess.Popen:
    flags = ["--from-scratch", "--quiet", "--out", str(out)]
    for name in ("data", "root", "model", "size", "transform", "epochs", "lr", "batch_size", "workers",
                 "accelerator", "save_every"):  # fmt: skip
        flags += [f"--{name.replace('_', '-')}", str(getattr(settings, name))]
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "ckfr_helpers", "train", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    out, error = process.communicate(timeout=PATIENCE)
    return process.returncode, out, error


def kill_in_second_epoch(process: subprocess.Popen, out: Path, victim: Callable[[], int]) -> None:
    """SIGKILL once the first epoch's line is in the folder; the second is under way then."""
    deadline = time.monotonic() + PATIENCE
    while not (out / "history.csv").is_file():
        assert time.monotonic() < deadline
        assert process.poll() is None, f"it ended before its first epoch did: {process.communicate()[1]}"
        time.sleep(0.01)
    os.kill(victim(), signal.SIGKILL)


def workers_of(process: subprocess.Popen) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def left_behind(out: Path) -> tuple[dict, list[dict], dict]:
    """Final weights and moments, history without its clock, and scores."""
    last = torch.load(out / "last.pt", weights_only=True)
    history = list(csv.DictReader(io.StringIO((out / "history.csv").read_text())))
    assert not list(out.glob(".*.tmp"))
    for row in history:
        del row["images_per_second"]
    return last, history, json.loads((out / "scores.json").read_text())["scores"]


def assert_ended_alike(ours: Path, theirs: Path) -> None:
    (last, history, scores), (other, other_history, other_scores) = left_behind(ours), left_behind(theirs)
    assert history == other_history
    assert len(history) == 3
    assert scores == pytest.approx(other_scores, rel=0, abs=0, nan_ok=True)
    for name, tensor in other["model"].items():
        assert torch.equal(last["model"][name], tensor), name
    for number, moments in other["optimizer"]["state"].items():
        assert all(torch.equal(last["optimizer"]["state"][number][key], moments[key]) for key in moments)


def assert_unfinished(out: Path) -> None:
    assert not (out / "scores.json").exists()
    assert torch.load(out / "last.pt", weights_only=True)["epoch"] in (1, 2)


def one_sentence(error: str) -> str:
    (sentence,) = [line for line in error.splitlines() if line.startswith("ckfr: ")]
    return sentence


@pytest.mark.slow
@pytest.mark.skipif(not CHILDREN.exists(), reason="finds torchrun's workers in Linux's /proc")
def test_a_killed_run_goes_on_as_if_undisturbed(pictures, tmp_path, forked, start):
    """SIGKILL to one of torchrun's two workers, and to a process alone; then the same commands again."""
    settings, cut, alone = config(pictures), tmp_path / "cut", forked / "alone"
    doomed = start(settings, cut, TWO)
    kill_in_second_epoch(doomed, cut, lambda: max(workers_of(doomed)))
    code, said, error = finish(doomed)
    assert code != 0
    assert "Kept in" not in said
    assert "Another process of this run has ended" in one_sentence(error)
    assert_unfinished(cut)
    assert_unfinished(alone)

    resumed = start(settings, cut, TWO)
    with one_thread():
        train(settings, tmp_path / "whole-alone", progress=False)
        train(settings, alone, progress=False)
    code, said, error = finish(resumed)
    assert code == 0, error
    assert said.count("Kept in") == 1
    assert_ended_alike(cut, forked / "whole")
    assert_ended_alike(alone, tmp_path / "whole-alone")


def test_a_batch_that_two_processes_cannot_share_is_refused(monkeypatch):
    monkeypatch.setattr(run, "Fabric", lambda **_: SimpleNamespace(world_size=2, launch=lambda: None))
    with pytest.raises(CkfrError, match="A batch of 9 cannot be shared by 2 processes"):
        run.make_fabric(TrainConfig(batch_size=9, accelerator="cpu"))


def test_of_several_processes_one_reports_an_error(monkeypatch):
    """They count in the store that torchrun's agent keeps."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    assert [claim_error_report() for _ in range(3)] == [True, False, False]
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert claim_error_report()

"""The memory-mapped cache: the same pictures, boxes and masks, never stale, never half, from any process."""

import dataclasses
import json
import multiprocessing
import os
import pickle
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional

from ckfr_helpers import datasets
from ckfr_helpers.datasets import cache as memory_map
from ckfr_helpers.datasets.base import Example, ImageSource, make_example
from ckfr_helpers.datasets.cache import cached, scale_boxes
from ckfr_helpers.datasets.loading import TransformedView, make_loader, start_epoch
from ckfr_helpers.datasets.subset import Part
from ckfr_helpers.datasets.transforms import make_transform, stored_side
from ckfr_helpers.hierarchy import Hierarchy
from ckfr_helpers.runtime import CkfrError

TREE = Hierarchy.from_pairs([("all", "a"), ("all", "b"), ("all", "c")])
SIZE = 16
FORKS = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork"
)


class Counting(ImageSource):
    """Pictures of noise at many sizes, with boxes and masks, that counts how often it is read.

    Args:
        count: pictures.
        state: stands for the state of its files.
        boxes, masks: whether it has any.
        bad: a picture that cannot be read.
    """

    name = "counting"
    split = "train"
    hierarchy = TREE

    def __init__(
        self,
        count: int = 70,
        state: str = "1",
        boxes: bool = True,
        masks: bool = True,
        bad: int | None = None,
    ) -> None:
        self.labels = np.arange(count, dtype=np.int64) % 3
        self.state, self.has_boxes, self.has_masks, self.bad = state, boxes, masks, bad
        self.read: list[int] = []

    def fingerprint(self) -> str:
        return self.state

    def __getitem__(self, index: int) -> Example:
        if index == self.bad:
            raise CkfrError(f"The picture {index} cannot be decoded.")
        self.read.append(index)
        draw = np.random.default_rng(index)
        height, width = (int(side) for side in draw.integers(10, 40, 2))
        image = torch.from_numpy(draw.integers(0, 256, (3, height, width), dtype=np.uint8))
        boxes = torch.tensor([[0.0, 1.0, width - 1.0, height - 1.0]] * (index % 3))
        mask = torch.zeros(height, width, dtype=torch.bool)
        mask[: height // 2] = True
        return make_example(
            image,
            self.labels[index],
            boxes.reshape(-1, 4) if self.has_boxes and index != 5 else None,
            mask if self.has_masks else None,
        )


def get(source: ImageSource, folder: Path, **options) -> memory_map.CachedImages:
    return cached(source, SIZE, folder, workers=0, progress=False, **options)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cache_holds_the_resized_pictures_and_scaled_boxes_and_masks(tmp_path, workers):
    source = Counting()
    copy = cached(source, SIZE, tmp_path, workers=workers, progress=False)
    assert (copy.name, copy.split, copy.classes) == (source.name, source.split, source.classes)
    assert np.array_equal(copy.labels, source.labels)
    assert len(copy) == 70
    for index in (0, 1, 2, 5, 31, 32, 69):
        theirs, mine = source[index], copy[index]
        assert torch.equal(mine[0], functional.resize(theirs[0], [SIZE, SIZE], antialias=True))
        assert mine[0].dtype == torch.uint8
        assert mine[1]["label"] == theirs[1]["label"]
        height, width = theirs[0].shape[1:]
        if "boxes" not in theirs[1]:
            assert "boxes" not in mine[1]
        else:
            assert torch.equal(mine[1]["boxes"], scale_boxes(theirs[1]["boxes"], width, height, SIZE))
        # PIL's nearest neighbour is another program's idea of the same rule.
        expected = Image.fromarray(theirs[1]["masks"][0].numpy()).resize(
            (SIZE, SIZE), Image.Resampling.NEAREST
        )
        assert np.array_equal(mine[1]["masks"][0].numpy(), np.array(expected))
    with pytest.raises(IndexError):
        copy[70]
    assert torch.equal(copy[-1][0], copy[69][0])
    mine[0].zero_()  # a copy, not the file
    assert copy[69][0].any()


def test_pictures_without_boxes_or_masks_stay_without(tmp_path):
    copy = get(Counting(boxes=False, masks=False), tmp_path)
    assert "boxes" not in copy[3][1]
    assert "masks" not in copy[3][1]
    assert {path.name for path in copy.folder.iterdir()} == {
        "about.json",
        "boxes.npy",
        "box_spans.npy",
        "images.npy",
    }
    stored = np.load(copy.folder / "images.npy", mmap_mode="r")
    assert (stored.shape, stored.dtype) == ((70, 3, SIZE, SIZE), np.uint8)


def test_a_cache_is_built_once_and_found_again(tmp_path):
    source = Counting()
    first = get(source, tmp_path)
    assert source.read == list(range(70))
    assert get(Counting(), tmp_path).folder == first.folder
    again = Counting()
    assert torch.equal(get(again, tmp_path)[8][0], first[8][0])
    assert again.read == []
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == [
        first.folder.name
    ]


def test_a_stale_cache_is_never_used(tmp_path):
    folders = {get(Counting(), tmp_path).folder}
    folders.add(get(Counting(state="2"), tmp_path).folder)
    folders.add(cached(Counting(), SIZE + 1, tmp_path, workers=0, progress=False).folder)
    folders.add(get(Part(Counting(), [3, 1, 2]), tmp_path).folder)
    folders.add(get(Part(Counting(), [1, 3, 2]), tmp_path).folder)
    relabelled = Counting()
    relabelled.labels = relabelled.labels[::-1].copy()
    folders.add(get(relabelled, tmp_path).folder)
    assert len(folders) == 6


@pytest.mark.parametrize("stop", [0, 40, 69])
def test_an_interrupted_build_goes_on_where_it_stopped(tmp_path, stop):
    broken = Counting(bad=stop)
    with pytest.raises(CkfrError, match=f"The picture {stop} cannot be decoded"):
        get(broken, tmp_path)
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    whole = Counting()
    copy = get(whole, tmp_path)
    assert whole.read == list(range(stop // 32 * 32, 70))  # whole batches are kept
    fresh = get(Counting(), tmp_path / "other")
    for name in ("images.npy", "masks.npy", "boxes.npy", "box_spans.npy"):
        assert (copy.folder / name).read_bytes() == (fresh.folder / name).read_bytes()


def test_bytes_written_after_the_last_note_are_cut_off(tmp_path):
    with pytest.raises(CkfrError):
        get(Counting(bad=40), tmp_path)
    (work,) = tmp_path.glob(".*.unfinished")
    for name in ("images.npy", "masks.npy", "boxes.bin", "counts.bin"):
        with open(work / name, "ab") as file:
            file.write(b"torn")
    copy, fresh = get(Counting(), tmp_path), get(Counting(), tmp_path / "other")
    for name in ("images.npy", "masks.npy", "boxes.npy", "box_spans.npy"):
        assert (copy.folder / name).read_bytes() == (fresh.folder / name).read_bytes()


@pytest.mark.parametrize("damage", ["note", "short", "gone"])
def test_a_damaged_beginning_is_begun_again(tmp_path, damage):
    with pytest.raises(CkfrError):
        get(Counting(bad=40), tmp_path)
    (work,) = tmp_path.glob(".*.unfinished")
    if damage == "note":
        (work / "progress.json").write_text("{")
    elif damage == "short":
        with open(work / "images.npy", "r+b") as file:
            file.truncate(500)
    else:
        (work / "counts.bin").unlink()
    source = Counting()
    copy, fresh = get(source, tmp_path), get(Counting(), tmp_path / "other")
    assert source.read == list(range(70))
    assert (copy.folder / "images.npy").read_bytes() == (fresh.folder / "images.npy").read_bytes()


def test_a_finished_cache_that_was_damaged_is_built_anew(tmp_path):
    copy = get(Counting(), tmp_path)
    expected = (copy.folder / "images.npy").read_bytes()
    with open(copy.folder / "images.npy", "r+b") as file:
        file.truncate(1000)
    assert (get(Counting(), tmp_path).folder / "images.npy").read_bytes() == expected
    about = copy.folder / "about.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"key": "0" * 64}))
    source = Counting()
    get(source, tmp_path)
    assert len(source.read) == 70


ZIPPED = b"PK\x03\x04"  # what numpy takes for an archive


@pytest.mark.parametrize("name", ["about.json", "images.npy", "masks.npy", "boxes.npy", "box_spans.npy"])
@pytest.mark.parametrize("damage", ["emptied", "header", "short", "zeros", "foreign", "gone"])
def test_a_finished_cache_with_any_file_damaged_is_built_anew(tmp_path, name, damage):
    path = get(Counting(), tmp_path).folder / name
    expected = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(
            {
                "emptied": b"",
                "header": expected[:9],
                "short": expected[:-1],
                "zeros": bytes(len(expected)),
                "foreign": ZIPPED + expected[4:],
            }[damage]
        )
    source = Counting()
    copy = get(source, tmp_path)
    assert source.read == list(range(70))
    assert path.read_bytes() == expected
    assert "boxes" in copy[1][1]
    assert "masks" in copy[1][1]


def test_a_finished_cache_whose_parts_contradict_each_other_is_built_anew(tmp_path):
    folder = get(Counting(), tmp_path).folder
    spans, boxes = np.load(folder / "box_spans.npy"), np.load(folder / "boxes.npy")
    for name, wrong in (
        ("boxes.npy", boxes[:-1]),
        ("boxes.npy", boxes.ravel()),
        ("box_spans.npy", spans[:-1]),
        ("box_spans.npy", spans[:, 0]),
        ("masks.npy", np.ones((70, SIZE), dtype=bool)),
        ("images.npy", np.ones((70, 3, SIZE, SIZE), dtype=np.float32)),
    ):
        np.save(folder / name, wrong)
        source = Counting()
        get(source, tmp_path)
        assert len(source.read) == 70, (name, wrong.shape)
    (folder / "about.json").write_text("[]")
    assert len(get(Counting(), tmp_path)) == 70


@pytest.mark.parametrize("boxes", [True, False])
def test_a_cache_without_boxes_or_with_is_found_whole(tmp_path, boxes):
    about = get(Counting(boxes=boxes), tmp_path).folder / "about.json"
    again = Counting(boxes=boxes)
    get(again, tmp_path)
    told = json.loads(about.read_text())
    assert told.pop("masks")
    about.write_text(json.dumps(told))  # as earlier versions wrote it
    get(again, tmp_path)
    assert again.read == []


def test_the_boxes_are_on_the_disk_before_the_cache_is_in_place(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync

    def noting(number: int) -> None:
        synced.append((os.fstat(number).st_ino, os.fstat(number).st_size))
        fsync(number)

    monkeypatch.setattr(memory_map.os, "fsync", noting)
    folder = get(Counting(), tmp_path).folder
    for name in ("images.npy", "masks.npy", "boxes.npy", "box_spans.npy", "about.json"):
        about = (folder / name).stat()
        assert (about.st_ino, about.st_size) in synced, name


def test_a_cache_travels_light_and_reads_alike_in_workers(tmp_path):
    copy = get(Counting(), tmp_path)
    copy[0]  # the map is open now
    packed = pickle.dumps(copy)
    assert len(packed) < 20_000
    assert torch.equal(pickle.loads(packed)[9][0], copy[9][0])
    view = TransformedView(copy, make_transform("light", True, 12), seed=1)
    batches = {}
    for workers in (0, 2):
        loader = make_loader(view, 8, train=True, workers=workers)
        start_epoch(loader, 3)
        batches[workers] = list(loader)
    for one, other in zip(batches[0], batches[2], strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[2], other[2])


def _open(folder: Path, queue) -> None:
    source = Counting()
    copy = get(source, folder)
    queue.put((len(source.read), int(copy[7][0].sum())))


@FORKS
def test_of_several_processes_one_builds(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_open, args=(tmp_path, queue)) for _ in range(3)]
    for process in processes:
        process.start()
    results = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(read for read, _ in results) == [0, 0, 70]
    assert len({total for _, total in results}) == 1


class Deadly(Counting):
    def __getitem__(self, index: int) -> Example:
        if index == 45:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


Deadly.__name__ = "Counting"  # the same source, as far as its cache is concerned


@FORKS
def test_a_killed_build_leaves_no_cache_and_no_lock_in_the_way(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=get, args=(Deadly(), tmp_path))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    source = Counting()
    get(source, tmp_path)
    assert source.read == list(range(32, 70))


@FORKS
@pytest.mark.parametrize("moment", ["save", "note", "rename", "unlink"])
def test_a_kill_in_the_last_moments_costs_no_picture(tmp_path, moment):
    """Before and after each step that ends a build: both side files, the note, the move, the clearing up."""
    owner, name, steps = {
        "save": (memory_map.np, "save", ["box_spans.npy", "boxes.npy"]),
        "note": (memory_map, "atomic_path", ["about.json"]),
        "rename": (Path, "rename", [None]),
        "unlink": (Path, "unlink", ["progress.json", "counts.bin", "boxes.bin"]),
    }[moment]
    real = getattr(owner, name)

    def build(folder: Path, step: str | None, after: bool) -> None:
        def deadly(target, *rest, **options):
            here = step in (None, Path(getattr(target, "name", target)).name)
            if here and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(target, *rest, **options)
            if here:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, deadly)
            get(Counting(), folder)

    expected = get(Counting(), tmp_path / "whole").folder
    for step in steps:
        for after in (False, True):
            folder = tmp_path / f"{step}-{after}"
            process = multiprocessing.get_context("fork").Process(target=build, args=(folder, step, after))
            process.start()
            process.join()
            assert process.exitcode == -signal.SIGKILL
            source = Counting()
            copy = get(source, folder)
            assert source.read == [], (step, after)
            for file in ("images.npy", "masks.npy", "boxes.npy", "box_spans.npy", "about.json"):
                assert (copy.folder / file).read_bytes() == (expected / file).read_bytes()


def test_trouble_with_the_disk_at_the_very_end_is_one_sentence_and_costs_no_picture(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for owner, name in ((memory_map.np, "save"), (Path, "rename")):
        folder = tmp_path / name
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, full)
            with pytest.raises(CkfrError, match=r"could not be written .*No space left.* is kept"):
                get(Counting(), folder)
        source = Counting()
        get(source, folder)
        assert source.read == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk here that is always full")
def test_a_full_disk_is_one_sentence_even_when_the_files_are_closed(tmp_path, monkeypatch):
    """A file whose bytes found no room fails once more when it is closed."""
    real = memory_map._Column.__init__

    def on_a_full_disk(column, path: Path, *rest) -> None:
        real(column, path, *rest)
        if path.name == "boxes.bin":
            column._file.close()
            column._file = open("/dev/full", "wb")  # noqa: SIM115

    with monkeypatch.context() as patch:
        patch.setattr(memory_map._Column, "__init__", on_a_full_disk)
        with pytest.raises(CkfrError, match=r"could not be written .*No space left"):
            get(Counting(), tmp_path)
    assert len(get(Counting(), tmp_path)) == 70


# -- The sources of this package ---------------------------------------------------------------------------


def test_evaluation_sees_the_very_pixels_it_sees_without_a_cache(tmp_path):
    source = Counting()
    for name in ("original", "light"):
        side = stored_side(name, 28)
        copy = cached(source, side, tmp_path, workers=0, progress=False)
        transform = make_transform(name, train=False, size=28)
        for index in (0, 1, 33):
            assert torch.equal(transform(copy[index][0]), transform(source[index][0]))
    assert stored_side("original", 224) == 256
    with pytest.raises(CkfrError, match="no transform 'heavy'"):
        stored_side("heavy", 224)


def write_mini(root: Path) -> Path:
    """Three classes of 600 pictures as class folders, most of them links to one file."""
    folder = root / "mini-imagenet"
    for number, wnid in enumerate(["n02129165", "n02129604", "n03400231"]):
        (folder / wnid).mkdir(parents=True)
        first = folder / wnid / f"{wnid}00000000.jpg"
        pixels = np.random.default_rng(number).integers(0, 256, (12, 18, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(first)
        for place in range(1, 600):
            os.link(first, folder / wnid / f"{wnid}{place:08}.jpg")
    return folder


def test_a_file_that_changes_or_another_split_changes_the_fingerprint(tmp_path):
    folder = write_mini(tmp_path)

    def prints(split: str = "test", root: Path = folder, **options) -> str:
        return datasets.open_source("mini-imagenet", split, root=root, **options).fingerprint()

    before = prints()
    assert prints() == before
    assert prints("train") != before
    assert prints("train") != prints("train", seed=1)
    moved = tmp_path / "elsewhere"
    shutil.move(folder, moved)
    assert prints(root=moved) == before
    name = datasets.open_source("mini-imagenet", "test", root=moved).filenames[4]
    os.utime(moved / name, (1, 1))  # all links change with it, as one file written anew would
    assert prints(root=moved) != before


def test_scenes_are_cached_by_their_options(tmp_path):
    from drawn_scenes import scenes

    plain, biased = scenes(scenes=12), scenes(scenes=12, background_bias=0.9)
    assert plain.fingerprint() == scenes(scenes=12).fingerprint()
    assert len({plain.fingerprint(), biased.fingerprint(), scenes(scenes=12, seed=1).fingerprint()}) == 3
    copy = cached(plain, 32, tmp_path, workers=0, progress=False)
    box, mask = copy[3][1]["boxes"][0], copy[3][1]["masks"][0]
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert np.allclose(box, [columns[0], rows[0], columns[-1], rows[-1]], atol=1)


def test_training_reads_through_the_cache_if_asked(tmp_path, monkeypatch):
    from ckfr_helpers.training.config import TrainConfig
    from ckfr_helpers.training.run import open_split

    write_mini(tmp_path)
    monkeypatch.setenv("CKFR_DATA", str(tmp_path))
    config = TrainConfig(data="mini-imagenet", size=14, workers=0)
    plain = open_split(config, "test")
    copy = open_split(dataclasses.replace(config, cache=True), "test")
    assert copy.size == 16
    assert copy.folder.parent == tmp_path / "cache"
    assert np.array_equal(copy.labels, plain.labels)
    transform = make_transform("original", train=False, size=14)
    assert torch.equal(transform(copy[200][0]), transform(plain[200][0]))
    # Crops of training are other crops, so one kind of run cannot continue the other.
    assert "cache is" in config.difference(dataclasses.replace(config, cache=True))


def test_the_command_trains_from_a_cache_on_some_pictures_of_each_class_with_another_loss(
    tmp_path, monkeypatch
):
    from ckfr_helpers.__main__ import main

    write_mini(tmp_path)
    monkeypatch.setenv("CKFR_DATA", str(tmp_path))
    flags = ["--data", "mini-imagenet", "--cache", "--per-class", "8", "--size", "32", "--transform", "light"]
    flags += ["--model", "shufflenet_v2_x0_5", "--from-scratch", "--epochs", "1", "--lr", "1e-3"]
    flags += ["--method", "hxe", "--method-option", "alpha=0.2", "--workers", "0", "--accelerator", "cpu"]
    flags += ["--batch-size", "12"]
    out = tmp_path / "run"
    assert main(["train", *flags, "--out", str(out), "--quiet"]) == 0
    config = json.loads((out / "config.json").read_text())
    assert (config["cache"], config["per_class"]) == (True, {"train": 8})
    assert (config["method"], config["method_options"]) == ("hxe", {"alpha": 0.2})
    assert 0 <= json.loads((out / "scores.json").read_text())["scores"]["top1"] <= 1
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert kept  # and another seed reads the same files, not one of its own
    assert main(["train", *flags, "--seed", "1", "--out", str(tmp_path / "other"), "--quiet"]) == 0
    assert {path for path in (tmp_path / "cache").rglob("*") if path.is_file()} == set(kept)


def test_of_each_class_the_seed_draws_the_training_pictures_and_no_others(tmp_path, monkeypatch):
    from ckfr_helpers.training.config import TrainConfig
    from ckfr_helpers.training.run import open_split

    write_mini(tmp_path)
    monkeypatch.setenv("CKFR_DATA", str(tmp_path))
    parts = {
        (split, seed): open_split(
            TrainConfig(data="mini-imagenet", seed=seed, per_class={"train": 5, "test": 4}), split
        )
        for split in ("train", "val", "test")
        for seed in (0, 1)
    }
    for (split, _), part in parts.items():
        counts = np.bincount(part.labels)
        assert len(set(counts)) == 1
        assert counts[0] == {"train": 5, "test": 4}.get(split, counts[0])
    assert not np.array_equal(parts["train", 0].indices, parts["train", 1].indices)
    assert np.array_equal(parts["test", 0].indices, parts["test", 1].indices)
    assert len(parts["val", 0]) > 4 * 3


def test_a_folder_of_ones_own_has_a_fingerprint(tmp_path):
    for part in ("train", "test"):
        for wnid in ("n02129165", "n02129604"):
            (tmp_path / part / wnid).mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (9, 9), (number, 0, 0)).save(tmp_path / part / wnid / f"{number}.png")
    first = datasets.open_source("folder", "test", root=tmp_path).fingerprint()
    (tmp_path / "boxes.csv").write_text("file,x0,y0,x1,y1\ntest/n02129165/0.png,0,0,3,3\n")
    source = datasets.open_source("folder", "test", root=tmp_path)
    assert source.fingerprint() != first
    assert "boxes" in get(source, tmp_path / "cache")[0][1]
    assert "boxes" not in get(source, tmp_path / "cache")[1][1]


def test_a_source_that_cannot_tell_its_state_is_refused(tmp_path):
    class Silent(Counting):
        fingerprint = ImageSource.fingerprint

    with pytest.raises(CkfrError, match="counting has no fingerprint"):
        get(Silent(), tmp_path)


@pytest.mark.parametrize("size", [0, -3, 2.5, "big", True])
def test_a_size_that_is_none_is_refused(tmp_path, size):
    with pytest.raises(CkfrError, match="size is a positive whole number of pixels"):
        cached(Counting(), size, tmp_path)


def test_a_full_disk_is_noticed_before_and_during(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(memory_map.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
        with pytest.raises(CkfrError, match=r"The cache needs 0\.0 GB more in"):
            get(Counting(), tmp_path)
    with monkeypatch.context() as patch:

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(memory_map.os, "fsync", full)
        with pytest.raises(CkfrError, match=r"could not be written .*No space left"):
            get(Counting(), tmp_path)
    assert len(get(Counting(), tmp_path)) == 70


# -- Boxes -------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    factor=st.integers(1, 4),
    data=st.data(),
)
def test_a_scaled_box_is_the_box_of_the_scaled_object(width, height, factor, data):
    """For whole factors the stretched object can be drawn, pixel for pixel."""
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x1, y1 = data.draw(st.integers(x0, width - 1)), data.draw(st.integers(y0, height - 1))
    box = torch.tensor([[x0, y0, x1, y1]], dtype=torch.float32)
    columns, rows = np.zeros(width, dtype=bool), np.zeros(height, dtype=bool)
    columns[x0 : x1 + 1], rows[y0 : y1 + 1] = True, True
    inside_x = np.flatnonzero(np.repeat(columns, factor))
    assert scale_boxes(box, width, height, width * factor)[0, [0, 2]].tolist() == [inside_x[0], inside_x[-1]]
    inside_y = np.flatnonzero(np.repeat(rows, factor))
    assert scale_boxes(box, width, height, height * factor)[0, [1, 3]].tolist() == [inside_y[0], inside_y[-1]]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 300), st.data())
def test_a_scaled_box_lies_within_the_picture(width, height, size, data):
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    box = torch.tensor(
        [[x0, y0, data.draw(st.integers(x0, width - 1)), data.draw(st.integers(y0, height - 1))]]
    )
    left, top, right, bottom = scale_boxes(box.float(), width, height, size)[0].tolist()
    assert 0 <= left <= right <= max(size - 1, left)
    assert 0 <= top <= bottom <= max(size - 1, top)
    assert left < size
    assert top < size

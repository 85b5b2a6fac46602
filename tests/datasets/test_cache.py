"""The memory-mapped cache: the same pictures, boxes and masks, never stale, never half, from any process."""

import dataclasses
import multiprocessing
import os
import pickle
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_scenes import scenes
from flat_colours import FlatColours
from torchvision.transforms.v2 import functional

from ckfr_helpers.datasets.base import Example, ImageSource
from ckfr_helpers.datasets.cache import CachedImages, cached
from ckfr_helpers.datasets.loading import TransformedView, make_loader, start_epoch
from ckfr_helpers.datasets.subset import Part
from ckfr_helpers.datasets.transforms import make_transform, stored_side
from ckfr_helpers.runtime import CkfrError

SIZE = 16
FORKS = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork"
)


class Counting(FlatColours):
    """Counts how often it is read; every third picture has neither box nor mask.

    Args:
        state: stands for the state of its files.
        bad: a picture that cannot be read.
        deadly: a picture that kills whoever reads it.
    """

    def __init__(self, state: str = "1", bad: int | None = None, deadly: int | None = None) -> None:
        super().__init__(per_class=18, size=32, boxes=True, masks=True)
        self.state, self.bad, self.deadly = state, bad, deadly
        self.read: list[int] = []

    def fingerprint(self) -> str:
        return self.state

    def __getitem__(self, index: int) -> Example:
        if index == self.bad:
            raise CkfrError(f"The picture {index} cannot be decoded.")
        if index == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        self.read.append(index)
        image, target = super().__getitem__(index)
        if index % 3 == 0:
            del target["boxes"], target["masks"]
        target.update(photo=index // 4, text=f"number {index}", metadata={"x": 0.1})
        return image[:, :, :-8] if "boxes" not in target else image, target


def get(source: ImageSource, folder: Path, workers: int = 1) -> CachedImages:
    return cached(source, SIZE, folder, workers=workers, progress=False)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cache_holds_the_resized_pictures_and_their_targets(tmp_path, workers):
    source = Counting()
    copy = get(source, tmp_path, workers)
    assert (copy.name, copy.split, copy.classes) == (source.name, source.split, source.classes)
    assert np.array_equal(copy.labels, source.labels)
    assert copy.where(7) == source.where(7)
    for index in (0, 1, 2, 31, 32, 69, 71):
        (theirs, known), (mine, told) = source[index], copy[index]
        plain = theirs.as_subclass(torch.Tensor)
        assert torch.equal(mine, functional.resize(plain, [SIZE, SIZE], antialias=True))
        assert mine.dtype == torch.uint8
        assert set(told) == set(known)
        for key in set(known) - {"boxes", "masks"}:
            assert told[key] == known[key]
        if "boxes" in known:  # 32 pixels become 16, and both ends of a box are pixels inside its object
            x0, y0, x1, y1 = known["boxes"][0]
            assert told["boxes"].tolist() == [[x0 / 2, y0 / 2, (x1 + 1) / 2 - 1, (y1 + 1) / 2 - 1]]
            assert told["boxes"].canvas_size == (SIZE, SIZE)
            assert torch.equal(told["masks"], known["masks"][:, ::2, ::2])
    with pytest.raises(IndexError):
        copy[72]
    mine.zero_()  # a copy, not the file
    assert copy[71][0].any()


def test_a_cache_is_built_once_and_found_again(tmp_path):
    source = Counting()
    first = get(source, tmp_path)
    assert source.read == list(range(72))
    again = Counting()
    assert torch.equal(get(again, tmp_path)[8][0], first[8][0])
    assert again.read == []
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [first.folder.name]


def test_a_stale_cache_is_never_used(tmp_path):
    relabelled = Counting()
    relabelled.labels = relabelled.labels[::-1].copy()
    sources = [Counting(), Counting(state="2"), relabelled]
    sources += [Part(Counting(), [3, 1, 2]), Part(Counting(), [1, 3, 2])]
    copies = [get(source, tmp_path) for source in sources]
    copies.append(cached(Counting(), SIZE + 1, tmp_path, workers=0, progress=False))
    assert len({copy.folder for copy in copies}) == len({copy.fingerprint() for copy in copies}) == 6


@pytest.mark.parametrize("name", ["targets.pkl", "images.npy"])
@pytest.mark.parametrize("damage", ["emptied", "short", "gone"])
def test_a_damaged_cache_is_built_anew(tmp_path, name, damage):
    path = get(Counting(), tmp_path).folder / name
    data = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(b"" if damage == "emptied" else data[:-1])
    source = Counting()
    assert get(source, tmp_path)[71][0].any()
    assert source.read == list(range(72))


def test_a_cache_travels_light_and_reads_alike_in_workers(tmp_path):
    copy = get(Counting(), tmp_path)
    copy._targets = [{"label": int(label)} for label in copy.labels]  # what is left is small
    packed = pickle.dumps(copy)
    assert len(packed) < 20_000  # its pictures take 55 kB
    assert torch.equal(pickle.loads(packed)[9][0], copy[9][0])
    view = TransformedView(copy, make_transform("light", True, 12), seed=1)
    batches = {}
    for workers in (0, 2):
        loader = make_loader(view, 8, train=True, workers=workers)
        start_epoch(loader, 3)
        batches[workers] = list(loader)
    for (inputs, _, numbers), (others, _, same) in zip(batches[0], batches[2], strict=True):
        assert torch.equal(inputs, others)
        assert torch.equal(numbers, same)


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
    assert sorted(read for read, _ in results) == [0, 0, 72]
    assert len({total for _, total in results}) == 1


@FORKS
def test_a_stopped_build_leaves_no_cache_and_no_lock_in_the_way(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=get, args=(Counting(deadly=45), tmp_path))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with pytest.raises(CkfrError, match="The picture 40 cannot be decoded"):
        get(Counting(bad=40), tmp_path)
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    assert len(get(Counting(), tmp_path)) == 72
    assert not list(tmp_path.glob("*.unfinished"))


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CkfrError, match=r"could not be written .*No space left"):
            get(Counting(), tmp_path)
    assert len(get(Counting(), tmp_path)) == 72


def test_a_source_that_cannot_tell_its_state_and_a_size_that_is_none_are_refused(tmp_path):
    class Silent(Counting):
        fingerprint = ImageSource.fingerprint

    with pytest.raises(CkfrError, match=r"flat-colours has no fingerprint\(\)"):
        get(Silent(), tmp_path)
    with pytest.raises(CkfrError, match=r"side of a cache's pictures is 0"):
        cached(Counting(), 0, tmp_path)


# -- The sources of this package ---------------------------------------------------------------------------


def test_evaluation_sees_the_very_pixels_it_sees_without_a_cache(tmp_path):
    source = Counting()
    for name in ("original", "light"):
        copy = cached(source, stored_side(name, 28), tmp_path, workers=0, progress=False)
        transform = make_transform(name, train=False, size=28)
        for index in (0, 1, 33):
            assert torch.equal(transform(copy[index][0]), transform(source[index][0]))


def test_scenes_are_cached_by_their_options(tmp_path):
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

    monkeypatch.setenv("CKFR_DATA", str(tmp_path))
    config = TrainConfig(data="flat-colours", size=14, workers=0)
    plain = open_split(config, "test")
    copy = open_split(dataclasses.replace(config, cache=True), "test")
    assert copy[0][0].shape == (3, 16, 16)
    assert copy.folder.parent == tmp_path / "cache"
    transform = make_transform("original", train=False, size=14)
    assert torch.equal(transform(copy[20][0]), transform(plain[20][0]))
    # Crops of training are other crops, so one kind of run cannot continue the other.
    assert "cache is" in config.difference(dataclasses.replace(config, cache=True))

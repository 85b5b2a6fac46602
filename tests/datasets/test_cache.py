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
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional

from ckfr_helpers.datasets.base import Example, ImageSource, make_example
from ckfr_helpers.datasets.cache import CachedImages, cached, scale_boxes
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
    """Pictures of noise at many sizes, some with boxes and masks, that counts how often it is read.

    Args:
        state: stands for the state of its files.
        bad: a picture that cannot be read.
        deadly: a picture that kills whoever reads it.
    """

    name = "counting"
    split = "train"
    hierarchy = TREE

    def __init__(self, state: str = "1", bad: int | None = None, deadly: int | None = None) -> None:
        self.labels = np.arange(70, dtype=np.int64) % 3
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
        draw = np.random.default_rng(index)
        height, width = (int(side) for side in draw.integers(10, 40, 2))
        image = torch.from_numpy(draw.integers(0, 256, (3, height, width), dtype=np.uint8))
        if index % 3 == 0:
            return make_example(image, self.labels[index])
        boxes = torch.tensor([[0.0, 1.0, width - 1.0, height - 1.0]] * (index % 3))
        masks = torch.zeros(index % 3, height, width, dtype=torch.bool)
        masks[:, : height // 2] = True
        return make_example(
            image,
            self.labels[index],
            boxes,
            masks,
            photo=index // 4,
            text=f"number {index}",
            metadata={"x": 0.1},
        )


def get(source: ImageSource, folder: Path) -> CachedImages:
    return cached(source, SIZE, folder, workers=0, progress=False)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cache_holds_the_resized_pictures_and_their_targets(tmp_path, workers):
    source = Counting()
    copy = cached(source, SIZE, tmp_path, workers=workers, progress=False)
    assert (copy.name, copy.split, copy.classes) == (source.name, source.split, source.classes)
    assert np.array_equal(copy.labels, source.labels)
    assert copy.where(7) == source.where(7)
    for index in (0, 1, 2, 31, 32, 68, 69):
        (theirs, known), (mine, told) = source[index], copy[index]
        plain = theirs.as_subclass(torch.Tensor)
        assert torch.equal(mine, functional.resize(plain, [SIZE, SIZE], antialias=True))
        assert mine.dtype == torch.uint8
        assert set(told) == set(known)
        for key in set(known) - {"boxes", "masks"}:
            assert told[key] == known[key]
        if "boxes" in known:
            height, width = theirs.shape[1:]
            assert torch.equal(told["boxes"], scale_boxes(known["boxes"], width, height, SIZE))
            assert told["boxes"].canvas_size == (SIZE, SIZE)
            for one, other in zip(told["masks"], known["masks"], strict=True):
                # PIL's nearest neighbour is another program's idea of the same rule.
                expected = Image.fromarray(other.numpy()).resize((SIZE, SIZE), Image.Resampling.NEAREST)
                assert np.array_equal(one.numpy(), np.array(expected))
    with pytest.raises(IndexError):
        copy[70]
    mine.zero_()  # a copy, not the file
    assert copy[69][0].any()


def test_a_cache_is_built_once_and_found_again(tmp_path):
    source = Counting()
    first = get(source, tmp_path)
    assert source.read == list(range(70))
    again = Counting()
    assert torch.equal(get(again, tmp_path)[8][0], first[8][0])
    assert again.read == []
    shown = [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")]
    assert shown == [first.folder.name]
    stored = np.load(first.folder / "images.npy", mmap_mode="r")
    assert (stored.shape, stored.dtype) == ((70, 3, SIZE, SIZE), np.uint8)


def test_a_stale_cache_is_never_used(tmp_path):
    relabelled = Counting()
    relabelled.labels = relabelled.labels[::-1].copy()
    sources = [Counting(), Counting(state="2"), relabelled]
    sources += [Part(Counting(), [3, 1, 2]), Part(Counting(), [1, 3, 2])]
    copies = [get(source, tmp_path) for source in sources]
    copies.append(cached(Counting(), SIZE + 1, tmp_path, workers=0, progress=False))
    assert len({copy.folder for copy in copies}) == len({copy.fingerprint() for copy in copies}) == 6


@pytest.mark.parametrize("name", ["about.pkl", "images.npy"])
@pytest.mark.parametrize("damage", ["emptied", "short", "gone"])
def test_a_damaged_cache_is_built_anew(tmp_path, name, damage):
    path = get(Counting(), tmp_path).folder / name
    data = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(b"" if damage == "emptied" else data[:-1])
    source = Counting()
    assert get(source, tmp_path)[69][0].any()
    assert source.read == list(range(70))


def test_a_cache_travels_light_and_reads_alike_in_workers(tmp_path):
    copy = get(Counting(), tmp_path)
    copy[0]  # the map is open now
    packed = pickle.dumps(copy)
    assert len(packed) < 30_000  # its pictures take 54 kB
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
    assert sorted(read for read, _ in results) == [0, 0, 70]
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
    assert len(get(Counting(), tmp_path)) == 70
    assert not list(tmp_path.glob("*.unfinished"))


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CkfrError, match=r"could not be written .*No space left"):
            get(Counting(), tmp_path)
    assert len(get(Counting(), tmp_path)) == 70


def test_a_source_that_cannot_tell_its_state_and_a_size_that_is_none_are_refused(tmp_path):
    class Silent(Counting):
        fingerprint = ImageSource.fingerprint

    with pytest.raises(CkfrError, match="counting has no fingerprint"):
        get(Silent(), tmp_path)
    with pytest.raises(CkfrError, match=r"side of a cache's pictures is 0"):
        cached(Counting(), 0, tmp_path)


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

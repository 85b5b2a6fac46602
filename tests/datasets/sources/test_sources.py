"""mini-ImageNet, Tiny-ImageNet and the registry, on small folders in those data sets' own layouts."""

import csv
import io
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader

from ckfr_helpers import datasets
from ckfr_helpers.datasets.sources.mini_imagenet import held_out_positions
from ckfr_helpers.datasets.splits import carve_validation
from ckfr_helpers.runtime import CkfrError, data_root

# Lion, tiger, frying pan, guitar: real WordNet ids, deliberately out of order.
WNIDS = ["n03400231", "n02129165", "n02676566", "n02129604"]


def jpeg(seed: int, size: tuple[int, int] = (12, 9), mode: str = "RGB") -> bytes:
    """A small JPEG of noise, ``size`` as (width, height)."""
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


# -- mini-ImageNet -----------------------------------------------------------------------------------------


def write_rows(
    path: Path, rows: list[tuple[str, str]], header: tuple[str, str] = ("filename", "label")
) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture(scope="module")
def mini_master(tmp_path_factory) -> Path:
    """Four classes of 600 rows over the three files; rows of a file's classes interleaved, as they may be."""
    root = tmp_path_factory.mktemp("mini") / "mini-imagenet"
    (root / "images").mkdir(parents=True)
    picture = jpeg(0)
    for name, wnids in (("train", WNIDS[:2]), ("val", WNIDS[2:3]), ("test", WNIDS[3:])):
        rows = [(f"{wnid}{number:08}.jpg", wnid) for number in range(600) for wnid in wnids]
        write_rows(root / f"{name}.csv", rows)
        for file, _ in rows:
            (root / "images" / file).write_bytes(picture)
    return root


@pytest.fixture
def mini(mini_master, tmp_path) -> Path:
    """A copy whose csv files a test may spoil; the pictures are shared."""
    root = tmp_path / "mini-imagenet"
    root.mkdir()
    for name in ("train.csv", "val.csv", "test.csv"):
        shutil.copy(mini_master / name, root)
    (root / "images").symlink_to(mini_master / "images")
    return root


def test_held_out_positions_are_sklearns():
    train, test = train_test_split(range(600), test_size=0.2, random_state=0)
    assert held_out_positions().tolist() == sorted(test)
    assert not set(held_out_positions()) & set(train)
    for count, share, seed in ((10, 0.25, 3), (601, 0.2, 1), (7, 0.5, 9)):
        _, expected = train_test_split(range(count), test_size=share, random_state=seed)
        assert held_out_positions(count, share, seed).tolist() == sorted(expected)


def test_mini_imagenet_is_the_demos_split(mini_master):
    """Redone here row by row with sklearn, as the demo does it."""
    keep, held_out = train_test_split(range(600), test_size=0.2, random_state=0)
    rows_of: dict[str, list[str]] = {}
    for name in ("train", "val", "test"):
        with open(mini_master / f"{name}.csv") as file:
            for row in csv.DictReader(file):
                rows_of.setdefault(row["label"], []).append(row["filename"])
    for split, positions in (("train", keep), ("test", held_out)):
        source = datasets.open_source("mini-imagenet", split, root=mini_master, val_fraction=0)
        expected = {(files[position], wnid) for wnid, files in rows_of.items() for position in positions}
        found = {
            (name, source.classes[label]) for name, label in zip(source.filenames, source.labels, strict=True)
        }
        assert len(source) == len(found) == len(expected)
        assert found == expected


def test_mini_imagenets_val_is_taken_from_train_only(mini_master):
    def names(split: str, **options: float) -> set[str]:
        return set(datasets.open_source("mini-imagenet", split, root=mini_master, **options).filenames)

    whole = names("train", val_fraction=0)
    train, val, test = names("train"), names("val"), names("test")
    assert train | val == whole
    assert not train & val
    assert not whole & test
    assert len(val) == 4 * 48
    assert names("val", seed=1) != val
    assert names("test", seed=1, val_fraction=0.5) == test


def test_mini_imagenet_reads_pictures_and_sorts_classes(mini_master):
    source = datasets.open_source("mini-imagenet", "test", root=mini_master.parent)  # or the folder above
    assert list(source.classes) == sorted(WNIDS)
    assert source.hierarchy.classes == source.classes
    assert np.bincount(source.labels).tolist() == [120] * 4
    example = source[0]
    assert example[0].shape == (3, 9, 12)
    assert example[0].dtype == torch.uint8
    assert example[1] == {"label": int(source.labels[0])}
    assert source.filenames[0].startswith(source.classes[example[1]["label"]])


def test_mini_imagenets_mistakes_are_named(mini):
    rows = [(f"{WNIDS[2]}{number:08}.jpg", WNIDS[2]) for number in range(600)]

    def refuses(message: str) -> None:
        with pytest.raises(CkfrError, match=message):
            datasets.open_source("mini-imagenet", "train", root=mini)

    write_rows(mini / "val.csv", rows[:-1])
    refuses(f"Class {WNIDS[2]} has 599 rows .* expected 600")
    write_rows(mini / "val.csv", [*rows[:-1], rows[0]])
    refuses(f"{WNIDS[2]}00000000.jpg is listed twice")
    write_rows(mini / "val.csv", [*rows[:-1], ("gone.jpg", WNIDS[2])])
    refuses(r"1 of 2400 pictures, first gone\.jpg, are missing")
    write_rows(mini / "val.csv", rows, header=("file", "class"))
    refuses(r"val\.csv has the columns \['file', 'class'\]; expected filename,label")
    (mini / "val.csv").unlink()
    refuses(r"val\.csv is missing from")


def test_a_damaged_picture_names_itself(mini):
    source = datasets.open_source("mini-imagenet", "test", root=mini)
    (mini / "images").unlink()
    (mini / "images").mkdir()
    whole = jpeg(1, (64, 64))
    for content in (whole[: len(whole) // 2], b"not a picture", b""):
        (mini / "images" / source.filenames[0]).write_bytes(content)
        with pytest.raises(CkfrError, match=f"{source.filenames[0]} cannot be decoded"):
            source[0]
    with pytest.raises(CkfrError, match=f"images/{source.filenames[1]} is missing"):
        source[1]


def test_a_mini_imagenet_that_is_there_is_not_fetched(mini, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert datasets.fetch("mini-imagenet", root=tmp_path) == mini
    (mini / "val.csv").unlink()
    with pytest.raises(CkfrError, match=r"val\.csv is missing from"):  # nor one that is not whole
        datasets.fetch("mini-imagenet", root=tmp_path)


# -- Tiny-ImageNet -----------------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path) -> Path:
    """Three classes, ten training and two validation pictures each, one of them greyscale."""
    root = tmp_path / "tiny-imagenet-200"
    lines = []
    for number, wnid in enumerate(WNIDS[:3]):
        folder = root / "train" / wnid / "images"
        folder.mkdir(parents=True)
        boxes = []
        for picture in range(10):
            name = f"{wnid}_{picture}.JPEG"
            (folder / name).write_bytes(jpeg(10 * number + picture, (64, 64), "L" if picture == 4 else "RGB"))
            boxes.append(f"{name}\t{picture}\t{number}\t{picture + 30}\t63\n")
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("".join(boxes))
        (root / "val" / "images").mkdir(parents=True, exist_ok=True)
        for picture in range(2):
            name = f"val_{2 * number + picture}.JPEG"
            (root / "val" / "images" / name).write_bytes(jpeg(100 + 2 * number + picture, (64, 64)))
            lines.append(f"{name}\t{wnid}\t1\t2\t{40 + picture}\t50\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("\n".join(WNIDS[:3]))
    (root / "words.txt").write_text("".join(f"{wnid}\tname\n" for wnid in WNIDS))
    return root


def as_zip(root: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(root.rglob("*")):
            archive.write(path, path.relative_to(root.parent))
    return target


def whole(source) -> list[tuple[bytes, int, tuple[float, ...]]]:
    """A source's content, sorted, for comparing sources as sets."""
    return sorted(
        (e[0].numpy().tobytes(), e[1]["label"], tuple(e[1]["boxes"].flatten().tolist()))
        for e in source_items(source)
    )


def source_items(source):
    return (source[index] for index in range(len(source)))


def test_tiny_imagenet_reads_pictures_labels_and_boxes(tiny):
    source = datasets.open_source("tiny-imagenet", "train", root=tiny, val_fraction=0)
    assert list(source.classes) == sorted(WNIDS[:3])
    assert len(source) == 30
    expected = []
    for number, wnid in enumerate(WNIDS[:3]):
        for picture in range(10):
            with Image.open(tiny / "train" / wnid / "images" / f"{wnid}_{picture}.JPEG") as image:
                pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
            box = (float(picture), float(number), float(picture + 30), 63.0)
            expected.append((pixels.tobytes(), source.classes.index(wnid), box))
    assert whole(source) == sorted(expected)
    grey = [e for e in source_items(source) if torch.equal(e[0][0], e[0][1])]
    assert len(grey) == 3
    assert all(e[0].shape == (3, 64, 64) and e[0].dtype == torch.uint8 for e in grey)
    assert source[0][1]["boxes"].shape == (1, 4)
    assert source[0][1]["boxes"].dtype == torch.float32


def test_tiny_imagenets_official_val_is_our_test_and_our_val_comes_from_train(tiny):
    test = datasets.open_source("tiny-imagenet", "test", root=tiny)
    assert len(test) == 6
    assert (
        sorted(tuple(e[1]["boxes"][0].tolist()) for e in source_items(test))
        == [(1, 2, 40, 50)] * 3 + [(1, 2, 41, 50)] * 3
    )
    train = datasets.open_source("tiny-imagenet", "train", root=tiny, val_fraction=0.2)
    val = datasets.open_source("tiny-imagenet", "val", root=tiny, val_fraction=0.2)
    assert np.bincount(train.labels).tolist() == [8, 8, 8]
    assert np.bincount(val.labels).tolist() == [2, 2, 2]
    everything = datasets.open_source("tiny-imagenet", "train", root=tiny, val_fraction=0)
    assert sorted(whole(train) + whole(val)) == whole(everything)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_zip_reads_like_its_folder_in_any_process(tiny, tmp_path, split):
    packed = datasets.open_source("tiny-imagenet", split, root=as_zip(tiny, tmp_path / "tiny.zip"))
    assert whole(packed) == whole(datasets.open_source("tiny-imagenet", split, root=tiny))
    packed[0]  # opens the file here, before processes are forked and the source is pickled
    assert whole(pickle.loads(pickle.dumps(packed))) == whole(packed)
    # Often enough that two processes with one file position between them would trip over each other.
    order = list(range(len(packed))) * (1500 // len(packed))
    loader = DataLoader(packed, None, sampler=order, num_workers=2, multiprocessing_context="fork")
    labels = [example[1]["label"] for example in loader]
    assert labels == [int(packed.labels[index]) for index in order]


def test_tiny_imagenets_mistakes_are_named(tiny, tmp_path):
    wnid = WNIDS[0]
    boxes = tiny / "train" / wnid / f"{wnid}_boxes.txt"
    good = boxes.read_text()

    def refuses(message: str, split: str = "train", root: Path = tiny) -> None:
        with pytest.raises(CkfrError, match=message):
            datasets.open_source("tiny-imagenet", split, root=root)

    boxes.write_text(good.replace("_3.JPEG\t3", "_3.JPEG\tthree"))
    refuses(f"Line 4 of train/{wnid}/{wnid}_boxes.txt")
    boxes.write_text(good.replace("\t63\n", "\n"))
    refuses("expected 5 tab-separated columns")
    boxes.write_text("".join(good.splitlines(keepends=True)[1:]))
    refuses(f"{wnid}_0.JPEG, without a line in the box file")
    boxes.write_text(good)
    (tiny / "train" / wnid / "images" / f"{wnid}_7.JPEG").unlink()
    refuses(f"1 picture.*{wnid}_7.JPEG, listed but missing")
    refuses("gives val_4.JPEG the class", "test", _without_last_class(tiny))
    boxes.unlink()
    refuses("_boxes.txt is missing from")
    (tmp_path / "bad.zip").write_bytes(b"PK but no more")
    refuses("not a readable zip", root=tmp_path / "bad.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    refuses("holds no wnids.txt", root=tmp_path / "other.zip")


def _without_last_class(tiny: Path) -> Path:
    copy = tiny.parent / "fewer"
    shutil.copytree(tiny, copy)
    (copy / "wnids.txt").write_text("\n".join(WNIDS[:2]))
    return copy


# -- Carving a validation set ------------------------------------------------------------------------------


def test_carving_takes_the_same_share_of_every_class():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(5), [10, 20, 30, 40, 50]))
    train, val = carve_validation(labels, 0.1, seed=3)
    assert sorted([*train, *val]) == list(range(150))
    assert np.bincount(labels[val]).tolist() == [1, 2, 3, 4, 5]
    assert np.array_equal(val, carve_validation(labels, 0.1, seed=3)[1])
    assert not np.array_equal(val, carve_validation(labels, 0.1, seed=4)[1])


def test_carving_one_class_does_not_depend_on_the_others():
    labels = np.repeat(np.arange(3), 40)
    _, every = carve_validation(labels, 0.25)
    _, alone = carve_validation(labels[:40], 0.25)
    assert np.array_equal(every[every < 40], alone)


def test_carving_nothing_and_too_much():
    labels = np.array([0, 0, 1])
    train, val = carve_validation(labels, 0)
    assert train.tolist() == [0, 1, 2]
    assert len(val) == 0
    with pytest.raises(CkfrError, match="Class 1 has 1 training"):
        carve_validation(labels, 0.1)
    for fraction in (-0.1, 1, 1.5, "half", None, True):
        with pytest.raises(CkfrError, match="at least 0 and below 1"):
            carve_validation(labels, fraction)


# -- The registry ------------------------------------------------------------------------------------------


def test_the_names_of_sources_and_of_what_can_be_fetched():
    fetched = ("photos", "mini-imagenet", "tiny-imagenet", "cifar10", "cifar100", "imagenet")
    assert set(datasets.names()) == {*fetched, "folder"}
    assert set(datasets.fetchable()) == {*fetched, "wordnet"}


def test_unknown_names_list_the_known_ones(tmp_path):
    with pytest.raises(CkfrError, match="no image source 'imagent'; expected one of photos, mini-imagenet"):
        datasets.open_source("imagent", "train")
    with pytest.raises(CkfrError, match="no image source 'wordnet'"):
        datasets.open_source("wordnet", "train")
    with pytest.raises(CkfrError, match=r"no data set 'x' to fetch; expected one of .*wordnet"):
        datasets.fetch("x", root=tmp_path)


@pytest.mark.parametrize("name", ["mini-imagenet", "tiny-imagenet", "cifar10", "cifar100"])
def test_a_missing_folder_says_what_was_expected_where(name, tmp_path):
    with pytest.raises(CkfrError, match="is not here: expected ") as caught:
        datasets.open_source(name, "train", root=tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert f"`ckfr fetch {name}` brings it" in str(caught.value)
    with pytest.raises(CkfrError, match="no split 'dev'; expected one of train, val, test"):
        datasets.open_source(name, "dev", root=tmp_path)


def test_the_data_root_is_the_default_place(tmp_path, monkeypatch, tiny):
    monkeypatch.setenv("CKFR_DATA", str(tiny.parent))
    assert data_root() == tiny.parent
    assert len(datasets.open_source("tiny-imagenet", "test")) == 6

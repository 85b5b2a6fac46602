"""mini-ImageNet: the demo's own split, the same from both layouts, and what is wrong with a copy."""

import csv
import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import train_test_split

from ckfr_helpers import datasets
from ckfr_helpers.datasets.base import SPLITS
from ckfr_helpers.datasets.sources.mini_imagenet import find_place, held_out_positions
from ckfr_helpers.runtime import CkfrError

# As few-shot learning splits them, in no order.
CLASSES = {"train": ["n03400231", "n02129165"], "val": ["n02676566"], "test": ["n02129604"]}
WNIDS = [wnid for wnids in CLASSES.values() for wnid in wnids]


def pixels(wnid: str, number: int) -> np.ndarray:
    """(4, 4, 3) uint8, one colour, different for every picture."""
    return np.full((4, 4, 3), (int(wnid[-2:]), number // 250, number % 250), dtype=np.uint8)


def write_rows(path: Path, rows: list[tuple[str, str]]) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([("filename", "label"), *rows])


@pytest.fixture(scope="module")
def copies(tmp_path_factory) -> dict[str, Path]:
    """The same 2400 pictures in every layout; the files hold them without loss."""
    root = tmp_path_factory.mktemp("layouts")
    places = {name: root / name for name in ("tables", "folders", "parts")}
    (places["tables"] / "images").mkdir(parents=True)
    for part, wnids in CLASSES.items():
        for wnid in wnids:
            for place in (places["folders"] / wnid, places["parts"] / part / wnid):
                place.mkdir(parents=True)
            for number in range(600):
                first = places["tables"] / "images" / f"{wnid}{number:08}.jpg"
                buffer = io.BytesIO()
                Image.fromarray(pixels(wnid, number)).save(buffer, "PNG")
                first.write_bytes(buffer.getvalue())
                os.link(first, places["folders"] / wnid / first.name)
                os.link(first, places["parts"] / part / wnid / first.name)
        # Rows of a table's classes are interleaved, as they may be.
        rows = [(f"{wnid}{number:08}.jpg", wnid) for number in range(600) for wnid in wnids]
        write_rows(places["tables"] / f"{part}.csv", rows)
    return places


@pytest.fixture
def mini(copies, tmp_path) -> Path:
    """A copy whose tables a test may spoil; the pictures are shared."""
    root = tmp_path / "mini-imagenet"
    root.mkdir()
    for part in SPLITS:
        shutil.copy(copies["tables"] / f"{part}.csv", root)
    (root / "images").symlink_to(copies["tables"] / "images")
    return root


def content(place: Path, split: str, **options: float) -> set[tuple[str, tuple[int, ...]]]:
    """Class and colour of every picture of a split."""
    source = datasets.open_source("mini-imagenet", split, root=place, **options)
    examples = [source[index] for index in range(len(source))]
    found = {(source.classes[target["label"]], tuple(image[:, 0, 0].tolist())) for image, target in examples}
    assert len(found) == len(source)
    return found


def test_held_out_positions_are_sklearns():
    for count, share, seed in ((600, 0.2, 0), (10, 0.25, 3), (601, 0.2, 1), (7, 0.5, 9)):
        _, expected = train_test_split(range(count), test_size=share, random_state=seed)
        assert held_out_positions(count, share, seed).tolist() == sorted(expected)


def test_the_split_is_the_demos(copies):
    """Redone here row by row with sklearn, as the demo does it."""
    keep, held_out = train_test_split(range(600), test_size=0.2, random_state=0)
    for split, positions in (("train", keep), ("test", held_out)):
        expected = {(wnid, tuple(pixels(wnid, number)[0, 0])) for wnid in WNIDS for number in positions}
        assert content(copies["tables"], split, val_fraction=0) == expected
    source = datasets.open_source("mini-imagenet", "test", root=copies["tables"])
    assert list(source.classes) == sorted(WNIDS)  # as the demo has them
    assert np.bincount(source.labels).tolist() == [120] * 4
    assert source.where(0) == f"{copies['tables']}/{source.filenames[0]}"
    assert Path(source.where(0)).is_file()


def test_val_is_taken_from_train_only(copies):
    whole, test = (content(copies["tables"], split, val_fraction=0) for split in ("train", "test"))
    train, val = (content(copies["tables"], split) for split in ("train", "val"))
    assert train | val == whole
    assert not train & val
    assert len(val) == 4 * 48
    assert content(copies["tables"], "val", seed=1) != val
    assert content(copies["tables"], "test", seed=1, val_fraction=0.5) == test


@pytest.mark.parametrize("layout", ["folders", "parts"])
def test_every_layout_gives_the_same_split(copies, layout):
    for split in ("val", "test"):
        assert content(copies[layout], split) == content(copies["tables"], split)


def test_pictures_of_a_class_may_be_spread_over_the_parts(copies, tmp_path):
    """500 below train, 100 below val, as copies split by picture have it."""
    for wnid in WNIDS:
        for number, path in enumerate(sorted((copies["folders"] / wnid).iterdir())):
            target = tmp_path / ("train" if number < 500 else "val") / wnid
            target.mkdir(parents=True, exist_ok=True)
            os.link(path, target / path.name)
    (tmp_path / "train" / WNIDS[0] / ".DS_Store").write_text("litter")
    assert content(tmp_path, "test") == content(copies["tables"], "test")


def test_fingerprints_tell_copies_and_splits_apart(copies):
    prints = {
        datasets.open_source("mini-imagenet", split, root=place).fingerprint()
        for place in copies.values()
        for split in SPLITS
    }
    assert len(prints) == 9


def test_a_class_of_another_size_is_a_warning_that_says_what_it_means(mini):
    wnid = CLASSES["val"][0]
    rows = [(f"{wnid}{number:08}.jpg", wnid) for number in range(590)]
    write_rows(mini / "val.csv", rows)
    with pytest.warns(
        UserWarning, match=rf"Class {wnid} has 590 pictures .* 1 of 4 classes .* not the demo's"
    ):
        source = datasets.open_source("mini-imagenet", "test", root=mini)
    assert sorted(np.bincount(source.labels)) == [118, 120, 120, 120]


def test_a_copy_that_is_there_is_found_and_not_fetched(copies, mini, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert find_place(tmp_path / "nowhere") is None
    assert datasets.fetch("mini-imagenet", root=tmp_path) == mini
    assert datasets.fetch("mini-imagenet", root=copies["parts"]) == copies["parts"]
    (mini / "val.csv").unlink()
    with pytest.raises(CkfrError, match=r"val\.csv cannot be read"):  # nor one that is not whole
        datasets.fetch("mini-imagenet", root=tmp_path)


def test_the_tables_mistakes_are_named(mini):
    wnid = CLASSES["val"][0]
    rows = [(f"{wnid}{number:08}.jpg", wnid) for number in range(600)]

    def refuses(message: str) -> None:
        with pytest.raises(CkfrError, match=message):
            datasets.open_source("mini-imagenet", "train", root=mini)

    write_rows(mini / "val.csv", [*rows[:-1], ("gone.jpg", wnid)])
    refuses(r"1 of 2400 pictures, first images/gone\.jpg, are missing")


def test_foreign_class_folders_are_named(copies, tmp_path):
    place = tmp_path / "copy"
    shutil.copytree(copies["parts"], place, copy_function=os.link)
    (place / "val" / "geese").mkdir()
    with pytest.raises(CkfrError, match="val/geese is no class folder; expected WordNet ids"):
        datasets.open_source("mini-imagenet", "train", root=place)

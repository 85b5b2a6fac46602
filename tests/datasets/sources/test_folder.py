"""A folder of one's own pictures: layout, tree, boxes, and what is said when something is wrong."""

import shutil

import numpy as np
import pytest
from PIL import Image

from ckfr_helpers import datasets
from ckfr_helpers.runtime import CkfrError

TREE = "parent,child\nthing,animal\nthing,tool\nanimal,cat\nanimal,dog\ntool,saw\n"


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 2)):
        for name in ("cat", "dog", "saw"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 255, (20 + number, 30, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{number}.png")
    (tmp_path / "hierarchy.csv").write_text(TREE)
    (tmp_path / "boxes.csv").write_text(
        "file,x0,y0,x1,y1\ntest/cat/0.png,1,2,10,12\ntest/cat/0.png,15,0,20,5\n"
    )
    return tmp_path


def test_pictures_labels_tree_and_boxes(folder):
    test = datasets.open_source("folder", "test", root=folder)
    assert test.classes == ("cat", "dog", "saw")
    assert test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert test.hierarchy.distances("path")[0].tolist() == [0, 2, 4]
    first = test[0]
    assert first[0].shape == (3, 20, 30)
    with Image.open(folder / "test" / "cat" / "0.png") as picture:
        np.testing.assert_array_equal(first[0].permute(1, 2, 0).numpy(), np.array(picture))
    assert first[1]["boxes"].tolist() == [[1, 2, 10, 12], [15, 0, 20, 5]]
    assert "boxes" not in test[1][1]


def test_validation_is_carved_out_of_training_unless_it_has_a_folder(folder):
    train, val = (datasets.open_source("folder", s, root=folder, val_fraction=0.3) for s in ("train", "val"))
    assert np.bincount(train.labels).tolist() == [7, 7, 7]
    assert np.bincount(val.labels).tolist() == [3, 3, 3]
    seen = [
        {tuple(source[i][0].flatten()[:20].tolist()) for i in range(len(source))} for source in (train, val)
    ]
    assert not seen[0] & seen[1]
    for name in ("cat", "dog", "saw"):
        (folder / "val" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / "val" / name / "only.png")
    assert len(datasets.open_source("folder", "train", root=folder)) == 30
    assert len(datasets.open_source("folder", "val", root=folder)) == 3


def test_wordnet_ids_need_no_tree(folder):
    (folder / "hierarchy.csv").unlink()
    (folder / "boxes.csv").unlink()
    for split in ("train", "test"):
        for old, new in (("cat", "n02123045"), ("dog", "n02084071"), ("saw", "n04140064")):
            (folder / split / old).rename(folder / split / new)
    source = datasets.open_source("folder", "test", root=folder)
    distances = source.hierarchy.distances("path")
    assert distances[0, 1] < distances[0, 2]


def test_class_folders_alone_are_split_by_the_seed(folder):
    shutil.rmtree(folder / "test")
    for name in ("cat", "dog", "saw"):
        (folder / "train" / name).rename(folder / name)
    (folder / "train").rmdir()
    (folder / "boxes.csv").write_text(
        "file,x0,y0,x1,y1\n" + "".join(f"cat/{n}.png,1,2,3,4\n" for n in range(10))
    )
    parts = {split: datasets.open_source("folder", split, root=folder) for split in ("train", "val", "test")}
    assert {split: np.bincount(part.labels).tolist() for split, part in parts.items()} == {
        "train": [7, 7, 7],
        "val": [1, 1, 1],
        "test": [2, 2, 2],
    }
    files = [part.where(index) for part in parts.values() for index in range(len(part))]
    assert len(set(files)) == 30
    assert all("boxes" in part[0][1] for part in parts.values())  # the first class is cat
    again = datasets.open_source("folder", "test", root=folder, val_fraction=0.3)
    assert [again.where(i) for i in range(6)] == [parts["test"].where(i) for i in range(6)]
    other = datasets.open_source("folder", "test", root=folder, seed=1)
    assert other.fingerprint() != again.fingerprint()


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ("9,2,3,3", "expected 0 <= x0 <= x1"),
        ("1,2,a,3", "are no numbers"),
        ("1,2,inf,3", "expected 0 <= x0 <= x1"),
        ("0.1,0.2,0.5,1", "a share of the picture; expected pixels"),
    ],
)
def test_a_box_that_is_none_names_its_line_and_file(folder, box, said):
    (folder / "boxes.csv").write_text(f"file,x0,y0,x1,y1\ntest/cat/1.png,0,0,1,1\ntest/cat/0.png,{box}\n")
    with pytest.raises(CkfrError, match=rf"Line 3 of .*boxes\.csv .*{said}"):
        datasets.open_source("folder", "test", root=folder)


def test_an_end_just_outside_the_picture_is_its_last_pixel_and_one_further_out_is_refused(folder):
    (folder / "boxes.csv").write_text("file,x0,y0,x1,y1\ntest/cat/0.png,1,2,300,12\n")
    with pytest.raises(CkfrError, match=r"box of .*test/cat/0\.png leaves its 30 x 20 pixels"):
        datasets.open_source("folder", "test", root=folder)[0]
    (folder / "boxes.csv").write_text("file,x0,y0,x1,y1\ntest/cat/0.png,0,0,30,20\n")
    assert datasets.open_source("folder", "test", root=folder)[0][1]["boxes"].tolist() == [[0, 0, 29, 19]]


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("boxes.csv", "file,x0,y0,x1,y1\ntest/cat/9.png,1,2,3,4\n", "test/cat/9.png"),
        ("hierarchy.csv", "from,to\n", "no column 'parent'"),
    ],
)
def test_a_malformed_table_is_named(folder, file, text, said):
    (folder / file).write_text(text)
    with pytest.raises(CkfrError, match=said) as caught:
        datasets.open_source("folder", "test", root=folder)
    assert file in str(caught.value)


def test_missing_parts_are_named(folder, tmp_path):
    with pytest.raises(CkfrError, match="no class folders in"):
        datasets.open_source("folder", "test", root=tmp_path / "nowhere")
    (folder / "train" / "cat" / "0.png").write_bytes(b"no picture")
    with pytest.raises(CkfrError, match=r"train/cat/0\.png cannot be decoded"):
        datasets.open_source("folder", "train", root=folder, val_fraction=0)[0]
    (folder / "hierarchy.csv").unlink()
    with pytest.raises(CkfrError, match="parent,child"):
        datasets.open_source("folder", "test", root=folder)
    (folder / "hierarchy.csv").write_text(TREE)
    (folder / "test" / "ant").mkdir()
    with pytest.raises(CkfrError, match="'ant' is in one of train/ and test/ only"):
        datasets.open_source("folder", "test", root=folder)
    shutil.rmtree(folder / "test")
    with pytest.raises(CkfrError, match=r"has train/; expected class folders in train/ and test/"):
        datasets.open_source("folder", "train", root=folder)
    with pytest.raises(CkfrError, match="to fetch"):
        datasets.fetch("folder")

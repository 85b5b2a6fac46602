"""COCO 2014 in its own layout, against torchvision's reader, and its archives."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from local_server import serve
from PIL import Image
from torchvision.datasets import CocoDetection

from ckfr_helpers import datasets
from ckfr_helpers.hierarchy import wordnet
from ckfr_helpers.runtime import CkfrError

NAMES = wordnet.class_names("coco")
CATEGORIES = [(1, "person"), (3, "car"), (10, "traffic light"), (90, "toothbrush")]  # some of COCO's ids
TRAIN = {  # by the picture's id: category, x, y, width, height, crowd
    9: [(90, 1.5, 2.0, 6.25, 3.5, 0), (10, 0, 0, 12, 9, 0)],
    30: [],
    25: [(1, 2, 1, 8, 8, 1), (3, 4.0, 3.0, 0.5, 2, 0)],
    34: [(1, 2, 1, 8, 8, 1)],
}
VAL = {42: [(3, 1, 1, 5, 5, 0), (3, 6, 1, 5, 5, 0)], 73: []}


def table(part: str, pictures: dict) -> dict:
    annotations = [
        {"id": 100 * key + k, "image_id": key, "category_id": kind, "bbox": [x, y, w, h], "iscrowd": crowd}
        for key, rows in pictures.items()
        for k, (kind, x, y, w, h, crowd) in enumerate(rows)
    ]  # fmt: skip
    return {
        "images": [{"id": key, "file_name": f"COCO_{part}_{key:012}.jpg"} for key in pictures],
        "categories": [{"id": key, "name": name} for key, name in CATEGORIES],
        "annotations": annotations,
    }


@pytest.fixture
def coco(tmp_path) -> Path:
    """Four training and two validation pictures, 12 × 9 pixels; one of each without an object."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    for part, pictures in (("train2014", TRAIN), ("val2014", VAL)):
        (root / part).mkdir()
        (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(table(part, pictures)))
        for key in pictures:
            pixels = np.random.default_rng(key).integers(0, 256, (9, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / part / f"COCO_{part}_{key:012}.jpg")
    return root


def test_pictures_boxes_and_labels_are_torchvisions(coco):
    source = datasets.open_source("coco", "train", root=coco, val_fraction=0)
    assert source.classes == wordnet.class_list("coco")
    own = CocoDetection(coco / "train2014", coco / "annotations" / "instances_train2014.json")
    names = dict(CATEGORIES)
    seen = [index for index in range(len(own)) if own[index][1]]
    assert len(source) == len(seen) == 3  # the picture without an object is left out
    for (image, target), index in zip((source[k] for k in range(3)), seen, strict=True):
        picture, rows = own[index]
        assert torch.equal(image, torch.from_numpy(np.array(picture)).permute(2, 0, 1))
        assert [NAMES[label].replace("_", " ") for label in target["box_labels"]] == [
            names[row["category_id"]] for row in rows
        ]
        assert target["difficult"].tolist() == [bool(row["iscrowd"]) for row in rows]
        for box, row in zip(target["boxes"].tolist(), rows, strict=True):
            x, y, width, height = row["bbox"]
            assert box == [x, y, x + max(width, 1) - 1, y + max(height, 1) - 1]
        present = {NAMES[label] for label in target["labels"].nonzero()[:, 0]}
        assert present == {names[row["category_id"]].replace(" ", "_") for row in rows}


def test_a_crowd_is_difficult_and_still_a_label(coco):
    source = datasets.open_source("coco", "train", root=coco.parent, val_fraction=0)
    assert [NAMES[label] for label in source.labels] == ["toothbrush", "car", "person"]
    assert source[2][1]["difficult"].tolist() == [True]
    assert source[2][1]["labels"].sum() == 1


def test_the_papers_split(coco):
    train, val = (
        datasets.open_source("coco", split, root=coco, val_fraction=0.3) for split in ("train", "val")
    )
    assert (len(train), len(val)) == (2, 1)
    assert all(name.startswith("train2014/") for name in train.filenames + val.filenames)
    test = datasets.open_source("coco", "test", root=coco)
    assert test.filenames == ("val2014/COCO_val2014_000000000042.jpg",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("categories"), "KeyError: 'categories'"),
        (lambda content: content["annotations"][0].update(bbox=[1, 2, -3, 4]), "of object 900 is reversed"),
        (lambda content: content["annotations"][0].update(bbox=[1, 2]), "not enough values"),
        (lambda content: content["annotations"][0].update(category_id=2), "KeyError: 2"),
        (lambda content: content["annotations"][0].update(image_id=1), "KeyError: 1"),
        (lambda content: content["categories"].append({"id": 91, "name": "unicorn"}), "ValueError"),
    ],
)
def test_damaged_annotations_are_named(coco, change, message):
    path = coco / "annotations" / "instances_train2014.json"
    content = table("train2014", TRAIN)
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(CkfrError, match=message) as caught:
        datasets.open_source("coco", "train", root=coco)
    assert str(path) in str(caught.value)


def test_half_a_file_a_missing_picture_and_no_object_are_named(coco):
    path = coco / "annotations" / "instances_train2014.json"
    path.write_text(path.read_text()[:200])
    with pytest.raises(CkfrError, match="JSONDecodeError"):
        datasets.open_source("coco", "train", root=coco)
    path.write_text("[]")
    with pytest.raises(CkfrError, match="is no annotation file of COCO"):
        datasets.open_source("coco", "train", root=coco)
    (coco / "val2014" / "COCO_val2014_000000000042.jpg").unlink()
    with pytest.raises(
        CkfrError, match=r"1 of 1 pictures, first val2014/COCO_val2014_0+42\.jpg, are missing"
    ):
        datasets.open_source("coco", "test", root=coco)
    empty = table("val2014", {73: []})
    (coco / "annotations" / "instances_val2014.json").write_text(json.dumps(empty))
    with pytest.raises(CkfrError, match="lists no picture with an object for test"):
        datasets.open_source("coco", "test", root=coco)


def test_the_archives_are_brought_and_unpacked(coco, tmp_path):
    contents = {}
    for part in ("annotations", "train2014", "val2014"):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for file in sorted((coco / part).iterdir()):
                archive.write(file, f"{part}/{file.name}")
        contents[f"/{part}.zip"] = buffer.getvalue()
    with serve() as site:
        site.files.update(contents)
        archives = {
            site.url + path: f"md5:{hashlib.md5(data).hexdigest()}" for path, data in contents.items()
        }
        folder = datasets.fetch("coco", root=tmp_path / "data", archives=archives)
        site.asked.clear()
        assert datasets.fetch("coco", root=tmp_path / "data", archives=archives) == folder
        assert site.asked == []
    assert [entry.name for entry in (tmp_path / "data").iterdir()] == ["coco"]
    found = [
        datasets.open_source("coco", split, root=tmp_path / "data") for split in ("train", "val", "test")
    ]
    assert [len(source) for source in found] == [2, 1, 1]

"""VOC 2007 in its own layout: pictures, annotations, difficult objects, and its two archives."""

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from local_server import serve
from PIL import Image

from ckfr_helpers import datasets
from ckfr_helpers.hierarchy import wordnet
from ckfr_helpers.runtime import CkfrError

NAMES = wordnet.class_names("voc2007")
OBJECTS = {  # VOC's own numbers, which start at 1: class, difficult, xmin, ymin, xmax, ymax
    "000001": [("dog", 0, 1, 1, 8, 6), ("person", 0, 3, 2, 12, 9)],
    "000002": [("person", 1, 1, 1, 2, 2), ("cat", 0, 4, 4, 9, 9), ("cat", 1, 1, 4, 3, 9)],
    "000003": [("bus", 1, 2, 2, 5, 5)],
    "000004": [("tvmonitor", 0, 1, 1, 12, 9)],
    "000005": [("sheep", 0, 2, 3, 4, 5), ("sheep", 0, 6, 6, 8, 8)],
}


def annotation(rows: list[tuple]) -> str:
    found = "".join(
        f"<object><name>{name}</name><pose>Left</pose><difficult>{hard}</difficult><bndbox>"
        f"<xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>\n"
        for name, hard, x0, y0, x1, y1 in rows
    )
    return f"<annotation><folder>VOC2007</folder><size><width>12</width></size>{found}</annotation>"


@pytest.fixture
def voc(tmp_path) -> Path:
    """Four pictures in trainval and one in test, 12 × 9 pixels."""
    place = tmp_path / "VOCdevkit" / "VOC2007"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (place / folder).mkdir(parents=True)
    for number, (name, rows) in enumerate(OBJECTS.items()):
        pixels = np.random.default_rng(number).integers(0, 256, (9, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / "JPEGImages" / f"{name}.jpg")
        (place / "Annotations" / f"{name}.xml").write_text(annotation(rows))
    (place / "ImageSets" / "Main" / "trainval.txt").write_text("000001\n000002\n000003\n000004\n")
    (place / "ImageSets" / "Main" / "test.txt").write_text("000005\n")
    return place


def test_pictures_boxes_and_labels(voc):
    source = datasets.open_source("voc2007", "train", root=voc.parents[1], val_fraction=0)
    assert source.classes == wordnet.class_list("voc2007")
    assert [Path(source.where(k)).stem for k in range(4)] == list(OBJECTS)[:4]
    assert [NAMES[label] for label in source.labels] == ["dog", "cat", "bus", "tvmonitor"]
    image, target = source[0]
    assert image.shape == (3, 9, 12)
    assert target["label"] == NAMES.index("dog")
    assert target["boxes"].tolist() == [[0, 0, 7, 5], [2, 1, 11, 8]]  # from 0, both ends inside
    assert target["boxes"].canvas_size == (9, 12)
    assert [NAMES[label] for label in target["box_labels"]] == ["dog", "person"]
    assert target["difficult"].tolist() == [False, False]
    assert target["labels"].dtype == torch.float32
    assert {NAMES[k] for k in target["labels"].nonzero()[:, 0]} == {"dog", "person"}


def test_difficult_objects_have_boxes_but_are_no_labels(voc):
    source = datasets.open_source("voc2007", "train", root=voc.parents[1], val_fraction=0)
    target = source[1][1]
    assert target["difficult"].tolist() == [True, False, True]
    assert len(target["boxes"]) == 3
    assert target["labels"].nonzero().flatten().tolist() == [NAMES.index("cat")]
    assert target["label"] == NAMES.index("cat")  # the first one that counts
    alone = source[2][1]
    assert alone["labels"].sum() == 0
    assert alone["label"] == NAMES.index("bus")


def test_val_is_a_share_of_trainval_and_test_is_vocs_own(voc):
    train, val, test = (
        datasets.open_source("voc2007", split, root=voc.parents[1], **options)
        for split, options in (
            ("train", {"val_fraction": 0.25}),
            ("val", {"val_fraction": 0.25}),
            ("test", {}),
        )
    )
    assert (len(train), len(val)) == (3, 1)
    assert sorted(train.filenames + val.filenames) == [f"JPEGImages/{name}.jpg" for name in list(OBJECTS)[:4]]
    assert test.filenames == ("JPEGImages/000005.jpg",)
    assert test[0][1]["boxes"].tolist() == [[1, 2, 3, 4], [5, 5, 7, 7]]
    assert test[0][1]["labels"].sum() == 1
    before = test.fingerprint()
    (voc / "Annotations" / "000005.xml").write_text(annotation([("sheep", 0, 2, 3, 4, 6)]))
    assert datasets.open_source("voc2007", "test", root=voc.parents[1]).fingerprint() != before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation><object>", "ParseError"),
        (annotation([("unicorn", 0, 1, 1, 2, 2)]), "KeyError: 'unicorn'"),
        (annotation([("dog", 0, 5, 1, 2, 2)]), "is empty, reversed or outside"),
        (annotation([("dog", 0, 0, 1, 2, 2)]), "is empty, reversed or outside"),
        (annotation([("dog", 0, "one", 1, 2, 2)]), "could not convert"),
        (annotation([]), "lists no object"),
        ("<annotation><object><name>dog</name></object></annotation>", "KeyError: 'bndbox'"),
    ],
)
def test_a_damaged_annotation_is_named(voc, text, message):
    (voc / "Annotations" / "000003.xml").write_text(text)
    with pytest.raises(CkfrError, match=message) as caught:
        datasets.open_source("voc2007", "train", root=voc.parents[1])
    assert str(voc / "Annotations" / "000003.xml") in str(caught.value)


def test_what_is_missing_is_named(voc):
    (voc / "Annotations" / "000002.xml").unlink()
    with pytest.raises(CkfrError, match=r"000002\.xml is no annotation .*FileNotFoundError"):
        datasets.open_source("voc2007", "train", root=voc.parents[1])
    (voc / "JPEGImages" / "000005.jpg").unlink()
    with pytest.raises(CkfrError, match=r"1 of 1 pictures, first JPEGImages/000005\.jpg, are missing"):
        datasets.open_source("voc2007", "test", root=voc.parents[1])
    (voc / "ImageSets" / "Main" / "test.txt").unlink()
    with pytest.raises(CkfrError, match=r"expected .*test\.txt; `ckfr fetch voc2007` brings it"):
        datasets.open_source("voc2007", "test", root=voc.parents[1])


def test_a_box_beyond_its_picture_is_refused_when_it_is_read(voc):
    (voc / "Annotations" / "000005.xml").write_text(annotation([("sheep", 0, 2, 3, 40, 5)]))
    source = datasets.open_source("voc2007", "test", root=voc.parents[1])
    with pytest.raises(CkfrError, match=r"000005\.jpg leaves its 12 x 9 pixels"):
        source[0]


def packed(place: Path, part: str) -> bytes:
    """An archive of VOC's: everything of the part, below VOCdevkit/VOC2007/."""
    names = (place / "ImageSets" / "Main" / f"{part}.txt").read_text().split()
    files = [f"ImageSets/Main/{part}.txt"]
    files += [
        f"{folder}/{name}.{end}"
        for name in names
        for folder, end in (("JPEGImages", "jpg"), ("Annotations", "xml"))
    ]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for file in files:
            archive.add(place / file, f"VOCdevkit/VOC2007/{file}")
    return buffer.getvalue()


def test_both_archives_are_brought_and_an_interruption_keeps_the_first(voc, tmp_path):
    target = tmp_path / "data"
    contents = {f"/{part}.tar": packed(voc, part) for part in ("trainval", "test")}
    with serve() as site:
        site.files.update(contents)
        site.faults["/test.tar"] = "missing"
        archives = {
            site.url + path: f"md5:{hashlib.md5(data).hexdigest()}" for path, data in contents.items()
        }
        with pytest.raises(CkfrError, match="could not be downloaded"):
            datasets.fetch("voc2007", root=target, archives=archives)
        site.faults.clear()
        site.asked.clear()
        folder = datasets.fetch("voc2007", root=target, archives=archives)
        assert set(site.asked) == {"/test.tar"}
        site.asked.clear()
        assert datasets.fetch("voc2007", root=target, archives=archives) == folder
        assert site.asked == []
        assert [entry.name for entry in (target / "VOCdevkit").iterdir()] == ["VOC2007"]
        for split, count in (("train", 3), ("val", 1), ("test", 1)):
            assert len(datasets.open_source("voc2007", split, root=target)) == count
        (folder / "ImageSets" / "Main" / "test.txt").unlink()
        with pytest.raises(CkfrError, match="is there already, but not whole; move it away"):
            datasets.fetch("voc2007", root=target, archives=archives)

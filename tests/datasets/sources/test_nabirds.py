"""A small folder in NABirds' layout: official split, tree, boxes, places by name, and what is damaged."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from ckfr_helpers.datasets import open_source
from ckfr_helpers.datasets.base import SPLITS
from ckfr_helpers.datasets.sources.nabirds import LOCATIONS
from ckfr_helpers.runtime import CkfrError

LEAVES = {295: "Common Loon (Breeding)", 313: "Mallard", 1010: "Wood Duck"}
CLASSES = {0: "Birds", 1: "Ducks", 2: "Loons", **LEAVES}
PARENTS = {1: 0, 2: 0, 295: 2, 313: 1, 1010: 1}
PER_CLASS = 6  # four to train, two to test
PICTURES = [(f"{c:04d}-{k}", c, k < 4) for c in LEAVES for k in range(PER_CLASS)]


@pytest.fixture
def root(tmp_path):
    place = tmp_path / "nabirds"

    def write(name, rows):
        (place / name).write_text("".join(f"{' '.join(map(str, row))}\n" for row in rows))

    place.mkdir()
    for number, (name, owner, _) in enumerate(PICTURES):
        path = place / "images" / f"{owner:04d}" / f"{name.replace('-', '')}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 30, 3), 10 * number, np.uint8)).save(path)
    write("images.txt", [(name, f"{owner:04d}/{name.replace('-', '')}.jpg") for name, owner, _ in PICTURES])
    write("image_class_labels.txt", [(name, owner) for name, owner, _ in PICTURES])
    write("train_test_split.txt", [(name, int(train)) for name, _, train in PICTURES])
    write("bounding_boxes.txt", [(name, 3, 4, 10, 12) for name, *_ in PICTURES])
    write("classes.txt", CLASSES.items())
    write("hierarchy.txt", PARENTS.items())
    write_locations(place, lambda number: (-100.0 - number, 40.0 + number, number / 20))
    return tmp_path


def write_locations(place, values):
    """Its three lists do not follow the official split; two pictures have no place, one is not in it."""
    rows = []
    for number, (name, owner, _) in enumerate(PICTURES[:-1]):
        lon, lat, date = (math.nan, None, 0.5) if number in (1, 16) else values(number)
        meta = {"lon": lon, "lat": lat, "date": date, "user_id": None}
        path = f"images/{owner:04d}/{name.replace('-', '')}.jpg"
        rows.append({"im_path": path, "class_id": 0, "valid_image": True, "ebird_meta": meta})
    lists = {"train": rows[:5], "val": rows[5:6], "test": rows[6:], "classes": []}
    (place / LOCATIONS).write_text(json.dumps(lists))


def test_splits_are_the_official_ones_and_no_picture_is_dropped(root):
    parts = {split: open_source("nabirds", split, root, val_fraction=0.25) for split in SPLITS}
    assert [len(part) for part in parts.values()] == [9, 3, 6]
    kept = {name for part in parts.values() for name in part.filenames}
    assert len(kept) == len(PICTURES)
    official = {f"images/{c:04d}/{name.replace('-', '')}.jpg" for name, c, train in PICTURES if not train}
    assert set(parts["test"].filenames) == official
    for part in parts.values():
        assert part.classes == ("295", "313", "1010")
        assert part.hierarchy.names == tuple(LEAVES.values())
    assert parts["test"].hierarchy.distances("lca_height")[1].tolist() == [2, 0, 1]


def test_places_go_with_their_pictures_by_name_and_missing_ones_are_nan(root):
    for split in ("train", "test"):
        part = open_source("nabirds", split, root, val_fraction=0)
        for i, name in enumerate(part.filenames):
            image, target = part[i]
            number = round(float(image.float().mean()) / 10)
            note = target["metadata"]
            assert target["label"] == number // PER_CLASS
            assert name.endswith(f"{PICTURES[number][0].replace('-', '')}.jpg")
            assert target["boxes"].tolist() == [[3, 4, 12, 15]]
            if number in (1, 16, 17):
                assert math.isnan(note["longitude"])
                assert math.isnan(note["latitude"])
            else:
                assert note == {"longitude": -100 - number, "latitude": 40 + number, "date": number / 20}


def test_the_fingerprint_sees_another_place(root):
    before = open_source("nabirds", "train", root).fingerprint()
    assert open_source("nabirds", "train", root).fingerprint() == before
    write_locations(root / "nabirds", lambda number: (-99.0, 40.0, 1.0))
    after = open_source("nabirds", "train", root)
    assert after.fingerprint() != before
    assert np.nanmax(after.notes.date) == 0.5  # the end of the year is its beginning


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda place: (place / LOCATIONS).unlink(), f"There is no .*{LOCATIONS}; .*geo_prior"),
        (
            lambda place: (place / LOCATIONS).write_text('{"train": ['),
            "no location file .*JSONDecodeError",
        ),
        (lambda place: (place / LOCATIONS).write_text('{"train": []}'), "is no location file .*'val'"),
        (lambda place: write_locations(place, lambda n: (40.0, -100.0, 0.1)), "latitude .* columns swapped"),
        (lambda place: write_locations(place, lambda n: (math.nan,) * 3), "no place for any of the pictures"),
        (lambda place: (place / "images.txt").unlink(), "NABirds is not here: .*Cornell Lab"),
        (
            lambda place: (place / "hierarchy.txt").write_text("2 0\n295 2\n313 0\n"),
            "Class '1010' is in no",
        ),
        (lambda place: (place / "classes.txt").write_text("0\n"), "Line 1 of .*classes.txt has one word"),
        (lambda place: (place / "train_test_split.txt").write_text("0295-0 1\n"), "0295-1 is in one of"),
        (lambda place: (place / "bounding_boxes.txt").write_text("0295-0 1 2\n"), "expected four numbers"),
    ],
)
def test_what_is_damaged_is_one_sentence(root, damage, sentence):
    damage(root / "nabirds")
    with pytest.raises(CkfrError, match=sentence):
        open_source("nabirds", "train", root)

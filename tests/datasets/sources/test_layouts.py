"""mini-ImageNet's other layouts: class folders and few-shot pickles give what the demo's own gives."""

import collections
import csv
import io
import itertools
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ckfr_helpers import datasets
from ckfr_helpers.datasets.sources.mini_imagenet import find_place
from ckfr_helpers.datasets.sources.mini_imagenet_layouts import PARTS, layout_at
from ckfr_helpers.runtime import CkfrError

# As few-shot learning splits them, in no order.
CLASSES = {"train": ["n03400231", "n02129165"], "val": ["n02676566"], "test": ["n02129604"]}


def pixels(wnid: str, number: int) -> np.ndarray:
    """(4, 4, 3) uint8, one colour, different for every picture."""
    return np.full((4, 4, 3), (int(wnid[-2:]), number // 250, number % 250), dtype=np.uint8)


@pytest.fixture(scope="module")
def copies(tmp_path_factory) -> dict[str, Path]:
    """The same 2400 pictures in every layout; the files hold them without loss."""
    root = tmp_path_factory.mktemp("layouts")
    places = {name: root / name for name in ("csv", "folders", "parts", "pickles")}
    (places["csv"] / "images").mkdir(parents=True)
    places["pickles"].mkdir()
    for part, wnids in CLASSES.items():
        rows, images, members = [("filename", "label")], [], {}
        for wnid in wnids:
            for place in (places["folders"] / wnid, places["parts"] / part / wnid):
                place.mkdir(parents=True)
            members[wnid] = list(range(len(images), len(images) + 600))
            for number in range(600):
                name = f"{wnid}{number:08}.jpg"
                rows.append((name, wnid))
                images.append(pixels(wnid, number))
                buffer = io.BytesIO()
                Image.fromarray(images[-1]).save(buffer, "PNG")
                first = places["csv"] / "images" / name
                first.write_bytes(buffer.getvalue())
                os.link(first, places["folders"] / wnid / name)
                os.link(first, places["parts"] / part / wnid / name)
        with open(places["csv"] / f"{part}.csv", "w", newline="") as file:
            csv.writer(file).writerows(rows)
        content = {"image_data": np.stack(images), "class_dict": members}
        (places["pickles"] / f"mini-imagenet-cache-{part}.pkl").write_bytes(pickle.dumps(content, protocol=2))
    return places


def content(place: Path, split: str) -> list[tuple[str, tuple[int, ...]]]:
    source = datasets.open_source("mini-imagenet", split, root=place)
    examples = (source[index] for index in range(len(source)))
    assert source[0][0].shape == (3, 4, 4)
    return sorted((source.classes[one[1]["label"]], tuple(one[0][:, 0, 0].tolist())) for one in examples)


@pytest.mark.parametrize("split", PARTS)
def test_every_layout_gives_the_same_split(copies, split):
    expected = content(copies["csv"], split)
    assert len(expected) == {"train": 4 * 432, "val": 4 * 48, "test": 4 * 120}[split]
    for layout in ("folders", "parts", "pickles"):
        assert content(copies[layout], split) == expected


def test_pictures_of_a_class_may_be_spread_over_the_parts(copies, tmp_path):
    """500 below train, 100 below val, as copies split by picture have it."""
    for wnid in itertools.chain(*CLASSES.values()):
        for number, path in enumerate(sorted((copies["folders"] / wnid).iterdir())):
            target = tmp_path / ("train" if number < 500 else "val") / wnid
            target.mkdir(parents=True, exist_ok=True)
            os.link(path, target / path.name)
    (tmp_path / "train" / CLASSES["train"][0] / ".DS_Store").write_text("litter")
    assert content(tmp_path, "test") == content(copies["csv"], "test")


def test_the_folder_is_found_below_the_root_too(copies, tmp_path):
    assert find_place(tmp_path) is None
    (tmp_path / "mini-imagenet").symlink_to(copies["pickles"])
    assert find_place(tmp_path) == tmp_path / "mini-imagenet"
    assert datasets.fetch("mini-imagenet", root=tmp_path) == tmp_path / "mini-imagenet"


def test_fingerprints_tell_copies_and_splits_apart(copies):
    prints = {
        datasets.open_source("mini-imagenet", split, root=place).fingerprint()
        for place in copies.values()
        for split in PARTS
    }
    assert len(prints) == 12


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("container", [dict, collections.OrderedDict])
def test_pickles_of_any_age_are_read(copies, tmp_path, protocol, container):
    for part in PARTS:
        with open(copies["pickles"] / f"mini-imagenet-cache-{part}.pkl", "rb") as file:
            whole = pickle.load(file)
        whole["class_dict"] = container(
            (key, range(v[0], v[-1] + 1)) for key, v in whole["class_dict"].items()
        )
        name = "validation" if part == "val" else part  # learn2learn's name
        (tmp_path / f"mini-imagenet-cache-{name}.pkl").write_bytes(pickle.dumps(whole, protocol=protocol))
    layout = layout_at(tmp_path)(tmp_path)
    assert len(layout.names) == 2400
    for position in (0, 777, 2399):
        wnid = layout.wnids[position]
        assert torch.equal(
            layout.image(position), torch.from_numpy(pixels(wnid, position % 600)).permute(2, 0, 1)
        )


class Harmful:
    def __reduce__(self):
        return print, ("this must never be printed",)


IMAGES = np.zeros((4, 84, 84, 3), dtype=np.uint8)
ROWS = {"n02129165": [0, 1], "n02129604": [2, 3]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"image_data": Harmful(), "class_dict": {}},
            "is refused as a few-shot pickle.*print",
        ),
        ({"image_data": IMAGES}, "is no few-shot pickle of mini-ImageNet; expected image_data"),
        ([1, 2], "is no few-shot pickle"),
        ({"image_data": IMAGES[..., 0], "class_dict": ROWS}, r"uint8 \(4, 84, 84\); expected image_data"),
        ({"image_data": IMAGES / 255, "class_dict": ROWS}, r"image_data of float64 \(4, 84, 84, 3\)"),
        ({"image_data": "pixels", "class_dict": ROWS}, "image_data of str"),
        ({"image_data": IMAGES, "class_dict": {"goose": [0, 1, 2, 3]}}, "names a class 'goose'"),
        ({"image_data": IMAGES, "class_dict": {"n02129165": 3}}, "lists no pictures for class n02129165"),
        ({"image_data": IMAGES, "class_dict": {"n02129165": [0, 1]}}, "lists 2 places among 4 pictures"),
        ({"image_data": IMAGES, "class_dict": ROWS}, "Class n02129165 has 6 rows in its pickles"),
    ],
)
def test_foreign_and_damaged_pickles_are_named(tmp_path, capsys, content, message):
    for part in PARTS:
        path = tmp_path / f"mini-imagenet-cache-{part}.pkl"
        path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(CkfrError, match=message) as caught:
        datasets.open_source("mini-imagenet", "train", root=tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("data", [b"", b"\x80\x02}q", b"<html>", pickle.dumps(IMAGES)[:500]])
def test_torn_pickles_are_named(copies, tmp_path, data):
    shutil.copytree(copies["pickles"], tmp_path, dirs_exist_ok=True)
    torn = tmp_path / "mini-imagenet-cache-test.pkl"
    torn.write_bytes(data)
    with pytest.raises(CkfrError, match=r"mini-imagenet-cache-test\.pkl is not a few-shot pickle"):
        datasets.open_source("mini-imagenet", "train", root=tmp_path)
    torn.unlink()
    with pytest.raises(CkfrError, match=r"mini-imagenet-cache-test\.pkl is missing from"):
        datasets.open_source("mini-imagenet", "train", root=tmp_path)


def test_foreign_and_damaged_class_folders_are_named(copies, tmp_path):
    place = tmp_path / "copy"
    shutil.copytree(copies["parts"], place, copy_function=os.link)
    wnid = CLASSES["val"][0]

    def refuses(message: str) -> None:
        with pytest.raises(CkfrError, match=message):
            datasets.open_source("mini-imagenet", "train", root=place)

    (place / "val" / wnid / "notes.txt").write_text("mine")
    refuses(f"{wnid}/notes.txt is no picture; expected JPEG or PNG")
    (place / "val" / wnid / "notes.txt").unlink()
    (place / "val" / "geese").mkdir()
    refuses("val/geese is no class folder; expected WordNet ids")
    (place / "val" / "geese").rmdir()
    first = place / "val" / wnid / f"{wnid}00000000.jpg"
    first.rename(tmp_path / "away.jpg")
    refuses(f"Class {wnid} has 599 rows in its class folders")
    first.write_bytes(b"no picture")
    source = datasets.open_source("mini-imagenet", "train", root=place, val_fraction=0)
    if f"val/{wnid}/{first.name}" not in source.filenames:
        source = datasets.open_source("mini-imagenet", "test", root=place)
    with pytest.raises(CkfrError, match=f"{first.name} cannot be decoded"):
        source[source.filenames.index(f"val/{wnid}/{first.name}")]


def test_a_link_that_leads_in_a_circle_is_no_folder(tmp_path):
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    assert layout_at(tmp_path) is None

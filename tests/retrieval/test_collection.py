"""Collections on disk: every kind of picture, a build that is killed, pictures that come and go."""

import itertools
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ckfr_helpers.models.classifier import Classifier
from ckfr_helpers.retrieval import collection as module
from ckfr_helpers.retrieval.collection import build, open_collection
from ckfr_helpers.retrieval.descriptors import describe, describe_classes
from ckfr_helpers.retrieval.pictures import (
    Recipe,
    describe_pictures,
    fit,
    likeliest,
    picture_features,
    read_picture,
)
from ckfr_helpers.runtime import CkfrError

RECIPE = Recipe(size=64)


def small(seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    stages = nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.BatchNorm2d(8), nn.ReLU())
    neck = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
    return Classifier(stages, neck, nn.Linear(8, 5), name="small", gap_linear=True)


@pytest.fixture
def model() -> Classifier:
    return small()


@pytest.fixture
def folder(tmp_path):
    """Nine good pictures of two shapes in two folders."""
    draw = np.random.default_rng(0)
    (tmp_path / "pictures" / "more").mkdir(parents=True)
    for number in range(9):
        shape = (40, 60) if number % 3 else (60, 40)
        place = tmp_path / "pictures" / ("more" if number > 6 else "") / f"{number}.png"
        Image.fromarray(draw.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(place)
    return tmp_path / "pictures"


def one_by_one(model: Classifier, folder, names) -> torch.Tensor:
    model.eval()
    pictures = [fit(read_picture(folder / name), RECIPE.size)[None] for name in names]
    return torch.cat([describe(picture_features(model, one), "gem") for one in pictures])


def test_rows_are_the_descriptors_of_the_pictures_one_by_one(folder, tmp_path, model):
    found = build(folder, tmp_path / "out", model, RECIPE, origin={"model": "small"}, progress=False)
    assert model.training  # left as it was
    assert found.names == tuple(sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png")))
    torch.testing.assert_close(
        torch.from_numpy(np.array(found.descriptors)), one_by_one(model, folder, found.names)
    )
    assert isinstance(found.descriptors, np.memmap)
    assert np.array_equal(np.load(tmp_path / "out" / "descriptors.npy"), found.descriptors)
    assert (found.pictures, found.origin, found.recipe) == (folder, {"model": "small"}, RECIPE)


def test_every_kind_of_picture_is_read_and_damaged_ones_are_named(folder, tmp_path, model):
    pixels = np.random.default_rng(1).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    colour = Image.fromarray(pixels)
    colour.convert("L").save(folder / "grey.png")
    colour.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    colour.save(folder / "moving.gif", save_all=True, append_images=[colour.rotate(90)])
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn to the right
    colour.save(folder / "turned.png", exif=turned)
    Image.fromarray(pixels[:1]).save(folder / "thin.png")
    (folder / "empty.jpg").touch()
    (folder / "half.png").write_bytes((folder / "0.png").read_bytes()[:2000])
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes(b"")
    with pytest.warns(UserWarning, match="is left out") as said:
        found = build(folder, tmp_path / "out", model, RECIPE, progress=False)
    assert len(found.names) == 9 + 6
    assert sorted(str(one.message).split()[0] for one in said) == ["empty.jpg", "half.png"]
    assert np.isfinite(found.descriptors).all()
    assert fit(read_picture(folder / "turned.png"), 64).shape == (3, 64, 38)
    assert fit(read_picture(folder / "thin.png"), 64).shape == (3, 32, 64)


def test_a_killed_build_goes_on_where_it_was(folder, tmp_path, model, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 2)
    calls = itertools.count()
    real = module.describe_pictures

    def dies(*arguments):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(module, "describe_pictures", dies)
    with pytest.raises(KeyboardInterrupt):
        build(folder, tmp_path / "out", model, RECIPE, progress=False)
    with pytest.warns(UserWarning, match="unfinished: 4 pictures"):
        half = open_collection(tmp_path / "out")
    # What was written after the index is as good as not there.
    with open(tmp_path / "out" / "descriptors.npy", "ab") as file:
        file.write(b"half a row")
    seen = []
    monkeypatch.setattr(module, "describe_pictures", lambda m, p, r: seen.append(len(p)) or real(m, p, r))
    whole = build(folder, tmp_path / "out", model, RECIPE, progress=False)
    assert sum(seen) == 5
    assert whole.names[:4] == half.names
    torch.testing.assert_close(
        torch.from_numpy(np.array(whole.descriptors)), one_by_one(model, folder, whole.names)
    )


def test_added_changed_and_removed_pictures_are_seen(folder, tmp_path, model, monkeypatch):
    build(folder, tmp_path / "out", model, RECIPE, progress=False)
    (folder / "1.png").unlink()
    Image.new("RGB", (40, 60), "teal").save(folder / "2.png")
    Image.new("RGB", (60, 40), "navy").save(folder / "new.png")
    seen = []
    real = module.read_picture
    monkeypatch.setattr(module, "read_picture", lambda path: seen.append(path.name) or real(path))
    found = build(folder, tmp_path / "out", model, RECIPE, progress=False)
    assert sorted(seen) == ["2.png", "new.png"]
    assert sorted(found.names) == sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))
    torch.testing.assert_close(
        torch.from_numpy(np.array(found.descriptors)), one_by_one(model, folder, found.names)
    )
    seen.clear()
    before = os.stat(tmp_path / "out" / "descriptors.npy").st_mtime_ns
    build(folder, tmp_path / "out", model, RECIPE, progress=False)
    assert seen == []
    assert os.stat(tmp_path / "out" / "descriptors.npy").st_mtime_ns == before


def test_a_collection_of_another_model_or_recipe_is_refused(folder, tmp_path, model):
    out = tmp_path / "out"
    with pytest.raises(CkfrError, match="no collection in"):
        open_collection(out)
    build(folder, out, model, RECIPE, progress=False)
    for refused in (open_collection, lambda *given: build(folder, *given, progress=False)):
        with pytest.raises(CkfrError, match="is of weights"):
            refused(out, small(seed=1), RECIPE)
        with pytest.raises(CkfrError, match=r"is of recipe .*'size': 64"):
            refused(out, model, Recipe(size=96))
    with pytest.raises(CkfrError, match="is of pictures"):
        build(folder / "more", out, model, RECIPE, progress=False)
    assert len(open_collection(out, model, RECIPE).names) == 9
    (out / "descriptors.npy").write_bytes((out / "descriptors.npy").read_bytes()[:-4])
    with pytest.raises(CkfrError, match="does not hold the 9 rows"):
        open_collection(out)
    (out / "index.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(CkfrError, match="is of format other"):
        open_collection(out)


def test_a_folder_without_a_readable_picture_is_refused(tmp_path, model):
    (tmp_path / "none").mkdir()
    with pytest.raises(CkfrError, match="no pictures in"):
        build(tmp_path / "none", tmp_path / "out", model, progress=False)
    (tmp_path / "none" / "a.jpg").touch()
    with (
        pytest.warns(UserWarning, match=r"a\.jpg is left out"),
        pytest.raises(CkfrError, match="None of the 1 pictures"),
    ):
        build(tmp_path / "none", tmp_path / "out", model, progress=False)


def test_class_descriptors_take_each_pictures_own_classes(model):
    model.eval()
    pictures = [torch.randint(0, 256, (3, 64, 48), dtype=torch.uint8) for _ in range(3)]
    found = describe_pictures(model, pictures, Recipe("classes", size=64, classes=2))
    for picture, one in zip(pictures, found, strict=True):
        features = picture_features(model, picture[None])
        logits = model(model.normalize(picture[None]))
        classes = logits.topk(2).indices
        assert torch.equal(likeliest(model, features, 2), classes)
        torch.testing.assert_close(one[None], describe_classes(features, model.classifier.weight, classes))
    model.gap_linear = False
    with pytest.raises(CkfrError, match="no class maps"):
        likeliest(model, features, 2)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"method": "vlad"}, "no descriptor 'vlad'"),
        ({"size": 8}, "size is 8"),
        ({"classes": 0}, "classes is 0"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(given, said):
    with pytest.raises(CkfrError, match=said):
        Recipe(**given)

"""Scenes made of cut-outs drawn here, so that everything but one test runs without the photographs."""

import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from drawn_scenes import SIZE, TREE, cutouts, scenes
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ckfr_helpers.datasets import open_source
from ckfr_helpers.datasets.base import SPLITS, box_of_mask
from ckfr_helpers.datasets.scenes import backgrounds, noise, photos
from ckfr_helpers.datasets.scenes.backgrounds import FAMILIES
from ckfr_helpers.datasets.scenes.compose import CAMERA, GRAIN, MARGIN, OBJECT, Sticker, compose
from ckfr_helpers.datasets.scenes.single import OnBackground, usual_families
from ckfr_helpers.runtime import CkfrError, data_root

ROOT = data_root()  # before a fixture points elsewhere
PLACE = round(MARGIN * SIZE)


@pytest.fixture(scope="module", autouse=True)
def kept_places(tmp_path_factory):
    """Painted once for this file, away from the user's data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CKFR_DATA", str(tmp_path_factory.mktemp("data")))
        backgrounds.places.cache_clear()
        yield
        backgrounds.places.cache_clear()


def same(a, b) -> bool:
    return a[1].keys() == b[1].keys() and all(
        torch.equal(torch.as_tensor(one), torch.as_tensor(other))
        for one, other in zip((a[0], *a[1].values()), (b[0], *b[1].values()), strict=True)
    )


# -- Shape and determinism -----------------------------------------------------------------------


def test_an_example_has_the_promised_form():
    source = scenes()
    assert source.classes == ("ball", "ring", "box")
    assert source.where(0) == "example 0 of photos train (ball0)"
    for index in (0, 31, 59):
        image, target = source[index]
        assert (target["label"], target["photo"]) == (source.labels[index], source.photo_of(index))
        assert (image.shape, image.dtype) == ((3, SIZE, SIZE), torch.uint8)
        assert (target["masks"].shape, target["masks"].dtype) == ((1, SIZE, SIZE), torch.bool)
        assert target["boxes"].dtype == torch.float32
        assert target["boxes"].tolist() == [list(box_of_mask(target["masks"][0].numpy()))]


def test_a_scene_depends_on_seed_split_and_index_alone():
    source, again = scenes(background_bias=0.5), scenes(background_bias=0.5, scenes=9)
    forward = [again[index] for index in range(9)]
    for index in reversed(range(9)):  # another object, another length, another order
        assert same(source[index], forward[index])
    assert not same(scenes(seed=1)[0], source[0])
    assert not same(scenes("val")[0], source[0])
    assert not same(source[0], source[6])  # same cut-out, another scene


def test_a_copy_sent_to_a_worker_gives_the_same_scenes_and_does_not_carry_the_places():
    source = scenes(scenes=8)
    sent = pickle.dumps(source)
    assert len(sent) < backgrounds.places("train", PLACE, 2).nbytes / 2
    copy = pickle.loads(sent)
    assert all(same(copy[index], source[index]) for index in range(8))


def test_classes_and_photographs_take_turns():
    source = scenes(scenes=60)
    shown = [(source.photos[source.photo_of(i)], TREE.names[source.labels[i]]) for i in range(60)]
    assert Counter(photo for photo, _ in shown) == {
        "ball0": 10,
        "ball1": 10,
        "ring2": 10,
        "ring3": 10,
        "box4": 20,
    }
    assert all(photo.startswith(name) for photo, name in shown)


def test_the_fingerprint_changes_with_cutouts_and_options():
    variants = [scenes(), scenes(seed=1), scenes("val"), scenes(cutouts=cutouts((0, 0, 0))), scenes(scenes=6)]
    marks = {one.fingerprint() for one in [*variants, OnBackground(variants[0], "usual")]}
    assert len(marks) == 6
    assert scenes().fingerprint() in marks


# -- Mask and box --------------------------------------------------------------------------------


def test_mask_is_where_the_object_is():
    """Black objects in the sky, which takes no shadow, can be found again from the picture alone."""
    source = scenes(cutouts=cutouts((0, 0, 0)))
    for index in range(30):
        image, target = source.scene(index, "sky")
        mask = target["masks"][0]
        brightness = image.float().mean(0)
        found = brightness < 0.5 * brightness[~mask].median()  # half object, half sky: where the mask ends
        overlap = (found & mask).sum() / (found | mask).sum()
        assert overlap > 0.95, index


def test_several_objects_in_one_scene():
    """Each has its own mask; a later one covers an earlier one and leaves it where it was."""
    place = backgrounds.places("train", PLACE, 2)[0, 0]
    stickers = [Sticker(one.pixels, SIZE) for one in cutouts()[::2]]
    draws = np.random.default_rng(5).random(CAMERA + 3 * OBJECT + GRAIN)
    picture, masks = compose(stickers, place, draws, True)
    assert picture.shape == masks.shape == (3, SIZE, SIZE)
    assert masks.sum(0).max() == 1
    for number, sticker in enumerate(stickers):
        own = draws[CAMERA + number * OBJECT :][:OBJECT]
        alone = np.concatenate([draws[:CAMERA], own, draws[-GRAIN:]])
        (whole,) = compose([sticker], place, alone, True)[1]
        assert np.array_equal(masks[number], whole & ~masks[number + 1 :].any(0))


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_box_of_mask(mask):
    if not mask.any():
        with pytest.raises(CkfrError, match="empty mask"):
            box_of_mask(mask)
        return
    pixels = [(x, y) for y, row in enumerate(mask) for x, true in enumerate(row) if true]
    columns, rows = zip(*pixels, strict=True)
    assert box_of_mask(mask) == (min(columns), min(rows), max(columns), max(rows))


# -- The tie between class and background --------------------------------------------------------


@pytest.mark.parametrize("bias", [0.0, 0.4, 0.9, 1.0])
def test_training_scenes_stand_in_their_usual_place_as_often_as_promised(bias):
    source = scenes(scenes=6000, background_bias=bias)
    usual = [source.background_of(index) == source.usual[source.labels[index]] for index in range(6000)]
    expected = bias + (1 - bias) / len(FAMILIES)
    tolerance = 4 * np.sqrt(expected * (1 - expected) / 6000)  # one run in about 16 000 would fail by chance
    assert abs(np.mean(usual) - expected) <= tolerance


@pytest.mark.parametrize("split", ["val", "test"])
def test_validation_and_test_scenes_have_no_tie(split):
    source = scenes(split, scenes=5400, background_bias=0.9)
    counts = np.zeros((3, len(FAMILIES)))
    for index in range(5400):
        counts[source.labels[index], FAMILIES.index(source.background_of(index))] += 1
    expected = 5400 / counts.size
    chi_square = ((counts - expected) ** 2 / expected).sum()  # 24 degrees of freedom
    assert chi_square < 55  # p about 0.0003


def test_the_background_changes_the_place_and_nothing_else():
    source = scenes("test", scenes=12)
    usual, foreign = OnBackground(source, "usual"), OnBackground(source, "foreign")
    tied = scenes("train", background_bias=1.0)
    for index in range(12):
        family = source.usual[source.labels[index]]
        there = {one: source.scene(index, one) for one in FAMILIES}
        for image, target in there.values():
            assert torch.equal(target["masks"], source[index][1]["masks"])
            assert torch.equal(image, source[index][0]) == (image is there[source.background_of(index)][0])
        assert same(usual[index], there[family])
        assert any(same(foreign[index], there[other]) for other in FAMILIES if other != family)
        assert tied.background_of(index) == family  # splits share the usual places
    assert len(usual) == 12
    with pytest.raises(IndexError):
        usual[12]


@given(st.integers(1, 60), st.integers(0, 2**31))
def test_usual_families_are_balanced_and_drawn_by_seed(classes, seed):
    counts = Counter(usual_families(classes, seed))
    per_family = [counts.get(family, 0) for family in FAMILIES]
    assert sum(per_family) == classes
    assert max(per_family) - min(per_family) <= 1
    assert len({usual_families(classes + 20, seed + one) for one in range(5)}) == 5


# -- Places --------------------------------------------------------------------------------------


def test_places_are_kept_and_none_stands_in_two_splits():
    banks = [backgrounds.places(split, PLACE, 2) for split in SPLITS]
    assert all(isinstance(bank, np.memmap) for bank in banks)
    assert len({place.tobytes() for bank in banks for family in bank for place in family}) == 54
    assert np.array_equal(banks[1][3, 1], backgrounds.paint(FAMILIES[3], "val", 1, PLACE))
    with pytest.raises(ValueError, match="read-only"):
        banks[0][0] = 0


def test_a_place_is_a_picture_and_not_a_flat_colour():
    for family in backgrounds.places("train", PLACE, 2)[:, :, :96, :96]:
        assert np.abs(family[0].astype(int) - family[1]).mean() > 3
        assert np.isin(family[0], (0, 255)).all(-1).mean() < 0.2
        # Structure on the scale of objects, not only grain: it survives averaging over 8 x 8 pixels.
        assert family[0].reshape(12, 8, 12, 8, 3).mean((1, 3)).std((0, 1)).max() > 1.5


def test_light_follows_the_cosine_of_the_surface_normal():
    slope = np.zeros((8, 8, 2), np.float32)
    assert noise.light(slope, 0.3, 0.7) == pytest.approx(1)
    slope[..., 0] = 0.5  # rises to the right: faces left
    normal = np.array([-0.5, 0, 1]) / np.sqrt(1.25)
    for angle in (np.pi, 0.0):
        lamp = np.array([np.cos(0.7) * np.cos(angle), np.cos(0.7) * np.sin(angle), np.sin(0.7)])
        expected = max(0, normal @ lamp) / np.sin(0.7)
        assert noise.light(slope, angle, 0.7)[0, 0] == pytest.approx(expected, rel=1e-5)


# -- Mistakes, and the photographs ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "dev"}, "no split 'dev'"),
        ({"background_bias": 1.2}, "background_bias is 1.2"),
        ({"size": 8}, "size is 8; expected a whole number of at least 32"),
        ({"scenes": 0}, "scenes is 0; expected a whole number of at least 1"),
        ({"seed": -1}, "seed is -1; expected a whole number of at least 0"),
        ({"instances": "few"}, "instances is 'few'"),
        ({"cutouts": cutouts()[:2]}, "'ring' has no photograph"),
    ],
)
def test_mistakes_get_one_sentence(options, message):
    with pytest.raises(CkfrError, match=message):
        scenes(**{"split": "train"} | options)
    with pytest.raises(CkfrError, match="no background 'moon'"):
        OnBackground(scenes(), "moon")


@pytest.mark.photos
def test_every_split_of_the_photographs_opens_with_every_class():
    names = []
    for split, per_class in (("train", 100), ("val", 25), ("test", 50)):
        source = open_source("photos", split, ROOT, size=SIZE, instances=2)
        assert (np.bincount(source.labels) == per_class).all()
        names += source.photos
        for index in range(2 * len(source.classes)):
            mask = source[index][1]["masks"][0]
            assert 0.004 < float(mask.float().mean()) < 0.8, source.where(index)
    assert len(set(names)) == len(names) == len(photos.read_list())

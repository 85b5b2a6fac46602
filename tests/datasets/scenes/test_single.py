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
from torch.utils.data import DataLoader

from ckfr_helpers.datasets import open_source
from ckfr_helpers.datasets.base import SPLITS, box_of_mask
from ckfr_helpers.datasets.scenes import backgrounds, noise, photos
from ckfr_helpers.datasets.scenes.backgrounds import FAMILIES
from ckfr_helpers.datasets.scenes.compose import CAMERA, GRAIN, MARGIN, OBJECT, Sticker, compose
from ckfr_helpers.datasets.scenes.single import usual_families
from ckfr_helpers.runtime import CkfrError

ROOT = photos.data_root()  # before a fixture points elsewhere
HAVE_PHOTOS = all((ROOT / photos.FOLDER / photo.file).is_file() for photo in photos.read_list())


@pytest.fixture(scope="module", autouse=True)
def kept_places(tmp_path_factory):
    """Painted once for this file, away from the user's data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CKFR_DATA", str(tmp_path_factory.mktemp("data")))
        backgrounds.places.cache_clear()
        yield
        backgrounds.places.cache_clear()


def same(a, b) -> bool:
    return (
        torch.equal(a[0], b[0])
        and a[1]["label"] == b[1]["label"]
        and torch.equal(a[1]["boxes"], b[1]["boxes"])
        and torch.equal(a[1]["masks"][0], b[1]["masks"][0])
    )


# -- Shape and determinism -----------------------------------------------------------------------


def test_an_example_has_the_promised_form():
    source = scenes()
    assert len(source) == 60
    assert source.classes == ("ball", "ring", "box")
    assert source.labels.dtype == np.int64
    for index in (0, 31, 59):
        image, target = source[index]
        label, boxes, mask = target["label"], target["boxes"], target["masks"][0]
        assert target["photo"] == source.photo_of(index)
        assert image.shape == (3, SIZE, SIZE)
        assert image.dtype == torch.uint8
        assert boxes.shape == (1, 4)
        assert boxes.dtype == torch.float32
        assert mask.shape == (SIZE, SIZE)
        assert mask.dtype == torch.bool
        assert label == source.labels[index]


def test_a_scene_depends_on_seed_split_and_index_alone():
    source, again = scenes(background_bias=0.5), scenes(background_bias=0.5, scenes=9)
    forward = [again[index] for index in range(9)]
    for index in reversed(range(9)):  # another object, another length, another order
        assert same(source[index], forward[index])
    assert not same(scenes(seed=1)[0], source[0])
    assert not same(scenes("val")[0], source[0])
    assert not same(source[0], source[6])  # same cut-out, another scene


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_give_the_same_scenes(context):
    source = scenes(scenes=12)
    loader = DataLoader(
        source, 4, num_workers=2, collate_fn=list, multiprocessing_context=context, shuffle=False
    )
    for index, example in enumerate(one for batch in loader for one in batch):
        assert same(example, source[index])


def test_a_source_travels_light():
    """A spawned worker maps the places; it is not sent a copy of them."""
    source = scenes()
    assert len(pickle.dumps(source)) < backgrounds.places("train", round(MARGIN * SIZE), 2).nbytes / 2


def test_classes_and_photographs_take_turns():
    source = scenes(scenes=60)
    assert Counter(source.labels.tolist()) == {0: 20, 1: 20, 2: 20}
    shown = Counter(source.photos[source.photo_of(index)] for index in range(60))
    assert shown == {"ball0": 10, "ball1": 10, "ring2": 10, "ring3": 10, "box4": 20}
    for index in range(60):
        assert source.photos[source.photo_of(index)].startswith(TREE.names[source.labels[index]])


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


def test_mask_does_not_depend_on_the_place():
    source = scenes()
    for index in range(12):
        there = [source.scene(index, family) for family in FAMILIES]
        assert all(torch.equal(one[1]["masks"][0], there[0][1]["masks"][0]) for one in there)
        assert not any(torch.equal(one[0], there[0][0]) for one in there[1:])


def test_boxes_end_on_the_object():
    source = scenes()
    for index in range(24):
        _, target = source[index]
        assert target["boxes"].tolist() == [list(box_of_mask(target["masks"][0].numpy()))]


def test_objects_lie_within_the_picture_at_many_sizes():
    source = scenes()
    areas = [float(source[index][1]["masks"][0].float().mean()) for index in range(60)]
    assert min(areas) > 0.02
    assert max(areas) < 0.75
    assert max(areas) > 3 * min(areas)
    middle = np.array([source[index][1]["boxes"][0].reshape(2, 2).mean(0).numpy() for index in range(60)])
    assert (np.ptp(middle, axis=0) > 0.3 * SIZE).all()


def test_several_objects_in_one_scene():
    """Each has its own mask; a later one covers an earlier one and leaves it where it was."""
    source = scenes()
    place = backgrounds.places("train", round(MARGIN * SIZE), 2)[0, 0]
    stickers = [Sticker(one.pixels, SIZE) for one in cutouts()[::2]]
    draws = np.random.default_rng(5).random(CAMERA + 3 * OBJECT + GRAIN)
    picture, masks = compose(stickers, place, draws, True)
    assert picture.shape == (3, SIZE, SIZE)
    assert masks.shape == (3, SIZE, SIZE)
    assert masks.sum(0).max() == 1
    for number, sticker in enumerate(stickers):
        own = draws[CAMERA + number * OBJECT :][:OBJECT]
        alone = np.concatenate([draws[:CAMERA], own, draws[-GRAIN:]])
        (whole,) = compose([sticker], place, alone, True)[1]
        assert np.array_equal(masks[number], whole & ~masks[number + 1 :].any(0))
    assert source.where(0) == "example 0 of photos train (ball0)"


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
    assert source.background_bias == 0
    counts = np.zeros((3, len(FAMILIES)))
    for index in range(5400):
        counts[source.labels[index], FAMILIES.index(source.background_of(index))] += 1
    expected = 5400 / counts.size
    chi_square = ((counts - expected) ** 2 / expected).sum()  # 24 degrees of freedom
    assert chi_square < 55  # p about 0.0003


def test_bias_changes_the_place_and_nothing_else():
    plain, tied = scenes(), scenes(background_bias=1.0)
    for index in range(12):
        assert torch.equal(plain[index][1]["masks"][0], tied[index][1]["masks"][0])
        assert tied.background_of(index) == tied.usual[tied.labels[index]]


def test_usual_places_are_shared_by_splits_and_drawn_by_seed():
    assert scenes("train").usual == scenes("test").usual == scenes("val").usual
    assert len({usual_families(24, seed) for seed in range(5)}) == 5


def test_usual_and_foreign_scenes_are_matched_pairs():
    source = scenes("test")
    for index in range(12):
        usual, foreign = source.scene(index, "usual"), source.scene(index, "foreign")
        assert torch.equal(usual[1]["masks"][0], foreign[1]["masks"][0])
        assert torch.equal(usual[1]["boxes"], foreign[1]["boxes"])
        assert same(usual, source.scene(index, source.usual[source.labels[index]]))
        others = [family for family in FAMILIES if family != source.usual[source.labels[index]]]
        assert any(same(foreign, source.scene(index, family)) for family in others)
        assert same(source[index], source.scene(index, source.background_of(index)))


# -- Places --------------------------------------------------------------------------------------


def test_no_place_stands_in_two_splits():
    banks = {split: backgrounds.places(split, 48, 2) for split in SPLITS}
    pictures = [
        bank[f, i].tobytes() for bank in banks.values() for f in range(len(FAMILIES)) for i in range(2)
    ]
    assert len(set(pictures)) == len(pictures) == 3 * 2 * len(FAMILIES)
    seeds = {backgrounds.instance_seed(split, one) for split in SPLITS for one in range(100)}
    assert len(seeds) == 300


@pytest.mark.parametrize("family", FAMILIES)
def test_a_place_is_a_picture_and_not_a_flat_colour(family):
    one, again, other = (backgrounds.paint(family, seed, 96) for seed in [(1,), (1,), (2,)])
    assert one.shape == (96, 96, 3)
    assert one.dtype == np.uint8
    assert np.array_equal(one, again)
    assert np.abs(one.astype(int) - other).mean() > 3
    saturated = np.isin(one, (0, 255)).all(-1).mean()
    assert saturated < 0.2
    # Structure on the scale of objects, not only grain: it survives averaging over 8 x 8 pixels.
    blocks = one.reshape(12, 8, 12, 8, 3).mean((1, 3))
    assert blocks.std((0, 1)).max() > 1.5


def test_painted_places_are_kept_and_read_back():
    first = backgrounds.places("val", 40, 1)
    backgrounds.places.cache_clear()
    second = backgrounds.places("val", 40, 1)
    assert isinstance(second, np.memmap)
    assert np.array_equal(first, second)
    assert np.array_equal(
        second[3, 0], backgrounds.paint(FAMILIES[3], backgrounds.instance_seed("val", 0), 40)
    )
    with pytest.raises(ValueError, match="read-only"):
        second[0] = 0


def test_places_work_where_nothing_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CKFR_DATA", str(tmp_path / "file"))
    backgrounds.places.cache_clear()
    with pytest.warns(UserWarning, match="could not be kept"):
        bank = backgrounds.places("val", 32, 1)
    assert bank.shape == (len(FAMILIES), 1, 32, 32, 3)
    backgrounds.places.cache_clear()


def test_fractal_noise_falls_off_as_told():
    rng = np.random.default_rng(0)
    power = np.mean([np.abs(np.fft.fft2(noise.fractal(rng, 128, 3.0))) ** 2 for _ in range(20)], axis=0)
    waves = np.arange(4, 33)
    slope = np.polyfit(np.log(waves), np.log(power[0, waves] + power[waves, 0]), 1)[0]
    assert abs(slope + 3.0) < 0.25


def test_light_is_one_on_the_flat_and_less_on_the_far_side():
    slope = np.zeros((8, 8, 2), np.float32)
    assert noise.light(slope, 0.3, 0.7) == pytest.approx(1)
    slope[..., 0] = 0.5  # rises to the right: faces left
    lit, dark = noise.light(slope, np.pi, 0.7)[0, 0], noise.light(slope, 0.0, 0.7)[0, 0]
    normal = np.array([-0.5, 0, 1]) / np.sqrt(1.25)
    for angle, value in ((np.pi, lit), (0.0, dark)):
        lamp = np.array([np.cos(0.7) * np.cos(angle), np.cos(0.7) * np.sin(angle), np.sin(0.7)])
        assert value == pytest.approx(max(0, normal @ lamp) / np.sin(0.7), rel=1e-5)


def test_cells_have_no_seam():
    _, _, index = noise.cells(np.random.default_rng(1), 64, 4)
    assert set(np.unique(index)) <= set(range(16))
    tiled = np.tile(index, (2, 2))[24:88, 24:88]  # cells continue across the border
    across = [len(np.unique(tiled[:, 39:41][row])) for row in range(64)]
    assert np.mean(across) < 1.5


# -- Mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "dev"}, "no split 'dev'"),
        ({"background_bias": 1.2}, "background_bias is 1.2"),
        ({"background_bias": float("nan")}, "background_bias is nan"),
        (
            {"background_bias": "abc"},
            "background_bias is 'abc'; expected a number of at least 0 and at most 1",
        ),
        ({"size": 8}, "size is 8; expected a whole number of at least 32"),
        ({"size": 64.5}, "size is 64.5; expected a whole number"),
        ({"scenes": 0}, "scenes is 0; expected a whole number of at least 1"),
        ({"scenes": True}, "scenes is True; expected a whole number"),
        ({"seed": -1}, "seed is -1; expected a whole number of at least 0"),
        ({"seed": "one"}, "seed is 'one'"),
        ({"instances": "few"}, "instances is 'few'"),
        ({"hierarchy": None}, "need a hierarchy"),
        ({"cutouts": cutouts()[:2]}, "'ring' has no photograph"),
    ],
)
def test_mistakes_get_one_sentence(options, message):
    with pytest.raises(CkfrError, match=message):
        scenes(**{"split": "train"} | options)


def test_unknown_scene_or_background():
    source = scenes()
    with pytest.raises(IndexError):
        source[60]
    with pytest.raises(CkfrError, match="no background 'moon'"):
        source.scene(0, "moon")
    with pytest.raises(CkfrError, match="no background family 'moon'"):
        backgrounds.paint("moon", (0,), 32)


# -- With the photographs ------------------------------------------------------------------------


@pytest.mark.photos
@pytest.mark.skipif(not HAVE_PHOTOS, reason="the photographs are not here: `ckfr fetch photos`")
def test_every_split_of_the_photographs_opens_with_every_class():
    names = []
    for split, per_class in (("train", 100), ("val", 25), ("test", 50)):
        source = open_source("photos", split, ROOT, size=SIZE, instances=2)
        assert len(source.classes) >= 18
        assert (np.bincount(source.labels) == per_class).all()
        names += source.photos
        for index in range(2 * len(source.classes)):
            mask = source[index][1]["masks"][0]
            assert 0.004 < float(mask.float().mean()) < 0.8, source.where(index)
    assert len(set(names)) == len(names) == len(photos.read_list())


@given(st.integers(1, 60), st.integers(0, 2**31))
def test_usual_families_are_balanced(classes, seed):
    counts = Counter(usual_families(classes, seed))
    per_family = [counts.get(family, 0) for family in FAMILIES]
    assert sum(per_family) == classes
    assert max(per_family) - min(per_family) <= 1

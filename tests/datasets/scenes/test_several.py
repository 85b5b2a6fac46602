"""Scenes of several cut-outs, drawn here, so that everything but one test runs without the photographs."""

import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from drawn_scenes import SIZE, TREE, coloured_cutouts, cutouts, drawn, kept_places  # noqa: F401 -- a fixture
from hypothesis import given
from hypothesis import strategies as st

from ckfr_helpers.datasets import open_source
from ckfr_helpers.datasets.base import box_of_mask
from ckfr_helpers.datasets.cache import cached
from ckfr_helpers.datasets.loading import TransformedView, make_loader
from ckfr_helpers.datasets.scenes import photos
from ckfr_helpers.datasets.scenes.backgrounds import FAMILIES
from ckfr_helpers.datasets.scenes.photos import Cutout
from ckfr_helpers.datasets.scenes.several import SeveralScenes, partner_classes
from ckfr_helpers.datasets.scenes.single import OnBackground
from ckfr_helpers.datasets.transforms import make_transform
from ckfr_helpers.runtime import CkfrError

ROOT = photos.data_root()  # before a fixture points elsewhere
KEYS = ("label", "labels", "boxes", "box_labels", "masks", "photos", "visible")

pytestmark = pytest.mark.usefixtures("kept_places")


def several(split: str = "train", **options) -> SeveralScenes:
    options = {"cutouts": coloured_cutouts(), "hierarchy": TREE, "size": SIZE, "instances": 2} | options
    return SeveralScenes(split, **{"scenes": 30, **options})


def same(a, b) -> bool:
    return torch.equal(a[0], b[0]) and all(
        torch.equal(torch.as_tensor(a[1][k]), torch.as_tensor(b[1][k])) for k in KEYS
    )


def test_a_target_tells_of_every_object():
    source = several()
    owners = {name: TREE.label(name[:-1]) for name in source.photos}
    for index in range(30):
        image, target = source[index]
        n = len(target["box_labels"])
        assert set(target) == set(KEYS)
        assert (image.shape, image.dtype) == ((3, SIZE, SIZE), torch.uint8)
        assert (target["masks"].shape, target["masks"].dtype) == ((n, SIZE, SIZE), torch.bool)
        assert (target["boxes"].shape, target["boxes"].dtype) == ((n, 4), torch.float32)
        assert (target["labels"].dtype, target["box_labels"].dtype) == (torch.float32, torch.int64)
        assert target["labels"].nonzero().flatten().tolist() == sorted(target["box_labels"].tolist())
        assert [owners[source.photos[one]] for one in target["photos"]] == target["box_labels"].tolist()
        assert target["label"] == source.labels[index] == target["box_labels"][0]
        assert source.photo_of(index) == target["photos"][0]
        assert target["boxes"].tolist() == [list(box_of_mask(mask)) for mask in target["masks"].numpy()]
        assert target["masks"].sum(0).max() == 1


def test_each_mask_and_box_are_those_of_its_object():
    """Balls are red, rings green and boxes blue, so the picture itself says what is where."""
    source = several(objects=(3, 3), overlap=0.5, scenes=24)
    covered = 0
    for index in range(24):
        image, target = source.scene(index, "stone")
        for label, mask, seen in zip(target["box_labels"], target["masks"], target["visible"], strict=True):
            colours = image[:, mask].float()
            assert colours.mean(1).argmax() == label, index
            other = colours[[one for one in range(3) if one != label]].amax(0)
            assert (colours[label] > other).float().mean() > 0.9, index
            covered += bool(seen < 0.95)
    assert covered > 5  # or the test says nothing about who is in front


def test_a_scene_depends_on_seed_split_and_index_alone():
    source, again = several(), several(scenes=9)
    forward = [again[index] for index in range(9)]
    copy = pickle.loads(pickle.dumps(source))
    for index in reversed(range(9)):  # another object, another length, another order, another process
        assert same(source[index], forward[index])
        assert same(copy[index], forward[index])
    assert not same(several(seed=1)[0], source[0])
    assert not same(several("val")[0], source[0])
    assert not same(source[0], source[6])  # same cut-out first, another scene


def test_pairing_changes_the_second_object_and_no_other_choice():
    free, tied = several(objects=(2, 2)), several(objects=(2, 2), pairing=1.0)
    agree = 0
    for index in range(30):
        (_, a), (_, b) = free[index], tied[index]
        assert a["photos"][0] == b["photos"][0]
        assert b["box_labels"][1] == tied.partners[b["box_labels"][0]]
        if a["photos"].equal(b["photos"]):
            agree += 1
            assert same(free[index], tied[index])
    assert 5 < agree < 30


def test_the_number_of_objects_and_their_classes_are_drawn_evenly():
    source = several(scenes=600, size=32, sides=(0.2, 0.3))
    found = [source[index][1]["box_labels"].tolist() for index in range(600)]
    counts = Counter(map(len, found))
    assert set(counts) == {1, 2, 3}
    assert min(counts.values()) > 150  # 200 expected, deviation 11.5
    for first in range(3):
        second = Counter(one[1] for one in found if one[0] == first and len(one) > 1)
        assert set(second) == {0, 1, 2} - {first}
        assert max(second.values()) < 0.66 * sum(second.values())  # .5 expected, deviation .043


@pytest.mark.parametrize(("split", "expected"), [("train", 0.6 + 0.4 / 2), ("val", 0.5), ("test", 0.5)])
def test_partners_come_together_as_often_as_promised_in_training_alone(split, expected):
    source = several(split, scenes=600, size=32, sides=(0.2, 0.3), objects=(2, 3), pairing=0.6)
    assert source.pairing == (0.6 if split == "train" else 0)
    targets = [source[index][1]["box_labels"] for index in range(600)]
    share = np.mean([source.partners[one[0]] == int(one[1]) for one in targets])
    assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / 600)


@given(st.integers(2, 60), st.integers(0, 2**31))
def test_partners_are_each_others_and_drawn_by_seed(classes, seed):
    partners = partner_classes(classes, seed)
    assert (partners != np.arange(classes)).all()
    alone = np.flatnonzero(partners[partners] != np.arange(classes))
    assert len(alone) == classes % 2
    assert len({partner_classes(classes + 20, seed + one).tobytes() for one in range(5)}) == 5


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.8])
def test_no_object_is_covered_by_more_than_allowed(overlap):
    source = several(objects=(3, 3), overlap=overlap, sides=(0.25, 0.4), scenes=60)
    visible = torch.cat([source[index][1]["visible"] for index in range(60)])
    assert len(visible) == 180
    assert visible.min() >= 1 - overlap - 1e-6
    assert visible.max() == 1
    assert visible.min() < 1 - 0.6 * overlap or overlap == 0  # and the allowance is used


def test_an_object_without_room_is_left_out():
    source = several(objects=(3, 3), overlap=0.0, sides=(0.75, 0.85), scenes=6)
    for index in range(6):
        target = source[index][1]
        assert target["box_labels"].tolist() == [source.labels[index]]
        assert target["labels"].sum() == 1


def test_others_gather_around_the_first_object():
    near, far = (several(objects=(2, 2), overlap=0.99, gather=gather, scenes=60) for gather in (0.8, 0.0))
    distances = []
    for source in (near, far):
        boxes = torch.stack([source[index][1]["boxes"].as_subclass(torch.Tensor) for index in range(60)])
        middles = (boxes[..., :2] + boxes[..., 2:]) / 2
        distances.append(float((middles[:, 0] - middles[:, 1]).norm(dim=1).median()))
    assert distances[0] < 0.5 * distances[1]


def test_sizes_are_within_the_range_and_what_a_photograph_can_show():
    source = several(objects=(1, 1), scenes=120)
    sides = [
        float((box[2:] - box[:2] + 1).max()) / SIZE
        for box in (source[index][1]["boxes"][0] for index in range(0, 120, 3))
    ]  # balls: long sides that no turn changes
    assert 0.20 < min(sides) < 0.27
    assert 0.38 < max(sides) < 0.47
    small = [Cutout(drawn("ball", (0, 0, 0), 12), 0, "small"), *cutouts()[2:]]
    source = several(cutouts=small, objects=(1, 1), size=128, scenes=9)
    for index in range(0, 9, 3):
        assert float((source[index][1]["masks"][0].any(0)).sum()) <= 24


def test_the_background_changes_the_place_and_nothing_else():
    source = several("test", scenes=6)
    foreign = OnBackground(source, "foreign")
    for index in range(6):
        there = [source.scene(index, family) for family in FAMILIES]
        assert all(torch.equal(target["masks"], source[index][1]["masks"]) for _, target in there)
        assert sum(torch.equal(image, source[index][0]) for image, _ in there) == 1
        assert not torch.equal(
            foreign[index][0], there[FAMILIES.index(source.usual[source.labels[index]])][0]
        )


def test_the_fingerprint_changes_with_every_option():
    options = [
        {"objects": (2, 3)},
        {"pairing": 0.5},
        {"sides": (0.2, 0.4)},
        {"overlap": 0.1},
        {"turn": 0},
        {"gather": 0.5},
        {"seed": 1},
    ]
    assert len({several(**one).fingerprint() for one in [{}, *options]}) == 8
    assert several().fingerprint() == several().fingerprint()


def test_transforms_and_batches_carry_what_is_known_of_each_object():
    source = several(scenes=12, objects=(2, 2))  # as many in each, which must not stack them
    view = TransformedView(source, make_transform("original", train=True, size=SIZE), keys=KEYS)
    images, targets, _ = next(iter(make_loader(view, 12, train=False)))
    assert images.shape == (12, 3, SIZE, SIZE)
    assert targets["labels"].shape == (12, 3)
    assert targets["labels"].dtype == torch.float32
    for index in range(12):
        _, target = source[index]
        for key in ("labels", "box_labels", "photos", "visible"):
            assert torch.equal(targets[key][index], target[key])
            assert targets[key][index].dtype == target[key].dtype
        assert targets["boxes"][index].shape == (2, 4)
        assert targets["masks"][index].shape == (2, SIZE, SIZE)


def test_a_cache_keeps_what_is_known_of_each_object(tmp_path):
    source = several(scenes=4)
    kept = cached(source, SIZE, tmp_path, workers=0, progress=False)
    assert all(same(kept[index], source[index]) for index in range(4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "dev"}, "no split 'dev'"),
        ({"objects": (0, 2)}, "The fewest objects is 0; expected a whole number of at least 1"),
        ({"objects": (2, 1)}, "The most objects is 1; expected a whole number of at least 2"),
        ({"objects": (1, 4)}, "The most objects is 4; .* at most 3"),
        ({"objects": 2}, "objects is 2; expected the least and the most"),
        ({"sides": (0.4, 0.2)}, "The largest side is 0.2"),
        ({"sides": "12"}, "sides is '12'; expected the least and the most"),
        ({"pairing": -0.1}, "pairing is -0.1"),
        ({"overlap": 1}, "overlap is 1; expected a number of at least 0 and below 1"),
        ({"turn": float("nan")}, "turn is nan"),
        ({"gather": 1.5}, "gather is 1.5"),
    ],
)
def test_mistakes_get_one_sentence(options, message):
    with pytest.raises(CkfrError, match=message):
        several(**{"split": "train"} | options)


@pytest.mark.photos
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_scenes_of_the_photographs_have_room_for_all(split):
    source = open_source("several-photos", split, ROOT, size=SIZE, instances=2, objects=(3, 3), scenes=96)
    for index in range(96):
        _, target = source[index]
        assert len(target["boxes"]) == 3, source.where(index)
        assert target["masks"].float().mean((1, 2)).min() > 0.002, source.where(index)

"""Where a network looks: maps with known answers, the numbers of the rooms below, swapped backgrounds."""

import numpy as np
import pytest
import torch
from drawn_scenes import scenes

from ckfr_helpers import localization
from ckfr_helpers.attribution import cam
from ckfr_helpers.attribution import energy as attention
from ckfr_helpers.attribution.look import (
    free_scores,
    look,
    look_scores,
    object_boxes,
    object_mask,
    per_image,
    study_scores,
)
from ckfr_helpers.datasets.base import Example, ImageSource, make_example
from ckfr_helpers.datasets.scenes.single import OnBackground
from ckfr_helpers.hierarchy import Hierarchy
from ckfr_helpers.models import build_model
from ckfr_helpers.runtime import CkfrError

TREE = Hierarchy.from_nested({"thing": {"warm": ["red", "orange"], "cold": ["blue", "green"]}})


class Squares(ImageSource):
    """A coloured square on grey, with its box and, if wished, its mask."""

    def __init__(self, count: int = 12, masks: bool = True, boxes: bool = True) -> None:
        self.name, self.split, self.hierarchy = "squares", "test", TREE
        self.labels = np.arange(count) % 4
        self.masks, self.boxed = masks, boxes

    def __getitem__(self, index: int) -> Example:
        x, y = 4 + 3 * (index % 5), 2 + 4 * (index % 4)
        image, mask = torch.full((3, 40, 48), 128, dtype=torch.uint8), torch.zeros(40, 48, dtype=torch.bool)
        mask[y : y + 16, x : x + 20] = True
        image[:, mask] = torch.randint(0, 255, (3, 1), generator=torch.Generator().manual_seed(index)).byte()
        box = torch.tensor([[x, y, x + 19, y + 15]], dtype=torch.float32)
        return make_example(
            image, self.labels[index], box if self.boxed else None, mask if self.masks else None
        )


class Wide(Squares):
    """Boxes that fill most of the picture."""

    def __getitem__(self, index: int) -> Example:
        return make_example(super().__getitem__(index)[0], 0, torch.tensor([[0.0, 0, 40, 35]]))


def batches(source, size=4, order=None):
    order = list(range(len(source))) if order is None else order
    for start in range(0, len(order), size):
        part = order[start : start + size]
        images = torch.stack([source[i][0] for i in part]).float() / 255
        yield images, {"label": torch.as_tensor(source.labels[part])}, torch.tensor(part)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model("resnet18", 4, pretrained=False).eval()


def oracle(source):
    """A map maker that knows the masks."""
    masks = iter([source[i][1]["masks"][0].float() for i in range(len(source))])
    return lambda model, inputs, classes: torch.stack([next(masks) for _ in inputs])


def test_a_map_that_is_the_mask_scores_one_its_complement_zero_and_a_flat_map_the_area(model):
    source = Squares()
    seen = look(model, batches(source), source, oracle(source))
    scores = look_scores(seen, seen)
    assert scores.pop("top1") == scores.pop("top1_loc_fixed") == seen.right.mean()
    assert scores == pytest.approx(dict.fromkeys(scores, 1.0))
    assert "pxap" in scores
    masks = iter([1 - source[i][1]["masks"][0].float() for i in range(len(source))])
    away = look(model, batches(source), source, lambda m, x, c: torch.stack([next(masks) for _ in x]))
    assert away.energy.max() == 0
    assert not away.pointing.any()
    assert look_scores(away, away)["pxap"] < 0.2
    flat = look(model, batches(source), source, lambda m, x, c: torch.ones(len(x), 5, 6))
    np.testing.assert_allclose(flat.energy, 20 * 16 / (40 * 48))
    assert not flat.pointing.any()


def test_the_numbers_are_those_of_the_rooms_below(model):
    source = Squares()
    order = [3, 0, 7, 5, 11, 2, 1]
    seen = look(model, batches(source, 3, order), source)
    assert seen.indices.tolist() == order
    images = torch.stack([source[i][0] for i in order]).float() / 255
    labels = torch.as_tensor(source.labels[order])
    raw = cam.class_activation_maps(model, images, labels, raw=True)
    masks = [source[i][1]["masks"][0].numpy() for i in order]
    boxes = [source[i][1]["boxes"] for i in order]
    scaled = cam.score_maps(raw, (40, 48))
    with torch.no_grad():
        answers = model(images).argmax(1).numpy()
    np.testing.assert_array_equal(seen.predicted, answers)
    np.testing.assert_allclose(
        seen.energy, attention.energy_in_mask(cam.upsample(raw, (40, 48)), masks), rtol=1e-4
    )
    assert seen.boxes.mean == localization.max_box_acc(scaled, boxes).mean
    assert seen.largest.per_iou[0] == localization.max_box_acc(scaled, boxes, (0.5,), "largest").per_iou[0]
    assert seen.pxap == pytest.approx(localization.pxap(scaled, masks), rel=1e-4)


def test_thresholds_come_from_validation(model):
    source, generator = Squares(), torch.Generator().manual_seed(0)
    raw = torch.rand(12, 6, 6, generator=generator)
    kept = iter(raw)
    test = look(model, batches(source), source, lambda m, x, c: torch.stack([next(kept) for _ in x]))
    val = look(model, batches(source), source, oracle(source))
    boxes = [source[i][1]["boxes"].numpy() for i in range(12)]
    fixed = []
    for level, threshold in zip((0.3, 0.5, 0.7), val.boxes.best_thresholds, strict=True):
        found = [localization.boxes_from_map(m, threshold, "all") for m in cam.score_maps(raw, (40, 48))]
        ious = [localization.iou_matrix(f, b).max() for f, b in zip(found, boxes, strict=True)]
        fixed.append(np.array(ious) >= level)
    np.testing.assert_allclose(per_image(test, val)["box_acc_fixed"], np.mean(fixed, axis=0))
    assert 0 < np.mean(fixed) < 1


def test_boxes_and_masks_stand_in_for_each_other_and_neither_is_an_error(model):
    both, boxed, masked = Squares(), Squares(masks=False), Squares(boxes=False)
    for source in (boxed, masked):  # here the box is the mask
        seen = look(model, batches(source), source, oracle(both))
        np.testing.assert_allclose(seen.energy, 1)
        assert seen.boxes.mean == look(model, batches(both), both, oracle(both)).boxes.mean
        np.testing.assert_array_equal(object_mask(source[3]), both[3][1]["masks"][0])
    assert look(model, batches(masked), masked).pxap is not None
    seen = look(model, batches(boxed), boxed)
    assert seen.pxap is None
    assert "pxap" not in look_scores(seen, seen)
    bare = Squares(masks=False, boxes=False)
    with pytest.raises(CkfrError, match="There is no box for example 4 of squares test"):
        look(model, batches(bare, order=[4]), bare)
    with pytest.raises(CkfrError, match="The map of example 5 of squares test holds NaN"):
        look(model, batches(both, order=[5]), both, lambda m, x, c: torch.full((1, 5, 6), torch.nan))


@pytest.mark.parametrize("wrong", [np.inf, 900.0])
def test_a_box_that_cannot_be_is_named_by_its_example(wrong):
    image, target = Squares()[0]
    target["boxes"][0, :2] = wrong
    with pytest.raises(CkfrError, match=r"Box 0 of cat\.jpg is \("):
        object_boxes((image, target), "cat.jpg")


def test_study_scores_hold_the_looks_and_the_swapped_pairs():
    torch.manual_seed(1)
    model = build_model("resnet18", 3, pretrained=False).eval()
    sources = {split: scenes(split, scenes=12, seed=1) for split in ("val", "test")}
    sources |= {background: OnBackground(sources["test"], background) for background in ("usual", "foreign")}
    loaders = {split: list(batches(source)) for split, source in sources.items()}
    scores, images = study_scores(model, loaders, sources)
    seen = {split: look(model, loaders[split], sources[split]) for split in ("val", "test")}
    plain = look_scores(seen["test"], seen["val"])
    assert {name: scores[name] for name in plain} == plain
    with torch.no_grad():
        pictures = {
            split: torch.cat([batch[0] for batch in loaders[split]]) for split in ("usual", "foreign")
        }
        right = {split: model(x).argmax(1).numpy() == sources["test"].labels for split, x in pictures.items()}
    assert images["drop"].tolist() == (right["usual"] * 1.0 - right["foreign"]).tolist()
    assert scores["drop"] == pytest.approx(right["usual"].mean() - right["foreign"].mean())
    assert all(scores[name] == pytest.approx(value.mean()) for name, value in images.items())
    with pytest.raises(CkfrError, match="not those of the test split in the same order"):
        study_scores(model, loaders | {"foreign": loaders["foreign"][::-1]}, sources)
    del loaders["usual"]
    assert study_scores(model, loaders, sources)[0] == plain


def test_free_scores_are_those_of_maps_and_boxes_that_never_look(model):
    source = Squares(24)
    scores = free_scores(source, most=12)
    part = [source[i][1] for i in range(0, 24, 2)]
    masks, boxes = [t["masks"][0].numpy() for t in part], [t["boxes"] for t in part]
    assert scores["uniform_energy"] == pytest.approx(20 * 16 / (40 * 48))
    assert scores["random_point"] == pytest.approx(np.mean(attention.random_point_hits(masks, 1)))
    centres = [localization.centre_map(40, 48)] * 12
    assert scores["centre_energy"] == pytest.approx(np.mean(attention.energy_in_mask(centres, masks)))
    assert scores["centre_point"] == pytest.approx(np.mean([mask[19, 23] for mask in masks]), abs=0.1)
    assert scores["centre_max_box_acc_v2"] == localization.max_box_acc(centres, boxes).mean
    assert scores["centre_gt_known"] == localization.max_box_acc(centres, boxes, (0.5,), "largest").mean
    assert scores["whole_image_gt_known"] == 0
    assert free_scores(Wide())["whole_image_gt_known"] == 1

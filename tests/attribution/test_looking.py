"""Where a network looks: maps with known answers, the numbers of the rooms below, swapped backgrounds."""

import json

import numpy as np
import pytest
import torch
from drawn_scenes import TREE as SCENE_TREE
from drawn_scenes import cutouts
from PIL import Image

from ckfr_helpers import __main__ as cli
from ckfr_helpers import localization
from ckfr_helpers.attribution import cam
from ckfr_helpers.attribution import energy as attention
from ckfr_helpers.attribution.looking import look, look_scores, object_mask, per_image
from ckfr_helpers.datasets.base import Example, ImageSource, make_example
from ckfr_helpers.datasets.scenes.single import PhotoScenes
from ckfr_helpers.datasets.scenes.swapped import OnBackground
from ckfr_helpers.hierarchy import Hierarchy
from ckfr_helpers.models import build_model
from ckfr_helpers.runtime import CkfrError
from ckfr_helpers.training import TrainConfig, train

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


def test_a_map_that_is_the_mask_scores_one_and_its_complement_zero(model):
    source = Squares()
    seen = look(model, batches(source), source, oracle(source))
    scores = look_scores(seen, seen)
    for name in (
        "energy",
        "pointing",
        "box_acc_fixed",
        "gt_known_fixed",
        "max_box_acc_v2",
        "gt_known",
        "pxap",
    ):
        assert scores[name] == pytest.approx(1.0), name
    masks = iter([1 - source[i][1]["masks"][0].float() for i in range(len(source))])
    away = look(model, batches(source), source, lambda m, x, c: torch.stack([next(masks) for _ in x]))
    assert away.energy.max() == 0
    assert not away.pointing.any()
    assert look_scores(away, away)["pxap"] < 0.2


def test_a_flat_map_has_the_energy_of_the_area(model):
    source = Squares()
    seen = look(model, batches(source), source, lambda m, x, c: torch.ones(len(x), 5, 6))
    np.testing.assert_allclose(seen.energy, 20 * 16 / (40 * 48))
    np.testing.assert_allclose(seen.area, 20 * 16 / (40 * 48))
    assert not seen.pointing.any()


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
    """With another split's threshold the score is that of `box_acc_at`, and never above the official one."""
    source = Squares()
    generator = torch.Generator().manual_seed(0)

    def noisy(model, inputs, classes):
        return torch.rand(len(inputs), 6, 6, generator=generator)

    test = look(model, batches(source), source, noisy)
    kept = []

    def remember(model, inputs, classes):
        kept.append(noisy(model, inputs, classes))
        return kept[-1]

    val = look(model, batches(source), source, remember)
    again = look(model, batches(source), source, oracle(source))
    scores = look_scores(test, val)
    assert scores["box_acc_fixed"] <= scores["max_box_acc_v2"]
    assert scores["gt_known_fixed"] <= scores["gt_known"]
    maps = cam.score_maps(torch.cat(kept), (40, 48))
    boxes = [source[i][1]["boxes"] for i in range(len(source))]
    fixed = localization.box_acc_at(maps, boxes, localization.fix_threshold(again.boxes))
    np.testing.assert_allclose(per_image(val, again)["box_acc_fixed"], fixed.correct.mean(1))


def test_top1_localisation_needs_the_right_class(model):
    source = Squares()
    seen = look(model, batches(source), source, oracle(source))
    images = per_image(seen, seen)
    np.testing.assert_array_equal(images["top1_loc_fixed"], images["top1"])


def test_boxes_stand_in_for_masks_and_neither_is_an_error(model):
    boxed = Squares(masks=False)
    seen = look(model, batches(boxed), boxed, oracle(Squares()))
    np.testing.assert_allclose(seen.energy, 1)  # here the box is the mask
    assert np.isnan(seen.pxap)
    np.testing.assert_array_equal(object_mask(boxed[3]), object_mask(Squares()[3]))
    bare = Squares(masks=False, boxes=False)
    with pytest.raises(CkfrError, match="Image 0 has no box"):
        look(model, batches(bare), bare, oracle(Squares()))


def test_the_same_cutout_on_two_backgrounds():
    scenes = PhotoScenes("test", 64, 12, seed=1, cutouts=cutouts(), hierarchy=SCENE_TREE, instances=2)
    usual, foreign = OnBackground(scenes, "usual"), OnBackground(scenes, "foreign")
    assert len(usual) == len(foreign) == 12
    for i in range(12):
        assert torch.equal(usual[i][1]["masks"], foreign[i][1]["masks"])
        assert usual[i][1]["label"] == scenes.labels[i]
        assert not torch.equal(usual[i][0], foreign[i][0])
        assert torch.equal(usual[i][0], scenes.scene(i, scenes.usual[scenes.labels[i]])[0])
    with pytest.raises(CkfrError, match="no background"):
        OnBackground(scenes, "moon")


def test_from_a_folder_with_boxes_to_scores_on_the_command_line(tmp_path, capsys):
    generator = np.random.default_rng(0)
    lines = ["file,x0,y0,x1,y1"]
    for split, count in (("train", 8), ("val", 4), ("test", 4)):
        for name, colour in (("red", (220, 30, 30)), ("blue", (30, 30, 220))):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(90, 160, (32, 40, 3), dtype=np.uint8)
                x, y = generator.integers(0, 20, 2) % (20, 12)
                pixels[y : y + 18, x : x + 18] = colour
                Image.fromarray(pixels).save(tmp_path / "data" / split / name / f"{number}.png")
                lines.append(f"{split}/{name}/{number}.png,{x},{y},{x + 17},{y + 17}")
    (tmp_path / "data" / "hierarchy.csv").write_text("parent,child\nthing,red\nthing,blue\n")
    (tmp_path / "data" / "boxes.csv").write_text("\n".join(lines) + "\n")
    config = TrainConfig(
        data="folder", root=str(tmp_path / "data"), model="resnet18", pretrained=False, size=64, epochs=1,
        transform="light", lr=1e-3, batch_size=8, workers=0, accelerator="cpu",
    )  # fmt: skip
    train(config, tmp_path / "run", progress=False)
    assert cli.main(["look", str(tmp_path / "run"), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert 0 < scores["energy"] < 1
    assert scores["box_acc_fixed"] <= scores["max_box_acc_v2"] <= 1
    assert cli.main(["look", str(tmp_path / "run"), "--method", "hirescam", "--json"]) == 0
    by_gradients = json.loads(capsys.readouterr().out)
    assert by_gradients["energy"] == pytest.approx(
        scores["energy"], abs=1e-4
    )  # the same map for GAP + linear
    (tmp_path / "data" / "boxes.csv").unlink()
    assert cli.main(["look", str(tmp_path / "run")]) == 2
    assert "no box" in capsys.readouterr().err

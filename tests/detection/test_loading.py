"""Batches with regions: pooled beforehand, or moved with the picture; and what a teacher says."""

import pytest
import torch
from flat_colours import FlatColours
from small_network import small_network
from torch import nn
from torchvision.transforms import v2

from ckfr_helpers.datasets.loading import CachedLoader, TransformedView, make_loader, start_epoch
from ckfr_helpers.detection.head import TwoStream, image_scores
from ckfr_helpers.detection.loading import RegionLoader, WithProposals, cache_regions, teach
from ckfr_helpers.detection.networks import Detector
from ckfr_helpers.detection.proposals import grid_boxes
from ckfr_helpers.detection.regions import flat
from ckfr_helpers.detection.tasks import DetectorTask, MultiLabelTask
from ckfr_helpers.models import CachedFeatures
from ckfr_helpers.runtime import CkfrError
from ckfr_helpers.training import TrainConfig, cache_split, fit

PICTURES = 20


def some_boxes():
    draw = torch.Generator().manual_seed(0)
    boxes = []
    for number in range(PICTURES):
        corner = torch.randint(0, 20, (1 + number % 4, 2), generator=draw).float()
        boxes.append(torch.cat([corner, corner + 11], 1))
    return boxes


def maps():
    values = torch.randn(PICTURES, 6, 4, 4, generator=torch.Generator().manual_seed(1))
    rows = torch.arange(PICTURES)
    return CachedFeatures(values, rows % 3, rows, {"labels": rows[:, None] % 2.0})


def test_regions_pooled_once_are_those_pooled_at_every_step():
    data, boxes = maps(), some_boxes()
    cached = cache_regions(data, boxes, (32, 32), progress=False)
    model = Detector(TwoStream(6, 3), size=(32, 32)).eval()
    features = {name: value for name, value in cached.features.items() if name != "regions"}
    torch.testing.assert_close(model(cached.features), model({**features, "maps": data.features}))
    assert cached.features["counts"].tolist() == [len(own) for own in boxes]
    assert torch.equal(cached.targets["labels"], data.targets["labels"])
    scores = [torch.rand(len(own)) for own in boxes]
    scored = cache_regions(data, boxes, (32, 32), scores=scores, progress=False).features
    torch.testing.assert_close(flat(scored["box_scores"], scored["counts"]), torch.cat(scores))
    assert scored["box_scores"].shape == scored["boxes"].shape[:2]
    with pytest.raises(CkfrError, match="boxes for 19 of 20 pictures"):
        cache_regions(data, boxes[1:], (32, 32), progress=False)
    with pytest.raises(CkfrError, match=r"Box 0 of picture 0, .* outside its picture of 8 × 8"):
        cache_regions(data, boxes, (8, 8), progress=False)


class MirrorOdd(nn.Module):
    """Mirrors in a random half of the cases, as the loader's own generator says."""

    def forward(self, image, target):
        return v2.RandomHorizontalFlip()(v2.ToDtype(torch.float32, scale=True)(image), target)


def region_loader(batch_size=8, **options):
    source = FlatColours("train", per_class=5)
    scores = [torch.arange(len(own)) + 1.0 for own in some_boxes()]
    view = TransformedView(
        WithProposals(source, some_boxes(), scores), MirrorOdd(), keys=("label", "boxes", "box_scores")
    )
    return RegionLoader(make_loader(view, batch_size, train=True), **{"most": 4, **options})


def test_boxes_move_with_their_picture_into_the_inputs():
    loader = region_loader(rows={"teacher": torch.arange(PICTURES) / 10})
    start_epoch(loader, 1)
    mirrored = 0
    assert len(loader) == 2
    for inputs, targets, indices in loader:
        assert set(targets) == {"label", "teacher"}
        torch.testing.assert_close(targets["teacher"], indices / 10)
        for row, index in enumerate(indices.tolist()):
            expected, count = some_boxes()[index], int(inputs["counts"][row])
            found = inputs["boxes"][row, :count]
            if not torch.equal(found, expected):
                expected[:, [0, 2]] = 31 - expected[:, [2, 0]]
                mirrored += 1
            assert torch.equal(found, expected)
            assert inputs["box_scores"][row].tolist() == [1.0, 2, 3, 4][:count] + [0.0] * (4 - count)
            assert not inputs["boxes"][row, count:].any()
    assert 0 < mirrored < 16


def test_a_teachers_answers_come_with_plain_pictures_too():
    view = TransformedView(FlatColours("train", per_class=5), MirrorOdd())
    loader = RegionLoader(make_loader(view, 8, train=True), rows={"teacher": torch.arange(PICTURES) / 10})
    for pictures, targets, indices in loader:
        assert pictures.shape == (8, 3, 32, 32)
        torch.testing.assert_close(targets["teacher"], indices / 10)


def test_small_boxes_and_those_beyond_the_room_are_left_out_with_their_scores():
    inputs, *_ = next(iter(region_loader(most=2)))
    assert inputs["counts"].max() == 2
    assert flat(inputs["box_scores"], inputs["counts"]).max() == 2
    with pytest.raises(
        CkfrError, match=r"No proposal of example \d+ of flat-colours train has sides of 13 pixels"
    ):
        next(iter(region_loader(min_side=13)))
    inputs, *_ = next(iter(region_loader(min_side=12, most=0)))
    assert inputs["boxes"].shape[1] == inputs["box_scores"].shape[1] == inputs["counts"].max()


def test_proposals_are_checked_against_their_own_picture():
    source = FlatColours("train", per_class=5)
    boxes = some_boxes()
    boxes[3] = boxes[3][:0]
    with pytest.raises(CkfrError, match="no proposal for example 3 of flat-colours train"):
        WithProposals(source, boxes)[3]
    with pytest.raises(CkfrError, match="proposals for 2 of 20 pictures"):
        WithProposals(source, boxes[:2])


def test_a_teacher_answers_in_evaluation_mode_unless_its_noise_is_asked_for():
    cached = cache_regions(maps(), some_boxes(), (32, 32), progress=False)
    torch.manual_seed(0)
    model = Detector(TwoStream(6, 3, hidden=5, dropout=0.5)).train()
    loader = CachedLoader(cached, 8, train=False)
    first, again = teach(model, loader, regions=True), teach(model, loader)
    assert torch.equal(first["teacher"], again["teacher"])
    assert set(again) == {"teacher"}
    assert not torch.equal(teach(model, loader, noisy=True)["teacher"], first["teacher"])
    assert model.training
    assert model.head.dropout.training
    model.eval()
    torch.testing.assert_close(first["teacher"], image_scores(model(cached.features)))
    sharp = image_scores(model(cached.features, sharpen=2.0))
    torch.testing.assert_close(teach(model, loader, sharpen=2.0)["teacher"], sharp)
    assert not torch.allclose(sharp, first["teacher"])
    rows = flat(first["regions"], cached.features["counts"])
    torch.testing.assert_close(rows, model.embed(cached.features))


def test_any_classifier_may_teach():
    data = maps()
    model = nn.Sequential(nn.Flatten(), nn.Linear(96, 3))
    found = teach(model, CachedLoader(data, 8, train=False))["teacher"]
    torch.testing.assert_close(found, model(data.features.flatten(1)).sigmoid())
    with pytest.raises(CkfrError, match="needs a Detector; got a Sequential"):
        teach(model, CachedLoader(data, 8, train=False), regions=True)


class SeveralColours(FlatColours):
    """Each picture's label as one of four."""

    def __getitem__(self, index):
        image, target = super().__getitem__(index)
        return image, target | {"labels": nn.functional.one_hot(torch.tensor(target["label"]), 4).float()}


SETTINGS = {"batch_size": 8, "alpha": 0.0, "accelerator": "cpu"}


def test_from_pictures_to_a_detector_and_from_its_answers_to_a_classifier():
    network, data = small_network("small", 4), {}
    for split in ("train", "val"):
        source = SeveralColours(split, boxes=True)
        maps = cache_split(source, network, 1, 32, workers=0, progress=False, keys=("label", "labels"))
        boxes = [grid_boxes((32, 32), sizes=(0.4, 0.6), shapes=(1.0,), stride=0.5)] * len(source)
        data[split] = maps, cache_regions(maps, boxes, (32, 32), progress=False)
    torch.manual_seed(0)
    model = Detector(TwoStream(6, 4, length=None))
    loaders = [CachedLoader(data[split][1], 8, split == "train") for split in data]
    found = fit(model, DetectorTask(), *loaders, TrainConfig(epochs=12, lr=0.1, **SETTINGS), progress=False)
    assert found.history[found.best_epoch]["val_mAP"] > 0.8
    loaders = []
    for split, (maps, regions) in data.items():
        taught = maps.with_targets(**teach(model, CachedLoader(regions, 8, train=False)))
        loaders.append(CachedLoader(taught, 8, split == "train"))
    _, tail = network.split(1)
    task = MultiLabelTask(4, teacher=True)
    found = fit(tail, task, *loaders, TrainConfig(epochs=12, lr=0.02, **SETTINGS), progress=False)
    assert found.history[-1]["train_teacher"] < found.history[0]["train_teacher"]
    assert found.history[-1]["val_mAP"] > 0.8


def test_a_detector_trains_on_pictures_whose_proposals_move_with_them():
    source = SeveralColours("train", per_class=5)
    view = TransformedView(
        WithProposals(source, some_boxes()), MirrorOdd(), keys=("label", "labels", "boxes")
    )
    loaders = [RegionLoader(make_loader(view, 4, train=train), most=4) for train in (True, False)]
    torch.manual_seed(0)
    model = Detector(TwoStream(3, 4), nn.Sequential(nn.Conv2d(3, 3, 1)))
    found = fit(model, DetectorTask(), *loaders, TrainConfig(epochs=4, lr=0.05, **SETTINGS), progress=False)
    assert found.history[-1]["train_image"] < 0.8 * found.history[0]["train_image"]
    assert found.history[-1]["val_mAP"] > 0.7

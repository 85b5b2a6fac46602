"""Detector and student as tasks of the one loop: losses, learning, parts, going on after a stop."""

import copy
import shutil

import pytest
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from small_network import small_network
from torch import nn

from ckfr_helpers.datasets.loading import CachedLoader
from ckfr_helpers.detection.head import TwoStream, image_loss, image_scores, spatial_regulariser
from ckfr_helpers.detection.loading import teach
from ckfr_helpers.detection.networks import Detector, RegionStudent, vgg_detector
from ckfr_helpers.detection.regions import pad_boxes
from ckfr_helpers.detection.tasks import DetectorTask, FeatureTask, MultiLabelTask
from ckfr_helpers.models import CachedFeatures
from ckfr_helpers.runtime import CkfrError
from ckfr_helpers.training import TrainConfig, fit
from ckfr_helpers.training.step import TaskNetwork, gradients

CLASSES, SIDE, CELLS = 3, 80, 10  # maps of 10 x 10 cells of 8 pixels
CORNERS = ((0, 0), (0, 5), (5, 0), (5, 5))  # cells, where an object of 5 x 5 cells may be


def drawn(pictures, seed=0):
    """Maps in which a class lights its own channel in one corner; boxes are corners and some about them."""
    draw = torch.Generator().manual_seed(seed)
    labels = (torch.rand(pictures, CLASSES, generator=draw) < 0.4).float()
    maps = 0.3 * torch.rand(pictures, 4, CELLS, CELLS, generator=draw)
    places = torch.stack([torch.randperm(4, generator=draw) for _ in range(pictures)])
    for picture, label in labels.nonzero().tolist():
        y, x = CORNERS[places[picture, label]]
        maps[picture, label, y : y + 5, x : x + 5] += 1
    boxes = [
        torch.tensor([[8.0 * x, 8 * y, 8 * x + 39, 8 * y + 39] for y, x in CORNERS]) for _ in range(pictures)
    ]
    more = [
        torch.tensor([[0.0, 0, 79, 79], [0, 0, 37, 37], [20, 20, 59, 59]])[: number % 4]
        for number in range(pictures)
    ]
    together, counts = pad_boxes([torch.cat(pair) for pair in zip(boxes, more, strict=True)])
    features = {"maps": maps, "boxes": together, "counts": counts}
    return CachedFeatures(features, labels.argmax(1), torch.arange(pictures), {"labels": labels}), places


def detector(seed=0, **options):
    torch.manual_seed(seed)
    stages = nn.Sequential(nn.Sequential(nn.Conv2d(4, 6, 1), nn.Tanh()))
    return Detector(
        TwoStream(6, CLASSES, **{"hidden": 8, "dropout": 0.1, **options}), stages, size=(SIDE, SIDE)
    )


def student(seed=0):
    torch.manual_seed(seed)
    network = small_network("small", CLASSES)
    network.stages[0] = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU())
    return RegionStudent(network, nn.Linear(8, 5), size=(SIDE, SIDE))


def run(model, task, out=None, data=None, **changes):
    data = data or drawn(48)[0]
    options = {"epochs": 6, "lr": 0.02, "batch_size": 12, "alpha": 0.0, "accelerator": "cpu", **changes}
    loaders = CachedLoader(data, 12, True), CachedLoader(data, 12, False)
    return fit(model, task, *loaders, TrainConfig(**options), out=out, progress=False)


def with_teacher(data, width=5):
    draw = torch.Generator().manual_seed(7)
    rooms = data.features["boxes"].shape[1]
    return data.with_targets(
        teacher=torch.rand(len(data), CLASSES, generator=draw),
        regions=torch.randn(len(data), rooms, width, generator=draw),
    )


class Plain(nn.Module):
    """A student of stage 2 that takes the same batches."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(400, CLASSES))

    def forward(self, inputs):
        return self.layers(inputs["maps"])


TASKS = {
    "detector": lambda: (detector(), DetectorTask(spatial=0.1)),
    "student": lambda: (Plain(), MultiLabelTask(CLASSES, teacher=True, scale=0.2, learn_scale=True)),
    "features": lambda: (student(), FeatureTask()),
}


# -- learning ------------------------------------------------------------------------------------------------


def test_a_detector_learns_from_labels_alone_what_there_is_and_where():
    data, _ = drawn(48)
    model, (unseen, places) = detector(length=None), drawn(40, seed=1)
    result = run(model, DetectorTask(), data=data, epochs=20, lr=0.05)
    assert result.history[-1]["train_image"] < 0.5 * result.history[0]["train_image"]
    scores = DetectorTask().validate(model, CachedLoader(unseen, 12, False))
    assert scores["mAP"] > 0.95
    assert set(scores) > {"CF1", "OF1@3", "image"}
    with torch.no_grad():
        best = model.eval()(unseen.features).argmax(1)  # (B, C) regions
    there = unseen.targets["labels"].bool()
    in_the_corner = (best == places[:, :CLASSES]) | ((best == 5) & (places[:, :CLASSES] == 0))
    assert in_the_corner[there].float().mean() > 0.9


def test_a_student_learns_the_teachers_features_without_a_label():
    data, _ = drawn(48)
    teacher = detector(hidden=5)
    taught = teach(teacher, CachedLoader(data, 12, False), regions=True)
    assert taught["regions"].shape == (48, data.features["boxes"].shape[1], 5)
    unlabelled = CachedFeatures(data.features, data.labels, data.indices).with_targets(**taught)
    model = student()
    shared = model.stages[0][0].weight
    before = shared.detach().clone()
    result = run(model, FeatureTask(), data=unlabelled, epochs=8)
    assert result.history[-1]["val_distance"] < 0.5 * result.history[0]["val_distance"]
    assert not torch.equal(shared, before)  # the classifier's own stages


def test_a_student_of_scores_learns_both_terms_and_reports_its_scale():
    data, _ = drawn(48)
    data = data.with_targets(teacher=0.1 + 0.7 * data.targets["labels"])
    model, task = TASKS["student"]()
    history = run(model, task, data=data, epochs=8).history
    assert history[-1]["train_labels"] < history[0]["train_labels"]
    assert history[-1]["train_teacher"] < history[0]["train_teacher"]
    last = history[-1]
    assert last["val_scale_least"] < last["val_scale"] < last["val_scale_most"]
    assert "val_scale" not in run(Plain(), MultiLabelTask(CLASSES), data=data, epochs=1).history[0]


# -- the losses ----------------------------------------------------------------------------------------------


def batch(data, rows=slice(None)):
    inputs = {name: values[rows] for name, values in data.features.items()}
    return inputs, {name: values[rows] for name, values in data.targets.items()}, data.indices[rows]


def test_a_detectors_losses_are_those_of_each_picture_alone():
    data, _ = drawn(12)
    model, task = detector().eval(), DetectorTask(spatial=0.3)
    found = task.step(model, batch(data))
    image, spatial = [], []
    for number in range(12):
        inputs, targets, _ = batch(data, slice(number, number + 1))
        count = int(inputs["counts"])
        scores, features = model(inputs)[0, :count], model.embed(inputs)
        image.append(image_loss(image_scores(scores), targets["labels"][0]))
        each = spatial_regulariser(features, scores, inputs["boxes"][0, :count])
        spatial.append((each * targets["labels"][0]).sum())
    torch.testing.assert_close(found["image"], torch.stack(image).mean())
    torch.testing.assert_close(found["spatial"], 0.3 * torch.stack(spatial).mean())
    assert found["spatial"] > 0
    assert "spatial" not in DetectorTask().step(model, batch(data))


def test_a_students_losses_are_the_formulas():
    draw = torch.Generator().manual_seed(0)
    z, p = torch.randn(2, 6, CLASSES, generator=draw, dtype=torch.float64)
    y, p = (torch.rand(6, CLASSES, generator=draw) < 0.5).double(), p.sigmoid()
    targets = {"labels": y, "teacher": p}

    def entropy(scores, truth):
        return -(truth * scores.log() + (1 - truth) * (1 - scores).log()).sum() / 6

    plain = MultiLabelTask(CLASSES, teacher=True, weight=2.0, smoothing=0.2).losses({"logits": z}, targets)
    torch.testing.assert_close(plain["labels"], entropy(z.sigmoid(), 0.8 * y + 0.1))
    torch.testing.assert_close(plain["teacher"], 2 * entropy(z.sigmoid(), p))
    source = MultiLabelTask(CLASSES, teacher=True, scale=0.2, learn_scale=True).losses({"logits": z}, targets)
    torch.testing.assert_close(source["teacher"], entropy((0.2 * z).sigmoid(), p), rtol=1e-6, atol=0)
    assert set(MultiLabelTask(CLASSES).losses({"logits": z}, targets)) == {"labels"}


def test_the_learnt_scale_moves_ten_times_as_fast_as_all_else():
    task = MultiLabelTask(CLASSES, teacher=True, scale=0.2, learn_scale=True)
    logits = nn.Parameter(torch.randn(4, CLASSES, generator=torch.Generator().manual_seed(0)))
    optimizer = torch.optim.Adam([logits, *task.parameters()], lr=1e-3)
    before = logits.detach().clone(), task.scale.detach().clone()
    targets = {"labels": torch.ones(4, CLASSES), "teacher": torch.full((4, CLASSES), 0.9)}
    sum(task.losses({"logits": logits}, targets).values()).backward()
    optimizer.step()
    torch.testing.assert_close((logits - before[0]).abs(), torch.full((4, CLASSES), 1e-3), rtol=1e-3, atol=0)
    torch.testing.assert_close(
        (task.scale - before[1]).abs(), torch.full((CLASSES,), 1e-2), rtol=1e-3, atol=0
    )
    assert not list(MultiLabelTask(CLASSES, teacher=True).parameters())


def test_the_distance_of_features_counts_every_region_of_a_picture_alike():
    data = with_teacher(drawn(6)[0])
    model = student().eval()
    inputs, targets, indices = batch(data)
    expected = 0.0
    for picture, count in enumerate(inputs["counts"].tolist()):
        for row in range(count):
            gap = targets["regions"][picture, row] - model(inputs)[picture, row]
            expected += 0.5 * gap.square().sum() / count / 6
    found = FeatureTask().step(model, (inputs, targets, indices))["distance"]
    torch.testing.assert_close(found, expected)


def test_a_students_regions_may_be_weighed_as_in_the_source():
    torch.manual_seed(0)
    network, project = small_network("small", CLASSES), nn.Linear(8, 5)
    network.stages[0] = nn.Sequential(nn.Conv2d(4, 6, 1))
    weighed = RegionStudent(network, project, "product", size=(SIDE, SIDE))
    inputs, *_ = batch(drawn(2)[0])
    inputs["box_scores"] = torch.zeros(inputs["boxes"].shape[:2])
    inputs["box_scores"][0, 0] = 2.0
    found = weighed(inputs)
    torch.testing.assert_close(found[0, 1], project.bias)  # a score of 0 leaves nothing of the region
    torch.testing.assert_close(found[0, 0], project(2 * weighed.pool(inputs)[0]))


# -- what the loop promises ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_a_batch_in_parts_gives_the_gradients_of_the_whole(name):
    data = with_teacher(drawn(8)[0])
    inputs, targets, _ = batch(data)
    found = []
    for parts in (1, 3):
        model, task = TASKS[name]()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        fabric = Fabric(accelerator="cpu", devices=1)
        network = fabric.setup(TaskNetwork(model, task))
        losses = gradients(fabric, network, task, inputs, targets, parts=parts)
        found.append((losses, [p.grad for p in [*model.parameters(), *task.parameters()]]))
    (whole, all_at_once), (cut, in_parts) = found
    assert cut == pytest.approx(whole, rel=1e-5)
    assert all(grad is not None for grad in all_at_once)
    torch.testing.assert_close(in_parts, all_at_once, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", TASKS)
def test_a_fit_stopped_within_an_epoch_ends_as_an_undisturbed_one(name, tmp_path):
    data = with_teacher(drawn(36)[0])
    model, task = TASKS[name]()
    start = copy.deepcopy(model.state_dict())
    whole = run(model, task, tmp_path / "whole", data, epochs=2, save_every=1)

    class Killed(Exception): ...

    stopped, again = TASKS[name]()
    stopped.load_state_dict(start)
    calls, losses = [], again.losses

    def deadly(outputs, targets):
        calls.append(1)
        if len(calls) == 5:  # of six steps
            raise Killed
        return losses(outputs, targets)

    again.losses = deadly
    with pytest.raises(Killed):
        run(stopped, again, tmp_path / "part", data, epochs=2, save_every=1)
    shutil.copytree(tmp_path / "part", tmp_path / "resumed")
    resumed, last = TASKS[name]()
    result = run(resumed, last, tmp_path / "resumed", data, epochs=2, save_every=1)
    for mine, theirs in ((resumed, model), (last, task)):
        for key, value in theirs.state_dict().items():
            assert torch.equal(mine.state_dict()[key], value), key
    told = [{k: v for k, v in row.items() if "second" not in k} for row in whole.history]
    assert [{k: v for k, v in row.items() if "second" not in k} for row in result.history] == told


@pytest.mark.parametrize("name", TASKS)
def test_every_task_trains_in_mixed_precision_with_stages_computed_again(name):
    model, task = TASKS[name]()
    flags = {"precision": "bf16-mixed", "accumulate": 2, "grad_checkpointing": name != "student"}
    history = run(model, task, data=with_teacher(drawn(24)[0]), epochs=1, **flags).history
    assert all(value == value for value in history[0].values())


# -- networks and mistakes -----------------------------------------------------------------------------------


def test_regions_pooled_beforehand_give_the_same_scores():
    model, (inputs, *_) = detector().eval(), batch(drawn(4)[0])
    pooled = torch.zeros(*inputs["boxes"].shape[:2], 6)
    start, rows = 0, model.pool(inputs)
    for picture, count in enumerate(inputs["counts"].tolist()):
        pooled[picture, :count] = rows[start : start + count]
        start += count
    without = {name: value for name, value in inputs.items() if name != "maps"}
    torch.testing.assert_close(model({**without, "regions": pooled}), model(inputs))


def test_vgg_is_taken_apart_as_the_sources_do():
    with torch.device("meta"):
        model = vgg_detector(20, "vgg11", pretrained=False)
    assert isinstance(list(model.stages.modules())[-1], nn.ReLU)  # the last pooling is the regions'
    layers = [part for part in model.head.body if isinstance(part, nn.Linear)]
    assert [(part.in_features, part.out_features) for part in layers] == [(512 * 49, 4096), (4096, 4096)]
    assert (model.head.width, model.head.dropout.p, model.pooling, model.side) == (4096, 0.5, "max", 7)
    assert model.head.box_scores == "product"
    with pytest.raises(CkfrError, match="expected a VGG"):
        vgg_detector(20, "resnet18", pretrained=False)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MultiLabelTask(CLASSES, learn_scale=True), "expected teacher=True"),
        (lambda: MultiLabelTask(CLASSES, smoothing=1.0), "smoothing is 1.0"),
        (lambda: DetectorTask(spatial=-1), "spatial is -1"),
        (lambda: MultiLabelTask(CLASSES, teacher=True).step(Plain(), batch(drawn(2)[0])), "scores are none"),
        (
            lambda: FeatureTask().step(student(), batch(drawn(2)[0])),
            r"features are none; expected \(2, 5, 5\)",
        ),
    ],
)
def test_mistakes_get_one_sentence(call, message):
    with pytest.raises(CkfrError, match=message):
        call()


def test_labels_beside_0_and_1_are_refused_by_both():
    inputs, targets, indices = batch(drawn(2)[0])
    targets["labels"] = targets["labels"] + 0.5
    for model, task in ((detector(), DetectorTask()), (Plain(), MultiLabelTask(CLASSES))):
        with pytest.raises(CkfrError, match=r"Labels hold (0\.5|1\.5); expected 0 or 1"):
            task.step(model, (inputs, targets, indices))


def test_a_picture_without_labels_is_one_in_which_nothing_is():
    inputs, targets, indices = batch(drawn(2)[0])
    targets["labels"] = torch.zeros(2, CLASSES)
    logits = Plain().eval()(inputs)
    loss = MultiLabelTask(CLASSES).losses({"logits": logits}, targets)["labels"]
    torch.testing.assert_close(loss, F.softplus(logits).sum() / 2)
    model = detector().eval()
    found = DetectorTask(spatial=1.0).step(model, (inputs, targets, indices))
    torch.testing.assert_close(found["image"], -(1 - image_scores(model(inputs))).log().sum() / 2)
    assert found["spatial"] == 0

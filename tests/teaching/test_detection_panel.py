"""Notebook 06's pictures, figures and panel, on drawn cut-outs and a detector that knows three colours."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from drawn_scenes import TREE, coloured_cutouts
from PIL import Image

from ckfr_helpers.attribution.boxes import iou_matrix
from ckfr_helpers.attribution.cam import score_maps
from ckfr_helpers.datasets.scenes.several import SeveralScenes
from ckfr_helpers.detection.head import TwoStream
from ckfr_helpers.detection.networks import Detector
from ckfr_helpers.detection.rivals import centre_box, one_box_each
from ckfr_helpers.detection.scores import corloc
from ckfr_helpers.detection.tables import Detections
from ckfr_helpers.models import CachedFeatures
from ckfr_helpers.teaching.detection_lesson import (
    DetectionLesson,
    best_proposals,
    detections_of,
    detector_maps,
    label_scores,
    looks,
)
from ckfr_helpers.teaching.detection_scenes import STEP, Seen
from ckfr_helpers.teaching.detection_training import region_scores, said
from ckfr_helpers.teaching.plots import detection as plots
from ckfr_helpers.teaching.plots.names import score_title
from ckfr_helpers.teaching.plots.style import BASELINE, OURS, jpeg, png
from ckfr_helpers.teaching.sliders.detection import TEMPERATURES, LiveRegions, detection_panel
from ckfr_helpers.training.results import Results, as_table

SIZE = 128  # pixels a side


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Scenes behind a trunk that sees how red, green and blue each place is, as the cut-outs are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CKFR_DATA", str(tmp_path_factory.mktemp("data")))
        kinds = {"cutouts": coloured_cutouts(), "hierarchy": TREE, "instances": 2}
        source = SeveralScenes("val", size=SIZE, scenes=9, objects=(1, 2), **kinds)
        targets, masks, maps = [], [], []
        for index in range(len(source)):
            image, target = source[index]
            masks.append(F.max_pool2d(target["masks"].as_subclass(torch.Tensor).float(), STEP).bool())
            boxes = target["boxes"].as_subclass(torch.Tensor)
            targets.append({"boxes": boxes, "box_labels": target["box_labels"], "labels": target["labels"]})
            colour = image.as_subclass(torch.Tensor).float() / 255
            excess = (colour - (colour.sum(0) - colour) / 2).clamp(min=0)  # above the mean of the others
            maps.append(F.avg_pool2d(excess, 8))
        rows, labels = torch.arange(len(source)), torch.stack([target["labels"] for target in targets])
        kept = CachedFeatures(torch.stack(maps), torch.from_numpy(source.labels), rows, {"labels": labels})
        yield Seen(source, targets, masks, kept, kept, (SIZE, SIZE))


@pytest.fixture(scope="module")
def lesson(seen):
    head = TwoStream(3, 3, length=None)
    with torch.no_grad():
        order = [TREE.label(name) for name in ("ball", "ring", "box")]  # red, green, blue
        for stream in (head.class_stream, head.detection_stream):
            stream.weight.zero_()[order, torch.arange(3)] = 20
        head.class_stream.bias.zero_()
    detector = Detector(head, size=(SIZE, SIZE)).eval()
    return DetectionLesson(None, {"val": seen, "test": seen}, detector, None, None, {})


@pytest.fixture(scope="module")
def panel(lesson, seen):
    pictures, labels, _ = seen.shown
    return detection_panel(lesson, list(zip(pictures.tolist(), labels.tolist(), strict=True))[:3])


def drawn_boxes(axis):
    """Boxes of an axis, both ends inside; each is drawn twice, over its rim."""
    found = [patch.get_bbox().extents for patch in axis.patches]
    assert np.array_equal(found[::2], found[1::2])
    return np.add(np.reshape(found[::2], (-1, 4)), [0.5, 0.5, -0.5, -0.5])


def test_boxes_stand_side_by_side_and_are_counted(lesson, seen):
    methods = {
        "WSDDN": detections_of(lesson.detector, seen),
        "best proposals": best_proposals(seen),
        "centre": one_box_each(centre_box(seen.size, 0.5), seen.labels),
    }
    figure = plots.side_by_side(seen, [0, 4], methods)
    assert [axis.get_title() for axis in figure.axes[:4]] == ["what is there", *methods]
    for picture, line in zip((0, 4), np.array(figure.axes).reshape(2, 4), strict=True):
        target = seen.targets[picture]
        words = [TREE.names[label] for label in target["box_labels"]]
        np.testing.assert_allclose(drawn_boxes(line[0]), target["boxes"])
        assert [text.get_text() for text in line[0].texts] == words
        for axis, found in zip(line[1:], methods.values(), strict=True):
            best, right = [], 0
            for box, label in zip(target["boxes"], target["box_labels"], strict=True):
                boxes, scores, labels, pictures = (np.asarray(column) for column in found)
                own = (pictures == picture) & (labels == int(label))
                best.append(boxes[own][scores[own].argmax()])
                right += iou_matrix(best[-1][None], box[None])[0, 0] >= 0.5
            np.testing.assert_allclose(drawn_boxes(axis)[len(words) :], best, atol=1e-4)
            assert axis.get_xlabel() == f"{right} of {len(words)} right"
            assert [text.get_text() for text in axis.texts] == words
    assert Image.open(io.BytesIO(jpeg(figure))).width > 900


def test_a_class_without_a_box_is_neither_drawn_nor_right(seen):
    nothing = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), np.zeros(0, int))
    axis = plots.side_by_side(seen, [1], {"none": nothing}).axes[1]
    count = len(seen.targets[1]["boxes"])
    assert axis.get_xlabel() == f"0 of {count} right"
    assert len(drawn_boxes(axis)) == count
    assert not axis.texts


def test_maps_are_shown_with_the_energy_that_is_scored(lesson, seen):
    maps = {"WSDDN": detector_maps(lesson.detector, seen), "flat": torch.ones(len(seen.maps), 3, 4, 4)}
    pictures, labels, _ = seen.shown
    pairs = list(zip(pictures.tolist(), labels.tolist(), strict=True))[:3]
    figure = plots.where_they_look(seen, pairs, maps)
    cells = np.array(figure.axes).reshape(3, 3)
    for name, line in zip(maps, cells[1:], strict=True):
        energy = looks(maps[name], seen).energy
        assert [axis.get_xlabel() for axis in line] == [f"{one:.0%} on the object" for one in energy[:3]]
    assert [axis.get_xlabel() for axis in cells[0]] == [TREE.names[label] for _, label in pairs]


def test_a_bar_is_as_long_as_its_score_and_says_who_saw_boxes():
    found = {
        "centre": {"corloc": 0.1, "mistake_severity_box": np.nan},
        "WSDDN": {"corloc": 0.25, "mistake_severity_box": 4.0},
        "best proposals": {"corloc": 0.9, "mistake_severity_box": np.nan},
    }
    scores = ("corloc", "mistake_severity_box")
    first, second = plots.bars(found, scores).axes
    assert [patch.get_width() for patch in first.patches] == [0.1, 0.25, 0.9]
    assert [patch.get_hatch() or "" for patch in first.patches] == ["", "", "///"]
    assert [patch.get_facecolor()[:3] for patch in first.patches] == [BASELINE, OURS, (1, 1, 1)]
    assert [text.get_text() for text in second.texts] == ["4.00"]
    table = plots.quick_table(found, scores)
    assert list(table.columns) == [score_title(score) for score in scores]
    assert table.loc["WSDDN", score_title("corloc")] == 0.25


def results(values):
    """(data set, method) -> score -> one value a seed, on test."""
    rows = [
        {"study": "s", "dataset": d, "method": m, "parameters": "lr=1", "seed": seed, "split": split,
         "score": score, "value": value, "made_by": "here"}
        for (d, m), scores in values.items() for score, own in scores.items()
        for seed, value in enumerate(own) for split in ("val", "test")
    ]  # fmt: skip
    datasets = [{"name": "several-photos", "label": label} for label in dict.fromkeys(d for d, _ in values)]
    study = {"name": "s", "choose_by": "mAP", "lr_by": "mAP", "lr_for": "each", "seeds": [0, 1, 2]}
    methods = list(dict.fromkeys(m for _, m in values))
    return Results(as_table(rows), {"study": {**study, "datasets": datasets, "methods": methods}})


def test_the_study_is_told_with_intervals_differences_and_gaps():
    study = results({
        ("pairing 0", "plain"): {"mAP": [0.4, 0.41, 0.42], "energy": [0.2, 0.2, 0.3]},
        ("pairing 0", "taught"): {"mAP": [0.45, 0.46, 0.471], "energy": [np.nan, 0.2, 0.3]},
        ("pairing 0.8", "plain"): {"mAP": [0.3, 0.3, 0.36], "energy": [0.1, 0.2, 0.3]},
    })  # fmt: skip
    methods, scores = ["plain", "taught"], ["mAP", "energy"]
    figure = plots.levels(study, methods, scores)
    assert [axis.get_title() for axis in figure.axes] == [score_title(score) for score in scores]
    dots = [
        sorted(float(line.get_xdata()[0]) for line in axis.lines if len(line.get_xdata()) == 1)
        for axis in figure.axes
    ]
    np.testing.assert_allclose(dots[0], [0.32, 0.41, np.mean([0.45, 0.46, 0.471])])
    np.testing.assert_allclose(dots[1], [0.2, np.mean([0.2, 0.2, 0.3])])  # a seed without the score: a gap
    apart = plots.levels(study, methods, ["mAP"], "plain").axes[0]
    dots = [line.get_xdata()[0] for line in apart.lines if line.get_marker() in "os"]
    np.testing.assert_allclose(dots, np.mean([0.05, 0.05, 0.051]))
    png(figure)

    table = plots.study_table(study, methods, scores, "plain")
    row = table.loc[("pairing 0", "taught", "lr=1")]
    assert row["mAP − plain"].startswith("+0.050")
    assert row["mAP − plain"].endswith(" *")
    assert row[score_title("energy")] == "–"
    assert table.loc[("pairing 0", "plain", "lr=1"), "mAP − plain"] == "–"
    assert len(table) == 3
    assert plots.by_chance(study, methods, ["mAP"], "plain").startswith("1 intervals at 95 % stand here; 1 ")


def test_with_the_detectors_own_settings_the_panel_says_what_the_lesson_scores(panel, lesson, seen):
    every, total = region_scores(lesson.detector, seen), len(seen.proposals)
    best = seen.proposals[every.argmax(1)]  # (N, K, 4)
    found = one_box_each(best, seen.labels)
    right, counted = corloc(found, seen.objects, 3).per_class, seen.labels.sum(0).numpy()
    share = (right * counted).sum() / counted.sum()
    mean = label_scores(said(lesson.detector, seen), seen)["mAP"]
    numbers = panel.compute(0, 1.0, 0.1, total).numbers
    assert f"right for {share:.0%} of objects, mAP of labels {mean:.3f}" in numbers
    assert f"{total} of {total} regions" in numbers
    picture, label = (int(column[0]) for column in seen.shown[:2])
    assert f"score of {TREE.names[label]} {every[picture, :, label].sum():.2f}" in numbers
    overlap = iou_matrix(seen.targets[picture]["boxes"][:1], best[picture, label][None])[0, 0]
    live = LiveRegions(lesson, [picture])
    tile = live.tile(picture, label, live.scores(1.0, total))
    assert tile.caption == f"best region for {TREE.names[label]}: IoU {overlap:.2f}"
    shown = score_maps(detector_maps(lesson.detector, seen)[[picture], [label]], seen.size)[0].numpy()
    y, x = np.unravel_index(shown.argmax(), shown.shape)
    x0, y0, x1, y1 = seen.targets[picture]["boxes"][0].tolist()
    assert x0 <= x <= x1
    assert y0 <= y <= y1


def test_the_panel_follows_every_control(panel):
    seen, figures = [panel.view], plt.get_fignums()
    total = panel.controls["regions"].options[-1]
    moves = [("temperature", TEMPERATURES[-1]), ("threshold", 0.003), ("regions", total // 9), ("scene", 1)]
    for name, value in moves:
        panel.controls[name].value = value
        panel.wait(60)
        assert panel.view.picture not in [view.picture for view in seen]
        assert panel.view.numbers not in [view.numbers for view in seen]
        seen.append(panel.view)
    assert "temperature 4" in panel.view.numbers
    assert f"{total // 9} of {total} regions" in panel.view.numbers
    assert len({Image.open(io.BytesIO(view.picture)).size for view in seen}) == 1
    assert Image.open(io.BytesIO(panel.view.picture)).width >= 800
    assert plt.get_fignums() == figures


def test_a_hotter_softmax_over_regions_spreads_the_score_and_a_threshold_leaves_fewer_boxes(panel):
    def boxes(**changes):
        values = {"scene": 0, "temperature": 1.0, "threshold": 0.01, "regions": 10_000} | changes
        return int(panel.compute(**values).numbers.split(" boxes")[0].split(", ")[-1])

    many, few = (boxes(threshold=threshold) for threshold in (0.003, 0.1))
    assert many > few >= boxes(temperature=4.0, threshold=0.1)


def test_the_static_grid_has_a_line_a_temperature(panel):
    view = panel.static()
    assert len(view.numbers.splitlines()) == 5
    assert view.numbers.splitlines()[-1].startswith("4 ")
    assert Image.open(io.BytesIO(view.picture)).height > 700

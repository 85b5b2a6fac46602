"""Detection scores against VOC's procedure written out, COCO's evaluation, and cases counted by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.detection import MeanAveragePrecision

from ckfr_helpers.datasets.base import make_example
from ckfr_helpers.detection import detection_average_precision
from ckfr_helpers.detection.scores import corloc, detection_map, tree_credit
from ckfr_helpers.detection.tables import Detections, Objects, keep_best, objects_of
from ckfr_helpers.hierarchy import Hierarchy
from ckfr_helpers.runtime import CkfrError

TREE = Hierarchy.from_nested({"all": {"animal": ["lion", "tiger"], "tool": ["saw"]}})
D = TREE.distances("lca_height")  # lion and tiger 1 apart, the saw 2 from both


def overlap(a, b, extra: int) -> float:
    """IoU of two boxes; ``extra`` is 1 where both ends of a box lie inside."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + extra
    height = min(a[3], b[3]) - max(a[1], b[1]) + extra
    shared = max(0, width) * max(0, height)
    areas = [(box[2] - box[0] + extra) * (box[3] - box[1] + extra) for box in (a, b)]
    return shared / (sum(areas) - shared)


def literal(found, true, label, iou, eleven, extra, worth=None):
    """One class's average precision, step by step; rows are (box, label, image, score or difficult)."""
    number = sum(row[1] == label and not row[3] for row in true)
    if not number:
        return math.nan
    taken, worths, hits = set(), [], []
    for box, _, image, _ in sorted((row for row in found if row[1] == label), key=lambda row: -row[3]):
        best, best_key = None, None
        for place, (true_box, true_label, true_image, difficult) in enumerate(true):
            if true_image != image or (true_label != label and (worth is None or difficult)):
                continue
            value = overlap(box, true_box, extra)
            key = (1 if worth is None else worth[label][true_label], value)
            if value >= iou and (best is None or key > best_key):
                best, best_key = place, key
        if best is None or best in taken:
            if best is None or not true[best][3]:
                worths, hits = [*worths, 0.0], [*hits, False]
        elif not true[best][3]:
            taken.add(best)
            worths, hits = [*worths, best_key[0]], [*hits, true[best][1] == label]
    recalls = [sum(hits[: k + 1]) for k in range(len(hits))]
    precisions = [sum(worths[: k + 1]) / (k + 1) for k in range(len(worths))]
    found_at = [k for k, hit in enumerate(hits) if hit]
    if eleven:
        at = [[precisions[k] for k in found_at if recalls[k] * 10 >= level * number] for level in range(11)]
        return sum(max(values, default=0.0) for values in at) / 11
    return sum(max(precisions[k] for k in found_at if k >= one) for one in found_at) / number


@st.composite
def scenes(draw):
    """Rows of detections and objects on few places, so that ties, double finds and IoUs of 1/2 occur."""
    corner, side = st.integers(0, 3), st.integers(1, 4)

    def rows(last, most):
        row = st.tuples(corner, corner, side, side, st.integers(0, 2), st.integers(0, 3), last)
        listed = draw(st.lists(row, max_size=most))
        return [((x, y, x + w, y + h), label, image, end) for x, y, w, h, label, image, end in listed]

    return rows(st.sampled_from([0.1, 0.3, 0.5, 0.9]), 12), rows(st.booleans(), 6)


def tables(found, true) -> tuple[Detections, Objects]:
    detections = Detections(*(np.array([row[k] for row in found]) for k in (0, 3, 1, 2)))
    return detections, Objects(*(np.array([row[k] for row in true]) for k in range(4)))


@settings(max_examples=150, deadline=None)
@given(scenes(), st.sampled_from([0.3, 0.5]), st.booleans(), st.booleans())
def test_average_precision_is_vocs_procedure(scene, iou, eleven, plus_one):
    found, true = scene
    values = detection_map(*tables(found, true), 3, iou, eleven, plus_one)
    expected = [literal(found, true, label, iou, eleven, int(plus_one)) for label in range(3)]
    assert values.per_class == pytest.approx(expected, nan_ok=True)
    own, wanted = ([row for row in rows if row[1] == 1] for rows in scene)
    boxes, scores, _, images = tables(own, wanted)[0]
    true_boxes, _, true_images, difficult = tables(own, wanted)[1]
    one = detection_average_precision(
        boxes, scores, images, true_boxes, true_images, iou, eleven, plus_one=plus_one, difficult=difficult
    )
    assert one == pytest.approx(expected[1], nan_ok=True)


@settings(max_examples=100, deadline=None)
@given(scenes(), st.booleans())
def test_tree_credit_is_its_definition_written_out(scene, plus_one):
    found, true = scene
    score = tree_credit(*tables(found, true), D, 0.5, plus_one)
    worth = 1 - D / D.max()
    values = [literal(found, true, label, 0.5, False, int(plus_one), worth) for label in range(3)]
    there = [value for value in values if not math.isnan(value)]
    assert score["mAP_tree"] == pytest.approx(np.mean(there) if there else math.nan, nan_ok=True)
    apart, missed = [], 0
    for box, label, image, difficult in true:
        answers = [row for row in found if row[2] == image and overlap(row[0], box, int(plus_one)) >= 0.5]
        if not difficult and answers:
            apart.append(float(D[max(answers, key=lambda row: row[3])[1], label]))
        missed += not difficult and not answers
    wrong = [value for value in apart if value]
    for name, part, whole in (
        ("located", len(apart), len(apart) + missed),
        ("label_right", len(apart) - len(wrong), len(apart)),
        ("hdist", sum(apart), len(apart)),
        ("mistake_severity", sum(wrong), len(wrong)),
    ):
        assert score[name] == pytest.approx(part / whole if whole else math.nan, nan_ok=True)


@settings(max_examples=50, deadline=None)
@given(scenes())
def test_tree_credit_with_all_wrong_classes_equally_far_is_vocs_mean(scene):
    columns = tables(*scene)
    flat = 1 - np.eye(3)
    assert tree_credit(*columns, flat)["mAP_tree"] == pytest.approx(
        detection_map(*columns, 3).mean, nan_ok=True
    )
    assert tree_credit(*columns, D)["mAP_tree"] >= detection_map(*columns, 3).mean - 1e-12 or np.isnan(
        detection_map(*columns, 3).mean
    )


def test_the_area_is_that_of_cocos_evaluation_up_to_its_101_recall_levels():
    """One object a picture, where both procedures give each detection the same object."""
    generator = np.random.default_rng(0)
    true = generator.integers(0, 50, (60, 2))
    true = np.concatenate([true, true + generator.integers(10, 40, (60, 2))], axis=1).astype(float)
    images = np.repeat(np.arange(60), 3)
    boxes = true[images] + generator.normal(0, 5, (180, 4)) * [1, 1, 0, 0]
    boxes[:, :2] = np.minimum(boxes[:, :2], boxes[:, 2:] - 1)
    scores = generator.random(180)
    coco = MeanAveragePrecision(iou_thresholds=[0.5], rec_thresholds=np.linspace(0, 1, 101).tolist())
    for image in range(60):
        mine = images == image
        zeros = torch.zeros(int(mine.sum()), dtype=torch.int64)
        coco.update(
            [{"boxes": torch.tensor(boxes[mine]), "scores": torch.tensor(scores[mine]), "labels": zeros}],
            [{"boxes": torch.tensor(true[image : image + 1]), "labels": zeros[:1]}],
        )
    found = detection_average_precision(boxes, scores, images, true, np.arange(60), plus_one=False)
    assert 0.3 < found < 0.9
    assert found == pytest.approx(float(coco.compute()["map"]), abs=0.011)


def test_an_overlap_of_exactly_one_half_counts_and_the_last_pixel_decides():
    # 10 × 10 pixels inside 10 × 20: with both ends inside, the IoU is exactly 1/2.
    box, true = [[0, 0, 9, 9]], [[0, 0, 9, 19]]
    assert detection_average_precision(box, [0.9], [7], true, [7]) == 1
    assert detection_average_precision(box, [0.9], [7], true, [7], plus_one=False) == 0  # 81 / 171
    assert detection_average_precision([[0, 0, 9, 8]], [0.9], [7], true, [7]) == 0
    assert detection_average_precision([[0, 0, 10, 10]], [1], [7], [[0, 0, 10, 20]], [7], plus_one=False) == 1


def test_average_precision_by_hand():
    true, images = [[0, 0, 9, 9], [20, 0, 29, 9], [0, 0, 9, 9]], ["a", "a", "b"]
    boxes = [[0, 0, 9, 9], [1, 0, 10, 9], [40, 40, 49, 49], [20, 0, 29, 9], [0, 0, 9, 9]]
    scores, where = [0.9, 0.8, 0.7, 0.6, 0.5], ["a", "a", "a", "a", "c"]
    # right, the same again, nothing there, right, a picture without objects: 2 of 3 found.
    area = detection_average_precision(boxes, scores, where, true, images)
    assert area == pytest.approx((1 + 2 / 4) / 3)
    # recall 0 … 0.3 at precision 1, 0.4 … 0.6 at 1/2, the rest never reached
    eleven = detection_average_precision(boxes, scores, where, true, images, eleven_point=True)
    assert eleven == pytest.approx((4 * 1 + 3 * 0.5) / 11)
    hard = detection_average_precision(boxes, scores, where, true, images, difficult=[False, True, False])
    assert hard == pytest.approx(1 / 2)  # the second object neither found nor missed
    tensors = [torch.tensor(boxes), torch.tensor(scores), [0, 0, 0, 0, 2], torch.tensor(true), [0, 0, 1]]
    assert detection_average_precision(*tensors) == area


def test_recall_of_3_in_10_reaches_three_tenths():
    boxes = [[20 * k, 0, 20 * k + 9, 9] for k in range(10)]
    found = detection_average_precision(boxes[:3], [3, 2, 1], [0] * 3, boxes, [0] * 10, eleven_point=True)
    assert found == pytest.approx(4 / 11)


def test_nothing_found_and_nothing_to_find():
    assert detection_average_precision([], [], [], [[0, 0, 1, 1]], ["a"]) == 0
    assert np.isnan(detection_average_precision([[0, 0, 1, 1]], [1.0], ["a"], [], []))
    assert np.isnan(detection_map(Detections([], [], [], []), Objects([], [], []), 2).mean)


def test_corloc_asks_each_pictures_best_box_alone():
    objects = Objects(
        [[0, 0, 9, 9], [20, 0, 29, 9], [0, 0, 9, 9], [0, 0, 9, 9], [0, 0, 9, 9]],
        [0, 0, 0, 1, 0],
        ["a", "a", "b", "b", "c"],
        [False, False, False, False, True],
    )
    detections = Detections(
        [[20, 0, 29, 9], [40, 0, 49, 9], [0, 0, 9, 9], [0, 0, 9, 9]],
        [0.2, 0.9, 0.8, 0.7],
        [0, 0, 0, 0],
        ["a", "b", "b", "c"],
    )
    # Class 0: a is right by its second object, b's best box is off, c has a difficult object only.
    found = corloc(detections, objects, 3)
    assert found.per_class == pytest.approx([1 / 2, 0, math.nan], nan_ok=True)
    assert found.mean == pytest.approx(1 / 4)


def test_the_objects_of_targets_are_a_table():
    """As a source gives them; a picture's own labels find it, a difficult object does not count."""
    targets = [
        make_example(
            torch.zeros(3, 20, 60), 0, torch.tensor([[0, 0, 9, 9], [20, 0, 29, 9]]), box_labels=labels
        )[1]
        for labels in (torch.tensor([0, 1]), torch.tensor([1, 1]))
    ]
    targets[1]["difficult"] = torch.tensor([True, False])
    objects = objects_of(targets, ["a", "b"])
    assert objects.image_ids.tolist() == ["a", "a", "b", "b"]
    assert objects.difficult.tolist() == [False, False, True, False]
    scores = torch.ones(4)
    found = detection_map(Detections(objects.boxes, scores, objects.labels, objects.image_ids), objects, 2)
    assert found.per_class.tolist() == [1, 1]
    with pytest.raises(CkfrError, match="target of picture b has no box_labels; it has label"):
        objects_of([targets[0], {"label": 1, "boxes": targets[1]["boxes"]}], ["a", "b"])
    with pytest.raises(CkfrError, match="0 targets and 0 ids"):
        objects_of([], [])


def test_the_best_boxes_of_scored_regions():
    boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 10], [30, 0, 39, 9]])
    scores = torch.tensor([[0.5, 0.0], [0.6, 0.2], [0.0005, 0.3]])
    kept = keep_best([boxes, boxes[:1]], [scores, scores[:1]], ["a", "b"])
    rows = sorted(zip(kept.image_ids.tolist(), kept.labels.tolist(), kept.scores.tolist(), strict=True))
    assert [(image, label, pytest.approx(score)) for image, label, score in rows] == [
        ("a", 0, 0.6), ("a", 1, 0.2), ("a", 1, 0.3), ("b", 0, 0.5)
    ]  # fmt: skip
    # 2 × 2 of 3 × 2 pixels with both ends inside, 1 × 1 of 2 × 1 without: 2/3 against 1/2.
    pair, both = torch.tensor([[0.0, 0, 1, 1], [0, 0, 2, 1]]), torch.ones(2, 1)
    for plus_one, left in ((True, 1), (False, 2)):
        assert len(keep_best([pair], [both], [0], 0.6, plus_one=plus_one).boxes) == left
    with pytest.raises(CkfrError, match=r"shape \(3, 4\); expected \(2, 4\)"):
        keep_best([boxes], [scores[:2]], [0])
    with pytest.raises(CkfrError, match="1 boxes, 1 scores and 2 ids"):
        keep_best([boxes], [scores], [0, 1])


GOOD = {
    "boxes": [[0, 0, 1, 1]], "scores": [0.5], "image_ids": ["a"],
    "true_boxes": [[0, 0, 1, 1]], "true_image_ids": ["a"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"boxes": [[5, 0, 1, 1]]}, r"Box 0 of the detections is \[5.0, .*x0 <= x1"),
        ({"true_boxes": [[0, 0, np.nan, 1]]}, "Box 0 of the objects"),
        ({"boxes": [[0, 0, 1]]}, r"shape \(1, 3\); expected \(1, 4\)"),
        ({"scores": [0.5, 0.6]}, r"scores of shape \(2,\) for 1 detections"),
        ({"scores": [np.nan]}, "score of detection 0 is NaN"),
        ({"image_ids": [3]}, "names on one side and numbers on the other"),
        ({"image_ids": [0.5]}, "type float64; expected integers or names"),
        ({"difficult": [True, False]}, "marks of difficulty"),
        ({"iou": 0}, "iou is 0; expected a number above 0"),
    ],
)
def test_bad_input_is_one_sentence(changed, message):
    with pytest.raises(CkfrError, match=message):
        detection_average_precision(**{**GOOD, **changed})


def test_labels_outside_the_classes_are_refused():
    table = Detections([[0, 0, 1, 1]], [1.0], [3], [0])
    with pytest.raises(CkfrError, match="Labels run from 3 to 3; expected 0 to 2"):
        detection_map(table, Objects([[0, 0, 1, 1]], [0], [0]), 3)

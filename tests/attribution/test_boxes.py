"""Localisation scores against a literal loop over a thousand thresholds, written from the protocol's text."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ckfr_helpers import localization as loc
from ckfr_helpers.attribution.boxes import box_ious_by_contours
from ckfr_helpers.runtime import CkfrError

IOUS = (0.3, 0.5, 0.7)


def literal_boxes(score_map, threshold, contours):
    """Boxes at one threshold: threshold the byte image, trace, bound."""
    image = (score_map * 255).astype(np.uint8)
    height, width = image.shape
    _, above = cv2.threshold(image, int(threshold * np.max(image)), 255, cv2.THRESH_BINARY)
    found = cv2.findContours(above, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[-2]
    if len(found) == 0:
        return [[0, 0, 0, 0]]
    if contours == "largest":
        found = [max(found, key=cv2.contourArea)]
    boxes = []
    for contour in found:
        x, y, w, h = cv2.boundingRect(contour)
        boxes.append([x, y, min(x + w, width - 1), min(y + h, height - 1)])
    return boxes


def literal_iou(a, b):
    w = max(0, min(a[2], b[2]) - max(a[0], b[0]) + 1)
    h = max(0, min(a[3], b[3]) - max(a[1], b[1]) + 1)
    area = (a[2] - a[0] + 1) * (a[3] - a[1] + 1) + (b[2] - b[0] + 1) * (b[3] - b[1] + 1)
    return w * h / (area - w * h)


def literal_ious(score_maps, boxes, contours):
    """Best IoU at every one of the thousand thresholds, (N, 1000), no threshold skipped."""
    rows = []
    for score_map, true in zip(score_maps, boxes, strict=True):
        rows.append([])
        for threshold in np.arange(0, 1, 0.001):
            guesses = literal_boxes(score_map, threshold, contours)
            rows[-1].append(
                max(literal_iou(guess, gt) for guess in guesses for gt in np.asarray(true).tolist())
            )
    return np.array(rows)


def counts_of(ious, levels=IOUS):
    return np.array([[sum(column >= level) for column in ious.T] for level in levels])


def smooth_map(seed, height=48, width=56, cells=6):
    rough = np.random.default_rng(seed).random((cells, cells)).astype(np.float32) ** 2
    fine = cv2.resize(rough, (width, height), interpolation=cv2.INTER_LINEAR)
    return (fine - fine.min()) / (fine.max() - fine.min())


def random_boxes(seed, height, width, count=2):
    draw = np.random.default_rng(seed)
    x, y = np.sort(draw.integers(0, width, (count, 2))), np.sort(draw.integers(0, height, (count, 2)))
    return np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1)


def likely_boxes(score_maps):
    """True boxes that some thresholds find and others miss, with a random second one."""
    found = []
    for seed, scores in enumerate(score_maps):
        near = np.array(literal_boxes(scores, 0.2 + 0.1 * (seed % 5), "largest"))
        near[:, :2] = near[:, :2] * 3 // 4  # not quite any contour's own
        found.append(np.concatenate([near, random_boxes(seed, *scores.shape, 1)]))
    return found


sides = st.integers(1, 12)
grids = st.tuples(sides, sides)
few_values = st.sampled_from([0.0, 0.001, 0.004, 0.2, 0.5, 0.501, 0.999, 1.0])
maps_strategy = st.one_of(
    grids.flatmap(lambda s: hnp.arrays(np.float32, s, elements=st.floats(0, 1, width=32))),
    grids.flatmap(lambda s: hnp.arrays(np.float64, s, elements=few_values)),
    grids.flatmap(lambda s: hnp.arrays(np.float32, s, elements=st.sampled_from([0.0, 1.0]))),
    grids.flatmap(lambda s: hnp.arrays(np.float16, s, elements=st.floats(0, 1, width=16))),
)
RING = np.zeros((7, 7))
RING[1:6, 1:6] = 1
RING[2:5, 2:5] = 0
RING[3, 3] = 0.5
DIAMOND = np.array([[0, 1, 0, 0], [1, 0, 1, 1], [0, 1, 0, 0]], np.float32)  # a hole as large as its contour
DOT = np.zeros((5, 6), np.float32)
DOT[4, 5] = 0.7


@settings(max_examples=60, deadline=None)
@given(scores=maps_strategy, seed=st.integers(0, 1000), contours=st.sampled_from(["all", "largest"]))
@example(np.zeros((4, 5), np.float32), 0, "largest")
@example(np.full((4, 5), 0.3, np.float32), 0, "all")
@example(DOT, 3, "largest")
@example(RING, 1, "largest")
@example(DIAMOND, 1, "largest")
@example(np.full((3, 3), 0.003, np.float32), 1, "all")  # below one byte: a map of zeros
def test_ious_and_counts_are_those_of_the_literal_loop(scores, seed, contours):
    boxes = [random_boxes(seed, *scores.shape)]
    result = loc.max_box_acc([scores], boxes, IOUS, contours)
    expected = literal_ious([scores], boxes, contours)
    assert np.array_equal(result.ious, expected)
    assert np.array_equal(result.counts, counts_of(expected))


def test_counts_on_smooth_maps_and_noise_in_any_container():
    maps = np.stack([*(smooth_map(seed) for seed in range(3)), np.random.default_rng(9).random((48, 56))])
    boxes = likely_boxes(maps)
    rows = box_ious_by_contours(torch.from_numpy(maps), [torch.from_numpy(each).float() for each in boxes])
    for contours in ("all", "largest"):
        result = loc.max_box_acc(maps, boxes, IOUS, contours)
        expected = literal_ious(maps, boxes, contours)
        assert np.array_equal(result.ious, expected)
        assert np.array_equal(rows[contours], expected)
        counts = counts_of(expected)
        assert (counts.max(axis=1) > counts.min(axis=1)).all()  # thresholds matter
        assert np.array_equal(result.counts, counts)
        assert result.per_iou.tolist() == (counts.max(axis=1) / 4).tolist()
        assert result.mean == pytest.approx(counts.max(axis=1).mean() / 4)
        assert np.array_equal(result.curves * 4, counts)
    rounded = torch.from_numpy(maps).bfloat16()
    assert np.array_equal(
        loc.max_box_acc(rounded, boxes).ious, loc.max_box_acc(rounded.float().numpy(), boxes).ious
    )


@settings(max_examples=40, deadline=None)
@given(scores=maps_strategy, threshold=st.floats(0, 0.999))
def test_boxes_of_one_threshold_are_those_opencv_traces(scores, threshold):
    found = loc.boxes_from_map(scores, threshold, "all").tolist()
    assert sorted(found) == sorted(map(list, literal_boxes(scores, threshold, "all")))
    largest = loc.boxes_from_map(scores, threshold).tolist()
    assert largest == list(map(list, literal_boxes(scores, threshold, "largest")))


def test_a_drawn_box_is_found():
    scores = np.zeros((40, 50), np.float32)
    scores[5:21, 10:31] = 1
    assert loc.boxes_from_map(scores, 0.5).tolist() == [[10, 5, 31, 21]]  # one past: the public convention
    result = loc.max_box_acc(scores[None], [[[10, 5, 30, 20]]], (0.5, 0.89, 0.9))
    assert result.per_iou.tolist() == [1, 1, 0]
    exact = 21 * 16 / (22 * 17)  # 0.898: what the extra row and column cost
    assert result.ious.max() == pytest.approx(exact)


def test_thresholds_of_validation_images_score_test_images():
    maps = np.stack([smooth_map(seed) for seed in range(8)])
    boxes = likely_boxes(maps)
    validation, test = loc.max_box_acc(maps[:4], boxes[:4]), loc.max_box_acc(maps[4:], boxes[4:])
    chosen = validation.best_thresholds
    counts = counts_of(literal_ious(maps[:4], boxes[:4], "all"))
    for threshold, row in zip(chosen, counts, strict=True):
        best = np.flatnonzero(row == row.max()) / 1000
        assert threshold == pytest.approx(best[(len(best) - 1) // 2])
    literal = [
        [
            max(literal_iou(b, t) for b in literal_boxes(m, threshold, "all") for t in true.tolist()) >= level
            for threshold, level in zip(chosen, IOUS, strict=True)
        ]
        for m, true in zip(maps[4:], boxes[4:], strict=True)
    ]
    assert test.at(chosen).tolist() == literal
    assert test.at(0.25)[:, 1].tolist() == (test.ious[:, 250] >= 0.5).tolist()
    with pytest.raises(CkfrError, match="2 score thresholds for 3 IoU levels"):
        test.at((0.1, 0.2))
    with pytest.raises(CkfrError, match="threshold is nan"):
        test.at(np.nan)


def test_rows_of_another_number_of_thresholds_are_refused():
    """Their columns would be taken for other thresholds than they were scored at."""
    with pytest.raises(CkfrError, match=r"shape \(4, 100\); expected \(N, 1000\)"):
        loc.BoxAccuracy.from_ious(np.zeros((4, 100)))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_iou_matrix_is_the_share_of_common_pixels(seed):
    a, b = random_boxes(seed, 12, 15, 3), random_boxes(seed + 1, 12, 15, 2)

    def pixels(box):
        return {(x, y) for x in range(box[0], box[2] + 1) for y in range(box[1], box[3] + 1)}

    want = [[len(pixels(p) & pixels(q)) / len(pixels(p) | pixels(q)) for q in b] for p in a]
    assert loc.iou_matrix(a, b).tolist() == want
    assert np.array_equal(loc.iou_matrix(b, a), loc.iou_matrix(a, b).T)


GOOD = np.linspace(0, 1, 20).reshape(4, 5)
BOX = np.array([[0, 0, 2, 2]])


def bad(value):
    wrong = GOOD.copy()
    wrong[1, 2] = value
    return wrong


@pytest.mark.parametrize(
    ("maps", "boxes", "message"),
    [
        ([GOOD, bad(np.nan)], [BOX, BOX], "Score map 1 holds NaN"),
        ([GOOD, bad(1.5)], [BOX, BOX], "Score map 1 runs from 0 to 1.5"),
        ([bad(-0.1)], [BOX], "Score map 0 runs from -0.1 to 1"),
        ([GOOD[None]], [BOX], r"Score map 0 has shape \(1, 4, 5\); expected \(height, width\)"),
        ([np.array([["a"]])], [BOX], "Score map 0 holds <U1; expected numbers"),
        ([GOOD], [BOX, BOX], "1 score maps but 2 lists of boxes"),
        ([], [], "no score maps"),
        ([GOOD, GOOD], [BOX, np.zeros((0, 4))], "There is no box for image 1"),
        ([GOOD], [[[0, 0, 1, 1], [0, 3, 1, 2]]], r"Box 1 of image 0 is \(0, 3, 1, 2\), which is reversed"),
        ([GOOD], [[[-1, 0, 1, 1]]], "not negative"),
        ([GOOD], [[[0, 0, np.inf, 1]]], r"Box 0 of image 0 is \(0, 0, inf, 1\); expected finite"),
        ([GOOD], [[[0, 0, 1]]], r"The boxes of image 0 have shape \(1, 3\)"),
        ([GOOD], [[[9, 0, 10, 2]]], "outside its map of 5 × 4 pixels"),
    ],
)
def test_bad_input_gets_one_sentence(maps, boxes, message):
    with pytest.raises(CkfrError, match=message) as error:
        loc.max_box_acc(maps, boxes)
    assert "\n" not in str(error.value)


def test_bad_settings_get_one_sentence():
    with pytest.raises(CkfrError, match="contours is 'biggest'"):
        loc.max_box_acc([GOOD], [BOX], contours="biggest")
    with pytest.raises(CkfrError, match=r"IoU thresholds are \(50\.0,\)"):
        loc.max_box_acc([GOOD], [BOX], (50,))
    with pytest.raises(CkfrError, match=r"score threshold is 1\.2"):
        loc.boxes_from_map(GOOD, 1.2)


def test_the_centre_map_finds_a_centred_box_and_a_single_box_may_stand_alone():
    centre = loc.centre_map(40, 60)
    assert centre.max() == 1
    assert np.array_equal(centre, centre[::-1, ::-1])
    assert loc.max_box_acc(centre[None], [[15, 10, 44, 29]], (0.3,)).mean == 1

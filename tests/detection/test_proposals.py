"""Proposals: where a grid puts them, what is read from files and from OpenCV, and what is refused."""

import types

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from ckfr_helpers.detection.proposals import FEW, check_boxes, grid_boxes, read_edge_boxes, selective_search
from ckfr_helpers.runtime import CkfrError


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.floats(0.2, 1))
def test_a_grid_lies_inside_its_picture_from_edge_to_edge_without_doubles(height, width, stride):
    boxes = grid_boxes((height, width), stride=stride)
    assert boxes.dtype == torch.float32
    assert torch.equal(boxes, boxes.round())
    assert len(boxes.unique(dim=0)) == len(boxes)
    assert boxes.min() >= 0
    assert boxes[:, 2].max() == width - 1
    assert boxes[:, 3].max() == height - 1
    assert (boxes[:, :2] <= boxes[:, 2:]).all()


def test_a_grid_has_the_sizes_shapes_and_steps_it_was_asked_for():
    boxes = grid_boxes((100, 200), sizes=(0.2,), shapes=(2.0,), stride=0.5)
    wide, high = (boxes[:, 2:] - boxes[:, :2] + 1).unique(dim=0)[0].tolist()
    assert (wide, high) == (40, 20)  # of area 0.2^2 * 100 * 200
    x, y = (np.unique(boxes[:, axis]) for axis in (0, 1))
    assert len(x) * len(y) == len(boxes) == 9 * 9
    assert np.diff(x).max() <= 0.5 * wide
    assert np.diff(y).max() <= 0.5 * high


def test_few_boxes_are_a_third_as_many():
    assert 200 <= len(grid_boxes((224, 224), stride=FEW)) <= 300 < len(grid_boxes((224, 224)))


def test_selective_search_gets_a_bgr_picture_and_gives_boxes_with_both_ends_inside(monkeypatch):
    seen = {}

    class Search:
        def setBaseImage(self, image):
            seen["image"] = image

        def switchToSelectiveSearchQuality(self):
            seen["mode"] = "quality"

        def process(self):
            return np.array([[1, 2, 30, 20], [0, 0, 19, 40]], np.int32)  # x, y, width, height

    module = types.SimpleNamespace(createSelectiveSearchSegmentation=Search)
    monkeypatch.setattr(cv2, "ximgproc", types.SimpleNamespace(segmentation=module), raising=False)
    image = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    assert selective_search(image, "quality").tolist() == [[1, 2, 30, 21]]
    assert seen["mode"] == "quality"
    assert np.array_equal(seen["image"], image.numpy().transpose(1, 2, 0)[..., ::-1])
    assert selective_search(image, "quality", min_side=19).tolist()[1] == [0, 0, 18, 39]


def test_selective_search_without_the_contributed_modules_says_what_to_do(monkeypatch):
    monkeypatch.delattr(cv2, "ximgproc", raising=False)
    with pytest.raises(CkfrError, match=r"grid_boxes, or install .* in place of"):
        selective_search(torch.zeros(3, 8, 8, dtype=torch.uint8))
    with pytest.raises(CkfrError, match="'slow'; expected one of single, fast, quality"):
        selective_search(torch.zeros(3, 8, 8, dtype=torch.uint8), "slow")
    with pytest.raises(CkfrError, match=r"torch.float32 \(3, 8, 8\); expected uint8"):
        selective_search(torch.zeros(3, 8, 8))


def cell(*values):
    array = np.empty((1, len(values)), object)
    for place, value in enumerate(values):
        array[0, place] = value
    return array


def test_edge_boxes_are_read_as_the_authors_write_them(tmp_path):
    """y0, x0, y1, x1 from 1, both ends inside; scores in a column; sides below 20 pixels left out."""
    path = tmp_path / "EdgeBoxes.mat"
    first = np.array([[1, 11, 40, 30], [5, 5, 23, 60]], np.uint16)  # 40 high and 20 wide; 19 high
    content = {
        "images": cell("000005", "000007"),
        "boxes": cell(first, np.array([[2.0, 3.0, 100.0, 200.0]])),
        "boxScores": cell(np.array([[0.5], [0.25]], np.float32), np.array([[0.125]])),
    }
    savemat(path, content)
    found = read_edge_boxes(path)
    assert list(found) == ["000005", "000007"]
    boxes, scores = found["000005"]
    assert boxes.tolist() == [[10, 0, 29, 39]]
    assert scores.tolist() == [0.5]
    assert found["000007"][0].tolist() == [[2, 1, 199, 99]]
    assert read_edge_boxes(path, min_side=1)["000005"][1].tolist() == [0.5, 0.25]


@pytest.mark.parametrize(
    "content", [None, b"no matlab file", {"images": cell("1"), "boxes": cell(np.ones((1, 4)))}]
)
def test_a_file_that_holds_no_boxes_is_named(tmp_path, content):
    path = tmp_path / "boxes.mat"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        savemat(path, content)
    with pytest.raises(
        CkfrError, match=r"boxes\.mat is no file of boxes .*expected cells images, boxes, boxScores"
    ):
        read_edge_boxes(path)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([], "no proposal for picture 3; expected at least one"),
        ([[0.0, 0, 5, 5], [4, 0, 3, 5]], r"Box 1 of picture 3, .* is reversed"),
        ([[0.0, 0, float("nan"), 5]], "Box 0 of picture 3, .* is not finite"),
        ([[0.0, 0, 9, 5], [0, 0, 10, 7]], r"Box 1 of picture 3, .* outside its picture of 10 × 6 pixels"),
        ([[-2.0, 0, 9, 5]], "outside"),
        ([[0.0, 0, 9]], r"have shape \(1, 3\)"),
    ],
)
def test_boxes_that_cannot_be_are_refused(boxes, message):
    with pytest.raises(CkfrError, match=message):
        check_boxes(torch.tensor(boxes).reshape(len(boxes), -1 if boxes else 4), (6, 10), "picture 3")


def test_boxes_may_reach_one_pixel_beyond():
    boxes = torch.tensor([[-1.0, -1, 10, 6], [0, 0, 0, 0]])
    assert check_boxes(boxes, (6, 10), "a picture") is boxes
    with pytest.raises(CkfrError, match="A box's size is"):
        grid_boxes((10, 10), sizes=(1.5,))

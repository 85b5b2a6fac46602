"""Boxes and maps that a detector is compared with."""

import pytest
import torch

from ckfr_helpers.detection.head import image_scores, wsddn_scores
from ckfr_helpers.detection.proposals import grid_boxes
from ckfr_helpers.detection.rivals import (
    box_scores,
    boxes_of_maps,
    centre_box,
    look_at,
    one_box_each,
    random_boxes,
    region_maps,
)
from ckfr_helpers.detection.tables import Objects
from ckfr_helpers.hierarchy import Hierarchy
from ckfr_helpers.runtime import CkfrError

TREE = Hierarchy.from_nested({"thing": {"round": ["ball", "ring"], "angular": ["box"]}})
SIZE = (48, 64)


def drawn(x0, y0, x1, y1, size=(12, 16)):
    found = torch.zeros(size)
    found[y0 : y1 + 1, x0 : x1 + 1] = 1
    return found


def test_one_box_each_keeps_pictures_and_classes_apart():
    boxes, scores = torch.arange(24.0).reshape(2, 3, 4), torch.arange(6.0).reshape(2, 3)
    found = one_box_each(boxes, scores)
    for box, score, label, picture in zip(*found, strict=True):
        assert torch.equal(box, boxes[picture, label])
        assert score == scores[picture, label]
    same = one_box_each(boxes[0, 0], scores)
    assert torch.equal(same.boxes, boxes[0, 0].expand(6, 4))


def test_trivial_boxes():
    assert centre_box(SIZE).tolist() == [0, 0, 63, 47]
    assert centre_box(SIZE, 0.5).tolist() == [16, 12, 47, 35]
    with pytest.raises(CkfrError, match=r"share is 0; expected a number above 0"):
        centre_box(SIZE, 0)
    proposals = grid_boxes(SIZE)
    found = random_boxes(proposals, 40, 3, seed=1)
    assert found.shape == (40, 3, 4)
    assert {tuple(box) for box in found.flatten(0, 1).tolist()} <= {tuple(box) for box in proposals.tolist()}
    assert not torch.equal(found, random_boxes(proposals, 40, 3, seed=2))


def test_regions_scores_add_up_where_they_cover():
    draw = torch.Generator().manual_seed(0)
    boxes = grid_boxes(SIZE, stride=0.8)
    scores = wsddn_scores(*torch.randn(2, len(boxes), 3, generator=draw))
    expected = torch.zeros(3, *SIZE)
    for (x0, y0, x1, y1), score in zip(boxes.long().tolist(), scores, strict=True):
        expected[:, y0 : y1 + 1, x0 : x1 + 1] += score[:, None, None]
    found = region_maps(boxes, scores, SIZE, step=1)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert (found.amax((1, 2)) <= image_scores(scores) + 1e-6).all()
    coarse = region_maps(torch.tensor([[8.0, 4, 23, 11]]), torch.ones(1, 1), SIZE, step=4)
    torch.testing.assert_close(coarse[0], drawn(2, 1, 5, 2))
    with pytest.raises(CkfrError, match=r"shape \(2, 4\); expected \(3, 4\)"):
        region_maps(boxes[:2], scores[:3], SIZE)


def test_the_box_of_a_map_is_in_the_pictures_pixels():
    maps = torch.stack([drawn(2, 1, 9, 7), drawn(0, 0, 15, 3)])[None]
    assert boxes_of_maps(maps, SIZE, 0.5, step=4).tolist() == [[[8, 4, 39, 31], [0, 0, 63, 15]]]


def test_a_map_on_its_object_scores_best_and_thresholds_carry_over():
    masks = torch.stack([drawn(2, 1, 9, 7), drawn(0, 4, 5, 9)]).bool()
    right = look_at(masks.float(), masks)
    assert right.scores(right) == {"energy": 1.0, "gt_known": 1.0, "gt_known_fixed": 1.0}
    wrong = look_at(masks.float().flip(0), masks)
    found = wrong.scores(chosen_on=right)
    assert found["energy"] < 0.5
    assert found["gt_known_fixed"] <= found["gt_known"] == 0


def test_every_score_of_boxes():
    places = torch.tensor([[0.0, 0, 9, 9], [20, 20, 39, 39]])
    objects = Objects(places, torch.tensor([0, 2]), torch.tensor([0, 1]))
    boxes = torch.zeros(2, 3, 4)
    boxes[0, 0], boxes[1, 2] = places[0], places[1]
    scores = torch.full((2, 3), 0.1)
    scores[0, 0] = scores[1, 2] = 0.9
    found = box_scores(one_box_each(boxes, scores), objects, TREE)
    names = ("box_mAP@0.3", "box_mAP@0.5", "corloc", "mAP_tree", "located", "label_right")
    assert [found[name] for name in names] == [1] * 6
    assert found["hdist@box"] == 0
    boxes[0, 0], boxes[0, 1] = 0, places[0]  # the ball is taken for a ring
    found = box_scores(one_box_each(boxes, scores), objects, TREE)
    names = ("box_mAP@0.5", "corloc", "located", "label_right")
    assert [found[name] for name in names] == [0.5, 0.5, 1, 0.5]
    assert found["mistake_severity_box"] == TREE.distances("lca_height")[0, 1]

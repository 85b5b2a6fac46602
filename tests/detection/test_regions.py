"""Pooling of ragged regions: against torchvision on every picture alone, and what is refused."""

import pytest
import torch
from torchvision.ops import box_iou, roi_align, roi_pool

from ckfr_helpers.attribution.boxes import iou_matrix
from ckfr_helpers.detection.regions import edges, flat, pad_boxes, padded, pool_regions, present, weigh
from ckfr_helpers.runtime import CkfrError

SIZE = (96, 128)  # of maps of 6 x 8 cells, 16 pixels each


def some_boxes(count, seed=0):
    draw = torch.Generator().manual_seed(seed)
    first = torch.rand(count, 2, generator=draw) * torch.tensor([100.0, 70.0])
    last = first + torch.rand(count, 2, generator=draw) * (torch.tensor([127.0, 95.0]) - first)
    return torch.cat([first, last], 1).round()


MAPS = torch.randn(3, 5, 6, 8, generator=torch.Generator().manual_seed(1))
BOXES = [some_boxes(count, count) for count in (7, 1, 12)]


@pytest.mark.parametrize("side", [1, 3])
@pytest.mark.parametrize("pooling", ["align", "max"])
def test_a_ragged_batch_is_torchvision_on_each_picture_alone(pooling, side):
    boxes, counts = pad_boxes(BOXES)
    found, picture = pool_regions(MAPS, boxes, counts, SIZE, pooling, side)
    assert picture.tolist() == [0] * 7 + [1] + [2] * 12
    alone = []
    for one, own in zip(MAPS[:, None], BOXES, strict=True):
        if pooling == "align":
            alone.append(roi_align(one, [edges(own)], side, spatial_scale=1 / 16, aligned=True))
        else:
            alone.append(roi_pool(one, [own], side, spatial_scale=1 / 16))
    expected = torch.cat(alone)
    torch.testing.assert_close(found, expected[..., 0, 0] if side == 1 else expected, rtol=1e-5, atol=1e-6)


def test_the_whole_picture_is_the_mean_or_maximum_of_its_map():
    whole = torch.tensor([[[0.0, 0, SIZE[1] - 1, SIZE[0] - 1]]]).expand(3, 1, 4)
    ones = torch.ones(3, dtype=torch.int64)
    mean, most = (pool_regions(MAPS.double(), whole, ones, SIZE, how)[0] for how in ("align", "max"))
    torch.testing.assert_close(mean, MAPS.double().mean((2, 3)), rtol=0, atol=1e-6)
    assert mean.dtype == torch.float64
    assert torch.equal(most, MAPS.double().amax((2, 3)))


def test_padding_does_not_matter_and_gradients_reach_the_map():
    boxes, counts = pad_boxes(BOXES)
    spoilt = boxes.masked_fill(~present(counts, 12)[..., None], torch.nan)
    maps = MAPS.clone().requires_grad_()
    found, _ = pool_regions(maps, spoilt, counts, SIZE)
    torch.testing.assert_close(found, pool_regions(MAPS, boxes, counts, SIZE)[0])
    found.sum().backward()
    assert maps.grad.abs().sum((1, 2, 3)).min() > 0
    assert pool_regions(MAPS.half(), boxes, counts, SIZE)[0].dtype == torch.float32


def test_padded_and_flat_are_each_others_inverse():
    counts = torch.tensor([2, 1, 3])
    rows = torch.randn(6, 4)
    together = padded(rows, counts, 5, fill=-1.0)
    assert together.shape == (3, 5, 4)
    assert torch.equal(flat(together, counts), rows)
    assert (together[~present(counts, 5)] == -1).all()
    assert torch.equal(together[2, :3], rows[3:])


def test_boxes_together_keep_their_order_and_number():
    boxes, counts = pad_boxes(BOXES, most=4)
    assert counts.tolist() == [4, 1, 4]
    assert torch.equal(boxes[2], BOXES[2][:4])
    assert not boxes[1, 1:].any()
    with pytest.raises(CkfrError, match="no proposal for picture 1"):
        pad_boxes([BOXES[0], BOXES[1][:0]])


def test_overlaps_from_edge_to_edge_count_pixels():
    first, second = BOXES[0], BOXES[2]
    overlaps = box_iou(edges(first), edges(second)).double().numpy()
    assert abs(overlaps - iou_matrix(first.numpy(), second.numpy())).max() < 1e-6


def test_box_scores_by_each_convention():
    features, scores = torch.randn(3, 2, 2, 2), torch.tensor([0.0, 0.5, 1.0])
    assert weigh(features, None, "none") is features
    assert not weigh(features, scores, "product")[0].any()
    assert torch.equal(weigh(features, scores, "product")[1], features[1] / 2)
    assert torch.equal(weigh(features, scores, "hbilen")[0], features[0])
    torch.testing.assert_close(weigh(features, scores, "hbilen")[2], 11 * features[2])
    with pytest.raises(CkfrError, match="have box scores none; 'product' expected one for each"):
        weigh(features, None, "product")
    with pytest.raises(CkfrError, match="box_scores is 'sum'"):
        weigh(features, scores, "sum")


def spoilt(picture, number, values):
    boxes = pad_boxes(BOXES)[0]
    boxes[picture, number] = torch.tensor(values)
    return boxes


@pytest.mark.parametrize(
    ("boxes", "counts", "message"),
    [
        (
            spoilt(2, 3, [5.0, 5, 4, 9]),
            (7, 1, 12),
            "Box 3 of picture 2 of the batch is .* expected finite x0 <= x1",
        ),
        (spoilt(0, 6, [0, 0, torch.inf, 9]), (7, 1, 12), "Box 6 of picture 0"),
        (spoilt(0, 0, [0.0, 0, 1, 1]), (7, 0, 12), "Picture 1 of the batch has 0 proposals; expected from 1"),
        (spoilt(0, 0, [0.0, 0, 1, 1]), (7, 1, 13), "Picture 2 of the batch has 13 proposals; .* to the 12"),
        (spoilt(0, 0, [0.0, 0, 1, 1]), (7, 1), r"3 pictures have boxes \(3, 12, 4\) and counts \(2,\)"),
    ],
)
def test_regions_that_cannot_be_are_refused(boxes, counts, message):
    with pytest.raises(CkfrError, match=message):
        pool_regions(MAPS, boxes, torch.tensor(counts), SIZE)

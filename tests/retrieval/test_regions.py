"""Boxes, similar places, windows and re-ranking: by hand and against loops written out."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ckfr_helpers.retrieval.descriptors import describe_maps, fit_whitening
from ckfr_helpers.retrieval.regions import (
    best_windows,
    box_masks,
    inside,
    map_boxes,
    rerank,
    similarity_maps,
    window_sizes,
)
from ckfr_helpers.runtime import CkfrError


def drawn(seed: int = 0, size: tuple[int, ...] = (3, 7, 5, 6)) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def kept(box: object, size: tuple[int, int] = (100, 120), cells: tuple[int, int] = (5, 6)) -> Tensor:
    """Which cells `inside` leaves, (H, W) of 0 and 1."""
    return inside(torch.ones(1, 2, *cells), box, size)[0, 1].int()


def test_cells_of_a_box_by_hand():
    whole = kept([0, 0, 119, 99])
    assert whole.sum() == 30
    # Cells are 20 pixels, their centres at 10, 30, …: columns 1 to 3, rows 2 to 3.
    expected = torch.zeros(5, 6, dtype=torch.int)
    expected[2:4, 1:4] = 1
    assert torch.equal(kept([25, 45, 75, 79]), expected)
    assert torch.equal(kept([25, 49, 75, 70]), expected)  # a pixel covers up to its far edge: 70 and 71
    assert kept([25, 51, 75, 69]).sum() == 3  # below the centre of row 2, short of that of row 3 …
    assert kept([25, 51, 75, 69])[3, 1:4].tolist() == [1] * 3  # … the cell at the box's own centre, 60.5
    assert kept([119, 99, 119, 99]).nonzero().tolist() == [[4, 5]]
    assert kept([3, 3, 3, 3]).nonzero().tolist() == [[0, 0]]
    assert kept([-0.5, -0.5, 120, 100]).sum() == 30  # rounding at the edges


def test_a_box_of_its_own_for_each_picture():
    features, boxes = drawn(), torch.tensor([[0, 0, 59, 49], [60, 50, 119, 99], [0, 0, 119, 99]])
    found = inside(features, boxes, (100, 120))
    for picture in range(3):
        alone = inside(features[picture : picture + 1], boxes[picture], (100, 120))
        assert torch.equal(found[picture], alone[0])
    assert torch.equal(found[2], features[2])
    assert 0 < found[0].count_nonzero() < features[0].numel()


@settings(max_examples=50, deadline=None)
@given(
    x=st.tuples(st.floats(0, 119), st.floats(0, 119)),
    y=st.tuples(st.floats(0, 99), st.floats(0, 99)),
    cells=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_a_box_keeps_a_full_rectangle_of_at_least_one_cell(x, y, cells):
    left = kept([min(x), min(y), max(x), max(y)], cells=cells)
    rows, columns = left.any(1), left.any(0)
    assert left.sum() == rows.sum() * columns.sum() >= 1
    mirrored = kept([119 - max(x), min(y), 119 - min(x), max(y)], cells=cells)
    # A centre on the very edge of the box may change sides.
    assert (mirrored.sum(1) - left.sum(1)).abs().max() <= 1


def test_similarity_is_the_positive_cosine_of_each_place():
    features, queries = drawn(), drawn(1, (2, 7))
    features[1, :, 2, 3] = 0
    maps = similarity_maps(features, queries)
    assert maps.shape == (3, 2, 5, 6)
    for picture in range(3):
        for y in range(5):
            for x in range(6):
                cosines = F.cosine_similarity(features[picture, :, y, x], queries, dim=1).clamp(min=0)
                assert maps[picture, :, y, x].tolist() == pytest.approx(cosines.tolist(), abs=1e-6)
    scaled = similarity_maps(features * 7, queries * 0.1)
    assert torch.allclose(maps, scaled, atol=1e-6)
    assert similarity_maps(features, torch.zeros(1, 7)).abs().max() == 0


@pytest.mark.parametrize("sizes", [None, [(2, 3), (5, 6), (1, 1), (4, 2)]])
def test_windows_are_those_of_brute_force(sizes):
    features, queries = drawn(size=(20, 7, 5, 6)), drawn(1, (3, 7))
    scores, boxes = best_windows(features, queries, sizes)
    for picture, asked in itertools.product(range(20), range(3)):
        query = queries[asked]
        cosines = {}
        for high, wide in sizes or window_sizes(5, 6):
            for y in range(5 - high + 1):
                for x in range(6 - wide + 1):
                    mean = features[picture, :, y : y + high, x : x + wide].mean((1, 2))
                    cosines[x, y, x + wide - 1, y + high - 1] = float(F.cosine_similarity(mean, query, dim=0))
        best = max(cosines, key=cosines.get)
        assert tuple(boxes[picture, asked].tolist()) == best
        assert scores[picture, asked] == pytest.approx(cosines[best], abs=1e-5)


def test_the_best_window_finds_a_planted_query():
    features, query = drawn(size=(2, 7, 14, 14)) * 0.01, drawn(1, (7,))
    features[0, :, 3:8, 6:11] += query[:, None, None]
    features[1] = 0
    features[1, :, :4, :4] = -query[:, None, None]  # nothing alike; the sums of empty windows are rounding
    scores, boxes = best_windows(features, query[None])
    assert scores[0] > 0.99
    assert scores[1] == 0
    x0, y0, x1, y1 = boxes[0, 0].tolist()
    assert 6 <= x0 <= x1 <= 10
    assert 3 <= y0 <= y1 <= 7


def test_window_sizes_fit_and_hold_the_whole_map():
    assert window_sizes(1, 1) == [(1, 1)]
    for height, width in [(14, 14), (5, 23), (2, 1)]:
        sizes = window_sizes(height, width)
        assert (height, width) in sizes
        assert all(1 <= high <= height and 1 <= wide <= width for high, wide in sizes)
    assert {(7, 7), (5, 10), (10, 5)} <= set(window_sizes(14, 14))


def test_boxes_of_maps_by_hand():
    maps = torch.zeros(2, 3, 5, 6)
    maps[0, 0, 1, 1] = maps[0, 0, 2, 2] = 1.0  # connected by a corner
    maps[0, 1, 1, 1] = 0.6
    maps[0, 0, 4, 3:6] = 0.1  # three cells: the largest part where they count
    maps[0, 2] = 9  # only the first two count
    found = map_boxes(maps, [0.01, 0.3, 0.7])
    assert found[0].tolist() == [[3, 4, 5, 4], [1, 1, 2, 2], [1, 1, 1, 1]]
    assert found[1].tolist() == [[0, 0, 5, 4]] * 3  # nothing stands out
    masks = box_masks(found[0], 5, 6)
    assert masks.sum((1, 2)).tolist() == [3, 4, 1]
    assert masks[0, 4, 3:].all()
    assert map_boxes(maps).shape == (2, 5, 4)


@pytest.mark.parametrize("white", [False, True])
def test_reranking_sorts_by_the_best_box(white):
    features, maps = drawn(size=(6, 7, 5, 6)).relu(), drawn(1, (6, 3, 5, 6)).clamp(0, 1)
    whitening = fit_whitening(drawn(5, (40, 7)), 4) if white else None
    query = F.normalize(drawn(2, (4 if white else 7,)), dim=0)
    order = torch.tensor([8, 3, 9, 1, 5, 0, 2, 7])
    before = [value.clone() for value in (order, query, features, maps)]
    best = []
    for picture in range(6):
        cosines = []
        for x0, y0, x1, y1 in map_boxes(maps)[picture].tolist():
            part = (slice(picture, picture + 1), slice(None), slice(y0, y1 + 1), slice(x0, x1 + 1))
            cosines.append(float(describe_maps(features[part], maps[part], whitening=whitening)[0] @ query))
        best.append(max(cosines))
    expected = [int(order[place]) for place in np.argsort(-np.array(best), kind="stable")]
    found = rerank(order, query, features, maps, whitening=whitening)
    assert found.tolist() == [*expected, 2, 7]
    assert expected != order[:6].tolist()
    for value, kept_value in zip((order, query, features, maps), before, strict=True):
        assert torch.equal(value, kept_value)
    assert torch.equal(rerank(order, query, features, maps, whitening=whitening), found)


def test_ties_keep_their_order_and_empty_pictures_come_last():
    features = drawn(size=(1, 7, 5, 6)).relu().repeat(5, 1, 1, 1)
    maps = drawn(1, (1, 2, 5, 6)).clamp(0, 1).repeat(5, 1, 1, 1)
    order = torch.tensor([4, 2, 7, 0, 9, 1])
    query = -describe_maps(features[:1], maps[:1])[0]  # opposite: every cosine is below zero
    assert torch.equal(rerank(order, query, features, maps), order)
    maps[1] = 0
    assert rerank(order, query, features, maps).tolist() == [4, 7, 0, 9, 2, 1]


def test_bad_input_gets_one_sentence():
    features, query = drawn(), drawn(1, (7,))
    for box in ([130, 10, 140, 20], [50, 10, 20, 20], [0, 0, 300, 90], [-9, 0, 5, 5], [0, 0, torch.nan, 5]):
        with pytest.raises(CkfrError, match="is not in a picture 120 pixels wide and 100 high"):
            inside(features, box, (100, 120))
    with pytest.raises(CkfrError, match=r"shape \(2, 4\); expected \(4,\) or \(3, 4\)"):
        inside(features, [[0, 0, 5, 5]] * 2, (100, 120))
    for search in (similarity_maps, best_windows):
        with pytest.raises(CkfrError, match=r"shape \(1, 6\); expected \(Q, 7\)"):
            search(features, query[None, :6])
        with pytest.raises(CkfrError, match="queries' features hold NaN"):
            search(features, query[None] * torch.nan)
    with pytest.raises(CkfrError, match=r"windows are \[\(6, 6\)\]"):
        best_windows(features, query[None], [(6, 6)])
    with pytest.raises(CkfrError, match="share is 1"):
        map_boxes(features, [1])
    with pytest.raises(CkfrError, match="Features of 3 pictures for 2 ids"):
        rerank(torch.tensor([1, 0]), query, features, features[:, :2])
    with pytest.raises(CkfrError, match=r"query has shape \(6,\)"):
        rerank(torch.tensor([1, 0, 2]), query[:6], features, features[:, :2].relu())

"""The box of every contour at every level of a byte image, in one pass.

Localisation scores ask, for each score threshold, which boxes the contours of the thresholded map have.
Asked one threshold at a time, that is a thousand calls of ``cv2.findContours`` per image. But the shapes at
one level are made of the shapes one level higher, so all levels can be had together:

1. Every pixel climbs to its highest neighbour; pixels that end on the same peak form a hill.
2. At level v the pixels above v form connected components. Two hills share a component exactly when a chain
   of saddles higher than v joins them, so the maximum spanning tree of the saddles holds every merge.
3. A hill's box at each level is a running minimum and maximum over its pixels from the top down; a merge
   takes the union of two such rows, below the saddle only.

Outer contours belong to 8-connected components of pixels above the level. Inner contours (``findContours``
reports them too) belong to holes: 4-connected components of the other pixels that do not reach the image's
edge, found the same way on the inverted image; their contour runs on the pixels around the hole, one further
out on each side.
"""

from typing import NamedTuple

import cv2
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree

FEW = 24  # maps of so few different bytes (masks, mostly) are traced level by level


class LevelBoxes(NamedTuple):
    """Contour boxes of all levels, sorted by level.

    Attributes:
        level: (n,) int64; the box belongs to the image ``pixels > level``.
        box: (n, 4) int64; ``x0, y0, x1, y1`` with ``x1 = min(x + w, W - 1)``, likewise ``y1``, where
            ``x, y, w, h`` is the contour's bounding rectangle.
    """

    level: np.ndarray
    box: np.ndarray


class _Shapes(NamedTuple):
    """Connected components of ``{values > level}`` at every level, one entry each."""

    level: np.ndarray  # (n,)
    corner: np.ndarray  # (n, 4) first and last column and row: x0, y0, x1, y1, inclusive
    half_area: np.ndarray | None = None  # (n,) twice the area that its own 2 × 2 blocks of pixels span


def all_contour_boxes(image: np.ndarray, fine: np.ndarray | None = None) -> LevelBoxes:
    """Boxes of all contours of ``image > level``, for level 0 … 254.

    Args:
        image: (H, W) uint8.
        fine: (H, W) values in [0, 1] that ``image`` was rounded from, if any. They change no result, only the
            time: on a smooth map they leave far fewer hills than the rounded plateaus do.

    Returns:
        The boxes that ``cv2.findContours(..., RETR_TREE, ...)`` and ``cv2.boundingRect`` give level by level,
        in another order within a level.
    """
    if (levels := _few_levels(image)) is not None:
        return _traced(image, levels, largest=False)
    key = _order(image, fine)
    outer, holes = _shapes(image, key, holes=False), _shapes(image, key, holes=True)
    level = np.concatenate((outer.level, holes.level))
    box = np.concatenate((_outer_boxes(outer, image.shape), _hole_boxes(holes, image.shape)))
    order = np.argsort(level, kind="stable")
    return LevelBoxes(level[order], box[order])


def largest_contour_boxes(image: np.ndarray, fine: np.ndarray | None = None) -> LevelBoxes:
    """Box of the contour with the largest ``cv2.contourArea`` of ``image > level``, for level 0 … 254.

    A component's own 2 × 2 blocks bound the area of its contour from below; together with the boxes of the
    holes it might have, from above. Where one component beats every other by these bounds, it is the answer;
    at the remaining levels (ties, mostly between specks) ``findContours`` decides, order of equals included.

    Args and order as in ``all_contour_boxes``; one entry for each level that has any pixel.
    """
    if (levels := _few_levels(image)) is not None:
        return _traced(image, levels, largest=True)
    key = _order(image, fine)
    outer, holes = _shapes(image, key, holes=False, areas=True), _shapes(image, key, holes=True)
    order = np.lexsort((-outer.half_area, outer.level))  # within a level, the largest own area first
    outer = _Shapes(*(part[order] for part in outer))
    levels, starts = np.unique(outer.level, return_index=True)
    # A hole's contour lies on the pixels around it: a rectangle of side w + 1 at most.
    around = holes.corner[:, 2:] - holes.corner[:, :2] + 2
    holes_here = np.bincount(holes.level, 2 * around[:, 0] * around[:, 1], minlength=256)  # (256,)
    side = outer.corner[:, 2:] - outer.corner[:, :2]
    most = np.minimum(2 * side[:, 0] * side[:, 1], outer.half_area + holes_here[outer.level])
    most[starts] = -1  # how large can the others be?
    least = outer.half_area[starts]
    # Without holes least is exact. With a positive area of its own, a component's outer contour is larger
    # than any inner one within it; an inner one elsewhere is smaller than the component around it.
    clear = least > np.maximum.reduceat(most, starts) if len(levels) else np.zeros(0, bool)
    clear &= (least > 0) | (holes_here[levels] == 0)
    chosen = _outer_boxes(outer, image.shape)[starts]
    rest = np.flatnonzero(~clear)
    chosen[rest] = _traced(image, levels[rest], largest=True).box
    return LevelBoxes(levels, chosen)


def _few_levels(image: np.ndarray) -> np.ndarray | None:
    """Levels at which a map of few values changes; None where there are more than tracing is worth."""
    values = np.flatnonzero(np.bincount(image.ravel(), minlength=256))
    return np.arange(values[-1]) if len(values) <= FEW else None


def _traced(image: np.ndarray, levels: np.ndarray, *, largest: bool) -> LevelBoxes:
    """The same by ``findContours``, each distinct set of pixels once; a pixel must be above every level."""
    values = np.flatnonzero(np.bincount(image.ravel(), minlength=256))
    # The same pixels are above all levels between two neighbouring values.
    below = np.searchsorted(values, levels, side="right")
    known: dict[int, list[tuple[int, int, int, int]]] = {}
    found_levels, found = [], []
    for level, group in zip(levels.tolist(), below.tolist(), strict=True):
        if group not in known:
            contours = find_contours(image, level)
            contours = [max(contours, key=cv2.contourArea)] if largest else contours
            known[group] = [contour_box(contour, image.shape) for contour in contours]
        found += known[group]
        found_levels += [level] * len(known[group])
    return LevelBoxes(np.array(found_levels, np.int64), np.array(found, np.int64).reshape(-1, 4))


def find_contours(image: np.ndarray, level: int) -> list[np.ndarray]:
    """Contours of ``image > level`` as the public evaluation of Choe et al. asks for them."""
    _, above = cv2.threshold(image, level, 255, cv2.THRESH_BINARY)
    # The list of contours is the last but one of what findContours returns, in every version of OpenCV.
    return list(cv2.findContours(above, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[-2])


def contour_box(contour: np.ndarray, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """``x0, y0, x1, y1`` of one contour: ``x + w`` and ``y + h``, clipped to the last pixel."""
    x, y, w, h = cv2.boundingRect(contour)
    return x, y, min(x + w, shape[1] - 1), min(y + h, shape[0] - 1)


def _outer_boxes(shapes: _Shapes, shape: tuple[int, ...]) -> np.ndarray:
    boxes = shapes.corner + np.array([0, 0, 1, 1])
    return np.minimum(boxes, np.array([shape[1], shape[0], shape[1], shape[0]]) - 1)


def _hole_boxes(shapes: _Shapes, shape: tuple[int, ...]) -> np.ndarray:
    boxes = shapes.corner + np.array([-1, -1, 2, 2])
    return np.minimum(boxes, np.array([shape[1], shape[0], shape[1], shape[0]]) - 1)


def _order(image: np.ndarray, fine: np.ndarray | None) -> np.ndarray:
    """One number per pixel that orders the image without ties, (H, W) int32 or, for large images, int64.

    By value, then by the finer value, then by place; the low ``_bits`` say where the pixel stands, so the
    largest number around a pixel names the neighbour to climb to.
    """
    bits = _bits(image.size)
    room = 23 - bits  # of 31 bits, what value and place leave
    kind, room = (np.int32, room) if room >= 6 else (np.int64, 20)
    key = image.astype(kind)
    key <<= room
    if fine is not None:
        scaled = fine.astype(np.float32) * 255  # float16 could not tell the neighbours of 255 apart
        scaled -= image
        key |= (np.clip(scaled, 0, 0.999, out=scaled) * (1 << room)).astype(kind)
    key <<= bits
    key |= np.arange(image.size, dtype=kind).reshape(image.shape)
    return key


def _bits(size: int) -> int:
    return max(1, (size - 1).bit_length())


def _shapes(image: np.ndarray, order: np.ndarray, *, holes: bool, areas: bool = False) -> _Shapes:
    """Components above each level (8-connected), or holes in them (4-connected, not touching the edge)."""
    values = 255 - image if holes else image  # (H, W) uint8
    hills, peaks = _sinks(order) if holes else _hills(order)
    count = len(peaks) + holes  # for holes one more hill stands for all that lies outside the image
    merges = _merges(*_saddles(values, hills, count, four=holes), count, outside=count - 1 if holes else -1)
    lowest = np.zeros(count, np.int64)
    for _, gone, height in merges:
        lowest[gone] = height

    drowned = None
    if holes:  # at which height each hill, as part of whatever it has merged with, opens to the outside
        reached = [256] * count
        for stays, gone, height in reversed(merges):
            reached[gone] = min(height, reached[stays])
        drowned = np.array(reached)
    rows = _rows(values, hills, count, drowned)  # (4, count, 256)
    area = _areas(values, hills, count) if areas else None
    for stays, gone, height in merges:
        if holes and stays == count - 1:
            continue  # nobody reads the row of the outside
        here, there = rows[:, stays, : height + 1], rows[:, gone, : height + 1]
        np.minimum(here, there, out=here)
        if area is not None:
            area[stays, : height + 1] += area[gone, : height + 1]

    # After the merges, a hill's entry stands for one component from its last merge's saddle up to its peak.
    column = np.arange(256)
    top = values.ravel()[peaks].astype(np.int64)
    hill, column = np.nonzero((column > lowest[: len(peaks), None]) & (column <= top[:, None]))
    corner = rows[:, hill, column].T.astype(np.int64)
    corner[:, 2:] *= -1
    # Values of column and more are above level column - 1; 255 - image >= column is image <= 255 - column.
    level = 255 - column if holes else column - 1
    return _Shapes(level, corner, None if area is None else area[hill, column])


def _hills(order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Climb to the highest of 8 neighbours: each pixel's hill (H, W), and the flat index of each peak."""
    best = np.full((order.shape[0] + 2, order.shape[1] + 2), -1, order.dtype)
    best[1:-1, 1:-1] = order
    best = np.maximum(np.maximum(best[:, :-2], best[:, 2:]), best[:, 1:-1])
    best = np.maximum(np.maximum(best[:-2], best[2:]), best[1:-1])
    return _ends(best)


def _sinks(order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same downhill, over 4 neighbours."""
    best = order.copy()
    np.minimum(best[1:], order[:-1], out=best[1:])
    np.minimum(best[:-1], order[1:], out=best[:-1])
    np.minimum(best[:, 1:], order[:, :-1], out=best[:, 1:])
    np.minimum(best[:, :-1], order[:, 1:], out=best[:, :-1])
    return _ends(best)


def _ends(best: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Follow each pixel's best neighbour to the end: number of the end (H, W), flat index of each end."""
    best &= (1 << _bits(best.size)) - 1
    goal, further = best.ravel().astype(np.intp), np.empty(best.size, np.intp)
    while True:  # each round doubles the steps taken; "clip" spares take a check, nothing is out of range
        np.take(goal, goal, out=further, mode="clip")
        if np.array_equal(further, goal):
            break
        np.take(further, further, out=goal, mode="clip")
    ends = np.flatnonzero(goal == np.arange(best.size))
    number = np.empty(best.size, np.int32)
    number[ends] = np.arange(len(ends), dtype=np.int32)
    return number.take(goal, mode="clip").reshape(best.shape), ends


def _rows(values: np.ndarray, hills: np.ndarray, count: int, drowned: np.ndarray | None) -> np.ndarray:
    """Box of each hill's pixels of value c and more, (4, count, 256): x0, y0, -x1, -y1, so union is min.

    Pixels at or below their hill's ``drowned`` height belong to no hole at any level and are left out.
    """
    height, width = values.shape
    kind = np.int16 if max(height, width) < 2**15 else np.int32  # a map of noise has thousands of hills
    rows = np.full((4, count, 256), np.iinfo(kind).max, kind)
    x0, y0, x1, y1 = rows.reshape(4, -1)
    if drowned is None:
        at = hills.astype(np.intp)
        at <<= 8
        at |= values
        down, by_row = np.repeat(np.arange(height, dtype=kind), width), at.ravel()
        across, by_column = np.repeat(np.arange(width, dtype=kind), height), at.T.ravel()
    else:
        kept = np.flatnonzero(values > drowned.astype(np.int16).take(hills))
        by_row = hills.ravel()[kept].astype(np.intp) * 256 + values.ravel()[kept]
        down, across = np.divmod(kept, width)
        order = np.argsort(across, kind="stable")
        across, by_column = across[order], by_row[order]
    # Assigning to a repeated index keeps the last value: pixels come in order of y, so assigning backwards
    # keeps the first row and assigning forwards the last; the same for columns on the transposed order.
    y1[by_row] = -down
    y0[by_row[::-1]] = down[::-1]
    x1[by_column] = -across
    x0[by_column[::-1]] = across[::-1]
    downward = rows[:, :, ::-1]
    np.minimum.accumulate(downward, axis=2, out=downward)
    return rows


def _areas(values: np.ndarray, hills: np.ndarray, count: int) -> np.ndarray:
    """Twice the area of the contour polygon that each hill's 2 × 2 blocks of c and more fill, (count, 256).

    A contour runs through pixel centres: a block with four pixels of the component adds 1, one with three
    adds 1/2. With at most one of four missing, the higher pixel of a diagonal is there, and its hill counts.
    """
    a, b, c, d = values[:-1, :-1], values[:-1, 1:], values[1:, :-1], values[1:, 1:]
    owner = np.where(a >= d, hills[:-1, :-1], hills[1:, 1:]).astype(np.int64)
    owner <<= 8
    low, high = np.minimum(a, b), np.minimum(c, d)
    shared = np.minimum(np.maximum(a, b), np.maximum(c, d))
    third = np.maximum(np.minimum(low, high), np.minimum(np.maximum(low, high), shared))
    areas = np.bincount((owner | np.minimum(low, high)).ravel(), minlength=count * 256)  # all four
    areas += np.bincount((owner | third).ravel(), minlength=count * 256)  # at least three
    return areas.reshape(count, 256)[:, ::-1].cumsum(axis=1)[:, ::-1].copy()


def _saddles(
    values: np.ndarray, hills: np.ndarray, count: int, *, four: bool
) -> tuple[list[int], list[int], list[int]]:
    """Pairs of hills that meet and the highest saddle between them, highest first."""
    height, width = values.shape
    # One column of nothing at the right, so that a step on the flat arrays never wraps into another row.
    nothing = np.iinfo(np.int32).max
    hill = np.full((height, width + 1), nothing, np.int32)
    hill[:, :-1] = hills
    value = np.zeros((height, width + 1), np.uint8)
    value[:, :-1] = values
    hill, value = hill.ravel(), value.ravel()
    found = []
    for step in (1, width + 1) if four else (1, width, width + 1, width + 2):
        here = np.flatnonzero(hill[:-step] != hill[step:])
        found.append((hill[here], hill[here + step], np.minimum(value[here], value[here + step])))
    if four:  # what lies outside is the last hill, higher than all: its saddle to an edge pixel is that pixel
        for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
            found.append((hills[edge], np.full(hills[edge].shape, count - 1), values[edge]))
    a, b, saddle = (np.concatenate(parts).astype(np.int64) for parts in zip(*found, strict=True))
    low, high = np.minimum(a, b), np.maximum(a, b)
    # Each pair once, at its highest saddle.
    cost = np.sort(((low * count + high) * 256 + (255 - saddle))[high != nothing])
    pair, cost = cost >> 8, (cost & 255) + 1
    first = np.flatnonzero(np.diff(pair, prepend=-1))
    pair, cost = pair[first], cost[first]
    a, b = pair // count, pair % count
    if len(pair) > 2000:  # noise: most pairs are joined already by others, which scipy finds out faster
        tree = minimum_spanning_tree(coo_array((cost, (a, b)), shape=(count, count)).tocsr()).tocoo()
        a, b, cost = tree.row, tree.col, tree.data.astype(np.int64)
    order = np.argsort(cost, kind="stable")
    return a[order].tolist(), b[order].tolist(), (256 - cost[order]).tolist()


def _merges(
    left: list[int], right: list[int], heights: list[int], count: int, outside: int
) -> list[tuple[int, int, int]]:
    """Which hill goes into which at what height, in falling order; the outside never goes into another."""
    root = list(range(count))

    def find(node: int) -> int:
        while root[node] != node:
            root[node] = root[root[node]]
            node = root[node]
        return node

    merges = []
    for a, b, height in zip(left, right, heights, strict=True):
        a, b = find(a), find(b)
        if a == b:
            continue
        if b == outside:
            a, b = b, a
        root[b] = a
        merges.append((a, b, height))
    return merges

"""Parts of feature maps: the query's box, places and windows like the query, re-ranking by boxes of maps.

Boxes are ``x0, y0, x1, y1`` with both ends inside, in pixels or, where it says so, in cells of a map.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from ckfr_helpers.retrieval.descriptors import describe_maps
from ckfr_helpers.retrieval.pooling import check_features, check_finite
from ckfr_helpers.runtime import CkfrError, check_number

if TYPE_CHECKING:
    from sklearn.decomposition import PCA

BOX_SHARES = (0.01, 0.1, 0.2, 0.3, 0.4)  # of a map's maximum; the source's code never uses its last
WINDOW_SHARES = (0.25, 0.35, 0.5, 0.7, 1.0)  # sides of windows, of the shorter side of the map
WINDOW_SHAPES = (0.5, 1.0, 2.0)  # width over height
AT_ONCE = 16  # pictures whose sums are held in float64


def inside(features: Tensor, box: Tensor | np.ndarray | Sequence[float], size: tuple[int, int]) -> Tensor:
    """Features of the whole picture with all places outside a box set to zero.

    A cell stays if its centre lies in the box; a box between two centres keeps the cell at its own centre.

    Args:
        features: (B, C, H, W).
        box: (4,) for all, or (B, 4), in pixels of the picture.
        size: (height, width) of the picture that the box was drawn in, whatever the network's input was.

    Raises:
        CkfrError: a box that is reversed, not finite, or reaches more than a pixel beyond the picture.
    """
    features = check_features(features)
    (height, width), corners = size, torch.as_tensor(box, dtype=torch.float32, device=features.device)
    if corners.shape not in [(4,), (len(features), 4)]:
        raise CkfrError(f"The box has shape {tuple(corners.shape)}; expected (4,) or ({len(features)}, 4).")
    low, high = corners.reshape(-1, 2, 2).unbind(1)  # (1 or B, 2), x before y
    if not ((low >= -1) & (low <= high) & (high <= high.new_tensor([width, height]))).all():
        raise CkfrError(
            f"The box {corners.tolist()} is not in a picture {width} pixels wide and {height} high; "
            "expected x0, y0, x1, y1 from its left upper to its right lower corner."
        )
    rows = _covered(low[:, 1], high[:, 1] + 1, features.shape[2], height)
    columns = _covered(low[:, 0], high[:, 0] + 1, features.shape[3], width)
    return features * (rows[:, :, None] & columns[:, None])[:, None]


def similarity_maps(features: Tensor, queries: Tensor) -> Tensor:
    """How like each query each place is: the positive part of the cosine.

    Args:
        features: (B, C, H, W).
        queries: (Q, C), their own features, summed or averaged over places.

    Returns:
        (B, Q, H, W) in [0, 1]; ``class_weighted_descriptors(features, maps)`` then attends to their like.
    """
    features = check_features(features)
    directions = _directions(features, queries)
    return torch.einsum("bchw,qc->bqhw", F.normalize(features, dim=1), directions).clamp(0, 1)


def best_windows(
    features: Tensor, queries: Tensor, sizes: Sequence[tuple[int, int]] | None = None
) -> tuple[Tensor, Tensor]:
    """The window of each picture whose mean features are most like each query's, by integral images.

    Args:
        features: (B, C, H, W).
        queries: (Q, C), their own sums or means.
        sizes: (height, width) of windows in cells, none larger than the map; by default `window_sizes`.

    Returns:
        Cosines (B, Q) float32, and boxes (B, Q, 4) int64 in cells, both on the CPU.
    """
    features = check_features(features)
    height, width = features.shape[2:]
    sizes = window_sizes(height, width) if sizes is None else list(sizes)
    if not sizes or not all(1 <= h <= height and 1 <= w <= width for h, w in sizes):
        raise CkfrError(f"The windows are {sizes}; expected sizes from (1, 1) to ({height}, {width}) cells.")
    directions = _directions(features, queries).double()
    parts = [_best_of_each(part.double(), directions, sizes) for part in features.split(AT_ONCE)]
    scores, boxes = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
    return scores.float(), boxes


def window_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Sizes (height, width) of windows for a map: five scales, three shapes, and the whole map."""
    sides = [share * min(height, width) for share in WINDOW_SHARES]
    found = [(round(s / shape**0.5), round(s * shape**0.5)) for s in sides for shape in WINDOW_SHAPES]
    return sorted({(height, width)} | {(min(max(h, 1), height), min(max(w, 1), width)) for h, w in found})


def map_boxes(maps: Tensor, shares: Sequence[float] = BOX_SHARES) -> Tensor:
    """Boxes around what stands out in the mean of a picture's first two maps.

    Args:
        maps: (B, N, H, W), the likeliest class first.
        shares: of the mean map's maximum; the largest connected part above it gives the box. Corners connect.

    Returns:
        (B, S, 4) int64 in cells; the whole map where the mean is zero everywhere.
    """
    for share in shares:
        check_number("share", share, 0, 1, below=True)
    means = maps[:, :2].float().mean(1).cpu().numpy()
    found = [[_box_above(mean, share * mean.max()) for share in shares] for mean in means]
    return torch.tensor(found).reshape(len(maps), len(shares), 4)


def box_masks(boxes: Tensor, height: int, width: int) -> Tensor:
    """Which cells lie in each box of cells, (B, 4) -> (B, H, W) bool."""
    x0, y0, x1, y1 = boxes[:, :, None].unbind(1)
    y, x = torch.arange(height, device=boxes.device), torch.arange(width, device=boxes.device)
    return ((y >= y0) & (y <= y1))[:, :, None] & ((x >= x0) & (x <= x1))[:, None]


def rerank(
    order: Tensor,
    query: Tensor,
    features: Tensor,
    maps: Tensor,
    weighted: bool = True,
    whitening: "PCA | None" = None,
) -> Tensor:
    """The first R of a ranking, sorted again by the best cosine of what lies in one of `map_boxes`.

    Args:
        order: (M,) int64 ids, best first.
        query: (D,), its descriptor, of the same making.
        features, maps: (R, C, H, W) and (R, N, H, W) of the first R ids: maps of the query's classes.
        weighted, whitening: as for `descriptors.describe_maps`.

    Returns:
        (M,) int64, a new order; ties keep the old one, and of the R those without a descriptor come last.

    Reference:
        Jimenez et al., BMVC 2017, §3.4, with boxes of any size.
    """
    ids, first = torch.as_tensor(order), len(features)
    if ids.ndim != 1 or not 1 <= first <= len(ids):
        raise CkfrError(f"Features of {first} pictures for {len(ids)} ids; expected from 1 to as many.")
    scores = torch.full((first,), -torch.inf)
    for boxes in map_boxes(maps).unbind(1):
        masks = box_masks(boxes, *features.shape[2:]).to(features.device)
        vectors = describe_maps(features * masks[:, None], maps, weighted, whitening)
        if query.shape != vectors.shape[1:]:
            raise CkfrError(f"The query has shape {tuple(query.shape)}; expected ({vectors.shape[1]},).")
        cosines = (vectors * query.cpu()).sum(1)  # row by row, so that equal pictures tie exactly
        scores = torch.where(vectors.any(1), cosines.maximum(scores), scores)
    best = scores.sort(descending=True, stable=True).indices.to(ids.device)
    return torch.cat([ids[:first][best], ids[first:]])


def _covered(low: Tensor, high: Tensor, cells: int, length: int) -> Tensor:
    """Which of the cells along an axis have their centre from ``low`` up to ``high``, (B, cells) bool."""
    numbers = torch.arange(cells, device=low.device)
    centres = (numbers + 0.5) * (length / cells)
    kept = (centres >= low[:, None]) & (centres < high[:, None])
    middle = ((low + high) / 2 * (cells / length)).floor().clamp(0, cells - 1)
    return torch.where(kept.any(1, keepdim=True), kept, numbers == middle[:, None])


def _directions(features: Tensor, queries: Tensor) -> Tensor:
    """The queries' vectors (Q, C) at unit length, in the features' type and place."""
    if queries.ndim != 2 or queries.shape[1] != features.shape[1]:
        raise CkfrError(f"Queries have shape {tuple(queries.shape)}; expected (Q, {features.shape[1]}).")
    return F.normalize(check_finite(queries, "queries' features").to(features), dim=1)


def _best_of_each(
    features: Tensor, directions: Tensor, sizes: list[tuple[int, int]]
) -> tuple[Tensor, Tensor]:
    """Best cosine (B, Q) and its box (B, Q, 4) over all windows."""
    sums = F.pad(features, (1, 0, 1, 0)).cumsum(2).cumsum(3)  # sums[y, x]: of all above and left of it
    rounding = 1e-9 * features.norm(dim=1).amax((1, 2))[:, None, None]
    scores, boxes = [], []
    for h, w in sizes:
        windows = sums[..., h:, w:] - sums[..., :-h, w:] - sums[..., h:, :-w] + sums[..., :-h, :-w]
        lengths = windows.norm(dim=1)[:, None]  # (B, 1, H - h + 1, W - w + 1)
        products = torch.einsum("bcyx,qc->bqyx", windows, directions)
        cosines = torch.where(lengths > rounding[:, None], products / lengths, 0.0)
        score, place = cosines.flatten(2).max(2)
        y, x = place // cosines.shape[3], place % cosines.shape[3]
        scores.append(score)
        boxes.append(torch.stack([x, y, x + w - 1, y + h - 1], 2))
    best = torch.stack(scores).max(0)  # over sizes
    chosen = best.indices[None, :, :, None].expand(1, -1, -1, 4)
    return best.values, torch.stack(boxes).gather(0, chosen)[0]


def _box_above(mean: np.ndarray, level: float) -> list[int]:
    """Box of the largest connected part of ``mean > level``; the whole map where there is none."""
    parts, _ = ndimage.label(mean > level, structure=np.ones((3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=2)[1:]
    if not sizes.any():
        return [0, 0, mean.shape[1] - 1, mean.shape[0] - 1]
    rows, columns = ndimage.find_objects(parts)[int(sizes.argmax())]
    return [columns.start, rows.start, columns.stop - 1, rows.stop - 1]

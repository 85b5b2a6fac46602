"""Regions of pictures: pooled from the map of the whole picture, once, as many as each picture has.

A batch has ``boxes`` (B, R, 4) and ``counts`` (B,): picture b has its own boxes first, then padding. What is
computed region by region lies flat, (N, …) with N the sum of the counts, picture after picture; `padded` and
`flat` lead from one form to the other.

Boxes are ``x0, y0, x1, y1`` in pixels with both ends inside, as in every target. torchvision.ops measures
from edge to edge: `edges` moves the far ends by the one pixel, and its IoU is then the one with "+1" of VOC.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torchvision.ops import roi_align, roi_pool

from ckfr_helpers.runtime import CkfrError, check_number

Pooling = Literal["align", "max"]
BoxScores = Literal["none", "product", "hbilen"]
BOX_SCORES: tuple[BoxScores, ...] = ("none", "product", "hbilen")


def edges(boxes: Tensor) -> Tensor:
    """Boxes (…, 4) of pixels from their near edges to their far edges."""
    return boxes + boxes.new_tensor([0, 0, 1, 1])


def pad_boxes(boxes: Sequence[Tensor], most: int | None = None) -> tuple[Tensor, Tensor]:
    """Boxes (n, 4) of each picture together: (B, R, 4) float32 with zeros behind, and counts (B,) int64.

    R is ``most``, or the largest number there is; of a picture with more, the first R are taken.
    """
    for number, own in enumerate(boxes):
        if not len(own):
            raise CkfrError(f"There is no proposal for picture {number}; expected at least one box.")
    counts = torch.tensor([len(own) if most is None else min(len(own), most) for own in boxes])
    rows = torch.cat([own[:count].float() for own, count in zip(boxes, counts.tolist(), strict=True)])
    return padded(rows, counts, most or int(counts.max())), counts


def present(counts: Tensor, most: int) -> Tensor:
    """Which rows of a padded (B, most, …) tensor are there, (B, most) bool."""
    return torch.arange(most, device=counts.device) < counts[:, None]


def padded(rows: Tensor, counts: Tensor, most: int, fill: float = 0.0) -> Tensor:
    """(N, …) rows, picture after picture -> (B, most, …), with ``fill`` behind each picture's own."""
    together = rows.new_full((len(counts), most, *rows.shape[1:]), fill)
    together[present(counts, most)] = rows
    return together


def flat(values: Tensor, counts: Tensor) -> Tensor:
    """(B, R, …) -> (N, …): the rows that are there, picture after picture."""
    return values[present(counts, values.shape[1])]


def pool_regions(
    maps: Tensor,
    boxes: Tensor,
    counts: Tensor,
    size: tuple[int, int],
    pooling: Pooling = "align",
    side: int = 1,
) -> tuple[Tensor, Tensor]:
    """Features of every region, from one map a picture.

    Args:
        maps: (B, C, h, w).
        boxes: (B, R, 4), in pixels of a picture of ``size``.
        counts: (B,) int64, how many of a picture's boxes are its own; at least 1.
        size: (height, width) in pixels of what the map covers.
        pooling: ``"align"``, the mean over a region of the map between its cells (He et al., ICCV 2017); or
            ``"max"``, of whole cells, as the sources do (Girshick, ICCV 2015).
        side: cells of the result along each side.

    Returns:
        (N, C), or (N, C, side, side) for a side above 1; and (N,) int64, the picture of each row.

    Raises:
        CkfrError: shapes that do not fit, a picture without a proposal, a box not finite or reversed.
    """
    if pooling not in ("align", "max"):
        raise CkfrError(f"pooling is {pooling!r}; expected 'align' or 'max'.")
    check_number("side", side, 1, whole=True)
    own = flat(check_regions(boxes, counts, len(maps)), counts)
    picture = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    cells = boxes.new_tensor([maps.shape[3] / size[1], maps.shape[2] / size[0]]).repeat(2)  # for each pixel
    maps = maps if maps.dtype == torch.float64 else maps.float()  # there is no pooling in half precision
    corners = cells * (edges(own) if pooling == "align" else own)  # "max" rounds, and adds its own one
    rois = torch.cat([picture[:, None], corners], 1).to(maps.dtype)
    found = roi_align(maps, rois, side, aligned=True) if pooling == "align" else roi_pool(maps, rois, side)
    return (found.flatten(1) if side == 1 else found), picture


def check_regions(boxes: Tensor, counts: Tensor, pictures: int) -> Tensor:
    """Padded boxes (B, R, 4) whose own ones are finite and not reversed, at least one a picture."""
    if boxes.ndim != 3 or boxes.shape[2] != 4 or counts.shape != boxes.shape[:1] or len(counts) != pictures:
        raise CkfrError(
            f"{pictures} pictures have boxes {tuple(boxes.shape)} and counts {tuple(counts.shape)}; "
            f"expected ({pictures}, R, 4) and ({pictures},)."
        )
    if pictures and not (counts.min() >= 1 and counts.max() <= boxes.shape[1]):
        number = int(((counts < 1) | (counts > boxes.shape[1])).nonzero()[0])
        raise CkfrError(
            f"Picture {number} of the batch has {int(counts[number])} proposals; "
            f"expected from 1 to the {boxes.shape[1]} there is room for."
        )
    right = boxes.isfinite().all(2) & (boxes[..., :2] <= boxes[..., 2:]).all(2)
    wrong = present(counts, boxes.shape[1]) & ~right
    if wrong.any():
        picture, number = wrong.nonzero()[0].tolist()
        raise CkfrError(
            f"Box {number} of picture {picture} of the batch is {boxes[picture, number].tolist()}; "
            "expected finite x0 <= x1 and y0 <= y1."
        )
    return boxes


def weigh(features: Tensor, scores: Tensor | None, how: BoxScores) -> Tensor:
    """Features (N, …) of regions times what their boxes' scores (N,) are worth.

    ``how``: ``"none"``, all the same; ``"product"``, the score itself (wsddn.pytorch, MLIC-KD-WSD), by which
    a box of score 0 is a row of zeros; ``"hbilen"``, 1 + 10 times the score (WSDDN's authors).
    """
    if how not in BOX_SCORES:
        raise CkfrError(f"box_scores is {how!r}; expected one of {', '.join(BOX_SCORES)}.")
    if how == "none":
        return features
    if scores is None or scores.shape != features.shape[:1]:
        shape = "none" if scores is None else tuple(scores.shape)
        raise CkfrError(f"{len(features)} regions have box scores {shape}; {how!r} expected one for each.")
    factor = scores if how == "product" else 1 + 10 * scores
    return features * factor.to(features.dtype).reshape(-1, *[1] * (features.ndim - 1))

"""Where an object might be: boxes of a grid, of selective search, or read from files of Edge Boxes.

Boxes are ``x0, y0, x1, y1`` in pixels with both ends inside, as in every target.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.io import loadmat
from torch import Tensor

from ckfr_helpers.runtime import CkfrError, check_number

SIZES = (0.22, 0.3, 0.42, 0.58, 0.8)  # root of a box's area, as a share of the picture's
SHAPES = (0.5, 1.0, 2.0)  # width over height
FEW = 0.7  # a stride that leaves 200 to 300 boxes
MIN_SIDE = 20  # pixels; WSDDN's authors and wsddn.pytorch leave smaller boxes out
MODES = {"single": "SingleStrategy", "fast": "SelectiveSearchFast", "quality": "SelectiveSearchQuality"}


def grid_boxes(
    size: tuple[int, int],
    sizes: Sequence[float] = SIZES,
    shapes: Sequence[float] = SHAPES,
    stride: float = 1 / 3,
) -> Tensor:
    """Boxes of a few sizes and shapes at regular places, for any picture of ``size`` (height, width).

    >>> len(grid_boxes((256, 256))), len(grid_boxes((256, 256), stride=FEW))
    (812, 270)

    Args:
        sizes: roots of the boxes' areas, as shares of the root of the picture's, in (0, 1].
        shapes: widths over heights; no side becomes longer than the picture's.
        stride: largest step from a box to the next, as a share of its side.

    Returns:
        (R, 4) float32 whole pixels, no box twice; those of one kind are spread from edge to edge.
    """
    height, width = size
    check_number("The picture's shorter side", min(size), 1, whole=True)
    check_number("stride", stride, 0, 1, above=True)
    boxes = []
    for share, shape in itertools.product(sizes, shapes):
        check_number("A box's size", share, 0, 1, above=True)
        check_number("A box's shape", shape, 0, above=True)
        side = share * (height * width) ** 0.5
        wide = min(max(round(side * shape**0.5), 1), width)
        high = min(max(round(side / shape**0.5), 1), height)
        x, y = np.meshgrid(_starts(width, wide, stride), _starts(height, high, stride))
        boxes.append(np.stack([x, y, x + wide - 1, y + high - 1], -1).reshape(-1, 4))
    return torch.from_numpy(np.unique(np.concatenate(boxes), axis=0)).float()


def _starts(length: int, side: int, stride: float) -> np.ndarray:
    """First pixels of windows from edge to edge, no two further apart than ``stride`` sides (or a pixel)."""
    count = 1 + int(np.ceil((length - side) / max(1, stride * side)))
    return np.linspace(0, length - side, count).round().astype(int)


def selective_search(image: Tensor, mode: str = "fast", min_side: int = MIN_SIDE) -> Tensor:
    """Boxes of regions that are alike, by OpenCV's contributed modules (Uijlings et al., IJCV 2013).

    Colab has these modules. Their wheels own the same folder as ``opencv-python-headless``, which this
    package needs; the two must not be installed together.

    Args:
        image: (3, H, W) uint8 RGB.
        mode: ``"single"`` (about 50 boxes of a small picture), ``"fast"`` (200 to 300) or ``"quality"``.

    Returns:
        (R, 4) float32; R may be 0.
    """
    if mode not in MODES:
        raise CkfrError(f"The mode is {mode!r}; expected one of {', '.join(MODES)}.")
    if image.dtype != torch.uint8 or image.ndim != 3 or len(image) != 3:
        raise CkfrError(f"The picture is {image.dtype} {tuple(image.shape)}; expected uint8 (3, H, W).")
    if not hasattr(cv2, "ximgproc"):
        other = "opencv-contrib-python-headless in place of (not beside) opencv-python-headless"
        raise CkfrError(
            f"Selective search needs OpenCV's contributed modules; take grid_boxes, or install {other}."
        )
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image.flip(0).permute(1, 2, 0).cpu().numpy()))  # BGR
    getattr(search, f"switchTo{MODES[mode]}")()
    corner, sides = np.split(np.asarray(search.process(), np.float32).reshape(-1, 4), 2, axis=1)
    kept = (sides >= min_side).all(1)
    return torch.from_numpy(np.concatenate([corner, corner + sides - 1], 1)[kept])


def read_edge_boxes(path: str | Path, min_side: int = MIN_SIDE) -> dict[str, tuple[Tensor, Tensor]]:
    """Boxes and scores by picture, from a file such as WSDDN's authors publish for VOC 2007.

    Its cells ``boxes`` hold y0, x0, y1, x1 counted from 1, both ends inside; here they are counted from 0.
    How they are found: Zitnick and Dollár, "Edge Boxes", ECCV 2014.

    Returns:
        For each of ``images``, e.g. ``"000005"``: boxes (R, 4) and scores (R,) float32; R may be 0.
    """
    cells = ("images", "boxes", "boxScores")
    try:
        file, found = loadmat(path, variable_names=cells), {}
        for name, boxes, scores in zip(*(file[cell].ravel() for cell in cells), strict=True):
            swapped = np.asarray(boxes, np.float32).reshape(-1, 4)[:, [1, 0, 3, 2]] - 1
            kept = (swapped[:, 2:] - swapped[:, :2] + 1 >= min_side).all(1)
            rows = np.asarray(scores, np.float32).reshape(len(swapped))
            found[str(name.item())] = torch.from_numpy(swapped[kept]), torch.from_numpy(rows[kept])
        return found
    except Exception as error:  # scipy raises a different type for each way a file can be wrong
        reason = str(error).partition("\n")[0]
        raise CkfrError(
            f"{path} is no file of boxes ({reason}); expected cells {', '.join(cells)}."
        ) from error


def check_boxes(boxes: Tensor, size: tuple[int, int], where: str) -> Tensor:
    """Boxes (R, 4), at least one, in the picture ``where`` of ``size`` (height, width); else a `CkfrError`.

    A box may reach one pixel beyond, as it does that was scaled with its picture.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise CkfrError(f"The boxes of {where} have shape {tuple(boxes.shape)}; expected (R, 4).")
    if not len(boxes):
        raise CkfrError(f"There is no proposal for {where}; expected at least one box.")
    low, high, edge = boxes[:, :2], boxes[:, 2:], boxes.new_tensor([size[1], size[0]])
    for right, wrong in (
        (boxes.isfinite(), "is not finite; expected numbers of pixels"),
        (low <= high, "is reversed; expected x0 <= x1 and y0 <= y1"),
        ((low >= -1) & (high <= edge), f"is outside its picture of {size[1]} × {size[0]} pixels"),
    ):
        if not right.all():
            number = int((~right).any(1).nonzero()[0])
            raise CkfrError(f"Box {number} of {where}, {boxes[number].tolist()}, {wrong}.")
    return boxes

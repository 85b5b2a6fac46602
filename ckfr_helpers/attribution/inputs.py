"""Score maps, boxes and masks as users bring them, checked one by one; each complaint names the culprit."""

from collections.abc import Sequence, Sized

import numpy as np
import torch
from torch import Tensor

from ckfr_helpers.runtime import CkfrError

Maps = np.ndarray | Tensor | Sequence[np.ndarray | Tensor]  # (N, H, W), or N of (H, W)
Boxes = np.ndarray | Tensor | Sequence[np.ndarray | Tensor]  # N of (n, 4)


def to_numpy(value: np.ndarray | Tensor | Sequence, what: str = "The input") -> np.ndarray:
    """An array of numbers on the CPU; bfloat16, which NumPy lacks, becomes float32."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.float() if value.dtype == torch.bfloat16 else value
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise CkfrError(f"{what} holds {array.dtype}; expected numbers.")
    return array


def check_count(first: Sized, second: Sized, name: str, other: str) -> None:
    """As many of one as of the other, and not none."""
    if len(first) != len(second):
        raise CkfrError(f"There are {len(first)} {name} but {len(second)} {other}; expected as many of each.")
    if not len(first):
        raise CkfrError(f"There are no {name} to score; expected at least one.")


def check_map(score_map: np.ndarray | Tensor, index: int, *, signed: bool = False) -> np.ndarray:
    """One score map, (H, W) floats in its own precision: in [0, 1], or of any finite values if ``signed``."""
    scores = to_numpy(score_map, f"Score map {index}")
    if scores.ndim != 2 or not scores.size:
        raise CkfrError(f"Score map {index} has shape {scores.shape}; expected (height, width).")
    if scores.dtype.kind != "f":
        scores = scores.astype(np.float32)
    low, high = float(scores.min()), float(scores.max())  # NaN wins both
    if np.isnan(low) or (signed and not np.isfinite([low, high]).all()):
        raise CkfrError(f"Score map {index} holds NaN or infinite values; expected finite ones.")
    if not signed and (low < 0 or high > 1):
        raise CkfrError(f"Score map {index} runs from {low:g} to {high:g}; expected values from 0 to 1.")
    return scores


def check_boxes(boxes: np.ndarray | Tensor, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """One image's true boxes ``x0, y0, x1, y1`` in pixels, (n, 4) float64; a single one may come as (4,).

    Args:
        name: what messages call the image.
        shape: (H, W) of its map.

    Raises:
        CkfrError: no box, wrong shape, NaN or infinite, negative, reversed, or wholly outside the map.
    """
    found = to_numpy(boxes, f"The array of boxes of {name}")
    found = found[None] if found.shape == (4,) else found
    if found.size == 0:
        raise CkfrError(f"There is no box for {name}; expected at least one, as x0, y0, x1, y1.")
    if found.ndim != 2 or found.shape[1] != 4:
        raise CkfrError(f"The boxes of {name} have shape {found.shape}; expected (n, 4) as x0, y0, x1, y1.")
    found = found.astype(np.float64)
    for number, (x0, y0, x1, y1) in enumerate(found.tolist()):
        which = f"Box {number} of {name} is ({x0:g}, {y0:g}, {x1:g}, {y1:g})"
        if not (np.isfinite(found[number]).all() and min(x0, y0) >= 0):
            raise CkfrError(f"{which}; expected finite pixel positions that are not negative.")
        if x1 < x0 or y1 < y0:
            raise CkfrError(f"{which}, which is reversed; expected x0 <= x1 and y0 <= y1.")
        if x0 > shape[1] - 1 or y0 > shape[0] - 1:
            raise CkfrError(
                f"{which}, outside its map of {shape[1]} × {shape[0]} pixels; expected pixels of the map."
            )
    return found


def check_mask(mask: np.ndarray | Tensor, index: int, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """One mask (H, W), of the map's ``shape``, holding 0, 1 and perhaps 255 (left out of the count)."""
    truth = to_numpy(mask, f"Mask {index}")
    if shape is not None and truth.shape != shape:
        raise CkfrError(f"Mask {index} has shape {truth.shape}; expected {shape}, that of its score map.")
    if not np.isin(truth, (0, 1, 255)).all():
        raise CkfrError(f"Mask {index} holds values other than 0 (elsewhere), 1 (object) and 255 (ignored).")
    return truth

"""Does the map look at the object? Measures against a mask, image by image, and what chance alone gives."""

from collections.abc import Iterator
from itertools import count

import cv2
import numpy as np
from torch import Tensor

from ckfr_helpers.attribution.inputs import Maps, check_count, check_map, check_mask, to_numpy
from ckfr_helpers.runtime import CkfrError

TOLERANCE = 15  # pixels, Zhang et al.; meant for images of about 500 pixels


def energy_in_mask(score_maps: Maps, masks: Maps) -> np.ndarray:
    """Share of a map's positive mass that lies on the object, (N,) in [0, 1]: the energy-based pointing game.

    Give maps without per-image min-max scaling where you can (``cam.upsample`` of raw maps): that scaling
    moves the zero, and with it the share. A map without positive mass points nowhere and gets 0.

    Args:
        score_maps: (N, H, W), or N maps (H, W), of any finite values; negative ones count as 0.
        masks: as many masks: 1 or True on the object, 0 elsewhere, 255 where a pixel is left out.

    Raises:
        CkfrError: NaN or infinite values, shapes that differ, masks without any object pixel; named by index.

    Reference:
        Wang et al., "Score-CAM" (CVPR Workshops 2020), §4.3, there with a box in place of the mask.
    """
    shares = []
    for scores, truth in _pairs(score_maps, masks):
        positive = np.maximum(scores, 0)
        inside, outside = positive[truth == 1].sum(), positive[truth == 0].sum()
        shares.append(inside / (inside + outside) if inside + outside > 0 else 0.0)
    return np.array(shares)


def pointing_game(score_maps: Maps, masks: Maps, tolerance: float = TOLERANCE) -> np.ndarray:
    """Whether a map's highest pixel lies on the object, or within ``tolerance`` pixels of it, (N,) bool.

    The first highest pixel in reading order decides; pixels that the mask leaves out do not compete. A flat
    map points nowhere: a miss.

    Args:
        score_maps, masks: as for ``energy_in_mask``.
        tolerance: radius in pixels of the map. The usual 15 is for images of about 500 pixels; on smaller
            ones scale it down. ``random_point_hits`` says what chance alone gives.

    Reference:
        Zhang et al., "Top-down Neural Attention by Excitation Backprop" (ECCV 2016; IJCV 2018), §4.1.
    """
    hits = []
    for scores, truth in _pairs(score_maps, masks):
        kept = truth != 255
        highest = np.where(kept, scores, -np.inf).argmax()
        hits.append(bool(_near_object(truth, tolerance).flat[highest]) and np.ptp(scores[kept]) > 0)
    return np.array(hits)


def uniform_energy(masks: Maps) -> np.ndarray:
    """``energy_in_mask`` of a map that is the same everywhere: the object's share of the image, (N,)."""
    return np.array([(m[m != 255] == 1).mean() for m in map(_mask, masks, count())])


def random_point_hits(masks: Maps, tolerance: float = TOLERANCE) -> np.ndarray:
    """Probability that a point chosen at random, among pixels not left out, wins the pointing game, (N,)."""
    return np.array([_near_object(m, tolerance)[m != 255].mean() for m in map(_mask, masks, count())])


def background_swap(
    usual: np.ndarray | Tensor, foreign: np.ndarray | Tensor, labels: np.ndarray | Tensor
) -> dict[str, np.ndarray]:
    """Background-swapped pairs: the same cut-out on its usual and on a foreign background.

    A network that reads the object keeps its answer; one that reads the background loses it.

    Args:
        usual, foreign: (N,) predicted classes of the two pictures of each pair.
        labels: (N,) the object's class.

    Returns:
        Pair by pair, each (N,) float: ``usual`` and ``foreign``, right on that background; ``drop``, their
        difference. The means are the scores.

    Reference:
        After Xiao et al., "Noise or Signal: The Role of Image Backgrounds in Object Recognition" (ICLR 2021).
    """
    a, b, truth = (to_numpy(part) for part in (usual, foreign, labels))
    if a.ndim != 1 or not a.size or a.shape != b.shape or a.shape != truth.shape:
        raise CkfrError(
            f"Predictions and labels have shapes {a.shape}, {b.shape}, {truth.shape}; expected (N,) for each."
        )
    right = {"usual": (a == truth).astype(float), "foreign": (b == truth).astype(float)}
    return right | {"drop": right["usual"] - right["foreign"]}


def _pairs(score_maps: Maps, masks: Maps) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    check_count(score_maps, masks, "score maps", "masks")
    for index, (score_map, mask) in enumerate(zip(score_maps, masks, strict=True)):
        scores = check_map(score_map, index, signed=True)
        yield scores.astype(np.float64), _mask(mask, index, scores.shape)


def _mask(mask: np.ndarray | Tensor, index: int, shape: tuple[int, ...] | None = None) -> np.ndarray:
    truth = check_mask(mask, index, shape)
    if not (truth == 1).any():
        raise CkfrError(f"Mask {index} marks no object pixel; expected at least one.")
    return truth


def _near_object(truth: np.ndarray, tolerance: float) -> np.ndarray:
    """(H, W) bool: on the object, or within ``tolerance`` pixels of its nearest pixel."""
    if not tolerance >= 0:
        raise CkfrError(f"The tolerance is {tolerance}; expected a number of pixels, 0 or more.")
    distance = cv2.distanceTransform((truth != 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    squared = np.rint(distance.astype(np.float64) ** 2)  # whole numbers, given as float32 roots
    return squared <= tolerance**2

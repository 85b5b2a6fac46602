"""Pixel average precision of score maps against masks (PxAP)."""

import numpy as np

from ckfr_helpers.attribution.inputs import Maps, check_count, check_map, check_mask
from ckfr_helpers.runtime import CkfrError

EDGES = np.append(np.arange(0, 1, 0.001), [1.0, 2.0, 3.0])  # the public evaluation's bins


def pxap(score_maps: Maps, masks: Maps) -> float:
    """Pixel average precision: area under the pooled pixel precision-recall curve, in [0, 1].

    No box and no threshold to choose; needs masks.

    Args:
        score_maps: (N, H, W), or N maps (H, W), with values in [0, 1].
        masks: as many masks of the same sizes: 1 or True on the object, 0 elsewhere, 255 where a pixel is
            left out of the count.

    Raises:
        CkfrError: maps or masks of another form, named by index; no object pixel in any mask.

    Reference:
        Choe et al., CVPR 2020, eq. (5) and (6).
    """
    return average_precision(pixel_counts(score_maps, masks))


def pixel_counts(score_maps: Maps, masks: Maps) -> np.ndarray:
    """Pixels on the object and elsewhere, by score, (2, 1002): counts of batches may be added up."""
    check_count(score_maps, masks, "score maps", "masks")
    counts = np.zeros((2, len(EDGES) - 1))
    for index, (score_map, mask) in enumerate(zip(score_maps, masks, strict=True)):
        scores = check_map(score_map, index).astype(np.float64)
        truth = check_mask(mask, index, scores.shape)
        counts += [np.histogram(scores[truth == value], bins=EDGES)[0] for value in (1, 0)]
    return counts


def average_precision(counts: np.ndarray) -> float:
    """``pxap`` from ``pixel_counts``."""
    inside, outside = counts[:, ::-1].cumsum(axis=1)  # at falling thresholds
    if not inside[-1]:
        raise CkfrError("No mask marks any object pixel, so recall has no meaning; expected at least one.")
    gain = np.diff(inside / inside[-1])
    some = gain > 0
    return float((inside / np.maximum(inside + outside, 1))[1:][some] @ gain[some])

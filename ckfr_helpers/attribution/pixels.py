"""Pixel scores of score maps against masks: the precision-recall curve and PxAP."""

import numpy as np

from ckfr_helpers.attribution.inputs import Maps, check_count, check_map, check_mask
from ckfr_helpers.runtime import CkfrError

EDGES = np.append(np.arange(0, 1, 0.001), [1.0, 2.0, 3.0])  # the public evaluation's bins


def precision_recall(score_maps: Maps, masks: Maps) -> tuple[np.ndarray, np.ndarray]:
    """Pixel precision and recall at falling score thresholds, all images' pixels pooled, two (1002,) arrays.

    Args:
        score_maps: (N, H, W), or N maps (H, W), with values in [0, 1].
        masks: as many masks of the same sizes: 1 or True on the object, 0 elsewhere, 255 where a pixel is
            left out of the count.

    Returns:
        Precision (NaN where nothing is predicted) and recall, at score ≥ 2, ≥ 1, ≥ 0.999, … ≥ 0: the bins of
        the public evaluation.
    """
    return _curve(pixel_counts(score_maps, masks))


def pxap(score_maps: Maps, masks: Maps) -> float:
    """Pixel average precision: area under the pooled pixel precision-recall curve, in [0, 1].

    No box and no threshold to choose; needs masks. Arguments and errors as for ``precision_recall``.

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
    precision, recall = _curve(counts)
    gain = np.diff(recall)
    return float(precision[1:][gain > 0] @ gain[gain > 0])


def _curve(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    inside, outside = counts
    if not inside.sum():
        raise CkfrError("No mask marks any object pixel, so recall has no meaning; expected at least one.")
    hits, wrong = inside[::-1].cumsum(), outside[::-1].cumsum()
    with np.errstate(invalid="ignore"):
        return hits / (hits + wrong), hits / inside.sum()

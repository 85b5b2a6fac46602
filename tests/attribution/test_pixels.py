"""Pixel average precision against a literal loop and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from ckfr_helpers import localization as loc
from ckfr_helpers.runtime import CkfrError


def literal_pxap(score_maps, masks):
    """Threshold all pixels at every bin edge; area under precision over recall, right-hand rule."""
    scores, truth = (
        np.concatenate([m.ravel() for m in score_maps]),
        np.concatenate([m.ravel() for m in masks]),
    )
    scores, truth = scores[truth != 255], truth[truth != 255] == 1
    area, before = 0.0, 0.0
    for threshold in [1.0, *np.arange(0, 1, 0.001)[::-1]]:
        chosen = scores >= threshold
        if chosen.any():
            recall = truth[chosen].sum() / truth.sum()
            area += truth[chosen].mean() * (recall - before)
            before = recall
    return area


def test_pxap_against_a_literal_loop_and_sklearn():
    draw = np.random.default_rng(0)
    maps = np.stack([np.sort(draw.random((16, 20)), axis=seed % 2) for seed in range(3)])
    masks = (maps + draw.normal(0, 0.3, maps.shape) > 0.6).astype(np.uint8)
    masks[draw.random(masks.shape) < 0.1] = 255
    assert loc.pxap(maps, masks) == pytest.approx(literal_pxap(maps, masks), abs=1e-12)
    # Scores on the grid of thresholds lose nothing by binning, so sklearn's average precision is the same.
    coarse = np.arange(0, 1, 0.001)[(maps * 999).astype(int)]
    kept = masks != 255
    expected = average_precision_score(masks[kept] == 1, coarse[kept])
    assert loc.pxap(coarse, masks) == pytest.approx(expected, abs=1e-12)
    assert loc.pxap(masks[:1] % 255 * 1.0, masks[:1] == 1) == 1  # the mask itself, as a map


def test_pxap_complaints():
    maps = np.zeros((2, 4, 5))
    with pytest.raises(CkfrError, match="No mask marks any object"):
        loc.pxap(maps, np.zeros((2, 4, 5), bool))
    with pytest.raises(CkfrError, match=r"Mask 0 has shape \(5, 4\); expected \(4, 5\)"):
        loc.pxap(maps, np.ones((2, 5, 4), bool))
    with pytest.raises(CkfrError, match="Mask 1 holds values other"):
        loc.pxap(maps, [np.ones((4, 5)), np.full((4, 5), 7)])
    with pytest.raises(CkfrError, match="2 score maps but 1 masks"):
        loc.pxap(maps, np.ones((1, 4, 5)))

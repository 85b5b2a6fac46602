"""Measures against an object mask: by hand, by brute force, and against their baselines."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ckfr_helpers.attribution import energy as attention
from ckfr_helpers.localization import centre_map
from ckfr_helpers.runtime import CkfrError

MASK = np.zeros((6, 8), bool)
MASK[2:4, 3:6] = True


def test_energy_by_hand():
    scores = np.zeros((6, 8))
    scores[2, 3], scores[0, 0], scores[5, 7] = 3, 1, -5
    ignored = MASK.astype(np.uint8)
    ignored[0, 0] = 255
    shares = attention.energy_in_mask([scores, scores, -1.0 * MASK, MASK], [MASK, ignored, MASK, MASK])
    assert shares.tolist() == [0.75, 1, 0, 1]
    assert attention.energy_in_mask(torch.from_numpy(scores)[None], torch.from_numpy(MASK)[None]) == 0.75


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 100))
def test_energy_shares_add_up_and_ignore_scale(seed, scale):
    draw = np.random.default_rng(seed)
    scores, mask = draw.normal(size=(1, 6, 8)), draw.random((1, 6, 8)) < 0.5
    mask[0, 0, :2] = True, False
    inside, outside = attention.energy_in_mask(scores, mask)[0], attention.energy_in_mask(scores, ~mask)[0]
    assert inside + outside == pytest.approx(1)
    assert attention.energy_in_mask(scores * scale, mask)[0] == pytest.approx(inside)


def test_a_uniform_map_scores_the_objects_share():
    masks = np.stack([MASK, ~MASK])
    shares = attention.uniform_energy(masks)
    assert shares.tolist() == [6 / 48, 42 / 48]
    assert attention.energy_in_mask(np.ones((2, 6, 8)), masks) == pytest.approx(shares)


def test_pointing_by_hand():
    scores = np.zeros((6, 8))
    scores[0, 0] = 1  # the object's nearest pixel is (2, 3), √13 = 3.606 away
    maps = [scores, scores, MASK * 1.0, np.ones((6, 8)), np.zeros((6, 8))]
    assert attention.pointing_game(maps[:1], [MASK], 3.6).tolist() == [False]
    assert attention.pointing_game(maps[:1], [MASK], 3.61).tolist() == [True]
    assert attention.pointing_game(maps, [MASK] * 5, 0).tolist() == [False, False, True, False, False]
    assert attention.pointing_game(maps[3:], [MASK] * 2).tolist() == [False, False]  # flat: points nowhere
    assert attention.pointing_game([centre_map(6, 8)], [MASK], 0).tolist() == [True]
    left_out = MASK.astype(np.uint8)
    left_out[0, 0] = 255  # the highest pixel does not compete, and then the rest is flat
    assert attention.pointing_game([scores, scores + MASK / 2], [left_out] * 2, 0).tolist() == [False, True]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), tolerance=st.floats(0, 6))
@example(seed=0, tolerance=0.99999)
@example(seed=3, tolerance=5**0.5)
def test_random_points_hit_as_often_as_pointing_at_every_pixel(seed, tolerance):
    mask = np.random.default_rng(seed).random((7, 9)) < 0.08
    mask[3, 4] = True
    points = np.eye(63).reshape(63, 7, 9)  # one map per pixel
    hits = attention.pointing_game(points, [mask] * 63, tolerance)
    assert attention.random_point_hits([mask], tolerance)[0] == pytest.approx(hits.mean())
    ignored = mask.astype(np.uint8)
    ignored[:3] = 255  # a point that is left out can neither hit nor miss
    counted = np.flatnonzero(ignored != 255)
    hits = attention.pointing_game(points[counted], [ignored] * len(counted), tolerance)
    assert attention.random_point_hits([ignored], tolerance)[0] == pytest.approx(hits.mean())


def test_background_swap_by_hand():
    result = attention.background_swap([0, 1, 2, 3], torch.tensor([0, 2, 2, 1]), np.array([0, 1, 1, 3]))
    assert result["usual"].tolist() == [1, 1, 0, 1]
    assert result["foreign"].tolist() == [1, 0, 0, 0]
    assert result["drop"].tolist() == [0, 1, 0, 1]
    with pytest.raises(CkfrError, match=r"shapes \(2,\), \(3,\), \(2,\)"):
        attention.background_swap([0, 1], [0, 1, 2], [0, 1])


@pytest.mark.parametrize("measure", [attention.energy_in_mask, attention.pointing_game])
def test_bad_input_gets_one_sentence(measure):
    good = np.ones((6, 8))
    with pytest.raises(CkfrError, match="Score map 1 holds NaN"):
        measure([good, good * np.nan], [MASK, MASK])
    with pytest.raises(CkfrError, match=r"Mask 0 has shape \(8, 6\); expected \(6, 8\)"):
        measure([good], [MASK.T])
    with pytest.raises(CkfrError, match="Mask 0 marks no object pixel"):
        measure([good], [MASK & False])
    with pytest.raises(CkfrError, match="2 score maps but 1 masks"):
        measure([good, good], [MASK])
    with pytest.raises(CkfrError, match=r"Score map 0 has shape \(48,\)"):
        measure([good.ravel()], [MASK])
    with pytest.raises(CkfrError, match="tolerance is -1"):
        attention.pointing_game([good], [MASK], -1)

"""Baselines that never look at the image."""

import numpy as np
import pytest

from ckfr_helpers import localization as loc
from ckfr_helpers.runtime import CkfrError


def test_baselines():
    centre = loc.centre_map(40, 60)
    assert centre.max() == 1
    assert np.array_equal(centre, centre[::-1, ::-1])
    assert loc.centre_box(40, 60).tolist() == [0, 0, 59, 39]
    assert loc.centre_box(40, 60, 0.5).tolist() == [15, 10, 44, 29]
    boxes = [np.array([[0, 0, 59, 39]]), np.array([[0, 0, 29, 39]]), np.array([[0, 0, 2, 2]])]
    assert loc.box_acc(loc.centre_box(40, 60), boxes).tolist() == pytest.approx([2 / 3, 2 / 3, 1 / 3])
    found = loc.max_box_acc(loc.centre_map(40, 60)[None], [loc.centre_box(40, 60, 0.5)], (0.3,))
    assert found.mean == 1
    with pytest.raises(CkfrError, match="side of a centre box is 0"):
        loc.centre_box(4, 4, 0)

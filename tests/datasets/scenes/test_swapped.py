"""The same scenes in another kind of place."""

import pytest
import torch
from drawn_scenes import scenes

from ckfr_helpers.datasets.scenes.swapped import OnBackground
from ckfr_helpers.runtime import CkfrError


def test_the_same_cutout_on_two_backgrounds():
    source = scenes("test", scenes=12, seed=1)
    usual, foreign = OnBackground(source, "usual"), OnBackground(source, "foreign")
    assert len(usual) == len(foreign) == 12
    for i in range(12):
        assert torch.equal(usual[i][1]["masks"], foreign[i][1]["masks"])
        assert usual[i][1]["label"] == source.labels[i]
        assert not torch.equal(usual[i][0], foreign[i][0])
        assert torch.equal(usual[i][0], source.scene(i, source.usual[source.labels[i]])[0])
    with pytest.raises(CkfrError, match="no background"):
        OnBackground(source, "moon")

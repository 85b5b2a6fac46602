"""Parts of a source keep labels and pictures together, and splits are stratified."""

import numpy as np
import pytest
import torch
from flat_colours import FlatColours

from ckfr_helpers.datasets.subset import Part, balanced
from ckfr_helpers.runtime import CkfrError


def test_balanced_takes_as_many_of_each_class_and_keeps_labels_with_pictures():
    source = FlatColours(per_class=8)
    part = balanced(source, 4)
    assert np.bincount(part.labels).tolist() == [4, 4, 4, 4]
    assert len(set(part.indices)) == 16
    for i, (image, target) in enumerate(part):
        assert torch.equal(image, source[part.indices[i]][0])
        assert target["label"] == part.labels[i] == part.indices[i] % 4
        assert part.where(i) == f"example {part.indices[i]} of flat-colours train"
    assert (balanced(source, 4).indices == part.indices).all()
    assert (balanced(source, 4, seed=1).indices != part.indices).any()
    assert part.fingerprint() != balanced(source, 4, seed=1).fingerprint()


def test_too_few_or_outside_is_said():
    with pytest.raises(CkfrError, match="'red' has 8 examples in train; expected 9"):
        balanced(FlatColours(per_class=8), 9)
    with pytest.raises(CkfrError, match="0 to 31"):
        Part(FlatColours(per_class=8), [32])

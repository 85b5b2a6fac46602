"""Parts of a source keep labels and pictures together."""

import numpy as np
import pytest
import torch

from ckfr_helpers.datasets.base import ImageSource, make_example
from ckfr_helpers.datasets.subset import Part, balanced
from ckfr_helpers.hierarchy import Hierarchy
from ckfr_helpers.runtime import CkfrError


class Numbers(ImageSource):
    name, split = "numbers", "train"
    hierarchy = Hierarchy.from_nested({"root": ["a", "b", "c"]})
    labels = np.arange(30) % 3

    def __getitem__(self, index):
        return make_example(torch.full((3, 2, 2), index, dtype=torch.uint8), self.labels[index])


def test_balanced_takes_as_many_of_each_class_and_keeps_labels_with_pictures():
    part = balanced(Numbers(), 4)
    assert np.bincount(part.labels).tolist() == [4, 4, 4]
    assert len(set(part.indices)) == 12
    for i in range(len(part)):
        assert int(part[i][0][0, 0, 0]) == part.indices[i]
        assert part[i][1]["label"] == part.labels[i] == part.indices[i] % 3
    assert (balanced(Numbers(), 4).indices == part.indices).all()
    assert (balanced(Numbers(), 4, seed=1).indices != part.indices).any()


def test_too_few_or_outside_is_said():
    with pytest.raises(CkfrError, match="'a' has 10 examples"):
        balanced(Numbers(), 11)
    with pytest.raises(CkfrError, match="0 to 29"):
        Part(Numbers(), [30])

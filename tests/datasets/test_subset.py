"""Parts keep labels and pictures together, and a validation set takes its share of every class."""

import numpy as np
import pytest
import torch
from flat_colours import FlatColours

from ckfr_helpers.datasets.subset import balanced, carve_validation
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


def test_too_few_is_said():
    with pytest.raises(CkfrError, match="'red' has 8 examples in train, not 9"):
        balanced(FlatColours(per_class=8), 9)


def test_carving_takes_the_same_share_of_every_class():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(5), [10, 20, 30, 40, 50]))
    train, val = carve_validation(labels, 0.1, seed=3)
    assert sorted([*train, *val]) == list(range(150))
    assert np.bincount(labels[val]).tolist() == [1, 2, 3, 4, 5]
    assert np.array_equal(val, carve_validation(labels, 0.1, seed=3)[1])
    assert not np.array_equal(val, carve_validation(labels, 0.1, seed=4)[1])


def test_carving_one_class_does_not_depend_on_the_others():
    labels = np.repeat(np.arange(3), 40)
    _, every = carve_validation(labels, 0.25)
    _, alone = carve_validation(labels[:40], 0.25)
    assert np.array_equal(every[every < 40], alone)


def test_carving_nothing_and_too_much():
    labels = np.array([0, 0, 1])
    train, val = carve_validation(labels, 0)
    assert train.tolist() == [0, 1, 2]
    assert len(val) == 0
    with pytest.raises(CkfrError, match="Class 1 has 1 example"):
        carve_validation(labels, 0.1)
    with pytest.raises(CkfrError, match="Class owl has 1 example"):
        carve_validation(labels, 0.1, classes=["cat", "owl"])
    for fraction in (-0.1, 1, 1.5, "half", None, True):
        with pytest.raises(CkfrError, match="at least 0 and below 1"):
            carve_validation(labels, fraction)

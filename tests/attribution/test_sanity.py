"""Randomised weights: what changes, what stays, and how alike two maps are."""

import copy

import numpy as np
import pytest
import torch
from scipy import stats

from ckfr_helpers.attribution.sanity import map_similarity, randomised
from ckfr_helpers.models import build_model
from ckfr_helpers.runtime import CkfrError


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model("resnet18", 5, pretrained=False).eval()


def test_only_the_named_stages_change(model):
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(3)
    broken = randomised(model, 2)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1)), "the caller's random numbers are its own"
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    for index, (old, new) in enumerate(zip(model.stages, broken.stages, strict=True)):
        same = all(torch.equal(a, b) for a, b in zip(old.parameters(), new.parameters(), strict=True))
        assert same == (index < len(model.stages) - 2)
    assert not torch.equal(model.classifier.weight, broken.classifier.weight)


def test_a_seed_gives_the_same_weights_and_another_seed_others(model):
    one, again, other = (randomised(model, 0, seed) for seed in (1, 1, 2))
    assert torch.equal(one.classifier.weight, again.classifier.weight)
    assert not torch.equal(one.classifier.weight, other.classifier.weight)


def test_everything_random_still_gives_finite_and_different_features(model):
    pictures = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = randomised(model, len(model.stages)).features(pictures)
    assert features.isfinite().all()
    assert features.std() > 1e-3


@pytest.mark.parametrize("stages", [-1, 99])
def test_a_number_of_stages_that_does_not_exist(model, stages):
    with pytest.raises(CkfrError, match="stages"):
        randomised(model, stages)


def test_similarity_is_spearmans_and_zero_for_flat_maps():
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(2, 4, 7, 7))
    second[3] = 1.5
    found = map_similarity(first, torch.from_numpy(second))
    for i in range(3):
        expected = stats.spearmanr(first[i].ravel(), second[i].ravel()).statistic
        assert found[i] == pytest.approx(expected)
    assert found[3] == 0
    assert map_similarity(first, np.exp(first)) == pytest.approx(np.ones(4))
    with pytest.raises(CkfrError, match="shapes"):
        map_similarity(first, second[:2])

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


def test_a_seed_gives_the_same_weights_another_seed_others_and_features_stay_finite(model):
    one, again, other = (randomised(model, len(model.stages), seed) for seed in (1, 1, 2))
    pictures = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = [each.features(pictures) for each in (one, again, other)]
    assert torch.equal(features[0], features[1])
    assert not torch.allclose(features[0], features[2])
    assert features[0].isfinite().all()
    assert features[0].std() > 1e-3
    with pytest.raises(CkfrError, match=r"Cannot randomise 99 stages; resnet18 has 0 to \d"):
        randomised(model, 99)


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

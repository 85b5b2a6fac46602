"""Cached features: what the trunk gives, row by row, under a name that stands for their content."""

import pytest
import torch
from torch import nn

from ckfr_helpers.models import build_model, cache_features, feature_key
from ckfr_helpers.runtime import CkfrError


def batches(n: int = 10, size: int = 64) -> list[tuple[torch.Tensor, dict, torch.Tensor]]:
    """10 pictures in batches of 4, 4 and 2, in no order."""
    images = torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    return [(images[rows], {"label": rows % 3}, rows) for rows in order.split(4)]


@pytest.mark.parametrize(
    ("name", "stage", "size"), [("efficientnet_lite0", 3, 64), ("vit_tiny_patch16_224", 1, 224)]
)
def test_rows_are_what_the_trunk_gives_and_modes_come_back(name, stage, size):
    trunk, _ = build_model(name, 5, pretrained=False).train().freeze(1).split(stage)
    modes = [module.training for module in trunk.modules()]
    loader = batches(size=size)
    kept = cache_features(trunk, loader, dtype=torch.float32, progress=False)
    assert [module.training for module in trunk.modules()] == modes
    assert kept.indices.tolist() == torch.cat([rows for *_, rows in loader]).tolist()
    assert torch.equal(kept.labels, kept.indices % 3)
    with torch.no_grad():
        expected = trunk.eval()(torch.cat([images for images, *_ in loader]))
    torch.testing.assert_close(kept.features, expected, rtol=1e-3, atol=1e-4)
    half = cache_features(trunk, loader, progress=False)
    assert half.features.dtype == torch.float16
    torch.testing.assert_close(half.features.float(), expected, rtol=5e-3, atol=5e-3)


def test_other_tensors_of_the_targets_stay_with_their_rows():
    loader = [
        (images, {**targets, "labels": rows[:, None] * 2.0, "texts": ["a"] * len(rows)}, rows)
        for images, targets, rows in batches(size=4)
    ]
    kept = cache_features(nn.Identity(), loader, progress=False)
    assert list(kept.targets) == ["labels"]
    assert torch.equal(kept.targets["labels"][:, 0], kept.indices * 2.0)


def test_the_key_is_the_content():
    trunk = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    same = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    same.load_state_dict(trunk.state_dict())
    key = feature_key(trunk, source="a1", size=160)
    assert feature_key(same, size=160, source="a1") == key
    assert (
        len({key, feature_key(trunk, source="a1", size=128), feature_key(trunk, source="b2", size=160)}) == 3
    )
    assert feature_key(trunk[:2], source="a1", size=160) != key  # another stage, equal weights
    with torch.no_grad():
        same[0].weight[0, 0, 0, 0] += 1e-6
    assert feature_key(same, source="a1", size=160) != key
    assert feature_key(trunk.bfloat16(), source="a1", size=160) != key


def test_what_cannot_be_kept_gets_one_sentence():
    with pytest.raises(CkfrError, match=r"does not fit torch.float16.*float32"):
        cache_features(nn.Sequential(), [(torch.full((1, 2), 1e6), {}, torch.arange(1))], progress=False)
    with pytest.raises(CkfrError, match="gave no batch"):
        cache_features(nn.Identity(), [], progress=False)

"""Descriptors: against loops written out and scikit-learn, and what must leave them as they are."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from torch import Tensor

from ckfr_helpers import retrieval
from ckfr_helpers.retrieval.descriptors import (
    aggregate,
    class_maps,
    describe,
    describe_classes,
    describe_maps,
    fit_whitening,
)
from ckfr_helpers.retrieval.pooling import region_maxima
from ckfr_helpers.runtime import CkfrError

METHODS = ("spoc", "mac", "gem", "crow", "rmac")


def drawn(seed: int = 0, size: tuple[int, ...] = (3, 7, 5, 4), signed: bool = True) -> Tensor:
    features = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    return features if signed else features.relu()


WEIGHT = drawn(1, (6, 7))


def unit(vector: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vector)
    return vector / length if length else vector


def looped_vectors(features: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """The source's loop for one picture: classes, channels."""
    return np.array([[(channel * one).sum() for channel in features] for one in maps])


def looped_weights(features: np.ndarray) -> np.ndarray:
    shares = [np.mean(channel > 0) for channel in features]
    return np.array([np.log(sum(shares) / share) if share > 0 else 0.0 for share in shares])


@pytest.mark.parametrize("signed", [True, False])
def test_pooling_and_channel_weights_are_those_of_the_loop(signed):
    features, maps = drawn(signed=signed).double(), drawn(2, (3, 4, 5, 4)).double()
    features[1, 2] = -1  # never positive
    features[2] = 0
    vectors = retrieval.class_weighted_descriptors(features, maps)
    weights = retrieval.channel_weights(features)
    assert vectors.shape == (3, 4, 7)
    for index, picture in enumerate(features.numpy()):
        np.testing.assert_allclose(vectors[index], looped_vectors(picture, maps[index].numpy()), atol=1e-12)
        np.testing.assert_allclose(weights[index], looped_weights(picture), atol=1e-12)
    assert weights[1, 2] == 0
    assert weights[2].tolist() == [0] * 7


def test_maps_are_the_classifier_at_each_place():
    features, classes = drawn(), torch.tensor([[5, 0], [1, 1], [2, 4]])
    maps = class_maps(features, WEIGHT, classes)
    for picture in range(3):
        for number in range(2):
            raw = sum(WEIGHT[classes[picture, number], k] * features[picture, k] for k in range(7))
            assert torch.allclose(maps[picture, number], raw.clamp(min=0) / raw.max(), atol=1e-6)
    assert torch.equal(maps.amax((2, 3)), torch.ones(3, 2))
    online = class_maps(features, WEIGHT, torch.tensor([1, 1]))  # the same classes for every picture
    assert torch.allclose(online[1], maps[1], atol=1e-6)
    assert online.shape == (3, 2, 5, 4)


def test_a_map_without_a_positive_place_is_zero_not_turned_around():
    features = drawn(signed=False) + 0.1
    weight = torch.stack([-torch.ones(7), torch.ones(7), torch.zeros(7)])
    maps = class_maps(features, weight, torch.tensor([0, 1, 2]))
    assert maps[:, [0, 2]].abs().max() == 0
    whitening = fit_whitening(drawn(5, (40, 7)), 3)
    for white in (None, whitening):
        alone = describe_classes(features, weight, torch.tensor([1]), whitening=white)
        three = describe_classes(features, weight, torch.tensor([0, 1, 2]), whitening=white)
        assert torch.allclose(three, alone, atol=1e-6)
        nothing = describe_classes(features, weight, torch.tensor([0, 2]), whitening=white)
        assert nothing.shape == alone.shape
        assert nothing.abs().max() == 0


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("dimension", [None, 3])
def test_class_descriptor_step_by_step(weighted, dimension):
    features, classes = drawn(), torch.tensor([[5, 0], [1, 3], [2, 4]])
    whitening = None if dimension is None else PCA(dimension, whiten=True).fit(drawn(5, (40, 7)).numpy())
    found = describe_classes(features, WEIGHT, classes, weighted=weighted, whitening=whitening)
    maps = class_maps(features, WEIGHT, classes)
    for picture, row in enumerate(found):
        vectors = looped_vectors(features[picture].numpy(), maps[picture].numpy())
        if weighted:
            vectors = vectors * looped_weights(features[picture].numpy())
        vectors = np.array([unit(vector) for vector in vectors])
        if whitening is not None:
            vectors = np.array([unit(vector) for vector in whitening.transform(vectors)])
        np.testing.assert_allclose(row, unit(vectors.sum(0)), atol=1e-5)
    assert found.dtype == torch.float32
    assert torch.equal(found, describe_maps(features, maps, weighted=weighted, whitening=whitening))


def regions_of_the_publication(features: np.ndarray) -> list[np.ndarray]:
    """R-MAC's maxima as the authors' code finds its squares, for a map that is not higher than wide."""
    _, height, width = features.shape
    steps = np.arange(2, 8)
    gap = (width - height) / (steps - 1)
    more = 1 + int(np.argmin(abs((height**2 - height * gap) / height**2 - 0.4))) if width > height else 0
    found = []
    for level in (1, 2, 3):
        side = int(np.floor(2 * height / (level + 1)))
        half = np.floor(side / 2 - 1)
        across, down = level + more - 1, level - 1
        step_x = (width - side) / across if across else 0
        step_y = (height - side) / down if down else 0
        lefts = [int(np.floor(half + i * step_x) - half) for i in range(across + 1)]
        tops = [int(np.floor(half + i * step_y) - half) for i in range(down + 1)]
        found += [features[:, y : y + side, x : x + side].max((1, 2)) for y in tops for x in lefts]
    return found


@pytest.mark.parametrize("signed", [True, False])
def test_poolings_by_their_formulas(signed):
    features = drawn(size=(2, 7, 6, 6), signed=signed)
    for picture, x in enumerate(features.numpy().astype(np.float64)):
        sums = x.sum(0).clip(0)
        places = np.sqrt(sums / np.sqrt((sums**2).sum()))
        expected = {
            "spoc": x.mean((1, 2)),
            "mac": x.max((1, 2)),
            "gem": (x.clip(1e-6) ** 3).mean((1, 2)) ** (1 / 3),
            "crow": (x * places).sum((1, 2)) * looped_weights(x),
            "rmac": sum(unit(region) for region in regions_of_the_publication(x)),
        }
        for method in METHODS:
            found = describe(features, method)[picture]
            np.testing.assert_allclose(found, unit(expected[method]), atol=2e-5, err_msg=method)


@pytest.mark.parametrize(("height", "width"), [(14, 14), (6, 9), (7, 8), (5, 23), (23, 32)])
def test_regions_are_the_publications(height, width):
    features = drawn(3, (1, 4, height, width))
    found = region_maxima(features)[0].numpy()
    np.testing.assert_array_equal(found, regions_of_the_publication(features[0].numpy()))
    turned = region_maxima(features.mT)[0].numpy()  # the same squares, in another order
    assert sorted(turned.tolist()) == sorted(found.tolist())


def test_limits_that_the_poolings_share():
    features = drawn(size=(2, 7, 6, 6), signed=False)
    mac = describe(features, "mac")
    assert torch.allclose(region_maxima(features, levels=1)[:, 0], features.amax((2, 3)))
    assert torch.allclose(describe(features, "gem", power=1), describe(features, "spoc"), atol=1e-6)
    assert torch.allclose(describe(features, "gem", power=5000), mac, atol=2e-3)
    flat = torch.rand(2, 7, 1, 1).expand(2, 7, 6, 9)
    for method in ("spoc", "mac", "gem", "rmac"):
        assert torch.allclose(describe(flat, method), describe(flat, "mac"), atol=1e-6)
    assert describe(features[..., :1, :1], "rmac").shape == (2, 7)


def test_region_whitening_acts_on_each_region():
    features, whitening = drawn(), fit_whitening(drawn(5, (40, 7)), 3)
    regions = torch.nn.functional.normalize(region_maxima(features), dim=2)
    rows = [sum(unit(row) for row in whitening.transform(picture.numpy())) for picture in regions]
    found = describe(features, "rmac", whitening=whitening)
    np.testing.assert_allclose(found, [unit(row) for row in rows], atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e3), signed=st.booleans())
def test_scale_order_of_places_and_repeated_classes_change_nothing(seed, scale, signed):
    features, weight = drawn(seed, signed=signed), drawn(seed + 1, (6, 7))
    classes = torch.tensor([0, 2, 5])
    order = torch.randperm(20, generator=torch.Generator().manual_seed(seed))
    mixed = features.flatten(2)[..., order].unflatten(2, (5, 4))
    found = describe_classes(features, weight, classes)
    lengths = found.norm(dim=1)
    assert ((lengths - 1).abs() < 1e-5).logical_or(lengths == 0).all()
    for other in (
        describe_classes(features * scale, weight * scale, classes),
        describe_classes(mixed, weight, classes.flip(0)),
        describe_classes(features, weight, classes.repeat(2)),
        describe_classes(features, weight, classes.expand(3, 3)),
    ):
        assert torch.allclose(found, other, atol=1e-4)
    for method in METHODS:
        found = describe(features, method)
        assert torch.allclose(found, describe(features * scale, method), atol=1e-4)
        if method != "rmac":
            assert torch.allclose(found, describe(mixed, method), atol=1e-4)


def test_whitening_is_scikit_learns():
    vectors = drawn(4, (50, 7)) * torch.arange(1, 8)
    found = fit_whitening(torch.cat([vectors, torch.zeros(9, 7)]), 4)
    reference = PCA(4, whiten=True, svd_solver="full").fit(vectors.double().numpy())
    white = found.transform(vectors.numpy())
    np.testing.assert_allclose(white, reference.transform(vectors.numpy()), rtol=1e-5)
    np.testing.assert_allclose(np.cov(white.T), np.eye(4), atol=1e-5)
    turned = fit_whitening(vectors, 4, shrinkage=1).transform(vectors.numpy())
    plain = PCA(4, svd_solver="full").fit_transform(vectors.double().numpy())
    np.testing.assert_allclose(turned / np.linalg.norm(turned), plain / np.linalg.norm(plain), atol=1e-6)
    half, variances = fit_whitening(vectors, 4, shrinkage=0.5), reference.explained_variance_
    np.testing.assert_allclose(half.explained_variance_, (variances + variances.mean()) / 2)


def test_nothing_to_pool_is_zero():
    nothing, whitening = torch.zeros(2, 7, 5, 4), fit_whitening(drawn(5, (40, 7)), 3)
    for method in METHODS:
        assert describe(nothing, method, whitening=whitening).tolist() == [[0.0] * 3] * 2
    assert describe(nothing - 1, "gem").abs().max() == 0
    assert describe(nothing - 1, "crow").abs().max() == 0


def test_inputs_are_left_alone_and_half_precision_is_read():
    features = drawn().requires_grad_()
    before = features.detach().clone()
    assert not describe_classes(features, WEIGHT.requires_grad_(), torch.tensor([0, 1])).requires_grad
    WEIGHT.requires_grad_(False)
    for method in METHODS:
        assert not describe(features, method).requires_grad
    assert torch.equal(features, before)
    half = describe(before.half(), "gem")
    assert half.dtype == torch.float32
    assert torch.allclose(half, describe(before, "gem"), atol=2e-3)


def test_bad_input_gets_one_sentence():
    features, whitening = drawn(), fit_whitening(drawn(5, (40, 9)), 3)
    broken = features.clone()
    broken[1, 2, 3, 0] = torch.nan
    for call in (
        lambda: describe(broken, "spoc"),
        lambda: retrieval.channel_weights(broken),
        lambda: class_maps(broken, WEIGHT, torch.tensor([0])),
    ):
        with pytest.raises(CkfrError, match="features hold NaN"):
            call()
    with pytest.raises(CkfrError, match=r"expected floating-point \(B, C, H, W\)"):
        describe(features[0], "spoc")
    with pytest.raises(CkfrError, match=r"shape \(3, 2, 4, 5\)"):
        retrieval.class_weighted_descriptors(features, drawn(0, (3, 2, 4, 5)))
    with pytest.raises(CkfrError, match="expected one of spoc, mac, gem, crow, rmac"):
        describe(features, "vlad")
    with pytest.raises(CkfrError, match="power is 0"):
        describe(features, "gem", power=0)
    with pytest.raises(CkfrError, match=r"Classes run from 0 to 6; expected 0 to 5"):
        class_maps(features, WEIGHT, torch.tensor([0, 6]))
    with pytest.raises(CkfrError, match=r"\(2, 1\) for 3 pictures"):
        class_maps(features, WEIGHT, torch.tensor([[0], [1]]))
    with pytest.raises(CkfrError, match="features of 7 channels"):
        class_maps(features, WEIGHT.T, torch.tensor([0]))
    with pytest.raises(CkfrError, match="vectors of 9 numbers, these have 7"):
        aggregate(drawn(0, (2, 3, 7)), whitening)
    for sample, dimension, most in [
        (drawn(0, (5, 7)), 5, 4),
        (drawn(0, (50, 7)), 8, 7),
        (drawn(0, (50, 7)), 0, 7),
        (drawn(0, (50, 2)).repeat(1, 3), 3, 2),
    ]:
        with pytest.raises(CkfrError, match=f"expected from 1 to {most}"):
            fit_whitening(sample, dimension)
    with pytest.raises(CkfrError, match=r"shrinkage is 1\.5"):
        fit_whitening(drawn(0, (50, 7)), 2, shrinkage=1.5)

"""Columns that cannot be swapped unseen, borders that are none, and pictures that nothing is known of."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckfr_helpers.contrastive import encode_location
from ckfr_helpers.contrastive.metadata import MetadataEncoder, Projection, is_known
from ckfr_helpers.runtime import CkfrError

NAN = float("nan")
SOME = encode_location([10.0, 20.0, NAN, NAN], [5.0, -70.0, NAN, NAN], [0.1, NAN, 0.9, NAN])


def test_the_encoding_is_sines_then_cosines_of_three_named_columns():
    longitude, latitude, date = np.array([-120.0, 33.5]), np.array([45.0, -89.0]), np.array([0.0, 0.75])
    found = encode_location(longitude=longitude, latitude=latitude, date=date)
    x = np.pi * np.stack([longitude / 180, latitude / 90, 2 * date - 1], 1)
    np.testing.assert_allclose(found, np.concatenate([np.sin(x), np.cos(x)], 1), rtol=0, atol=1e-15)
    single = torch.tensor([1.0])
    assert encode_location(single, single, 0 * single).dtype == torch.float32
    assert encode_location([1], [2], [0]).shape == (1, 6)


@given(
    longitude=st.floats(-180, 180),
    latitude=st.floats(-90, 90),
    date=st.floats(0, 1, exclude_max=True),
)
def test_every_pair_lies_on_its_circle_and_the_date_line_is_no_border(longitude, latitude, date):
    here = encode_location(np.array([longitude]), np.array([latitude]), np.array([date]))[0]
    assert torch.allclose(here[:3].square() + here[3:].square(), torch.ones(3, dtype=torch.float64))
    turned = np.array([longitude - 360 if longitude >= 0 else longitude + 360])
    if abs(turned[0]) <= 180:
        assert torch.allclose(encode_location(turned, np.array([latitude]), np.array([date]))[0], here)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (([0.0, 181.0], [0.0, 0.0], [0.0, 0.0]), "longitude of example 1 is 181; expected degrees from -180"),
        (([40.0], [-120.0], [0.5]), "latitude of example 0 is -120; .*are columns swapped"),
        (([40.0], [12.0], [1.0]), "date of example 0 is 1; expected a share of the year"),
        (([0.3], [12.0], [-40.0]), "date of example 0 is -40"),
        (([0.3, 0.2], [12.0], [0.1]), r"shapes \[\(2,\), \(1,\), \(1,\)\]; expected \(N,\)"),
        (([float("inf")], [12.0], [0.1]), "longitude of example 0 is inf"),
        ((["west"], [12.0], [0.1]), "longitude is no column of numbers .*could not convert"),
    ],
)
def test_bad_columns_are_one_sentence(values, sentence):
    with pytest.raises(CkfrError, match=sentence):
        encode_location(*values)


def test_what_is_not_known_stays_nan_and_is_known_row_by_row():
    assert SOME.isnan().tolist()[1] == [False, False, True] * 2
    assert is_known(SOME).tolist() == [True, True, True, False]


def test_the_network_is_that_of_the_prior():
    network = MetadataEncoder()
    sizes = [tuple(layer.weight.shape) for layer in network.modules() if isinstance(layer, torch.nn.Linear)]
    assert sizes == [(256, 6)] + 8 * [(256, 256)]
    small = MetadataEncoder(width=4, blocks=1).eval()
    first, (w1, _, _, w2, _) = small.first[0], small.blocks[0].layers
    state = first(SOME[:1]).relu()
    expected = state + w2(w1(state).relu()).relu()
    assert torch.allclose(small(SOME[:1]), expected)


def test_pictures_without_metadata_stay_and_can_be_learnt_from():
    learnt, zero = (MetadataEncoder(8, 1, missing=missing) for missing in ("learnt", "zero"))
    found = learnt(SOME)
    assert found.shape == (4, 8)
    assert torch.equal(found[3], learnt.unknown)
    assert not torch.equal(found[2], learnt.unknown)
    assert not zero(SOME)[3].any()
    found.sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in learnt.parameters())
    assert (learnt.unknown.grad == 1).all()
    with pytest.raises(CkfrError, match="missing is 'drop'; expected 'learnt' or 'zero'"):
        MetadataEncoder(missing="drop")
    with pytest.raises(CkfrError, match=r"Metadata have shape \(4, 3\); expected \(N, 6\)"):
        learnt(SOME[:, :3])


def test_the_projection_is_its_formula():
    head = Projection(5, width=3).eval()
    features = torch.randn(4, 5)
    state = head.first(features)
    inside = state + head.second[1](torch.nn.functional.gelu(state))
    expected = (inside - inside.mean(1, keepdim=True)) / (
        inside.var(1, correction=0, keepdim=True) + 1e-5
    ).sqrt()
    assert torch.allclose(head(features), expected, atol=1e-6)
    head.train()
    assert head.second[2].p == 0.1

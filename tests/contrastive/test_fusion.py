"""The product rule against Bayes, temperature against a search, calibration against torchmetrics."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_calibration_error

from ckfr_helpers.contrastive import combine
from ckfr_helpers.contrastive.fusion import expected_calibration_error, fit_temperature
from ckfr_helpers.runtime import CkfrError


def drawn(seed=0, rows=400, classes=5):
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (rows,), generator=draw)
    logits = torch.randn(rows, classes, generator=draw, dtype=torch.float64)
    return logits + 2 * torch.nn.functional.one_hot(labels, classes), labels


def test_the_product_is_bayes_rule():
    image, prior = torch.tensor([[0.7, 0.2, 0.1]]).log(), torch.tensor([[0.1, 0.6, 0.3]]).log()
    expected = torch.tensor([[0.07, 0.12, 0.03]]) / 0.22
    assert torch.allclose(combine(image, prior).exp(), expected)
    assert torch.allclose(combine(prior.numpy(), image.tolist()).exp(), expected)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), shift=st.floats(-50, 50))
def test_missing_rows_leave_the_picture_alone_and_shifts_do_not_matter(seed, shift):
    image, prior = (drawn(seed + k, 6)[0].log_softmax(1) for k in (0, 1))
    prior[2], prior[4, 1] = float("nan"), float("nan")
    found = combine(image, prior)
    assert torch.equal(found[[2, 4]], image[[2, 4]])
    known = [0, 1, 3, 5]
    assert torch.allclose(found[known].exp().sum(1), torch.ones(4, dtype=torch.float64))
    assert torch.allclose(combine(image + shift, prior)[known], found[known])
    assert torch.allclose(combine(image, torch.zeros_like(image)), image)


def test_what_cannot_be_combined_is_said():
    never = torch.tensor([[0.0, -torch.inf]])
    with pytest.raises(CkfrError, match="In row 0 picture and prior leave no class"):
        combine(never, never.flip(1))
    with pytest.raises(CkfrError, match="picture's log-probabilities have a NaN in row 0"):
        combine(torch.tensor([[torch.nan, 0.0]]), never)
    with pytest.raises(CkfrError, match=r"shapes \(1, 2\) and \(2, 1\)"):
        combine(never, never.T)


@pytest.mark.parametrize("blown_up", [0.2, 1.0, 7.0])
def test_temperature_scaling_undoes_a_scale(blown_up):
    logits, labels = drawn()
    own = fit_temperature(logits, labels)
    assert fit_temperature(blown_up * logits, labels) == pytest.approx(blown_up * own, rel=1e-3)
    losses = [torch.nn.functional.cross_entropy(logits / t, labels) for t in np.linspace(0.3, 4, 100)]
    assert torch.nn.functional.cross_entropy(logits / own, labels) <= min(losses) + 1e-9


def test_calibration_is_torchmetrics():
    logits, labels = drawn()
    for scale, bins in ((1.0, 15), (4.0, 10)):
        probabilities = (scale * logits).softmax(1)
        expected = multiclass_calibration_error(probabilities, labels, 5, n_bins=bins, norm="l1")
        assert expected_calibration_error(probabilities, labels, bins) == pytest.approx(
            float(expected), abs=1e-6
        )
    assert expected_calibration_error([[1.0, 0.0], [0.0, 1.0]], [0, 0]) == 0.5
    with pytest.raises(CkfrError, match="Probabilities run from -1"):
        expected_calibration_error([[-1.0, 2.0]], [0])
    with pytest.raises(CkfrError, match="2 rows stand beside 1 labels"):
        fit_temperature([[0.0, 1.0], [1.0, 0.0]], [0])

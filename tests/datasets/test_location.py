"""Densities are densities, and agree with SciPy's."""

import numpy as np
import pytest
import torch
from scipy import stats

from ckfr_helpers.datasets.location import check_location, on_sphere, sphere_log_density, year_log_density


def test_points_of_the_sphere():
    found = on_sphere(torch.tensor([0.0, 90.0, 45.0, 180.0]), torch.tensor([0.0, 0.0, 90.0, 0.0]))
    expected = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0]])
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("kappa", [0.5, 20.0, 900.0])
def test_densities_are_scipys(kappa):
    mean, points = np.array([0.0, 0.6, 0.8]), stats.uniform_direction(3, seed=0).rvs(50)
    expected = stats.vonmises_fisher(mean, kappa).logpdf(points) + np.log(4 * np.pi)
    found = sphere_log_density(torch.from_numpy(points @ mean), kappa)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    dates = torch.linspace(0, 1, 20, dtype=torch.float64)
    expected = stats.vonmises(kappa).logpdf(2 * np.pi * (dates.numpy() - 0.3)) + np.log(2 * np.pi)
    np.testing.assert_allclose(year_log_density(dates - 0.3, kappa), expected, rtol=1e-9, atol=1e-9)


def test_columns_come_back_as_they_are_and_nan_passes():
    longitude, latitude, date = check_location(10, [None], torch.tensor([0.25]))
    assert longitude.tolist() == [10.0]
    assert latitude.isnan().all()
    assert date.dtype == torch.float64

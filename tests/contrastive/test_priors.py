"""Three priors: the loss by hand, learning of a world that is known, and what is missing."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from ckfr_helpers.contrastive import encode_location
from ckfr_helpers.contrastive.density import GridPrior, KernelPrior
from ckfr_helpers.contrastive.prior import GeoPrior, presence_loss, random_locations
from ckfr_helpers.runtime import CkfrError

NAN = float("nan")
HOMES = np.array([[-100.0, 40.0], [20.0, 50.0], [135.0, -25.0]])


def world(count=240, seed=0):
    """Three classes about three places; the first two are seen in winter, the third in summer."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    longitude, latitude = (HOMES[labels] + draw.normal(0, 8, (count, 2))).T
    date = (np.array([0.05, 0.05, 0.55])[labels] + draw.normal(0, 0.05, count)) % 1
    return longitude, latitude, date, labels


def make(name):
    torch.manual_seed(0)
    if name == "network":
        prior = GeoPrior(3, width=16, blocks=1, dropout=0.1)
        return prior.fit(*world(), epochs=30, batch_size=64, learning_rate=5e-3)
    return (GridPrior(3, cells=(9, 6, 4)) if name == "grid" else KernelPrior(3)).fit(*world())


def test_the_loss_is_the_formula_with_loops():
    draw = torch.Generator().manual_seed(0)
    logits, background = torch.randn(2, 5, 3, generator=draw, dtype=torch.float64)
    labels = torch.tensor([0, 2, 1, 1, 0])
    total = 0.0
    for i in range(5):
        for c in range(3):
            here, elsewhere = (1 / (1 + math.exp(-rows[i, c])) for rows in (logits, background))
            seen = -3 * math.log(here + 1e-5) if labels[i] == c else -math.log(1 - here + 1e-5)
            total += (seen - math.log(1 - elsewhere + 1e-5)) / 15
    assert float(presence_loss(logits, background, labels)) == pytest.approx(total, rel=1e-12)


def test_the_background_is_uniform_on_the_sphere():
    found = random_locations(4000, torch.Generator().manual_seed(0)).double()
    # x = latitude / 90 lies in [-1, 1]; the sine of the latitude is uniform there.
    latitude = torch.atan2(found[:, 1], found[:, 4]) / 2
    assert stats.kstest(latitude.sin(), stats.uniform(-1, 2).cdf).pvalue > 0.01
    for column in (0, 2):
        angle = torch.atan2(found[:, column], found[:, column + 3])
        assert stats.kstest(angle, stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue > 0.01


@pytest.mark.parametrize("name", ["network", "grid", "kernel"])
def test_each_learns_where_classes_live_and_answers_what_it_can(name):
    prior = make(name)
    *columns, labels = world(seed=1)
    found = prior.log_probabilities(*columns)
    assert found.shape == (240, 3)
    assert torch.allclose(found.exp().sum(1), torch.ones(240, dtype=found.dtype), atol=1e-5)
    assert (found.argmax(1).numpy() == labels).mean() > 0.9
    part = prior.log_probabilities([135.0, NAN, NAN, 20.0], [-25.0, NAN, NAN, NAN], [NAN, 0.55, NAN, NAN])
    assert part.isnan().all(1).tolist() == [False, False, True, name != "network"]
    assert part[:2].argmax(1).tolist() == [2, 2]
    shown = prior.log_probabilities(*(np.repeat(column, 100)[:20000] for column in columns))
    assert torch.allclose(shown[::100], found[:200], atol=1e-5)  # in pieces as in one


def test_training_is_a_function_of_its_seed_and_leaves_the_callers_alone():
    before = torch.get_rng_state()
    torch.manual_seed(3)
    first = GeoPrior(3, width=8, blocks=1)
    start = {name: value.clone() for name, value in first.state_dict().items()}
    state = torch.get_rng_state()
    first.fit(*world(60), epochs=2)
    assert torch.equal(torch.get_rng_state(), state)
    second = GeoPrior(3, width=8, blocks=1)
    second.load_state_dict(start)
    second.fit(*world(60), epochs=2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    torch.set_rng_state(before)


def test_a_grid_counts():
    prior = GridPrior(2, cells=(2, 1, 2), smoothing=1.0)
    prior.fit([-90.0, -90.0, 90.0, 180.0], [0.0] * 4, [0.1, 0.6, 0.6, 0.1], [0, 0, 1, 1])
    # 180 is -180. Class 0 has one in each half of the year in the west; class 1 one west, one east.
    west_early = np.array([1.25, 1.25]) / 3
    found = prior.log_probabilities([-10.0], [80.0], [0.2]).exp()[0]
    np.testing.assert_allclose(found, west_early / west_early.sum())
    west, early = np.array([2.5, 1.5]), np.array([1.5, 1.5])
    for columns, share in ((([-10.0], [0.0], [NAN]), west), (([NAN], [0.0], [0.2]), early)):
        np.testing.assert_allclose(prior.log_probabilities(*columns).exp()[0], share / share.sum())
    top = prior.log_probabilities([180.0, -180.0], [90.0, -90.0], [0.2, 0.2])
    assert torch.equal(top[0], top[1])


def test_a_kernel_prior_is_its_sum_of_scipys_densities():
    longitude, latitude, date, labels = world(30)
    prior = KernelPrior(4, place_kappa=30.0, date_kappa=3.0, background=0.1)
    prior.fit(longitude, latitude, date, labels)

    def point(east, north):
        east, north = np.deg2rad(east), np.deg2rad(north)
        return np.array([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)])

    density = []
    for label in range(3):
        total = 0.0
        for i in np.flatnonzero(labels == label):
            place = stats.vonmises_fisher(point(longitude[i], latitude[i]), 30.0).pdf(point(10, 45))
            time = stats.vonmises(3.0).pdf(2 * np.pi * (0.9 - date[i]))
            total += 0.9 * (4 * np.pi * place) * (2 * np.pi * time) / 10
        density.append(total + 0.1)
    density.append(1.0)  # nothing was ever seen of the fourth: it may be anywhere
    expected = np.array(density) / sum(density)
    np.testing.assert_allclose(prior.log_probabilities([10.0], [45.0], [0.9]).exp()[0], expected, rtol=1e-9)


@pytest.mark.parametrize("prior", [GeoPrior(3, 8, 1), GridPrior(3), KernelPrior(3)])
def test_bad_examples_are_one_sentence(prior):
    with pytest.raises(CkfrError, match="2 rows stand beside 1 labels"):
        prior.fit([0.0, 1.0], [0.0, 1.0], [0.0, 0.1], [0])
    with pytest.raises(CkfrError, match="Labels run from 0 to 3; expected 0 to 2"):
        prior.fit([0.0, 1.0], [0.0, 1.0], [0.0, 0.1], [0, 3])
    with pytest.raises(CkfrError, match="expected at least one to learn from"):
        prior.fit([NAN], [NAN], [NAN], [0])
    with pytest.raises(CkfrError, match="latitude of example 0 is 100"):
        prior.log_probabilities([0.0], [100.0], [0.0])


def test_the_encoding_of_the_network_is_the_contracts():
    prior = GeoPrior(3, 8, 1).eval()
    found = prior.log_probabilities([10.0], [20.0], [0.3])
    logits = prior(encode_location([10.0], [20.0], [0.3]))
    share = logits.sigmoid() / logits.sigmoid().sum()
    assert torch.allclose(found.exp(), share, atol=1e-6)

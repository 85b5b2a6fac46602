"""Intervals against SciPy, and by their coverage."""

import numpy as np
import pytest
from scipy import stats

from ckfr_helpers.metrics.intervals import Interval, bootstrap_interval, mean_interval, paired_difference
from ckfr_helpers.runtime import CkfrError


def test_mean_interval_is_scipys():
    values = np.random.default_rng(0).normal(3, 2, size=5)
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    found = mean_interval(values)
    assert (found.mean, found.low, found.high, found.n) == pytest.approx((values.mean(), *expected, 5))


def test_paired_difference_is_scipys():
    generator = np.random.default_rng(1)
    a, b = generator.normal(size=6), generator.normal(size=6)
    expected = stats.ttest_rel(a, b).confidence_interval()
    found = paired_difference(a, b)
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert found.excludes_zero == (stats.ttest_rel(a, b).pvalue < 0.05)


def test_intervals_read_well():
    interval = Interval(0.713, 0.701, 0.7251, 5)
    assert f"{interval:.1f}" == "0.7 [0.7, 0.7]"
    assert str(interval) == "0.713 [0.701, 0.725]"


def test_bootstrap_over_single_values_is_scipys():
    values = np.random.default_rng(2).exponential(size=40)
    expected = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=9999, random_state=0)
    found = bootstrap_interval(values, np.arange(40), n=9999)
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=0.03)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=0.03)


def test_copies_of_a_photograph_do_not_narrow_the_interval():
    values = np.random.default_rng(3).normal(size=20)
    once = bootstrap_interval(values, np.arange(20))
    copied = bootstrap_interval(np.repeat(values, 30), np.repeat(np.arange(20), 30))
    naive = bootstrap_interval(np.repeat(values, 30), np.arange(600))
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))
    assert naive.high - naive.low < 0.3 * (once.high - once.low)


def test_one_photograph_has_no_interval():
    found = bootstrap_interval([1.0, 5.0], [0, 0])
    assert found.mean == 3
    assert np.isnan([found.low, found.high]).all()
    assert not found.excludes_zero
    assert f"{found:.2f}" == "3.00"


def test_coverage_over_groups_is_near_the_level():
    """100 experiments, 30 photographs with 10 alike scenes each: about 95 in 100 intervals hold the truth."""
    generator = np.random.default_rng(5)
    held = 0
    for _ in range(100):
        scenes = np.repeat(generator.normal(size=30), 10) + 0.1 * generator.normal(size=300)
        interval = bootstrap_interval(scenes, np.repeat(np.arange(30), 10), n=400)
        held += interval.low <= 0 <= interval.high
    assert 0.87 < held / 100 < 0.99


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: mean_interval([]), "at least one value"),
        (lambda: mean_interval([1, float("nan")]), "none of them NaN"),
        (lambda: paired_difference([1, 2], [1]), "2 values beside 1"),
        (lambda: bootstrap_interval([1, 2], [1]), "2 values beside 1 groups"),
        (lambda: bootstrap_interval([1, float("nan")], [0, 1]), "none of them NaN"),
    ],
)
def test_wrong_input_gets_one_sentence(call, sentence):
    with pytest.raises(CkfrError, match=sentence):
        call()

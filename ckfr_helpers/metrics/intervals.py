"""Means with 95 % intervals: over seeds, paired on seeds, and over photographs."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ckfr_helpers.runtime import CkfrError

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean of ``n`` independent values and the ends of its interval, NaN where one value gives none."""

    mean: float
    low: float
    high: float
    n: int

    def __format__(self, spec: str) -> str:
        """``f"{interval:.1f}"`` gives ``"71.3 [70.1, 72.5]"``."""
        spec = spec or ".3f"
        if np.isnan(self.low):
            return f"{self.mean:{spec}}"
        return f"{self.mean:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def __str__(self) -> str:
        return f"{self}"

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval; False where there is none."""
        return self.low > 0 or self.high < 0


def mean_interval(values: ArrayLike) -> Interval:
    """Mean of independent values with Student's t interval, e.g. one score a seed.

    Raises:
        CkfrError: for no values, or NaN (never skipped).

    >>> print(mean_interval([0.70, 0.71, 0.73]))
    0.713 [0.675, 0.751]
    """
    array = np.asarray(values, dtype=np.float64).ravel()
    if not len(array) or np.isnan(array).any():
        raise CkfrError("An interval needs at least one value and none of them NaN.")
    mean = float(array.mean())
    if len(array) == 1:
        return Interval(mean, float("nan"), float("nan"), 1)
    from scipy import stats  # slow to import

    reach = stats.t.ppf((1 + LEVEL) / 2, len(array) - 1) * stats.sem(array)
    return Interval(mean, float(mean - reach), float(mean + reach), len(array))


def paired_difference(a: ArrayLike, b: ArrayLike) -> Interval:
    """Mean of a − b over runs that share a seed, with the t interval of the differences.

    Pairing removes what the seeds have in common, so it tells methods apart that separate intervals do not.
    """
    first, second = (np.asarray(x, dtype=np.float64).ravel() for x in (a, b))
    if first.shape != second.shape:
        raise CkfrError(f"{len(first)} values beside {len(second)}; expected one of each for every seed.")
    return mean_interval(first - second)


def bootstrap_interval(values: ArrayLike, groups: ArrayLike, n: int = 2000, seed: int = 0) -> Interval:
    """Mean with a percentile interval from resampling whole groups, e.g. photographs with all their scenes.

    Twenty scenes of one photograph are not twenty independent pictures; resampling scenes would make the
    interval too narrow. Method: the cluster bootstrap (Davison & Hinkley 1997, section 3.8).

    Args:
        values: (N,) one number a scene.
        groups: (N,) what to resample; equal entries belong together. One group alone has no interval.
        n, seed: how many resamples, and their seed.

    Raises:
        CkfrError: for mismatching lengths, no values, or NaN.
    """
    array, keys = np.asarray(values, dtype=np.float64).ravel(), np.asarray(groups).ravel()
    if len(array) != len(keys) or not len(array):
        raise CkfrError(f"{len(array)} values beside {len(keys)} groups; expected as many, and at least one.")
    if np.isnan(array).any():
        raise CkfrError("A bootstrap needs values, none of them NaN; leave out what is undefined first.")
    mean = float(array.mean())
    _, member = np.unique(keys, return_inverse=True)
    # The pooled mean of a resample needs only each group's sum and size.
    sums, sizes = np.bincount(member, array), np.bincount(member)
    if len(sizes) == 1:  # every resample is the same: a width of zero would claim certainty
        return Interval(mean, float("nan"), float("nan"), 1)
    draws = np.random.default_rng(seed).integers(len(sizes), size=(n, len(sizes)))
    estimates = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    low, high = np.quantile(estimates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean, float(low), float(high), len(sizes))

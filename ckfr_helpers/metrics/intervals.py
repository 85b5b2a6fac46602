"""Means with intervals: over seeds, paired on seeds, and over photographs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ckfr_helpers.runtime import CkfrError, check_number


@dataclass(frozen=True)
class Interval:
    """A mean and the interval around it.

    Attributes:
        mean: the estimate.
        low, high: ends of the interval; both NaN where it cannot be had (one value; None in a result file).
        n: number of independent values behind it.
    """

    mean: float
    low: float
    high: float
    n: int

    def __post_init__(self) -> None:
        for name in ("mean", "low", "high"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, float("nan"))

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


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Mean of independent values with Student's t interval, e.g. one score a seed.

    Raises:
        CkfrError: for no values, NaN (never skipped), or a level outside (0, 1).

    >>> print(mean_interval([0.70, 0.71, 0.73]))
    0.713 [0.675, 0.751]
    """
    array = np.asarray(values, dtype=np.float64).ravel()
    check_number("level", level, 0, 1, above=True, below=True)
    if not len(array) or np.isnan(array).any():
        raise CkfrError("An interval needs at least one value and none of them NaN.")
    mean = float(array.mean())
    if len(array) == 1:
        return Interval(mean, float("nan"), float("nan"), 1)
    reach = stats.t.ppf((1 + level) / 2, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array))
    return Interval(mean, float(mean - reach), float(mean + reach), len(array))


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Interval:
    """Mean of a − b over runs that share a seed, with the t interval of the differences.

    Pairing removes what the seeds have in common, so it tells methods apart that separate intervals do not.
    """
    first, second = (np.asarray(x, dtype=np.float64).ravel() for x in (a, b))
    if first.shape != second.shape:
        raise CkfrError(f"{len(first)} values beside {len(second)}; expected one of each for every seed.")
    return mean_interval(first - second, level)


def bootstrap_interval(
    values: ArrayLike,
    groups: ArrayLike,
    statistic: Callable[[np.ndarray], float] | None = None,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile interval from resampling whole groups, e.g. photographs with all their scenes.

    Twenty scenes of one photograph are not twenty independent pictures; resampling scenes would make the
    interval too narrow. Method: the cluster bootstrap (Davison & Hinkley 1997, section 3.8).

    Args:
        values: (N,) one number a scene.
        groups: (N,) what to resample; equal entries belong together. One group alone has no interval.
        statistic: of the pooled values; their mean where None.
        n, seed: how many resamples, and their seed.
        level: coverage in (0, 1).

    Raises:
        CkfrError: for mismatching lengths, no values, NaN, no resamples, or a level outside (0, 1).
    """
    array, keys = np.asarray(values, dtype=np.float64).ravel(), np.asarray(groups).ravel()
    if len(array) != len(keys) or not len(array):
        raise CkfrError(f"{len(array)} values beside {len(keys)} groups; expected as many, and at least one.")
    if np.isnan(array).any():
        raise CkfrError("A bootstrap needs values, none of them NaN; leave out what is undefined first.")
    check_number("n", n, 1, whole=True)
    check_number("level", level, 0, 1, above=True, below=True)
    _, member = np.unique(keys, return_inverse=True)
    count = int(member.max()) + 1
    draws = np.random.default_rng(seed).integers(count, size=(n, count))
    if statistic is None:
        # The pooled mean of a resample needs only each group's sum and size.
        sums, sizes = np.bincount(member, array), np.bincount(member)
        estimates = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
        centre = float(array.mean())
    else:
        parts: Sequence[np.ndarray] = [array[member == group] for group in range(count)]
        estimates = np.array([statistic(np.concatenate([parts[g] for g in draw])) for draw in draws])
        centre = float(statistic(array))
    if count == 1:  # every resample is the same: a width of zero would claim certainty
        return Interval(centre, float("nan"), float("nan"), 1)
    low, high = np.quantile(estimates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(centre, float(low), float(high), count)

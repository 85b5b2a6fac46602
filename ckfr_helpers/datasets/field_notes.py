"""Field notes: a place and a date for every picture. They are synthetic, and of a density that is known.

Nobody recorded where the embedded photographs were taken, so the notes are drawn given the class. (NABirds'
locations, too, were drawn from records of each picture's true species.) Hence picture and note are
independent given the class: a note tells of its class and nothing else, and the product of a picture's
posterior with the exact one of the note is the best that any method can do.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from ckfr_helpers.datasets.location import check_location, on_sphere, sphere_log_density, year_log_density
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.metrics.inputs import as_labels
from ckfr_helpers.runtime import CkfrError, check_number

Layout = Literal["random", "tree"]
UNIFORMS = 6  # random numbers of each note, so that a longer set begins with the shorter one's notes
STEPS = 8193  # at which the season's distribution function is tabulated


class Notes(NamedTuple):
    """Columns of N notes; NaN where one is missing."""

    longitude: np.ndarray  # (N,) float64 degrees
    latitude: np.ndarray  # (N,) float64 degrees
    date: np.ndarray  # (N,) float64, share of the year in [0, 1)

    def at(self, row: int) -> dict[str, float]:
        """One note, as a target's ``metadata`` has it."""
        return {name: float(column[row]) for name, column in self._asdict().items()}


class FieldNotes:
    """Where and when each class is met: homes on the globe and one season, drawn by the seed.

    A class's density is the mean of von Mises-Fisher densities about its homes, times a von Mises density
    about the middle of its season.

    Args:
        hierarchy: the tree of the C classes.
        kappa: how closely a class keeps to its homes; the spread is about 57 / sqrt(kappa) degrees. The
            greater, the more a note tells.
        season_kappa: the same for the season; the spread is about 58 / sqrt(season_kappa) days. 0 for none.
        homes: of each class.
        layout: ``"random"`` puts homes and seasons anywhere; in ``"tree"`` near classes live near, and at the
            same time: each coordinate is a Gaussian whose correlation between two classes falls linearly from
            1 to 0 with the height of their lowest common ancestor. Either way each home alone is uniform.
        seed: another seed gives another world.

    Attributes:
        centres: (C, homes, 3), points of the unit sphere.
        peaks: (C,), middle of each season, share of the year.
    """

    def __init__(
        self,
        hierarchy: Hierarchy,
        kappa: float = 20.0,
        season_kappa: float = 1.0,
        homes: int = 2,
        layout: Layout = "random",
        seed: int = 0,
    ) -> None:
        check_number("kappa", kappa, 0, above=True)
        check_number("season_kappa", season_kappa, 0)
        check_number("homes", homes, 1, whole=True)
        check_number("seed", seed, 0, whole=True)
        if layout not in ("random", "tree"):
            raise CkfrError(f"layout is {layout!r}; expected 'random' or 'tree'.")
        self.kappa, self.season_kappa, self.layout, self.seed = kappa, season_kappa, layout, seed
        count = len(hierarchy)
        kinship = np.eye(count)
        if layout == "tree":
            heights = hierarchy.distances("lca_height").astype(np.float64)
            kinship = 1 - heights / heights.max()
        values, vectors = np.linalg.eigh(kinship)
        spread = vectors * np.sqrt(values.clip(min=0))  # spread @ spread.T is the kinship
        draws = spread @ np.random.default_rng([seed, 0]).standard_normal((count, 3 * homes + 2))
        centres = draws[:, : 3 * homes].reshape(count, homes, 3)
        self.centres = centres / np.linalg.norm(centres, axis=2, keepdims=True)
        self.peaks = np.arctan2(draws[:, -1], draws[:, -2]) / (2 * math.pi) % 1

    def draw(
        self,
        labels: Sequence[int] | np.ndarray,
        *,
        missing: float = 0.0,
        shuffle: Literal["all", "class"] | None = None,
        seed: int = 0,
    ) -> Notes:
        """One note for each label.

        Args:
            labels: (N,) integers.
            missing: probability that a note, place and date, is lost, whatever its class.
            shuffle: the notes change owners, all among all (then they say nothing) or within each class (then
                they say what they said).
            seed: other notes of the same world; take another for each split.
        """
        truth = as_labels(labels, len(self.centres))
        check_number("missing", missing, 0, 1)
        if shuffle not in (None, "all", "class"):
            raise CkfrError(f"shuffle is {shuffle!r}; expected None, 'all' or 'class'.")
        draws = np.random.default_rng([self.seed, 1, seed]).random((len(truth), UNIFORMS))
        order = np.arange(len(truth))
        generator = np.random.default_rng([self.seed, 2, seed])
        groups = {None: [], "all": [order], "class": [np.flatnonzero(truth == c) for c in np.unique(truth)]}
        for rows in groups[shuffle]:
            order[rows] = generator.permutation(rows)
        longitude, latitude = self._places(truth, draws)
        lost = draws[:, 4] < missing
        columns = (column[order] for column in (longitude, latitude, self._dates(truth, draws)))
        return Notes(*(np.where(lost, math.nan, column) for column in columns))

    def _places(self, labels: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Longitude and latitude, by the von Mises-Fisher distribution's inverse on the sphere."""
        homes = self.centres.shape[1]
        centre = self.centres[labels, (draws[:, 0] * homes).astype(int)]  # (N, 3)
        u, angle = draws[:, 1], 2 * math.pi * draws[:, 2]
        cosine = 1 + np.log(u + (1 - u) * np.exp(-2 * self.kappa)) / self.kappa
        # Two directions across the centre, from whichever axis is far from it.
        axis = np.where(np.abs(centre[:, :1]) < 0.7, [1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
        first = np.cross(centre, axis)
        first /= np.linalg.norm(first, axis=1, keepdims=True)
        across = np.cos(angle)[:, None] * first + np.sin(angle)[:, None] * np.cross(centre, first)
        sine = np.sqrt((1 - cosine**2).clip(min=0))
        x, y, z = (cosine[:, None] * centre + sine[:, None] * across).T
        return np.rad2deg(np.arctan2(y, x)), np.rad2deg(np.arcsin(z.clip(-1, 1)))

    def _dates(self, labels: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """By the distribution function of the season, from a table."""
        if not self.season_kappa:
            return draws[:, 3]
        steps = np.linspace(-math.pi, math.pi, STEPS)
        shift = np.interp(draws[:, 3], stats.vonmises.cdf(steps, self.season_kappa), steps) / (2 * math.pi)
        date = (self.peaks[labels] + shift) % 1
        return np.where(date < 1, date, 0.0)  # -1e-17 % 1 is 1

    def log_density(self, longitude: Any, latitude: Any, date: Any) -> Tensor:
        """log p(note | class), relative to notes that are uniform over globe and year, (N, C) float64.

        NaN columns are integrated out: the season alone where the place is missing, 0 where all is.
        """
        east, north, time = check_location(longitude, latitude, date)
        points = on_sphere(east.nan_to_num(), north.nan_to_num())
        cosines = torch.einsum("nk,chk->nch", points, torch.from_numpy(self.centres))
        places = sphere_log_density(cosines, self.kappa).logsumexp(2) - math.log(self.centres.shape[1])
        seasons = year_log_density(
            time.nan_to_num()[:, None] - torch.from_numpy(self.peaks), self.season_kappa
        )
        unknown = (east.isnan() | north.isnan())[:, None]
        return places.masked_fill(unknown, 0.0) + seasons.masked_fill(time.isnan()[:, None], 0.0)

    def log_probabilities(self, longitude: Any, latitude: Any, date: Any) -> Tensor:
        """The exact posterior log p(class | note) if all classes are equally frequent, (N, C) float64.

        A row with nothing known is NaN, as every prior of `contrastive.prior` answers it.
        """
        columns = check_location(longitude, latitude, date)
        east, north, time = (column.isnan() for column in columns)
        silent = (east | north) & time
        return self.log_density(*columns).log_softmax(1).masked_fill(silent[:, None], math.nan)

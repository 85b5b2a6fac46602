"""What place and date alone say of the class, by counting in a grid and by a kernel about every example.

The answers are normalised over classes as if all were equally frequent; `prior.Prior` says the rest.
"""

import math
from typing import NamedTuple, Self

import torch
from torch import Tensor

from ckfr_helpers.contrastive.prior import ROWS, Column, labels_of
from ckfr_helpers.datasets.location import check_location, on_sphere, sphere_log_density, year_log_density
from ckfr_helpers.runtime import CkfrError, check_number


class GridPrior:
    """How often each class was seen in each cell of longitude, latitude and date.

    Args:
        classes: C.
        cells: how many along longitude, latitude and the year.
        smoothing: examples of every class spread evenly over all cells beforehand, above 0.
    """

    def __init__(
        self, classes: int, cells: tuple[int, int, int] = (36, 18, 12), smoothing: float = 1.0
    ) -> None:
        check_number("classes", classes, 2, whole=True)
        for count in cells:
            check_number("cells", count, 1, whole=True)
        check_number("smoothing", smoothing, 0, above=True)
        self.classes, self.cells, self.smoothing = classes, cells, smoothing
        self.shares = torch.full((classes, cells[0] * cells[1], cells[2]), 1 / math.prod(cells)).double()

    def fit(self, longitude: Column, latitude: Column, date: Column, labels: Column) -> Self:
        """Count; rows that lack a place or a date are left out."""
        found, truth = _examples(longitude, latitude, date, labels, self.classes)
        place, time = self._cell(found)
        shape = self.shares.shape
        flat = (truth * shape[1] + place) * shape[2] + time
        counts = torch.bincount(flat, minlength=self.shares.numel()).view(shape).double()
        counts += self.smoothing / (shape[1] * shape[2])
        self.shares = counts / counts.sum((1, 2), keepdim=True)
        return self

    def log_probabilities(self, longitude: Column, latitude: Column, date: Column) -> Tensor:
        """(N,) each -> (N, C) float64; what is not known is summed over."""
        found = _known(longitude, latitude, date)
        place, time = self._cell(found)
        of_both, of_place, of_time = self.shares, self.shares.sum(2), self.shares.sum(1)
        share = torch.where(found.has_date, of_both[:, place, time], of_place[:, place])
        share = torch.where(found.has_place, share, of_time[:, time])  # (C, N)
        return _normalised(share.log().T, found)

    def _cell(self, found: "_Known") -> tuple[Tensor, Tensor]:
        """Which cell of the map and of the year, (N,) each; 0 where not known."""
        across, up, times = self.cells
        column = ((found.longitude + 180) / 360 * across).long() % across
        row = ((found.latitude + 90) / 180 * up).long().clamp(max=up - 1)
        return column * up + row, (found.date * times).long().clamp(max=times - 1)


class KernelPrior:
    """A kernel about every example: von Mises-Fisher on the sphere times von Mises over the year.

    Args:
        classes: C.
        place_kappa, date_kappa: how narrow the kernels are; choose them on validation. The spread of a place
            is about 57 / sqrt(place_kappa) degrees, that of a date 58 / sqrt(date_kappa) days.
        background: share of every class that could be anywhere at any time; keeps far places from certainty.
    """

    def __init__(
        self, classes: int, place_kappa: float = 50.0, date_kappa: float = 5.0, background: float = 0.01
    ) -> None:
        check_number("classes", classes, 2, whole=True)
        check_number("place_kappa", place_kappa, 0, above=True)
        check_number("date_kappa", date_kappa, 0)
        check_number("background", background, 0, 1, above=True, below=True)
        self.place_kappa, self.date_kappa, self.background = place_kappa, date_kappa, background
        self.members = [(torch.zeros(0, 3).double(), torch.zeros(0).double()) for _ in range(classes)]

    def fit(self, longitude: Column, latitude: Column, date: Column, labels: Column) -> Self:
        """Keep the examples; rows that lack a place or a date are left out."""
        found, truth = _examples(longitude, latitude, date, labels, len(self.members))
        points = on_sphere(found.longitude, found.latitude)
        self.members = [(points[truth == c], found.date[truth == c]) for c in range(len(self.members))]
        return self

    def log_probabilities(self, longitude: Column, latitude: Column, date: Column) -> Tensor:
        """(N,) each -> (N, C) float64; of what is not known, the kernel is left out."""
        found = _known(longitude, latitude, date)
        points = on_sphere(found.longitude, found.latitude)
        parts = zip(
            points.split(ROWS),
            found.date.split(ROWS),
            found.has_place.split(ROWS),
            found.has_date.split(ROWS),
            strict=True,
        )
        densities = [
            torch.stack([self._log_density(*part, *own) for own in self.members], 1) for part in parts
        ]
        return _normalised(torch.cat(densities), found)

    def _log_density(
        self, points: Tensor, date: Tensor, has_place: Tensor, has_date: Tensor, own: Tensor, dates: Tensor
    ) -> Tensor:
        """Of one class, relative to the uniform one, (n,)."""
        if not len(own):
            return torch.zeros(len(points), dtype=torch.float64)
        place = sphere_log_density(points @ own.T, self.place_kappa).where(has_place[:, None], 0.0)
        time = year_log_density(date[:, None] - dates, self.date_kappa).where(has_date[:, None], 0.0)
        kernels = (place + time).logsumexp(1) - math.log(len(own)) + math.log1p(-self.background)
        return torch.logaddexp(kernels, torch.full_like(kernels, math.log(self.background)))


class _Known(NamedTuple):
    """Columns (N,) with 0 for what is not known, and what is."""

    longitude: Tensor
    latitude: Tensor
    date: Tensor
    has_place: Tensor
    has_date: Tensor


def _known(longitude: Column, latitude: Column, date: Column) -> _Known:
    columns = check_location(longitude, latitude, date)
    missing = [column.isnan() for column in columns]
    filled = [column.nan_to_num(0.0) for column in columns]
    return _Known(*filled, has_place=~(missing[0] | missing[1]), has_date=~missing[2])  # type: ignore[misc]


def _examples(
    longitude: Column, latitude: Column, date: Column, labels: Column, classes: int
) -> tuple[_Known, Tensor]:
    found = _known(longitude, latitude, date)
    whole = found.has_place & found.has_date
    truth = labels_of(whole, labels, classes)
    if not whole.any():
        raise CkfrError("No example has both place and date; expected at least one to learn from.")
    return _Known(*(column[whole] for column in found)), truth[whole]


def _normalised(scores: Tensor, found: _Known) -> Tensor:
    """Log-probabilities over classes, NaN for rows with nothing known."""
    return scores.log_softmax(1).masked_fill(~(found.has_place | found.has_date)[:, None], math.nan)

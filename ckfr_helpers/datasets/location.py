"""Where and when: longitude, latitude and date, checked by name, and densities on the sphere and the year."""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ckfr_helpers.runtime import CkfrError

UNITS = {
    "longitude": "degrees from -180 to 180",
    "latitude": "degrees from -90 to 90",
    "date": "a share of the year from 0 to below 1",
}


def check_location(
    longitude: ArrayLike | Tensor, latitude: ArrayLike | Tensor, date: ArrayLike | Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Three columns of N numbers as float64 tensors (N,); NaN, what is not known, passes.

    Raises:
        CkfrError: lengths that differ, or a number outside its column's range. Columns in a wrong order are
            the usual reason, and the message says so.
    """
    columns = {
        name: torch.atleast_1d(_numbers(name, values))
        for name, values in (("longitude", longitude), ("latitude", latitude), ("date", date))
    }
    shapes = [tuple(column.shape) for column in columns.values()]
    if len(shapes[0]) != 1 or len(set(shapes)) != 1:
        raise CkfrError(f"Longitude, latitude and date have shapes {shapes}; expected (N,) three times.")
    for name, reach in (("longitude", 180.0), ("latitude", 90.0)):
        _refuse(name, columns[name], columns[name].abs() > reach)
    _refuse("date", columns["date"], (columns["date"] < 0) | (columns["date"] >= 1))
    return columns["longitude"], columns["latitude"], columns["date"]


def _numbers(name: str, values: ArrayLike | Tensor) -> Tensor:
    """As float64; None, as JSON has it, is NaN."""
    if isinstance(values, Tensor):
        return values.double()
    try:
        return torch.tensor(np.asarray(values, np.float64))
    except (TypeError, ValueError) as error:
        raise CkfrError(f"The {name} is no column of numbers ({error}); expected {UNITS[name]}.") from None


def _refuse(name: str, values: Tensor, wrong: Tensor) -> None:
    if wrong.any():
        row = int(wrong.nonzero()[0, 0])
        raise CkfrError(
            f"The {name} of example {row} is {float(values[row]):g}; expected {UNITS[name]} (are columns "
            "swapped? The order is longitude, latitude, date)."
        )


def on_sphere(longitude: Tensor, latitude: Tensor) -> Tensor:
    """Degrees (N,) twice -> points of the unit sphere (N, 3)."""
    east, north = torch.deg2rad(longitude), torch.deg2rad(latitude)
    return torch.stack([north.cos() * east.cos(), north.cos() * east.sin(), north.sin()], dim=-1)


def sphere_log_density(cosine: Tensor, kappa: float) -> Tensor:
    """Log of the von Mises-Fisher density on the sphere, relative to the uniform one.

    Args:
        cosine: of the angle to its mean direction, any shape.
        kappa: concentration, above 0; ``1 / sqrt(kappa)`` is about the spread in radians.
    """
    # 2k exp(k (cos - 1)) / (1 - exp(-2k)), without overflow.
    return math.log(2 * kappa) - math.log(-math.expm1(-2 * kappa)) + kappa * (cosine - 1)


def year_log_density(difference: Tensor, kappa: float) -> Tensor:
    """Log of the von Mises density on the year, relative to the uniform one.

    Args:
        difference: to its mean, in years, any shape.
        kappa: concentration, at least 0.
    """
    scale = float(torch.special.i0e(torch.tensor(kappa, dtype=torch.float64)))
    return kappa * ((2 * math.pi * difference).cos() - 1) - math.log(scale)

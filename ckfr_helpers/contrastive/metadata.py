"""Place and date as numbers that a network can use, and the small networks that use them."""

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ckfr_helpers.datasets.location import check_location
from ckfr_helpers.runtime import CkfrError, check_number

WIDTH = 6  # of an encoded place and date


def encode_location(
    longitude: ArrayLike | Tensor, latitude: ArrayLike | Tensor, date: ArrayLike | Tensor
) -> Tensor:
    """Place and date as sines and cosines, so that the date line and the new year are no borders.

    >>> encode_location(longitude=[90.0], latitude=[0.0], date=[0.5]).round(decimals=3)
    tensor([[1., 0., 0., 0., 1., 1.]])

    Args:
        longitude, latitude: (N,) degrees.
        date: (N,) share of the year in [0, 1).

    Returns:
        (N, 6): sin(pi x), then cos(pi x), of x = (longitude / 180, latitude / 90, 2 date - 1). What is not
        known (NaN) stays NaN; `MetadataEncoder` takes it. The type is that of the narrowest
        column; lists and whole numbers count as torch's default.

    Raises:
        CkfrError: a value out of range, usually columns in another order (the source divided latitude by 180
            and longitude by 90, so places half the globe apart looked the same).

    Source:
        Mac Aodha et al., *Presence-only geographical priors for fine-grained image
        classification*, ICCV 2019.
    """
    east, north, time = check_location(longitude, latitude, date)
    angles = math.pi * torch.stack([east / 180, north / 90, 2 * time - 1], dim=1)
    types = [_precision(values) for values in (longitude, latitude, date)]
    narrowest = min(types, key=lambda one: torch.finfo(one).bits)
    return torch.cat([angles.sin(), angles.cos()], dim=1).to(narrowest)


def _precision(values: ArrayLike | Tensor) -> torch.dtype:
    if isinstance(values, Tensor) and values.is_floating_point():
        return values.dtype
    return torch.float64 if getattr(values, "dtype", None) == np.float64 else torch.get_default_dtype()


def is_known(encoded: Tensor) -> Tensor:
    """Which rows of `encode_location` say anything at all, (N, 6) -> (N,) bool."""
    return ~encoded.isnan().all(dim=1)


class MetadataEncoder(nn.Module):
    """The residual network of the geographic prior: encoded place and date (N, 6) -> (N, width).

    Rows with nothing known give one vector for all of them, so that no picture has to be left out. Where only
    the date or the place is missing, its sine and cosine are both 0, a point that no true value has.

    Args:
        width: of all layers.
        blocks: residual blocks of two layers each.
        dropout: inside the blocks.
        missing: what a row with nothing known becomes: a vector that is ``"learnt"``, or ``"zero"``.

    Source:
        Mac Aodha et al., ICCV 2019; 256 wide, 4 blocks, dropout 0.5.
    """

    unknown: Tensor

    def __init__(
        self,
        width: int = 256,
        blocks: int = 4,
        dropout: float = 0.5,
        missing: Literal["learnt", "zero"] = "learnt",
    ) -> None:
        super().__init__()
        check_number("width", width, 1, whole=True)
        check_number("blocks", blocks, 0, whole=True)
        check_number("dropout", dropout, 0, 1, below=True)
        if missing not in ("learnt", "zero"):
            raise CkfrError(f"missing is {missing!r}; expected 'learnt' or 'zero'.")
        self.width = width
        self.first = nn.Sequential(nn.Linear(WIDTH, width), nn.ReLU())
        self.blocks = nn.Sequential(*(_Residual(width, dropout) for _ in range(blocks)))
        if missing == "learnt":
            self.unknown = nn.Parameter(0.02 * torch.randn(width))
        else:
            self.register_buffer("unknown", torch.zeros(width))

    def forward(self, encoded: Tensor) -> Tensor:
        """(N, 6), NaN where not known -> (N, width)."""
        if encoded.ndim != 2 or encoded.shape[1] != WIDTH:
            raise CkfrError(
                f"Metadata have shape {tuple(encoded.shape)}; expected (N, {WIDTH}) of encode_location."
            )
        known = is_known(encoded)
        found = self.blocks(self.first(encoded.nan_to_num(0.0).to(self.unknown.dtype)))
        return torch.where(known[:, None], found, self.unknown.to(found.dtype))


class _Residual(nn.Module):
    """x + ReLU(W2 dropout(ReLU(W1 x)))."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width), nn.ReLU()
        )

    def forward(self, state: Tensor) -> Tensor:
        return state + self.layers(state)


class Projection(nn.Module):
    """From an encoder's width to the common one: LayerNorm(p + dropout(W2 gelu(p))), p = W1 x.

    Args:
        features: what the encoder gives, (N, features).
        width: what all encoders shall share, (N, width).
        dropout: as in the formula.

    Source:
        the published notebook of Mamtani and Thesia (arXiv 2504.20322).
    """

    def __init__(self, features: int, width: int = 256, dropout: float = 0.1) -> None:
        super().__init__()
        self.first = nn.Linear(features, width)
        self.second = nn.Sequential(nn.GELU(), nn.Linear(width, width), nn.Dropout(dropout))
        self.norm = nn.LayerNorm(width)

    def forward(self, features: Tensor) -> Tensor:
        """(N, features) -> (N, width)."""
        state = self.first(features)
        return self.norm(state + self.second(state))

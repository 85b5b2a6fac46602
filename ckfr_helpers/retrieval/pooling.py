"""What the poolings without classes are made of: GeM's mean, CroW's weights of places, R-MAC's regions."""

import torch
from torch import Tensor

from ckfr_helpers.runtime import CkfrError, check_number

REGION_LEVELS = 3  # R-MAC's L
REGION_OVERLAP = 0.4  # what R-MAC asks of neighbouring regions along the longer side


def check_features(features: Tensor) -> Tensor:
    """Finite features (B, C, H, W), in float32 at least; or a `CkfrError`."""
    if features.ndim != 4 or not features.numel() or not features.is_floating_point():
        raise CkfrError(
            f"Features are {features.dtype} {tuple(features.shape)}; expected floating-point (B, C, H, W)."
        )
    features = check_finite(features, "features")
    return features if features.dtype == torch.float64 else features.float()


def check_finite(values: Tensor, what: str) -> Tensor:
    if not values.isfinite().all():
        raise CkfrError(f"The {what} hold NaN or infinite values; expected finite ones.")
    return values


def generalised_mean(features: Tensor, power: float) -> Tensor:
    """``mean(x^p)^(1/p)`` of the positive part, (B, C); by shares of the maximum, so no power overflows."""
    check_number("power", power, 0, above=True)
    positive = features.clamp(min=0)
    largest = positive.amax((2, 3), keepdim=True)
    shares = positive / torch.where(largest > 0, largest, 1.0)
    return shares.pow(power).mean((2, 3)).pow(1 / power) * largest[:, :, 0, 0]


def place_weights(features: Tensor) -> Tensor:
    """CroW's weight of each place, (B, 1, H, W): the root of its share in the sums over channels."""
    sums = features.sum(1, keepdim=True).clamp(min=0)
    norm = sums.square().sum((2, 3), keepdim=True).sqrt()
    return (sums / torch.where(norm > 0, norm, 1.0)).sqrt()


def region_maxima(features: Tensor, levels: int = REGION_LEVELS) -> Tensor:
    """Maxima of R-MAC's square regions, (B, C, H, W) -> (B, R, C); level 1 of a square map is MAC."""
    boxes = _regions(features.shape[2], features.shape[3], levels)
    return torch.stack([features[..., y : y + s, x : x + s].amax((2, 3)) for y, x, s in boxes], 1)


def _regions(height: int, width: int, levels: int) -> list[tuple[int, int, int]]:
    """R-MAC's squares (y, x, side): at level l, l along the shorter side and more along the longer."""
    short, long = sorted((height, width))
    extra = 0
    if long > short:  # of 2 to 7 squares of the full height, as many as overlap nearest to the rule
        overlaps = [abs(1 - (long - short) / (count - 1) / short - REGION_OVERLAP) for count in range(2, 8)]
        extra = 1 + overlaps.index(min(overlaps))
    squares = []
    for level in range(1, levels + 1):
        side = 2 * short // (level + 1)
        if side:  # a map of two cells has no third level
            rows = _starts(height, side, level + (extra if height > width else 0))
            columns = _starts(width, side, level + (extra if width > height else 0))
            squares += [(y, x, side) for y in rows for x in columns]
    return squares


def _starts(length: int, side: int, count: int) -> list[int]:
    """First cells of ``count`` windows spread evenly."""
    return [0] if count == 1 else [index * (length - side) // (count - 1) for index in range(count)]

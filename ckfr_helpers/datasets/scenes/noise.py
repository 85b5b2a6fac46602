"""What ``painters`` paints with, in float32: fractal noise, light on heights, the ground in perspective."""

import cv2
import numpy as np
from numpy.random import Generator
from scipy import fft


def fractal(
    rng: Generator, size: int, slope: float = 2.0, stretch: tuple[float, float] = (1, 1), coarsest: float = 1
) -> np.ndarray:
    """Noise whose power falls as 1 / frequency^slope, as in natural scenes; it tiles without seams.

    A slope of 0 is white, 2 cloudy, 4 smooth hills. ``stretch`` makes structures longer along x and along y;
    ``coarsest``, the fewest waves across the picture, removes broad light and dark areas. The result is
    (size, size) float32 of mean 0 and standard deviation 1.
    """
    half = size // 2 + 1
    waves = rng.standard_normal((size, half, 2), dtype=np.float32).view(np.complex64)[..., 0]
    fx = np.arange(half, dtype=np.float32)[None, :] * stretch[0]
    fy = fft.fftfreq(size, 1 / size).astype(np.float32)[:, None] * stretch[1]
    squared = fx * fx + fy * fy
    gain = np.maximum(squared, 1.0) ** np.float32(-slope / 4)
    gain[squared < coarsest**2] = 0
    noise = fft.irfft2(waves * gain, s=(size, size), overwrite_x=True)
    noise -= noise.mean()
    return noise / np.float32(np.sqrt(np.vdot(noise, noise) / noise.size) + 1e-9)


def cells(rng: Generator, size: int, count: int, jitter: float = 0.9) -> tuple[np.ndarray, ...]:
    """A grid of ``count`` by ``count`` cells, jittered by up to 1 (Worley noise): paving, cobbles, cracks.

    ``(edge, inside, index)``, each (size, size): distance to the nearest cell border in cell widths, distance
    to the cell's own centre, and the cell's number (int32) below ``count ** 2``.
    """
    full, size = size, size // 2  # distances are smooth: half the resolution is enough
    grid = (np.indices((count, count)).reshape(2, -1).T + 0.5).astype(np.float32)
    points = grid + jitter * rng.uniform(-0.5, 0.5, grid.shape).astype(np.float32)
    axis = (np.arange(size, dtype=np.float32) + 0.5) * (count / size)
    home = axis.astype(np.int32)
    nearest = np.full((2, size, size), 9.0, np.float32)
    index = np.zeros((size, size), np.int32)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            row, column = (home + dy)[:, None] + 0 * home[None, :], (home + dx)[None, :] + 0 * home[:, None]
            number = (row % count) * count + column % count
            # Wrap, so that the texture tiles: move the point to the copy beside this pixel.
            at = points[number] + np.stack([row - row % count, column - column % count], -1)
            distance = np.hypot(axis[:, None] - at[..., 0], axis[None, :] - at[..., 1])
            closer = distance < nearest[0]
            nearest[1] = np.where(closer, nearest[0], np.minimum(nearest[1], distance))
            nearest[0] = np.where(closer, distance, nearest[0])
            index = np.where(closer, number, index)
    first, second = (cv2.resize(one, (full, full), interpolation=cv2.INTER_LINEAR) for one in nearest)
    return (second - first) / 2, first, cv2.resize(index, (full, full), interpolation=cv2.INTER_NEAREST)


def slopes(height: np.ndarray, steepness: float) -> np.ndarray:
    """Rise to the right and downward, (H, W, 2), of a tiling height field; their RMS is ``steepness``."""
    dx = np.roll(height, -1, 1) - np.roll(height, 1, 1)
    dy = np.roll(height, -1, 0) - np.roll(height, 1, 0)
    both = np.stack([dx, dy], -1).astype(np.float32)
    return both * np.float32(steepness / (np.sqrt(np.vdot(both, both) / height.size) + 1e-9))


def light(slope: np.ndarray, direction: float, elevation: float) -> np.ndarray:
    """Brightness of a matt surface under a lamp (Lambert's cosine law): 1 where it is flat, never below 0.

    ``slope`` (H, W, 2) is a sum of ``slopes``. The lamp's ``direction``, 0 the right and pi / 2 the bottom,
    and its ``elevation`` above the surface are in radians.
    """
    flat = np.float32(np.sin(elevation))
    lamp = np.array([np.cos(direction), np.sin(direction)], np.float32)
    away = np.float32(np.cos(elevation)) * (slope @ lamp)
    return np.maximum(0, (flat - away) / (flat * np.sqrt(1 + slope[..., 0] ** 2 + slope[..., 1] ** 2)))


def ground(texture: np.ndarray, size: int, horizon: float, zoom: float) -> tuple[np.ndarray, np.ndarray]:
    """Lay a tiling texture on the ground and photograph it.

    A row at height y (0 top, 1 bottom) sees ground at depth 1 / (y - horizon). Far rows see many texels in
    one pixel, so they are read from smaller copies of the texture, as graphics cards do (mipmaps). The
    texture (T, T[, C]) float32 tiles; ``zoom`` copies of it lie along the bottom edge. Gives the picture
    (size, size[, C]), undefined above the horizon, and the depth (size,) of its rows relative to the last.
    """
    y = (np.arange(size, dtype=np.float32) + 0.5) / size
    depth = (1 - horizon) / np.maximum(y - horizon, 0.004)  # 1 at the bottom edge
    across = (y[None, :] - 0.5) * depth[:, None] * zoom
    along = np.broadcast_to(depth[:, None] * zoom * (1 - horizon), across.shape)
    texels = texture.shape[0] * zoom / size * depth**1.5  # geometric mean of the two footprints
    level = np.clip(np.log2(np.maximum(texels, 1)), 0, 5)
    picture = np.zeros((size, size, *texture.shape[2:]), np.float32)
    small = texture
    for step in range(6):
        rows = np.flatnonzero(np.abs(level - step) < 1)
        if len(rows):
            side = small.shape[0]
            padded = np.pad(small, [(0, 1), (0, 1)] + [(0, 0)] * (small.ndim - 2), mode="wrap")
            x, z = ((axis[rows] * side % side).astype(np.float32) for axis in (across, along))
            part = cv2.remap(padded, x, z, cv2.INTER_LINEAR)
            share = (1 - np.abs(level[rows] - step)).reshape(-1, *[1] * (part.ndim - 1))
            picture[rows] += part * share
        small = cv2.resize(small, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return picture, depth


def mix(low: np.ndarray, high: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Blend two colours or pictures: ``share`` (H, W) in [0, 1] of ``high``. (H, W, 3) float32"""
    share = np.clip(share, 0, 1)[..., None].astype(np.float32)
    return np.asarray(low, np.float32) * (1 - share) + np.asarray(high, np.float32) * share


def soften(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur; nothing below a tenth of a pixel."""
    return cv2.GaussianBlur(picture, (0, 0), sigma) if sigma > 0.1 else picture


def develop(rng: Generator, picture: np.ndarray) -> np.ndarray:
    """What a camera adds: exposure, white balance, a little lens blur, darker corners and grain; as uint8."""
    size = picture.shape[0]
    picture = soften(picture, rng.uniform(0.0, 0.9) * size / 256)
    warmth, pale = rng.normal(0, 0.03), rng.uniform(0.08, 0.32)
    picture = picture * np.array([1 + warmth, 1, 1 - warmth], np.float32) * rng.uniform(0.85, 1.12)
    picture = cv2.transform(picture.astype(np.float32), (1 - pale) * np.eye(3) + pale / 3)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    picture = picture * (1 - rng.uniform(0, 0.12) * (axis[:, None] ** 2 + axis[None, :] ** 2))[..., None]
    grain = rng.standard_normal((size, size, 1), dtype=np.float32) * rng.uniform(0.004, 0.016)
    # A soft shoulder instead of a hard clip keeps highlights from burning out.
    picture = np.where(picture > 0.8, 0.8 + 0.2 * np.tanh((picture - 0.8) / 0.2), picture) + grain
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)

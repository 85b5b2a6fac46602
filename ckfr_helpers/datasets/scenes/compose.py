"""Photographing cut-outs in a painted place: size, position, turn, shadow, the place's light, and grain.

One object gives the scenes of `single`; several are pasted one after the other, each over those before it.
"""

import functools
import zlib
from collections.abc import Sequence

import cv2
import numpy as np

from ckfr_helpers.datasets.base import box_of_mask

MARGIN = 1.6  # side of a place over the side of the scenes that show a window of it
CAMERA, OBJECT, GRAIN = 5, 10, 2  # random numbers for the window, for each object, and for the grain


class Sticker:
    """A cut-out ready to paste: colours premultiplied by a soft alpha, at several sizes.

    Args:
        pixels: (h, w, 4) uint8, RGB and alpha.
        size: side of the scenes it will be pasted in.
    """

    def __init__(self, pixels: np.ndarray, size: int) -> None:
        height, width = pixels.shape[:2]
        self.long_side = max(height, width)  # of the photograph as it was taken
        alpha = np.pad(pixels[..., 3], 2).astype(np.float32) / 255
        colour = np.pad(pixels[..., :3], ((2, 2), (2, 2), (0, 0)), mode="edge").astype(np.float32)
        # Whoever cut the stamp out left a thin rim of the old surroundings. Moving the edge in by about half
        # a pixel hides it, and a soft edge is what a lens gives.
        blur = 0.55 + 0.25 * min(1.0, self.long_side / 200)
        edge = np.clip((cv2.GaussianBlur(alpha, (0, 0), blur) - 0.35) / 0.5, 0, 1)
        # Legs, antlers and twigs are all edge: what an opening would remove is kept as it is.
        reach = 3 + 2 * round(self.long_side / 80)
        thin = alpha - cv2.morphologyEx(alpha, cv2.MORPH_OPEN, np.ones((reach, reach), np.uint8))
        edge = np.maximum(edge, 0.95 * thin)
        # Edge pixels take their colour from inside the object.
        solid = (alpha > 0.9).astype(np.float32)
        weight = cv2.GaussianBlur(solid, (0, 0), 1.2)
        inner = cv2.GaussianBlur(colour * solid[..., None], (0, 0), 1.2) / np.maximum(weight, 1e-3)[..., None]
        eroded = cv2.erode(solid, np.ones((3, 3), np.uint8))[..., None]
        colour = np.where((eroded < 0.5) & (weight[..., None] > 0.05), inner, colour)
        colour = colour * edge[..., None]
        self.mean = colour.sum((0, 1)) / max(float(edge.sum()), 1e-6) / 255  # (3,), RGB in [0, 1]
        full = np.dstack([colour, edge * 255])
        self.levels = [np.clip(full + 0.5, 0, 255).astype(np.uint8)]
        while max(self.levels[-1].shape[:2]) > 0.1 * size and min(self.levels[-1].shape[:2]) > 1:
            half = cv2.resize(self.levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
            self.levels.append(np.asarray(half, np.uint8))
        while len(self.levels) > 1 and max(self.levels[1].shape[:2]) > size:  # never pasted that large
            self.levels.pop(0)

    def scale(self, size: int, sides: tuple[float, float], draw: float) -> float:
        """Long side over the scene's: ``sides`` at ``draw`` 0 and 1, more for long and thin things.

        Never more than the scene shows, nor than twice the photograph's own pixels.
        """
        height, width = self.levels[0].shape[:2]
        stretch = (max(height, width) / min(height, width)) ** 0.5
        largest = min(0.90, sides[1] * stretch, 2.0 * self.long_side / size)
        smallest = min(sides[0] * stretch, 0.7 * largest)
        return smallest * (largest / smallest) ** draw

    def placed(self, size: int, scale: float, turn: float, mirror: bool, x: float, y: float) -> np.ndarray:
        """The sticker in an otherwise empty scene: (size, size, 4) uint8, premultiplied RGB and alpha.

        Its long side is ``scale`` of the scene's, turned clockwise by radians; ``x`` and ``y`` in [0, 1] say
        where in the free space it is.
        """
        wanted = scale * size
        sides = [max(one.shape[:2]) for one in self.levels]  # falling: take the smallest that will do
        level = self.levels[max(0, sum(side >= wanted for side in sides) - 1)]
        height, width = level.shape[:2]
        zoom = wanted / max(height, width)
        cosine, sine = np.cos(turn) * zoom, np.sin(turn) * zoom
        reach_x = (abs(cosine) * width + abs(sine) * height) / 2
        reach_y = (abs(sine) * width + abs(cosine) * height) / 2
        centre_x = reach_x + x * (size - 2 * reach_x) if 2 * reach_x < size else size / 2
        centre_y = reach_y + y * (size - 2 * reach_y) if 2 * reach_y < size else size / 2
        flip = -1.0 if mirror else 1.0
        matrix = np.array([[cosine * flip, -sine, centre_x], [sine * flip, cosine, centre_y]])
        matrix[:, 2] -= matrix[:, :2] @ (width / 2, height / 2)
        return cv2.warpAffine(level, matrix, (size, size), flags=cv2.INTER_LINEAR)


def compose(
    stickers: Sequence[Sticker],
    place: np.ndarray,
    draws: np.ndarray,
    shadowed: bool,
    placed: Sequence[np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Photograph stickers in a place.

    Args:
        stickers: the objects, the farthest first.
        place: (P, P, 3) uint8, larger than the scene by ``MARGIN``; a window of it is shown.
        draws: at least ``CAMERA + n * OBJECT + GRAIN`` random numbers in [0, 1), in this order.
        shadowed: whether objects throw a soft shadow beneath them.
        placed: the stickers as `Sticker.placed` gives them; None to draw size, turn and position.

    Returns:
        ``(picture (3, H, W) uint8, masks (n, H, W) bool)``: a mask is where more than half is its object, and
        no later object covers it.
    """
    size = round(place.shape[0] / MARGIN)
    scene = _window(place, size, draws[:CAMERA])
    masks = np.zeros((len(stickers), size, size), bool)
    for number, sticker in enumerate(stickers):
        first = CAMERA + number * OBJECT
        own = draws[first : first + OBJECT]
        pasted = _drawn(sticker, size, own) if placed is None else placed[number]
        masks[number] = _paste(scene, sticker, pasted, own, shadowed)
        masks[:number] &= ~masks[number]
    at, strength = draws[CAMERA + len(stickers) * OBJECT :][:GRAIN]
    corner = int(at * size)
    grain = _grain_tile(size)[corner : corner + size, size - corner : 2 * size - corner]
    scene += grain * np.float32(1 + 2.5 * strength)  # over the whole picture, object and place alike
    scene += np.float32(0.5)
    return np.clip(scene, 0, 255, out=scene).astype(np.uint8), masks


def _window(place: np.ndarray, size: int, draws: np.ndarray) -> np.ndarray:
    """(3, H, W) float32: a part of the place, mirrored half of the time, a little lighter or darker."""
    side = int(size + draws[0] * (place.shape[0] - size))
    left, top = (int(draw * (place.shape[0] - side + 1)) for draw in draws[1:3])
    window = place[top : top + side, left : left + side]
    if draws[3] < 0.5:
        window = window[:, ::-1]
    how = cv2.INTER_AREA if side > 1.3 * size else cv2.INTER_LINEAR
    # Colours are planes, (3, H, W), from here on: NumPy is several times slower over a last axis of three.
    scene = np.stack(cv2.split(cv2.resize(window, (size, size), interpolation=how))).astype(np.float32)
    scene *= np.float32(0.86 + 0.18 * draws[4])
    return scene


def _drawn(sticker: Sticker, size: int, draws: np.ndarray) -> np.ndarray:
    """A sticker where the draws put it, (size, size, 4)."""
    turn = (draws[1] - 0.5) * np.radians(24)
    scale = sticker.scale(size, (0.42, 0.80), draws[0])
    return sticker.placed(size, scale, turn, draws[2] < 0.5, draws[3], draws[4] ** 0.8)


def _paste(
    scene: np.ndarray, sticker: Sticker, pasted: np.ndarray, draws: np.ndarray, shadowed: bool
) -> np.ndarray:
    """Put a placed sticker (H, W, 4) into the scene (3, H, W); returns its mask (H, W)."""
    mask = pasted[..., 3] > 127
    x0, y0, x1, y1 = box_of_mask(mask)
    if shadowed:
        scene *= _shadow(pasted[..., 3], (y0, y1), draws[5:8])
    # The place's light: brightness and colour of the object move some of the way to those around it.
    around = scene[:, max(0, y0 - 12) : y1 + 13, max(0, x0 - 12) : x1 + 13]
    ambient = around.mean((1, 2)) / 255
    object_light, place_light = sticker.mean.mean() + 0.02, ambient.mean() + 0.02
    gain = np.clip((place_light / object_light) ** 0.28, 0.72, 1.3) * (0.92 + 0.16 * draws[8])
    cast = (ambient / place_light) ** 0.22
    contrast = 0.88 + 0.24 * draws[9]
    offset = 255 * (1 - contrast) * sticker.mean.mean()
    # Blend where the object is; its soft edge reaches a few pixels beyond the mask.
    there = (slice(max(0, y0 - 8), y1 + 9), slice(max(0, x0 - 8), x1 + 9))
    red, green, blue, alpha = np.stack(cv2.split(pasted[there])).astype(np.float32)
    alpha *= np.float32(1 / 255)
    for plane, colour, tone in zip(scene, (red, green, blue), gain * cast, strict=True):
        colour *= np.float32(tone * contrast)
        colour += alpha * np.float32(gain * offset)
        np.minimum(colour, 255 * alpha, out=colour)
        plane[there] *= 1 - alpha
        plane[there] += colour
    return mask


def _shadow(alpha: np.ndarray, rows: tuple[int, int], draws: np.ndarray) -> np.ndarray:
    """Light left under an object, (H, W) float32: dark and narrow where it touches, faint and wide around."""
    size, (y0, y1) = alpha.shape[0], rows
    # At a quarter of the resolution a wide blur is cheap, and a shadow has no detail to lose.
    small = cv2.resize(alpha, (size // 4, size // 4), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    touching = small.copy()
    touching[: (y1 - (y1 - y0) // 4) // 4] = 0
    near, wide = cv2.GaussianBlur(touching, (0, 0), 0.9), cv2.GaussianBlur(small, (0, 0), 2.2)
    both = cv2.resize(np.minimum(1, (0.25 + 0.35 * draws[0]) * near + 0.22 * wide), (size, size))
    move = np.array([[1, 0, (draws[1] - 0.5) * 0.06 * size], [0, 1, (0.008 + 0.02 * draws[2]) * size]])
    return 1 - cv2.warpAffine(both, move, (size, size), flags=cv2.INTER_LINEAR)


@functools.lru_cache(maxsize=4)
def _grain_tile(size: int) -> np.ndarray:
    """Sensor noise, (2 size, 2 size), of which a scene shows a window."""
    rng = np.random.default_rng(zlib.crc32(b"grain"))
    return rng.standard_normal((2 * size, 2 * size), dtype=np.float32)

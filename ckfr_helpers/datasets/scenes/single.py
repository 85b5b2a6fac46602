"""Scenes: one cut-out photograph pasted into one painted place, with exact mask and box.

``background_bias`` is what makes this more than a stand-in for a real data set. Every class has a usual kind
of place. At bias 0.9, nine in ten *training* scenes stand there, and a network can do well by looking at the
grass instead of the animal. Validation and test scenes have no such tie: every kind of place is equally
likely for every class. So a model that reads the background is found out, and how much can be measured.

The validation split is free of the tie too, and deliberately: whatever is chosen by it is chosen for what we
want the network to do. Someone with biased data only would have no such split; say so when you report.
"""

import functools
import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from ckfr_helpers.datasets.base import (
    Example,
    ImageSource,
    box_of_mask,
    check_split,
    make_example,
)
from ckfr_helpers.datasets.scenes.backgrounds import FAMILIES, places
from ckfr_helpers.datasets.scenes.photos import Cutout, class_ids, open_cutouts
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.runtime import CkfrError, check_number

SCENES_PER_CLASS = {"train": 100, "val": 25, "test": 50}
PLACES = {"train": 24, "val": 12, "test": 12}  # instances of each family
# Ground that things stand on or lie on throws a shadow beneath them; the sky and a hedge behind do not.
SHADOWED = frozenset({"grass", "sand", "snow", "stone", "wood", "fabric", "water"})
DRAWS = 24  # random numbers reserved for each scene, so that no choice shifts the ones after it


class PhotoScenes(ImageSource):
    """Labelled scenes from the embedded photographs.

    Scene ``i`` is a function of (seed, split, i) alone: any order, any number of workers, any length of the
    data set gives the same picture. Classes take turns, and within a class its photographs take turns, so
    both are balanced exactly whenever the number of scenes is a multiple of them.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``. Neither a photograph nor a place stands in two splits.
        size: side in pixels.
        scenes: how many; 100, 25 and 50 for each class where None.
        seed: another seed gives other scenes, and another usual place for each class.
        background_bias: probability, in [0, 1], that a training scene stands in its class's usual kind of
            place; otherwise the kind is drawn uniformly from all. Without effect on val and test.
        root: folder that holds ``photos/``, or that folder itself; None for ``data_root()``.
        cutouts: objects to paste instead of the split's photographs; needs ``hierarchy``.
        hierarchy: the tree of the classes; from WordNet for the photographs where None.
        instances: places in each family; 24 for train, 12 for val and test where None.

    Attributes:
        photos: names of the photographs; ``photo_of`` gives an index into it.
        usual: the usual family of every class, in label order; the same in all splits.
        background_bias: the bias in effect: 0 on val and test.

    Raises:
        CkfrError: if an option is out of range, photographs are missing or damaged, or a class has none.
    """

    name = "photos"

    def __init__(
        self,
        split: str,
        size: int = 160,
        scenes: int | None = None,
        seed: int = 0,
        background_bias: float = 0.0,
        root: str | Path | None = None,
        cutouts: Sequence[Cutout] | None = None,
        hierarchy: Hierarchy | None = None,
        instances: int | None = None,
    ) -> None:
        self.split = check_split(split)
        check_number("background_bias", background_bias, 0, 1)
        check_number("size", size, 32, whole=True)
        check_number("seed", seed, 0, whole=True)
        for option, value in (("scenes", scenes), ("instances", instances)):
            if value is not None:
                check_number(option, value, 1, whole=True)
        if cutouts is not None and hierarchy is None:
            raise CkfrError("Cut-outs of your own need a hierarchy that names their classes.")
        if cutouts is None:
            cutouts = open_cutouts(self.split, root)
        self.hierarchy = hierarchy or Hierarchy.from_wordnet(class_ids())
        count = len(self.classes)
        self.size, self.seed = size, seed
        self.background_bias = background_bias if self.split == "train" else 0.0
        self.instances = instances or PLACES[self.split]
        self.photos = tuple(cutout.name for cutout in cutouts)
        self._by_class = [
            [i for i, cutout in enumerate(cutouts) if cutout.label == one] for one in range(count)
        ]
        for one, members in enumerate(self._by_class):
            if not members:
                raise CkfrError(f"Class {self.hierarchy.names[one]!r} has no photograph in split {split}.")
        content = hashlib.sha256()
        for cutout in cutouts:
            content.update(repr((cutout.name, cutout.label, cutout.pixels.shape)).encode())
            content.update(np.ascontiguousarray(cutout.pixels).tobytes())
        self._content = content.hexdigest()
        self._stickers = [Sticker(cutout.pixels, size) for cutout in cutouts]
        self.labels = np.arange(scenes or count * SCENES_PER_CLASS[self.split], dtype=np.int64) % count
        self.usual = usual_families(count, seed)
        _ = self._places  # paint them now, once, rather than in every worker

    @property
    def _places(self) -> np.ndarray:
        # Looked up, not kept: a worker that is spawned should map the file, not receive a copy of it.
        return places(self.split, round(1.6 * self.size), self.instances)

    def fingerprint(self) -> str:
        """Changes with the cut-outs, any option, and the code that paints and composes."""
        options = (self.split, self.size, len(self), self.seed, self.background_bias, self.instances)
        digest = hashlib.sha256(repr((*options, self.usual, self._content, cv2.__version__)).encode())
        for part in ("single", "backgrounds", "painters", "noise"):
            digest.update((Path(__file__).parent / f"{part}.py").read_bytes())
        return digest.hexdigest()

    def photo_of(self, index: int) -> int:
        """Index into ``photos`` of the photograph in a scene; the unit for a bootstrap over photographs."""
        index = self._checked(index)
        members = self._by_class[self.labels[index]]
        return members[index // len(self.classes) % len(members)]

    def background_of(self, index: int) -> str:
        """Family of the place that a scene stands in."""
        return self._family(int(self.labels[self._checked(index)]), self._draws(index), None)

    def __getitem__(self, index: int) -> Example:
        return self.scene(index)

    def scene(self, index: int, background: str | None = None) -> Example:
        """Scene ``index``, if wished in another kind of place.

        With a background named, cut-out, size, position, turn and camera stay what they are: only the place
        changes, and with it the light that falls from it. Two such scenes are a matched pair.

        Args:
            index: which scene.
            background: a family; ``"usual"`` for the class's own; ``"foreign"`` for one of the others, drawn
                with the scene's own random number; None for the scene as it stands in the data set.

        Raises:
            IndexError: if there is no such scene.
            CkfrError: if there is no such background.
        """
        draws = self._draws(self._checked(index))
        label = int(self.labels[index])
        family = self._family(label, draws, background)
        picture, mask = compose(
            self._stickers[self.photo_of(index)],
            self._places[FAMILIES.index(family), int(draws[2] * self.instances)],
            draws[3:],
            family in SHADOWED,
        )
        return make_example(
            torch.from_numpy(picture),  # (3, H, W)
            label,
            torch.tensor([box_of_mask(mask)]),
            torch.from_numpy(mask),
            photo=self.photo_of(index),
        )

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"There are {len(self)} scenes; {index} is none of them.")
        return index

    def _draws(self, index: int) -> np.ndarray:
        words = [self.seed, zlib.crc32(self.split.encode()), index]
        return np.random.default_rng(words).random(DRAWS)

    def _family(self, label: int, draws: np.ndarray, background: str | None) -> str:
        own = self.usual[label]
        if background in FAMILIES:
            return background
        if background == "usual":
            return own
        if background == "foreign":
            others = [family for family in FAMILIES if family != own]
            return others[int(draws[1] * len(others))]
        if background is not None:
            raise CkfrError(
                f"There is no background {background!r}; expected usual, foreign or one of "
                f"{', '.join(FAMILIES)}."
            )
        return own if draws[0] < self.background_bias else FAMILIES[int(draws[1] * len(FAMILIES))]


def usual_families(classes: int, seed: int) -> tuple[str, ...]:
    """The usual family of every class: drawn at random per seed, each family for as many classes as the next.

    Random, not natural, on purpose: were every mammal usually on grass, the background would tell the
    hierarchy, and a study of the hierarchy could not tell the two apart.
    """
    rank = np.random.default_rng([seed, zlib.crc32(b"usual families")]).permutation(classes)
    return tuple(FAMILIES[position % len(FAMILIES)] for position in rank)


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
        total = max(float(edge.sum()), 1e-6)
        self.mean = (colour * edge[..., None]).sum((0, 1)) / total / 255  # (3,), RGB in [0, 1]
        full = np.dstack([colour * edge[..., None], edge * 255])
        level = np.clip(full + 0.5, 0, 255).astype(np.uint8)
        self.levels = [level]
        while max(self.levels[-1].shape[:2]) > 0.3 * size:
            half = cv2.resize(self.levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
            self.levels.append(half)
        while len(self.levels) > 1 and max(self.levels[1].shape[:2]) > size:  # never pasted that large
            self.levels.pop(0)

    def placed(self, size: int, scale: float, turn: float, mirror: bool, x: float, y: float) -> np.ndarray:
        """The sticker in an otherwise empty scene.

        Args:
            size: side of the scene.
            scale: long side of the sticker as a share of the scene's side.
            turn: clockwise, in radians.
            mirror: left and right exchanged.
            x: where in the free space from left (0) to right (1).
            y: where in the free space from top (0) to bottom (1).

        Returns:
            (size, size, 4) uint8: premultiplied RGB, alpha.
        """
        wanted = scale * size
        level = min(
            self.levels, key=lambda one: (max(one.shape[:2]) < wanted, abs(max(one.shape[:2]) - wanted))
        )
        height, width = level.shape[:2]
        zoom = wanted / max(height, width)
        cosine, sine = np.cos(turn) * zoom, np.sin(turn) * zoom
        reach_x = (abs(cosine) * width + abs(sine) * height) / 2
        reach_y = (abs(sine) * width + abs(cosine) * height) / 2
        centre_x = reach_x + x * max(0.0, size - 2 * reach_x) if 2 * reach_x < size else size / 2
        centre_y = reach_y + y * max(0.0, size - 2 * reach_y) if 2 * reach_y < size else size / 2
        flip = -1.0 if mirror else 1.0
        matrix = np.array([[cosine * flip, -sine, centre_x], [sine * flip, cosine, centre_y]])
        matrix[:, 2] -= matrix[:, :2] @ (width / 2, height / 2)
        return cv2.warpAffine(level, matrix, (size, size), flags=cv2.INTER_LINEAR)


def compose(
    sticker: Sticker, place: np.ndarray, draws: np.ndarray, shadowed: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Photograph a sticker in a place.

    Args:
        sticker: the object.
        place: (P, P, 3) uint8, larger than the scene; a window of it is shown.
        draws: at least 17 random numbers in [0, 1).
        shadowed: whether the object throws a soft shadow beneath it.

    Returns:
        ``(picture (3, H, W) uint8, mask (H, W) bool)``: the mask is where more than half is object.
    """
    size = round(place.shape[0] / 1.6)
    # The place: a window, mirrored half of the time, a little lighter or darker.
    side = int(size + draws[0] * (place.shape[0] - size))
    left, top = (int(draw * (place.shape[0] - side + 1)) for draw in draws[1:3])
    window = place[top : top + side, left : left + side]
    if draws[3] < 0.5:
        window = window[:, ::-1]
    how = cv2.INTER_AREA if side > 1.3 * size else cv2.INTER_LINEAR
    # From here on colours are planes, (3, H, W): NumPy is several times slower over a last axis of three.
    scene = np.stack(cv2.split(cv2.resize(window, (size, size), interpolation=how))).astype(np.float32)
    scene *= np.float32(0.86 + 0.18 * draws[4])
    # The object: never enlarged beyond twice the photograph's own pixels.
    # Long and thin things may be longer than round ones, or there would be little of them to see.
    height, width = sticker.levels[0].shape[:2]
    stretch = (max(height, width) / min(height, width)) ** 0.5
    largest = min(0.90, 0.80 * stretch, 2.0 * sticker.long_side / size)
    smallest = min(0.42 * stretch, 0.7 * largest)
    scale = smallest * (largest / smallest) ** draws[5]
    turn = (draws[6] - 0.5) * np.radians(24)
    pasted = sticker.placed(size, scale, turn, draws[7] < 0.5, draws[8], draws[9] ** 0.8)
    mask = pasted[..., 3] > 127
    x0, y0, x1, y1 = box_of_mask(mask)
    if shadowed:
        scene *= _shadow(pasted[..., 3], (y0, y1), draws[10:13])
    # The place's light: brightness and colour of the object move some of the way to those around it.
    around = scene[:, max(0, y0 - 12) : y1 + 13, max(0, x0 - 12) : x1 + 13]
    ambient = around.mean((1, 2)) / 255
    object_light, place_light = sticker.mean.mean() + 0.02, ambient.mean() + 0.02
    gain = np.clip((place_light / object_light) ** 0.28, 0.72, 1.3) * (0.92 + 0.16 * draws[13])
    cast = (ambient / place_light) ** 0.22
    contrast = 0.88 + 0.24 * draws[14]
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
    scene += _grain(size, draws[15], draws[16])
    scene += np.float32(0.5)
    return np.clip(scene, 0, 255, out=scene).astype(np.uint8), mask


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
    rng = np.random.default_rng(zlib.crc32(b"grain"))
    return rng.standard_normal((2 * size, 2 * size), dtype=np.float32)


def _grain(size: int, at: float, strength: float) -> np.ndarray:
    """Sensor noise over the whole picture, object and place alike. (size, size)"""
    corner = int(at * size)
    tile = _grain_tile(size)[corner : corner + size, size - corner : 2 * size - corner]
    return tile * np.float32(1 + 2.5 * strength)

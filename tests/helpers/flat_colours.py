"""The one painted source of all tests: four classes of flat colours with noise, learnable in seconds.

``conftest`` registers it, so that ``open_source("flat-colours", "train", per_class=24)`` opens it too.
"""

from pathlib import Path

import numpy as np
import torch

from ckfr_helpers.datasets.base import SPLITS, Example, ImageSource, check_split, make_example
from ckfr_helpers.hierarchy import Hierarchy

TREE = Hierarchy.from_nested({"thing": {"warm": ["red", "orange"], "cold": ["blue", "green"]}})
COLOURS = {"red": (220, 30, 30), "orange": (230, 140, 20), "blue": (30, 40, 220), "green": (30, 180, 60)}
GREY = 128


class FlatColours(ImageSource):
    """Example ``i`` is a function of (seed, split, i) alone; classes take turns.

    Args:
        split: each has pictures of its own.
        root: ignored, as `open_source` may give one.
        per_class: pictures of each class.
        size: side in pixels.
        noise: each value is off by up to this many grey levels.
        boxes, masks: the colour fills a rectangle on grey, and its box or mask is told; else all of it.
        seed: another seed gives another noise.
    """

    name = "flat-colours"
    hierarchy = TREE

    def __init__(
        self,
        split: str = "train",
        root: str | Path | None = None,
        per_class: int = 8,
        size: int = 32,
        noise: int = 60,
        boxes: bool = False,
        masks: bool = False,
        seed: int = 0,
    ) -> None:
        self.split = check_split(split)
        self.labels = np.arange(4 * per_class, dtype=np.int64) % 4
        self.size, self.noise, self.boxes, self.masks, self.seed = size, noise, boxes, masks, seed

    def fingerprint(self) -> str:
        return repr((self.split, len(self), self.size, self.noise, self.boxes, self.masks, self.seed))

    def __getitem__(self, index: int) -> Example:
        index = range(len(self))[index]
        label, size = int(self.labels[index]), self.size
        draw = np.random.default_rng((self.seed, SPLITS.index(self.split), index))
        mask = np.ones((size, size), bool)
        x0 = y0 = 0
        x1 = y1 = size - 1
        if self.boxes or self.masks:
            width, height = draw.integers(size // 3, size // 2, 2, endpoint=True)
            x0, y0 = draw.integers(0, (size - width, size - height), endpoint=True)
            x1, y1 = x0 + width - 1, y0 + height - 1
            mask[:] = False
            mask[y0 : y1 + 1, x0 : x1 + 1] = True
        colour = np.array(COLOURS[self.classes[label]])[:, None, None]
        picture = np.where(mask, colour, GREY) + draw.integers(-self.noise, self.noise + 1, (3, size, size))
        return make_example(
            torch.from_numpy(picture.clip(0, 255).astype(np.uint8)),
            label,
            torch.tensor([[x0, y0, x1, y1]]) if self.boxes else None,
            torch.from_numpy(mask) if self.masks else None,
        )

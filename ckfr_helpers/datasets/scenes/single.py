"""Scenes: one cut-out photograph pasted into one painted place, with exact mask and box.

Every class has a usual kind of place. At ``background_bias`` 0.9, nine in ten *training* scenes stand there,
and a network can do well by looking at the grass instead of the animal. Validation and test scenes have no
such tie, so a model that reads the background is found out, and what is chosen by validation is chosen for
what we want. Someone with biased data only would have no such split; say so when you report.
"""

import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from ckfr_helpers.datasets.base import Example, ImageSource, box_of_mask, check_split, make_example
from ckfr_helpers.datasets.scenes.backgrounds import FAMILIES, places
from ckfr_helpers.datasets.scenes.compose import MARGIN, Sticker, compose
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

    No photograph and no place stands in two splits.

    Args:
        size: side in pixels, at least 32.
        scenes: how many; 100, 25 and 50 for each class of train, val and test where None.
        seed: another seed gives other scenes, and another usual place for each class.
        background_bias: probability that a training scene stands in its class's usual kind of place;
            otherwise the kind is drawn uniformly from all. Without effect on val and test.
        root: folder that holds ``photos/``, or that folder itself.
        cutouts, hierarchy: what to paste instead of the split's photographs, and the tree of its classes.
        instances: places in each family; 24 for train, 12 for val and test where None.

    Attributes:
        photos: names of the photographs; ``photo_of`` gives an index into it.
        usual: the usual family of every class, in label order; the same in all splits.

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
        self.hierarchy = hierarchy or Hierarchy.from_wordnet(class_ids())
        count = len(self.classes)
        scenes = count * SCENES_PER_CLASS[split] if scenes is None else scenes
        instances = PLACES[split] if instances is None else instances
        check_number("background_bias", background_bias, 0, 1)
        check_number("size", size, 32, whole=True)
        check_number("scenes", scenes, 1, whole=True)
        check_number("seed", seed, 0, whole=True)
        check_number("instances", instances, 1, whole=True)
        cutouts = open_cutouts(self.split, root) if cutouts is None else cutouts
        self.size, self.seed, self.instances = size, seed, instances
        self.background_bias = background_bias if split == "train" else 0.0
        self.photos = tuple(cutout.name for cutout in cutouts)
        self._owner = np.array([cutout.label for cutout in cutouts])
        self._by_class = [np.flatnonzero(self._owner == one).tolist() for one in range(count)]
        if [] in self._by_class:
            name = self.hierarchy.names[self._by_class.index([])]
            raise CkfrError(f"Class {name!r} has no photograph in split {split}.")
        self._stickers = [Sticker(cutout.pixels, size) for cutout in cutouts]
        self._content = [hashlib.sha256(cutout.pixels.tobytes()).hexdigest() for cutout in cutouts]
        self.labels = np.arange(scenes, dtype=np.int64) % count
        self.usual = usual_families(count, seed)
        _ = self._places  # paint them now, once, rather than in every worker

    @property
    def _places(self) -> np.ndarray:
        # Looked up, not kept: a worker that is spawned should map the file, not receive a copy of it.
        return places(self.split, round(MARGIN * self.size), self.instances)

    def fingerprint(self) -> str:
        """Changes with the cut-outs, any option, and the code that paints and composes."""
        options = (self.split, self.size, len(self), self.seed, self.background_bias, self.instances)
        content = (self._content, self.photos, self._by_class, self.usual, cv2.__version__)
        digest = hashlib.sha256(repr((options, content)).encode())
        for part in sorted(Path(__file__).parent.glob("*.py")):
            digest.update(part.read_bytes())
        return digest.hexdigest()

    def where(self, index: int) -> str:
        return f"{super().where(index)} ({self.photos[self.photo_of(index)]})"

    def photo_of(self, index: int) -> int:
        """Index into ``photos`` of the photograph in a scene; the unit for a bootstrap over photographs."""
        index = range(len(self))[index]
        members = self._by_class[self.labels[index]]
        return members[index // len(self.classes) % len(members)]

    def background_of(self, index: int, background: str | None = None) -> str:
        """Family of the place that a scene stands in, or would with a background as `scene` takes it."""
        own, draws = self.usual[self.labels[index]], self._draws(index)
        if background is None:
            return own if draws[0] < self.background_bias else FAMILIES[int(draws[1] * len(FAMILIES))]
        if background == "foreign":
            others = [family for family in FAMILIES if family != own]
            return others[int(draws[1] * len(others))]
        if background not in ("usual", *FAMILIES):
            known = ", ".join(("usual", "foreign", *FAMILIES))
            raise CkfrError(f"There is no background {background!r}; expected one of {known}.")
        return own if background == "usual" else background

    def __getitem__(self, index: int) -> Example:
        return self.scene(index)

    def scene(self, index: int, background: str | None = None) -> Example:
        """Scene ``index``, if wished in another kind of place.

        With a background named, cut-out, size, position, turn and camera stay what they are: only the place
        changes, and with it the light that falls from it. Two such scenes are a matched pair.

        Args:
            background: a family; ``"usual"`` for the class's own; ``"foreign"`` for one of the others, drawn
                with the scene's own random number; None for the scene as it stands in the data set. Another
                is refused with a `CkfrError`.
        """
        draws, family = self._draws(index), self.background_of(index, background)
        place = self._places[FAMILIES.index(family), int(draws[2] * self.instances)]
        sticker = self._stickers[self.photo_of(index)]
        picture, masks = compose([sticker], place, draws[3:], family in SHADOWED)
        return make_example(
            torch.from_numpy(picture),  # (3, H, W)
            self.labels[index],
            torch.tensor([box_of_mask(masks[0])]),
            torch.from_numpy(masks),
            photo=self.photo_of(index),
        )

    def _draws(self, index: int) -> np.ndarray:
        words = [self.seed, zlib.crc32(self.split.encode()), range(len(self))[index]]
        return np.random.default_rng(words).random(DRAWS)


class OnBackground(ImageSource):
    """Every scene of a source with one background, as `PhotoScenes.scene` takes it.

    Scene ``i`` on ``"usual"`` and on ``"foreign"`` are a matched pair: what a network says of the two can
    differ through the background alone.
    """

    def __init__(self, scenes: PhotoScenes, background: str) -> None:
        scenes.scene(0, background)  # an unknown background is refused now, not in a worker
        self.scenes, self.background = scenes, background
        self.name, self.split, self.hierarchy = scenes.name, scenes.split, scenes.hierarchy
        self.labels = scenes.labels

    def fingerprint(self) -> str:
        return f"{self.scenes.fingerprint()}-{self.background}"

    def where(self, index: int) -> str:
        return f"{self.scenes.where(index)}, {self.background} background"

    def __getitem__(self, index: int) -> Example:
        return self.scenes.scene(index, self.background)


def usual_families(classes: int, seed: int) -> tuple[str, ...]:
    """The usual family of every class: drawn at random per seed, each family for as many classes as the next.

    Not natural, on purpose: were every mammal usually on grass, the background would tell the hierarchy, and
    a study of the hierarchy could not tell the two apart.
    """
    rank = np.random.default_rng([seed, zlib.crc32(b"usual families")]).permutation(classes)
    return tuple(FAMILIES[position % len(FAMILIES)] for position in rank)

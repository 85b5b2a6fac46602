"""Scenes with several objects, for multi-label classification, detection and retrieval.

    source = open_source("several-photos", "train", size=256, objects=(2, 4))
    image, target = source[0]
    target["labels"], target["boxes"], target["box_labels"]

Objects are pasted from back to front, those that stand higher in the picture first, as in a photograph of
things on the ground; boxes and masks are those of the parts that nothing covers.
"""

import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ckfr_helpers.datasets.base import Example, box_of_mask, make_example
from ckfr_helpers.datasets.scenes.backgrounds import FAMILIES, places
from ckfr_helpers.datasets.scenes.compose import CAMERA, GRAIN, MARGIN, OBJECT, compose
from ckfr_helpers.datasets.scenes.photos import Cutout
from ckfr_helpers.datasets.scenes.single import SHADOWED, PhotoScenes
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.runtime import CkfrError, check_number

CHOICES = 5  # random numbers of a scene: kind of place (two), place, number of objects, paired or not
TRIES = 60  # positions, sizes and turns an object tries until it finds room


class SeveralScenes(PhotoScenes):
    """Labelled scenes of one to a few embedded photographs, all of different classes.

    As in `PhotoScenes`, scene ``i`` is a function of (seed, split, i) and the options; no photograph and no
    place stands in two splits; classes, and photographs within them, take turns as a scene's first object.
    The further objects' classes are drawn uniformly from the classes that the scene has not yet.

    A target has ``labels`` (C,) multi-hot float32, ``boxes`` (n, 4), ``box_labels`` (n,) int64, ``masks``
    (n, H, W), ``photos`` (n,) int64 into the attribute of that name, and ``visible`` (n,) float32. Objects
    stand in the order in which they were drawn: ``label`` is the first one's. An object that finds no room is
    left out, which in 2,000 scenes of up to four objects with the default sizes never happened.

    Args:
        objects: fewest and most objects in a scene.
        pairing: probability, in [0, 1], that the second object of a *training* scene is of the partner class
            of the first; otherwise it is drawn as all are. Without effect on val and test.
        sides: smallest and largest long side of an object, as a share of the picture's. Long and thin things
            may be longer; nothing is enlarged beyond twice its photograph's own pixels.
        overlap: the share of an object, in [0, 1), that others may cover, or that it may cover of another.
        turn: largest turn to either side, in degrees.
        gather: how far the others move towards the first object, from 0 (not at all) to 1 (all the way).
        split, size, scenes, seed, root, cutouts, hierarchy, instances: as in `PhotoScenes`.

    Attributes:
        partners: (C,) int64, the partner of every class; the same in all splits.
        pairing: the probability in effect: 0 on val and test.

    Raises:
        CkfrError: as `PhotoScenes`, and if objects outnumber classes or another option is out of range.
    """

    name = "several-photos"

    def __init__(
        self,
        split: str,
        size: int = 160,
        scenes: int | None = None,
        seed: int = 0,
        objects: Sequence[int] = (1, 3),
        pairing: float = 0.0,
        sides: Sequence[float] = (0.22, 0.45),
        overlap: float = 0.25,
        turn: float = 12.0,
        gather: float = 0.0,
        root: str | Path | None = None,
        cutouts: Sequence[Cutout] | None = None,
        hierarchy: Hierarchy | None = None,
        instances: int | None = None,
    ) -> None:
        self.bank = split  # whose places, and which random numbers
        super().__init__(split, size, scenes, seed, 0.0, root, cutouts, hierarchy, instances)
        count = len(self.classes)
        for name, pair in (("objects", objects), ("sides", sides)):
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise CkfrError(f"{name} is {pair!r}; expected the least and the most.")
        check_number("The fewest objects", objects[0], 1, whole=True)
        check_number("The most objects", objects[1], objects[0], count, whole=True)
        check_number("The smallest side", sides[0], 0.05, 0.9)
        check_number("The largest side", sides[1], sides[0], 0.9)
        check_number("pairing", pairing, 0, 1)
        check_number("overlap", overlap, 0, 1, below=True)
        check_number("turn", turn, 0, 180)
        check_number("gather", gather, 0, 1)
        self.objects, self.sides = (objects[0], objects[1]), (sides[0], sides[1])
        self.overlap, self.turn, self.gather = overlap, turn, gather
        self.pairing = pairing if split == "train" else 0.0
        self.partners = partner_classes(count, seed)

    @property
    def _places(self) -> np.ndarray:
        return places(self.bank, round(MARGIN * self.size), self.instances)

    def fingerprint(self) -> str:
        """Changes with the cut-outs, any option, and the code that paints and composes."""
        options = (self.bank, self.objects, self.pairing, self.sides, self.overlap, self.turn, self.gather)
        return hashlib.sha256(repr((super().fingerprint(), options)).encode()).hexdigest()

    def scene(self, index: int, background: str | None = None) -> Example:
        """Scene ``index``, if wished in another kind of place, as in `PhotoScenes.scene`.

        ``"usual"`` and ``"foreign"`` are those of the first object's class.
        """
        draws, family = self._draws(index), self.background_of(index, background)
        photos, placed = self._arrange(index, self._contents(index, draws))
        whole = [layer[..., 3] > 127 for layer in placed]
        # Who stands lower in the picture stands nearer and is pasted over the others.
        order = sorted(range(len(photos)), key=lambda one: box_of_mask(whole[one])[3])
        camera = draws[CHOICES + 2 * self.objects[1] :]
        own = camera[CAMERA : CAMERA + self.objects[1] * OBJECT].reshape(-1, OBJECT)
        picture, masks = compose(
            [self._stickers[photos[one]] for one in order],
            self._places[FAMILIES.index(family), int(draws[2] * self.instances)],
            np.concatenate([camera[:CAMERA], *own[order], camera[-GRAIN:]]),
            family in SHADOWED,
            [placed[one] for one in order],
        )
        masks = masks[np.argsort(order)]
        box_labels = torch.from_numpy(self._owner[photos]).long()
        return make_example(
            torch.from_numpy(picture),  # (3, H, W)
            self.labels[index],
            torch.tensor([box_of_mask(mask) for mask in masks]),
            torch.from_numpy(masks),
            labels=torch.zeros(len(self.classes)).index_fill_(0, box_labels, 1.0),
            box_labels=box_labels,
            photos=torch.tensor(photos),
            visible=torch.tensor([m.sum() / w.sum() for m, w in zip(masks, whole, strict=True)]).float(),
        )

    def _contents(self, index: int, draws: np.ndarray) -> list[int]:
        """Photographs that scene ``index`` is to show."""
        photos = [self.photo_of(index)]
        classes = [int(self.labels[index])]
        fewest, most = self.objects
        for number in range(1, fewest + int(draws[3] * (most - fewest + 1))):
            which_class, which_photo = draws[CHOICES + 2 * number :][:2]
            left = [one for one in range(len(self.classes)) if one not in classes]
            paired = number == 1 and draws[4] < self.pairing
            label = int(self.partners[classes[0]]) if paired else left[int(which_class * len(left))]
            members = self._by_class[label]
            classes.append(label)
            photos.append(members[int(which_photo * len(members))])
        return photos

    def _arrange(self, index: int, photos: list[int]) -> tuple[list[int], list[np.ndarray]]:
        """Photographs that found room, and each in an otherwise empty scene (H, W, 4)."""
        found: list[int] = []
        layers: list[np.ndarray] = []
        masks: list[np.ndarray] = []
        areas: list[int] = []
        shared: list[int] = []  # pixels that each has in common with others
        middle = None  # where the first object is
        for number, photo in enumerate(photos):
            sticker = self._stickers[photo]
            for draws in np.random.default_rng([*self._words(index), number]).random((TRIES, 5)):
                scale = sticker.scale(self.size, self.sides, draws[0])
                angle = (2 * draws[1] - 1) * np.radians(self.turn)
                spot = np.array([draws[3], draws[4] ** 0.8])
                if middle is not None:
                    spot += self.gather * (middle - spot)
                layer = sticker.placed(self.size, scale, angle, draws[2] < 0.5, *spot)
                mask = layer[..., 3] > 127
                area = int(mask.sum())
                common = [int((mask & other).sum()) for other in masks]
                after = [*(s + c for s, c in zip(shared, common, strict=True)), sum(common)]
                if area and all(s <= self.overlap * a for s, a in zip(after, [*areas, area], strict=True)):
                    found.append(photo)
                    layers.append(layer)
                    masks.append(mask)
                    areas.append(area)
                    shared = after
                    middle = spot if middle is None else middle
                    break
        return found, layers

    def _words(self, index: int) -> list[int]:
        return [self.seed, zlib.crc32(self.bank.encode()), range(len(self))[index]]

    def _draws(self, index: int) -> np.ndarray:
        most = self.objects[1]
        return np.random.default_rng(self._words(index)).random(
            CHOICES + 2 * most + CAMERA + most * OBJECT + GRAIN
        )


def partner_classes(classes: int, seed: int) -> np.ndarray:
    """(C,) int64: another class for every class, drawn at random per seed and not by the tree.

    Partners are each other's; where the number of classes is odd, the last one's is one that has another.
    """
    order = np.random.default_rng([seed, zlib.crc32(b"partner classes")]).permutation(classes)
    partners = np.empty(classes, np.int64)
    partners[order[-1:]] = order[0]
    for one, other in zip(order[::2], order[1::2], strict=False):
        partners[one], partners[other] = other, one
    return partners

"""CIFAR-10 and CIFAR-100: 32 × 32 pictures, no boxes.

    cifar-10-batches-py/ or cifar-100-python/     torchvision's own folders
    cifar10.npz                                   the same pictures, from npm (`fetching.cifar`)

Classes are placed in WordNet by hand (``wordnet.class_list``). The official split has training and test
pictures only; ``"val"`` is carved out of the training pictures, the same number of each class. Krizhevsky,
*Learning Multiple Layers of Features from Tiny Images*, 2009.
"""

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import torch
from torchvision import datasets

from ckfr_helpers.datasets.base import Example, ImageSource, check_split, make_example
from ckfr_helpers.datasets.files import root_folder
from ckfr_helpers.datasets.subset import carve_validation
from ckfr_helpers.hierarchy import wordnet
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.runtime import CkfrError

NPZ = "cifar10.npz"
KINDS = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}


class Cifar(ImageSource):
    """One split of CIFAR-10 or CIFAR-100, held in memory (150 MB for the training pictures).

    Args:
        split: ``"train"``, ``"val"`` (carved from the training pictures) or ``"test"`` (the official one).
        name: ``"cifar10"`` or ``"cifar100"``.
        root: folder that holds one of the places above, or that place itself; None for ``data_root()``.
        val_fraction: share of each class's training pictures that become ``"val"``; 0.1 makes 5000.
        seed: which of them.

    Attributes:
        images: (N, 3, 32, 32) uint8.
        label_names: the data set's own names (``"automobile"``) in its own label order.

    Raises:
        CkfrError: if the data is missing or damaged.
    """

    def __init__(
        self,
        split: str,
        name: str = "cifar10",
        root: str | Path | None = None,
        val_fraction: float = 0.1,
        seed: int = 0,
    ) -> None:
        self.name, self.split = name, check_split(split)
        place = find(root_folder(root), name)
        if place is None:
            expected = root_folder(root) / KINDS[name].base_folder
            raise CkfrError(f"{name} is not here: expected {expected}; `ckfr fetch {name}` brings it.")
        images, labels = _read(place, name, "test" if split == "test" else "train")
        if split != "test":
            keep = carve_validation(labels, val_fraction, seed)[split == "val"]
            images, labels = images[keep], labels[keep]
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        self.labels = labels
        self.label_names = wordnet.class_names(name)
        self.hierarchy = Hierarchy.from_wordnet(wordnet.class_list(name))

    def fingerprint(self) -> str:
        """Changes with any pixel or label."""
        return hashlib.sha256(self.images.numpy().tobytes() + self.labels.tobytes()).hexdigest()

    def __getitem__(self, index: int) -> Example:
        """Picture (3, 32, 32) and its label; CIFAR has neither boxes nor masks."""
        return make_example(self.images[index], self.labels[index])


def find(base: Path, name: str) -> Path | None:
    """Where CIFAR lies, in ``base`` or as ``base`` itself; None if it is not there."""
    own = KINDS[name].base_folder
    folders = [place for place in (base / own, base) if place.name == own and place.is_dir()]
    files = [place for place in (base / NPZ, base) if name == "cifar10" and place.is_file()]
    return next(iter(folders + files), None)


def _read(place: Path, name: str, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (N, 32, 32, 3) uint8 and labels (N,) int64 of the official training or test part."""
    try:
        if place.is_dir():
            official = KINDS[name](place.parent, train=part == "train")  # compares each file's checksum
            return official.data, np.array(official.targets, dtype=np.int64)
        with np.load(place) as arrays:
            return arrays[f"{part}_images"], arrays[f"{part}_labels"]
    except (RuntimeError, KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise CkfrError(
            f"{place} is damaged or not {name} as published ({error}); remove it and `ckfr fetch {name}`."
        ) from error

"""CIFAR-10 and CIFAR-100 from torchvision's own folder layout: 32 × 32 pictures, no boxes.

    cifar-10-batches-py/   data_batch_1 … data_batch_5, test_batch, batches.meta
    cifar-100-python/      train, test, meta

Classes are placed in WordNet by hand (``wordnet.class_list``). The official split has training and test
pictures only; ``"val"`` is carved out of the training pictures, the same number of each class. Krizhevsky,
*Learning Multiple Layers of Features from Tiny Images*, 2009. How the files come here: `cifar_fetch`.
"""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ckfr_helpers.datasets.base import Example, ImageSource, check_split, make_example
from ckfr_helpers.datasets.files import find_folder
from ckfr_helpers.datasets.splits import carve_validation
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.runtime import CkfrError, load_plain_pickle


class Layout(NamedTuple):
    """What the folder of one of the two data sets holds."""

    title: str
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    labels_key: str
    names_key: str
    classes: int


LAYOUTS = {
    "cifar10": Layout(
        "CIFAR-10",
        "cifar-10-batches-py",
        tuple(f"data_batch_{number}" for number in range(1, 6)),
        ("test_batch",),
        "batches.meta",
        "labels",
        "label_names",
        10,
    ),
    "cifar100": Layout(
        "CIFAR-100",
        "cifar-100-python",
        ("train",),
        ("test",),
        "meta",
        "fine_labels",
        "fine_label_names",
        100,
    ),
}
TRAIN_SIZE, TEST_SIZE = 50_000, 10_000


class Cifar(ImageSource):
    """One split of CIFAR-10 or CIFAR-100, held in memory (150 MB for the training pictures).

    Unlike ``torchvision.datasets.CIFAR10`` this reads any copy in the right layout, whatever its pickles'
    checksums: files rebuilt from another distribution hold the same pixels and labels but cannot be
    identical byte for byte. It checks shapes and the number of pictures of every class instead.

    Args:
        split: ``"train"``, ``"val"`` (carved from the training pictures) or ``"test"`` (the official one).
        name: ``"cifar10"`` or ``"cifar100"``.
        root: folder that holds ``cifar-10-batches-py/`` or ``cifar-100-python/``, or that folder itself; None
            for ``data_root()``.
        val_fraction: share of each class's training pictures that become ``"val"``; 0.1 makes 5000.
        seed: which of them.

    Raises:
        CkfrError: if the data is missing, damaged, or not CIFAR.
    """

    def __init__(
        self,
        split: str,
        name: str = "cifar10",
        root: str | Path | None = None,
        val_fraction: float = 0.1,
        seed: int = 0,
    ) -> None:
        from ckfr_helpers.hierarchy import wordnet

        layout = layout_of(name)
        self.name, self.split = name, check_split(split)
        folder = find_folder(root, layout.folder, layout.meta, layout.title, f"`ckfr fetch {name}` brings it")
        images, labels = read_batches(folder, layout, test=split == "test")
        keep = np.arange(len(labels))
        if split != "test":
            keep = carve_validation(labels, val_fraction, seed)[split == "val"]
        self.images = torch.from_numpy(images[keep])  # (N, 3, 32, 32) uint8
        self.labels = labels[keep]
        # The data set's own names ("automobile"), in its own label order.
        self.label_names = _label_names(folder, layout)
        if self.label_names != wordnet.class_names(name):
            raise CkfrError(
                f"{folder / layout.meta} lists the classes {', '.join(self.label_names[:3])}, …; expected "
                f"{layout.title}'s in their usual order: {', '.join(wordnet.class_names(name)[:3])}, …."
            )
        self.hierarchy = Hierarchy.from_wordnet(wordnet.class_list(name))

    def fingerprint(self) -> str:
        """Changes with any pixel."""
        return hashlib.sha256(self.images.numpy()).hexdigest()

    def __getitem__(self, index: int) -> Example:
        """Picture (3, 32, 32) and its label; CIFAR has neither boxes nor masks."""
        return make_example(self.images[index], self.labels[index])


def layout_of(name: str) -> Layout:
    """The layout of ``"cifar10"`` or ``"cifar100"``.

    Raises:
        CkfrError: if it is neither.
    """
    if name not in LAYOUTS:
        raise CkfrError(f"There is no CIFAR called {name!r}; expected one of {', '.join(LAYOUTS)}.")
    return LAYOUTS[name]


def read_batches(folder: Path, layout: Layout, test: bool) -> tuple[np.ndarray, np.ndarray]:
    """All official training or test pictures, checked for shape, number and balance.

    Args:
        folder: the folder of `layout`.
        layout: which data set.
        test: the test pictures instead of the training pictures.

    Returns:
        (N, 3, 32, 32) uint8 pictures and (N,) int64 labels, N = 50,000 or 10,000.

    Raises:
        CkfrError: if a file is missing, damaged, or not what the layout says.
    """
    images, labels = [], []
    for file in layout.test if test else layout.train:
        batch = load_pickle(folder / file)
        try:
            pixels, marks = batch["data"], batch[layout.labels_key]
        except (KeyError, TypeError) as error:
            raise CkfrError(f"{folder / file} is no batch of {layout.title}: it has no {error}.") from error
        if (
            not isinstance(pixels, np.ndarray)
            or pixels.dtype != np.uint8
            or pixels.shape != (len(marks), 3072)
        ):
            raise CkfrError(
                f"{folder / file} is no batch of {layout.title}: expected one row of 3072 bytes a label."
            )
        images.append(pixels.reshape(-1, 3, 32, 32))
        labels.append(np.asarray(marks, dtype=np.int64))
    all_images, all_labels = np.concatenate(images), np.concatenate(labels)
    each = (TEST_SIZE if test else TRAIN_SIZE) // layout.classes
    counts = np.bincount(all_labels, minlength=layout.classes)
    if len(counts) != layout.classes or (counts != each).any():
        worst = int(np.argmax(counts != each)) if (counts != each).any() else layout.classes
        raise CkfrError(
            f"{folder} is no complete {layout.title}: class {worst} has {counts[worst]} "
            f"{'test' if test else 'training'} pictures; expected {each} of each of {layout.classes} classes."
        )
    return all_images, all_labels


def _label_names(folder: Path, layout: Layout) -> tuple[str, ...]:
    meta = load_pickle(folder / layout.meta)
    try:
        return tuple(meta[layout.names_key])
    except (KeyError, TypeError, AttributeError) as error:
        raise CkfrError(f"{folder / layout.meta} does not list the class names of {layout.title}.") from error


def load_pickle(path: Path) -> Any:
    """Read one of CIFAR's pickles without letting it run anything else; texts come back as str.

    Raises:
        CkfrError: if the file is missing, damaged, or asks for more than arrays, numbers and strings.
    """
    if not path.is_file():
        raise CkfrError(f"The file {path} is missing; expected it beside the other batches.")
    return load_plain_pickle(path, "a batch of CIFAR pictures")

"""What every image source looks like: pictures, each with a target that holds what is known of it."""

from abc import ABC, abstractmethod
from typing import Any, Literal, TypedDict

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat, Image, Mask

from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.runtime import CkfrError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class Target(TypedDict, total=False):
    """What is known of a picture; a key that a source knows nothing of is absent.

    Attributes:
        label: index into the source's ``classes``.
        labels: (C,) float32 or bool, one entry a class, where a picture may belong to several.
        boxes: (n, 4) float32 ``[x0, y0, x1, y1]`` in pixels, both ends inside the object.
        masks: (n, H, W) bool, true on each object.
        box_labels: (n,) int64, the class of each object.
        difficult: (n,) bool, objects, or crowds of them, whose finding or missing detection scores ignore.
        photo: which photograph the picture shows; pictures of one photograph are not independent.
        photos: (n,) int64, the same for each object.
        visible: (n,) float32, the share of each object that no other covers.
        text: a description.
        metadata: anything else, e.g. place and date.
    """

    label: int
    labels: Tensor
    boxes: BoundingBoxes
    masks: Mask
    box_labels: Tensor
    difficult: Tensor
    photo: int
    photos: Tensor
    visible: Tensor
    text: str
    metadata: dict[str, Any]


PER_OBJECT = frozenset({"boxes", "masks", "box_labels", "difficult", "photos", "visible"})
"""Keys of `Target` with one entry an object; pictures differ in how many they have."""

Example = tuple[Image, Target]
"""One picture, (3, H, W) uint8 RGB, and what is known of it: the form torchvision's v2 transforms take."""


def make_example(
    image: Tensor, label: int, boxes: Tensor | None = None, masks: Tensor | None = None, **more: Any
) -> Example:
    """An `Example` from plain tensors; what is None stays out of the target.

    >>> import torch
    >>> image, target = make_example(torch.zeros(3, 4, 6, dtype=torch.uint8), 2, torch.tensor([[0, 1, 5, 3]]))
    >>> target["label"], target["boxes"].tolist(), target["boxes"].canvas_size, "masks" in target
    (2, [[0.0, 1.0, 5.0, 3.0]], (4, 6), False)

    Masks may be (H, W) for one object; all else, and ``more``, is as `Target` says.
    """
    target: Target = {"label": int(label)}
    if boxes is not None:
        size = (image.shape[-2], image.shape[-1])
        target["boxes"] = BoundingBoxes(boxes.float(), format=BoundingBoxFormat.XYXY, canvas_size=size)
    if masks is not None:
        target["masks"] = Mask(masks.bool() if masks.ndim == 3 else masks.bool()[None])
    target.update(more)  # type: ignore[typeddict-item]
    return Image(image), target


class ImageSource(Dataset[Example], ABC):
    """One split of one data set, with the class hierarchy it is labelled by.

    Attributes:
        name: what ``open_source`` calls it, e.g. ``"photos"``.
        split: ``"train"``, ``"val"`` or ``"test"``.
        hierarchy: the tree whose leaves are the classes.
        labels: (N,) int64, the label of every example, known without opening a picture.
    """

    name: str
    split: Split
    hierarchy: Hierarchy
    labels: np.ndarray

    @property
    def classes(self) -> tuple[str, ...]:
        """Class ids in label order: ``classes[label]``."""
        return self.hierarchy.classes

    def __len__(self) -> int:
        return len(self.labels)

    def fingerprint(self) -> str:
        """A string that changes whenever a picture, box or mask might: the key of the source's caches."""
        raise CkfrError(f"{self.name} has no fingerprint() to tell when a cache of it is stale; give it one.")

    def where(self, index: int) -> str:
        """What to call an example in a message; sources of files name the file."""
        return f"example {index} of {self.name} {self.split}"

    @abstractmethod
    def __getitem__(self, index: int) -> Example:
        """Example ``index``; the same index gives the same example in every process."""


def check_split(split: str) -> Split:
    """Return ``split`` if it is train, val or test; else raise a `CkfrError`."""
    if split not in SPLITS:
        raise CkfrError(f"There is no split {split!r}; expected one of {', '.join(SPLITS)}.")
    return split


def box_of_mask(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Smallest box ``(x0, y0, x1, y1)`` around the true pixels of a (H, W) mask, both ends among them."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        raise CkfrError("An empty mask has no box; expected at least one object pixel.")
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])

"""What every image source looks like: an image, its label, and boxes or a mask where the source has them."""

import math
import numbers
from abc import ABC, abstractmethod
from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.runtime import CkfrError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class Example(NamedTuple):
    """One labelled picture.

    Attributes:
        image: (3, H, W) uint8, RGB.
        label: index into the source's ``classes``.
        boxes: (n, 4) float32 ``[x0, y0, x1, y1]`` in pixels, both ends inside the object; None where the
            source has no boxes.
        mask: (H, W) bool, true on the object; None where the source has no masks.
    """

    image: Tensor
    label: int
    boxes: Tensor | None
    mask: Tensor | None


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
        """A string that changes whenever any picture, box or mask of the source might: the key of its caches.

        Raises:
            CkfrError: if the source cannot tell.
        """
        raise CkfrError(
            f"The source {self.name} has no fingerprint, so nobody could tell when a cache of it is stale; "
            "give its class a method fingerprint()."
        )

    @abstractmethod
    def __getitem__(self, index: int) -> Example:
        """Example ``index``; the same index gives the same example in every process."""


def check_split(split: str) -> Split:
    """Return ``split`` if it is one.

    Raises:
        CkfrError: if it is none of train, val, test.
    """
    if split not in SPLITS:
        raise CkfrError(f"There is no split {split!r}; expected one of {', '.join(SPLITS)}.")
    return split


def check_number(
    name: str, value: object, low: float, high: float = math.inf, whole: bool = False, below: bool = False
) -> None:
    """Refuse an option that is no number, or one out of range.

    Options come from command lines and configuration files, where ``"abc"`` is as easily written as ``0.9``.

    Args:
        name: the option.
        value: what was given.
        low: smallest value allowed.
        high: largest value allowed.
        whole: whether it must be a whole number.
        below: whether ``high`` itself is too much.

    Raises:
        CkfrError: if it is not.
    """
    kind = numbers.Integral if whole else numbers.Real
    number = isinstance(value, kind) and not isinstance(value, bool)
    if number and (low <= value < high or (value == high and not below)):  # type: ignore[operator]
        return
    upper = "" if high == math.inf else f" {'and below' if below else 'and at most'} {high}"
    raise CkfrError(f"{name} is {value!r}; expected a {'whole ' * whole}number of at least {low}{upper}.")


def box_of_mask(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Smallest box around the true pixels of a mask.

    Args:
        mask: (H, W) bool.

    Returns:
        ``(x0, y0, x1, y1)``; both ends are object pixels, so a one-pixel object has ``x0 == x1``.

    Raises:
        CkfrError: if the mask is empty.
    """
    columns = np.flatnonzero(mask.any(axis=0))
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        raise CkfrError("An empty mask has no box; expected at least one object pixel.")
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])

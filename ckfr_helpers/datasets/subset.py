"""Parts of data: as many examples of each class as there is time for, and a validation set carved out."""

import hashlib
from collections.abc import Sequence

import numpy as np

from ckfr_helpers.datasets.base import Example, ImageSource
from ckfr_helpers.runtime import CkfrError, check_number


class Part(ImageSource):
    """The examples of a source at some ``indices`` (n,), in that order; everything else is the source's."""

    def __init__(self, source: ImageSource, indices: Sequence[int] | np.ndarray) -> None:
        self.source, self.indices = source, np.asarray(indices, dtype=np.int64)
        self.name, self.split, self.hierarchy = source.name, source.split, source.hierarchy
        self.labels = source.labels[self.indices]

    def fingerprint(self) -> str:
        """Changes with the whole's, and with the choice."""
        return hashlib.sha256(self.source.fingerprint().encode() + self.indices.tobytes()).hexdigest()

    def where(self, index: int) -> str:
        return self.source.where(int(self.indices[index]))

    def __getitem__(self, index: int) -> Example:
        return self.source[int(self.indices[index])]


def balanced(source: ImageSource, per_class: int, seed: int = 0) -> Part:
    """``per_class`` random examples of every class, in the source's order; a `CkfrError` if one has fewer."""
    generator = np.random.RandomState(seed)
    picked: list[np.ndarray] = []
    for label, name in enumerate(source.classes):
        own = np.flatnonzero(source.labels == label)
        if len(own) < per_class:
            raise CkfrError(f"Class {name!r} has {len(own)} examples in {source.split}, not {per_class}.")
        picked.append(generator.choice(own, per_class, replace=False))
    return Part(source, np.sort(np.concatenate(picked)))


def carve_validation(
    labels: np.ndarray, fraction: float, seed: int = 0, classes: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Split training examples into training and validation, with the same share of every class.

    For data sets whose only second split is reported as the test set, on which no model may be chosen.

    Args:
        labels: (N,) integers.
        fraction: share of each class that goes to validation, in [0, 1), at least one example unless it is 0.
        seed: which examples; the same on every machine.
        classes: names of the labels, for messages.

    Returns:
        Two increasing int64 arrays of positions, train and validation; together every position once.

    Raises:
        CkfrError: if the fraction is out of range or a class is too small to give and to keep one.
    """
    check_number("val_fraction", fraction, 0, 1, below=True)
    check_number("seed", seed, 0, 2**32 - 1, whole=True)
    if fraction == 0:
        return np.arange(len(labels)), np.empty(0, dtype=np.int64)
    # RandomState promises the same stream in every NumPy; one generator a class, so that leaving a class out
    # does not reshuffle the others.
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = max(1, round(fraction * len(members)))
        if count >= len(members):
            has = f"Class {classes[label] if classes else label} has {len(members)} example(s)"
            raise CkfrError(f"{has}, too few to give {count} away; expected more, or a smaller fraction.")
        chosen.append(np.random.RandomState([seed, int(label)]).permutation(members)[:count])
    validation = np.sort(np.concatenate(chosen))
    return np.setdiff1d(np.arange(len(labels)), validation), validation

"""Part of a source, e.g. as many examples of each class as a laptop has time for."""

import hashlib
from collections.abc import Sequence

import numpy as np

from ckfr_helpers.datasets.base import Example, ImageSource
from ckfr_helpers.runtime import CkfrError


class Part(ImageSource):
    """The examples of a source at some indices, in that order; everything else is the source's.

    Args:
        source: the whole.
        indices: which examples.

    Attributes:
        indices: (n,) int64, the place of each example in the whole.
    """

    def __init__(self, source: ImageSource, indices: Sequence[int] | np.ndarray) -> None:
        self.source = source
        self.indices = np.asarray(indices, dtype=np.int64)
        if len(self.indices) and not (self.indices.min() >= 0 and self.indices.max() < len(source)):
            raise CkfrError(f"A part's indices must lie within 0 to {len(source) - 1}.")
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
    """``per_class`` random examples of every class, in the source's order.

    Raises:
        CkfrError: if a class has fewer.
    """
    generator = np.random.RandomState(seed)
    picked: list[np.ndarray] = []
    for label, name in enumerate(source.classes):
        own = np.flatnonzero(source.labels == label)
        if len(own) < per_class:
            raise CkfrError(
                f"Class {name!r} has {len(own)} examples in {source.split}; expected {per_class}."
            )
        picked.append(generator.choice(own, per_class, replace=False))
    return Part(source, np.sort(np.concatenate(picked)))

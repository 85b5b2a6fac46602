"""Pictures of any source with field notes beside them, and the line that describes each photograph."""

import hashlib
from collections.abc import Sequence
from typing import Literal

from ckfr_helpers.datasets.base import SPLITS, Example, ImageSource
from ckfr_helpers.datasets.field_notes import FieldNotes


class Noted(ImageSource):
    """A source whose targets also have ``metadata``, and ``text`` where there are lines to read.

    Args:
        source: gives pictures and labels.
        world: draws the notes.
        lines: what stands beside each photograph, by the target's ``photo``.
        missing, shuffle: as for `FieldNotes.draw`.

    Attributes:
        notes: the `Notes` of all examples, in order.
    """

    def __init__(
        self,
        source: ImageSource,
        world: FieldNotes,
        lines: Sequence[str] | None = None,
        missing: float = 0.0,
        shuffle: Literal["all", "class"] | None = None,
    ) -> None:
        self.source, self.lines = source, None if lines is None else tuple(lines)
        self.name, self.split, self.hierarchy = source.name, source.split, source.hierarchy
        self.labels = source.labels
        part = SPLITS.index(self.split)
        self.notes = world.draw(self.labels, missing=missing, shuffle=shuffle, seed=part)

    def fingerprint(self) -> str:
        """Changes with the source's, the notes and the lines."""
        digest = hashlib.sha256(repr((self.source.fingerprint(), self.lines)).encode())
        for column in self.notes:
            digest.update(column.tobytes())
        return digest.hexdigest()

    def where(self, index: int) -> str:
        return self.source.where(index)

    def __getitem__(self, index: int) -> Example:
        """The source's example; ``metadata`` has ``longitude``, ``latitude`` and ``date``, NaN where lost."""
        image, target = self.source[index]
        target = {**target, "metadata": self.notes.at(index)}
        if self.lines is not None:
            target["text"] = self.lines[target["photo"]]
        return image, target

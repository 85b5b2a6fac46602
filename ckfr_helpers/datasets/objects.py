"""Picture files with several labelled boxes each, as sets for detection have them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ckfr_helpers.datasets.base import Example
from ckfr_helpers.datasets.files import FileSource
from ckfr_helpers.datasets.subset import carve_validation
from ckfr_helpers.runtime import CkfrError


class Thing(NamedTuple):
    """One object in a picture."""

    label: int
    box: list[float]  # x0, y0, x1, y1 in pixels, both ends inside
    difficult: bool = False


class ObjectFiles(FileSource):
    """A source of such files; a subclass sets ``split`` and ``hierarchy`` and calls `_hold_things`.

    A target has ``boxes`` (n, 4), ``box_labels`` (n,) int64, ``difficult`` (n,) bool and ``labels`` (C,)
    multi-hot float32; ``label`` is the class of the first object that is not difficult, else of the first.

    Attributes:
        things: the objects of every picture, by file name.
        difficult_counts: whether a class of which a picture has difficult objects only is among its
            ``labels``.
    """

    things: dict[str, Sequence[Thing]]
    difficult_counts = False

    def _hold_things(
        self, place: Path, things: Mapping[str, Sequence[Thing]], val_fraction: float, seed: int
    ) -> None:
        """Keep these pictures; except in "test", only train's or val's random share of them.

        The share is not the same of every class, which pictures of several classes do not allow.
        """
        names = list(things)
        if not names:
            raise CkfrError(f"{place} lists no picture with an object for {self.split}; expected some.")
        if self.split != "test":
            parts = carve_validation(np.zeros(len(names), np.int64), val_fraction, seed, ["picture"])
            names = [names[row] for row in parts[self.split == "val"]]
        folders = {Path(name).parent for name in names}
        there = {str(folder / file.name) for folder in folders for file in (place / folder).glob("*")}
        if missing := [name for name in names if name not in there]:
            count = f"{len(missing)} of {len(names)} pictures, first {missing[0]}, are"
            raise CkfrError(f"{count} missing from {place}: not a whole copy.")
        first = [min(things[name], key=lambda thing: thing.difficult).label for name in names]
        self._hold(place, names, np.array(first, np.int64))
        self.things = {name: things[name] for name in names}
        self.boxes = {name: [thing.box for thing in found] for name, found in self.things.items()}

    def __getitem__(self, index: int) -> Example:
        """Picture (3, H, W) at its own size, and its objects."""
        image, target = super().__getitem__(index)
        found = self.things[self.filenames[index]]
        target["box_labels"] = torch.tensor([thing.label for thing in found])
        target["difficult"] = torch.tensor([thing.difficult for thing in found])
        counted = target["box_labels"][~target["difficult"] | self.difficult_counts]
        target["labels"] = torch.zeros(len(self.classes)).index_fill_(0, counted, 1.0)
        return image, target

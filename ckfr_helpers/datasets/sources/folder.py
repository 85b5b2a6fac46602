"""Any folder of pictures: one folder a class, a tree, and boxes where you have them.

    root/train/<class>/*.jpg    root/test/<class>/*.jpg    root/val/<class>/*.jpg (optional)
    root/hierarchy.csv          columns parent,child; not needed where classes are WordNet ids
    root/boxes.csv              columns file,x0,y0,x1,y1; optional; several lines for several objects

``file`` is a path below root, e.g. ``test/lion/01.jpg``. Box corners are pixels, both ends inside the object.
"""

import csv
import hashlib
import re
from pathlib import Path

import numpy as np
import torch

from ckfr_helpers.datasets.base import Example, ImageSource, check_split, make_example
from ckfr_helpers.datasets.files import FileTree
from ckfr_helpers.datasets.splits import carve_validation
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.runtime import CkfrError, data_root

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


class PictureFolder(ImageSource):
    """One split of a folder of your own.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        root: the folder; None for ``data_root()``.
        val_fraction: share of each class's training pictures that become ``"val"`` where there is no folder
            ``val/``.
        seed: which of them.

    Raises:
        CkfrError: if a folder, a tree or a picture is missing, a class stands in one split only, or a line
            of boxes.csv is malformed or names a picture that is not there.
    """

    name = "folder"

    def __init__(
        self, split: str, root: str | Path | None = None, val_fraction: float = 0.1, seed: int = 0
    ) -> None:
        self.split = check_split(split)
        self._root = Path(root).expanduser() if root is not None else data_root()
        own_val = (self._root / "val").is_dir()
        for needed in ("train", "test"):
            if not (self._root / needed).is_dir():
                raise CkfrError(
                    f"There is no folder {self._root / needed}; expected train/, test/ and maybe val/."
                )
        classes = self._classes("train")
        for other in ("test", "val") if own_val else ("test",):
            if (found := self._classes(other)) != classes:
                odd = sorted(set(found) ^ set(classes))[0]
                raise CkfrError(f"Class {odd!r} is in one of train/ and {other}/ only, below {self._root}.")
        self.hierarchy = self._tree_of(classes)
        self._tree = FileTree(self._root, "train")
        source = "train" if split == "val" and not own_val else split
        rows = [
            (f"{source}/{name}/{path.name}", label)
            for label, name in enumerate(self.classes)
            for path in sorted((self._root / source / name).iterdir())
            if path.suffix.lower() in ENDINGS
        ]
        labels = np.array([label for _, label in rows], dtype=np.int64)
        for label, count in enumerate(np.bincount(labels, minlength=len(classes))):
            if not count:
                raise CkfrError(f"{self._root / source / self.classes[label]} holds no picture.")
        if source == "train" and not own_val:
            keep = carve_validation(labels, val_fraction, seed)[split == "val"]
            rows, labels = [rows[i] for i in keep], labels[keep]
        self._files, self.labels = [name for name, _ in rows], labels
        self._boxes = self._read_boxes()

    def fingerprint(self) -> str:
        """Changes with the choice of pictures, their files and their boxes."""
        boxes = hashlib.sha256(repr(sorted(self._boxes.items())).encode()).hexdigest()
        return f"{self._tree.fingerprint(self._files)}-{boxes}"

    def where(self, index: int) -> str:
        """The picture's file."""
        return f"{self._root}/{self._files[index]}"

    def __getitem__(self, index: int) -> Example:
        """Picture (3, H, W) in its own size, label, and its boxes (n, 4) where boxes.csv has some."""
        name = self._files[index]
        boxes = self._boxes.get(name)
        return make_example(
            self._tree.image(name), self.labels[index], None if boxes is None else torch.tensor(boxes)
        )

    def _classes(self, split: str) -> list[str]:
        return sorted(entry.name for entry in (self._root / split).iterdir() if entry.is_dir())

    def _tree_of(self, classes: list[str]) -> Hierarchy:
        table = self._root / "hierarchy.csv"
        if table.is_file():
            return Hierarchy.from_csv(table, classes)
        if classes and all(re.fullmatch(r"n\d{8}", name) for name in classes):
            return Hierarchy.from_wordnet(classes)
        raise CkfrError(
            f"The classes below {self._root / 'train'} are not WordNet ids, so their tree is needed: "
            f"expected {table} with the columns parent,child."
        )

    def _read_boxes(self) -> dict[str, list[list[float]]]:
        table = self._root / "boxes.csv"
        boxes: dict[str, list[list[float]]] = {}
        if not table.is_file():
            return boxes
        for number, row in _rows(table, ("file", "x0", "y0", "x1", "y1")):
            try:
                corners = [float(row[key]) for key in ("x0", "y0", "x1", "y1")]
            except (TypeError, ValueError):
                raise CkfrError(f"Line {number} of {table} has corners that are no numbers: {row}.") from None
            if not (0 <= corners[0] <= corners[2] and 0 <= corners[1] <= corners[3]):
                raise CkfrError(
                    f"Line {number} of {table} has the box {corners}; expected x0 <= x1, y0 <= y1."
                )
            if not (self._root / row["file"]).is_file():
                raise CkfrError(f"Line {number} of {table} names {row['file']}, which is not there.")
            boxes.setdefault(row["file"], []).append(corners)
        return boxes


def _rows(table: Path, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """Line numbers and rows of a CSV file with at least these columns."""
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [column for column in columns if column not in (reader.fieldnames or [])]
        if missing:
            raise CkfrError(f"{table} has no column {missing[0]!r}; expected {','.join(columns)}.")
        return [(number, row) for number, row in enumerate(reader, start=2)]

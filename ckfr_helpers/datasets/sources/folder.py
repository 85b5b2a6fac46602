"""Any folder of pictures: one folder a class, a tree, and boxes where you have them.

    root/train/<class>/*.jpg    root/test/<class>/*.jpg    root/val/<class>/*.jpg (optional)
    root/<class>/*.jpg          or the class folders alone
    root/hierarchy.csv          columns parent,child; not needed where classes are WordNet ids
    root/boxes.csv              columns file,x0,y0,x1,y1; optional; several lines for several objects

``file`` is a path below root, e.g. ``test/lion/01.jpg``. Box corners are pixels, both ends inside the object.
Without ``train/`` and ``test/`` a fifth of each class is held out as the test split, drawn by ``seed`` from
its sorted file names; the validation split is drawn in the same way from what is left for training.
"""

import hashlib
import re
from pathlib import Path

import numpy as np
import torch

from ckfr_helpers.datasets.base import Example, ImageSource, check_split, make_example
from ckfr_helpers.datasets.files import FileTree, class_folders, picture_size
from ckfr_helpers.datasets.splits import carve_validation
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.runtime import CkfrError, data_root


class PictureFolder(ImageSource):
    """One split of a folder of your own.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        root: the folder; None for ``data_root()``.
        val_fraction: share of each class's training pictures that become ``"val"`` where there is no folder
            ``val/``.
        test_fraction: share of each class's pictures that become ``"test"`` where class folders stand alone.
        seed: which of them.

    Raises:
        CkfrError: if a folder, a tree or a picture is missing, a class stands in one split only, or a line
            of boxes.csv is malformed, names a picture that is not there or leaves it.
    """

    name = "folder"

    def __init__(
        self,
        split: str,
        root: str | Path | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        seed: int = 0,
    ) -> None:
        self.split = check_split(split)
        self._root = Path(root).expanduser() if root is not None else data_root()
        self._tree = FileTree(self._root)
        parts = {part: class_folders(self._root / part) for part in ("train", "val", "test")}
        parts = {part: found for part, found in parts.items() if found}
        if not parts:
            parts = {"": class_folders(self._root)}
        elif not {"train", "test"} <= set(parts):
            raise CkfrError(
                f"{self._root} has {' and '.join(f'{part}/' for part in parts)}; expected class folders in "
                "train/ and test/ and maybe val/, or class folders alone."
            )
        classes = sorted(next(iter(parts.values())))
        for part, found in parts.items():
            if odd := sorted(set(found) ^ set(classes)):
                raise CkfrError(f"Class {odd[0]!r} is in one of train/ and {part}/ only, below {self._root}.")
            for name in classes:
                if not found[name]:
                    raise CkfrError(f"{self._root / part / name} holds no picture.")
        self.hierarchy = self._tree_of(classes)
        part = split if split in parts else next(iter(parts))
        rows = [
            (f"{part}/{name}/{file}".removeprefix("/"), label)
            for label, name in enumerate(self.classes)
            for file in parts[part][name]
        ]
        labels = np.array([label for _, label in rows], dtype=np.int64)
        keep = np.arange(len(rows))
        if not part:
            rest, test = carve_validation(labels, test_fraction, seed, self.classes)
            keep = test if split == "test" else rest
        if split != "test" and "val" not in parts:
            keep = keep[carve_validation(labels[keep], val_fraction, seed, self.classes)[split == "val"]]
        self._files, self.labels = [rows[position][0] for position in keep], labels[keep]
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

    def _tree_of(self, classes: list[str]) -> Hierarchy:
        table = self._root / "hierarchy.csv"
        if table.is_file():
            return Hierarchy.from_csv(table, classes)
        if classes and all(re.fullmatch(r"n\d{8}", name) for name in classes):
            return Hierarchy.from_wordnet(classes)
        raise CkfrError(
            f"The class folders {', '.join(classes[:3]) or '(none)'} below {self._root} are no WordNet ids, "
            f"so their tree is needed: expected {table} with the columns parent,child."
        )

    def _read_boxes(self) -> dict[str, list[list[float]]]:
        """Boxes by file, each held against its own picture's size where the picture is in this split."""
        table = self._root / "boxes.csv"
        boxes: dict[str, list[list[float]]] = {}
        own = set(self._files)
        sizes: dict[str, tuple[int, int]] = {}
        columns = ("file", "x0", "y0", "x1", "y1")
        for number, row in (
            self._tree.rows(table.name, ("file", "x0", "y0", "x1", "y1")) if table.is_file() else ()
        ):
            name, where = row["file"], f"Line {number} of {table}"
            try:
                x0, y0, x1, y1 = box = [float(row[key]) for key in columns[1:]]
            except (TypeError, ValueError):
                raise CkfrError(f"{where} has corners that are no numbers: {row}.") from None
            if not (0 <= x0 <= x1 < np.inf and 0 <= y0 <= y1 < np.inf):
                raise CkfrError(
                    f"{where} has the box {box}; expected 0 <= x0 <= x1 and 0 <= y0 <= y1, finite."
                )
            if max(box) <= 1 and any(corner % 1 for corner in box):
                raise CkfrError(f"{where} has the box {box}, a share of the picture; expected pixels.")
            if not (self._root / name).is_file():
                raise CkfrError(f"{where} names {name}, which is not there.")
            if name in own:
                if name not in sizes:
                    sizes[name] = picture_size(self._tree.read(name), f"{self._root}/{name}")
                width, height = sizes[name]
                if x1 > width or y1 > height:  # an end just outside is how some programs write it
                    raise CkfrError(
                        f"{where} has the box {box}, which leaves {name} of {width} x {height} pixels."
                    )
                box = [x0, y0, min(x1, width - 1), min(y1, height - 1)]
            boxes.setdefault(name, []).append(box)
        return boxes

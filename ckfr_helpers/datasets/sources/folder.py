"""Any folder of pictures: one folder a class, a tree, and boxes where you have them.

    root/train/<class>/*.jpg    root/test/<class>/*.jpg    root/val/<class>/*.jpg (optional)
    root/<class>/*.jpg          or the class folders alone
    root/hierarchy.csv          columns parent,child; not needed where classes are WordNet ids
    root/boxes.csv              columns file,x0,y0,x1,y1; optional; several lines for several objects

``file`` is a path below root, e.g. ``test/lion/01.jpg``. Box corners are pixels, both ends inside the object.
Without ``train/`` and ``test/`` a fifth of each class is held out as the test split, drawn by ``seed`` from
its sorted file names; the validation split is drawn in the same way from what is left for training.
"""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from ckfr_helpers.datasets.base import check_split
from ckfr_helpers.datasets.files import FileSource, FileTree, class_folders, root_folder
from ckfr_helpers.datasets.subset import carve_validation
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.runtime import CkfrError


class PictureFolder(FileSource):
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
        place = root_folder(root)
        parts = {part: found for part in ("train", "val", "test") if (found := class_folders(place / part))}
        if not parts:
            parts = {"": class_folders(place)}
        elif not {"train", "test"} <= set(parts):
            raise CkfrError(
                f"{place} has {' and '.join(f'{part}/' for part in parts)}; expected class folders in "
                "train/ and test/ and maybe val/, or class folders alone."
            )
        classes = sorted(next(iter(parts.values())))
        for part, found in parts.items():
            if odd := sorted(set(found) ^ set(classes)):
                raise CkfrError(f"Class {odd[0]!r} is in one of train/ and {part}/ only, below {place}.")
            if empty := [name for name in classes if not found[name]]:
                raise CkfrError(f"{place / part / empty[0]} holds no picture.")
        self.hierarchy = _tree_of(place, classes)
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
        carve = None if split == "test" or "val" in parts else (val_fraction, seed)
        self._hold(FileTree(place), [rows[row][0] for row in keep], labels[keep], carve)
        if (place / "boxes.csv").is_file():
            self.boxes = self._read_boxes(place / "boxes.csv")

    def _read_boxes(self, table: Path) -> dict[str, list[list[float]]]:
        """Boxes by file, each held against its own picture's size where the picture is in this split."""
        boxes: dict[str, list[list[float]]] = {}
        columns = ("file", "x0", "y0", "x1", "y1")
        own = set(self.filenames)
        for number, row in self.tree.rows(table.name, columns):
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
            if not (table.parent / name).is_file():
                raise CkfrError(f"{where} names {name}, which is not there.")
            if name in own:
                width, height = _size(table.parent / name)
                if x1 > width or y1 > height:  # an end just outside is how some programs write it
                    raise CkfrError(
                        f"{where} has the box {box}, which leaves {name} of {width} x {height} pixels."
                    )
                boxes.setdefault(name, []).append([x0, y0, min(x1, width - 1), min(y1, height - 1)])
        return boxes


def _size(path: Path) -> tuple[int, int]:
    """Width and height of a picture when it is upright, without decoding it."""
    try:
        with Image.open(path) as file:
            turned = file.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # orientations that swap the sides
            return (file.height, file.width) if turned else (file.width, file.height)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise CkfrError(f"The picture {path} cannot be read ({error}); replace it.") from error


def _tree_of(place: Path, classes: list[str]) -> Hierarchy:
    table = place / "hierarchy.csv"
    if table.is_file():
        return Hierarchy.from_csv(table, classes)
    if classes and all(re.fullmatch(r"n\d{8}", name) for name in classes):
        return Hierarchy.from_wordnet(classes)
    raise CkfrError(
        f"The class folders {', '.join(classes[:3]) or '(none)'} below {place} are no WordNet ids, "
        f"so their tree is needed: expected {table} with the columns parent,child."
    )

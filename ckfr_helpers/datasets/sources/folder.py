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

from ckfr_helpers.datasets import files
from ckfr_helpers.datasets.base import SPLITS, check_split
from ckfr_helpers.datasets.subset import carve_validation
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.runtime import CkfrError


class PictureFolder(files.FileSource):
    """One split of a folder of your own.

    Args:
        val_fraction: share of each class's training pictures that become ``"val"`` if there is no ``val/``.
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
        place = files.root_folder(root)
        parts: dict[str, dict[str, list[str]]] = {part: files.class_folders(place / part) for part in SPLITS}
        parts = {part: found for part, found in parts.items() if found}
        alone = not parts
        if not alone and not {"train", "test"} <= set(parts):
            raise CkfrError(
                f"{place} has {' and '.join(f'{part}/' for part in parts)}; expected class folders in "
                "train/ and test/ and maybe val/, or class folders alone."
            )
        folders = {"": files.class_folders(place)} if alone else parts
        files.check_classes(place, folders)
        part = split if split in folders else next(iter(folders))
        self.hierarchy = _tree_of(place, list(folders[part]))
        names, labels = files.class_rows(part, folders[part])
        if alone:
            rest, test = carve_validation(labels, test_fraction, seed, self.classes)
            keep = test if split == "test" else rest
            names, labels = [names[row] for row in keep], labels[keep]
        self._hold(place, names, labels, None if "val" in folders else (val_fraction, seed))
        if (place / "boxes.csv").is_file():
            self.boxes = _read_boxes(place / "boxes.csv")


def _read_boxes(table: Path) -> dict[str, list[list[float]]]:
    """Boxes by file; `files.FileSource` holds each against its picture's size."""
    boxes: dict[str, list[list[float]]] = {}
    columns = ("file", "x0", "y0", "x1", "y1")
    for number, row in files.read_rows(table, columns):
        where = f"Line {number} of {table}"
        try:
            x0, y0, x1, y1 = box = [float(row[key]) for key in columns[1:]]
        except (TypeError, ValueError):
            raise CkfrError(f"{where} has corners that are no numbers: {row}.") from None
        if not (0 <= x0 <= x1 < np.inf and 0 <= y0 <= y1 < np.inf):
            raise CkfrError(f"{where} has the box {box}; expected 0 <= x0 <= x1 and 0 <= y0 <= y1, finite.")
        if max(box) <= 1 and any(corner % 1 for corner in box):
            raise CkfrError(f"{where} has the box {box}, a share of the picture; expected pixels.")
        if not (table.parent / row["file"]).is_file():
            raise CkfrError(f"{where} names {row['file']}, which is not there.")
        boxes.setdefault(row["file"], []).append(box)
    return boxes


def _tree_of(place: Path, classes: list[str]) -> Hierarchy:
    table = place / "hierarchy.csv"
    if table.is_file():
        return Hierarchy.from_csv(table, classes)
    if classes and all(re.fullmatch(r"n\d{8}", name) for name in classes):
        return Hierarchy.from_wordnet(classes)
    if not classes:
        raise CkfrError(f"There are no class folders in {place}; expected train/ and test/, or classes.")
    raise CkfrError(
        f"The class folders {', '.join(classes[:3])} below {place} are no WordNet ids, "
        f"so their tree is needed: expected {table} with the columns parent,child."
    )

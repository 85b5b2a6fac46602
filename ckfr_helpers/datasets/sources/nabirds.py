"""NABirds: photographs of 555 kinds of birds of North America, with a tree; places and dates in a file apart.

    images/0817/<picture>.jpg …          images.txt               <picture id> <path below images/>
    classes.txt      <class id> <name>   image_class_labels.txt   <picture id> <class id>
    hierarchy.txt    <child> <parent>    train_test_split.txt     <picture id> <1 train, 0 test>
    bounding_boxes.txt                                            <picture id> <x> <y> <width> <height>
    nabirds_with_loc_2019.json           places and dates, from the authors of the geographic prior

The places are not the photographs': its authors drew for each picture an eBird record of the same species. So
picture and place are independent given the species; see `field_notes`. Van Horn et al., *Building a bird
recognition app and large scale dataset with citizen scientists*, CVPR 2015; Mac Aodha et al., ICCV 2019.
"""

import hashlib
import json
from pathlib import Path

import numpy as np

from ckfr_helpers.datasets.base import Example, check_split
from ckfr_helpers.datasets.field_notes import Notes
from ckfr_helpers.datasets.files import FileSource, find_folder
from ckfr_helpers.datasets.location import check_location
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.runtime import CkfrError

FOLDER = "nabirds"
LOCATIONS = "nabirds_with_loc_2019.json"


class NABirds(FileSource):
    """One split of NABirds; targets have a box and ``metadata``: longitude, latitude, date, NaN if not known.

    Train and test are the official ones, whatever lists the location file has; our ``"val"`` is carved out of
    train. No picture is left out for want of a place. Labels follow the class ids.

    Args:
        root: the folder with ``images.txt`` and the location file, or a folder that holds ``nabirds/``.
        val_fraction, seed: share of each class's training pictures that become ``"val"``, and which.

    Attributes:
        notes: `field_notes.Notes` of all pictures, in order.

    Raises:
        CkfrError: a file is missing or damaged, or a place is impossible; the file is named.
    """

    name = "nabirds"

    def __init__(
        self, split: str, root: str | Path | None = None, val_fraction: float = 0.1, seed: int = 0
    ) -> None:
        self.split = check_split(split)
        remedy = "the Cornell Lab of Ornithology gives it to whoever accepts its terms"
        place = find_folder(root, FOLDER, "images.txt", "NABirds", remedy)
        paths, owner = _table(place / "images.txt"), _table(place / "image_class_labels.txt")
        part = _table(place / "train_test_split.txt")
        for name, table in (("image_class_labels.txt", owner), ("train_test_split.txt", part)):
            if odd := sorted(set(paths) ^ set(table)):
                raise CkfrError(f"Picture {odd[0]} is in one of images.txt and {name} only, in {place}.")
        self.hierarchy = _tree(place, sorted(set(owner.values()), key=lambda one: (len(one), one)))
        label_of = {name: label for label, name in enumerate(self.classes)}
        wanted = "0" if split == "test" else "1"
        chosen = [picture for picture in paths if part[picture] == wanted]
        labels = np.array([label_of[owner[picture]] for picture in chosen], dtype=np.int64)
        names = [f"images/{paths[picture]}" for picture in chosen]
        self._hold(place, names, labels, (val_fraction, seed))
        corners = _table(place / "bounding_boxes.txt")
        boxes = {name: corners.get(picture) for name, picture in zip(names, chosen, strict=True)}
        self.boxes = {name: [_box(place, boxes[name])] for name in self.filenames}
        self.notes = _notes(place / LOCATIONS, self.filenames)

    def fingerprint(self) -> str:
        """Changes with the pictures, the boxes and the notes."""
        digest = hashlib.sha256(super().fingerprint().encode())
        for column in self.notes:
            digest.update(column.tobytes())
        return digest.hexdigest()

    def __getitem__(self, index: int) -> Example:
        image, target = super().__getitem__(index)
        return image, {**target, "metadata": self.notes.at(index)}


def _table(path: Path) -> dict[str, str]:
    """First word of every line -> the rest of it."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CkfrError(f"{path} cannot be read ({error}); fetch NABirds again.") from None
    rows = [line.split(maxsplit=1) for line in lines if line.strip()]
    if short := [number for number, row in enumerate(rows, 1) if len(row) < 2]:
        raise CkfrError(f"Line {short[0]} of {path} has one word; expected two or more.")
    return {row[0]: row[1].strip() for row in rows}


def _tree(place: Path, classes: list[str]) -> Hierarchy:
    pairs = [(parent, child) for child, parent in _table(place / "hierarchy.txt").items()]
    try:
        return Hierarchy.from_pairs(pairs, classes, names=_table(place / "classes.txt"), inner="leaf")
    except CkfrError as error:
        raise CkfrError(f"{place / 'hierarchy.txt'}: {error}") from None


def _box(place: Path, row: str | None) -> list[float]:
    """Corners, both ends inside, of "x y width height"."""
    try:
        x, y, width, height = (float(value) for value in (row or "").split())
    except ValueError:
        path = place / "bounding_boxes.txt"
        raise CkfrError(f"{path} has {row!r}; expected four numbers for every picture.") from None
    return [x, y, x + width - 1, y + height - 1]


def _notes(path: Path, names: tuple[str, ...]) -> Notes:
    """Places and dates of these pictures by their file names; NaN for a picture that the file has not."""
    if not path.is_file():
        raise CkfrError(f"There is no {path}; the authors of the geographic prior (geo_prior) publish it.")
    try:
        lists = json.loads(path.read_text(encoding="utf-8"))
        rows = [row for part in ("train", "val", "test") for row in lists[part]]
        known = {Path(row["im_path"]).name: row["ebird_meta"] for row in rows}
        found = [known.get(Path(name).name) or {"lon": None, "lat": None, "date": None} for name in names]
        columns = [np.array([row[key] for row in found], np.float64) for key in ("lon", "lat", "date")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CkfrError(f"{path} is no location file of NABirds ({reason}); fetch it again.") from error
    columns[2][columns[2] == 1] = 0.0  # the last moment of the year is the first of the next
    try:
        check_location(*columns)
    except CkfrError as error:
        raise CkfrError(f"{path}: {error}") from None
    if np.isnan(columns[0]).all():
        raise CkfrError(f"{path} has no place for any of the pictures; expected the file of NABirds.")
    return Notes(*columns)

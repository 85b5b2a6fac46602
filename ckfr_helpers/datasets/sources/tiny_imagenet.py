"""Tiny-ImageNet-200 in its own layout: 64 × 64 pictures, a WordNet id a class, a box for every picture.

    wnids.txt   words.txt
    train/<wnid>/images/<wnid>_0.JPEG …   train/<wnid>/<wnid>_boxes.txt
    val/images/val_0.JPEG …               val/val_annotations.txt

The labels of its official test pictures were never published, so the official *val* is what everybody
reports and is our ``"test"``. Our ``"val"`` is carved out of the training pictures. Le and Yang, *Tiny
ImageNet Visual Recognition Challenge*, Stanford CS231n, 2015.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch

from ckfr_helpers.datasets.base import Example, ImageSource, check_split, make_example
from ckfr_helpers.datasets.fetching.download import download, unpack, working_folder
from ckfr_helpers.datasets.files import FileTree, find_folder
from ckfr_helpers.datasets.splits import carve_validation
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.runtime import CkfrError, data_root

FOLDER = "tiny-imagenet-200"
URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"


class TinyImageNet(ImageSource):
    """One split of Tiny-ImageNet, or of any cut of it that keeps its layout.

    Labels follow the *sorted* WordNet ids, whatever the order of ``wnids.txt``, so that a label means the
    same in every copy with the same classes.

    Args:
        split: ``"train"``, ``"val"`` (carved from the training pictures) or ``"test"`` (the official val).
        root: the folder with ``wnids.txt``, a folder that holds ``tiny-imagenet-200/``, or a zip of either;
            None for ``data_root()``.
        val_fraction: share of each class's training pictures that become ``"val"``.
        seed: which of them.

    Raises:
        CkfrError: if the data is missing, a picture has no box or a box no picture, or a line is malformed.
    """

    name = "tiny-imagenet"

    def __init__(
        self, split: str, root: str | Path | None = None, val_fraction: float = 0.1, seed: int = 0
    ) -> None:
        self.split = check_split(split)
        place = Path(root).expanduser() if root is not None else data_root()
        if not place.is_file():
            place = find_folder(
                root, FOLDER, "wnids.txt", "Tiny-ImageNet", "`ckfr fetch tiny-imagenet` brings it"
            )
        self._tree = FileTree(place, "wnids.txt")
        wnids = sorted(self._tree.text("wnids.txt").split())
        if not wnids or len(set(wnids)) != len(wnids):
            raise CkfrError(f"wnids.txt in {place} is empty or names a class twice; expected one id a line.")
        self.hierarchy = Hierarchy.from_wordnet(wnids)
        self._files, self.labels, self._boxes = self._index(wnids, official_val=split == "test")
        if split != "test":
            keep = carve_validation(self.labels, val_fraction, seed)[split == "val"]
            self._files = [self._files[position] for position in keep]
            self.labels, self._boxes = self.labels[keep], self._boxes[keep]

    def _index(self, wnids: list[str], official_val: bool) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Names, (N,) labels and (N, 4) boxes of the official train or val pictures."""
        files: list[str] = []
        labels: list[int] = []
        boxes: list[list[float]] = []
        if official_val:
            label_of = {wnid: label for label, wnid in enumerate(wnids)}
            table = self._table("val/val_annotations.txt", columns=6)
            self._check_pictures("val/images", [row[0] for row in table])
            for name, wnid, *box in table:
                if wnid not in label_of:
                    raise CkfrError(
                        f"val_annotations.txt in {self._tree.place} gives {name} the class {wnid}, "
                        "which wnids.txt does not list."
                    )
                files.append(f"val/images/{name}")
                labels.append(label_of[wnid])
                boxes.append([float(number) for number in box])
        else:
            for label, wnid in enumerate(wnids):
                table = self._table(f"train/{wnid}/{wnid}_boxes.txt", columns=5)
                self._check_pictures(f"train/{wnid}/images", [row[0] for row in table])
                for name, *box in table:
                    files.append(f"train/{wnid}/images/{name}")
                    labels.append(label)
                    boxes.append([float(number) for number in box])
        return files, np.array(labels, dtype=np.int64), np.array(boxes, dtype=np.float32).reshape(-1, 4)

    def _table(self, name: str, columns: int) -> list[list[str]]:
        """Rows of a tab-separated file whose last four columns are box corners."""
        rows = [line.split("\t") for line in self._tree.text(name).splitlines() if line.strip()]
        for number, row in enumerate(rows, start=1):
            if len(row) != columns or not all(corner.strip().isdigit() for corner in row[-4:]):
                raise CkfrError(
                    f"Line {number} of {name} in {self._tree.place} is {row}; expected {columns} "
                    "tab-separated columns that end in four pixel numbers."
                )
        return rows

    def _check_pictures(self, folder: str, listed: list[str]) -> None:
        """A picture without a box, or a box without its picture, is an incomplete copy: say which."""
        there = {name for name in self._tree.files(folder) if name.upper().endswith(".JPEG")}
        for problem, names in (
            ("listed but missing from", set(listed) - there),
            ("without a line in the box file, in", there - set(listed)),
        ):
            if names:
                raise CkfrError(
                    f"{len(names)} picture(s), first {min(names)}, {problem} {self._tree.place}/{folder}; "
                    "the copy is incomplete."
                )

    def fingerprint(self) -> str:
        """Changes with the choice of pictures, their files and their boxes."""
        boxes = hashlib.sha256(self._boxes.tobytes()).hexdigest()
        return f"{self._tree.fingerprint(self._files)}-{boxes}"

    def where(self, index: int) -> str:
        """The picture's file."""
        return f"{self._tree.place}/{self._files[index]}"

    def __getitem__(self, index: int) -> Example:
        """Picture (3, 64, 64), its label, and its one box (1, 4)."""
        boxes = torch.from_numpy(self._boxes[[index]])
        return make_example(self._tree.image(self._files[index]), self.labels[index], boxes)


def fetch(root: str | Path | None = None, url: str = URL, md5: str = MD5) -> Path:
    """Download Tiny-ImageNet-200 (248 MB) from Stanford and unpack it; do nothing if it is there.

    Args:
        root: folder to put ``tiny-imagenet-200/`` in; None for ``data_root()``.
        url: another place with the same zip.
        md5: its checksum.

    Returns:
        The folder.

    Raises:
        CkfrError: if it cannot be downloaded or is damaged.
    """
    folder = (Path(root).expanduser() if root is not None else data_root()) / FOLDER
    if not (folder / "wnids.txt").is_file():
        with working_folder(folder) as scratch:
            archive = download(url, scratch / f"{FOLDER}.zip", f"md5:{md5}")
            (unpack(archive, scratch / "content") / FOLDER).rename(folder)
    return folder

"""Tiny-ImageNet-200 in its own layout: 64 × 64 pictures, a WordNet id a class, a box for every picture.

    wnids.txt   words.txt
    train/<wnid>/images/<wnid>_0.JPEG …   train/<wnid>/<wnid>_boxes.txt
    val/images/val_0.JPEG …               val/val_annotations.txt

The labels of its official test pictures were never published, so the official *val* is what everybody
reports and is our ``"test"``. Our ``"val"`` is carved out of the training pictures. Le and Yang, *Tiny
ImageNet Visual Recognition Challenge*, Stanford CS231n, 2015.
"""

from pathlib import Path

import numpy as np

from ckfr_helpers.datasets.base import check_split
from ckfr_helpers.datasets.fetching.download import download_archive
from ckfr_helpers.datasets.files import FileSource, FileTree, find_folder, root_folder
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.runtime import CkfrError

FOLDER = "tiny-imagenet-200"
URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"

Row = tuple[str, str, list[float]]  # a picture's name, its WordNet id and its box


class TinyImageNet(FileSource):
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
        place = root_folder(root)
        if not place.is_file():
            place = find_folder(
                root, FOLDER, "wnids.txt", "Tiny-ImageNet", "`ckfr fetch tiny-imagenet` brings it"
            )
        tree = FileTree(place, "wnids.txt")
        wnids = sorted(tree.text("wnids.txt").split())
        self.hierarchy = Hierarchy.from_wordnet(wnids)
        rows: list[Row] = []
        if split == "test":
            rows = _read_table(tree, "val/val_annotations.txt", "val/images")
        else:
            for wnid in wnids:
                rows += _read_table(tree, f"train/{wnid}/{wnid}_boxes.txt", f"train/{wnid}/images", wnid)
        label_of = {wnid: label for label, wnid in enumerate(wnids)}
        if foreign := [row for row in rows if row[1] not in label_of]:
            raise CkfrError(
                f"{place} gives {foreign[0][0]} the class {foreign[0][1]}, which wnids.txt does not list."
            )
        labels = np.array([label_of[wnid] for _, wnid, _ in rows], dtype=np.int64)
        names, boxes = [name for name, *_ in rows], {name: [box] for name, _, box in rows}
        self._hold(tree, names, labels, None if split == "test" else (val_fraction, seed), boxes)


def _read_table(tree: FileTree, table: str, folder: str, wnid: str | None = None) -> list[Row]:
    """Rows of a tab-separated file: picture, its class unless that is known, and four box corners."""
    rows: list[Row] = []
    columns = 6 if wnid is None else 5
    for number, line in enumerate(tree.text(table).splitlines(), start=1):
        name, *middle = line.split("\t")
        if len(middle) != columns - 1 or not all(corner.strip().isdigit() for corner in middle[-4:]):
            raise CkfrError(
                f"Line {number} of {table} in {tree.place} is {line!r}; expected {columns} "
                "tab-separated columns that end in four pixel numbers."
            )
        rows.append((f"{folder}/{name}", wnid or middle[0], [float(corner) for corner in middle[-4:]]))
    listed = {name for name, *_ in rows}
    there = {f"{folder}/{name}" for name in tree.files(folder) if name.upper().endswith(".JPEG")}
    if odd := sorted(listed ^ there):
        missing = "listed but missing" if odd[0] in listed else f"without a line in {table}"
        raise CkfrError(
            f"{len(odd)} picture(s), first {odd[0]}, {missing} in {tree.place}: not a whole copy."
        )
    return rows


def fetch(root: str | Path | None = None, url: str = URL, md5: str = MD5) -> Path:
    """Download Tiny-ImageNet-200 (248 MB) from Stanford and unpack it; do nothing if it is there.

    Args:
        root: folder to put ``tiny-imagenet-200/`` in; None for ``data_root()``.
        url: another place with the same zip.
        md5: its checksum.

    Raises:
        CkfrError: if it cannot be downloaded or is damaged.
    """
    folder = root_folder(root) / FOLDER
    if not (folder / "wnids.txt").is_file():
        download_archive(url, folder, f"md5:{md5}")
    return folder

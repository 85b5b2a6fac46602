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
from ckfr_helpers.datasets.files import FileSource, find_folder, read_rows, root_folder, unzipped
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
        root: the folder with ``wnids.txt``, a folder that holds ``tiny-imagenet-200/``, or a zip of either.
        val_fraction, seed: share of each class's training pictures that become ``"val"``, and which of them.

    Raises:
        CkfrError: if the data is missing, a picture has no box or a box no picture, or a line is malformed.
    """

    name = "tiny-imagenet"

    def __init__(
        self, split: str, root: str | Path | None = None, val_fraction: float = 0.1, seed: int = 0
    ) -> None:
        self.split = check_split(split)
        base, remedy = unzipped(root_folder(root)), "`ckfr fetch tiny-imagenet` brings it"
        place = find_folder(base, FOLDER, "wnids.txt", "Tiny-ImageNet", remedy)
        wnids = sorted((place / "wnids.txt").read_text().split())
        self.hierarchy = Hierarchy.from_wordnet(wnids)
        if split == "test":
            rows = _read_table(place, "val/val_annotations.txt", "val/images")
        else:
            tables = ((f"train/{wnid}/{wnid}_boxes.txt", f"train/{wnid}/images", wnid) for wnid in wnids)
            rows = [row for table in tables for row in _read_table(place, *table)]
        label_of = {wnid: label for label, wnid in enumerate(wnids)}
        for name, wnid, _ in rows:
            if wnid not in label_of:
                raise CkfrError(f"{place} gives {name} the class {wnid}, which wnids.txt does not list.")
        labels = np.array([label_of[wnid] for _, wnid, _ in rows], dtype=np.int64)
        self._hold(place, [name for name, *_ in rows], labels, (val_fraction, seed))
        self.boxes = {name: [box] for name, _, box in rows}


def _read_table(place: Path, table: str, folder: str, wnid: str | None = None) -> list[Row]:
    """Rows of a tab-separated file: picture, its class unless that is known, and four box corners."""
    rows: list[Row] = []
    corners = ["x0", "y0", "x1", "y1"]
    columns = ["name", *([] if wnid else ["wnid"]), *corners]
    for number, row in read_rows(place / table, columns, fieldnames=columns, delimiter="\t"):
        if not all(str(row[key]).strip().isdigit() for key in corners):
            raise CkfrError(
                f"Line {number} of {table} in {place} is {list(row.values())}; expected {len(columns)} "
                "tab-separated columns that end in four pixel numbers."
            )
        box = [float(row[key]) for key in corners]
        rows.append((f"{folder}/{row['name']}", wnid or row["wnid"], box))
    listed = {name for name, *_ in rows}
    there = {f"{folder}/{file.name}" for file in (place / folder).glob("*.JPEG")}
    if odd := sorted(listed ^ there):
        missing = "listed but missing" if odd[0] in listed else f"without a line in {table}"
        raise CkfrError(f"{len(odd)} picture(s), first {odd[0]}, {missing} in {place}: not a whole copy.")
    return rows


def fetch(root: str | Path | None = None, url: str = URL, md5: str = MD5) -> Path:
    """Download Tiny-ImageNet-200 (248 MB) from Stanford, or the same zip from ``url``, and unpack it."""
    folder = root_folder(root) / FOLDER
    if not (folder / "wnids.txt").is_file():
        download_archive(url, folder, f"md5:{md5}")
    return folder

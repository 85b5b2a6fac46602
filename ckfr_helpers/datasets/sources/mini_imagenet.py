"""mini-ImageNet with the original CKFR demo's very 80/20 split, from either layout it goes round in.

    train.csv val.csv test.csv images/*.jpg        the demo's own: columns filename,label
    n01532829/*.jpg …                              a folder a class, also below train/, val/, test/

The three parts are those of few-shot learning (64 + 16 + 20 classes of 600 pictures; Vinyals et al., 2016, in
the split of Ravi and Larochelle, 2017). The demo merges them into one 100-way data set, its classes sorted by
WordNet id, and takes 120 positions out of 600, drawn once with seed 0, as the test pictures of *every* class:
48,000 to train on, 12,000 to test. All are ImageNet training pictures, so a backbone pretrained on ImageNet
has seen the test pictures.

A picture's *position* is its place among its class's pictures, read in the order train, val, test: row by
row, or by file name. The split is the demo's very one where the order is its own: by file name it is, for
files under their original names.
"""

import re
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from ckfr_helpers.datasets.base import check_split
from ckfr_helpers.datasets.files import FileSource, FileTree, class_folders, root_folder
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.runtime import CkfrError

FOLDER = "mini-imagenet"
PER_CLASS = 600
PARTS = ("train", "val", "test")
_WNID = re.compile(r"n\d{8}")

Row = tuple[str, str]  # a picture's name and its WordNet id


def held_out_positions(count: int = PER_CLASS, share: float = 0.2, seed: int = 0) -> np.ndarray:
    """Which positions within each class are test pictures, increasing; 120 of them for the demo's numbers.

    Equals the second half of ``sklearn.model_selection.train_test_split(range(600), test_size=0.2,
    random_state=0)``, sorted: sklearn takes the first ``ceil(share * count)`` of one permutation.
    """
    order = np.random.RandomState(seed).permutation(count)
    return np.sort(order[: int(np.ceil(share * count))])


class MiniImageNet(FileSource):
    """One split of mini-ImageNet as the original demo splits it.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        root: the folder in either layout, or a folder that holds ``mini-imagenet/``; None for
            ``data_root()``.
        val_fraction: share of each class's training pictures that become ``"val"``. The demo has no
            validation set; 0 gives its 48,000 training pictures exactly, the default leaves 43,200.
        seed: which pictures become ``"val"``. The test pictures never change.

    Raises:
        CkfrError: if a file or picture is missing or foreign, or a picture is listed twice. A class of other
            than 600 pictures is a warning: a fifth of it is then another draw than the demo's.
    """

    name = FOLDER

    def __init__(
        self, split: str, root: str | Path | None = None, val_fraction: float = 0.1, seed: int = 0
    ) -> None:
        self.split = check_split(split)
        place = find_place(root)
        if place is None:
            raise CkfrError(
                f"{FOLDER} is not here: expected {root_folder(root) / FOLDER / 'train.csv'}; `ckfr fetch "
                "mini-imagenet` brings it; or put train.csv, val.csv and test.csv (columns filename,label) "
                "and the pictures in images/ there, as the original demo has them, or class folders."
            )
        tree = FileTree(place)
        rows = _table_rows(tree) if (place / "train.csv").is_file() else _folder_rows(place)
        classes, labels, counts = np.unique(
            [wnid for _, wnid in rows], return_inverse=True, return_counts=True
        )
        if (counts != PER_CLASS).any():
            odd, others = int(np.argmax(counts != PER_CLASS)), int((counts != PER_CLASS).sum())
            warnings.warn(
                f"Class {classes[odd]} has {counts[odd]} pictures in {place}; expected {PER_CLASS} of each "
                f"class, and {others} of {len(classes)} classes have others. A fifth of each class is the "
                "test split all the same, but not the demo's, so scores do not compare with the demo's.",
                stacklevel=2,
            )
        self.hierarchy = Hierarchy.from_wordnet([str(wnid) for wnid in classes])
        is_test = np.zeros(len(labels), dtype=bool)
        for label, count in enumerate(counts):
            is_test[np.flatnonzero(labels == label)[held_out_positions(int(count))]] = True
        keep = np.flatnonzero(is_test if split == "test" else ~is_test)
        carve = None if split == "test" else (val_fraction, seed)
        self._hold(tree, [rows[row][0] for row in keep], labels[keep], carve)


def find_place(root: str | Path | None = None) -> Path | None:
    """The folder with mini-ImageNet in either layout, ``root/mini-imagenet`` or ``root``; else None."""
    base = root_folder(root)
    for place in (base / FOLDER, base):
        folders = [place / part for part in ("", *PARTS) if (place / part).is_dir()]
        if (place / "train.csv").is_file() or any(
            _WNID.fullmatch(entry.name) and entry.is_dir() for folder in folders for entry in folder.iterdir()
        ):
            return place
    return None


def _table_rows(tree: FileTree) -> list[Row]:
    rows = [
        (f"images/{row['filename']}", row["label"])
        for part in PARTS
        for _, row in tree.rows(f"{part}.csv", ("filename", "label"))
    ]
    name, times = Counter(name for name, _ in rows).most_common(1)[0]
    if times > 1:
        raise CkfrError(f"{name} is listed twice in train.csv, val.csv and test.csv of {tree.place}.")
    if missing := {name for name, _ in rows} - {f"images/{name}" for name in tree.files("images")}:
        raise CkfrError(
            f"{len(missing)} of {len(rows)} pictures, first {min(missing)}, are missing from {tree.place}."
        )
    return rows


def _folder_rows(place: Path) -> list[Row]:
    rows: list[Row] = []
    for part in ("", *PARTS):
        for wnid, names in class_folders(place / part).items():
            if not part and wnid in PARTS:
                continue
            if not _WNID.fullmatch(wnid):
                folder = place / part / wnid
                raise CkfrError(f"{folder} is no class folder; expected WordNet ids such as n01532829.")
            rows += [(f"{part}/{wnid}/{name}".removeprefix("/"), wnid) for name in names]
    return rows

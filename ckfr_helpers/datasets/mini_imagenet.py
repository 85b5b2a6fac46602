"""mini-ImageNet in the folder layout of the original CKFR demo, with its very 80/20 split.

    train.csv   val.csv   test.csv      columns: filename,label (a WordNet id)
    images/*.jpg

The three files are those of few-shot learning (64 + 16 + 20 classes of 600 pictures; Vinyals et al., 2016, in
the split of Ravi and Larochelle, 2017). The demo merges them into one 100-way data set and takes 120
positions out of 600, drawn once with seed 0, as the test pictures of *every* class: 48,000 to train on,
12,000 to test. All are ImageNet training pictures, so a backbone pretrained on ImageNet has seen the test
pictures.
"""

import csv
from pathlib import Path

import numpy as np

from ckfr_helpers.datasets.base import Example, ImageSource, check_split
from ckfr_helpers.datasets.files import FileTree, find_folder
from ckfr_helpers.datasets.splits import carve_validation
from ckfr_helpers.hierarchy import Hierarchy
from ckfr_helpers.runtime import CkfrError, data_root

FOLDER = "mini-imagenet"
CSV_FILES = ("train.csv", "val.csv", "test.csv")
PER_CLASS = 600
PLACEMENT = (
    "put train.csv, val.csv and test.csv (columns filename,label) and the pictures in images/ there, as the "
    "original demo has them"
)


def held_out_positions(count: int = PER_CLASS, share: float = 0.2, seed: int = 0) -> np.ndarray:
    """Which positions within each class are test pictures.

    Equals the second half of ``sklearn.model_selection.train_test_split(range(600), test_size=0.2,
    random_state=0)``, sorted: sklearn takes the first ``ceil(share * count)`` of one permutation.

    Args:
        count: pictures a class.
        share: share of them that go to the test set.
        seed: of the permutation.

    Returns:
        Increasing int64 positions; 120 of them for the demo's numbers.
    """
    order = np.random.RandomState(seed).permutation(count)
    return np.sort(order[: int(np.ceil(share * count))])


class MiniImageNet(ImageSource):
    """One split of mini-ImageNet as the original demo splits it.

    A picture's position is its place among its class's rows, read in the order train.csv, val.csv, test.csv.
    Labels follow the sorted WordNet ids (the demo's own order depended on its class listing and is not
    needed: distances belong to classes, not to numbers).

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        root: the folder with the three files, or a folder that holds ``mini-imagenet/``; None for
            ``data_root()``.
        val_fraction: share of each class's training pictures that become ``"val"``. The demo has no
            validation set; 0 gives its 48,000 training pictures exactly, the default leaves 43,200.
        seed: which pictures become ``"val"``. The test pictures never change.

    Raises:
        CkfrError: if a file or picture is missing, a class has other than 600 rows, or a picture is listed
            twice.
    """

    name = "mini-imagenet"

    def __init__(
        self, split: str, root: str | Path | None = None, val_fraction: float = 0.1, seed: int = 0
    ) -> None:
        self.split = check_split(split)
        place = find_folder(root, FOLDER, CSV_FILES[0], "mini-ImageNet", PLACEMENT)
        self._tree = FileTree(place, CSV_FILES[0])
        files, wnids = self._rows()
        self._check(files, wnids)
        classes, labels = np.unique(wnids, return_inverse=True)
        self.hierarchy = Hierarchy.from_wordnet([str(wnid) for wnid in classes])

        is_test = np.zeros(len(labels), dtype=bool)
        for label in range(len(classes)):
            is_test[np.flatnonzero(labels == label)[held_out_positions()]] = True
        keep = np.flatnonzero(is_test if split == "test" else ~is_test)
        if split != "test":
            keep = keep[carve_validation(labels[keep], val_fraction, seed)[split == "val"]]
        self.labels = labels[keep].astype(np.int64)
        self.filenames = tuple(files[position] for position in keep)

    def _rows(self) -> tuple[list[str], np.ndarray]:
        """File names and WordNet ids of all three files, in order."""
        files: list[str] = []
        wnids: list[str] = []
        for name in CSV_FILES:
            table = csv.DictReader(self._tree.text(name).splitlines())
            if table.fieldnames is None or not {"filename", "label"} <= set(table.fieldnames):
                raise CkfrError(
                    f"{self._tree.place / name} has the columns {table.fieldnames}; expected filename,label."
                )
            for row in table:
                files.append(row["filename"])
                wnids.append(row["label"])
        if not files:
            raise CkfrError(f"train.csv, val.csv and test.csv in {self._tree.place} list no pictures.")
        return files, np.array(wnids)

    def _check(self, files: list[str], wnids: np.ndarray) -> None:
        classes, counts = np.unique(wnids, return_counts=True)
        odd = np.flatnonzero(counts != PER_CLASS)
        if len(odd):
            raise CkfrError(
                f"Class {classes[odd[0]]} has {counts[odd[0]]} rows in {', '.join(CSV_FILES)} of "
                f"{self._tree.place}; expected {PER_CLASS} of every class, or the split is not the demo's."
            )
        if len(set(files)) != len(files):
            seen: set[str] = set()
            double = next(name for name in files if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise CkfrError(f"{double} is listed twice in {', '.join(CSV_FILES)} of {self._tree.place}.")
        missing = set(files) - self._tree.files("images")
        if missing:
            raise CkfrError(
                f"{len(missing)} of {len(files)} pictures, first {min(missing)}, are missing from "
                f"{self._tree.place / 'images'}."
            )

    def __getitem__(self, index: int) -> Example:
        """Picture (3, H, W) at its own size, and its label; mini-ImageNet has neither boxes nor masks."""
        return Example(
            self._tree.image(f"images/{self.filenames[index]}"),
            int(self.labels[index]),
            boxes=None,
            mask=None,
        )


def fetch(root: str | Path | None = None) -> Path:
    """Find mini-ImageNet; ImageNet's terms do not let anyone pass it on, so it is not downloaded.

    Args:
        root: folder that holds ``mini-imagenet/``; None for ``data_root()``.

    Returns:
        The folder, if it is there.

    Raises:
        CkfrError: if it is not, with what to place where.
    """
    base = Path(root).expanduser() if root is not None else data_root()
    try:
        return find_folder(base, FOLDER, CSV_FILES[0], "mini-ImageNet", PLACEMENT)
    except CkfrError as error:
        raise CkfrError(
            "mini-ImageNet is made of ImageNet's pictures and is not downloaded: get it where its terms "
            f"allow, then {PLACEMENT.replace('there', f'in {base / FOLDER}')}."
        ) from error

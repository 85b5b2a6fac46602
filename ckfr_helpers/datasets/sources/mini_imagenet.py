"""mini-ImageNet with the original CKFR demo's very 80/20 split, from any of the layouts it goes round in.

    train.csv   val.csv   test.csv   images/*.jpg      the demo's own; the other two: `mini_imagenet_layouts`

The three parts are those of few-shot learning (64 + 16 + 20 classes of 600 pictures; Vinyals et al., 2016, in
the split of Ravi and Larochelle, 2017). The demo merges them into one 100-way data set and takes 120
positions out of 600, drawn once with seed 0, as the test pictures of *every* class: 48,000 to train on,
12,000 to test. All are ImageNet training pictures, so a backbone pretrained on ImageNet has seen the test
pictures.
"""

from pathlib import Path

import numpy as np

from ckfr_helpers.datasets.base import Example, ImageSource, check_split, make_example
from ckfr_helpers.datasets.sources.mini_imagenet_layouts import CSV_FILES, layout_at
from ckfr_helpers.datasets.splits import carve_validation
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.runtime import CkfrError, data_root

FOLDER = "mini-imagenet"
PER_CLASS = 600
PLACEMENT = (
    "`ckfr fetch mini-imagenet` brings it; or put train.csv, val.csv and test.csv (columns filename,label) "
    "and the pictures in images/ there, as the original demo has them, or a folder for each class, or the "
    "three few-shot pickles (mini-imagenet-cache-train.pkl, …)"
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

    A picture's position is its place among its class's rows, read in the order train, val, test.
    Labels follow the sorted WordNet ids (the demo's own order depended on its class listing and is not
    needed: distances belong to classes, not to numbers).

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        root: the folder in one of the three layouts, or a folder that holds ``mini-imagenet/``; None for
            ``data_root()``.
        val_fraction: share of each class's training pictures that become ``"val"``. The demo has no
            validation set; 0 gives its 48,000 training pictures exactly, the default leaves 43,200.
        seed: which pictures become ``"val"``. The test pictures never change.

    Raises:
        CkfrError: if a file or picture is missing or foreign, a class has other than 600 pictures, or a
            picture is listed twice.
    """

    name = "mini-imagenet"

    def __init__(
        self, split: str, root: str | Path | None = None, val_fraction: float = 0.1, seed: int = 0
    ) -> None:
        self.split = check_split(split)
        place = find_place(root)
        if place is None:
            base = _base(root)
            raise CkfrError(
                f"mini-ImageNet is not here: expected {base / FOLDER / CSV_FILES[0]}; {PLACEMENT}."
            )
        self._layout = layout_at(place)(place)  # type: ignore[misc]
        wnids = self._layout.wnids
        classes, labels, counts = np.unique(wnids, return_inverse=True, return_counts=True)
        odd = np.flatnonzero(counts != PER_CLASS)
        if len(odd):
            raise CkfrError(
                f"Class {classes[odd[0]]} has {counts[odd[0]]} rows in {self._layout.listing} of "
                f"{place}; expected {PER_CLASS} of every class, or the split is not the demo's."
            )
        self._layout.check_files()
        self.hierarchy = Hierarchy.from_wordnet([str(wnid) for wnid in classes])

        is_test = np.zeros(len(labels), dtype=bool)
        for label in range(len(classes)):
            is_test[np.flatnonzero(labels == label)[held_out_positions()]] = True
        keep = np.flatnonzero(is_test if split == "test" else ~is_test)
        if split != "test":
            keep = keep[carve_validation(labels[keep], val_fraction, seed)[split == "val"]]
        self.labels = labels[keep].astype(np.int64)
        self._layout.keep(keep)
        self.filenames = tuple(self._layout.names)

    def fingerprint(self) -> str:
        """Changes with the choice of pictures, and with any file's name, size or time of change."""
        return self._layout.fingerprint()

    def where(self, index: int) -> str:
        """The picture's file."""
        return str(self.filenames[index])

    def __getitem__(self, index: int) -> Example:
        """Picture (3, H, W) at its own size, and its label; mini-ImageNet has neither boxes nor masks."""
        return make_example(self._layout.image(index), self.labels[index])


def _base(root: str | Path | None) -> Path:
    return Path(root).expanduser() if root is not None else data_root()


def find_place(root: str | Path | None = None) -> Path | None:
    """The folder with mini-ImageNet in one of its layouts, ``root/mini-imagenet`` or ``root``; else None."""
    base = _base(root)
    return next((place for place in (base / FOLDER, base) if layout_at(place) is not None), None)

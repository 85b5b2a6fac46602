"""mini-ImageNet with the original CKFR demo's very 80/20 split, from any of the layouts it goes round in.

    train.csv val.csv test.csv images/*.jpg        the demo's own: columns filename,label
    n01532829/*.jpg …                              a folder a class, also below train/, val/, test/
    mini-imagenet-cache-{train,val,test}.pkl       few-shot learning's: image_data and class_dict

The three parts are those of few-shot learning (64 + 16 + 20 classes of 600 pictures; Vinyals et al., 2016, in
the split of Ravi and Larochelle, 2017). The demo merges them into one 100-way data set, its classes sorted by
WordNet id, and takes 120 positions out of 600, drawn once with seed 0, as the test pictures of *every* class:
48,000 to train on, 12,000 to test. All are ImageNet training pictures, so a backbone pretrained on ImageNet
has seen the test pictures.

A picture's *position* is its place among its class's pictures, read in the order train, val, test: row by
row, by file name, or as ``class_dict`` lists it. The split is the demo's very one where the order is its own:
by file name it is, for files under their original names.
"""

import hashlib
import re
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from ckfr_helpers.datasets.base import Example, ImageSource, check_split, make_example
from ckfr_helpers.datasets.files import FileTree, class_folders
from ckfr_helpers.datasets.splits import carve_validation
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.runtime import CkfrError, data_root, load_plain_pickle

FOLDER = "mini-imagenet"
PER_CLASS = 600
PARTS = ("train", "val", "test")
PLACEMENT = (
    "`ckfr fetch mini-imagenet` brings it; or put train.csv, val.csv and test.csv (columns filename,label) "
    "and the pictures in images/ there, as the original demo has them, or a folder for each class, or the "
    "three few-shot pickles (mini-imagenet-cache-train.pkl, …)"
)
_WNID = re.compile(r"n\d{8}")

Row = tuple[str, str]  # a picture's name and its WordNet id


def held_out_positions(count: int = PER_CLASS, share: float = 0.2, seed: int = 0) -> np.ndarray:
    """Which positions within each class are test pictures, increasing; 120 of them for the demo's numbers.

    Equals the second half of ``sklearn.model_selection.train_test_split(range(600), test_size=0.2,
    random_state=0)``, sorted: sklearn takes the first ``ceil(share * count)`` of one permutation.
    """
    order = np.random.RandomState(seed).permutation(count)
    return np.sort(order[: int(np.ceil(share * count))])


class MiniImageNet(ImageSource):
    """One split of mini-ImageNet as the original demo splits it.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        root: the folder in one of the three layouts, or a folder that holds ``mini-imagenet/``; None for
            ``data_root()``.
        val_fraction: share of each class's training pictures that become ``"val"``. The demo has no
            validation set; 0 gives its 48,000 training pictures exactly, the default leaves 43,200.
        seed: which pictures become ``"val"``. The test pictures never change.

    Attributes:
        filenames: of every picture, below the folder; in a pickle its name and row.

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
            base = Path(root).expanduser() if root is not None else data_root()
            raise CkfrError(f"{FOLDER} is not here: expected {base / FOLDER / 'train.csv'}; {PLACEMENT}.")
        self._tree = FileTree(place)
        layout = _layout_of(place)
        arrays: list[np.ndarray] = []
        if layout == "tables":
            rows = _table_rows(self._tree)
        elif layout == "folders":
            rows = _folder_rows(place)
        else:
            rows, arrays = _pickle_rows(place)
        names, wnids = np.array([name for name, _ in rows]), [wnid for _, wnid in rows]
        classes, labels, counts = np.unique(wnids, return_inverse=True, return_counts=True)
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
        if split != "test":
            keep = keep[carve_validation(labels[keep], val_fraction, seed, self.classes)[split == "val"]]
        self.labels = labels[keep].astype(np.int64)
        self.filenames = tuple(names[keep].tolist())
        self._pixels: torch.Tensor | None = None
        if arrays:  # a tensor, since workers that are spawned receive it as shared memory and not as a copy
            starts = np.cumsum([0, *map(len, arrays)])
            kept = [
                array[keep[(start <= keep) & (keep < start + len(array))] - start]
                for start, array in zip(starts[:-1], arrays, strict=True)
            ]
            self._pixels = torch.from_numpy(np.concatenate(kept))  # (N, H, W, 3)

    def fingerprint(self) -> str:
        """Changes with the choice of pictures, and with any file's name, size or time of change."""
        files = sorted({name.split("[")[0] for name in self.filenames}) if self._pixels is not None else []
        chosen = hashlib.sha256(repr(self.filenames).encode()).hexdigest()
        return f"{self._tree.fingerprint(files or self.filenames)}-{chosen[:16]}"

    def where(self, index: int) -> str:
        """The picture's file; in a pickle its row too."""
        return f"{self._tree.place}/{self.filenames[index]}"

    def __getitem__(self, index: int) -> Example:
        """Picture (3, H, W) at its own size, and its label; mini-ImageNet has neither boxes nor masks."""
        if self._pixels is not None:
            image = self._pixels[index].permute(2, 0, 1).contiguous()
        else:
            image = self._tree.image(self.filenames[index])
        return make_example(image, self.labels[index])


def find_place(root: str | Path | None = None) -> Path | None:
    """The folder with mini-ImageNet in one of its layouts, ``root/mini-imagenet`` or ``root``; else None."""
    base = Path(root).expanduser() if root is not None else data_root()
    return next((place for place in (base / FOLDER, base) if _layout_of(place)), None)


def _layout_of(place: Path) -> str | None:
    """Tables win over pickles, pickles over folders."""
    if (place / "train.csv").is_file():
        return "tables"
    if list(place.glob("mini-imagenet-cache-*.pkl")):
        return "pickles"
    for part in ("", *PARTS):
        folder = place / part
        if folder.is_dir() and any(_WNID.fullmatch(e.name) and e.is_dir() for e in folder.iterdir()):
            return "folders"
    return None


def _table_rows(tree: FileTree) -> list[Row]:
    rows = [
        (f"images/{row['filename']}", row["label"])
        for part in PARTS
        for _, row in tree.rows(f"{part}.csv", ("filename", "label"))
    ]
    names = sorted(name for name, _ in rows)
    if double := next((name for name, other in pairwise(names) if name == other), None):
        raise CkfrError(f"{double} is listed twice in train.csv, val.csv and test.csv of {tree.place}.")
    if missing := set(names) - {f"images/{name}" for name in tree.files("images")}:
        raise CkfrError(
            f"{len(missing)} of {len(names)} pictures, first {min(missing)}, are missing from {tree.place}."
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


def _pickle_rows(place: Path) -> tuple[list[Row], list[np.ndarray]]:
    """The rows of the three pickles, and of each its pictures (n, H, W, 3) in the order of its rows."""
    rows: list[Row] = []
    arrays: list[np.ndarray] = []
    for part in PARTS:
        paths = sorted(place.glob(f"mini-imagenet-cache-{part}*.pkl"))  # learn2learn says "validation"
        if not paths:
            raise CkfrError(f"The file mini-imagenet-cache-{part}.pkl is missing from {place}.")
        content = load_plain_pickle(paths[0], "a few-shot pickle of mini-ImageNet")
        try:
            images, members = content["image_data"], content["class_dict"]
            own = [(int(row), str(wnid)) for wnid, numbers in members.items() for row in numbers]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CkfrError(
                f"{paths[0]} is no few-shot pickle of mini-ImageNet ({type(error).__name__}: {error}); "
                "expected image_data (N, 84, 84, 3) uint8 and class_dict."
            ) from error
        if getattr(images, "dtype", None) != np.uint8 or images.shape[3:] != (3,):
            found = f"{getattr(images, 'dtype', type(images))} {getattr(images, 'shape', '')}"
            raise CkfrError(f"{paths[0]} holds image_data of {found}; expected (N, 84, 84, 3) uint8.")
        if sorted(row for row, _ in own) != list(range(len(images))):
            raise CkfrError(
                f"class_dict in {paths[0]} lists {len(own)} places among {len(images)} pictures; expected "
                "each picture once."
            )
        for wnid in members:
            if not _WNID.fullmatch(str(wnid)):
                raise CkfrError(f"{paths[0]} names a class {wnid!r}; expected WordNet ids such as n01532829.")
        rows += [(f"{paths[0].name}[{row}]", wnid) for row, wnid in own]
        arrays.append(images[[row for row, _ in own]])
    return rows, arrays

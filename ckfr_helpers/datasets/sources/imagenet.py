"""ImageNet-1k (ILSVRC 2012) as class folders, the layout that torchvision unpacks its archives to.

    train/<wnid>/*.JPEG   1,281,167 pictures in 1000 folders
    val/<wnid>/*.JPEG     50,000, 50 in each

ImageNet's terms let nobody pass it on, so nothing here downloads it; `fetch` says what to place where. The
official test labels were never published: the official *val* is what everybody reports and is our ``"test"``,
our ``"val"`` is carved out of the training pictures. Russakovsky et al., *ImageNet Large Scale Visual
Recognition Challenge*, IJCV 2015.
"""

from pathlib import Path

import numpy as np

from ckfr_helpers.datasets.base import Example, ImageSource, check_split, make_example
from ckfr_helpers.datasets.files import FileTree, class_folders, find_folder
from ckfr_helpers.datasets.splits import carve_validation
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.runtime import CkfrError, data_root

FOLDER = "imagenet"
CLASSES = 1000
PICTURES = {"train": 1_281_167, "val": 50_000}


class ImageNet(ImageSource):
    """One split of ImageNet-1k, or of any cut of it into the same layout (ImageNet-100, Imagenette, …).

    Labels follow the sorted WordNet ids, as torchvision's do.

    Args:
        split: ``"train"``, ``"val"`` (carved from the training pictures) or ``"test"`` (the official val).
        root: the folder with ``train/`` and ``val/``, or one that holds ``imagenet/``; None for
            ``data_root()``.
        val_fraction: share of each class's training pictures that become ``"val"``; 0.04 of ImageNet makes
            about 51,000, as many as the official val has.
        seed: which of them.

    Raises:
        CkfrError: if a folder is missing or foreign, or the two do not hold the same classes.
    """

    name = "imagenet"

    def __init__(
        self, split: str, root: str | Path | None = None, val_fraction: float = 0.04, seed: int = 0
    ) -> None:
        self.split = check_split(split)
        place = find_folder(root, FOLDER, "train", "ImageNet", f"`ckfr fetch {FOLDER}` says what goes where")
        folders = {part: class_folders(place / part) for part in ("train", "val")}
        if odd := sorted(set(folders["train"]) ^ set(folders["val"])):
            raise CkfrError(f"Only one of train and val in {place} has the class folder {odd[0]}.")
        self.hierarchy = Hierarchy.from_wordnet(sorted(folders["train"]))
        part = "val" if split == "test" else "train"
        for wnid, files in folders[part].items():
            if not files:
                raise CkfrError(f"The class folder {place / part / wnid} holds no pictures.")
        names = [f"{part}/{wnid}/{file}" for wnid, files in folders[part].items() for file in files]
        labels = np.repeat(np.arange(len(self.classes)), [len(files) for files in folders[part].values()])
        keep = np.arange(len(labels))
        if split != "test":
            keep = carve_validation(labels, val_fraction, seed, self.classes)[split == "val"]
        self._tree = FileTree(place)
        self.filenames, self.labels = tuple(names[position] for position in keep), labels[keep]

    def fingerprint(self) -> str:
        """Changes with the choice of pictures, and with any file's name, size or time of change."""
        return self._tree.fingerprint(self.filenames)

    def where(self, index: int) -> str:
        """The picture's file."""
        return f"{self._tree.place}/{self.filenames[index]}"

    def __getitem__(self, index: int) -> Example:
        """Picture (3, H, W) at its own size, and its label; boxes are a separate download and not read."""
        return make_example(self._tree.image(self.filenames[index]), self.labels[index])


def shortfall(place: Path) -> str | None:
    """What keeps a folder from being all of ImageNet-1k, in words; None if nothing does.

    Pictures are counted, not decoded.
    """
    for part, expected in PICTURES.items():
        try:
            folders = class_folders(place / part)
        except CkfrError as error:
            return str(error)
        count = sum(map(len, folders.values()))
        if len(folders) != CLASSES or count != expected:
            return (
                f"{place / part} has {len(folders)} class folders with {count:,} pictures; "
                f"expected {CLASSES} with {expected:,}."
            )
    return None


def fetch(root: str | Path | None = None) -> Path:
    """Find ImageNet-1k, complete; nobody may pass it on, so it is explained and not downloaded.

    Args:
        root: folder that holds ``imagenet/``; None for ``data_root()``.

    Returns:
        The folder, if it is there and holds every picture.

    Raises:
        Explained: if it is not, with what to place where.
    """
    base = Path(root).expanduser() if root is not None else data_root()
    place = base if (base / "train").is_dir() else base / FOLDER
    missing = shortfall(place) if place.is_dir() else None
    if place.is_dir() and missing is None:
        return place
    raise Explained(instructions(place, missing))


class Explained(CkfrError):
    """Instructions in place of a download; the command line prints them and exits with status 1."""

    status = 1


def instructions(folder: Path, missing: str | None = None) -> str:
    """What to place where, by hand, for ImageNet-1k."""
    from torchvision.datasets.imagenet import ARCHIVE_META

    files = "".join(f"       {name}  (md5 {md5})\n" for name, md5 in ARCHIVE_META.values())
    found = f"What is there is not complete: {missing}\n" if missing else ""
    return (
        f"ImageNet's terms let nobody pass it on, so ckfr does not download it.\n{found}"
        f"  1. Register at image-net.org, accept the terms, and download (about 145 GB) into {folder}:\n"
        f"{files}"
        "  2. Have torchvision check and sort them into class folders (as much again on the disk):\n"
        f'       python -c "from torchvision.datasets import ImageNet; [ImageNet({str(folder)!r}, part) '
        "for part in ('train', 'val')]\"\n"
        f"  3. Ask again: `ckfr fetch imagenet` counts what is there ({CLASSES} folders in each of train/\n"
        f"     and val/, {PICTURES['train']:,} and {PICTURES['val']:,} pictures). Then delete the archives.\n"
        "A copy already sorted into train/<WordNet id>/ and val/<WordNet id>/ can be linked there instead."
    )

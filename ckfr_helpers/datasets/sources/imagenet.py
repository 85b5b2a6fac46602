"""ImageNet-1k (ILSVRC 2012) as class folders, the layout that torchvision unpacks its archives to.

    train/<wnid>/*.JPEG   1,281,167 pictures in 1000 folders
    val/<wnid>/*.JPEG     50,000, 50 in each

ImageNet's terms let nobody pass it on, so `fetch` says what to place where. The official test labels were
never published: the official *val* is what everybody reports and is our ``"test"``, our ``"val"`` is carved
out of the training pictures. Russakovsky et al., *ImageNet Large Scale Visual Recognition Challenge*, 2015.
"""

from pathlib import Path

import numpy as np

from ckfr_helpers.datasets.base import check_split
from ckfr_helpers.datasets.files import FileSource, FileTree, class_folders, find_folder, root_folder
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.runtime import CkfrError

FOLDER = "imagenet"


class ImageNet(FileSource):
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
        self._hold(FileTree(place), names, labels, None if split == "test" else (val_fraction, seed))


def fetch(root: str | Path | None = None) -> Path:
    """Find ImageNet; nobody may pass it on, so it is explained and not downloaded.

    Args:
        root: folder that holds ``imagenet/``; None for ``data_root()``.

    Raises:
        CkfrError: if it is not there, with what to place where.
    """
    from torchvision.datasets.imagenet import ARCHIVE_META

    base = root_folder(root)
    place = base if (base / "train").is_dir() else base / FOLDER
    if (place / "train").is_dir() and (place / "val").is_dir():
        return place
    files = "".join(f"       {name}  (md5 {md5})\n" for name, md5 in ARCHIVE_META.values())
    raise CkfrError(
        "ImageNet's terms let nobody pass it on, so ckfr does not download it.\n"
        f"  1. Register at image-net.org, accept the terms, and download (about 145 GB) into {place}:\n"
        f"{files}"
        "  2. Have torchvision check and sort them into class folders (as much again on the disk):\n"
        f'       python -c "from torchvision.datasets import ImageNet; [ImageNet({str(place)!r}, part) '
        "for part in ('train', 'val')]\"\n"
        "A copy already sorted into train/<WordNet id>/ and val/<WordNet id>/ can be linked there instead."
    )

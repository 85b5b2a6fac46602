"""ImageNet-1k (ILSVRC 2012) as class folders, the layout that torchvision unpacks its archives to.

    train/<wnid>/*.JPEG   1,281,167 pictures in 1000 folders
    val/<wnid>/*.JPEG     50,000, 50 in each

ImageNet's terms let nobody pass it on, so `fetch` says what to place where. The official test labels were
never published: the official *val* is what everybody reports and is our ``"test"``, our ``"val"`` is carved
out of the training pictures. Russakovsky et al., *ImageNet Large Scale Visual Recognition Challenge*, 2015.
"""

from pathlib import Path

from torchvision.datasets.imagenet import ARCHIVE_META

from ckfr_helpers.datasets import files
from ckfr_helpers.datasets.base import check_split
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.runtime import CkfrError

FOLDER = "imagenet"


class ImageNet(files.FileSource):
    """One split of ImageNet-1k, or of any cut of it into the same layout (ImageNet-100, Imagenette, …).

    Labels follow the sorted WordNet ids, as torchvision's do.

    Args:
        root: the folder with ``train/`` and ``val/``, or one that holds ``imagenet/``.
        val_fraction, seed: share of each class's training pictures that become ``"val"``, and which of them;
            0.04 of ImageNet makes about 51,000, as many as the official val has.

    Raises:
        CkfrError: if a folder is missing, empty or foreign, or the two do not hold the same classes.
    """

    name = "imagenet"

    def __init__(
        self, split: str, root: str | Path | None = None, val_fraction: float = 0.04, seed: int = 0
    ) -> None:
        self.split = check_split(split)
        remedy = f"`ckfr fetch {FOLDER}` says what goes where"
        place = files.find_folder(root, FOLDER, "train", "ImageNet", remedy)
        parts = {part: files.class_folders(place / part) for part in ("train", "val")}
        files.check_classes(place, parts)
        self.hierarchy = Hierarchy.from_wordnet(list(parts["train"]))
        part = "val" if split == "test" else "train"
        self._hold(place, *files.class_rows(part, parts[part]), (val_fraction, seed))


def fetch(root: str | Path | None = None) -> Path:
    """Where ImageNet is; a `CkfrError` says what to place where, since nobody may pass it on."""
    base = files.root_folder(root)
    place = base if (base / "train").is_dir() else base / FOLDER
    if (place / "train").is_dir() and (place / "val").is_dir():
        return place
    archives = "".join(f"       {name}  (md5 {md5})\n" for name, md5 in ARCHIVE_META.values())
    raise CkfrError(
        "ImageNet's terms let nobody pass it on, so ckfr does not download it.\n"
        f"  1. Register at image-net.org, accept the terms, and download (about 145 GB) into {place}:\n"
        f"{archives}"
        "  2. Have torchvision check and sort them into class folders (as much again on the disk):\n"
        f'       python -c "from torchvision.datasets import ImageNet; [ImageNet({str(place)!r}, part) '
        "for part in ('train', 'val')]\"\n"
        "A copy already sorted into train/<WordNet id>/ and val/<WordNet id>/ can be linked there instead."
    )

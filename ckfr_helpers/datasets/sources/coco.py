"""COCO 2014: photographs of everyday scenes, a box for each of 80 kinds of things.

    coco/annotations/instances_train2014.json, instances_val2014.json
    coco/train2014/COCO_train2014_000000000009.jpg …      coco/val2014/COCO_val2014_000000000042.jpg …

The split of the papers on multi-label classification: train on train2014, test on val2014, each without the
pictures that have no object, which leaves 82,081 and 40,137. Our ``"val"`` is carved out of train2014. Its 80
classes are placed in WordNet by hand (``wordnet.class_list``). Lin et al., *Microsoft COCO: Common Objects in
Context*, ECCV 2014.

The annotations are one JSON file with lists of pictures, categories and objects, read here as it is: that is
shorter than ``torchvision.datasets.CocoDetection``, and does without ``pycocotools``.
"""

import json
from pathlib import Path
from typing import Any

from ckfr_helpers.datasets.base import check_split
from ckfr_helpers.datasets.fetching.download import download_archives
from ckfr_helpers.datasets.files import find_folder, root_folder
from ckfr_helpers.datasets.objects import ObjectFiles, Thing
from ckfr_helpers.hierarchy import wordnet
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.runtime import CkfrError

FOLDER = "coco"
PARTS = {"train": "train2014", "val": "train2014", "test": "val2014"}
SITE = "http://images.cocodataset.org"
ARCHIVES = {
    f"{SITE}/annotations/annotations_trainval2014.zip": "md5:0a379cfc70b0e71301e0f377548639bd",
    f"{SITE}/zips/train2014.zip": "md5:0da8c0bd3d6becc4dcb32757491aca88",
    f"{SITE}/zips/val2014.zip": "md5:a3d79f5ed8d289b7a7554ce06a5782b3",
}


class Coco(ObjectFiles):
    """One split of COCO 2014; targets as `ObjectFiles` says, labels in the classes' alphabetical order.

    COCO's own category ids run from 1 to 90 with gaps. A box around a crowd is ``difficult``; a class that a
    crowd alone shows is among the ``labels`` all the same. A box thinner than a pixel comes to cover one.

    Args:
        root: the folder with ``annotations/``, or one that holds ``coco/``.
        val_fraction, seed: share of train2014 that becomes ``"val"``, and which pictures; 0.05 makes 4104.

    Raises:
        CkfrError: if the data is missing or not whole, or the annotations are damaged; the file is named.
    """

    name = "coco"
    difficult_counts = True

    def __init__(
        self, split: str, root: str | Path | None = None, val_fraction: float = 0.05, seed: int = 0
    ) -> None:
        self.split = check_split(split)
        part = PARTS[split]
        table = f"annotations/instances_{part}.json"
        place = find_folder(root, FOLDER, table, "COCO 2014", f"`ckfr fetch {self.name}` brings it")
        self.hierarchy = Hierarchy.from_wordnet(wordnet.class_list(self.name))
        things = _read(place / table, wordnet.class_names(self.name))
        pictures = {f"{part}/{name}": things[name] for name in sorted(things)}
        self._hold_things(place, pictures, val_fraction, seed)


def _read(path: Path, classes: tuple[str, ...]) -> dict[str, list[Thing]]:
    """The objects of every picture that has any, by its file name."""
    things: dict[str, list[Thing]] = {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = {row["id"]: row["file_name"] for row in content["images"]}
        labels = {row["id"]: classes.index(row["name"].replace(" ", "_")) for row in content["categories"]}
        for row in content["annotations"]:
            thing = Thing(labels[row["category_id"]], _box(row), bool(row.get("iscrowd", 0)))
            things.setdefault(names[row["image_id"]], []).append(thing)
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CkfrError(f"{path} is no annotation file of COCO ({reason}); fetch it again.") from error
    return things


def _box(row: dict[str, Any]) -> list[float]:
    """Both ends inside, from COCO's corner, width and height."""
    x, y, width, height = map(float, row["bbox"])
    if not (x >= 0 and y >= 0 and width >= 0 and height >= 0):
        raise ValueError(f"the box {row['bbox']} of object {row.get('id')} is reversed or outside")
    return [x, y, max(x, x + width - 1), max(y, y + height - 1)]


def fetch(root: str | Path | None = None, archives: dict[str, str] = ARCHIVES) -> Path:
    """Download COCO 2014's annotations and pictures (19 GB) from its publisher, and unpack them."""
    folder = root_folder(root) / FOLDER
    if not all((folder / "annotations" / f"instances_{part}.json").is_file() for part in PARTS.values()):
        download_archives(archives, folder)
    return folder

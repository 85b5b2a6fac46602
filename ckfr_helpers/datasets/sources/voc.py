"""PASCAL VOC 2007: photographs of 20 kinds of things, a box for every one.

    VOCdevkit/VOC2007/ImageSets/Main/trainval.txt, test.txt     names of 5011 and 4952 pictures
    VOCdevkit/VOC2007/Annotations/000005.xml …                  their objects
    VOCdevkit/VOC2007/JPEGImages/000005.jpg …

Papers on weak supervision train on *trainval* and test on *test*; our ``"val"`` is carved out of trainval.
Its 20 classes are placed in WordNet by hand (``wordnet.class_list``). Everingham et al., *The PASCAL Visual
Object Classes (VOC) Challenge*, IJCV 2010.
"""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from torchvision.datasets import VOCDetection
from torchvision.datasets.voc import DATASET_YEAR_DICT

from ckfr_helpers.datasets.base import check_split
from ckfr_helpers.datasets.fetching.download import download_archives
from ckfr_helpers.datasets.files import root_folder
from ckfr_helpers.datasets.objects import ObjectFiles, Thing
from ckfr_helpers.hierarchy import wordnet
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.runtime import CkfrError

FOLDER = "VOCdevkit/VOC2007"
PARTS = {"train": "trainval", "val": "trainval", "test": "test"}
# One archive each of trainval and test, at the publisher's; torchvision knows where, and their checksums.
ARCHIVES = {
    DATASET_YEAR_DICT[key]["url"]: f"md5:{DATASET_YEAR_DICT[key]['md5']}" for key in ("2007", "2007-test")
}


class Voc2007(ObjectFiles):
    """One split of VOC 2007; targets as `ObjectFiles` says, labels in the classes' alphabetical order.

    VOC counts its pixels from 1; ours start at 0. Objects that its authors marked as difficult stand among
    the boxes as ``difficult`` and do not enter ``labels``: a class of which a picture has such objects only
    is absent, where VOC's own classification task would leave the picture out for that class.

    Args:
        root: folder that holds ``VOCdevkit/``.
        val_fraction, seed: share of trainval that becomes ``"val"``, and which pictures; 0.1 makes 501.

    Raises:
        CkfrError: if the data is missing or not whole, or an annotation is damaged; the file is named.
    """

    name = "voc2007"

    def __init__(
        self, split: str, root: str | Path | None = None, val_fraction: float = 0.1, seed: int = 0
    ) -> None:
        self.split = check_split(split)
        base, part = root_folder(root), PARTS[split]
        try:
            official = VOCDetection(base, year="2007", image_set=part)
        except (RuntimeError, OSError) as error:
            expected = base / FOLDER / "ImageSets" / "Main" / f"{part}.txt"
            remedy = f"`ckfr fetch {self.name}` brings it"
            raise CkfrError(f"VOC 2007 is not here: expected {expected}; {remedy}.") from error
        self.hierarchy = Hierarchy.from_wordnet(wordnet.class_list(self.name))
        label_of = {name: label for label, name in enumerate(wordnet.class_names(self.name))}
        things = {
            f"JPEGImages/{Path(picture).name}": _read(Path(annotation), label_of)
            for picture, annotation in zip(official.images, official.annotations, strict=True)
        }
        self._hold_things(base / FOLDER, things, val_fraction, seed)


def _read(path: Path, label_of: dict[str, int]) -> list[Thing]:
    """The objects of one annotation file."""
    try:
        tree: Any = VOCDetection.parse_voc_xml(ElementTree.parse(path).getroot())
        things = [_thing(row, label_of) for row in tree["annotation"]["object"]]
    except (OSError, ElementTree.ParseError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CkfrError(f"{path} is no annotation of VOC 2007 ({reason}); fetch it again.") from error
    if not things:
        raise CkfrError(f"{path} lists no object; expected at least one.")
    return things


def _thing(row: dict[str, Any], label_of: dict[str, int]) -> Thing:
    x0, y0, x1, y1 = box = [float(row["bndbox"][key]) - 1 for key in ("xmin", "ymin", "xmax", "ymax")]
    if not (0 <= x0 <= x1 and 0 <= y0 <= y1):
        raise ValueError(f"the box {row['bndbox']} is empty, reversed or outside")
    return Thing(label_of[row["name"]], box, row["difficult"] == "1")


def fetch(root: str | Path | None = None, archives: dict[str, str] = ARCHIVES) -> Path:
    """Download VOC 2007's trainval and test (900 MB) from its publisher, and unpack both."""
    folder = root_folder(root) / FOLDER
    if not all((folder / "ImageSets" / "Main" / f"{part}.txt").is_file() for part in PARTS.values()):
        download_archives(archives, folder, inside=FOLDER)
    return folder

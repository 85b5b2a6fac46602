"""The embedded photographs: which ones, where they come from, and how a cut-out is made of one.

Tux Paint's stamps hold photographs of animals, plants, food, tools, instruments and vehicles, cut out with
an alpha channel. ``data/photos.csv`` names the ones used here; ``ckfr fetch photos`` brings them.
"""

import csv
import functools
import hashlib
import shutil
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from ckfr_helpers.datasets.base import Split, box_of_mask
from ckfr_helpers.datasets.fetching.debian import fetch_deb
from ckfr_helpers.datasets.fetching.download import download, unpack, working_folder
from ckfr_helpers.datasets.files import find_folder
from ckfr_helpers.runtime import CkfrError, atomic_path, data_root, project_file

FOLDER = "photos"
PACKAGE, STAMPS = "tuxpaint-stamps-default", "usr/share/tuxpaint/stamps"
# Debian's signed source package and nixpkgs record the same checksum for upstream's release.
RELEASE = (
    "https://downloads.sourceforge.net/project/tuxpaint/tuxpaint-stamps/2022-06-04/"
    "tuxpaint-stamps-2022.06.04.tar.gz"
)
RELEASE_SHA256 = "842065576fae554358e00e51d71a492616a6490b12b592228067477c287a0bf8"


class Cutout(NamedTuple):
    """An object without its surroundings."""

    pixels: np.ndarray  # (h, w, 4) uint8, RGB and alpha, no empty rows or columns at the rim
    label: int
    name: str  # which photograph it is


@functools.cache
def read_list() -> tuple[dict[str, str], ...]:
    """The rows of ``data/photos.csv``, in file order; ``data/README.md`` explains the columns."""
    with open(project_file("photos.csv"), newline="", encoding="utf-8") as file:
        return tuple(csv.DictReader(file))


def class_ids() -> tuple[str, ...]:
    """WordNet ids of the classes in label order, which is their order in the list."""
    return tuple(dict.fromkeys(photo["wnid"] for photo in read_list()))


def fetch(root: str | Path | None = None) -> Path:
    """Bring the photographs from the Debian package, else from upstream's release, below ``root/photos``.

    Every file is checked against its SHA-256 in the list, so both ways give the same bytes. What is already
    here and whole is left alone. If both fail, a `CkfrError` says why.
    """
    folder = Path(root or data_root()).expanduser() / FOLDER
    missing = [photo for photo in read_list() if not _whole(folder / photo["file"], photo)]
    if not missing:
        return folder
    troubles = []
    with working_folder(folder) as scratch:
        for bring in (_debian, _release):
            try:
                stamps = bring(scratch)
                for photo in missing:
                    if not _whole(stamps / photo["file"], photo):
                        raise CkfrError(f"{stamps} has no, or another, {photo['file']}.")
                    with atomic_path(folder / photo["file"]) as temporary:
                        shutil.copyfile(stamps / photo["file"], temporary)
                return folder
            except CkfrError as error:
                troubles.append(str(error))
    raise CkfrError(f"{len(missing)} photographs could not be fetched: {' '.join(troubles)}")


def _debian(scratch: Path) -> Path:
    return fetch_deb(PACKAGE, scratch / "package") / STAMPS


def _release(scratch: Path) -> Path:
    archive = download(RELEASE, scratch / "release.tar.gz", f"sha256:{RELEASE_SHA256}")
    return next(unpack(archive, scratch / "release").glob("*/stamps"))


def _whole(path: Path, photo: dict[str, str]) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == photo["sha256"]


def open_cutouts(split: Split, root: str | Path | None = None) -> list[Cutout]:
    """Read, check and clean a split's photographs; a `CkfrError` names what is missing or damaged."""
    photos = read_list()
    remedy = "`ckfr fetch photos` brings it"
    folder = find_folder(root, FOLDER, photos[0]["file"], "The photo collection", remedy)
    cutouts = []
    for photo in (one for one in photos if one["split"] == split):
        path = folder / photo["file"]
        if not _whole(path, photo):
            raise CkfrError(f"{path} is missing or damaged; `ckfr fetch photos` brings it again.")
        with Image.open(path) as picture:
            pixels = np.array(picture.convert("RGBA"))
        pixels = clean(pixels, photo["remove"] == "grass")
        cutouts.append(Cutout(pixels, class_ids().index(photo["wnid"]), photo["file"]))
    return cutouts


def clean(pixels: np.ndarray, grass: bool = False) -> np.ndarray:
    """Make a stamp (h, w, 4), RGB and alpha in uint8, fit to be pasted: no specks, no empty rim, no halo.

    With ``grass``, what is green at the bottom goes too: some animals were cut out with what they stood in.
    """
    alpha = pixels[..., 3].copy()
    if grass:
        red, green, blue = np.moveaxis(cv2.GaussianBlur(pixels[..., :3], (0, 0), 1.0).astype(np.int16), -1, 0)
        tufts = (green > red + 4) & (green > blue + 8)
        tufts[: int(0.7 * len(tufts))] = False  # they stand at the feet; a green cast on the back is fur
        alpha[tufts] = 0
    solid = (alpha > 127).astype(np.uint8)
    if grass:  # single green pixels in fur stay, and stems between tufts go
        for how in (cv2.MORPH_CLOSE, cv2.MORPH_OPEN):
            solid = np.asarray(cv2.morphologyEx(solid, how, np.ones((3, 3), np.uint8)), np.uint8)
        alpha = np.where(solid > 0, pixels[..., 3], 0).astype(np.uint8)
    # Dust left over by whoever cut the stamp out would stretch the box far beyond the object.
    count, parts, statistics, _ = cv2.connectedComponentsWithStats(solid, connectivity=8)
    areas = statistics[:, cv2.CC_STAT_AREA]
    if count < 2:
        raise CkfrError("A cut-out has no opaque pixel; expected an object.")
    specks = np.flatnonzero(areas < (0.2 if grass else 0.01) * areas[1:].max())
    alpha[np.isin(parts, specks[specks > 0])] = 0
    near = cv2.dilate((alpha > 127).astype(np.uint8), np.ones((5, 5), np.uint8))
    alpha[near == 0] = 0  # faint veils far from anything solid
    x0, y0, x1, y1 = box_of_mask(alpha > 0)
    return np.dstack([pixels[..., :3], alpha])[y0 : y1 + 1, x0 : x1 + 1]

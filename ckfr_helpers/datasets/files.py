"""Finding a data set's folder and reading its pictures, with one clear sentence when something is missing."""

import csv
import hashlib
import io
import os
import warnings
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ckfr_helpers.datasets.base import Example, ImageSource, make_example
from ckfr_helpers.datasets.subset import carve_validation
from ckfr_helpers.runtime import CkfrError, data_root

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
_LITTER = frozenset({"thumbs.db", "desktop.ini"})


def root_folder(root: str | Path | None) -> Path:
    """The folder a user named, or ``data_root()``."""
    return Path(root).expanduser() if root is not None else data_root()


def find_folder(root: str | Path | None, folder: str, marker: str, title: str, remedy: str) -> Path:
    """Where a data set lies: ``root/folder``, or ``root`` itself if it is that folder.

    Args:
        root: the folder a user named, or None for ``data_root()``.
        folder: the data set's usual folder name.
        marker: a file inside it by which it is known, e.g. ``"wnids.txt"``.
        title, remedy: the data set's name for people, and what to do if it is missing.

    Raises:
        CkfrError: if neither place has the marker.
    """
    base = root_folder(root)
    for place in (base / folder, base):
        if (place / marker).exists():
            return place
    raise CkfrError(f"{title} is not here: expected {base / folder / marker}; {remedy}.")


def class_folders(place: Path) -> dict[str, list[str]]:
    """The folders in ``place``, sorted, each with the sorted names of its pictures; hidden entries left out.

    Warns of files that are no pictures by their ending.

    Raises:
        CkfrError: if pictures lie loose in ``place``, or a folder in a class folder is named like a picture.
    """
    found: dict[str, list[str]] = {}
    foreign: list[Path] = []
    for folder in sorted(place.iterdir() if place.is_dir() else ()):
        if not folder.is_dir() and folder.suffix.lower() in ENDINGS:
            raise CkfrError(f"{place} holds loose pictures such as {folder.name}; expected a folder a class.")
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        found[folder.name] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower() in _LITTER:
                    continue
                picture = entry.name.lower().endswith(ENDINGS)
                if picture and entry.is_dir():
                    raise CkfrError(f"{folder / entry.name} is a folder; expected a picture.")
                if picture:
                    found[folder.name].append(entry.name)
                elif not entry.is_dir():
                    foreign.append(folder / entry.name)
        found[folder.name].sort()
    if foreign:
        warnings.warn(
            f"{len(foreign)} file(s), first {min(foreign)}, are left out: expected {', '.join(ENDINGS)}.",
            stacklevel=2,
        )
    return found


class FileTree:
    """A folder, or the same folder inside a zip file: lists names and reads bytes.

    Safe in loader processes however they start: the zip is opened anew in each process, since a file handle
    shared through fork has one position for all.

    Args:
        place: the folder or the ``.zip``.
        marker: in a zip, the file beside which everything else lies, e.g. ``"wnids.txt"``.

    Raises:
        CkfrError: if a zip is damaged or has no marker.
    """

    def __init__(self, place: Path, marker: str = "") -> None:
        self.place, self._prefix = place, ""
        self._zip: zipfile.ZipFile | None = None
        self._owner = -1
        self._folders: dict[str, set[str]] | None = None
        if place.is_file():
            try:
                names = self._archive().namelist()
            except zipfile.BadZipFile as error:
                raise CkfrError(f"{place} is not a readable zip file ({error}); fetch it again.") from error
            found = sorted((name for name in names if name.split("/")[-1] == marker), key=len)
            if not found:
                raise CkfrError(f"{place} holds no {marker}; expected the data set's own zip.")
            self._prefix, self._folders = found[0][: -len(marker)], {}
            for name in names:
                parent, _, leaf = name.removeprefix(self._prefix).rpartition("/")
                self._folders.setdefault(parent, set()).add(leaf)

    def _archive(self) -> zipfile.ZipFile:
        if self._zip is None or self._owner != os.getpid():
            self._zip, self._owner = zipfile.ZipFile(self.place), os.getpid()
        return self._zip

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_zip": None}

    def files(self, folder: str) -> set[str]:
        """Names of the files directly in ``folder``; empty if there is no such folder."""
        if self._folders is not None:
            return self._folders.get(folder, set())
        place = self.place / folder
        return {entry.name for entry in os.scandir(place) if entry.is_file()} if place.is_dir() else set()

    def read(self, name: str) -> bytes:
        """The bytes of one file; a `CkfrError` if it is missing or cannot be read."""
        try:
            if self._folders is not None:
                return self._archive().read(self._prefix + name)
            return (self.place / name).read_bytes()
        except (KeyError, FileNotFoundError) as error:
            raise CkfrError(f"The file {name} is missing from {self.place}.") from error
        except (OSError, zipfile.BadZipFile, zlib.error) as error:
            raise CkfrError(f"The file {name} in {self.place} cannot be read ({error}).") from error

    def text(self, name: str) -> str:
        """One file as text; a `CkfrError` if it is missing, or not in UTF-8."""
        data = self.read(name)
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise CkfrError(
                f"Line {line} of {self.place / name} is not in UTF-8; save it as UTF-8."
            ) from error

    def rows(self, name: str, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
        """Line numbers and rows of a CSV file with at least these columns."""
        reader = csv.DictReader(io.StringIO(self.text(name), newline=""))
        for column in columns:
            if column not in (reader.fieldnames or ()):
                found = f"{self.place / name} has no column {column!r}"
                raise CkfrError(f"{found}; expected {','.join(columns)}.")
        return [(reader.line_num, row) for row in reader]

    def fingerprint(self, names: Iterable[str]) -> str:
        """Changes with any of these files' names, sizes or times of change; in a zip, with their checksums.

        Where the tree lies does not enter: a folder that was moved keeps its fingerprint.
        """
        digest = hashlib.sha256()
        for name in names:
            try:
                if self._folders is not None:
                    entry = self._archive().getinfo(self._prefix + name)
                    state = (entry.file_size, entry.CRC)
                else:
                    status = (self.place / name).stat()
                    state = (status.st_size, status.st_mtime_ns)
            except (KeyError, FileNotFoundError) as error:
                raise CkfrError(f"The file {name} is missing from {self.place}.") from error
            digest.update(repr((name, *state)).encode())
        return digest.hexdigest()


class FileSource(ImageSource):
    """A source of picture files; a subclass sets ``split`` and ``hierarchy`` and calls `_hold`.

    Attributes:
        tree: where the files lie.
        filenames: of every picture, below ``tree``.
        boxes: corners ``[x0, y0, x1, y1]`` of the objects by file name, where there are any.
    """

    tree: FileTree
    filenames: tuple[str, ...]
    boxes: dict[str, list[list[float]]]

    def _hold(
        self,
        tree: FileTree,
        filenames: list[str],
        labels: np.ndarray,
        carve: tuple[float, int] | None = None,
        boxes: dict[str, list[list[float]]] | None = None,
    ) -> None:
        """Keep these pictures; with ``carve`` (share, seed) only the part for training or validation."""
        keep = np.arange(len(labels))
        if carve is not None:
            keep = carve_validation(labels, *carve, self.classes)[self.split == "val"]
        self.tree, self.boxes = tree, boxes or {}
        self.filenames, self.labels = tuple(filenames[place] for place in keep), labels[keep].astype(np.int64)

    def fingerprint(self) -> str:
        """Changes with the choice of pictures, their files and their boxes."""
        boxes = hashlib.sha256(repr(sorted(self.boxes.items())).encode()).hexdigest()
        return f"{self.tree.fingerprint(self.filenames)}-{boxes}"

    def where(self, index: int) -> str:
        """The picture's file."""
        return f"{self.tree.place}/{self.filenames[index]}"

    def __getitem__(self, index: int) -> Example:
        """Picture (3, H, W) at its own size, its label, and its boxes (n, 4) where there are any."""
        name = self.filenames[index]
        image = decode_image(self.tree.read(name), self.where(index))
        boxes = torch.tensor(self.boxes[name]) if name in self.boxes else None
        return make_example(image, self.labels[index], boxes)


def decode_image(data: bytes, where: str) -> Tensor:
    """Decode a picture upright, as its EXIF data says; of several frames or pages the first.

    Returns:
        (3, H, W) uint8: greyscale, palette and CMYK become RGB; 16 bits are scaled to 8.

    Raises:
        CkfrError: if the bytes are no complete picture, or one of absurd size; the message says ``where``.
    """
    try:
        with Image.open(io.BytesIO(data)) as file:
            picture = ImageOps.exif_transpose(file)
            if picture.mode.startswith("I"):  # 16 bits of grey; "I" in older versions of Pillow
                levels = np.asarray(picture).astype(np.int64)
                if levels.min() < 0 or levels.max() > 65535:
                    raise ValueError("more than 16 bits a pixel")
                picture = Image.fromarray(np.round(levels / 257).astype(np.uint8))
            elif picture.mode == "F":
                raise ValueError("floating-point pixels; expected 8 or 16 bits")
            pixels = np.array(picture.convert("RGB"))  # (H, W, 3)
    except UnidentifiedImageError as error:
        raise CkfrError(f"The file {where} cannot be decoded: it is no picture that Pillow knows.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise CkfrError(f"The picture {where} cannot be decoded ({error}); replace it.") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()  # (3, H, W)

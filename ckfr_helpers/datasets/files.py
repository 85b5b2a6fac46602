"""Finding a data set's folder and reading its pictures, with one clear sentence when something is missing."""

import calendar
import csv
import hashlib
import os
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ckfr_helpers.datasets.base import Example, ImageSource, make_example
from ckfr_helpers.datasets.fetching.download import unpack, working_folder
from ckfr_helpers.datasets.subset import carve_validation
from ckfr_helpers.runtime import CkfrError, data_root

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def root_folder(root: str | Path | None) -> Path:
    """The folder a user named, or ``data_root()``."""
    return Path(root).expanduser() if root is not None else data_root()


def find_folder(root: str | Path | None, folder: str, marker: str, title: str, remedy: str) -> Path:
    """Where a data set lies: ``root/folder``, or ``root`` itself if that has the ``marker``, a file inside.

    Where neither has, a `CkfrError` names the ``title`` and tells the ``remedy``.
    """
    base = root_folder(root)
    for place in (base / folder, base):
        if (place / marker).exists():
            return place
    raise CkfrError(f"{title} is not here: expected {base / folder / marker}; {remedy}.")


def class_folders(place: Path) -> dict[str, list[str]]:
    """The folders in ``place``, sorted, each with the sorted names of its pictures; hidden entries left out.

    Warns of files that are no pictures by their ending; a `CkfrError` if pictures lie loose in ``place``.
    """
    found: dict[str, list[str]] = {}
    foreign: list[Path] = []
    for folder in sorted(place.iterdir() if place.is_dir() else ()):
        if not folder.is_dir() and folder.suffix.lower() in ENDINGS:
            raise CkfrError(f"{place} holds loose pictures such as {folder.name}; expected class folders.")
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
        found[folder.name] = [name for name in names if name.lower().endswith(ENDINGS)]
        others = [folder / name for name in names if not name.lower().endswith(ENDINGS)]
        foreign += [file for file in others if file.is_file() and file.name != "Thumbs.db"]
    if foreign:
        warnings.warn(
            f"{len(foreign)} file(s), first {min(foreign)}, are left out: expected {', '.join(ENDINGS)}.",
            stacklevel=2,
        )
    return found


def check_classes(place: Path, parts: dict[str, dict[str, list[str]]]) -> None:
    """Refuse parts, each as `class_folders` gives it, that differ in their classes or have an empty one."""
    first, classes = next(iter(parts.items()))
    for part, found in parts.items():
        if odd := sorted(set(found) ^ set(classes)):
            raise CkfrError(f"Class {odd[0]!r} is in one of {first}/ and {part}/ only, below {place}.")
        if empty := [name for name in classes if not found[name]]:
            raise CkfrError(f"{place / part / empty[0]} holds no picture.")


def class_rows(part: str, found: dict[str, list[str]]) -> tuple[list[str], np.ndarray]:
    """Names ``part/class/file`` of a part's pictures, and their labels (N,), by the order of the classes."""
    names = [f"{part}/{name}/{file}".removeprefix("/") for name, files in found.items() for file in files]
    return names, np.repeat(np.arange(len(found)), [len(files) for files in found.values()])


def unzipped(root: Path) -> Path:
    """The folder in a zip, unpacked below ``data_root()/unzipped`` once; the root itself if it is no file."""
    if not root.is_file():
        return root
    state = repr((root.resolve(), root.stat().st_size, root.stat().st_mtime_ns))
    folder = data_root() / "unzipped" / f"{root.stem}-{hashlib.sha256(state.encode()).hexdigest()[:10]}"
    if not folder.is_dir():
        with working_folder(folder, wait=True) as scratch:
            if not folder.is_dir():  # nobody did it while we waited
                content = unpack(root, scratch / "content")
                _keep_dates(root, content)
                content.rename(folder)
    inside = list(folder.iterdir())
    return inside[0] if len(inside) == 1 else folder


def _keep_dates(archive: Path, content: Path) -> None:
    """Give unpacked files the dates that their zip names, or each copy would have another fingerprint."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            dates = {entry.filename: calendar.timegm(entry.date_time) for entry in file.infolist()}
        for name, date in dates.items():
            if (content / name).is_file() and (content / name).resolve().is_relative_to(content.resolve()):
                os.utime(content / name, (date, date))


def read_rows(path: Path, columns: Sequence[str], **form: Any) -> list[tuple[int, dict[str, str]]]:
    """Line numbers and rows of a CSV file with at least these columns; ``form`` is `csv.DictReader`'s."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, **form)
            for column in columns:
                if column not in (reader.fieldnames or ()):
                    raise CkfrError(f"{path} has no column {column!r}; expected {','.join(columns)}.")
            return [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CkfrError(f"{path} cannot be read as a table in UTF-8 ({error}).") from None


class FileSource(ImageSource):
    """A source of picture files; a subclass sets ``split`` and ``hierarchy`` and calls `_hold`.

    Attributes:
        place: the folder where the files lie.
        filenames: of every picture, below ``place``.
        boxes: corners ``[x0, y0, x1, y1]`` of the objects by file name, where there are any.
    """

    place: Path
    filenames: tuple[str, ...]
    boxes: dict[str, list[list[float]]]

    def _hold(
        self,
        place: Path,
        filenames: Sequence[str],
        labels: np.ndarray,
        carve: tuple[float, int] | None = None,
    ) -> None:
        """Keep these pictures; with ``carve`` (share, seed), and except in "test", only train's or val's."""
        keep = np.arange(len(labels))
        if carve is not None and self.split != "test":
            keep = carve_validation(labels, *carve, self.classes)[self.split == "val"]
        self.place, self.boxes = place, {}
        self.filenames, self.labels = (
            tuple(filenames[int(row)] for row in keep),
            labels[keep].astype(np.int64),
        )

    def fingerprint(self) -> str:
        """Changes with the pictures' names, sizes or times of change, and with their boxes.

        Where the files lie does not enter: a folder that was moved keeps its fingerprint.
        """
        digest = hashlib.sha256(repr(sorted(self.boxes.items())).encode())
        for name in self.filenames:
            status = (self.place / name).stat()
            digest.update(repr((name, status.st_size, status.st_mtime_ns)).encode())
        return digest.hexdigest()

    def where(self, index: int) -> str:
        """The picture's file."""
        return f"{self.place}/{self.filenames[index]}"

    def __getitem__(self, index: int) -> Example:
        """Picture (3, H, W) at its own size, its label, and its boxes (n, 4) where there are any."""
        name = self.filenames[index]
        image, boxes = decode_image(self.place / name), None
        if name in self.boxes:
            height, width = image.shape[1:]
            boxes, sides = torch.tensor(self.boxes[name]), torch.tensor([width, height, width, height])
            if (boxes > sides).any():  # an end just outside is how some programs write it
                raise CkfrError(f"A box of {self.where(index)} leaves its {width} x {height} pixels.")
            boxes = boxes.minimum(sides - 1)
        return make_example(image, self.labels[index], boxes)


def decode_image(path: Path) -> Tensor:
    """Read a picture upright, as its EXIF data says; of several frames or pages the first.

    Returns:
        (3, H, W) uint8: greyscale, palette and CMYK become RGB; 16 bits are scaled to 8.

    Raises:
        CkfrError: if the file is no complete picture, or one of absurd size.
    """
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
            if picture.mode.startswith("I"):  # 16 bits of grey; "I" in older versions of Pillow
                levels = np.asarray(picture).astype(np.int64)
                if levels.min() < 0 or levels.max() > 65535:
                    raise ValueError("more than 16 bits a pixel")
                picture = Image.fromarray(np.round(levels / 257).astype(np.uint8))
            elif picture.mode == "F":
                raise ValueError("floating-point pixels; expected 8 or 16 bits")
            pixels = np.array(picture.convert("RGB"))  # (H, W, 3)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise CkfrError(f"The picture {path} cannot be decoded ({error}); replace it.") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()  # (3, H, W)

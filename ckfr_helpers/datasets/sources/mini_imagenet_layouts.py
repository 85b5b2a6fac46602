"""The three layouts in which mini-ImageNet goes round, read alike.

    train.csv val.csv test.csv images/*.jpg             the original demo's: columns filename,label
    n01532829/*.jpg …                                   a folder a class, also below train/, val/, test/
    mini-imagenet-cache-{train,val,test}.pkl            few-shot learning's: image_data and class_dict

A picture's *position* is its place among its class's pictures, read in the order train, val, test: row by
row, by file name, or as ``class_dict`` lists it. The demo's 80/20 split goes by position, so it is the demo's
very split where the order is its own: by file name it is, for files under their original names.
"""

import csv
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ckfr_helpers.datasets.files import FileTree
from ckfr_helpers.runtime import CkfrError, load_plain_pickle

CSV_FILES = ("train.csv", "val.csv", "test.csv")
# The first name of each is the usual one.
PICKLES = (
    ("mini-imagenet-cache-train.pkl",),
    ("mini-imagenet-cache-val.pkl", "mini-imagenet-cache-validation.pkl"),
    ("mini-imagenet-cache-test.pkl",),
)
PARTS = ("train", "val", "test")
PICTURES = (".jpg", ".jpeg", ".png")
_LITTER = frozenset({"thumbs.db", "desktop.ini"})
_WNID = re.compile(r"n\d{8}")


class Layout:
    """All pictures of one copy of mini-ImageNet.

    Attributes:
        place: the folder.
        names: a name for every picture, unique.
        wnids: (N,) its WordNet id.
        listing: what lists them, for messages.
    """

    listing = ""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.names, wnids = self._rows()
        self.wnids = np.array(wnids, dtype=str)

    def _rows(self) -> tuple[list[str], list[str]]:
        raise NotImplementedError

    def check_files(self) -> None:
        """Raise CkfrError where a picture that is listed is not there."""

    def keep(self, positions: Sequence[int] | np.ndarray) -> None:
        """Only these pictures will be asked for, by their new positions."""
        self.names = [self.names[position] for position in positions]
        self.wnids = self.wnids[positions]

    def image(self, position: int) -> Tensor:
        """One picture, (3, H, W) uint8."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """Changes with any file's name, size or time of change."""
        raise NotImplementedError


class CsvLayout(Layout):
    """The original demo's: three tables and one folder of pictures."""

    listing = ", ".join(CSV_FILES)

    def __init__(self, place: Path) -> None:
        self._tree = FileTree(place, CSV_FILES[0])
        super().__init__(place)

    def _rows(self) -> tuple[list[str], list[str]]:
        names: list[str] = []
        wnids: list[str] = []
        for file in CSV_FILES:
            table = csv.DictReader(self._tree.text(file).splitlines())
            if table.fieldnames is None or not {"filename", "label"} <= set(table.fieldnames):
                raise CkfrError(
                    f"{self.place / file} has the columns {table.fieldnames}; expected filename,label."
                )
            for row in table:
                names.append(row["filename"])
                wnids.append(row["label"])
        if not names:
            raise CkfrError(f"train.csv, val.csv and test.csv in {self.place} list no pictures.")
        return names, wnids

    def check_files(self) -> None:
        if len(set(self.names)) != len(self.names):
            seen: set[str] = set()
            double = next(name for name in self.names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise CkfrError(f"{double} is listed twice in {self.listing} of {self.place}.")
        missing = set(self.names) - self._tree.files("images")
        if missing:
            raise CkfrError(
                f"{len(missing)} of {len(self.names)} pictures, first {min(missing)}, are missing from "
                f"{self.place / 'images'}."
            )

    def image(self, position: int) -> Tensor:
        return self._tree.image(f"images/{self.names[position]}")

    def fingerprint(self) -> str:
        return self._tree.fingerprint([f"images/{name}" for name in self.names])


class FolderLayout(Layout):
    """A folder for each class, possibly below train, val and test."""

    listing = "its class folders"

    def __init__(self, place: Path) -> None:
        self._tree = FileTree(place, "")
        super().__init__(place)

    def _rows(self) -> tuple[list[str], list[str]]:
        names: list[str] = []
        wnids: list[str] = []
        for part in ("", *PARTS):
            if part and not (self.place / part).is_dir():
                continue
            for folder in sorted(_folders(self.place / part)):
                if not part and folder in PARTS:
                    continue
                if not _WNID.fullmatch(folder):
                    raise CkfrError(
                        f"{self.place / part / folder} is no class folder; expected WordNet ids such as "
                        "n01532829."
                    )
                here = "/".join(filter(None, (part, folder)))
                for file in sorted(self._tree.files(here)):
                    if file.startswith(".") or file.lower() in _LITTER:
                        continue
                    if not file.lower().endswith(PICTURES):
                        raise CkfrError(
                            f"{self.place / here / file} is no picture; expected JPEG or PNG files."
                        )
                    names.append(f"{here}/{file}")
                    wnids.append(folder)
        if not names:
            raise CkfrError(f"The class folders in {self.place} hold no pictures.")
        return names, wnids

    def image(self, position: int) -> Tensor:
        return self._tree.image(self.names[position])

    def fingerprint(self) -> str:
        return self._tree.fingerprint(self.names)


class PickleLayout(Layout):
    """Few-shot learning's three pickles; the pictures kept are held in memory (21 kB each)."""

    listing = "its pickles"

    def _rows(self) -> tuple[list[str], list[str]]:
        names: list[str] = []
        wnids: list[str] = []
        places: list[tuple[int, int]] = []
        # Tensors, since workers that are spawned receive them as shared memory and not as copies.
        self._pixels: list[torch.Tensor] = []  # each (n, H, W, 3)
        digest = hashlib.sha256()
        for choices in PICKLES:
            path = next((self.place / name for name in choices if (self.place / name).is_file()), None)
            if path is None:
                raise CkfrError(
                    f"The file {choices[0]} is missing from {self.place}; expected it beside the others."
                )
            images, rows = _read_pickle(path)
            digest.update(repr((path.name, path.stat().st_size, path.stat().st_mtime_ns)).encode())
            for wnid, members in rows.items():
                places += [(len(self._pixels), member) for member in members]
                names += [f"{path.name}[{member}]" for member in members]
                wnids += [wnid] * len(members)
            self._pixels.append(torch.from_numpy(images if images.flags.writeable else images.copy()))
        self._places = np.array(places)  # (N, 2), which pickle and which row of it
        self._digest = digest.hexdigest()
        return names, wnids

    def keep(self, positions: Sequence[int] | np.ndarray) -> None:
        super().keep(positions)
        self._places = self._places[positions]
        for part, pixels in enumerate(self._pixels):  # one after the other, to hold each only once
            own = self._places[:, 0] == part
            self._pixels[part] = pixels[torch.from_numpy(self._places[own, 1])]
            self._places[own, 1] = np.arange(own.sum())

    def image(self, position: int) -> Tensor:
        part, row = self._places[position]
        return self._pixels[part][int(row)].permute(2, 0, 1).contiguous()

    def fingerprint(self) -> str:
        return hashlib.sha256(repr((self._digest, self.names)).encode()).hexdigest()


def _read_pickle(path: Path) -> tuple[np.ndarray, dict[str, list[int]]]:
    """Pictures (N, H, W, 3) uint8 and, for each class, which of them are its own."""
    content = load_plain_pickle(path, "a few-shot pickle of mini-ImageNet")
    form = "expected image_data (N, 84, 84, 3) uint8 and class_dict"
    if not isinstance(content, dict) or not {"image_data", "class_dict"} <= set(content):
        raise CkfrError(f"{path} is no few-shot pickle of mini-ImageNet; {form}.")
    images, classes = content["image_data"], content["class_dict"]
    if (
        not isinstance(images, np.ndarray)
        or images.dtype != np.uint8
        or images.ndim != 4
        or images.shape[3] != 3
        or not isinstance(classes, dict)
    ):
        shape = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise CkfrError(f"{path} holds image_data of {shape}; {form}.")
    rows: dict[str, list[int]] = {}
    for key, members in classes.items():
        wnid = str(key)
        if not _WNID.fullmatch(wnid):
            raise CkfrError(f"{path} names a class {wnid!r}; expected WordNet ids such as n01532829.")
        try:
            rows[wnid] = [int(member) for member in members]
        except (TypeError, ValueError) as error:
            raise CkfrError(f"{path} lists no pictures for class {wnid}: {error}.") from error
    listed = sorted(member for members in rows.values() for member in members)
    if listed != list(range(len(images))):
        raise CkfrError(
            f"class_dict in {path} lists {len(listed)} places among {len(images)} pictures; expected each "
            "picture once."
        )
    return images, rows


def _folders(place: Path) -> list[str]:
    with os.scandir(place) as entries:
        return [entry.name for entry in entries if _is_folder(entry) and not entry.name.startswith(".")]


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads round in a circle
        return False


def layout_at(place: Path) -> type[Layout] | None:
    """Which layout a folder has; None if none of the three. Tables win over pickles, pickles over folders."""
    if not place.is_dir():
        return None
    if (place / CSV_FILES[0]).is_file():
        return CsvLayout
    if any((place / name).is_file() for choices in PICKLES for name in choices):
        return PickleLayout
    for part in ("", *PARTS):
        if (place / part).is_dir() and any(map(_WNID.fullmatch, _folders(place / part))):
            return FolderLayout
    return None

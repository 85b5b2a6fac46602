"""Finding a data set's folder and reading its pictures, with one clear sentence when something is missing."""

import hashlib
import io
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ckfr_helpers.runtime import CkfrError, data_root


def find_folder(root: str | Path | None, folder: str, marker: str, title: str, remedy: str) -> Path:
    """Where a data set lies: ``root/folder``, or ``root`` itself if it is that folder.

    Args:
        root: the folder a user named, or None for ``data_root()``.
        folder: the data set's usual folder name.
        marker: a file inside it by which it is known, e.g. ``"wnids.txt"``.
        title: the data set's name for people.
        remedy: what to do if it is missing, e.g. ``"`ckfr fetch cifar10` brings it"``.

    Raises:
        CkfrError: if neither place has the marker.
    """
    base = Path(root).expanduser() if root is not None else data_root()
    for place in (base / folder, base):
        if (place / marker).is_file():
            return place
    raise CkfrError(f"{title} is not here: expected {base / folder / marker}; {remedy}.")


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

    def __init__(self, place: Path, marker: str) -> None:
        self.place = place
        self._zip: zipfile.ZipFile | None = None
        self._owner = -1
        self._prefix = ""
        self._folders: dict[str, set[str]] | None = None
        if place.is_file():
            try:
                names = self._archive().namelist()
            except zipfile.BadZipFile as error:
                raise CkfrError(f"{place} is not a readable zip file ({error}); fetch it again.") from error
            found = sorted((name for name in names if name.split("/")[-1] == marker), key=len)
            if not found:
                raise CkfrError(f"{place} holds no {marker}; expected the data set's own zip.")
            self._prefix = found[0][: -len(marker)]
            self._folders = {}
            for name in names:
                if name.startswith(self._prefix) and not name.endswith("/"):
                    parent, _, leaf = name[len(self._prefix) :].rpartition("/")
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
        return {entry.name for entry in place.iterdir() if entry.is_file()} if place.is_dir() else set()

    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
            CkfrError: if it is missing.
        """
        try:
            if self._folders is not None:
                return self._archive().read(self._prefix + name)
            return (self.place / name).read_bytes()
        except (KeyError, FileNotFoundError) as error:
            raise CkfrError(f"The file {name} is missing from {self.place}.") from error

    def text(self, name: str) -> str:
        """One file as text."""
        return self.read(name).decode("utf-8")

    def fingerprint(self, names: Iterable[str]) -> str:
        """Changes with any of these files' names, sizes or times of change; in a zip, with their checksums.

        Where the tree lies does not enter: a folder that was moved keeps its fingerprint.

        Raises:
            CkfrError: if a file is missing.
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

    def image(self, name: str) -> Tensor:
        """One picture, (3, H, W) uint8."""
        return decode_image(self.read(name), f"{self.place}/{name}")


def decode_image(data: bytes, where: str) -> Tensor:
    """Decode a JPEG or PNG; greyscale, palette and CMYK become RGB.

    Args:
        data: the file's bytes.
        where: what to call it if it is damaged.

    Returns:
        (3, H, W) uint8.

    Raises:
        CkfrError: if the bytes are no complete picture; the message names the file.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            pixels = np.array(picture.convert("RGB"))  # (H, W, 3)
    except (OSError, SyntaxError, ValueError) as error:  # what PIL raises, from truncated to nonsense
        raise CkfrError(
            f"The picture {where} cannot be decoded ({error}); fetch or copy it again."
        ) from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()  # (3, H, W)

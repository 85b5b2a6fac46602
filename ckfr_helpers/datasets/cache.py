"""Pictures decoded and resized once, then read from one memory-mapped file: no epoch after waits for JPEG.

    source = cached(open_source("mini-imagenet", "train"), size=256)

Every picture is stretched to ``size`` × ``size`` with torchvision's antialiased bilinear resize on uint8, the
very step that the evaluation transforms begin with: there a cached picture gives the same pixels as the file.
Random crops choose from the stretched picture, so runs with the cache and without are different runs.
"""

import hashlib
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional
from tqdm.auto import tqdm

from ckfr_helpers.datasets.base import Example, ImageSource, make_example
from ckfr_helpers.datasets.loading import Loader, seed_worker
from ckfr_helpers.runtime import CkfrError, check_number, data_root, load_plain_pickle, num_workers


class CachedImages(ImageSource):
    """A source whose pictures come from a memory map; all else is as in the source it was made from."""

    def __init__(self, source: ImageSource, folder: Path, about: dict[str, Any]) -> None:
        self.name, self.split, self.hierarchy = source.name, source.split, source.hierarchy
        self.labels, self.source, self.folder = source.labels, source, folder
        self._about = about
        self._images: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_images": None}  # pickling a memory map would send all of its pictures

    def fingerprint(self) -> str:
        """Changes with the source's, and with the size."""
        return str(self._about["key"])

    def where(self, index: int) -> str:
        """As the source says."""
        return self.source.where(index)

    def __getitem__(self, index: int) -> Example:
        """Picture (3, S, S) and its target; boxes (n, 4) and masks (n, S, S) scaled along."""
        if self._images is None:
            self._images = np.load(self.folder / "images.npy", mmap_mode="r")
        pixels = np.array(self._images[index])  # a copy: the map itself is read-only
        more = dict(self._about["targets"][index])
        if "masks" in more:
            more["masks"] = np.unpackbits(more["masks"], axis=-1, count=pixels.shape[-1])
        for name, value in more.items():
            if isinstance(value, np.ndarray):
                more[name] = torch.from_numpy(value)
        return make_example(torch.from_numpy(pixels), self.labels[index], **more)


def cached(
    source: ImageSource,
    size: int,
    folder: str | Path | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> CachedImages:
    """The source with its pictures decoded and resized, from a memory map that is built if there is none.

    A cache is a folder, ``images.npy`` (N, 3, S, S) and ``about.pkl``, found by the source's fingerprint,
    labels and size; one that is out of date is never read and can be deleted. It is built beside its place
    and moved there when whole; of several processes that want it one builds, and the others wait.

    Args:
        source: any source that has a fingerprint; every one of this package has.
        size: side of the stored pictures in pixels; a picture takes ``3 * size * size`` bytes.
        folder: where caches are kept; None for ``data_root()/cache``.
        workers: processes that decode; None for one per core.
        progress: show a bar while building.

    Raises:
        CkfrError: if the size is not positive, a picture cannot be decoded, or the disk is full.
    """
    check_number("The side of a cache's pictures", size, 1, whole=True)
    base = Path(folder).expanduser() if folder is not None else data_root() / "cache"
    shown = (type(source).__name__, source.name, source.split, size, source.classes, source.fingerprint())
    labels = np.ascontiguousarray(source.labels, dtype="<i8").tobytes()
    key = hashlib.sha256(repr(shown).encode() + labels).hexdigest()
    place = base / f"{source.name}-{source.split}-{size}-{key[:16]}"
    if workers is None:
        workers = num_workers() if len(source) >= 512 else 0  # starting them takes longer than a few pictures
    try:
        base.mkdir(parents=True, exist_ok=True)
        if (about := _whole(place, key)) is None:
            with FileLock(base / f".{place.name}.lock"):
                if (about := _whole(place, key)) is None:  # nobody built it while we waited
                    about = _build(_Resized(source, size), place, key, workers, progress)
    except OSError as error:
        raise CkfrError(f"The cache could not be written to {place} ({error}).") from error
    return CachedImages(source, place, about)


def scale_boxes(boxes: Tensor, width: int, height: int, size: int) -> Tensor:
    """Boxes (n, 4) of a (height, width) picture in the same picture stretched to ``size`` × ``size``.

    Both ends of a box are pixels inside the object, so a box covers ``x1 - x0 + 1`` columns; it is those
    edges that are scaled. A box never becomes smaller than one pixel.
    """
    scale = torch.tensor([size / width, size / height], dtype=torch.float64)
    first = boxes[:, :2].double() * scale
    last = (boxes[:, 2:].double() + 1) * scale - 1
    return torch.cat([first, torch.maximum(first, last)], dim=1).float()


def _whole(place: Path, key: str) -> dict[str, Any] | None:
    """What the cache knows of its pictures, if it is finished, of this very key, and untouched since."""
    try:
        about = load_plain_pickle(place / "about.pkl", "a cache")
        return about if (about["key"], about["state"]) == (key, _state(place)) else None
    except (OSError, CkfrError):
        return None


def _state(place: Path) -> tuple[int, int]:
    status = (place / "images.npy").stat()
    return status.st_size, int(status.st_mtime)


class _Resized(Dataset):
    """Resized pictures, and their targets without tensors."""

    def __init__(self, source: ImageSource, size: int) -> None:
        self.source, self.size = source, size

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]] | CkfrError:
        try:
            picture, target = self.source[index]
        except CkfrError as error:
            return error  # for `Loader` to raise
        side = [self.size, self.size]
        told: dict[str, Any] = {name: value for name, value in target.items() if name != "label"}
        if "boxes" in told:
            height, width = picture.shape[1:]
            told["boxes"] = scale_boxes(told["boxes"].as_subclass(Tensor), width, height, self.size)
        if "masks" in told:
            masks = told["masks"].as_subclass(Tensor).byte()
            masks = functional.resize(masks, side, functional.InterpolationMode.NEAREST_EXACT)
            told["masks"] = torch.from_numpy(np.packbits(masks.numpy(), axis=-1))
        return functional.resize(picture.as_subclass(Tensor), side, antialias=True), told


def _build(pictures: _Resized, place: Path, key: str, workers: int, progress: bool) -> dict[str, Any]:
    """Write a cache; returns what it knows of its pictures."""
    work = place.with_name(f".{place.name}.unfinished")
    for old in (work, place):  # what a killed build left, or what was damaged
        shutil.rmtree(old, ignore_errors=True)
    work.mkdir()
    shape = (len(pictures), 3, pictures.size, pictures.size)
    # Its own generator leaves the global one where it is.
    generator = torch.Generator().manual_seed(0)
    loader = Loader(
        pictures, batch_size=None, num_workers=workers, worker_init_fn=seed_worker, generator=generator
    )
    targets: list[dict[str, Any]] = []
    # Written and not mapped: on a full disk a write is refused, while a map kills the process.
    with open(work / "images.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for image, told in tqdm(loader, unit="img", desc="cache", disable=not progress):  # type: ignore[misc]
            file.write(image.contiguous().numpy().tobytes())
            targets.append({k: v.numpy() if isinstance(v, Tensor) else v for k, v in told.items()})
        file.flush()
        os.fsync(file.fileno())
    about = {"key": key, "state": _state(work), "targets": targets}
    (work / "about.pkl").write_bytes(pickle.dumps(about))
    work.rename(place)
    return about

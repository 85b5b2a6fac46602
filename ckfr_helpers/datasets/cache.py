"""Pictures decoded and resized once, then read from one memory-mapped file: no epoch after waits for JPEG.

    source = cached(open_source("mini-imagenet", "train"), size=256)

Every picture is stretched to ``size`` × ``size`` with torchvision's antialiased bilinear resize on uint8, the
very step that the evaluation transforms begin with: there a cached picture gives the same pixels as the file.
Random crops choose from the stretched picture, so runs with the cache and without are different runs. A
picture takes ``3 * size * size`` bytes.

A cache is a folder, ``images.npy`` (N, 3, S, S) and ``about.json``, found by the source's fingerprint, labels
and size. Change anything and another one is built; the old one is never read again, and can be deleted.
"""

import base64
import hashlib
import json
import os
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional
from tqdm.auto import tqdm

from ckfr_helpers.datasets.base import Example, ImageSource, make_example
from ckfr_helpers.datasets.loading import seed_worker
from ckfr_helpers.runtime import CkfrError, atomic_path, check_number, data_root, num_workers


class CachedImages(ImageSource):
    """A source whose pictures come from a memory map; all else is as in the source it was made from."""

    def __init__(self, source: ImageSource, folder: Path, size: int, about: dict[str, Any]) -> None:
        self.name, self.split, self.hierarchy = source.name, source.split, source.hierarchy
        self.labels, self.source = source.labels, source
        self.folder, self.size = folder, size
        self._about, self._images = about, None

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
        index = range(len(self))[index]
        if self._images is None:
            self._images = np.load(self.folder / "images.npy", mmap_mode="r")
        pixels = np.array(self._images[index])  # type: ignore[index] # a copy: the map itself is read-only
        if zlib.crc32(pixels.data) != self._about["checksums"][index]:
            raise CkfrError(f"Picture {index} of the cache {self.folder} is damaged; delete that folder.")
        more = dict(self._about["targets"][index])
        if "boxes" in more:
            more["boxes"] = torch.tensor(more["boxes"], dtype=torch.float32).reshape(-1, 4)
        if "masks" in more:
            count, packed = more["masks"]
            bits = np.frombuffer(zlib.decompress(base64.b64decode(packed)), dtype=np.uint8)
            masks = np.unpackbits(bits, count=count * self.size**2).reshape(count, self.size, self.size)
            more["masks"] = torch.from_numpy(masks)
        if "labels" in more:
            more["labels"] = torch.tensor(more["labels"])
        return make_example(torch.from_numpy(pixels), self.labels[index], **more)


def cached(
    source: ImageSource,
    size: int,
    folder: str | Path | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> CachedImages:
    """The source with its pictures decoded and resized, from a memory map that is built if there is none.

    Built beside its place and moved there when whole; of several processes that want the same cache one
    builds, and the others wait for it.

    Args:
        source: any source that has a fingerprint; every one of this package has.
        size: side of the stored pictures in pixels.
        folder: where caches are kept; None for ``data_root()/cache``.
        workers: processes that decode; None for one per core.
        progress: show a bar while building.

    Raises:
        CkfrError: if the size is not positive, a picture cannot be decoded, or the disk is too small.
    """
    check_number("The side of a cache's pictures", size, 1, whole=True)
    if not len(source):
        raise CkfrError(f"The {source.split} split of {source.name} has no pictures to cache.")
    base = Path(folder).expanduser() if folder is not None else data_root() / "cache"
    shown = (type(source).__name__, source.name, source.split, size, source.classes, source.fingerprint())
    labels = np.ascontiguousarray(source.labels, dtype="<i8").tobytes()
    key = hashlib.sha256(repr(shown).encode() + labels).hexdigest()
    place = base / f"{source.name}-{source.split}-{size}-{key[:16]}"
    shape = (len(source), 3, size, size)
    try:
        base.mkdir(parents=True, exist_ok=True)
        if (about := _whole(place, key, shape)) is None:
            with FileLock(base / f".{place.name}.lock"):
                if (about := _whole(place, key, shape)) is None:  # nobody built it while we waited
                    _build(source, shape, place, key, workers, progress)
                    about = _whole(place, key, shape)
    except OSError as error:
        raise CkfrError(f"The cache could not be written to {place} ({error}).") from error
    if about is None:
        raise CkfrError(f"The cache {place} was damaged while it was written.")
    return CachedImages(source, place, size, about)


def scale_boxes(boxes: Tensor, width: int, height: int, size: int) -> Tensor:
    """Boxes (n, 4) of a (height, width) picture in the same picture stretched to ``size`` × ``size``.

    Both ends of a box are pixels inside the object, so a box covers ``x1 - x0 + 1`` columns; it is those
    edges that are scaled. A box never becomes smaller than one pixel.
    """
    scale = torch.tensor([size / width, size / height], dtype=torch.float64)
    first = boxes[:, :2].double() * scale
    last = (boxes[:, 2:].double() + 1) * scale - 1
    return torch.cat([first, torch.maximum(first, last)], dim=1).float()


def _checksum(about: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps({**about, "sha256": ""}).encode()).hexdigest()


def _whole(place: Path, key: str, shape: tuple[int, ...]) -> dict[str, Any] | None:
    """What ``about.json`` says, if a finished and undamaged cache of this very key lies there."""
    try:
        about = json.loads((place / "about.json").read_text())
        images = np.load(place / "images.npy", mmap_mode="r")
        fits = images.shape == shape and images.dtype == np.uint8
        return about if fits and about["key"] == key and about["sha256"] == _checksum(about) else None
    except Exception:  # a damaged file makes numpy raise nearly anything: EOFError, BadZipFile, SyntaxError
        return None


class _Resized(Dataset):
    """Resized pictures, and what JSON can hold of their targets."""

    def __init__(self, source: ImageSource, size: int) -> None:
        self.source, self.size = source, size

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        picture, target = self.source[index]
        side = [self.size, self.size]
        told: dict[str, Any] = {}
        for name, value in target.items():
            plain = value.as_subclass(Tensor) if isinstance(value, Tensor) else value
            if name == "boxes":
                plain = scale_boxes(plain, picture.shape[2], picture.shape[1], self.size)  # type: ignore[arg-type]
            if name == "masks":
                nearest = functional.InterpolationMode.NEAREST_EXACT
                masks = functional.resize(plain.to(torch.uint8), side, nearest)  # type: ignore[attr-defined]
                packed = zlib.compress(np.packbits(masks.numpy()).tobytes())
                plain = (len(masks), base64.b64encode(packed).decode())
            if name != "label":
                told[name] = plain.tolist() if isinstance(plain, Tensor) else plain
        return functional.resize(picture.as_subclass(Tensor), side, antialias=True), told


def _build(
    source: ImageSource,
    shape: tuple[int, ...],
    place: Path,
    key: str,
    workers: int | None,
    progress: bool,
) -> None:
    work = place.with_name(f".{place.name}.unfinished")
    for old in (work, place):  # what a killed build left, or what was damaged
        shutil.rmtree(old, ignore_errors=True)
    work.mkdir()
    needed, free = int(np.prod(shape)), shutil.disk_usage(work).free
    if free < needed:
        raise CkfrError(
            f"The cache needs {needed / 1e9:.1f} GB in {place.parent}, which has {free / 1e9:.1f} GB free; "
            "make room or choose a smaller size."
        )
    if workers is None:
        workers = num_workers() if len(source) >= 512 else 0  # starting them takes longer than a few pictures
    loader = DataLoader(
        _Resized(source, shape[-1]),
        batch_size=32,
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=seed_worker,
        generator=torch.Generator().manual_seed(0),  # leaves the global one where it is
    )
    about: dict[str, Any] = {"key": key, "checksums": [], "targets": [], "sha256": ""}
    # Written and not mapped: on a full disk a write is refused, while a map kills the process.
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    bar = tqdm(total=len(source), unit="img", desc="cache", disable=not progress)
    with open(work / "images.npy", "wb") as file, bar:
        np.lib.format.write_array_header_1_0(file, header)
        for batch in loader:
            for image, told in batch:
                pixels = image.contiguous().numpy().tobytes()
                file.write(pixels)
                about["checksums"].append(zlib.crc32(pixels))
                about["targets"].append(told)
            bar.update(len(batch))
        file.flush()
        os.fsync(file.fileno())
    about["sha256"] = _checksum(about)
    with atomic_path(work / "about.json") as path:
        path.write_text(json.dumps(about))
    work.rename(place)

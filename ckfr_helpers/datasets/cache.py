"""Pictures decoded and resized once, then read from one memory-mapped file: no epoch after waits for JPEG.

    source = cached(open_source("mini-imagenet", "train"), size=256)

Every picture is stretched to ``size`` × ``size`` with torchvision's antialiased bilinear resize on uint8, the
very step that `transforms.original_eval` (at its side before the crop) and `light_eval` begin with: there a
cached picture gives the same pixels as the file. The random crops of training choose from the stretched
picture, so their aspect ratio is measured on it, and nothing finer than ``size`` is left: a run with the
cache and one without are two different runs. A picture takes ``3 * size * size`` bytes, 197 kB at 256;
mini-ImageNet then takes 12 GB.

A cache belongs to one state of one source: it is found by the source's fingerprint (names, sizes and times of
change of its files; or what made its pictures), the labels and the size. Change anything and another cache is
built; the old one is never read again, and can be deleted.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional
from tqdm.auto import tqdm

from ckfr_helpers.datasets.base import Example, ImageSource, make_example
from ckfr_helpers.datasets.loading import seed_worker
from ckfr_helpers.runtime import CkfrError, atomic_path, data_root, num_workers

FORMAT = 1  # raised when what is written changes
_BATCH = 32  # pictures between two notes of progress


class CachedImages(ImageSource):
    """A source whose pictures come from a memory map; all else is as in the source it was made from.

    Cheap to send to other processes: each maps the file for itself, and they share the pages in memory.

    Attributes:
        folder: where ``images.npy`` (N, 3, S, S) uint8 lies; ``masks.npy`` (N, S, S) bool if it has masks.
        size: S, the side of the pictures.
    """

    def __init__(self, source: ImageSource, folder: Path, size: int) -> None:
        self.name, self.split, self.hierarchy = source.name, source.split, source.hierarchy
        self.labels = source.labels
        self.folder, self.size = folder, size
        photo_of = getattr(source, "photo_of", None)
        self._photos = None if photo_of is None else [int(photo_of(i)) for i in range(len(source))]
        self._spans = np.load(folder / "box_spans.npy")  # (N, 2) rows of the boxes; -1 where it has none
        self._boxes = np.load(folder / "boxes.npy")  # (M, 4) float32
        self._maps: dict[str, np.ndarray] = {}

    def _map(self, name: str) -> np.ndarray | None:
        if name not in self._maps:
            path = self.folder / name
            if not path.is_file():
                return None
            self._maps[name] = np.load(path, mmap_mode="r")
        return self._maps[name]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}  # pickling a memory map would send all of its pictures

    def __getitem__(self, index: int) -> Example:
        """Picture (3, S, S) and its label; boxes (n, 4) and mask (S, S) scaled along, where there are any."""
        index = range(len(self))[index]
        images, masks = self._map("images.npy"), self._map("masks.npy")
        if images is None:
            raise CkfrError(f"{self.folder / 'images.npy'} is gone; open the source again to build it anew.")
        first, last = (int(place) for place in self._spans[index])
        return make_example(
            torch.from_numpy(np.array(images[index])),  # a copy: the map itself is read-only
            self.labels[index],
            torch.from_numpy(self._boxes[first:last].copy()) if first >= 0 else None,
            torch.from_numpy(np.array(masks[index])) if masks is not None else None,
            **({} if self._photos is None else {"photo": self._photos[index]}),
        )


def cached(
    source: ImageSource,
    size: int,
    folder: str | Path | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> CachedImages:
    """The source with its pictures decoded and resized, from a memory map that is built if there is none.

    Built beside its place and moved there when whole. A build that was interrupted goes on where it stopped;
    of several processes that want the same cache one builds, and the others wait for it.

    Args:
        source: any source that has a fingerprint; every one of this package has.
        size: side of the stored pictures in pixels.
        folder: where caches are kept; None for ``data_root()/cache``.
        workers: processes that decode; None for one per core.
        progress: show a bar while building.

    Raises:
        CkfrError: if the size is not positive, a picture cannot be decoded, or the disk is too small.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise CkfrError(f"A cache's size is a positive whole number of pixels; got {size!r}.")
    if not len(source):
        raise CkfrError(f"The {source.split} split of {source.name} has no pictures to cache.")
    base = Path(folder).expanduser() if folder is not None else data_root() / "cache"
    key = cache_key(source, size)
    place = base / f"{source.name}-{source.split}-{size}-{key[:16]}"
    if not _is_whole(place, key, len(source), size):
        base.mkdir(parents=True, exist_ok=True)
        with FileLock(base / f".{place.name}.lock"):
            if not _is_whole(place, key, len(source), size):  # nobody built it while we waited
                shutil.rmtree(place, ignore_errors=True)
                _build(source, size, place, key, workers, progress)
    return CachedImages(source, place, size)


def cache_key(source: ImageSource, size: int) -> str:
    """What a cache is found by: 64 hexadecimal digits."""
    digest = hashlib.sha256()
    about = (FORMAT, type(source).__name__, source.name, source.split, size, source.classes)
    digest.update(repr((*about, source.fingerprint())).encode())
    digest.update(np.ascontiguousarray(source.labels, dtype="<i8").tobytes())
    return digest.hexdigest()


def scale_boxes(boxes: Tensor, width: int, height: int, size: int) -> Tensor:
    """Boxes of a (height, width) picture in the same picture stretched to ``size`` × ``size``.

    Both ends of a box are pixels inside the object, so a box covers ``x1 - x0 + 1`` columns; it is those
    edges that are scaled. A box never becomes smaller than one pixel.

    Args:
        boxes: (n, 4) ``[x0, y0, x1, y1]`` in pixels.
        width: of the picture they belong to.
        height: of it.
        size: side of the stretched picture.

    Returns:
        (n, 4) float32, both ends inside again.
    """
    scale = torch.tensor([size / width, size / height], dtype=torch.float64)
    first = boxes[:, :2].double() * scale
    last = (boxes[:, 2:].double() + 1) * scale - 1
    return torch.cat([first, torch.maximum(first, last)], dim=1).float()


def _is_whole(place: Path, key: str, count: int, size: int) -> bool:
    """Whether a finished cache of this very key lies there, every file at its full length."""
    masked = (place / "masks.npy").is_file()
    try:
        about = json.loads((place / "about.json").read_text())
        # Caches of earlier versions do not say whether they have masks.
        if about.get("key") != key or about.get("masks", masked) != masked:
            return False
        spans = np.load(place / "box_spans.npy", mmap_mode="r")
        boxes = max(int(spans.max()), 0)  # the last row that any picture refers to; -1 where none has boxes
        expected = {
            "images.npy": ((count, 3, size, size), np.uint8),
            "box_spans.npy": ((count, 2), np.int64),
            "boxes.npy": ((boxes, 4), np.float32),
        }
        if masked:
            expected["masks.npy"] = ((count, size, size), bool)
        for name, (shape, dtype) in expected.items():
            array = np.load(place / name, mmap_mode="r")
            if array.shape != shape or array.dtype != dtype:
                return False
    except Exception:  # a damaged file makes numpy raise nearly anything: EOFError, BadZipFile, SyntaxError
        return False
    return True


class _Resized(Dataset):
    def __init__(self, source: ImageSource, size: int) -> None:
        self.source, self.size = source, size

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
        picture, target = self.source[index]
        height, width = picture.shape[1:]
        side = [self.size, self.size]
        image = functional.resize(picture.as_subclass(Tensor), side, antialias=True)
        boxes = mask = None
        if "boxes" in target:
            boxes = scale_boxes(target["boxes"].as_subclass(Tensor), width, height, self.size)
        if "masks" in target:
            mask = functional.resize(
                target["masks"].as_subclass(Tensor).any(0, keepdim=True).to(torch.uint8),
                side,
                functional.InterpolationMode.NEAREST_EXACT,
            )[0]
        return image, boxes, mask


class _Column:
    """One file that grows by whole rows; what lies beyond the last note of progress is cut off at first."""

    def __init__(self, path: Path, header: bytes, length: int) -> None:
        self._file: BinaryIO = open(path, "r+b" if path.exists() and length else "w+b")  # noqa: SIM115
        if length:
            self._file.truncate(length)
            self._file.seek(length)
        else:
            self._file.write(header)

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def settle(self) -> int:
        """Have the bytes on the disk; returns how many there are."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


def _build(
    source: ImageSource, size: int, place: Path, key: str, workers: int | None, progress: bool
) -> None:
    work = place.with_name(f".{place.name}.unfinished")
    work.mkdir(exist_ok=True)
    done, lengths = _noted(work)
    count = len(source)
    needed, free = (count - done) * 3 * size * size, shutil.disk_usage(work).free
    if free < needed:
        raise CkfrError(
            f"The cache needs {needed / 1e9:.1f} GB more in {place.parent}, which has {free / 1e9:.1f} GB "
            "free; make room or choose a smaller size."
        )
    try:
        _fill(work, source, size, done, lengths, workers, progress)
        _finish(work, place, key, count, size)
    except OSError as error:
        raise CkfrError(
            f"The cache could not be written to {work} ({error}); what is there is kept and used next time."
        ) from error


def _fill(
    work: Path,
    source: ImageSource,
    size: int,
    done: int,
    lengths: dict[str, int],
    workers: int | None,
    progress: bool,
) -> None:
    """Decode and store every picture from number ``done`` on; the files before it have these lengths."""
    count = len(source)
    columns: dict[str, _Column] = {}
    headers = {
        "images.npy": _npy_header((count, 3, size, size), np.dtype(np.uint8)),
        "masks.npy": _npy_header((count, size, size), np.dtype(bool)),
    }
    for name in lengths or ("images.npy", "boxes.bin", "counts.bin"):
        columns[name] = _Column(work / name, headers.get(name, b""), lengths.get(name, 0))
    try:
        with tqdm(total=count, initial=done, unit="img", desc="cache", disable=not progress) as bar:
            for batch in _batches(_Resized(source, size), done, workers):
                if done == 0 and batch[0][2] is not None:
                    columns["masks.npy"] = _Column(work / "masks.npy", headers["masks.npy"], 0)
                for number, (image, boxes, mask) in enumerate(batch, start=done):
                    if (mask is not None) != ("masks.npy" in columns):
                        raise CkfrError(f"Example {number} has a mask and others have none, or the reverse.")
                    columns["images.npy"].write(image.contiguous().numpy().tobytes())
                    columns["counts.bin"].write(np.int32(-1 if boxes is None else len(boxes)).tobytes())
                    if boxes is not None:
                        columns["boxes.bin"].write(boxes.float().contiguous().numpy().tobytes())
                    if mask is not None:
                        columns["masks.npy"].write(mask.bool().contiguous().numpy().tobytes())
                done += len(batch)
                # First the bytes, then the note that says they are there.
                note = {"done": done, "lengths": {name: one.settle() for name, one in columns.items()}}
                with atomic_path(work / "progress.json") as path:
                    path.write_text(json.dumps(note))
                bar.update(len(batch))
    finally:
        for column in columns.values():
            column.close()  # on a full disk this raises too: what is still to be written finds no room


def _noted(work: Path) -> tuple[int, dict[str, int]]:
    """Pictures already stored, and the length of every file then; nothing if there is no honest note."""
    try:
        note = json.loads((work / "progress.json").read_text())
        lengths = {str(name): int(length) for name, length in note["lengths"].items()}
        if all((work / name).stat().st_size >= length for name, length in lengths.items()):
            return int(note["done"]), lengths
    except (OSError, ValueError, KeyError, AttributeError):
        pass
    return 0, {}


def _batches(view: _Resized, start: int, workers: int | None) -> Iterator[list]:
    left = len(view) - start
    if workers is None:
        workers = num_workers() if left >= 512 else 0  # for a few pictures starting processes takes longer
    yield from DataLoader(
        view,
        _BATCH,
        sampler=range(start, len(view)),
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=seed_worker,
        generator=torch.Generator().manual_seed(0),  # leaves the global one where it is
    )


def _finish(work: Path, place: Path, key: str, count: int, size: int) -> None:
    """Write what belongs beside the pictures and move the whole to its place.

    The notes that a build goes on from go along and are removed there: stopped anywhere before the move, the
    next call finds all pictures noted as stored; stopped after it, a whole cache with a few bytes too many.
    """
    counts = np.fromfile(work / "counts.bin", dtype=np.int32)
    ends = np.cumsum(np.maximum(counts, 0))
    spans = np.stack([ends - np.maximum(counts, 0), ends], axis=1).astype(np.int64)  # (N, 2)
    spans[counts < 0] = -1
    _save(work / "box_spans.npy", spans)
    _save(work / "boxes.npy", np.fromfile(work / "boxes.bin", dtype=np.float32).reshape(-1, 4))
    masked = (work / "masks.npy").is_file()
    about = {"key": key, "count": count, "size": size, "masks": masked, "format": FORMAT}
    with atomic_path(work / "about.json") as path:
        path.write_text(json.dumps(about, indent=1))
    work.rename(place)
    for name in ("progress.json", "counts.bin", "boxes.bin"):
        with contextlib.suppress(OSError):  # they harm nobody
            (place / name).unlink(missing_ok=True)


def _save(path: Path, array: np.ndarray) -> None:
    """A ``.npy`` file whose bytes are on the disk when this returns."""
    with open(path, "wb") as file:
        np.save(file, array)
        file.flush()
        os.fsync(file.fileno())


def _npy_header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """The first bytes of a ``.npy`` file of this form."""
    buffer = io.BytesIO()
    about = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, about)
    return buffer.getvalue()

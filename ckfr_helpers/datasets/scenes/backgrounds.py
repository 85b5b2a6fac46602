"""Places for scenes to stand in: a bank of painted instances for each split.

No instance stands in two splits: the split's name is part of every instance's seed. A bank takes a while to
paint (about a twentieth of a second an instance), so it is kept on disk and mapped into memory, where loader
processes share it.
"""

import functools
import hashlib
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from ckfr_helpers.datasets.base import check_split
from ckfr_helpers.datasets.scenes.noise import develop
from ckfr_helpers.datasets.scenes.painters import PAINTERS
from ckfr_helpers.runtime import CkfrError, atomic_path, data_root, num_workers

FAMILIES: tuple[str, ...] = tuple(PAINTERS)
"""The kinds of place, in the order of a bank's first axis."""


def paint(family: str, seed: tuple[int, ...], size: int) -> np.ndarray:
    """One place.

    Args:
        family: one of ``FAMILIES``.
        seed: the same numbers give the same picture.
        size: side in pixels.

    Returns:
        (size, size, 3) uint8, RGB.

    Raises:
        CkfrError: if there is no such family.
    """
    if family not in PAINTERS:
        raise CkfrError(f"There is no background family {family!r}; expected one of {', '.join(FAMILIES)}.")
    rng = np.random.default_rng([zlib.crc32(family.encode()), *seed])
    return develop(rng, PAINTERS[family](rng, size))


def instance_seed(split: str, instance: int) -> tuple[int, int]:
    """Seed of one instance of a split: no two splits share one."""
    return zlib.crc32(check_split(split).encode()), instance


@functools.lru_cache(maxsize=8)
def places(split: str, size: int, instances: int) -> np.ndarray:
    """A split's bank of places; painted once, then read from ``data_root()/places``.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        size: side in pixels.
        instances: places in each family.

    Returns:
        (families, instances, size, size, 3) uint8, read-only.
    """
    name = f"{check_split(split)}-{size}px-{instances}-{_painters_version()}.npy"
    path = data_root() / "places" / name
    if path.is_file():
        return np.load(path, mmap_mode="r")
    jobs = [(family, instance_seed(split, one), size) for family in FAMILIES for one in range(instances)]
    with ThreadPoolExecutor(max(1, num_workers())) as pool:
        painted = list(
            tqdm(
                pool.map(paint, *zip(*jobs, strict=True)), f"Painting {split} places", len(jobs), leave=False
            )
        )
    bank = np.stack(painted).reshape(len(FAMILIES), instances, size, size, 3)
    try:
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.save(file, bank)
    except OSError as error:
        warnings.warn(f"The painted places could not be kept in {path.parent} ({error}).", stacklevel=2)
        bank.flags.writeable = False
        return bank
    return np.load(path, mmap_mode="r")


@functools.cache
def _painters_version() -> str:
    """Changes whenever the painting code does, so that an old bank is never taken for a new one."""
    here = Path(__file__).parent
    code = b"".join((here / name).read_bytes() for name in ("noise.py", "painters.py", "backgrounds.py"))
    return hashlib.sha256(code).hexdigest()[:10]

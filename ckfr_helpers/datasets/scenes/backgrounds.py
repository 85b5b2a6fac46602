"""Places for scenes to stand in: a bank of painted instances for each split, none in two splits.

A bank takes a while to paint (about a twentieth of a second an instance), so it is kept on disk and mapped
into memory, where loader processes share it.
"""

import functools
import hashlib
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from ckfr_helpers.datasets.scenes.noise import develop
from ckfr_helpers.datasets.scenes.painters import PAINTERS
from ckfr_helpers.runtime import atomic_path, data_root, num_workers

FAMILIES: tuple[str, ...] = tuple(PAINTERS)
"""The kinds of place, in the order of a bank's first axis."""


def paint(family: str, split: str, instance: int, size: int) -> np.ndarray:
    """One place, (size, size, 3) uint8 RGB; the same arguments give the same picture."""
    rng = np.random.default_rng([zlib.crc32(family.encode()), zlib.crc32(split.encode()), instance])
    return develop(rng, PAINTERS[family](rng, size))


@functools.lru_cache(maxsize=8)
def places(split: str, size: int, instances: int) -> np.ndarray:
    """A split's bank of places; painted once, then read from ``data_root()/places``.

    Returns:
        (families, instances, size, size, 3) uint8, read-only.
    """
    # Named by the painting code too, so that an old bank is never taken for a new one.
    here = Path(__file__).parent
    code = b"".join((here / name).read_bytes() for name in ("noise.py", "painters.py", "backgrounds.py"))
    version = hashlib.sha256(code).hexdigest()[:10]
    path = data_root() / "places" / f"{split}-{size}px-{instances}-{version}.npy"
    if not path.is_file():
        jobs = [(family, split, one, size) for family in FAMILIES for one in range(instances)]
        with ThreadPoolExecutor(max(1, num_workers())) as pool:
            painting = pool.map(paint, *zip(*jobs, strict=True))
            painted = list(tqdm(painting, f"Painting {split} places", len(jobs), leave=False))
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.save(file, np.stack(painted).reshape(len(FAMILIES), instances, size, size, 3))
    return np.load(path, mmap_mode="r")

"""A collection of pictures on disk: their descriptors in a memory-mapped file, and an index beside it."""

import dataclasses
import itertools
import json
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from tqdm.auto import tqdm

from ckfr_helpers.datasets.files import ENDINGS
from ckfr_helpers.models.classifier import Classifier, evaluating
from ckfr_helpers.models.frozen import feature_key
from ckfr_helpers.retrieval.pictures import Recipe, describe_pictures, fit, read_picture
from ckfr_helpers.runtime import CkfrError, atomic_path, num_workers
from ckfr_helpers.training.checkpoints import run_folder, write_text

FORMAT = "ckfr-collection-1"
CHUNK = 16  # pictures described together; twice as many are read ahead
SAVED_EVERY = 10.0  # seconds; what a killed process loses at most


@dataclasses.dataclass(frozen=True)
class Collection:
    """A folder of described pictures.

    Attributes:
        pictures: the folder.
        names: of the pictures below it, in the order of the rows.
        descriptors: (N, D) float32, memory-mapped, read-only.
        recipe: how they were made.
        origin: where the model came from, as `build` was told.
    """

    pictures: Path
    names: tuple[str, ...]
    descriptors: np.ndarray
    recipe: Recipe
    origin: dict[str, Any]


def build(
    pictures: str | Path,
    out: str | Path,
    model: Classifier,
    recipe: Recipe | None = None,
    *,
    origin: dict[str, Any] | None = None,
    progress: bool = True,
) -> Collection:
    """Describe every picture in a folder and its subfolders.

    Killed and started again, it goes on. Pictures that were added, changed or removed since are described
    anew or dropped. One that cannot be read is named in a warning and left out.

    Args:
        pictures: the folder.
        out: folder of the collection: ``descriptors.npy`` and ``index.json``.
        model: makes the features.
        recipe: how; by default GeM at 448 pixels.
        origin: kept with the collection, to find the model again.
        progress: show a bar.

    Raises:
        CkfrError: if there are no pictures, none can be read, or ``out`` holds another collection.
    """
    pictures, out, recipe = Path(pictures).resolve(), Path(out), recipe or Recipe()
    present = _find(pictures)
    made = {"format": FORMAT, "pictures": str(pictures), **_of(model), "recipe": dataclasses.asdict(recipe)}
    with run_folder(out), evaluating(model):
        files = _unchanged(out, made, present)
        index, finished, saved = made | {"origin": origin or {}}, False, time.monotonic()
        missing = sorted(present.keys() - {name for name, *_ in files})
        try:
            bar = tqdm(total=len(missing), unit="picture", desc="descriptors", disable=not progress)
            for read in _read_ahead(pictures, missing, recipe.size):
                good = [(name, picture) for name, picture in read if isinstance(picture, Tensor)]
                for name, error in read[len(good) :]:
                    warnings.warn(f"{name} is left out. {error}", stacklevel=2)
                if good:
                    rows = describe_pictures(model, [picture for _, picture in good], recipe)
                    _append(out / "descriptors.npy", len(files), rows.numpy())
                    files += [(name, *present[name]) for name, _ in good]
                bar.update(len(read))
                if time.monotonic() - saved > SAVED_EVERY:
                    _write_index(out, index, files)
                    saved = time.monotonic()
            bar.close()
            finished = True
        finally:
            _write_index(out, index, files, finished)
    if not files:
        raise CkfrError(f"None of the {len(present)} pictures in {pictures} can be read.")
    return open_collection(out, model, recipe)


def open_collection(
    out: str | Path, model: Classifier | None = None, recipe: Recipe | None = None
) -> Collection:
    """A collection that `build` made; refused if it is damaged, or not of the model or recipe given."""
    out = Path(out)
    if not (out / "index.json").is_file():
        raise CkfrError(f"There is no collection in {out}; `ckfr retrieve index FOLDER` makes one.")
    held = _read_index(out)
    expected: dict[str, Any] = {} if model is None else dict(_of(model))
    expected |= {} if recipe is None else {"recipe": dataclasses.asdict(recipe)}
    _refuse_other(out, held, {"format": FORMAT, **expected})
    if not held["finished"]:
        warnings.warn(f"The collection in {out} is unfinished: {len(held['files'])} pictures.", stacklevel=2)
    names = tuple(name for name, *_ in held["files"])
    rows = _mapped(out, len(names))
    return Collection(Path(held["pictures"]), names, rows, Recipe(**held["recipe"]), held["origin"])


def _of(model: Classifier) -> dict[str, str]:
    return {"model": model.name, "weights": feature_key(model, mean=list(model.mean), std=list(model.std))}


def _refuse_other(out: Path, held: Any, expected: dict[str, Any]) -> None:
    for key, value in expected.items():
        if not isinstance(held, dict) or held.get(key) != value:
            was = held.get(key) if isinstance(held, dict) else held
            raise CkfrError(f"The collection in {out} is of {key} {was}, not {value}; name another folder.")


def _mapped(out: Path, rows: int) -> np.ndarray:
    """The first ``rows`` descriptors; what a killed process wrote beyond them is not in the index."""
    try:
        found = np.load(out / "descriptors.npy", mmap_mode="r")
        if found.ndim == 2 and len(found) >= rows > 0:
            return found[:rows]
    except (OSError, ValueError):
        pass
    raise CkfrError(f"{out / 'descriptors.npy'} does not hold the {rows} rows of its index; remove {out}.")


def _find(folder: Path) -> dict[str, tuple[int, int]]:
    """Names of the pictures below a folder, sorted, with size and time; hidden ones are left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.suffix.lower() in ENDINGS and not any(part.startswith(".") for part in name.parts):
            status = path.stat()
            found[name.as_posix()] = (status.st_size, status.st_mtime_ns)
    if not found:
        raise CkfrError(f"There are no pictures in {folder}; expected {', '.join(ENDINGS)}.")
    return found


def _read_ahead(
    folder: Path, names: Sequence[str], size: int
) -> Iterator[list[tuple[str, Tensor | Exception]]]:
    """Pictures in chunks, behind them those that cannot be read; threads decode the next chunk meanwhile."""

    def read(name: str) -> tuple[str, Tensor | Exception]:
        try:
            return name, fit(read_picture(folder / name), size)
        except (CkfrError, OSError) as error:
            return name, error

    chunks = (names[start : start + CHUNK] for start in range(0, len(names), CHUNK))
    with ThreadPoolExecutor(max(1, num_workers())) as pool:
        submitted = ([pool.submit(read, name) for name in chunk] for chunk in chunks)
        for now, _ in itertools.pairwise(itertools.chain(submitted, [[]])):
            yield sorted((one.result() for one in now), key=lambda found: isinstance(found[1], Exception))


def _unchanged(out: Path, made: dict[str, Any], present: dict[str, tuple[int, int]]) -> list[tuple]:
    """Name, size and time of the pictures whose rows can stay; the rows of others are dropped."""
    if not (out / "index.json").is_file():
        return []
    held = _read_index(out)
    _refuse_other(out, held, made)
    files = [tuple(one) for one in held["files"]]
    rows = [row for row, (name, *state) in enumerate(files) if present.get(name) == tuple(state)]
    if len(rows) < len(files):
        old = _mapped(out, len(files))
        _write_index(out, held, [])  # who is killed here begins anew
        with atomic_path(out / "descriptors.npy") as path:
            for start in range(0, len(rows), 4096):
                _append(path, start, old[rows[start : start + 4096]])
        files = [files[row] for row in rows]
    elif files:
        _mapped(out, len(files))
    return files


def _append(path: Path, before: int, rows: np.ndarray) -> None:
    """Write rows (n, D) behind the first ``before`` ones; the header, which counts them, comes last."""
    with open(path, "r+b" if before else "wb") as file:
        for count in (before, before + len(rows)):  # equally long, since NumPy leaves room for growth
            file.seek(0)
            shape = (count, rows.shape[1])
            np.lib.format.write_array_header_1_0(
                file, {"descr": "<f4", "fortran_order": False, "shape": shape}
            )
            if count == before:
                file.seek(before * rows.shape[1] * 4, os.SEEK_CUR)
                file.write(rows.astype("<f4").tobytes())


def _read_index(out: Path) -> Any:
    try:
        return json.loads((out / "index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CkfrError(f"{out / 'index.json'} cannot be read ({error}); remove {out}.") from error


def _write_index(out: Path, index: dict[str, Any], files: list[tuple], finished: bool = False) -> None:
    write_text(out / "index.json", json.dumps({**index, "finished": finished, "files": files}))

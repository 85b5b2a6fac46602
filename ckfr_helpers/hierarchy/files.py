"""Trees in files (a CSV table that people write, `Hierarchy.save`'s ``.npz``), and the demo's distances."""

import csv
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ckfr_helpers.hierarchy.checks import check_classes, check_distances
from ckfr_helpers.runtime import CkfrError, atomic_path, load_plain_pickle

WHAT = "the demo's pseudo_distances.npy, one dictionary keyed 'wnidA-wnidB'"


def read_csv(path: str | Path) -> tuple[list[tuple[str, str]], dict[str, list[int]]]:
    """(parent, child) pairs, and the lines where each node is a child; for a root its first line."""
    pairs: list[tuple[str, str]] = []
    lines: dict[str, list[int]] = {}
    first: dict[str, list[int]] = {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, restval="")
            for column in ("parent", "child"):
                if column not in (rows.fieldnames or ()):
                    raise CkfrError(f"{path} has no column {column!r}; expected parent,child.")
            for row in rows:
                above, below = row["parent"].strip(), row["child"].strip()
                pairs.append((above, below))
                lines.setdefault(below, []).append(rows.line_num)
                first.setdefault(above, [rows.line_num])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CkfrError(f"{path} cannot be read as a table in UTF-8: {error}.") from None
    return pairs, first | lines


def write_npz(path: str | Path, **texts: Sequence[str]) -> None:
    """Text arrays by name, without pickle."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **{name: np.array(text) for name, text in texts.items()})  # type: ignore[arg-type]


def read_npz(path: str | Path) -> tuple[list[tuple[str, str]], list[str], dict[str, str]]:
    """(parent, child) pairs, classes and names as `write_npz` wrote them."""
    try:
        with np.load(path, allow_pickle=False) as file:
            pairs = list(zip(file["parent"].tolist(), file["child"].tolist(), strict=True))
            return pairs, file["classes"].tolist(), dict(json.loads(str(file["names"])))
    except Exception as error:  # no file, zip, header, missing key, pickle refused: one answer for all
        raise CkfrError(f"{path} is no saved hierarchy ({type(error).__name__}: {error}).") from None


def load_pseudo_distances(
    path: str | Path, classes: Sequence[str] | None = None
) -> tuple[tuple[str, ...], np.ndarray]:
    """Import the original demo's distances.

    Args:
        path: an ``.npy`` written by ``np.save(path, {"wnidA-wnidB": number, ...})`` with both orders of every
            pair, as in the demo; a missing self pair counts as 0.
        classes: the ids to read, in label order; all ids of the file in sorted order if None.

    Returns:
        The class ids and their (C, C) float32 distances.

    Raises:
        CkfrError: not such a file, or a pair is missing, no distance, or differs between its two orders.
    """
    path = Path(path)
    table: dict[tuple[str, str], float] = {}
    for key, value in _read(path).items():
        sides = key.split("-") if isinstance(key, str) else []
        if len(sides) != 2 or not all(sides):
            raise CkfrError(f"{path} has the key {key!r}; expected two ids joined by one hyphen.")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise CkfrError(f"{path} has a {type(value).__name__} for {key!r}; expected a number.")
        table[sides[0], sides[1]] = value
    known = sorted({side for pair in table for side in pair})
    ids = tuple(known if classes is None else classes)
    check_classes(ids)
    table = {(name, name): 0.0 for name in known} | table
    if missing := next((pair for pair in itertools.product(ids, ids) if pair not in table), None):
        pair, count = "-".join(missing), len(known)
        raise CkfrError(
            f"{path} has no distance for '{pair}'; it knows {count} classes. Expected both orders."
        )
    matrix = np.array([[table[a, b] for b in ids] for a in ids], dtype=np.float32)  # (C, C)
    return ids, check_distances(matrix, ids, str(path))


def _read(path: Path) -> dict[Any, Any]:
    try:
        with open(path, "rb") as file:
            np.lib.format.read_magic(file)  # np.save writes version 1.0 for such an array
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            content = load_plain_pickle(file, WHAT) if dtype == np.dtype(object) and shape == () else None
    except CkfrError:
        raise
    except (OSError, ValueError) as error:
        raise CkfrError(f"{path} is not an .npy file ({error}); expected {WHAT}.") from None
    content = content.item() if isinstance(content, np.ndarray) and content.shape == () else content
    if not isinstance(content, dict) or not content:
        raise CkfrError(f"{path} holds no dictionary of pairs; expected {WHAT}.")
    return content

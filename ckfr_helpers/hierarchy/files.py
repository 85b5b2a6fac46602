"""Trees in files: a CSV table that people write, and the ``.npz`` that ``Hierarchy.save`` writes."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ckfr_helpers.runtime import CkfrError, atomic_path


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


def write_npz(
    path: str | Path, classes: Sequence[str], parent: Mapping[str, str], names: Mapping[str, str]
) -> None:
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            classes=np.array(classes),
            child=np.array(list(parent)),
            parent=np.array(list(parent.values())),
            names=np.array(json.dumps(dict(names), ensure_ascii=False)),
        )


def read_npz(path: str | Path) -> tuple[list[tuple[str, str]], list[str], dict[str, str]]:
    """(parent, child) pairs, classes and names as `write_npz` wrote them."""
    try:
        with np.load(path, allow_pickle=False) as file:
            pairs = list(zip(file["parent"].tolist(), file["child"].tolist(), strict=True))
            return pairs, file["classes"].tolist(), dict(json.loads(str(file["names"])))
    except Exception as error:  # no file, zip, header, missing key, pickle refused: one answer for all
        raise CkfrError(f"{path} is no saved hierarchy ({type(error).__name__}: {error}).") from None

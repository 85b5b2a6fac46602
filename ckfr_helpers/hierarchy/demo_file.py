"""Read the original demo's ``pseudo_distances.npy`` without trusting it.

The file is a pickled dictionary inside an ``.npy``: keys ``"wnidA-wnidB"``, values numbers. Unpickling runs
whatever the file says, so ``np.load(..., allow_pickle=True)`` on a stranger's file hands them the machine.
Here the pickle is read by an unpickler that knows five names and maps each to a harmless stand-in of
ours; anything else is refused before it runs.
"""

import io
import math
import pickle
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ckfr_helpers.runtime import CkfrError


class _Refused(Exception):
    """Something in the pickle is not plain data; the message names it."""


class _DType:
    """Stands in for ``numpy.dtype``: plain numbers, and the object type of the outer array."""

    def __init__(self, kind: object, *_: object) -> None:
        if not isinstance(kind, str) or not re.fullmatch(r"[fiub][1248]|O8?", kind):
            raise _Refused(f"an array of type {kind!r}")
        self.kind = kind
        self.order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if len(state) > 1 and state[1] in ("<", ">", "|", "="):
            self.order = state[1]

    def number(self, raw: object) -> int | float:
        if self.kind.startswith("O") or not isinstance(raw, bytes):
            raise _Refused("a NumPy scalar that is no number")
        return np.frombuffer(raw, dtype=f"{self.order}{self.kind}", count=1)[0].item()


class _Array:
    """Stands in for the outer 0-d object array: remembers its one element."""

    item: object = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, _, _, values = state
        if shape != () or not isinstance(values, list) or len(values) != 1:
            raise _Refused(f"an array of shape {shape}")
        self.item = values[0]


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _scalar(dtype: object, raw: object = None) -> int | float:
    if not isinstance(dtype, _DType):
        raise _Refused("a NumPy scalar without a type")
    return dtype.number(raw)


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """What protocol 2 writes for bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise _Refused("an encoded text")
    return text.encode("latin1")


class _Call:
    """A name the pickle may call: an instance, not a function or class, so that it cannot be changed."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self.function = function

    def __call__(self, *arguments: object) -> object:
        return self.function(*arguments)

    def __setstate__(self, state: object) -> None:
        raise _Refused("an attempt to change a function")


class _PlainUnpickler(pickle.Unpickler):
    allowed = {  # noqa: RUF012 -- a constant table
        ("numpy", "ndarray"): "numpy.ndarray",  # only ever an argument of _reconstruct, which ignores it
        ("numpy", "dtype"): _DType,
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy.core.multiarray", "scalar"): _scalar,
        ("numpy._core.multiarray", "scalar"): _scalar,
        ("_codecs", "encode"): _encode,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            found = self.allowed[(module, name)]
        except KeyError:
            raise _Refused(f"the name {module}.{name}") from None
        return _Call(found) if callable(found) else found

    def persistent_load(self, pid: object) -> Any:
        raise _Refused("a persistent object")


def load_pseudo_distances(
    path: str | Path, classes: Sequence[str] | None = None
) -> tuple[tuple[str, ...], np.ndarray]:
    """Import the original demo's distances.

    Args:
        path: an ``.npy`` written by ``np.save(path, {"wnidA-wnidB": number, ...})``. Both orders of
            every pair are needed, as in the demo; a missing self pair counts as 0.
        classes: the ids to read, in label order; all ids of the file in sorted order if None.

    Returns:
        The class ids and their (C, C) float32 distances.

    Raises:
        CkfrError: not such a file; it holds anything but plain strings and numbers; a pair is missing,
            negative, infinite, or differs between its two orders; a self pair is not 0.
    """
    table = _read_table(Path(path))
    wanted = tuple(dict.fromkeys(classes)) if classes is not None else None
    if wanted is not None and len(wanted) != len(classes or ()):
        twice = next(c for i, c in enumerate(classes or ()) if c in (classes or ())[:i])
        raise CkfrError(f"Class {twice!r} is listed twice; expected each class once.")
    found = sorted({side for pair in table for side in pair})
    ids = wanted if wanted is not None else tuple(found)
    unknown = [c for c in ids if c not in set(found)]
    if unknown:
        raise CkfrError(f"{path} has no distances for class {unknown[0]!r}; it knows {len(found)} classes.")
    matrix = np.zeros((len(ids), len(ids)), dtype=np.float32)  # (C, C)
    for i, a in enumerate(ids):
        for j, b in enumerate(ids):
            value = table.get((a, b), 0.0 if a == b else None)
            if value is None:
                raise CkfrError(
                    f"{path} has no distance for the pair '{a}-{b}'; expected both orders of every pair."
                )
            if a == b and value != 0:
                raise CkfrError(
                    f"{path} says {value} for the pair '{a}-{a}'; a class is at distance 0 from itself."
                )
            if j < i and value != table[(b, a)]:
                raise CkfrError(
                    f"{path} is not symmetric: '{a}-{b}' is {value} but '{b}-{a}' is {table[(b, a)]}."
                )
            matrix[i, j] = value
    return ids, matrix


def _read_table(path: Path) -> dict[tuple[str, str], float]:
    if not path.is_file():
        raise CkfrError(f"There is no file {path}; expected the demo's pseudo_distances.npy.")
    with open(path, "rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read_header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read_header(file)
        except ValueError as error:
            raise CkfrError(
                f"{path} is not an .npy file ({error}); expected the demo's pseudo_distances.npy."
            ) from None
        if shape != () or dtype != np.dtype(object):
            raise CkfrError(
                f"{path} holds an array of shape {shape} and type {dtype}; expected one pickled dictionary."
            )
        body = file.read()
    try:
        array = _PlainUnpickler(io.BytesIO(body), encoding="latin1").load()
    except _Refused as error:
        raise CkfrError(
            f"{path} is refused: its pickle holds {error}, expected plain strings and numbers."
        ) from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise CkfrError(f"{path} cannot be read as a pickle ({type(error).__name__}: {error}).") from None
    content = array.item if isinstance(array, _Array) else array
    if not isinstance(content, dict):
        raise CkfrError(
            f"{path} holds a {type(content).__name__}; expected a dictionary keyed 'wnidA-wnidB'."
        )
    table: dict[tuple[str, str], float] = {}
    for key, value in content.items():
        sides = key.split("-") if isinstance(key, str) else []
        if len(sides) != 2 or not all(sides):
            raise CkfrError(f"{path} has the key {key!r}; expected two ids joined by one hyphen.")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise CkfrError(f"{path} has a {type(value).__name__} for {key!r}; expected a number.")
        if not math.isfinite(value) or value < 0:
            raise CkfrError(f"{path} says {value} for {key!r}; expected a finite distance of at least 0.")
        table[(sides[0], sides[1])] = float(value)
    if not table:
        raise CkfrError(f"{path} holds no pairs.")
    return table

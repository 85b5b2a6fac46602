"""Reading other people's pickles without letting them run anything.

A pickle is a small program: it can name any function to call. The pickles that data sets come in need NumPy's
array constructors and a few containers; whatever asks for more is refused before it is called.
"""

import pickle
from pathlib import Path
from typing import Any

from ckfr_helpers.runtime import CkfrError

# As Python 2 and 3, and NumPy 1 and 2, write them.
_ALLOWED = frozenset(
    {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy.core.numeric", "_frombuffer"),
        ("numpy._core.numeric", "_frombuffer"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
        ("collections", "OrderedDict"),
        ("collections", "defaultdict"),
        *((module, name) for module in ("builtins", "__builtin__") for name in ("list", "dict", "range")),
        ("__builtin__", "xrange"),
    }
)


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it wants to run {module}.{name}")
        return super().find_class(module, name)


def load_arrays(path: Path, what: str) -> Any:
    """Read a pickle of arrays, numbers, strings and containers; all its strings come back as bytes.

    Args:
        path: the file.
        what: what it should be, for the sentence if it is not, e.g. ``"a batch of CIFAR pictures"``.

    Raises:
        CkfrError: if the file is damaged or asks for anything else.
    """
    try:
        with open(path, "rb") as file:
            return _as_bytes(_ArraysOnly(file, encoding="bytes").load())
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        IndexError,
        KeyError,
        AttributeError,
        TypeError,
        ImportError,  # NumPy 2's module names under NumPy 1
        MemoryError,  # a damaged length
        OverflowError,
    ) as error:
        raise CkfrError(f"{path} is not {what} ({error}); fetch it again.") from error


def _as_bytes(value: Any) -> Any:
    """Python 2's strings load as bytes, Python 3's as str; make them alike, keys included."""
    if isinstance(value, dict):
        return {_as_bytes(key): _as_bytes(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_bytes(item) for item in value]
    return value.encode() if isinstance(value, str) else value

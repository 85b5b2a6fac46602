"""Where things are, which device, which seed, and how much to compute.

The ground floor: this module knows nothing of hierarchies, losses or images, and imports torch only
inside the functions that need it.
"""

import contextlib
import json
import math
import numbers
import os
import pickle
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

PACKAGE = Path(__file__).resolve().parent


class CkfrError(ValueError):
    """Something the user gave is wrong; one sentence says what it was, where, and what was expected.

    The command line prints the sentence and exits with status 2; a notebook shows it as it is.
    """


def check_number(
    name: str,
    value: Any,
    low: float,
    high: float = math.inf,
    *,
    whole: bool = False,
    above: bool = False,
    below: bool = False,
) -> None:
    """Refuse an option that is no finite number (``"abc"`` is as easily written as ``0.9``) or out of range.

    Args:
        name, value: the option, and what was given.
        low, high: smallest and largest value allowed; ``above`` and ``below`` exclude these two themselves.
        whole: whether it must be a whole number.

    Raises:
        CkfrError: if it is not.

    Example:
        >>> check_number("alpha", -1.0, 0)
        Traceback (most recent call last):
        ckfr_helpers.runtime.CkfrError: alpha is -1.0; expected a number of at least 0.
    """
    a_number = isinstance(value, numbers.Integral if whole else numbers.Real) and not isinstance(value, bool)
    if a_number:
        reached = low < value if above else low <= value
        if reached and (value < high if below else value <= high) and math.isfinite(value):
            return
    least = f"a {'whole ' * whole}number {'above' if above else 'of at least'} {low}"
    most = "" if high == math.inf else f" and {'below' if below else 'at most'} {high}"
    raise CkfrError(f"{name} is {value!r}; expected {least}{most}.")


def repo_root() -> Path | None:
    """The checkout this package runs from, or None when it was installed as a wheel."""
    root = PACKAGE.parent
    return root if (root / "pyproject.toml").is_file() and (root / "notebooks").is_dir() else None


def project_file(name: str) -> Path:
    """Path of a small text file that belongs to the project, e.g. ``"wordnet.tsv"``.

    Raises:
        CkfrError: if neither the checkout's ``data/`` nor the installed package holds it.
    """
    places = [folder / "data" / name for folder in (repo_root(), PACKAGE) if folder]
    if found := next((place for place in places if place.is_file()), None):
        return found
    raise CkfrError(f"The project file {name!r} is missing; expected it at {' or '.join(map(str, places))}.")


def data_root() -> Path:
    """Folder for downloads: ``$CKFR_DATA``, else the checkout's ``data/``, else ``./data``."""
    return _folder("CKFR_DATA", "data")


def runs_root() -> Path:
    """Folder for checkpoints and histories: ``$CKFR_RUNS``, else ``runs/`` beside the data."""
    return _folder("CKFR_RUNS", "runs")


def _folder(variable: str, name: str) -> Path:
    chosen = os.environ.get(variable)
    return Path(chosen).expanduser() if chosen else (repo_root() or Path.cwd()) / name


def load_result(name: str) -> dict[str, Any]:
    """A committed result, e.g. ``"study_photos_grid"``, with the hardware and versions it was made with.

    Raises:
        CkfrError: as `result_file`.
    """
    return json.loads(result_file(f"{name}.json").read_text())


def result_file(name: str) -> Path:
    """Where a committed result lies, e.g. ``"study_photos_grid.csv"`` with every run of that study.

    Raises:
        CkfrError: if there is none; the sentence says what makes it.
    """
    path = (repo_root() or Path.cwd()) / "benchmarks" / "results" / name
    if not path.is_file():
        raise CkfrError(f"There is no result {path}; ckfr study and the scripts in benchmarks/ write them.")
    return path


def mode() -> Literal["quick", "full"]:
    """How much the notebooks compute: ``$CKFR_MODE``, ``quick`` unless it says ``full``.

    Notebooks never read the variable themselves; they ask the package for settings that depend on it.
    """
    value = os.environ.get("CKFR_MODE", "quick")
    if value not in ("quick", "full"):
        raise CkfrError(f"CKFR_MODE is {value!r}; expected 'quick' or 'full'.")
    return value  # type: ignore[return-value]


def pick_device() -> str:
    """``"cuda"`` where there is a GPU, else ``"mps"``, else ``"cpu"``; ``$CKFR_DEVICE`` overrides."""
    import torch

    if os.environ.get("CKFR_DEVICE"):
        return os.environ["CKFR_DEVICE"]
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def num_workers(most: int = 8) -> int:
    """Loader processes worth starting here: one per core we may use, at most ``most``."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(0, min(most, cores))


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch. Seeds do not carry over between torch versions or devices."""
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 -- libraries below us still read the global state
    torch.manual_seed(seed)


def mix_seed(*parts: int) -> int:
    """One well-spread 64-bit seed from several small numbers; (1, 2, 3) and (1, 3, 2) share nothing."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


def environment() -> dict[str, str | int]:
    """Versions and hardware, as every committed result file records them."""
    import platform

    import torch
    import torchvision

    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    return {
        "code": code_version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "cpu": cpu,
        "cores": num_workers(most=10_000),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none",
    }


@cache
def code_version() -> str:
    """Package version and git commit, e.g. ``"0.2.0 1a2b3c4d"``; the same all through a process.

    ``+changed`` follows where the package's code or a benchmark differs from that commit; ``unknown`` stands
    for the commit outside a checkout or without git.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(repo_root()), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    commit = "unknown"
    if repo_root() is not None:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            commit = git("rev-parse", "--short=8", "HEAD")
            commit += "+changed" * bool(git("status", "--porcelain", "--", "ckfr_helpers", "benchmarks/*.py"))
    return f"{sys.modules[__package__].__version__} {commit}"  # imported, since a part of it is


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread inside the block.

    On tensors of a few thousand numbers its threads cost more than they bring, and many times more on a busy
    machine, where they wait for each other.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``target`` and move it into place only if the block succeeds.

    A crash, a full disk or Ctrl-C leaves the old file (or none), never half of a new one.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        # mkstemp files are private; give the result the permissions any new file here would get.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def load_plain_pickle(source: str | Path | BinaryIO, what: str) -> Any:
    """Read a pickle of numbers, text, containers and NumPy arrays; nothing that it names is ever run.

    A pickle is a small program that may call any function by name. Here the few names that arrays need lead
    to stand-ins of ours, and every other is refused. Arrays may hold numbers, text or such values again.

    Args:
        source: a file, or one open for reading that stands where the pickle begins.
        what: what it should hold, for the sentence if it does not, e.g. ``"a batch of CIFAR pictures"``.

    Returns:
        The content: ordered and default dicts as dict, bytes (Python 2's text) as str by Latin-1.

    Raises:
        CkfrError: if the file is missing or damaged, or asks for anything else.
    """
    place = source if isinstance(source, str | Path) else getattr(source, "name", "The file")
    try:
        with open(source, "rb") if isinstance(source, str | Path) else contextlib.nullcontext(source) as file:
            return _settled(_PlainUnpickler(file, encoding="latin1").load(), {})
    except FileNotFoundError:
        raise CkfrError(f"There is no file {source}; expected {what}.") from None
    except _Refused as error:
        raise CkfrError(f"{place} is refused as {what}: {error}; expected plain data only.") from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise CkfrError(f"{place} is not {what} ({type(error).__name__}: {error}); fetch it again.") from None


class _Refused(Exception):
    """Something in a pickle is no plain data; the message says what."""


class _DType:
    """Stands in for ``numpy.dtype``."""

    def __init__(self, code: str, *_: object) -> None:
        if not re.fullmatch(r"b1|[iu][1248]|f[248]|[SU]\d{1,6}|O8?", code):
            raise _Refused(f"it holds an array of type {code!r}")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1] if state[1] in ("<", ">") else "="

    def read(self, data: bytes | str) -> np.ndarray:
        return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, self.order + self.code)


class _Array:
    """Stands in for ``numpy.ndarray`` until all is read."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.dtype, self.fortran, self.data = state

    def settled(self, done: dict[int, Any]) -> np.ndarray:
        if self.dtype.code.startswith("O"):
            values = np.empty(len(self.data), dtype=object)
            values[:] = _settled(self.data, done)
        else:
            values = self.dtype.read(self.data).copy()
        return values.reshape(self.shape, order="F" if self.fortran else "C")


class _Call:
    """A name that a pickle may call; not the function itself, which it could then change."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> object:
        return self._function(*arguments)

    def __setstate__(self, _: object) -> None:
        raise _Refused("it wants to change a function")


def _from_buffer(data: bytes, dtype: _DType, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", data))
    return array


class _PlainUnpickler(pickle.Unpickler):
    # As NumPy 1 and Python 3 name them; a text stands for a name that is only ever an argument.
    known = {  # noqa: RUF012 -- a constant table
        "numpy.ndarray": "ndarray",
        "numpy.dtype": _DType,
        "numpy.core.multiarray._reconstruct": lambda *_: _Array(),
        "numpy.core.multiarray.scalar": lambda dtype, data: dtype.read(data)[0].item(),
        "numpy.core.numeric._frombuffer": _from_buffer,
        "_codecs.encode": lambda text, *_: text.encode("latin1"),
        "collections.OrderedDict": dict,
        "collections.defaultdict": lambda *_: {},
        "builtins.range": range,
        "builtins.xrange": range,
        "builtins.list": "list",
        "builtins.dict": "dict",
    }

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy._core", "numpy.core").replace("__builtin__", "builtins")
        if (found := self.known.get(f"{module}.{name}")) is None:
            raise _Refused(f"it wants to run {module}.{name}")
        return _Call(found) if callable(found) else found


def _settled(value: Any, done: dict[int, Any]) -> Any:
    """The value with arrays for their stand-ins; what is shared inside it is visited once."""
    if isinstance(value, bytes | bytearray):
        return value.decode("latin1")
    if value is None or isinstance(value, int | float | complex | str | range):
        return value
    if id(value) not in done:
        if isinstance(value, list):
            result: list[Any] = []
            done[id(value)] = result  # first, since a list may hold itself
            result.extend(_settled(item, done) for item in value)
        elif isinstance(value, dict):
            done[id(value)] = {_settled(key, done): _settled(item, done) for key, item in value.items()}
        elif isinstance(value, tuple | set | frozenset):
            done[id(value)] = type(value)(_settled(item, done) for item in value)
        elif isinstance(value, _Array):
            done[id(value)] = value.settled(done)
        else:
            raise _Refused("it holds a function or type")
    return done[id(value)]

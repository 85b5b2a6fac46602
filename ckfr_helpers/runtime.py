"""Where things are, which device, which seed, and how much to compute; torch is imported where needed."""

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
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

PACKAGE = Path(__file__).resolve().parent


class CkfrError(ValueError):
    """Something the user gave is wrong; one sentence says what it was, where, and what was expected."""


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
    """Refuse an option ``name`` that is no finite (or ``whole``) number from ``low`` to ``high``.

    ``above`` and ``below`` exclude the two ends themselves.

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
    """Path of a small text file of the project, e.g. ``"wordnet.tsv"``, in a checkout or a wheel."""
    places = [folder / "data" / name for folder in (repo_root(), PACKAGE) if folder]
    if found := next((place for place in places if place.is_file()), None):
        return found
    raise CkfrError(f"The project file {name!r} is missing; expected it at {' or '.join(map(str, places))}.")


def data_root() -> Path:
    """Folder for downloads: ``$CKFR_DATA``, else ``data/`` in the checkout or the current folder."""
    return Path(os.environ.get("CKFR_DATA") or (repo_root() or Path.cwd()) / "data").expanduser()


def runs_root() -> Path:
    """Folder for checkpoints and histories: ``$CKFR_RUNS``, else ``runs/`` beside the data."""
    return Path(os.environ.get("CKFR_RUNS") or (repo_root() or Path.cwd()) / "runs").expanduser()


def result_file(name: str) -> Path:
    """Where a committed result lies, e.g. ``"study_photos_grid.csv"`` with every run of that study."""
    path = (repo_root() or Path.cwd()) / "benchmarks" / "results" / name
    if not path.is_file():
        raise CkfrError(f"There is no result {path}; ckfr study and the scripts in benchmarks/ write them.")
    return path


def load_result(name: str) -> dict[str, Any]:
    """The content of a committed JSON, e.g. ``"study_photos_grid"``, with its hardware and versions."""
    return json.loads(result_file(f"{name}.json").read_text(encoding="utf-8"))


def mode() -> Literal["quick", "full"]:
    """How much the notebooks compute: ``$CKFR_MODE``, ``quick`` unless it says ``full``."""
    value = os.environ.get("CKFR_MODE", "quick")
    if value not in ("quick", "full"):
        raise CkfrError(f"CKFR_MODE is {value!r}; expected 'quick' or 'full'.")
    return value  # type: ignore[return-value]


def pick_device() -> str:
    """``"cuda"`` where there is a GPU, else ``"mps"``, else ``"cpu"``; ``$CKFR_DEVICE`` overrides."""
    import torch

    found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return os.environ.get("CKFR_DEVICE") or found


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

    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", info.read_text() if info.is_file() else "")
    return {
        "code": code_version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "cpu": model[1].strip() if model else platform.processor() or platform.machine(),
        "cores": num_workers(most=10_000),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none",
    }


@cache
def code_version() -> str:
    """Package version and git commit, e.g. ``"0.2.0 1a2b3c4d+changed"``, or ``unknown`` without git."""

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
    """Keep torch to one thread: on a few thousand numbers, more cost more than they bring."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """A temporary path beside ``target``, moved into place only if the block succeeds: never half a file."""
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


def as_json(values: Any, digits: int = 17) -> str:
    """Indented JSON; a number that is not finite becomes null, since JSON has no NaN."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [plain(one) for one in value]
        if isinstance(value, float | np.floating):
            return float(f"{value:.{digits}g}") if np.isfinite(value) else None
        return value

    return json.dumps(plain(values), indent=1, allow_nan=False) + "\n"


def load_plain_pickle(source: str | Path | BinaryIO, what: str) -> Any:
    """Read a pickle of numbers, text, containers and NumPy arrays; nothing that it names is ever run.

    A pickle is a small program that may call any function by name. Here every name is refused but the few
    that arrays need, and those lead to code of ours. ``what`` says for the error what the file should hold;
    an open one must stand where the pickle begins.
    """
    if isinstance(source, str | Path):
        if not Path(source).is_file():
            raise CkfrError(f"There is no file {source}; expected {what}.")
        with open(source, "rb") as file:
            return load_plain_pickle(file, what)
    place = getattr(source, "name", "The file")
    try:
        return _PlainUnpickler(source).load()
    except _Refused as error:
        raise CkfrError(f"{place} is refused as {what}: {error}; expected plain data only.") from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise CkfrError(f"{place} is not {what} ({type(error).__name__}: {error}); fetch it again.") from None


class _Refused(Exception): ...


class _DType:
    """Stands in for ``numpy.dtype``, whose own state could claim that raw bytes are pointers to objects."""

    def __init__(self, code: str, *_: object) -> None:
        if not re.fullmatch(r"b1|[iu][1248]|f[248]|[SU]\d{1,6}|O8?", code):
            raise _Refused(f"it holds an array of type {code!r}")
        self.real = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.real = self.real.newbyteorder(state[1])


class _Array(np.ndarray):
    def __setstate__(self, state: tuple[Any, ...]) -> None:
        version, shape, dtype, fortran, data = state
        super().__setstate__((version, shape, dtype.real, fortran, data))


def _values(data: bytes, dtype: _DType) -> np.ndarray:
    return np.frombuffer(data, dtype.real).copy()


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # Made anew at every call: a pickle may set attributes of what it is given.
        known = {
            "numpy.ndarray": "ndarray",  # an argument only
            "numpy.dtype": _DType,
            "numpy.core.multiarray._reconstruct": lambda *_: _Array(0, "b"),
            "numpy.core.multiarray.scalar": lambda dtype, data: _values(data, dtype)[0].item(),
            "numpy.core.numeric._frombuffer": lambda data, dtype, shape, order: _values(data, dtype).reshape(
                shape, order=order
            ),
            "_codecs.encode": lambda text, _: text.encode("latin1"),  # bytes, in the older protocols
        }
        if (found := known.get(f"{module.replace('numpy._core', 'numpy.core')}.{name}")) is None:
            raise _Refused(f"it wants to run {module}.{name}")
        return found

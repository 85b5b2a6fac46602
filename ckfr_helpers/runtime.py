"""Where things are, which device, which seed, and how much to compute.

The ground floor: this module knows nothing of hierarchies, losses or images, and imports torch only
inside the functions that need it.
"""

import contextlib
import json
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

PACKAGE = Path(__file__).resolve().parent


class CkfrError(ValueError):
    """Something the user gave is wrong; one sentence says what it was, where, and what was expected.

    The command line prints the sentence and exits with status 2; a notebook shows it as it is.
    """


def repo_root() -> Path | None:
    """The checkout this package runs from, or None when it was installed as a wheel."""
    root = PACKAGE.parent
    return root if (root / "pyproject.toml").is_file() and (root / "notebooks").is_dir() else None


def project_file(name: str) -> Path:
    """Path of a small text file that belongs to the project, e.g. ``"wordnet.tsv"``.

    Raises:
        CkfrError: if neither the checkout's ``data/`` nor the installed package holds it.
    """
    root = repo_root()
    places = ([root / "data" / name] if root else []) + [PACKAGE / "data" / name]
    for place in places:
        if place.is_file():
            return place
    raise CkfrError(f"The project file {name!r} is missing; expected it at {' or '.join(map(str, places))}.")


def data_root() -> Path:
    """Folder for downloads: ``$CKFR_DATA``, else the checkout's ``data/``, else ``./data``."""
    if os.environ.get("CKFR_DATA"):
        return Path(os.environ["CKFR_DATA"]).expanduser()
    root = repo_root()
    return (root or Path.cwd()) / "data"


def runs_root() -> Path:
    """Folder for checkpoints and histories: ``$CKFR_RUNS``, else ``runs/`` beside the data."""
    if os.environ.get("CKFR_RUNS"):
        return Path(os.environ["CKFR_RUNS"]).expanduser()
    return (repo_root() or Path.cwd()) / "runs"


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
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "cpu": cpu,
        "cores": num_workers(most=10_000),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none",
    }


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


def in_colab() -> bool:
    """Whether this runs in Google Colab."""
    return "google.colab" in sys.modules

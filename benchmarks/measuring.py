"""What benchmarks share: fresh processes, their peak of memory, a clock that other work does not bend."""

import gc
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

PRELOAD = ["torch", "torchvision", "lightning_fabric", "ckfr_helpers.training"]


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """``function(*arguments)`` in a process of its own, so that its peak of memory is its own.

    From a fork server that has imported torch: nothing but that import is shared, and it is not paid again.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    # Not a Pool: its processes may have no children, and loader workers and compilers are such.
    with ProcessPoolExecutor(1, context) as executor:
        return executor.submit(function, *arguments).result()


def clock(device: str) -> Callable[[], float]:
    """Seconds: of this process's own work on a CPU, which a busy machine stretches little; else of the wall.

    On a CPU the work must be in this process (no loader workers) and in one thread.
    """
    if device == "cpu":
        return time.process_time

    def wall() -> float:
        import torch

        torch.cuda.synchronize()
        return time.perf_counter()

    return wall


def median_seconds(
    works: dict[str, Callable[[], Any]], device: str, repeats: int, warmup: int = 1
) -> dict[str, float]:
    """Median seconds of each, taken in turns, so that whatever disturbs one disturbs all."""
    now = clock(device)
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(warmup + repeats):
        for name, work in works.items():
            start = now()
            work()
            seconds[name].append(now() - start)
    return {name: statistics.median(times[warmup:]) for name, times in seconds.items()}


def in_turns(works: dict[str, Callable[[], Any]], device: str, repeats: int) -> dict[str, list[float]]:
    """Seconds of every timed call, in turns; before each of them the same work runs once untimed.

    So each finds its own data in the caches and its memory at hand, whatever the other left behind.
    """
    now = clock(device)
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            work()
            start = now()
            work()
            seconds[name].append(now() - start)
    return seconds


def added_memory(work: Callable[[], Any], device: str, warm: bool = False) -> float:
    """MB (2^20 bytes) at the peak of ``work`` above what was held before it.

    On a CPU this is the whole process's resident peak: call it once, first, in a fresh process.

    Args:
        work: a step, say.
        device: "cpu" or "cuda".
        warm: do it once before, so that compilers, moments and what else lasts do not count. On a CPU that
            wants Linux, which can start the peak anew, and `return_memory_early` before the process starts.
    """
    if warm:
        work()
    gc.collect()
    if device == "cpu":
        if warm:
            Path("/proc/self/clear_refs").write_text("5")  # the peak is what is held now
        before = _peak_mb()
        work()
        return _peak_mb() - before
    import torch

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def return_memory_early() -> None:
    """Make glibc give freed tensors back at once in processes started from here on; it hoards them else."""
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**17)


def keep_memory() -> dict[str, str]:
    """An environment whose processes keep what they free (glibc): large tensors cost no new pages."""
    return os.environ | {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}


def _peak_mb() -> float:
    # ru_maxrss is inherited from whoever started the process; VmHWM is this process's own.
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def classification_task(classes: int, alpha: float = 20.0) -> Any:
    """The task of ``ckfr train`` for random distances, whole numbers with many ties as path lengths are."""
    import torch

    from ckfr_helpers.hierarchy import Hierarchy
    from ckfr_helpers.losses import make_loss
    from ckfr_helpers.training import ClassificationTask

    steps = torch.randint(1, 14, (classes, classes), generator=torch.Generator().manual_seed(0)).float()
    distances = ((steps + steps.T) / 2).fill_diagonal_(0).numpy()
    star = Hierarchy.from_pairs([("root", f"class {label}") for label in range(classes)])
    return ClassificationTask(make_loss("ckfr", star, alpha=alpha, ell=1.2, knowledge=distances), star)


def load() -> list[float]:
    """The machine's load averages: how much else was going on."""
    return [round(value, 2) for value in os.getloadavg()]

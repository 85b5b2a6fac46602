"""What several processes must agree on: when to stop, when to save, and who reports an error."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import FrameType, SimpleNamespace

import torch
from lightning_fabric import Fabric

from ckfr_helpers.runtime import CkfrError

SAME_REQUEST_SECONDS = 1.0  # torchrun passes on a Ctrl-C that its workers have already had


@contextlib.contextmanager
def stop_signals() -> Iterator[SimpleNamespace]:
    """Turn the first Ctrl-C or termination signal into a flag, ``asked``, that the loop reads between steps.

    Raised in the middle of a step it would leave weights half updated. A second Ctrl-C stops at once.
    """
    stop = SimpleNamespace(asked=False)
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread receives signals
        return
    first = 0.0

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if stop.asked and time.monotonic() - first > SAME_REQUEST_SECONDS:
            raise KeyboardInterrupt
        first = first or time.monotonic()
        stop.asked = True

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def any_process(fabric: Fabric, *flags: bool) -> tuple[bool, ...]:
    """Flags raised in any process: a signal or a clock may reach one first, yet all must act at one step."""
    if fabric.world_size == 1:
        return flags
    votes = torch.tensor([float(flag) for flag in flags], device=fabric.device)
    return tuple(bool(vote > 0) for vote in fabric.all_reduce(votes, reduce_op="sum"))


def on_first_process(fabric: Fabric, work: Callable[[], None]) -> None:
    """Do something in the first process alone; a `CkfrError` there is raised in every process alike."""
    refused = None
    if fabric.is_global_zero:
        try:
            work()
        except CkfrError as error:
            refused = str(error)
    if fabric.world_size > 1:
        refused = fabric.broadcast(refused)
    if refused is not None:
        raise CkfrError(refused)


@contextlib.contextmanager
def lost_process_explained(world_size: int) -> Iterator[None]:
    """Say in one sentence that another process has gone, where gloo or NCCL would give a page."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        lost = isinstance(error, torch.distributed.DistError) or "gloo" in text or "peer" in text
        if world_size == 1 or not lost:
            raise
        raise CkfrError(
            "Another process of this run has ended, so this one stops too; the same command goes on from the "
            "last checkpoint."
        ) from error


def claim_error_report() -> bool:
    """Whether an error in this process is news: true once a run, so that N processes print one sentence.

    Counted in the store of torchrun's agent, or of the first process, which has spoken if it is gone.
    """
    try:
        address, port = os.environ.get("MASTER_ADDR", "127.0.0.1"), int(os.environ["MASTER_PORT"])
        store = torch.distributed.TCPStore(address, port, is_master=False, timeout=timedelta(seconds=5))
        run = (os.environ.get(f"TORCHELASTIC_{name}", "") for name in ("RUN_ID", "RESTART_COUNT"))
        return store.add("/".join(["ckfr", "reported", *run]), 1) == 1
    except (KeyError, RuntimeError, ValueError):
        return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"

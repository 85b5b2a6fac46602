"""A run's folder: checkpoints that are whole or absent, and one process at a time that writes them."""

import contextlib
import os
import socket
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.runtime import CkfrError, atomic_path

FORMAT = "ckfr-checkpoint-2"


@contextlib.contextmanager
def run_folder(folder: Path) -> Iterator[None]:
    """Make a run's folder and hold it: no other process may train in it meanwhile.

    What an earlier, killed process left half written is removed. The lock is the operating system's, so it
    ends with its process, however that ends.

    Raises:
        CkfrError: if another process holds it, which is named, or if nothing can be written there.
    """
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        holder = folder / ".running"
        lock = FileLock(folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            who = holder.read_text() if holder.is_file() else "another process"
            raise CkfrError(f"{folder} is in use by {who}; wait for it, or name another folder.") from None
        with contextlib.suppress(OSError):
            for half_written in folder.glob(".*.tmp"):
                half_written.unlink(missing_ok=True)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()} since {since}")
    try:
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
        if [path.name for path in folder.iterdir()] in ([], [".lock"]):  # nothing came of it
            with contextlib.suppress(OSError):
                (folder / ".lock").unlink(missing_ok=True)
                folder.rmdir()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
        reason = getattr(error, "strerror", None) or "the disk may be full"
        raise CkfrError(f"{path} cannot be written ({reason}); what was there before is whole.") from error


def write_text(path: Path, text: str) -> None:
    """Write a small file, whole or not at all; a `CkfrError` if it cannot be written."""
    with _writing(path), atomic_path(path) as temporary:
        temporary.write_text(text)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, strings, lists and dicts) whole, or not at all as `write_text`."""
    with _writing(path), atomic_path(path) as temporary:
        torch.save({"format": FORMAT, **state}, temporary)


def load_checkpoint(path: Path, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote; only tensors and plain values are unpickled.

    Every byte of content is first held against its checksum: the CRC-32 that the file's ZIP container carries
    and that torch itself does not look at.

    Raises:
        CkfrError: if the file is missing, damaged, not one of ours, or lacks one of ``keys``.
    """
    if not path.is_file():
        raise CkfrError(f"There is no checkpoint at {path}; expected a file written by `ckfr train`.")
    try:
        with zipfile.ZipFile(path) as container:
            damaged = container.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of {damaged} is wrong")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a different type for each way a file can be wrong
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CkfrError(
            f"The checkpoint {path} is damaged or foreign ({reason[:120]}); "
            "remove it to start afresh, or put back a whole copy."
        ) from error
    found = state.get("format") if isinstance(state, dict) else None
    if found != FORMAT:
        raise CkfrError(f"{path} is not a checkpoint of this version ({found}); expected {FORMAT}.")
    missing = [key for key in keys if key not in state]
    if missing:
        raise CkfrError(
            f"The checkpoint {path} lacks {missing[0]!r}; put back a whole copy, or start afresh."
        )
    return state


def pack_hierarchy(hierarchy: Hierarchy) -> dict[str, Any]:
    """What a checkpoint says of its classes: ids in label order, readable names, and the tree's edges."""
    pairs, names = [list(pair) for pair in hierarchy.to_pairs()], dict(hierarchy.node_names)
    return {"classes": list(hierarchy.classes), "names": names, "pairs": pairs}


def unpack_hierarchy(packed: dict[str, Any]) -> Hierarchy:
    """The hierarchy that `pack_hierarchy` packed."""
    pairs = [(parent, child) for parent, child in packed["pairs"]]
    return Hierarchy.from_pairs(pairs, packed["classes"], names=packed["names"])


def refuse_other_classes(packed: dict[str, Any], hierarchy: Hierarchy, what: str) -> None:
    """Hold data to the classes that a run was trained on: a `CkfrError` names the first difference."""
    theirs, ours = packed["classes"], list(hierarchy.classes)
    label = next((i for i, pair in enumerate(zip(theirs, ours, strict=False)) if pair[0] != pair[1]), None)
    if label is not None:
        difference = f"label {label} is {theirs[label]!r} there and {ours[label]!r} in this data"
    elif len(theirs) != len(ours):
        difference = f"it has {len(theirs)} classes, this data {len(ours)}"
    else:
        edges = {tuple(pair) for pair in packed["pairs"]} ^ set(hierarchy.to_pairs())
        if not edges:
            return
        parent, child = min(edges)
        difference = f"only one of the two trees has {child!r} below {parent!r}"
    raise CkfrError(f"{what} was trained on other classes: {difference}; give it the data it was trained on.")

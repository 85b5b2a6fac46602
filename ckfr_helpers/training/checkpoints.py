"""Checkpoints that are whole or absent, and say what they belong to."""

from pathlib import Path
from typing import Any

import torch

from ckfr_helpers.runtime import CkfrError, atomic_path

FORMAT = "ckfr-checkpoint-1"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, strings, lists and dicts) atomically."""
    with atomic_path(path) as temporary:
        torch.save({"format": FORMAT, **state}, temporary)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote; only tensors and plain values are unpickled.

    Raises:
        CkfrError: if the file is missing, damaged, or not one of ours.
    """
    if not path.is_file():
        raise CkfrError(f"There is no checkpoint at {path}; expected a file written by `ckfr train`.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different type for each way a file can be wrong
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CkfrError(
            f"The checkpoint {path} is damaged or foreign ({reason[:120]}); "
            "remove it to start afresh, or put back a whole copy."
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CkfrError(f"{path} is not a checkpoint of this project; expected one written by `ckfr train`.")
    return state

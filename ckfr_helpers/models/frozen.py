"""Run the frozen part of a network once, keep what it gives, and train the rest on that."""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ckfr_helpers.models.classifier import evaluating
from ckfr_helpers.runtime import CkfrError


@dataclass
class CachedFeatures:
    """Trunk outputs of one split; `datasets.loading.CachedLoader` makes batches of them."""

    features: Any  # (N, ...) float16 or float32, on the CPU; or a mapping of tensors with N rows each
    labels: Tensor  # (N,) int64
    indices: Tensor  # (N,) int64, which example of the source each row is
    targets: dict[str, Tensor] = field(default_factory=dict)  # what else is known, (N, ...) each

    def __len__(self) -> int:
        return len(self.labels)

    def with_targets(self, **targets: Tensor) -> Self:
        """The same with further targets, whose rows are ordered by index (`training.evaluation.collect`)."""
        for name, rows in targets.items():
            if len(rows) != len(self):
                raise CkfrError(f"{name} has {len(rows)} rows for {len(self)} examples; expected as many.")
        place = self.indices.argsort().argsort()  # of each row among those ordered by index
        return replace(
            self, targets={**self.targets, **{name: rows[place] for name, rows in targets.items()}}
        )

    def set_epoch(self, epoch: int) -> None:
        """Nothing to choose: what is cached is the same in every epoch."""


@torch.no_grad()
def cache_features(
    trunk: nn.Module,
    loader: Iterable[tuple[Tensor, dict[str, Any], Tensor]],
    device: str = "cpu",
    dtype: torch.dtype = torch.float16,
    progress: bool = True,
) -> CachedFeatures:
    """Send every batch (inputs, targets with ``label``, indices) of a loader through a frozen trunk.

    The trunk, from `Classifier.split`, keeps its modes. One row an example, in the loader's order. Whatever
    other tensors the loader's targets hold is kept as ``targets``.

    Raises:
        CkfrError: if the loader is empty, or the trunk's output overflows ``dtype``.
    """
    trunk.to(device)
    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    more: dict[str, list[Tensor]] = {}
    run: Callable[[Tensor], Tensor] | None = None
    with evaluating(trunk):
        for inputs, targets, indices in tqdm(loader, desc="features", disable=not progress, leave=False):
            inputs = inputs.to(device, non_blocking=True)
            run = run or _folded(trunk, inputs)
            output = run(inputs).to(dtype).cpu().contiguous()
            if not torch.isfinite(output).all():
                raise CkfrError(f"A trunk output does not fit {dtype}; expected finite values, try float32.")
            rows.append((output, targets["label"].clone(), indices.clone()))
            for name, value in targets.items():
                if name != "label" and isinstance(value, Tensor):
                    more.setdefault(name, []).append(value.clone())
    if not rows:
        raise CkfrError("The loader gave no batch; expected at least one to send through the trunk.")
    features, labels, places = (torch.cat(column) for column in zip(*rows, strict=True))
    return CachedFeatures(features, labels, places, {name: torch.cat(parts) for name, parts in more.items()})


_TRACED: dict[str, Any] = {}  # the last trunk and shape that was folded, since it takes seconds


def _folded(trunk: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
    """The same function, three times faster on a CPU: batch norm folded into convolutions, channels last.

    Values are equal to about five digits. A trunk that cannot be traced runs as it is.
    """
    if example.device.type != "cpu" or not len(list(trunk.children())):
        return trunk
    key = feature_key(trunk, shape=list(example.shape[1:]))
    try:
        if key not in _TRACED:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # tracing is on its way out; its successor starts slowly
                traced = torch.jit.freeze(torch.jit.trace(trunk, example[:1], check_trace=False))
            _TRACED.clear()
            _TRACED[key] = traced
    except (RuntimeError, torch.jit.TracingCheckError, NotImplementedError):
        return trunk
    traced, layout = _TRACED[key], torch.channels_last if example.ndim == 4 else torch.contiguous_format
    return lambda inputs: traced(inputs.contiguous(memory_format=layout))


def feature_key(trunk: nn.Module, **inputs: Any) -> str:
    """A name for cached features by their content: equal keys only for equal trunks on equal inputs.

    Of the trunk its structure and every weight count; ``inputs`` are what decides the pictures, as plain
    JSON values. The key has 16 hexadecimal digits, the same in every process.
    """
    digest = hashlib.sha256(json.dumps([inputs, repr(trunk)], sort_keys=True).encode())
    for name, value in trunk.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]

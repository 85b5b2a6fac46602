"""Run the frozen part of a network once, keep what it gives, and train the rest on that."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ckfr_helpers.datasets.loading import EpochSampler
from ckfr_helpers.runtime import CkfrError


@dataclass
class CachedFeatures:
    """Trunk outputs of one split.

    Attributes:
        features: (N, ...) float16 or float32, on the CPU.
        labels: (N,) int64.
        indices: (N,) int64, which example of the source each row is.
    """

    features: Tensor
    labels: Tensor
    indices: Tensor

    def __post_init__(self) -> None:
        if not len(self.features) == len(self.labels) == len(self.indices):
            raise CkfrError(
                f"Cached features hold {len(self.features)} rows, {len(self.labels)} labels and "
                f"{len(self.indices)} indices; expected as many of each."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def set_epoch(self, epoch: int) -> None:
        """Nothing to choose: what is cached is the same in every epoch."""

    def loader(self, batch_size: int, train: bool, seed: int = 0) -> "CachedLoader":
        """Batches of it, as `datasets.loading.make_loader` gives them for pictures."""
        return CachedLoader(self, batch_size, train, seed)


class CachedLoader:
    """Batches ``(features float32, {"label": …}, indices)``; has what `start_epoch` needs, and no workers."""

    def __init__(self, dataset: CachedFeatures, batch_size: int, train: bool, seed: int = 0) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.batch_sampler = EpochSampler(len(dataset), batch_size, seed, shuffle=train, drop_last=train)

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[tuple[Tensor, dict[str, Tensor], Tensor]]:
        for batch in self.batch_sampler:
            rows = torch.as_tensor(batch)
            data = self.dataset
            yield data.features[rows].float(), {"label": data.labels[rows]}, data.indices[rows]


@torch.no_grad()
def cache_features(
    trunk: nn.Module,
    loader: DataLoader,
    device: str = "cpu",
    dtype: torch.dtype = torch.float16,
    progress: bool = True,
) -> CachedFeatures:
    """Send every batch of a loader through a frozen trunk.

    Args:
        trunk: from `Classifier.split`; put in evaluation mode here and restored afterwards.
        loader: from `make_loader` with ``train=False``.
        device: where to compute.
        dtype: how to keep the result; float16 halves the memory and costs about three digits.
        progress: show a bar.

    Returns:
        One row an example, in the loader's order.

    Raises:
        CkfrError: if the trunk's output overflows ``dtype``.
    """
    modes = {module: module.training for module in trunk.modules()}  # frozen stages may differ from the rest
    trunk.eval().to(device)
    parts: list[Tensor] = []
    labels: list[np.ndarray] = []
    indices: list[np.ndarray] = []
    try:
        run = None
        for images, targets, index in tqdm(loader, desc="features", disable=not progress, leave=False):
            images = images.to(device, non_blocking=True)
            run = run or _folded(trunk, images)
            output = run(images).to(dtype).cpu().contiguous()
            if not torch.isfinite(output).all():
                raise CkfrError(f"A trunk output does not fit {dtype}; expected finite values, try float32.")
            parts.append(output)
            labels.append(targets["label"].numpy())
            indices.append(index.numpy())
    finally:
        for module, training in modes.items():
            module.training = training
    return CachedFeatures(
        torch.cat(parts),
        torch.as_tensor(np.concatenate(labels)),
        torch.as_tensor(np.concatenate(indices)),
    )


def _folded(trunk: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
    """The same function, faster on a CPU: batch norm folded into the convolutions, channels last in memory.

    Measured on two cores for EfficientNet-Lite0: three times the pictures a second, values equal to about
    five digits. A trunk that cannot be traced runs as it is.
    """
    if example.device.type != "cpu" or not len(list(trunk.children())):
        return trunk
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # tracing is on its way out of torch; its successor is slow to start
            traced = torch.jit.freeze(torch.jit.trace(trunk, example[:1], check_trace=False))
    except (RuntimeError, torch.jit.TracingCheckError, NotImplementedError):
        return trunk

    def run(images: Tensor) -> Tensor:
        return traced(images.contiguous(memory_format=torch.channels_last))

    return run

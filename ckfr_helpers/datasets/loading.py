"""From a source to batches, bit for bit the same whatever the number of workers, and resumable mid-epoch.

Which examples stand in batch k of epoch e depends on (seed, e) alone (`EpochSampler`), and what the random
transform does to example i on (seed, e, i) alone (`TransformedView`): neither asks which worker did the work.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from ckfr_helpers.datasets.base import PER_OBJECT, ImageSource
from ckfr_helpers.datasets.transforms import Transform, transformed
from ckfr_helpers.models.frozen import CachedFeatures
from ckfr_helpers.runtime import CkfrError, check_number, mix_seed

Batch = tuple[Any, dict[str, Any], Tensor]
"""``(inputs, targets, indices)``; of targets, ``label`` is (B,) int64."""


class TransformedView(Dataset[tuple[Any, dict[str, Any], int]]):
    """A source seen through a transform: ``view[i]`` is ``(image, target, i)``.

    Args:
        transform: called as torchvision's v2 transforms are, ``transform(image, target)``, and returns both;
            its randomness must come from torch's generator, which is the one seeded here.
        seed: with the epoch and the index it fixes every random choice.
        keys: which entries of `base.Target` to bring along. Boxes and masks move with the picture; both ends
            of a box stay inside the object.
    """

    def __init__(
        self, source: ImageSource, transform: Transform, seed: int = 0, keys: Sequence[str] = ("label",)
    ) -> None:
        check_number("seed", seed, 0, 2**63 - 1, whole=True)
        self.source, self.transform, self.seed, self.keys = source, transform, seed, tuple(keys)
        # In shared memory, because workers that persist across epochs keep the copy of the view they were
        # started with: a plain attribute set here would never reach them.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, for workers already running too; call it between epochs."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Any, dict[str, Any], int]:
        """``(image (3, S, S) float32, target, index)``; a `CkfrError` if the example lacks a key."""
        image, whole = self.source[index]
        if missing := [key for key in self.keys if key not in whole]:
            where = self.source.where(index)
            raise CkfrError(f"There is no {missing[0]} for {where}; it has {', '.join(whole)}.")
        target: dict[str, Any] = {key: whole[key] for key in self.keys}  # type: ignore[literal-required]
        # Only the CPU generator is seeded and put back. torch.manual_seed would reseed every GPU too when
        # there are no workers, and so repeat the model's own randomness with each picture.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(mix_seed(self.seed, int(self._epoch), int(index)))
            image, target = transformed(self.transform, image, target)
        return image, target, int(index)

    def __getitems__(self, indices: Sequence[int]) -> Any:
        """The examples of a batch; in a worker, one of our errors is sent home for `Loader` to raise."""
        try:
            return [self[index] for index in indices]
        except CkfrError as error:
            if get_worker_info() is None:
                raise
            return error


def collate(examples: Any) -> Any:
    """One `Batch` ``(inputs (B, …), targets, indices (B,) int64)`` of `TransformedView`'s examples.

    In targets, numbers become a (B,) tensor and tensors of one shape a (B, …) tensor; anything else is a
    list, and so is what each object has one of, since their number differs from picture to picture.
    """
    if isinstance(examples, CkfrError):
        return examples
    images, targets, indices = zip(*examples, strict=True)
    together = {}
    for key in targets[0]:
        values = [target[key] for target in targets]
        together[key] = values if key in PER_OBJECT else _together(values)
    return _together(images), together, torch.tensor(indices)


def _together(values: Sequence[Any]) -> Any:
    if all(isinstance(value, bool | int | float | np.number) for value in values):
        return torch.tensor(values)
    if all(isinstance(value, Tensor) and value.shape == values[0].shape for value in values):
        return torch.stack([value.as_subclass(Tensor) for value in values])
    return list(values)


class EpochSampler(Sampler[list[int]]):
    """Batches of indices whose order is a function of (seed, epoch), able to start at any batch.

    It is a *batch sampler* without an attribute called ``sampler``: engines that find one there set its epoch
    by their own count, which after a resume is the wrong one. With several processes, each takes its own
    slice of every global batch of ``batch_size * world_size``. In training the order is random and what is
    left over is dropped; else the last global batch is filled up from the start, as the indices tell.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        seed: int = 0,
        train: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        check_number("n", n, 1, whole=True)
        check_number("batch_size", batch_size, 1, whole=True)
        if train and n < batch_size * world_size:
            batch = f"one batch of {batch_size * world_size}, and training leaves an incomplete one out"
            raise CkfrError(f"{n} examples do not fill {batch}; expected a smaller batch size.")
        self.n, self.batch_size, self.seed, self.train = n, batch_size, seed, train
        self.rank, self.world_size = rank, world_size
        self.epoch = self.start_batch = 0

    @property
    def batches_per_epoch(self) -> int:
        together = self.batch_size * self.world_size
        return self.n // together if self.train else -(-self.n // together)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        check_number("start_batch", start_batch, 0, self.batches_per_epoch, whole=True)
        self.epoch, self.start_batch = epoch, start_batch

    def __len__(self) -> int:
        return self.batches_per_epoch - self.start_batch

    def __iter__(self) -> Iterator[list[int]]:
        order, together = np.arange(self.n), self.batch_size * self.world_size
        if self.train:
            # RandomState, old as it is, promises the same stream in every NumPy; Generator does not, and a
            # run may be resumed under another version.
            order = np.random.RandomState(mix_seed(self.seed, self.epoch) % 2**32).permutation(self.n)
        elif self.world_size > 1:
            # np.resize repeats the order as often as needed, even where it is shorter than one batch.
            order = np.resize(order, self.batches_per_epoch * together)
        for batch in range(self.start_batch, self.batches_per_epoch):
            first = batch * together + self.rank * self.batch_size
            yield order[first : first + self.batch_size].tolist()


def single_thread(worker: int = 0) -> None:
    """What a loader process does first; torch gives it its own seeds for Python, NumPy and itself."""
    torch.set_num_threads(1)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(0)  # OpenCV's word for "run in the calling thread"


class Loader(DataLoader):
    """A DataLoader that raises a worker's `CkfrError` as its one sentence, not inside fifty lines."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, CkfrError):
                raise batch
            yield batch


def make_loader(
    view: TransformedView,
    batch_size: int,
    train: bool,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader:
    """Batches ``(images (B, 3, S, S) float32, targets, indices (B,) int64)``; first call `start_epoch`.

    With Lightning Fabric pass ``use_distributed_sampler=False``: the slicing over processes is done here.

    Args:
        batch_size: examples a batch, in each of ``world_size`` processes that train together.
        train: shuffle anew each epoch and drop the incomplete last batch; otherwise keep order and all.
        workers: loader processes; 0 reads in this process. The batches are the same either way.
    """
    sampler = EpochSampler(len(view), batch_size, view.seed, train, rank, world_size)
    return Loader(
        view,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=single_thread,
        # The loader draws its workers' base seed from here; from the global generator it would shift every
        # later random number of the run by one, and a resumed run would part from the first.
        generator=torch.Generator().manual_seed(view.seed),
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


class CachedLoader:
    """Batches ``(features, {"label": …}, indices)``, in `make_loader`'s order for the same seed.

    Floating-point values come as float32; features that are a mapping of tensors come as one.
    """

    def __init__(self, dataset: CachedFeatures, batch_size: int, train: bool, seed: int = 0) -> None:
        self.dataset, self.batch_size = dataset, batch_size
        self.batch_sampler = EpochSampler(len(dataset), batch_size, seed, train)

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        data = self.dataset
        for batch in self.batch_sampler:
            rows = torch.as_tensor(batch)
            mapped = isinstance(data.features, Mapping)
            inputs = _rows(data.features, rows) if mapped else _rows({"": data.features}, rows)[""]
            yield inputs, _rows({"label": data.labels, **data.targets}, rows), data.indices[rows]


def _rows(columns: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    some = {name: values[rows] for name, values in columns.items()}
    return {name: values.float() if values.is_floating_point() else values for name, values in some.items()}


def start_epoch(loader: DataLoader | CachedLoader, epoch: int, start_batch: int = 0) -> None:
    """Tell a loader, wrapped by an engine or not, which epoch and batch (from 0) come next."""
    loader.batch_sampler.set_epoch(epoch, start_batch)  # type: ignore[union-attr]
    loader.dataset.set_epoch(epoch)  # type: ignore[union-attr]

"""Batches: the same whatever the workers, resumable anywhere, a function of (seed, epoch, index) alone."""

import random

import numpy as np
import pytest
import torch
from flat_colours import FlatColours
from hypothesis import given, settings
from hypothesis import strategies as st

from ckfr_helpers.datasets.base import Example, make_example
from ckfr_helpers.datasets.loading import (
    CachedLoader,
    EpochSampler,
    TransformedView,
    make_loader,
    start_epoch,
)
from ckfr_helpers.datasets.transforms import make_transform
from ckfr_helpers.models import CachedFeatures
from ckfr_helpers.runtime import CkfrError

SIZE = 24


def make_view(seed: int = 5, **options) -> TransformedView:
    source = FlatColours(per_class=7, size=40)  # 28 examples
    return TransformedView(source, make_transform("light", True, SIZE), seed=seed, **options)


def two_epochs(workers: int, view: TransformedView | None = None) -> list:
    """Every batch of epochs 0 and 1, then epoch 1 again from its third batch."""
    loader = make_loader(view or make_view(), batch_size=6, train=True, workers=workers)
    batches = []
    for epoch, start in ((0, 0), (1, 0), (1, 2)):
        start_epoch(loader, epoch, start)
        batches.extend(loader)
    return batches


def same(first: list, second: list) -> bool:
    return len(first) == len(second) and all(
        torch.equal(one[0], other[0])
        and torch.equal(one[1]["label"], other[1]["label"])
        and torch.equal(one[2], other[2])
        for one, other in zip(first, second, strict=True)
    )


@pytest.fixture(scope="module")
def alone() -> list:
    return two_epochs(workers=0)


def test_a_batch_is_images_targets_indices(alone):
    images, targets, indices = alone[0]
    assert list(targets) == ["label"]
    labels = targets["label"]
    assert (images.shape, images.dtype) == ((6, 3, SIZE, SIZE), torch.float32)
    assert labels.dtype == indices.dtype == torch.int64
    assert torch.equal(labels, indices % 4)
    evaluation = make_loader(make_view(), batch_size=6, train=False)
    assert torch.cat([batch[2] for batch in evaluation]).tolist() == list(range(28))


def test_workers_change_nothing_bit_for_bit(alone):
    """Persistent workers learn of the new epoch too: the batches of epoch 1 would differ otherwise."""
    assert same(alone, two_epochs(2))


def test_an_epoch_is_a_function_of_seed_and_number_and_resumes_anywhere(alone):
    per_epoch = 28 // 6
    order = [torch.cat([batch[2] for batch in alone[start : start + per_epoch]]) for start in (0, per_epoch)]
    assert not torch.equal(*order)
    assert same(alone[per_epoch + 2 : 2 * per_epoch], alone[2 * per_epoch :])
    assert not same(alone, two_epochs(0, view=make_view(seed=6)))


def test_augmentation_is_a_function_of_seed_epoch_and_index():
    view = make_view()
    forwards = [view[index][0] for index in range(28)]
    torch.manual_seed(99)
    assert all(torch.equal(view[index][0], forwards[index]) for index in reversed(range(28)))
    view.set_epoch(1)
    assert not torch.equal(view[3][0], forwards[3])

    class Same(FlatColours):
        def __getitem__(self, index: int) -> Example:
            return super().__getitem__(0)

    view = TransformedView(Same(), make_transform("light", True, SIZE))
    assert len({view[index][0].numpy().tobytes() for index in range(32)}) > 28


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_leaves_the_global_generators_where_they_were(workers):
    draws = []
    for work in (lambda: None, lambda: two_epochs(workers)):
        torch.manual_seed(1)
        np.random.seed(1)  # noqa: NPY002
        random.seed(1)
        work()
        draws.append((torch.rand(1).item(), np.random.rand(), random.random()))  # noqa: NPY002
    assert draws[0] == draws[1]


def test_the_generator_is_put_back_when_a_transform_fails():
    def broken(image: torch.Tensor, target: dict) -> None:
        torch.rand(1)
        raise RuntimeError("no")

    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="no"):
        TransformedView(FlatColours(), broken)[0]
    assert torch.equal(torch.get_rng_state(), before)


class Environment(FlatColours):
    """Reports what its process has been given: threads, and draws from Python's and NumPy's generators."""

    def __getitem__(self, index: int) -> Example:
        draws = [torch.get_num_threads(), random.randrange(256), np.random.randint(256)]  # noqa: NPY002
        return make_example(torch.tensor(draws, dtype=torch.uint8).view(3, 1, 1), 0)


def test_each_worker_has_one_thread_and_its_own_generators():
    view = TransformedView(Environment(), lambda image, target: (image.float(), target))
    loader = make_loader(view, 1, train=False, workers=2)
    images = torch.cat([batch[0] for batch in loader]).view(-1, 3)
    assert (images[:, 0] == 1).all()
    # Batches alternate between the workers; forked twins that share generators would pair up.
    for column in (1, 2):
        assert not torch.equal(images[0::2, column], images[1::2, column])


class Damaged(FlatColours):
    def where(self, index: int) -> str:
        return f"pictures/{index}.jpg"

    def __getitem__(self, index: int) -> Example:
        if index == 9:
            raise CkfrError(f"The picture {self.where(index)} cannot be decoded.")
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_picture_is_one_sentence_whoever_reads_it(workers):
    view = TransformedView(Damaged(), make_transform("light", False, SIZE), keys=("label", "boxes"))
    with pytest.raises(CkfrError, match=r"no boxes for pictures/3\.jpg; it has label"):
        view[3]
    view = TransformedView(Damaged(), make_transform("light", False, SIZE))
    with pytest.raises(CkfrError, match=r"^The picture pictures/9\.jpg cannot be decoded\.$"):
        list(make_loader(view, 4, train=False, workers=workers))


def test_batches_bring_what_is_asked_for_in_one_form():
    class Rich(FlatColours):
        def __getitem__(self, index: int) -> Example:
            image, target = super().__getitem__(index)
            labels, place = torch.eye(4)[index % 4], {"month": index}
            return image, {**target, "labels": labels, "text": f"number {index}", "metadata": place}

    keys = ("label", "labels", "boxes", "masks", "text", "metadata")
    view = TransformedView(
        Rich(boxes=True, masks=True), make_transform("light", True, SIZE), seed=1, keys=keys
    )
    for workers in (0, 1):
        (inputs, targets, indices), *_ = make_loader(view, 5, train=True, workers=workers)
        assert tuple(targets) == keys
        assert inputs.shape == (5, 3, SIZE, SIZE)
        assert targets["labels"].argmax(1).tolist() == targets["label"].tolist() == (indices % 4).tolist()
        assert targets["text"] == [f"number {i}" for i in indices]
        assert [place["month"] for place in targets["metadata"]] == indices.tolist()
        for boxes, masks in zip(targets["boxes"], targets["masks"], strict=True):
            assert (boxes.shape, masks.shape, boxes.canvas_size) == ((1, 4), (1, SIZE, SIZE), (SIZE, SIZE))


# -- The sampler -------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 60),
    batch=st.integers(1, 9),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 50),
    world=st.integers(1, 4),
    drop=st.booleans(),
    data=st.data(),
)
def test_sampler_invariants(n, batch, seed, epoch, world, drop, data):
    if drop and n < batch * world:
        with pytest.raises(CkfrError, match="do not fill one batch"):
            EpochSampler(n, batch, seed, train=drop, world_size=world)
        return
    ranks = [EpochSampler(n, batch, seed, train=drop, rank=rank, world_size=world) for rank in range(world)]
    for sampler in ranks:
        sampler.set_epoch(epoch)
    slices = [list(sampler) for sampler in ranks]
    # Every process does as many batches, or a collective operation would wait for ever.
    assert len({len(part) for part in slices}) == 1
    assert all(len(part) == len(sampler) for part, sampler in zip(slices, ranks, strict=True))
    seen = [index for part in slices for indices in part for index in indices]
    if drop:
        assert len(seen) == len(set(seen)) == n // (batch * world) * batch * world
    else:
        assert set(seen) == set(range(n))
        assert len(seen) == n if world == 1 else len(seen) % (batch * world) == 0
    # Any number of processes walks one common order.
    together = EpochSampler(n, batch * world, seed, train=drop)
    together.set_epoch(epoch)
    for number, indices in enumerate(together):
        assert [index for part in slices for index in part[number]][: len(indices)] == indices
    # Starting at batch k is the tail of the whole epoch.
    start = data.draw(st.integers(0, len(slices[0])))
    ranks[0].set_epoch(epoch, start)
    assert list(ranks[0]) == slices[0][start:]
    assert len(ranks[0]) == len(slices[0]) - start
    # And the next epoch begins at its beginning.
    ranks[0].set_epoch(epoch + 1)
    assert len(ranks[0]) == ranks[0].batches_per_epoch


def test_engines_that_set_epochs_by_themselves_leave_ours_alone():
    """Lightning Fabric calls ``set_epoch`` on what a batch sampler names ``sampler``, with its own count."""
    from lightning_fabric import Fabric

    loader = make_loader(make_view(), batch_size=6, train=True)
    fabric = Fabric(accelerator="cpu", devices=1)
    wrapped = fabric.setup_dataloaders(loader, use_distributed_sampler=False)
    start_epoch(wrapped, 7, 1)
    indices = torch.cat([batch[2] for batch in wrapped])
    start_epoch(loader, 7, 1)
    assert torch.equal(indices, torch.cat([batch[2] for batch in loader]))
    assert len(indices) == 18


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: EpochSampler(0, 4), "n is 0"),
        (lambda: EpochSampler(8, 0), "batch_size is 0"),
        (lambda: EpochSampler(8, 4).set_epoch(0, 3), "start_batch is 3; .* at most 2"),
        (lambda: make_view(seed=-1), "seed is -1"),
        (lambda: make_loader(make_view(), 64, True), "28 examples .* one batch of 64, .* smaller batch size"),
    ],
)
def test_mistakes_get_one_sentence(call, message):
    with pytest.raises(CkfrError, match=message):
        call()


def test_cached_features_come_in_the_batches_that_their_pictures_would():
    rows = torch.arange(10)
    loader = CachedLoader(CachedFeatures(rows[:, None].half() / 4, rows % 3, 100 + rows), 4, True, seed=5)
    for epoch in (0, 3):
        start_epoch(loader, epoch, 1)
        sampler = EpochSampler(10, 4, seed=5)
        sampler.set_epoch(epoch, 1)
        batches = list(loader)
        assert len(batches) == len(loader) == 1
        assert [(indices - 100).tolist() for *_, indices in batches] == list(sampler)
        for features, targets, indices in batches:
            assert features.dtype == torch.float32
            assert torch.equal(features[:, 0] * 4, indices - 100.0)
            assert torch.equal(targets["label"], (indices - 100) % 3)


def test_cached_features_may_be_a_mapping_with_targets_beside_the_label():
    rows = torch.arange(6)
    cached = CachedFeatures({"maps": rows[:, None].half(), "counts": 7 + rows}, rows % 2, rows)
    cached = cached.with_targets(labels=rows[:, None] > 2, teacher=rows.double() / 6)
    (inputs, targets, indices), _ = CachedLoader(cached, 4, False)
    assert indices.tolist() == [0, 1, 2, 3]
    assert inputs["maps"].dtype == targets["teacher"].dtype == torch.float32
    assert torch.equal(inputs["counts"], 7 + indices)
    assert targets["labels"].flatten().tolist() == [False, False, False, True]
    torch.testing.assert_close(targets["teacher"], indices / 6)
    assert torch.equal(targets["label"], indices % 2)
    turned = CachedFeatures(rows[:, None], rows, 10 - rows).with_targets(teacher=torch.arange(5, 11))
    assert torch.equal(turned.targets["teacher"], turned.indices)
    with pytest.raises(CkfrError, match="teacher has 5 rows for 6 examples"):
        cached.with_targets(teacher=torch.zeros(5))

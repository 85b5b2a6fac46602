"""The aligned triplet loss against brute force over all triplets, autograd, and the formula by hand."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ckfr_helpers.losses import (
    AlignedTripletLoss,
    aligned_triplet_loss,
    draw_triplets,
    latent_distances,
    sampled_triplet_loss,
    standardise,
)
from ckfr_helpers.runtime import CkfrError


def all_triplets(size: int) -> torch.Tensor:
    return torch.tensor(list(itertools.permutations(range(size), 3)))


def brute_force(latent: torch.Tensor, knowledge: torch.Tensor) -> torch.Tensor:
    """The definition, one triplet at a time, as a person would write it down."""
    terms = [
        (latent[a, p] * knowledge[a, n] - latent[a, n] * knowledge[a, p]).abs()
        for a, p, n in itertools.permutations(range(len(latent)), 3)
    ]
    return torch.stack(terms).mean()


def batch(size: int, features: int = 5, classes: int = 4, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(size, features, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (size,), generator=generator)
    steps = torch.rand(classes, classes, generator=generator, dtype=torch.float64)
    distances = (steps + steps.T).fill_diagonal_(0)
    return latents, labels, distances


@pytest.mark.parametrize("ell", [0.7, 1.0, 1.2, 3.0])
def test_latent_distances_follow_the_definition(ell):
    latents, _, _ = batch(7)
    scaled = (latents - latents.mean()) / latents.std()
    torch.testing.assert_close(standardise(latents), scaled)
    expected = (scaled[:, None] - scaled[None]).abs().pow(ell).mean(-1)
    torch.testing.assert_close(latent_distances(latents, ell), expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(3, 8),
    seed=st.integers(0, 10_000),
    levels=st.integers(1, 3),
    zeros=st.booleans(),
)
def test_equals_brute_force_with_ties_and_zeros(size, seed, levels, zeros):
    """Small integers make many equal ratios, the case in which sorting by angle could go wrong."""
    generator = torch.Generator().manual_seed(seed)
    low = -1 if zeros else 1
    latent = torch.randint(low, levels + 1, (size, size), generator=generator).double()
    knowledge = torch.randint(low, levels + 1, (size, size), generator=generator).double()
    exact = [m.clone().requires_grad_() for m in (latent, knowledge)]
    reference = [m.clone().requires_grad_() for m in (latent, knowledge)]
    value, expected = aligned_triplet_loss(*exact), brute_force(*reference)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
    value.backward()
    expected.backward()
    for ours, theirs in zip(exact, reference, strict=True):
        off_diagonal = ~torch.eye(size, dtype=torch.bool)
        torch.testing.assert_close(ours.grad[off_diagonal], theirs.grad[off_diagonal], rtol=1e-9, atol=1e-12)


def test_gradcheck_through_latents_and_both_matrices():
    latents, labels, distances = batch(7)
    knowledge = distances[labels][:, labels] + 0.05  # away from the kinks that equal classes make
    latents.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: aligned_triplet_loss(latent_distances(z, 1.2), knowledge), (latents,)
    )
    latent = latent_distances(latents.detach()).requires_grad_()
    assert torch.autograd.gradcheck(aligned_triplet_loss, (latent, knowledge.requires_grad_()))


def test_sampled_form_over_all_triplets_is_the_exact_form():
    latents, labels, distances = batch(9)
    latent, knowledge = latent_distances(latents), distances[labels][:, labels]
    torch.testing.assert_close(
        sampled_triplet_loss(latent, knowledge, all_triplets(9)), aligned_triplet_loss(latent, knowledge)
    )


@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100), shift=st.floats(-50, 50))
@settings(max_examples=15, deadline=None)
def test_invariant_to_order_scale_and_shift(seed, scale, shift):
    latents, labels, distances = batch(10, seed=seed)
    module = AlignedTripletLoss(20, 1.2, distances).double()
    expected = module(latents, labels)
    slow = 20 * brute_force(latent_distances(latents), module.distances[labels][:, labels])
    torch.testing.assert_close(expected, slow, rtol=1e-9, atol=1e-12)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(module(latents[order], labels[order]), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(module(latents * scale + shift, labels), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("ell", [0.5, 1.2])
@pytest.mark.parametrize("kind", ["duplicates", "constant", "two", "one class", "tiny", "huge"])
def test_value_and_gradient_stay_finite(kind, ell):
    distances = torch.tensor([[0, 2, 4], [2, 0, 4], [4, 4, 0]]).float()
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    latents = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    if kind == "duplicates":
        latents = latents[[0, 0, 0, 1, 1, 2]]
    elif kind == "constant":
        latents = torch.full((6, 4), 0.1)
    elif kind == "two":
        latents, labels = latents[:2], labels[:2]
    elif kind == "one class":
        labels = torch.zeros(6, dtype=torch.long)
    elif kind == "tiny":
        latents = latents * 1e-25
    elif kind == "huge":
        latents = latents * 1e15
    latents = latents.clone().requires_grad_()
    loss = AlignedTripletLoss(20, ell, distances)(latents, labels)
    assert torch.isfinite(loss)
    if kind in ("constant", "two"):
        assert loss.item() == 0
    loss.backward()
    assert torch.isfinite(latents.grad).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_under_autocast(dtype):
    latents, labels, distances = batch(16, features=32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = latents.to(dtype).requires_grad_()
        loss = AlignedTripletLoss(20, 1.2, distances)(half, labels)
    expected = AlignedTripletLoss(20, 1.2, distances)(latents.to(dtype).float(), labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    loss.backward()
    assert half.grad.dtype == dtype
    assert torch.isfinite(half.grad).all()
    assert half.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: AlignedTripletLoss(-1, 1.2, torch.zeros(2, 2)), "alpha is -1"),
        (lambda: AlignedTripletLoss(1, 0, torch.zeros(2, 2)), "ell is 0"),
        (lambda: AlignedTripletLoss(1, 1.2, torch.zeros(2, 3)), r"shape \(2, 3\)"),
        (lambda: AlignedTripletLoss(1, 1.2, [[0, 1], [2, 0]]), "1 and 2 back; expected the same in both"),
        (
            lambda: AlignedTripletLoss(1, 1.2, torch.zeros(2, 2))(torch.zeros(3, 2), torch.zeros(2).long()),
            "one label",
        ),
        (
            lambda: AlignedTripletLoss(1, 1.2, torch.zeros(2, 2))(torch.zeros(3, 2), torch.tensor([0, 1, 2])),
            "expected 0 to 1",
        ),
        (lambda: latent_distances(torch.tensor([[0.0], [math.nan], [1.0]])), "1 of 3 latents are NaN"),
        (lambda: latent_distances(torch.zeros(3)), r"\(batch, features\)"),
        (lambda: aligned_triplet_loss(torch.zeros(3, 3), torch.zeros(4, 4)), "equal squares"),
        (
            lambda: sampled_triplet_loss(torch.zeros(3, 3), torch.zeros(3, 3), torch.tensor([[0, 1, 3]])),
            "from 0 to 2",
        ),
        (lambda: draw_triplets(2), "at least 3"),
    ],
)
def test_wrong_input_gets_one_sentence(call, sentence):
    with pytest.raises(CkfrError, match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_no_intermediate_is_larger_than_the_batch_squared():
    """Counted, not timed: every tensor that an operation makes, forward and backward."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            made = function(*args, **(kwargs or {}))
            for one in made if isinstance(made, tuple | list) else [made]:
                if isinstance(one, torch.Tensor):
                    self.numbers = max(self.numbers, one.numel())
            return made

    latents, labels, distances = batch(80, features=6)
    latents.requires_grad_()
    module = AlignedTripletLoss(1, 1.2, distances)
    with Largest() as seen:
        module(latents, labels).backward()
    assert 80 * 79 / 2 < seen.numbers <= 80 * 81  # broadcasting makes 80 ** 3

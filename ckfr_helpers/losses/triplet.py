"""The aligned triplet loss: distances between latents follow distances between classes.

For a triplet of samples (a, p, n) write d for a distance between latents and δ for a distance between
classes. The loss asks that the two ratios agree, d_ap / d_an = δ_ap / δ_an, without dividing:

    L = alpha · mean over ordered triplets (a, p, n) of | d_ap · δ_an − d_an · δ_ap |

Source: Zhao et al., "Categorical Knowledge Fused Recognition", ICVISP 2024, as read from its authors' demo
code; the exact sum over all triplets of a batch in O(B² log B) is this project's.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ckfr_helpers.hierarchy.checks import check_distances
from ckfr_helpers.runtime import CkfrError, check_number

# How many matrix entries the exact loss works on at a time: bounds its extra memory to a few dozen MB.
_CHUNK_ENTRIES = 2**20


def standardise(latents: Tensor) -> Tensor:
    """Shift and scale a batch by its one scalar mean and standard deviation (not one per feature).

    This is the demo's normalisation: it fixes the overall scale, so that the network cannot please the
    loss by growing or shrinking all latents together, and leaves directions alone: (B, D) -> (B, D). A
    constant batch has no scale; it is centred and left at zero.
    """
    centred = latents - latents.mean()
    # Unbiased like torch.std, but written out: the root's gradient at 0 is infinite, so a constant batch
    # must never reach it.
    variance = centred.square().sum() / max(centred.numel() - 1, 1)
    flat = variance <= torch.finfo(variance.dtype).tiny
    scale = torch.where(flat, torch.ones_like(variance), variance).sqrt()
    return centred / scale


def latent_distances(latents: Tensor, ell: float = 1.2, *, standardised: bool = False) -> Tensor:
    """Distances between all pairs of latents: d_ab = mean over k of |z_ak − z_bk| ** ell.

    As in the demo there is no ell-th root, and its ell is 1.2. Half precision is computed in float32.

    Args:
        latents: (B, D).
        ell: exponent, positive.
        standardised: the latents are already standardised; by default `standardise` is applied first.

    Returns:
        (B, B), symmetric, non-negative, zero on the diagonal.

    Raises:
        CkfrError: if the shape is not (B, D), ``ell`` is not positive, or a latent is NaN or infinite.
    """
    if latents.ndim != 2:
        raise CkfrError(f"Latents have shape {tuple(latents.shape)}; expected (batch, features).")
    check_number("ell", ell, 0, above=True)
    if latents.device.type == "mps":  # has no pdist; autograd follows there and back
        return latent_distances(latents.cpu(), ell, standardised=standardised).to("mps")
    with torch.autocast(latents.device.type, enabled=False):
        latents = latents if latents.dtype == torch.float64 else latents.float()
        if not torch.isfinite(latents).all():
            bad = int((~torch.isfinite(latents)).any(dim=1).sum())
            raise CkfrError(
                f"{bad} of {latents.shape[0]} latents are NaN or infinite; expected finite numbers "
                "(a learning rate that is too high is the usual cause)."
            )
        if not standardised:
            latents = standardise(latents)
        size, features = latents.shape
        if size < 2 or features == 0:
            return latents.sum() * 0 + latents.new_zeros(size, size)
        # pdist visits each pair once and holds O(B²), never the (B, B, D) differences.
        norms = torch.pdist(latents, p=ell)  # (B(B−1)/2,)
        # Coinciding latents: for ell < 1 the power's slope at 0 is infinite and would turn pdist's 0
        # gradient into NaN, so those pairs are kept out of the power.
        apart = norms > 0
        pairs = torch.where(apart, torch.where(apart, norms, 1.0).pow(ell), 0.0) / features
        rows, columns = torch.triu_indices(size, size, offset=1, device=latents.device)
        upper = latents.new_zeros(size, size).index_put((rows, columns), pairs)  # (B, B)
        return upper + upper.T


class _AllTriplets(torch.autograd.Function):
    """Sum over ordered triplets of |d_ap δ_an − d_an δ_ap|, with its gradient, anchor by anchor.

    For one anchor, each other sample j is a vector v_j = (δ_aj, d_aj) with d_aj ≥ 0, and the summand is
    the size of the cross product v_p × v_n. Sorted by angle, every cross product with a later vector is
    non-negative, so the absolute value disappears and running sums of δ and d give the total. Parallel
    vectors have cross product 0; they get gradient 0 from each other, as |x| does at 0.
    """

    @staticmethod
    def forward(ctx: Any, latent: Tensor, knowledge: Tensor) -> Tensor:
        size = latent.shape[0]
        wants_latent, wants_knowledge = ctx.needs_input_grad
        # Running sums over thousands of terms lose digits in float32; MPS has nothing wider.
        wide = torch.float32 if latent.device.type == "mps" else torch.float64
        total = torch.zeros((), dtype=wide, device=latent.device)
        latent_grad = torch.empty_like(latent) if wants_latent else None
        knowledge_grad = torch.empty_like(knowledge) if wants_knowledge else None
        step = max(1, _CHUNK_ENTRIES // size)
        for start in range(0, size, step):
            rows = slice(start, min(start + step, size))
            d, delta = latent[rows].to(wide), knowledge[rows].to(wide)  # (rows, B)
            length = d + delta.abs()
            nothing = length == 0  # the zero vector has no angle, no effect and no slope
            # −δ/(d+|δ|) grows with the angle from 0 to π and needs no trigonometry.
            angle = delta.neg().div_(length.masked_fill(nothing, 1))
            # On a CPU NumPy's vectorised sort is about four times as fast as torch's.
            on_cpu = angle.device.type == "cpu"
            order = torch.from_numpy(np.argsort(angle.numpy(), axis=1)) if on_cpu else angle.argsort(dim=1)
            begin, end = _ties(angle.gather(1, order))
            d, delta = d.gather(1, order), delta.gather(1, order)
            d_before, d_after = _sums_around(d, begin, end)
            delta_before, delta_after = _sums_around(delta, begin, end)
            # Each unordered pair {p, n} once here; the factor 2 for (p, n) and (n, p) comes at the end.
            total += torch.sum(d * delta_before - delta * d_before)
            for gradient, slope in (
                (latent_grad, delta_before - delta_after),
                (knowledge_grad, d_after - d_before),
            ):
                if gradient is not None:
                    gradient[rows].scatter_(1, order, slope.to(gradient.dtype)).masked_fill_(nothing, 0)
        ctx.save_for_backward(latent_grad, knowledge_grad)
        return (2 * total).to(latent.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return tuple(None if g is None else 2 * gradient * g for g in ctx.saved_tensors)


def _ties(angle: Tensor) -> tuple[Tensor, Tensor]:
    """For each entry of a sorted row, where its run of equal entries begins and ends (exclusive)."""
    size = angle.shape[1]
    place = torch.arange(size, device=angle.device)
    opens = angle[:, 1:] != angle[:, :-1]  # (rows, B − 1): a new run starts at the next place
    begin = torch.nn.functional.pad(torch.where(opens, place[1:], 0), (1, 0)).cummax(1).values
    end = torch.nn.functional.pad(torch.where(opens, place[1:], size), (0, 1), value=size)
    return begin, end.flip(1).cummin(1).values.flip(1)


def _sums_around(values: Tensor, begin: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """For each entry of sorted rows: the sum of ``values`` before its run of ties, and after it."""
    running = torch.nn.functional.pad(values.cumsum(1), (1, 0))  # (rows, B + 1)
    return running.gather(1, begin), running[:, -1:] - running.gather(1, end)


def aligned_triplet_loss(latent: Tensor, knowledge: Tensor) -> Tensor:
    """Mean of |d_ap δ_an − d_an δ_ap| over all B(B−1)(B−2) ordered triplets of distinct samples, exactly.

    It takes O(B² log B) time and O(B²) memory.

    Args:
        latent: (B, B) latent distances d; the diagonal is ignored.
        knowledge: (B, B) knowledge distances δ between the samples' classes; likewise.

    Returns:
        Scalar; 0 when B < 3. Differentiable in both arguments; where the absolute value has a kink (equal
        ratios), the gradient is 0 as for `torch.abs`.

    Raises:
        CkfrError: if the shapes are not two equal squares, or a distance is NaN or infinite.

    Example:
        >>> tree = torch.tensor([[0.0, 2, 3], [2, 0, 3], [3, 3, 0]])
        >>> aligned_triplet_loss(5 * tree, tree)  # in proportion, so nothing is to be gained
        tensor(0.)
    """
    _check_square(latent, knowledge)
    with torch.autocast(latent.device.type, enabled=False):
        dtype = torch.float64 if torch.float64 in (latent.dtype, knowledge.dtype) else torch.float32
        size = latent.shape[0]
        if size < 3:
            return (latent.sum() + knowledge.sum()).to(dtype) * 0
        diagonal = torch.eye(size, dtype=torch.bool, device=latent.device)
        latent = latent.to(dtype).masked_fill(diagonal, 0)
        knowledge = knowledge.to(dtype).masked_fill(diagonal, 0)
        if latent.min() < 0 or knowledge.min() < 0:
            # Only rounding or a numerical gradient check gets here. Turning a vector (δ, d) round leaves
            # the size of its cross products alone and brings it into the half-plane that sorting needs.
            below = (latent < 0) | ((latent == 0) & (knowledge < 0))
            turn = torch.where(below, -1.0, 1.0).to(dtype)
            latent, knowledge = latent * turn, knowledge * turn
        return _AllTriplets.apply(latent, knowledge) / (size * (size - 1) * (size - 2))


def triplet_terms(d_ap: Tensor, d_an: Tensor, delta_ap: Tensor, delta_an: Tensor) -> Tensor:
    """|d_ap δ_an − d_an δ_ap| element by element: zero exactly where the two ratios agree."""
    return (d_ap * delta_an - d_an * delta_ap).abs()


def sampled_triplet_loss(latent: Tensor, knowledge: Tensor, triplets: Tensor) -> Tensor:
    """The same mean over chosen triplets only, e.g. the demo's one random triplet per anchor.

    (B, B) latent and knowledge distances and (T, 3) sample indices (anchor, p, n) -> scalar; 0 when T = 0.

    Raises:
        CkfrError: for other shapes, or an index outside the batch.
    """
    _check_square(latent, knowledge)
    if triplets.ndim != 2 or triplets.shape[1] != 3 or triplets.is_floating_point():
        found = f"shape {tuple(triplets.shape)} and type {triplets.dtype}"
        raise CkfrError(f"Triplets have {found}; expected (T, 3) integers.")
    if triplets.numel() == 0:
        return latent.sum() * 0
    if triplets.min() < 0 or triplets.max() >= latent.shape[0]:
        named = f"{int(triplets.min())} to {int(triplets.max())}"
        raise CkfrError(f"Triplets name samples {named}; expected indices from 0 to {latent.shape[0] - 1}.")
    a, p, n = triplets.unbind(1)
    return triplet_terms(latent[a, p], latent[a, n], knowledge[a, p], knowledge[a, n]).mean()


def check_alpha_and_ell(alpha: float, ell: float) -> None:
    """Refuse a negative or infinite weight, and an exponent that is not positive and finite."""
    check_number("alpha", alpha, 0)
    check_number("ell", ell, 0, above=True)


class AlignedTripletLoss(nn.Module):
    """alpha times the aligned triplet loss of a batch; add it to the cross-entropy.

    Args:
        alpha: weight, zero or more; 0 switches the term off (the baseline) at no cost.
        ell: exponent of the latent distance, positive.
        distances: (C, C) knowledge distances between classes, from `Hierarchy.distances` or any source.

    Raises:
        CkfrError: for a negative alpha, a non-positive ell, or distances that `check_distances` refuses.
    """

    def __init__(self, alpha: float, ell: float, distances: ArrayLike | Tensor) -> None:
        super().__init__()
        check_alpha_and_ell(alpha, ell)
        if isinstance(distances, Tensor):
            distances = distances.detach().cpu().numpy()
        matrix = torch.tensor(check_distances(distances), dtype=torch.float32)
        self.alpha = float(alpha)
        self.ell = float(ell)
        self.register_buffer("distances", matrix, persistent=False)
        self.distances: Tensor

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """(B, D) embeddings, (B,) integer labels -> scalar, already multiplied by alpha.

        Raises:
            CkfrError: for mismatching shapes, labels outside 0 … C−1, or latents that are not finite.
        """
        if labels.shape != latents.shape[:1]:
            raise CkfrError(
                f"Labels have shape {tuple(labels.shape)} beside latents {tuple(latents.shape)}; "
                "expected one label per latent."
            )
        if self.alpha == 0:
            return latents.new_zeros((), dtype=torch.float32)
        classes = len(self.distances)
        if labels.numel() and not (labels.min() >= 0 and labels.max() < classes):
            raise CkfrError(
                f"Labels run from {int(labels.min())} to {int(labels.max())}; expected 0 to {classes - 1}."
            )
        latent = latent_distances(latents, self.ell)  # (B, B)
        knowledge = self.distances[labels][:, labels].to(latent.dtype)  # (B, B)
        return self.alpha * aligned_triplet_loss(latent, knowledge)


def _check_square(latent: Tensor, knowledge: Tensor) -> None:
    if latent.ndim != 2 or latent.shape[0] != latent.shape[1] or latent.shape != knowledge.shape:
        shapes = f"{tuple(latent.shape)} and {tuple(knowledge.shape)}"
        raise CkfrError(f"Distances have shapes {shapes}; expected two equal squares.")
    for name, matrix in (("latent", latent), ("knowledge", knowledge)):
        # The sum is one pass; only if it is not finite is a closer look needed (it may merely overflow).
        if not torch.isfinite(matrix.sum()) and not torch.isfinite(matrix).all():
            raise CkfrError(f"A {name} distance is NaN or infinite; expected finite numbers.")

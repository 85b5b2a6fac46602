"""The metric term as the authors' released demo computes it, kept to measure ours against.

The demo encodes three batches and compares them position by position, one triplet an anchor; and it reads the
third label with the second image's index.
"""

import torch
from torch import Tensor

from ckfr_helpers.losses.triplet import standardise, triplet_terms
from ckfr_helpers.runtime import CkfrError


def draw_triplets(size: int, generator: torch.Generator | None = None) -> Tensor:
    """One triplet of distinct samples per anchor, drawn uniformly: (B, 3) integers, B ≥ 3."""
    if size < 3:
        raise CkfrError(f"A batch of {size} has no triplet of distinct samples; expected at least 3.")
    # Rank the others at random for each anchor and keep the first two.
    keys = torch.rand(size, size, generator=generator).fill_diagonal_(2.0)
    others = keys.argsort(1)[:, :2]  # (B, 2)
    return torch.cat([torch.arange(size)[:, None], others], dim=1)


def three_view_loss(
    views: tuple[Tensor, Tensor, Tensor], delta_12: Tensor, delta_13: Tensor, ell: float
) -> Tensor:
    """The original demo's metric term: three encoded batches, one triplet per position.

    Each view, (B, D), is standardised on its own, and d compares position i of one view with position i of
    another. ``delta_12`` and ``delta_13``, (B,), are the knowledge distances of the second and third images
    to the anchors. Returns a scalar, without alpha.
    """
    first, second, third = (standardise(view) for view in views)
    d_12 = (first - second).abs().pow(ell).mean(1)  # (B,)
    d_13 = (first - third).abs().pow(ell).mean(1)
    return triplet_terms(d_12, d_13, delta_12, delta_13).mean()


def released_line_loss(latent: Tensor, knowledge: Tensor, triplets: Tensor | None = None) -> Tensor:
    """The metric term as the released demo computes it: both knowledge distances are δ_ap.

    The demo reads the third sample's label with the second sample's index. The term is then
    δ_ap · |d_ap − d_an|, whatever class n has. Whether the paper's own runs had this line is unknown.

    (B, B) latent and knowledge distances -> scalar, without alpha. ``triplets``, (T, 3), are samples (anchor,
    p, n); None takes every ordered triplet of distinct samples, in O(B³) memory.
    """
    if triplets is not None:
        a, p, n = triplets.unbind(1)
        return triplet_terms(latent[a, p], latent[a, n], knowledge[a, p], knowledge[a, p]).mean()
    size = len(latent)
    gaps = (latent[:, :, None] - latent[:, None, :]).abs()  # (B, B, B): anchor, p, n
    other = 1 - torch.eye(size, dtype=latent.dtype, device=latent.device)
    distinct = other[:, :, None] * other[:, None, :] * other
    return (knowledge[:, :, None] * gaps * distinct).sum() / distinct.sum()

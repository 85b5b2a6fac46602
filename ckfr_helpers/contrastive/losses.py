"""Losses that draw together what different encoders say of the same example.

Every loss here takes two (B, D) embeddings, say of pictures and of texts; row i of both belongs to example i.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ckfr_helpers.runtime import CkfrError, check_number

PAIRS = (("text", "image"), ("metadata", "image"), ("text", "metadata"))
"""The three pairs in the order of the released code; its `soft_target_loss` does not forgive another."""


def soft_target_loss(first: Tensor, second: Tensor, temperature: float = 1.0) -> Tensor:
    """The loss of the released code, to the letter.

    With z = E1 E2' / temperature and t = softmax_rows((E1 E1' + E2 E2') / 2 · temperature) it is the mean
    over the batch of (CE(z, t) + CE(z', t')) / 2. Its slip: the rows of t are distributions, those of t' are
    not. So an example that many others resemble counts more in the second half, and the two embeddings cannot
    change places. Nothing is normalised, and t hands back gradients. See `mended_soft_target_loss`.

    Args:
        first, second: (B, D).
        temperature: above 0. It divides z and multiplies the similarities in t; the source has 1.

    Returns:
        A scalar.

    Raises:
        CkfrError: shapes that differ, or a temperature that is not above 0.

    Source:
        the published notebook of Mamtani and Thesia (arXiv 2504.20322).
    """
    _check(first, second, temperature)
    targets = ((first @ first.T + second @ second.T) / 2 * temperature).softmax(1)
    logits = first @ second.T / temperature
    return (_cross_entropy(logits, targets) + _cross_entropy(logits.T, targets.T)) / 2


def mended_soft_target_loss(
    first: Tensor, second: Tensor, temperature: float = 1.0, normalise: bool = True, detach: bool = True
) -> Tensor:
    """As `soft_target_loss`, with a distribution as target in both directions.

    The similarities in t are symmetric, so softmax over columns gives the transpose of softmax over rows: in
    both directions row i shall be like t_i. Now the embeddings can change places. With
    ``normalise=False, detach=False`` and temperature 1 the column slip is the only difference.

    Args:
        first, second: (B, D).
        temperature: above 0; divides z and the similarities in t alike.
        normalise: set every row's length to 1 first; else long rows alone make softmax sharp.
        detach: the targets are constants; else the loss can also fall by making them easy.
    """
    _check(first, second, temperature)
    if normalise:
        first, second = F.normalize(first, dim=1), F.normalize(second, dim=1)
    targets = ((first @ first.T + second @ second.T) / 2 / temperature).softmax(1)
    if detach:
        targets = targets.detach()
    logits = first @ second.T / temperature
    return (_cross_entropy(logits, targets) + _cross_entropy(logits.T, targets)) / 2


def supervised_contrastive_loss(
    first: Tensor, second: Tensor, labels: Tensor, temperature: float = 0.1
) -> Tensor:
    """Supervised contrastive loss across two encoders: an example's partners are all of its class.

    Rows are normalised to length 1. For an anchor i of one side, P(i) are the examples of its class on the
    other, its own included, and its loss is

        -1/|P(i)| sum_{p in P(i)} log( exp(a_i·b_p / temperature) / sum_j exp(a_i·b_j / temperature) )

    What comes back is the mean over the anchors of each direction, and the mean of both directions. If no
    class occurs twice this is CLIP's loss.

    Args:
        first, second: (B, D).
        labels: (B,) integers; class of each example.
        temperature: above 0.

    Returns:
        A scalar.

    Raises:
        CkfrError: shapes that differ, or a temperature that is not above 0.

    Source:
        Khosla et al., *Supervised contrastive learning*, NeurIPS 2020, equation 2, between two encoders.
    """
    _check(first, second, temperature)
    if labels.shape != first.shape[:1]:
        raise CkfrError(f"Labels have shape {tuple(labels.shape)}; expected ({len(first)},), one an example.")
    logits = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / temperature
    same = (labels[:, None] == labels[None, :]).to(logits.dtype)
    partners = same / same.sum(1, keepdim=True)  # symmetric in who is whose partner, so it serves both ways
    return (_cross_entropy(logits, partners) + _cross_entropy(logits.T, partners)) / 2


def pair_losses(
    embeddings: Mapping[str, Tensor],
    loss: Callable[..., Tensor],
    pairs: Sequence[tuple[str, str]] = PAIRS,
    **options: Any,
) -> dict[str, Tensor]:
    """One of this file's losses for each pair of encoders, named ``"text_image"`` and so on.

    Args:
        embeddings: (B, D) of each encoder, by name.
        loss: called as ``loss(first, second, **options)``.
        pairs: which two, in which order.

    Raises:
        CkfrError: a pair names an encoder that is not there.
    """
    for name in (name for pair in pairs for name in pair):
        if name not in embeddings:
            raise CkfrError(f"There is no embedding {name!r}; expected one of {', '.join(embeddings)}.")
    return {f"{one}_{other}": loss(embeddings[one], embeddings[other], **options) for one, other in pairs}


def sum_over_pairs(
    embeddings: Mapping[str, Tensor],
    loss: Callable[..., Tensor],
    pairs: Sequence[tuple[str, str]] = PAIRS,
    **options: Any,
) -> Tensor:
    """The sum of `pair_losses`, a scalar: the objective of three-way pre-training."""
    return torch.stack([*pair_losses(embeddings, loss, pairs, **options).values()]).sum()


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over rows, whether or not a row of targets sums to 1."""
    return -(targets * logits.log_softmax(1)).sum(1).mean()


def _check(first: Tensor, second: Tensor, temperature: float) -> None:
    if first.ndim != 2 or first.shape != second.shape or not len(first):
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise CkfrError(f"Embeddings have shapes {shapes}; expected (B, D) twice, B at least 1.")
    check_number("temperature", temperature, 0, above=True)

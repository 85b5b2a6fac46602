"""Two opinions made one: the product rule, and whether probabilities mean what they say."""

import math

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ckfr_helpers.contrastive.prior import labels_of
from ckfr_helpers.metrics.inputs import as_scores
from ckfr_helpers.runtime import CkfrError, check_number


def combine(
    image_log_probabilities: ArrayLike | Tensor, prior_log_probabilities: ArrayLike | Tensor
) -> Tensor:
    """Log-probabilities of the product: p(y | picture, place) ∝ p(y | picture) p(y | place).

    If picture and place are independent given the class, and classes equally frequent, this is Bayes' rule:
    with the exact prior nothing can do better. Where frequencies differ, subtract their logarithm from one
    of the two first.

    Args:
        image_log_probabilities: (N, C).
        prior_log_probabilities: (N, C); a row with a NaN says nothing and leaves the picture's row alone.

    Returns:
        (N, C), rows normalised where there was a prior.

    Raises:
        CkfrError: shapes that differ, a NaN in the first, or a row where no class is possible in both.
    """
    image, prior = torch.as_tensor(image_log_probabilities), torch.as_tensor(prior_log_probabilities)
    if image.ndim != 2 or image.shape != prior.shape:
        shapes = f"{tuple(image.shape)} and {tuple(prior.shape)}"
        raise CkfrError(f"Log-probabilities have shapes {shapes}; expected (N, C) twice.")
    if image.isnan().any():
        row = int(image.isnan().any(1).nonzero()[0, 0])
        raise CkfrError(f"The picture's log-probabilities have a NaN in row {row}; expected numbers.")
    silent = prior.isnan().any(1, keepdim=True)
    total = image + prior.to(image).masked_fill(silent, 0.0)
    if (total == -math.inf).all(1).any():
        row = int((total == -math.inf).all(1).nonzero()[0, 0])
        raise CkfrError(f"In row {row} picture and prior leave no class; expected one possible in both.")
    return torch.where(silent, image, total.log_softmax(1))


def fit_temperature(logits: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> float:
    """The temperature by which to divide logits (or log-probabilities) so that their log-loss is least.

    Fit it on validation. The answer to "which class" stays the same; how sure it sounds does not. Found
    between 0.01 and 100.

    Args:
        logits: (N, C).
        labels: (N,) integers.

    Source:
        Guo et al., *On calibration of modern neural networks*, ICML 2017.
    """
    from scipy.optimize import minimize_scalar  # slow to import

    scores, truth = _scored(logits, labels)

    def log_loss(log_temperature: float) -> float:
        return float(torch.nn.functional.cross_entropy(scores / math.exp(log_temperature), truth))

    bounds = (math.log(0.01), math.log(100))
    return math.exp(minimize_scalar(log_loss, bounds=bounds, method="bounded").x)


def expected_calibration_error(
    probabilities: ArrayLike | Tensor, labels: ArrayLike | Tensor, bins: int = 15
) -> float:
    """How far confidence is from accuracy, in [0, 1]: mean over bins of confidence, weighted by their share.

    Args:
        probabilities: (N, C); the highest of a row is its confidence.
        labels: (N,) integers.
        bins: of equal width on [0, 1].

    Source:
        Guo et al., ICML 2017; Naeini et al., AAAI 2015.
    """
    check_number("bins", bins, 1, whole=True)
    scores, truth = _scored(probabilities, labels)
    if scores.min() < 0 or scores.max() > 1 + 1e-6:
        low, high = float(scores.min()), float(scores.max())
        raise CkfrError(f"Probabilities run from {low:g} to {high:g}; expected 0 to 1.")
    confidence, answer = scores.max(1)
    place = (confidence * bins).long().clamp(max=bins - 1)
    gap = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, confidence - (answer == truth).double())
    return float(gap.abs().sum() / len(truth))


def _scored(scores: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> tuple[Tensor, Tensor]:
    values = as_scores(scores)  # type: ignore[arg-type]
    return torch.from_numpy(values), labels_of(torch.from_numpy(values), labels, values.shape[1])

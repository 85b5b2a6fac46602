"""How often a classifier is wrong, how badly, and how well its latents follow the tree.

Distances here are a (C, C) matrix from `Hierarchy.distances` or any other source; every severity is in that
matrix's unit. Inputs may be NumPy arrays or torch tensors.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ckfr_helpers.metrics.intervals import Interval, bootstrap_interval, mean_interval, paired_difference
from ckfr_helpers.runtime import CkfrError

__all__ = [
    "Interval",
    "alignment",
    "bootstrap_interval",
    "confusion_matrix",
    "hierarchical_metrics",
    "mean_interval",
    "minimum_risk_labels",
    "minimum_risk_scores",
    "mistake_distances",
    "paired_difference",
    "ranking",
]

T = TypeVar("T")
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def ranking(scores: ArrayLike) -> Ints:
    """Classes from best to worst for each sample; of equal scores the lower label comes first.

    Args:
        scores: (N, C) logits, probabilities, or any score where more is better.

    Returns:
        (N, C) int64.
    """
    return np.argsort(-_scores(scores), axis=1, kind="stable")


def hierarchical_metrics(
    logits: ArrayLike, labels: ArrayLike, distances: ArrayLike, ks: Sequence[int] = (1, 5, 20)
) -> dict[str, float]:
    """Accuracy and the hierarchical measures of Bertinetto et al., "Making Better Mistakes" (CVPR 2020).

    Args:
        logits: (N, C) scores; only their order matters.
        labels: (N,) integer classes.
        distances: (C, C) class distances.
        ks: the k of hdist@k. A k beyond C counts all C classes.

    Returns:
        "top1", and "top5" where C ≥ 5: shares in [0, 1]. "mistake_severity": mean distance between answer
        and truth over the mistakes alone; NaN where there are none. Read it beside accuracy: it falls when
        *easy* mistakes are added (Karthik et al., ICLR 2021). "hdist@k": mean over samples of the mean
        distance of the k best-scored classes to the truth; for k = 1 right answers count as 0.

    Raises:
        CkfrError: for mismatching shapes, labels out of range, NaN scores, or no samples.
    """
    scores, truth, matrix = _scores(logits), _labels(labels), _distances(distances)
    _check_match(scores, truth, matrix)
    classes = scores.shape[1]
    if any(k < 1 for k in ks):
        raise CkfrError(f"hdist@{min(ks)} is not defined; expected k of at least 1.")
    order = ranking(scores)[:, : max([5, *ks])]  # (N, deepest k): the rest of 1000 classes is never read
    wrong = order[:, 0] != truth
    apart = matrix[order, truth[:, None]]  # (N, deepest k): each ranked class's distance to the truth
    found = {"top1": float(1 - wrong.mean())}
    if classes >= 5:
        found["top5"] = float((order[:, :5] == truth[:, None]).any(axis=1).mean())
    found["mistake_severity"] = float(apart[wrong, 0].mean()) if wrong.any() else float("nan")
    for k in ks:
        found[f"hdist@{k}"] = float(apart[:, : min(k, classes)].mean())
    return found


def minimum_risk_scores(probabilities: ArrayLike, distances: ArrayLike) -> Floats:
    """Minus the expected distance of each possible answer, so that the best answer scores highest.

    Args:
        probabilities: (N, C), rows summing to 1.
        distances: (C, C).

    Returns:
        (N, C): −Σ_j distances[k, j] · probabilities[n, j] for answer k.
    """
    chances, matrix = _scores(probabilities), _distances(distances)
    if chances.shape[1] != len(matrix):
        raise CkfrError(
            f"{chances.shape[1]} probabilities a sample beside {len(matrix)} classes of distances."
        )
    if (chances < -1e-6).any() or np.abs(chances.sum(axis=1) - 1).max(initial=0) > 1e-3:
        raise CkfrError(
            "Probabilities must be at least 0 and sum to 1 for each sample; apply a softmax first."
        )
    return -(chances @ matrix.T)


def minimum_risk_labels(probabilities: ArrayLike, distances: ArrayLike) -> Ints:
    """The answer with the smallest expected distance: argmin_k Σ_j D[k, j] p[j].

    This is "CRM", conditional risk minimisation (Karthik et al., "No Cost Likelihood Manipulation at Test
    Time for Making Better Mistakes", ICLR 2021): free, needs no training, works on any classifier. With 0–1
    distances it is the argmax.

    Args:
        probabilities: (N, C), rows summing to 1.
        distances: (C, C).

    Returns:
        (N,) int64; of equal risks the lower label.
    """
    return ranking(minimum_risk_scores(probabilities, distances))[:, 0]


def mistake_distances(answers: ArrayLike, labels: ArrayLike, distances: ArrayLike) -> Floats:
    """(N,) distance of each answer to the truth, 0 where right; its histogram shows how bad mistakes are."""
    given, truth, matrix = _labels(answers), _labels(labels), _distances(distances)
    if given.shape != truth.shape:
        raise CkfrError(f"{len(given)} answers beside {len(truth)} labels; expected as many.")
    _check_range(given, len(matrix))
    _check_range(truth, len(matrix))
    return matrix[given, truth]


def confusion_matrix(answers: ArrayLike, labels: ArrayLike, classes: int) -> Ints:
    """(C, C) counts, truth in rows and answers in columns."""
    from sklearn import metrics as sk

    given, truth = _labels(answers), _labels(labels)
    _check_range(given, classes)
    _check_range(truth, classes)
    return sk.confusion_matrix(truth, given, labels=np.arange(classes))


def alignment(
    latents: ArrayLike, labels: ArrayLike, distances: ArrayLike, ell: float = 1.2, most: int = 500
) -> dict[str, float]:
    """Correlation of latent distances with class distances, over samples and over class means.

    Only pairs of *different* classes count: that two pictures of one class lie close together is what any
    classifier achieves, and would hide whether the tree is followed.

    Args:
        latents: (N, D).
        labels: (N,).
        distances: (C, C).
        ell: exponent of the latent distance mean_k |z_ak − z_bk| ** ell.
        most: of more samples than this, as many evenly spaced ones are used, since pairs grow as N².

    Returns:
        "pearson" and "spearman" over pairs of samples, "class_pearson" and "class_spearman" over pairs of
        class means; NaN where fewer than two different pairs or no variation exist.
    """
    points, truth, matrix = _scores(latents), _labels(labels), _distances(distances)
    if len(points) != len(truth):
        raise CkfrError(f"{len(points)} latents beside {len(truth)} labels; expected as many.")
    if not np.isfinite(points).all():
        raise CkfrError("A latent is infinite; its distances to the others are not defined.")
    _check_range(truth, len(matrix))
    present = np.unique(truth)
    means = np.stack([points[truth == label].mean(axis=0) for label in present]) if len(present) else points
    if len(points) > most:
        keep = np.linspace(0, len(points) - 1, most).round().astype(np.int64)
        points, truth = points[keep], truth[keep]
    return {
        **_correlations(points, truth, matrix, ell, ""),
        **_correlations(means, present, matrix, ell, "class_"),
    }


def _correlations(points: Floats, labels: Ints, matrix: Floats, ell: float, prefix: str) -> dict[str, float]:
    import torch  # only here: the other scores need NumPy alone

    # Minkowski's norm without its root is the latent distance, up to a factor that correlation ignores.
    latent = torch.pdist(torch.from_numpy(points), p=ell).numpy() ** ell if len(points) > 1 else np.zeros(0)
    rows, columns = np.triu_indices(len(points), 1)
    different = labels[rows] != labels[columns]
    latent, tree = latent[different], matrix[labels[rows], labels[columns]][different]
    if len(latent) < 2 or np.ptp(latent) == 0 or np.ptp(tree) == 0:
        return {f"{prefix}pearson": float("nan"), f"{prefix}spearman": float("nan")}
    return {
        f"{prefix}pearson": float(stats.pearsonr(latent, tree).statistic),
        f"{prefix}spearman": float(stats.spearmanr(latent, tree).statistic),
    }


def _array(values: ArrayLike) -> np.ndarray:
    detach = getattr(values, "detach", None)  # a torch tensor, without importing torch
    if detach is None:
        return np.asarray(values)
    values = detach().cpu()
    return (values.float() if values.is_floating_point() else values).numpy()


def _scores(values: ArrayLike) -> Floats:
    array = _array(values).astype(np.float64)
    if array.ndim != 2 or not array.size:
        raise CkfrError(
            f"Scores have shape {array.shape}; expected (samples, classes) with at least one of each."
        )
    if np.isnan(array).any():
        raise CkfrError(f"Row {int(np.isnan(array).any(axis=1).argmax())} has a NaN; expected numbers.")
    return array


def _labels(values: ArrayLike) -> Ints:
    array = _array(values)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise CkfrError(
            f"Labels have shape {array.shape} and type {array.dtype}; expected (samples,) integers."
        )
    return array.astype(np.int64)


def _distances(values: ArrayLike) -> Floats:
    array = _array(values).astype(np.float64)
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise CkfrError(f"Class distances have shape {array.shape}; expected a square.")
    if not np.isfinite(array).all():
        raise CkfrError("A class distance is NaN or infinite; expected finite numbers.")
    return array


def _check_match(scores: Floats, labels: Ints, matrix: Floats) -> None:
    if len(scores) != len(labels):
        raise CkfrError(f"{len(scores)} rows of scores beside {len(labels)} labels; expected as many.")
    if scores.shape[1] != len(matrix):
        raise CkfrError(f"{scores.shape[1]} scores a sample beside {len(matrix)} classes of distances.")
    _check_range(labels, len(matrix))


def _check_range(labels: Ints, classes: int) -> None:
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        raise CkfrError(f"Labels run from {labels.min()} to {labels.max()}; expected 0 to {classes - 1}.")

"""How often a classifier is wrong, and how badly.

Every severity is in the unit of the (C, C) distances given. Inputs may be NumPy arrays or torch tensors; all
sums are float64.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ckfr_helpers.metrics.inputs import Floats, Ints, as_costs, as_distances, as_labels, as_scores
from ckfr_helpers.runtime import CkfrError


def ranking(scores: ArrayLike) -> Ints:
    """(N, C) scores -> (N, C) int64: classes from best to worst; of equal scores the lower label first."""
    return np.argsort(-as_scores(scores), axis=1, kind="stable")


def hierarchical_metrics(
    logits: ArrayLike, labels: ArrayLike, distances: ArrayLike, ks: Sequence[int] = (1, 5, 20)
) -> dict[str, float]:
    """Accuracy and the hierarchical measures of Bertinetto et al., "Making Better Mistakes" (CVPR 2020).

    Args:
        logits: (N, C) scores; only their order matters.
        labels: (N,) integer classes.
        distances: (C, C) symmetric class distances.
        ks: the k of hdist@k. A k beyond C counts all C classes.

    Returns:
        "top1", and "top5" where C ≥ 5: shares in [0, 1]. "mistake_severity": mean distance between answer
        and truth over the mistakes alone; NaN where there are none. Read it beside accuracy: it falls when
        *easy* mistakes are added (Karthik et al., ICLR 2021). "hdist@k": mean over samples of the mean
        distance of the k best-scored classes to the truth; for k = 1 right answers count as 0.

    Raises:
        CkfrError: for mismatching shapes, labels out of range, NaN scores, asymmetric distances, no samples.

    >>> D = [[0, 1, 2], [1, 0, 2], [2, 2, 0]]
    >>> hierarchical_metrics([[3, 2, 1], [3, 2, 1]], [0, 1], D, ks=(1, 2))
    {'top1': 0.5, 'mistake_severity': 1.0, 'hdist@1': 0.5, 'hdist@2': 0.5}
    """
    scores, matrix = as_scores(logits), as_distances(distances)
    classes = len(matrix)
    truth = as_labels(labels, classes)
    if scores.shape != (len(truth), classes):
        raise CkfrError(f"Scores have shape {scores.shape}; expected {(len(truth), classes)}.")
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

    Probabilities (N, C), rows summing to 1, and (C, C) distances, where ``distances[k, j]`` is what answer k
    costs if j is true, give (N, C): −Σ_j distances[k, j] · probabilities[n, j] for answer k. A tree's
    distances are symmetric, but the costs of a decision need not be, so here (and only here) they may differ.
    """
    chances, matrix = as_scores(probabilities), as_costs(distances)
    if chances.shape[1] != len(matrix):
        raise CkfrError(f"{chances.shape[1]} probabilities a sample beside {len(matrix)} classes.")
    if (chances < -1e-6).any() or np.abs(chances.sum(axis=1) - 1).max(initial=0) > 1e-3:
        raise CkfrError("Probabilities of a sample must be at least 0 and sum to 1; apply a softmax first.")
    return -(chances @ matrix.T)


def minimum_risk_labels(probabilities: ArrayLike, distances: ArrayLike) -> Ints:
    """The answer with the smallest expected distance: argmin_k Σ_j D[k, j] p[j].

    This is "CRM", conditional risk minimisation (Karthik et al., "No Cost Likelihood Manipulation at Test
    Time for Making Better Mistakes", ICLR 2021): free, needs no training, works on any classifier. With 0–1
    distances it is the argmax.

    Arguments as for `minimum_risk_scores`. Returns (N,) int64; of equal risks the lower label.

    >>> D = [[0, 1, 9], [1, 0, 9], [9, 9, 0]]
    >>> minimum_risk_labels([[0.3, 0.3, 0.4]], D)
    array([0])
    """
    return ranking(minimum_risk_scores(probabilities, distances))[:, 0]


def mistake_distances(answers: ArrayLike, labels: ArrayLike, distances: ArrayLike) -> Floats:
    """(N,) distance of each answer to the truth, 0 where right; its histogram shows how bad mistakes are."""
    matrix = as_distances(distances)
    given, truth = as_labels(answers, len(matrix)), as_labels(labels, len(matrix))
    if given.shape != truth.shape:
        raise CkfrError(f"{len(given)} answers beside {len(truth)} labels; expected as many.")
    return matrix[given, truth]

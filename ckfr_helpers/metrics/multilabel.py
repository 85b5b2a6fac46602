"""How well a classifier names everything that is in a picture.

Two kinds of score: average precision reads the whole ranking of the pictures by each class; precision, recall
and F1 read answers, which are the classes above a threshold or a fixed number of classes for every picture.
"""

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import average_precision_score

from ckfr_helpers.metrics.hierarchical import ranking
from ckfr_helpers.metrics.inputs import Floats, as_multi_hot, as_scores
from ckfr_helpers.runtime import CkfrError, check_number

SLACK = 1e-3  # how far rounding, of scores summed in half precision, may carry one out of [0, 1]


def multilabel_metrics(
    scores: ArrayLike, targets: ArrayLike, threshold: float = 0.5, top: int = 3
) -> dict[str, float]:
    """Mean average precision, and precision, recall and F1 by class (C…) and overall (O…).

    The definitions of the field's tables (Wang et al., CNN-RNN, CVPR 2016; Chen et al., ML-GCN, CVPR 2019).
    Leaving out of means what is undefined for a class is ours.

    Args:
        scores: (N, C) in [0, 1], e.g. after a sigmoid.
        targets: (N, C) of 0 and 1; a picture may have no class at all.
        threshold: a class is an answer where its score is at least this, in [0, 1].
        top: for the scores with ``@``, every picture's answers are its ``top`` highest classes, whatever
            their scores; of equal scores the lower label. More than C gives all C.

    Returns:
        "mAP": mean of `class_average_precisions` over the classes that some picture has.
        "CP": mean over all classes of the share of answers that are right, 0 for a class never answered.
        "CR": mean over the classes that some picture has of the share of its pictures that are answered.
        "CF1": harmonic mean of these two means (not the mean of the classes' F1). 0 where both are 0.
        "OP", "OR", "OF1": the same from the counts of all classes together.
        "CP@3" … "OF1@3": the same with ``top`` answers; the 3 is ``top``.

    Raises:
        CkfrError: for scores outside [0, 1] or NaN, targets of another shape or outside {0, 1} or without any
            1, or an option out of range.

    >>> found = multilabel_metrics([[0.9, 0.2], [0.6, 0.7]], [[1, 0], [0, 1]], top=1)
    >>> found["mAP"], found["CP"], found["OP@1"]
    (1.0, 0.75, 1.0)
    """
    check_number("threshold", threshold, 0, 1)
    check_number("top", top, 1, whole=True)
    values = _probabilities(scores)
    truth = as_multi_hot(targets, values.shape)
    highest = np.zeros_like(truth)
    np.put_along_axis(highest, ranking(values)[:, :top], True, axis=1)
    found = {"mAP": float(np.nanmean(class_average_precisions(values, truth)))}
    found |= _answer_scores(values >= threshold, truth)
    found |= {f"{name}@{top}": value for name, value in _answer_scores(highest, truth).items()}
    return found


def class_average_precisions(scores: ArrayLike, targets: ArrayLike) -> Floats:
    """(C,) average precision of each class; NaN for one that no picture has.

    scikit-learn's: Σ (recall step) · precision over the pictures by falling score, equal scores together.
    Nothing is interpolated, unlike in `detection.detection_average_precision` and VOC 2007's eleven points.

    Args, Raises: as `multilabel_metrics`.
    """
    values = _probabilities(scores)
    truth = as_multi_hot(targets, values.shape)
    found = np.full(values.shape[1], np.nan)
    for label in np.flatnonzero(truth.any(axis=0)):
        found[label] = average_precision_score(truth[:, label], values[:, label])
    return found


def _probabilities(scores: ArrayLike) -> Floats:
    values = as_scores(scores)
    if values.min() < -SLACK or values.max() > 1 + SLACK:
        low, high = values.min(), values.max()
        raise CkfrError(f"Scores run from {low:g} to {high:g}; expected 0 to 1, as a sigmoid gives them.")
    return values


def _answer_scores(answers: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Precision, recall and F1 of (N, C) answers, by class and overall."""
    right, given, there = (part.sum(axis=0) for part in (answers & truth, answers, truth))  # (C,) each
    precision = float((right / np.maximum(given, 1)).mean())
    recall = float((right[there > 0] / there[there > 0]).mean())
    together = float(right.sum() / max(given.sum(), 1)), float(right.sum() / there.sum())
    found: dict[str, float] = {}
    for kind, (p, r) in {"C": (precision, recall), "O": together}.items():
        found |= {f"{kind}P": p, f"{kind}R": r, f"{kind}F1": 2 * p * r / (p + r) if p + r else 0.0}
    return found

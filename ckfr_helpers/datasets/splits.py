"""Carving a validation set out of the training set, class by class, the same on every machine."""

from collections.abc import Sequence

import numpy as np

from ckfr_helpers.runtime import CkfrError, check_number


def carve_validation(
    labels: np.ndarray, fraction: float, seed: int = 0, classes: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Split training examples into training and validation, with the same share of every class.

    Data sets whose only second split is reported as the test set leave nothing to choose a model on; choosing
    on the test set would flatter every number that follows.

    Args:
        labels: (N,) integers.
        fraction: share of each class that goes to validation, from 0 (all stay) to below 1; a class gives at
            least one example unless the fraction is 0.
        seed: which examples.
        classes: names of the labels, for messages.

    Returns:
        Two increasing int64 arrays of positions, train and validation; together every position once.

    Raises:
        CkfrError: if the fraction is out of range or a class is too small to give and to keep one.
    """
    check_number("val_fraction", fraction, 0, 1, below=True)
    check_number("seed", seed, 0, 2**32 - 1, whole=True)
    labels = np.asarray(labels)
    if fraction == 0:
        return np.arange(len(labels)), np.empty(0, dtype=np.int64)
    # RandomState promises the same stream in every NumPy; one generator a class, so that leaving a class out
    # does not reshuffle the others.
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = max(1, round(fraction * len(members)))
        if count >= len(members):
            name = classes[label] if classes else label
            raise CkfrError(
                f"Class {name} has {len(members)} example(s), too few to give "
                f"{count} away; expected at least two and a smaller fraction."
            )
        state = np.random.RandomState([seed, int(label)])
        chosen.append(state.permutation(members)[:count])
    validation = np.sort(np.concatenate(chosen))
    return np.setdiff1d(np.arange(len(labels)), validation), validation

"""What the scores take in: arrays, tensors or lists, checked once, as float64 and int64 NumPy arrays."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ckfr_helpers.hierarchy.checks import check_distances
from ckfr_helpers.runtime import CkfrError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def as_scores(values: ArrayLike, what: str = "Scores") -> Floats:
    """(N, D) float64 without NaN and with at least one entry; ``what`` names them in the error."""
    array = _array(values).astype(np.float64)
    if array.ndim != 2 or not array.size:
        raise CkfrError(
            f"{what} have shape {array.shape}; expected two dimensions with at least one of each."
        )
    missing = np.isnan(array).any(axis=1)
    if missing.any():
        raise CkfrError(f"{what} have a NaN in row {int(missing.argmax())}; expected numbers.")
    return array


def as_labels(values: ArrayLike, classes: int) -> Ints:
    """(N,) int64 labels from 0 to ``classes`` − 1."""
    array = _array(values)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise CkfrError(
            f"Labels have shape {array.shape} and type {array.dtype}; expected (samples,) integers."
        )
    if len(array) and not (array.min() >= 0 and array.max() < classes):
        raise CkfrError(f"Labels run from {array.min()} to {array.max()}; expected 0 to {classes - 1}.")
    return array.astype(np.int64)


def as_multi_hot(values: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """(N, C) targets of 0 and 1 as bool, of the scores' ``shape`` and with at least one 1."""
    array = _array(values)
    if array.shape != shape:
        raise CkfrError(f"Targets have shape {array.shape}; expected {shape}, that of the scores.")
    other = ~np.isin(array, (0, 1))
    if other.any():
        row, label = np.argwhere(other)[0].tolist()
        raise CkfrError(f"The target of sample {row}, class {label} is {array[row, label]}; expected 0 or 1.")
    if not array.any():
        raise CkfrError("No target is 1; expected at least one sample that has a class.")
    return array.astype(bool)


def as_distances(values: ArrayLike) -> Floats:
    """(C, C) symmetric class distances as float64."""
    return check_distances(_array(values).astype(np.float64))


def as_costs(values: ArrayLike) -> Floats:
    """(C, C) finite costs as float64, which need not be symmetric."""
    array = _array(values).astype(np.float64)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or not np.isfinite(array).all():
        raise CkfrError(f"Costs have shape {array.shape}; expected a square of finite numbers.")
    return array


def _array(values: ArrayLike) -> np.ndarray:
    detach = getattr(values, "detach", None)  # a torch tensor, without importing torch
    if detach is None:
        return np.asarray(values)
    tensor = detach().cpu()
    return (tensor.double() if tensor.is_floating_point() else tensor).numpy()  # NumPy has no bfloat16

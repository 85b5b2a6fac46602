"""How well distances between latents follow the tree: the one latent–tree correlation of this series."""

import numpy as np
import torch
from numpy.typing import ArrayLike

from ckfr_helpers.losses.triplet import latent_distances
from ckfr_helpers.metrics.inputs import as_distances, as_labels, as_scores
from ckfr_helpers.runtime import CkfrError


def latent_tree_correlation(
    latents: ArrayLike, labels: ArrayLike, distances: ArrayLike, ell: float = 1.2
) -> dict[str, float]:
    """Correlation of latent distances with tree distances, over all pairs of classes.

    Each class stands for itself by the mean of *all* its latents, so that pairs of one class, which any
    classifier draws together, do not count. The ell is fixed, so that networks can be compared.

    Args:
        latents, labels: (N, D) and (N,), every sample of a split.
        distances: (C, C) symmetric class distances; in reported scores the tree's path distance.
        ell: exponent of the latent distance mean_k |z_ak − z_bk| ** ell; 1.2 in reported scores.

    Returns:
        "correlation" (Pearson) and "correlation_spearman"; NaN for fewer than three classes or where one of
        the two distances does not vary.
    """
    points, matrix = as_scores(latents, "Latents"), as_distances(distances)
    truth = as_labels(labels, len(matrix))
    if len(points) != len(truth):
        raise CkfrError(f"{len(points)} latents beside {len(truth)} labels; expected as many.")
    present = np.unique(truth)
    means = np.stack([points[truth == label].mean(axis=0) for label in present])
    pairs = np.triu_indices(len(present), 1)
    latent = latent_distances(torch.from_numpy(means), ell).numpy()[pairs]
    tree = matrix[np.ix_(present, present)][pairs]
    from scipy import stats  # slow to import

    if len(latent) < 2 or np.ptp(latent) == 0 or np.ptp(tree) == 0:
        return {"correlation": float("nan"), "correlation_spearman": float("nan")}
    return {
        "correlation": float(stats.pearsonr(latent, tree).statistic),
        "correlation_spearman": float(stats.spearmanr(latent, tree).statistic),
    }

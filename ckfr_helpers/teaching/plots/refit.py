"""The picture of one refit beside the one before: where classes lie, and what that does to the scores."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.linalg import orthogonal_procrustes
from sklearn.decomposition import PCA

from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.teaching.plots import classes
from ckfr_helpers.teaching.plots.style import OURS, note
from ckfr_helpers.teaching.refit import Refit

GHOST = "0.55"
#: More hues than these are hard to tell apart in a map.
MOST_BRANCHES = 8
#: Score, title, limits of its axis, and which way is better.
SCORES = (
    ("top1", "top-1 accuracy", (0.0, 1.0), "→ better"),
    ("mistake_severity", "mistake severity", (4.0, 10.0), "← milder"),
    ("correlation", "latent–tree correlation", (0.0, 1.0), "→ follows the tree"),
)


def _colours(hierarchy: Hierarchy) -> np.ndarray:
    branches = classes.main_branches(hierarchy, MOST_BRANCHES)
    return classes.class_colours([branch.labels for branch in branches])


def plane(
    latents: np.ndarray, labels: np.ndarray, distances: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Samples and class means in the plane in which the class means spread most.

    It is turned, mirrored and scaled to lie as near as it can to a flat map of the tree itself (classical
    multidimensional scaling), so that two fits can be laid over each other.

    (M, P) latents, (M,) labels with every class at least once, (C, C) class distances -> (M, 2) samples,
    (C, 2) class means, and the plane's share of the variance between class means.
    """
    means = np.stack([latents[labels == label].mean(axis=0) for label in range(len(distances))])  # (C, P)
    pca = PCA(2).fit(means)
    flat = pca.transform(means)  # (C, 2)
    turn, _ = orthogonal_procrustes(flat, _tree_map(distances))
    scale = np.sqrt(np.square(flat).sum(axis=1).mean()) or 1.0
    return pca.transform(latents) @ turn / scale, flat @ turn / scale, pca.explained_variance_ratio_.sum()


def _tree_map(distances: np.ndarray) -> np.ndarray:
    """(C, C) -> (C, 2) by classical scaling; its axes have signs that depend on the matrix alone."""
    centring = np.eye(len(distances)) - 1 / len(distances)
    values, vectors = np.linalg.eigh(-0.5 * centring @ np.square(distances.astype(np.float64)) @ centring)
    vectors = vectors[:, -2:] * np.sqrt(np.maximum(values[-2:], 0))
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), range(2)])
    return (vectors * signs)[:, ::-1]


def refit_view(fit: Refit, before: Refit | None, labels: np.ndarray, hierarchy: Hierarchy) -> Figure:
    """The map of the held-out samples on the left, the three scores on the right, ``before`` as a ghost."""
    figure = Figure(figsize=(9.2, 4.9))
    axes = figure.subplot_mosaic([["map", key] for key, *_ in SCORES], width_ratios=(1.75, 1))
    share = _map(axes["map"], fit, before, labels, hierarchy, names=True)
    axes["map"].set_title("held-out scenes and class means in their widest plane")
    axes["map"].set_xlabel(f"the plane holds {share:.0%} of the variance between class means")
    for key, title, limits, better in SCORES:
        axis, value, old = axes[key], fit.scores[key], before.scores[key] if before else None
        axis.set_title(f"{title}   {better}", fontsize=10, loc="left")
        if old is not None:
            axis.plot([old, value], [0, 0], color=GHOST, lw=2, zorder=1)
            axis.plot(old, 0, "o", mfc="white", mec=GHOST, ms=9, zorder=2)
            note(axis, f"{old:.2f}", (old, 0), (0, -18), color="0.4", ha="center")
        axis.plot(value, 0, "o", color=OURS, ms=11, zorder=3, mec="white")
        note(axis, f"{value:.2f}", (value, 0), (0, 9), color=OURS, weight="bold", ha="center")
        shown = [v for v in (*limits, value, old) if v is not None and np.isfinite(v)]
        axis.set(xlim=(min(shown), max(shown)), ylim=(-1, 1), yticks=[])
        axis.spines["left"].set_visible(False)
    looks = {"mfc": OURS, "mec": OURS, "ms": 9}, {"mfc": "white", "mec": GHOST, "ms": 8}
    handles = []
    for one, look in zip((fit, before), looks, strict=True):
        if one is not None:
            said = f"alpha {one.setting.alpha:g}, ell {one.setting.ell:g}, start {one.setting.seed + 1}"
            handles.append(Line2D([], [], marker="o", ls="", label=said, **look))
    axes["correlation"].legend(
        handles=handles, loc="upper left", bbox_to_anchor=(-0.06, -0.45), borderaxespad=0
    )
    return figure


def refit_grid(grid: Mapping[tuple[float, float], Refit], labels: np.ndarray, hierarchy: Hierarchy) -> Figure:
    """Small multiples of the map, (alpha, ell) -> fit, with accuracy and correlation above each."""

    def draw(axis: Axes, fit: Refit) -> None:
        _map(axis, fit, None, labels, hierarchy, names=False)
        axis.set_title(f"top-1 {fit.scores['top1']:.0%}, r = {fit.scores['correlation']:.2f}", fontsize=9)

    return classes.alpha_ell_grid(grid, draw, hierarchy, _colours(hierarchy))


def _map(
    axis: Axes, fit: Refit, before: Refit | None, labels: np.ndarray, hierarchy: Hierarchy, names: bool
) -> float:
    distances, colours = hierarchy.distances("path"), _colours(hierarchy)
    points, means, share = plane(fit.latents, labels, distances)
    if names:  # in small maps the specks would only add weight
        axis.scatter(points[:, 0], points[:, 1], c=colours[labels], s=7, alpha=0.3, lw=0, zorder=2)
    if before is not None:
        _, old, _ = plane(before.latents, labels, distances)
        axis.plot(*np.stack([old, means]).transpose(2, 0, 1), color=GHOST, lw=0.8, zorder=1)
        axis.scatter(old[:, 0], old[:, 1], s=26, facecolor="white", edgecolor=GHOST, lw=1, zorder=3)
    x, y = means.T
    axis.scatter(x, y, c=colours, s=52 if names else 26, edgecolor="white", lw=0.7, zorder=4)
    wide = np.array([1.35 if names else 1.0, 1.0])
    low, high = means.min(axis=0), means.max(axis=0)  # stray scenes may lie outside
    middle, reach = (low + high) / 2, 0.58 * max(*((high - low) / wide), 1e-3)
    classes.plain_frame(axis, middle, wide * reach)
    if names:
        classes.write_names(axis, hierarchy, means, means, colours)
    return share

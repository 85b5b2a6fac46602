"""Figures of notebook 02: ratios as vectors, what ell bends, the sorted fan, and points that find a tree."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.losses.arrangement import Arrangement
from ckfr_helpers.metrics import mean_interval
from ckfr_helpers.teaching.plots import classes
from ckfr_helpers.teaching.plots.style import BASELINE, CMAP, COLOURS, OURS, note, subplots

# Trees of four small branches: the hues that lie furthest apart come first.
_HUES = ("orange", "purple", "blue", "green", "red", "sky", "brown", "pink")


def three_points(delta: Sequence[float], cases: Mapping[str, tuple[float, float]]) -> Figure:
    """One triplet as two vectors (δ, d) from the anchor; the loss is the area between them.

    ``delta`` is (δ_ap, δ_an); ``cases``: title -> (d_ap, d_an), one panel each, all on one scale.
    """
    figure, axes = plt.subplots(1, len(cases), figsize=(3.7 * len(cases), 3.3), sharex=True, sharey=True)
    top = max(max(pair) for pair in cases.values())
    for axis, (title, (d_ap, d_an)) in zip(axes, cases.items(), strict=True):
        p, n = np.array([delta[0], d_ap]), np.array([delta[1], d_an])
        area = abs(p[1] * n[0] - n[1] * p[0])
        axis.add_patch(Polygon([(0, 0), p, p + n, n], facecolor=COLOURS["yellow"], alpha=0.35, lw=0))
        for vector, name, colour in ((n, "frying pan", COLOURS["blue"]), (p, "tiger", COLOURS["orange"])):
            axis.annotate("", vector, (0, 0), arrowprops={"arrowstyle": "-|>", "lw": 2.5, "color": colour})
            note(axis, name, vector, (6, -3), color=colour, weight="bold")
        axis.set(title=f"{title}\narea = loss = {area:.2f}", xlabel="distance in the tree, δ")
        axis.set(xlim=(0, 1.45 * sum(delta)), ylim=(0, 1.15 * (top + min(max(c) for c in cases.values()))))
    axes[0].set_ylabel("distance in the network, d")
    return figure


def ell_curves(ells: Sequence[float], largest: float = 3.0) -> Figure:
    """|difference| ** ell for several exponents, and the share each kind of difference has in a distance."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.1))
    x = np.linspace(0, largest, 300)
    colours = plt.get_cmap(CMAP)(np.linspace(0, 0.85, len(ells)))
    for ell, colour in zip(ells, colours, strict=True):
        left.plot(x, x**ell, color=colour)
        note(left, f"ell = {ell:g}", (largest, largest**ell), (4, -4), color=colour)
    left.set(xlabel="difference in one coordinate", ylabel="what it adds to d", title="ell bends the scale")
    left.set_xlim(0, 1.3 * largest)
    left.set_xticks(range(int(largest) + 1))
    # Ten features: nine small differences and one large one.
    shares = [largest**ell / (largest**ell + 9 * (largest / 10) ** ell) for ell in ells]
    right.bar([f"{ell:g}" for ell in ells], shares, color=colours, width=0.6)
    for place, share in enumerate(shares):
        note(right, f"{share:.0%}", (place, share), (0, 3), ha="center")
    right.set(xlabel="ell", ylim=(0, 1.1), yticks=(0, 0.5, 1), ylabel="share of d")
    right.set_title(f"one difference of {largest:g} against nine of {largest / 10:g}")
    return figure


def fan(delta: np.ndarray, d: np.ndarray, chosen: int) -> Figure:
    """The sorting idea: one anchor's vectors (δ, d) by angle, and the one area that replaces many.

    ``delta`` and ``d`` are (B − 1,) distances from the anchor; ``chosen`` is a place in the order of angles.
    """
    vectors = np.stack([delta, d], 1)[np.argsort(np.arctan2(d, delta))]
    one, after = vectors[chosen], vectors[chosen + 1 :]
    colours = plt.get_cmap(CMAP)(np.linspace(0.1, 0.85, len(after)))
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10, 3.4))

    def arrow(axis: Axes, tail: np.ndarray, tip: np.ndarray, colour: Any, width: float = 2) -> None:
        look = {"arrowstyle": "-|>", "lw": width, "color": colour, "shrinkA": 0, "shrinkB": 0}
        axis.annotate("", tuple(tip), tuple(tail), arrowprops=look)

    origin, centred = np.zeros(2), {"ha": "center", "va": "center"}
    shades = [*["0.7"] * chosen, COLOURS["red"], *colours]
    for place, (vector, colour) in enumerate(zip(vectors, shades, strict=True)):
        arrow(left, origin, vector, colour, 3 if place == chosen else 2)
        outward = vector / np.hypot(*(vector / vectors.max(0)))
        left.text(*vector + 0.08 * outward, f"{place + 1}", color=colour, weight="bold", **centred)
    left.set(xlim=(0, 1.2 * vectors[:, 0].max()), ylim=(0, 1.2 * vectors[:, 1].max()))
    left.set(title="one anchor: the others, by angle", xlabel="tree distance δ", ylabel="latent distance d")

    corner = origin
    for place, (vector, colour) in enumerate(zip(after, colours, strict=True)):
        strip = [corner, corner + one, corner + vector + one, corner + vector]
        middle.add_patch(Polygon(strip, facecolor=(*to_rgb(colour), 0.35), edgecolor="white", lw=1))
        arrow(middle, corner, corner + vector, colour)
        middle.text(*corner + (vector + one) / 2, f"{chosen + 1} × {chosen + place + 2}", **centred)
        corner = corner + vector
    right.add_patch(Polygon([origin, one, corner + one, corner], facecolor=COLOURS["red"], alpha=0.2, lw=0))
    arrow(right, origin, corner, "0.35", 2.5)
    said = f"vectors {chosen + 2} to {len(vectors)},\nadded up"
    note(right, said, 0.6 * corner, (-10, 4), ha="right", va="bottom", color="0.35")
    for axis, title in ((middle, f"areas with every vector after {chosen + 1} …"), (right, "… = one area")):
        arrow(axis, origin, one, COLOURS["red"], 3)
        axis.set(xlim=(0, 1.05 * (corner + one)[0]), ylim=(0, 1.08 * (corner + one)[1]), title=title)
        axis.set(xticks=[], yticks=[])
    return figure


def timings(sizes: Sequence[int], seconds: Mapping[str, Sequence[float]]) -> Figure:
    """Time of value and gradient against batch size, both axes logarithmic."""
    figure, axis = plt.subplots(figsize=(5, 3.2))
    for (name, values), colour in zip(seconds.items(), (BASELINE, OURS, COLOURS["green"]), strict=False):
        axis.loglog(sizes, 1e3 * np.asarray(values), "o-", color=colour, label=name)
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.minorticks_off()
    axis.set(xlabel="batch size B", ylabel="milliseconds")
    axis.legend()
    return figure


def _colours(hierarchy: Hierarchy) -> np.ndarray:
    return classes.class_colours(classes.sisters(hierarchy), _HUES)


def draw_map(axis: Axes, result: Arrangement, hierarchy: Hierarchy, names: bool) -> None:
    """Latents (B, 2) with the tree laid over them: every node stands at the mean of its classes."""
    latents, labels = result.latents, result.labels
    centres = np.stack([latents[labels == c].mean(0) for c in range(len(hierarchy))])  # (C, 2)
    above = [hierarchy.path_to_root(name) for name in hierarchy.classes]
    place = {node: centres[[node in way for way in above]].mean(0) for node in hierarchy.nodes}
    deepest = max(hierarchy.depth(node) for node in hierarchy.classes)
    for child, mother in hierarchy.parent.items():
        width = 0.8 + 1.7 * (deepest - hierarchy.depth(child)) / deepest
        axis.plot(*np.stack([place[mother], place[child]]).T, color="0.78", lw=width, zorder=1)
    axis.plot(*place[hierarchy.root], "s", color="0.5", ms=4, zorder=2)
    colours = _colours(hierarchy)
    axis.scatter(latents[:, 0], latents[:, 1], c=colours[labels], s=34, edgecolor="white", lw=0.6, zorder=3)
    span = np.ptp(latents, axis=0).max() or 1.0
    middle = (latents.max(0) + latents.min(0)) / 2
    classes.plain_frame(axis, middle, np.full(2, 0.62 * span))
    if names:
        classes.write_names(axis, hierarchy, centres, latents, colours)


def arrangement_grid(grid: Mapping[tuple[float, float], Arrangement], hierarchy: Hierarchy) -> Figure:
    """Small multiples of the map, (alpha, ell) -> arrangement, with the correlation above each."""

    def draw(axis: Axes, result: Arrangement) -> None:
        draw_map(axis, result, hierarchy, names=False)
        axis.set_title(correlation(result.alignment.pearson_between), fontsize=10)

    return classes.alpha_ell_grid(grid, draw, hierarchy, _colours(hierarchy))


def correlation(value: float) -> str:
    """``"r = 0.94"``; a tree that holds all classes equally far apart correlates with nothing."""
    return "r undefined" if np.isnan(value) else f"r = {value:.2f}"


def arrangement_view(result: Arrangement, hierarchy: Hierarchy) -> Figure:
    """The panel's picture: the map on the left, latent against tree distance on the right. Fixed size."""
    figure, (left, right) = subplots(1, 2, figsize=(8.4, 4.1), width_ratios=(1.15, 1))
    draw_map(left, result, hierarchy, names=True)
    left.set_title("the latents, with the tree laid over them")
    pairs = np.triu_indices(len(result.latent), 1)
    delta, d = result.knowledge[pairs], result.latent[pairs]
    shift = np.random.default_rng(0).uniform(-0.12, 0.12, len(delta))
    right.plot(delta + shift, d, "o", ms=3, color=OURS, alpha=0.35, mew=0)
    for value in np.unique(delta):
        mean = d[delta == value].mean()
        right.plot([value - 0.3, value + 0.3], [mean, mean], color=COLOURS["orange"], lw=3)
    right.set(xlabel="distance in the tree (edges)", ylabel="distance between latents, d")
    right.set_ylim(-0.03 * d.max(), 1.05 * d.max())
    right.set_xticks(np.unique(delta))
    right.set_title(f"pairs of different classes: {correlation(result.alignment.pearson_between)}")
    return figure


def distance_matrices(matrices: Mapping[str, np.ndarray], hierarchy: Hierarchy) -> Figure:
    """Class-by-class mean distances (C, C) in tree order, each on its own scale from 0 to its maximum."""
    shares = {title: matrix / matrix.max() for title, matrix in matrices.items()}
    return classes.class_matrices(shares, hierarchy, "distance / largest", side=2.4)


def class_means(matrix: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(C, C) mean over pairs of distinct samples of a (B, B) distance matrix."""
    member = np.eye(labels.max() + 1)[labels]  # (B, C)
    distinct = 1 - np.eye(len(labels))
    return (member.T @ (matrix * distinct) @ member) / np.maximum(member.T @ distinct @ member, 1)


def seeds_beside(groups: Mapping[str, Sequence[float]], label: str) -> Figure:
    """One row per group: a dot per seed over the mean and its 95 % interval."""
    figure, axis = plt.subplots(figsize=(6.4, 0.5 * len(groups) + 0.9))
    for place, (name, values) in enumerate(groups.items()):
        colour = OURS if name.startswith("as stated") else BASELINE
        interval = mean_interval(values)
        axis.plot([interval.low, interval.high], [place, place], color=colour, lw=6, alpha=0.35)
        axis.plot(interval.mean, place, "|", color=colour, ms=16, mew=3)
        axis.plot(values, np.full(len(values), place - 0.25), "o", ms=4.5, color=colour, mew=0)
    axis.set_yticks(range(len(groups)), list(groups))
    axis.set_ylim(len(groups) - 0.5, -0.6)
    axis.vlines((0, 1), *axis.get_ylim(), color="0.85", lw=1, zorder=0)
    axis.set(xlabel=label, xlim=(-0.3, 1.1))
    return figure


def collapse_curves(runs: Mapping[str, Arrangement]) -> Figure:
    """Same-class over different-class distance during each run, logarithmic, with the names at the ends."""
    figure, axis = plt.subplots(figsize=(6.4, 3.1))
    for (name, run), colour in zip(runs.items(), (BASELINE, OURS, COLOURS["orange"]), strict=False):
        ratios = [one.same_to_different for one in run.course()]
        axis.semilogy(run.frame_steps, ratios, color=colour)
        note(axis, name, (run.frame_steps[-1], ratios[-1]), (5, 0), color=colour, va="center")
    last = max(run.setting.steps for run in runs.values())
    axis.set(xlabel="step", ylabel="same-class ÷ different-class\ndistance", xlim=(0, 1.45 * last))
    axis.set_xticks(range(0, last + 1, 100))
    return figure

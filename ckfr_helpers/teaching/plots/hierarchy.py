"""Figures of notebook 01: the tree, matrices in tree order, three measures compared, graph against tree."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ckfr_helpers.hierarchy.tree import MEASURES, Hierarchy, Measure
from ckfr_helpers.teaching.plots.classes import main_branches, node_colours
from ckfr_helpers.teaching.plots.style import BASELINE, CMAP, COLOURS, OURS, note

LABELS: dict[Measure, str] = {
    "path": "path length (edges)",
    "lca_height": "height of the lowest\ncommon ancestor (edges)",
    "wu_palmer": "Wu–Palmer distance",
}
TITLES: dict[Measure, str] = {"path": "path", "lca_height": "LCA height", "wu_palmer": "Wu–Palmer"}
_GREY = "0.72"


def tree(hierarchy: Hierarchy, *, path: tuple[str, str] | None = None, every_name: bool = False) -> Figure:
    """The tree from left to right: a dot per node, a row per class, one step to the right per edge.

    Counting dots along a way gives the path length. Nodes at which the tree branches carry their names; with
    ``every_name`` the others too. The way between the two classes of ``path`` is bold, everything else grey.
    """
    bold: set[str] = set()
    hue: dict[str, Any] = dict.fromkeys(hierarchy.nodes, _GREY)
    if path is None:
        hue |= node_colours(hierarchy, 8)
    else:
        bold = {n for end in path for n in hierarchy.path_to_root(end)}
        bold -= set(hierarchy.path_to_root(hierarchy.lca(*path)))
        hue |= dict.fromkeys(bold, COLOURS["orange"])
    rows = _rows(hierarchy)
    deepest = max(map(hierarchy.depth, hierarchy.classes))
    figure, axis = plt.subplots(figsize=(10, (1.05 if every_name else 0.27) * len(hierarchy) + 0.8))
    for node in reversed(hierarchy.nodes[1:]):
        above = hierarchy.parent[node]
        x, y = (hierarchy.depth(above), hierarchy.depth(node)), (rows[above], rows[node])
        strong = node in bold
        width, layer = (3.5, 3) if strong else (1.6, 2)
        axis.plot([x[0], x[0], x[1]], [y[0], y[1], y[1]], color=hue[node], lw=width, zorder=layer)
        axis.plot(x[1], y[1], "o", color=hue[node], ms=6 if strong else 3.6, zorder=4)
    axis.plot(0, rows[hierarchy.root], "o", color=_GREY, ms=4, zorder=4)
    for node in hierarchy.nodes:
        _write_name(axis, hierarchy, node, rows[node], path, every_name)
    right, top = (2.0, -0.5) if every_name else (3.2, -1.1)
    axis.set(xlim=(-0.3, deepest + right), ylim=(len(hierarchy) - 0.3, top), yticks=[])
    axis.set_xticks(range(0, deepest + 1, 2))
    axis.set_xlabel("depth: edges below the root", loc="left")
    axis.spines[["left", "top", "right"]].set_visible(False)
    axis.spines["bottom"].set_bounds(0, deepest)
    return figure


def _rows(hierarchy: Hierarchy) -> dict[str, float]:
    """Vertical place of every node: classes on whole rows, a parent halfway between its outer children."""
    rows = {hierarchy.classes[label]: float(row) for row, label in enumerate(hierarchy.order())}
    for node in reversed(hierarchy.nodes):
        if below := hierarchy.children.get(node):
            rows[node] = (rows[below[0]] + rows[below[-1]]) / 2
    return rows


def _write_name(
    axis: Axes, hierarchy: Hierarchy, node: str, y: float, path: tuple[str, str] | None, every_name: bool
) -> None:
    x, below = hierarchy.depth(node), hierarchy.children.get(node, ())
    if not below:
        weight = "bold" if node in (path or ()) else "normal"
        axis.text(x + 0.25, y, hierarchy.name(node), va="center", fontsize=11, weight=weight)
    elif len(below) > 1:
        meeting = path is not None and node == hierarchy.lca(*path)
        sisters = hierarchy.children.get(hierarchy.parent.get(node, ""), ())
        # Above the line, the upright of its mother would cross the name of a last sister.
        under = every_name or (len(sisters) > 1 and node == sisters[-1])
        axis.text(
            x - 0.1, y + (0.14 if under else -0.12), hierarchy.name(node), fontsize=10 if every_name else 8.5,
            ha="right", va="top" if under else "bottom", zorder=5, color="black" if meeting else "0.3",
            weight="bold" if meeting else "normal",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4, "alpha": 0.85},
        )  # fmt: skip
    elif every_name:
        slant: dict[str, Any] = {"rotation": 28, "rotation_mode": "anchor", "va": "bottom"}
        axis.text(x, y - 0.1, hierarchy.name(node), fontsize=9, color="0.3", **slant)


def heatmap(hierarchy: Hierarchy, distances: np.ndarray, label: str) -> Figure:
    """Distances (C, C) in tree order, with the larger branches named at the side."""
    figure, axis = plt.subplots(figsize=(9.5, 6.4))
    _matrix(axis, hierarchy, distances, {"label": label, "shrink": 0.8}, 12)
    return figure


def _matrix(
    axis: Axes, hierarchy: Hierarchy, distances: np.ndarray, bar: dict, most: int, names: bool = True
) -> None:
    """In tree order, a white square round each branch, its name on the left."""
    order = hierarchy.order()
    sns.heatmap(
        distances[np.ix_(order, order)], ax=axis, cmap=CMAP, square=True, vmin=0, cbar_kws=bar,
        xticklabels=False, yticklabels=False, rasterized=True,
    )  # fmt: skip
    smallest = max(2, round((0.02 if len(hierarchy) > 500 else 0.04) * len(hierarchy)))
    ticks, texts = [], []
    for branch in main_branches(hierarchy, most, smallest):
        side = len(branch.labels)
        if side >= smallest:
            ticks.append(branch.start + side / 2)
            texts.append(f"{hierarchy.name(branch.node)} ({side})")
            corner = (branch.start, branch.start)
            axis.add_patch(Rectangle(corner, side, side, fill=False, edgecolor="white", lw=1.6))
    axis.set_yticks(ticks, texts if names else [""] * len(ticks), rotation=0)
    axis.set_xticks([])
    axis.tick_params(length=0)


def measures(hierarchy: Hierarchy) -> Figure:
    """The three measures as matrices in tree order, each from 0 to its own largest value."""
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.9))
    for axis, measure in zip(axes, MEASURES, strict=True):
        bar = {"label": LABELS[measure], "location": "bottom", "shrink": 0.8, "pad": 0.02}
        _matrix(axis, hierarchy, hierarchy.distances(measure), bar, 10, names=axis is axes[0])
        axis.set_title(TITLES[measure])
    return figure


def agreement(hierarchy: Hierarchy, marked: Sequence[tuple[str, str]]) -> Figure:
    """Path length against the other two; a bubble's area counts class pairs, ``marked`` ones are named."""
    upper = np.triu_indices(len(hierarchy), 1)
    values = {measure: hierarchy.distances(measure)[upper] for measure in MEASURES}
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.1))
    for axis, measure in zip(axes, MEASURES[1:], strict=True):
        rounded = np.round(np.stack([values["path"], values[measure]], 1).astype(float), 4)
        spots, counts = np.unique(rounded, axis=0, return_counts=True)
        axis.scatter(*spots.T, s=900 * counts / counts.max() + 4, color=OURS, alpha=0.45, lw=0)
        axis.set(xlabel=LABELS["path"], ylabel=LABELS[measure])
        axis.set_title(f"{TITLES[measure]} against path")
        axis.margins(0.08)
        if measure == "lca_height":
            axis.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        for (a, b), colour in zip(marked, (COLOURS["red"], COLOURS["green"]), strict=False):
            spot = [hierarchy.distances(m)[hierarchy.label(a), hierarchy.label(b)] for m in ("path", measure)]
            axis.plot(*spot, "o", ms=11, mfc="none", mew=2.5, color=colour)
            points, side = ((-10, 0), "right") if spot[0] > values["path"].max() / 2 else ((10, 0), "left")
            white = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8}
            look = {"color": colour, "ha": side, "va": "center", "weight": "bold", "zorder": 5, "bbox": white}
            note(axis, f"{hierarchy.name(a)} –\n{hierarchy.name(b)}", spot, points, **look)
    return figure


def graph_cost(hierarchy: Hierarchy, graph: np.ndarray, trees: Mapping[str, np.ndarray]) -> Figure:
    """Edges by which the way in a tree is longer: a map for the first tree, and the share of pairs of each.

    ``graph``: (C, C) shortest paths in the graph; ``trees``: rule -> (C, C) path lengths in its tree; two.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.2), width_ratios=(1.5, 1))
    bar = {"label": "edges longer than in the graph", "shrink": 0.8}
    _matrix(left, hierarchy, next(iter(trees.values())) - graph, bar, 9)
    pairs = np.triu_indices(len(hierarchy), 1)
    for (rule, tree), shift, colour in zip(trees.items(), (-0.2, 0.2), (OURS, BASELINE), strict=True):
        values, counts = np.unique((tree - graph)[pairs].astype(int), return_counts=True)
        right.bar(values + shift, counts / counts.sum(), 0.4, color=colour, label=rule)
    right.set(xlabel="edges longer than in the graph", ylabel="share of pairs", xlim=(-0.7, 8.7))
    right.set_xticks(range(0, 9, 2))
    right.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    right.legend(title="hypernym kept", loc="upper right")
    return figure


def nearest(hierarchy: Hierarchy, names: Sequence[str], *, k: int = 5, measure: Measure = "path") -> Figure:
    """The k nearest classes of each class as bars, three panels a row, with the node where the two meet."""
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    size = (3.5 * columns if columns > 1 else 6, (0.27 * k + 0.75) * rows + 0.2)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    found = {name: hierarchy.nearest(name, k, measure) for name in names}
    longest = max(d for row in found.values() for _, d in row)
    for axis, (name, row) in zip(axes.flat, found.items(), strict=False):
        axis.barh(range(k), [d for _, d in row], color=OURS, alpha=0.45, height=0.75)
        for place, (other, distance) in enumerate(row):
            words = f"{distance:.3g}, {hierarchy.name(hierarchy.lca(name, other))}"
            axis.text(distance + 0.04 * longest, place, words, va="center", fontsize=9, color="0.3")
        axis.set(xlim=(0, 2.3 * longest), ylim=(k - 0.4, -0.6), xticks=[])
        axis.set_yticks(range(k), [hierarchy.name(other) for other, _ in row])
        axis.tick_params(length=0)
        axis.set_title(hierarchy.name(name), weight="bold", loc="left")
        axis.spines["bottom"].set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel(LABELS[measure].replace("\n", " "))
    return figure

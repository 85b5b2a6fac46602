"""Classes in figures: the branches of a tree and their colours, matrices in tree order, maps with names."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.teaching.plots.style import CMAP, COLOURS, subplots

#: Of branches in tree order, unless a figure says otherwise; notebook 03's text names some.
HUES = ("orange", "sky", "blue", "green", "red", "purple", "brown", "pink", "yellow", "grey")


class Branch(NamedTuple):
    """One branch: its top node, place of its first class in tree order, its classes from there on."""

    node: str
    start: int
    labels: tuple[int, ...]


def main_branches(hierarchy: Hierarchy, most: int, smallest: int = 1) -> list[Branch]:
    """Cut the tree into branches: the largest is opened again and again, as long as that leaves few enough.

    There are at most ``most`` branches of at least ``smallest`` classes. Smaller ones are not counted, and a
    branch that would lose more than a fifth of its classes to them stays whole. All come in tree order, and
    together they hold every class once.
    """
    ranges = _ranges(hierarchy)
    found, closed = [hierarchy.root], set[str]()
    while candidates := [node for node in found if node not in closed]:
        widest = max(candidates, key=lambda node: ranges[node][1])
        children = hierarchy.children.get(widest, ())
        place = found.index(widest)
        opened = [*found[:place], *children, *found[place + 1 :]]
        counted = [node for node in opened if ranges[node][1] >= smallest]
        kept = sum(ranges[child][1] for child in children if ranges[child][1] >= smallest)
        if len(counted) <= most and 5 * kept >= 4 * ranges[widest][1]:
            found = opened
        else:
            closed.add(widest)
    order = hierarchy.order().tolist()
    spans = [(node, *ranges[node]) for node in found]
    return [Branch(node, start, tuple(order[start : start + size])) for node, start, size in spans]


def _ranges(hierarchy: Hierarchy) -> dict[str, tuple[int, int]]:
    """(first place in tree order, number of classes) of every node."""
    ranges: dict[str, tuple[int, int]] = {}
    for place, label in enumerate(hierarchy.order()):
        for node in hierarchy.path_to_root(hierarchy.classes[label]):
            start, size = ranges.get(node, (place, 0))
            ranges[node] = (start, size + 1)
    return ranges


def sisters(hierarchy: Hierarchy) -> list[tuple[int, ...]]:
    """Labels of the classes that share a parent, one tuple a parent: the finest cut of a small tree."""
    under: dict[str, list[int]] = {}
    for label in hierarchy.order().tolist():
        under.setdefault(hierarchy.parent[hierarchy.classes[label]], []).append(label)
    return [tuple(labels) for labels in under.values()]


def class_colours(branches: Sequence[Sequence[int]], hues: Sequence[str] = HUES) -> np.ndarray:
    """(C, 3) RGB in label order: one hue a branch, from light to dark within it: relatives look alike.

    ``branches`` hold labels, together 0 to C − 1; with more of them than ``hues``, these come round again.
    """
    colours = np.zeros((sum(map(len, branches)), 3))
    for number, labels in enumerate(branches):
        hue = np.array(to_rgb(COLOURS[hues[number % len(hues)]]))
        colours[list(labels)] = hue * np.linspace(1, 0.55, len(labels))[:, None]
    return colours


def node_colours(hierarchy: Hierarchy, most: int) -> dict[str, Any]:
    """Node id -> colour for the nodes of at most so many main branches, the way down to each included."""
    found = {}
    for branch, hue in zip(main_branches(hierarchy, most), HUES, strict=False):
        end = branch.start + len(branch.labels)
        for node, (start, size) in _ranges(hierarchy).items():
            if branch.start <= start and start + size <= end:
                found[node] = COLOURS[hue]
    return found


def class_matrices(
    matrices: Mapping[str, np.ndarray], hierarchy: Hierarchy, label: str, *, side: float = 3.6
) -> Figure:
    """Matrices side by side, rows and columns in tree order, under one colour bar from 0 to 1.

    ``matrices``: title -> (C, C) in [0, 1], in label order; up to 30 classes are named. ``label`` is the
    colour bar's, ``side`` that of one matrix in inches.
    """
    order = hierarchy.order()
    names = [hierarchy.names[label] for label in order] if len(order) <= 30 else []
    figure, axes = subplots(1, len(matrices), figsize=(side * len(matrices) + 1.5, side + 1), sharey=True)
    figure.set_layout_engine("compressed")
    for axis, (title, matrix) in zip(axes, matrices.items(), strict=True):
        picture = axis.imshow(matrix[np.ix_(order, order)], cmap=CMAP, vmin=0, vmax=1)
        axis.set_title(title)
        axis.set_xticks(range(len(names)), names, rotation=90)
        axis.set_yticks(range(len(names)), names)
        axis.tick_params(labelsize=8 if len(names) > 12 else 10, length=0)
        axis.spines[:].set_visible(False)
    figure.colorbar(picture, ax=axes, shrink=0.7, label=label, ticks=(0, 0.5, 1))
    return figure


def alpha_ell_grid(
    grid: Mapping[tuple[float, float], Any],
    draw: Callable[[Axes, Any], None],
    hierarchy: Hierarchy,
    colours: np.ndarray,
) -> Figure:
    """One small picture for each setting, alpha growing to the right and ell downwards, both named outside.

    ``grid``: (alpha, ell) -> what ``draw`` draws on its axis, title included. The legend names the classes
    in tree order with their ``colours``, (C, 3) RGB in label order.
    """
    alphas, ells = sorted({a for a, _ in grid}), sorted({e for _, e in grid})
    size = (2.3 * len(alphas), 2.4 * len(ells) + 0.35)
    figure, axes = subplots(len(ells), len(alphas), figsize=size, squeeze=False)
    for row, ell in zip(axes, ells, strict=True):
        for axis, alpha in zip(row, alphas, strict=True):
            draw(axis, grid[alpha, ell])
        row[0].set_ylabel(f"ell = {ell:g}", fontsize=11, weight="bold")
    for axis, alpha in zip(axes[-1], alphas, strict=True):
        axis.set_xlabel(f"alpha = {alpha:g}", fontsize=11, weight="bold")
    dot: dict[str, Any] = {"marker": "o", "ls": ""}
    order = hierarchy.order()
    handles = [Line2D([], [], color=colours[label], label=hierarchy.names[label], **dot) for label in order]
    spacing = {"handletextpad": 0.1, "columnspacing": 0.8 if len(handles) > 8 else 2.0}
    columns = min(len(handles), 2 * len(alphas))
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, **spacing)
    return figure


def plain_frame(axis: Axes, middle: np.ndarray, reach: np.ndarray) -> None:
    """A map's frame: ``reach`` (2,) to all sides of ``middle`` (2,), equal scales, no ticks."""
    (left, low), (right, high) = middle - reach, middle + reach
    axis.set(xlim=(left, right), ylim=(low, high), xticks=[], yticks=[], aspect="equal")
    axis.spines[["top", "right"]].set_visible(True)
    axis.spines[:].set_color("0.85")


def write_names(
    axis: Axes, hierarchy: Hierarchy, means: np.ndarray, points: np.ndarray, colours: np.ndarray
) -> None:
    """Class names beside their means (C, 2), each at the nearest free place, with a line where that is far.

    Names keep clear of each other and of all ``points`` (n, 2); the axis has its limits already.
    """
    low, high = np.transpose([axis.get_xlim(), axis.get_ylim()])
    middle, reach = (low + high) / 2, (high - low)[1] / 2
    height, letter, gap = 0.085 * reach, 0.042 * reach, 0.05 * reach
    frame = (high - low) / 2 - 0.03 * reach
    taken = [np.stack([point - gap, point + gap]) for point in points]  # boxes: (low, high) corners
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    around = [r * reach * np.array([np.cos(a), np.sin(a)]) for r in np.arange(1, 14) * 0.06 for a in angles]
    for label in np.argsort(-np.square(means - middle).sum(axis=1)):  # inwards, to the crowd
        width = letter * len(hierarchy.names[label])
        for shift in around:
            x, y = means[label] + shift
            left = x if shift[0] >= 0 else x - width
            box = np.array([[left, y - height / 2], [left + width, y + height / 2]])
            inside = (np.abs(box - middle) < frame).all()
            if inside and not any((box[0] < b[1]).all() and (b[0] < box[1]).all() for b in taken):
                break
        taken.append(box)
        if np.hypot(*shift) > 0.14 * reach:
            axis.plot(*np.stack([means[label], [x, y]]).T, color=colours[label], lw=0.7, zorder=3)
        axis.text(
            left, y, hierarchy.names[label], color=colours[label] * 0.75, fontsize=8.5, weight="bold",
            va="center", zorder=5, path_effects=[withStroke(linewidth=2, foreground="white")],
        )  # fmt: skip

"""Small multiples: matrices over the classes in tree order, and pictures over alpha and ell."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.teaching.plots.style import CMAP, subplots

Result = TypeVar("Result")


def class_matrices(
    matrices: Mapping[str, np.ndarray], hierarchy: Hierarchy, label: str, *, side: float = 3.6
) -> Figure:
    """Matrices side by side, rows and columns in tree order, under one colour bar from 0 to 1.

    Args:
        matrices: title -> (C, C) in [0, 1], in label order.
        hierarchy: C classes; up to 30 are named.
        label: of the colour bar.
        side: of one matrix, in inches.
    """
    order = hierarchy.order()
    names = [hierarchy.names[label] for label in order] if len(order) <= 30 else []
    size = (side * len(matrices) + 1.5, side + 1)
    figure, axes = subplots(1, len(matrices), figsize=size, sharey=True)
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
    grid: Mapping[tuple[float, float], Result],
    draw: Callable[[Axes, Result], None],
    hierarchy: Hierarchy,
    colours: np.ndarray,
) -> Figure:
    """One small picture for each setting, alpha growing to the right and ell downwards, both named outside.

    Args:
        grid: (alpha, ell) -> what ``draw`` draws, for every pair of an alpha and an ell.
        draw: draws one result on its axis, title included.
        hierarchy: C classes; the legend names them in tree order.
        colours: (C, 3) RGB in label order.
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
    handles = [
        Line2D([], [], marker="o", ls="", color=colours[label], label=hierarchy.names[label])
        for label in hierarchy.order()
    ]
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

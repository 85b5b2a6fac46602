"""Small multiples over alpha and ell, under one legend of the classes' colours."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.teaching.plots.style import subplots

Result = TypeVar("Result")


def alpha_ell_grid(
    grid: Mapping[tuple[float, float], Result],
    draw: Callable[[Axes, Result], None],
    hierarchy: Hierarchy,
    colours: np.ndarray,
    *,
    cell: tuple[float, float],
    legend_height: float,
    column_gap: float = 2.0,
) -> Figure:
    """One small picture for each setting, alpha growing to the right and ell downwards, both named outside.

    Args:
        grid: (alpha, ell) -> what ``draw`` draws, for every pair of an alpha and an ell.
        draw: draws one result on its axis, title included; the axis labels are written here.
        hierarchy: C classes; the legend names them in tree order, two to a column of pictures.
        colours: (C, 3) RGB in label order.
        cell: width and height of one picture, in inches.
        legend_height: inches added for the legend.
        column_gap: between the legend's columns, in font sizes.
    """
    alphas, ells = sorted({a for a, _ in grid}), sorted({e for _, e in grid})
    size = (cell[0] * len(alphas), cell[1] * len(ells) + legend_height)
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
    figure.legend(
        handles=handles, loc="outside upper center", ncols=min(len(handles), 2 * len(alphas)),
        handletextpad=0.1, columnspacing=column_gap,
    )  # fmt: skip
    return figure

"""Notebook 02's panel: points in the plane that arrange themselves when alpha, ell or the tree moves."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import ipywidgets as widgets

from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.losses.arrangement import Arrangement, Setting, arrange
from ckfr_helpers.teaching.plots import loss as loss_plots
from ckfr_helpers.teaching.plots.style import png
from ckfr_helpers.teaching.sliders.controls import alpha_slider, ell_slider, grid_view, named
from ckfr_helpers.teaching.sliders.panel import Panel, View

ALPHAS = (0, 1, 2, 5, 10, 20, 50, 100)
GRID_ALPHAS, GRID_ELLS = (0.0, 2.0, 20.0, 100.0), (0.8, 1.2, 2.0)


def arrangement_view(hierarchy: Hierarchy, result: Arrangement) -> View:
    """Picture and numbers of one arrangement in 2-D."""
    pearson, between, ratio = result.alignment
    setting = result.setting
    numbers = (
        f"alpha {setting.alpha:g}, ell {setting.ell:g} | pairs of different classes: "
        f"{loss_plots.correlation(between)} | all pairs: {loss_plots.correlation(pearson)} | "
        f"same-class / different-class distance {ratio:.2f} | accuracy {result.accuracy:.0%}"
    )
    alt = (
        f"Left: {len(result.labels)} points of {len(hierarchy)} classes in the plane with the tree over "
        f"them. Right: latent distance against tree distance, {loss_plots.correlation(between)}."
    )
    return View(png(loss_plots.arrangement_view(result, hierarchy)), numbers, alt)


def arrangement_panel(trees: Mapping[str, Hierarchy], **settings: Any) -> Panel:
    """The panel over named trees; the first is shown first, and in the static grid.

    ``settings`` are further fields of `arrangement.Setting`, e.g. ``steps`` or ``seed``.
    """

    @lru_cache(maxsize=256)
    def arranged(tree: str, alpha: float, ell: float) -> Arrangement:
        return arrange(trees[tree].distances("path"), Setting(alpha=alpha, ell=round(ell, 3), **settings))

    def compute(tree: str, alpha: float, ell: float) -> View:
        return arrangement_view(trees[tree], arranged(tree, alpha, ell))

    def static() -> View:
        tree = next(iter(trees))
        grid = {(alpha, ell): arranged(tree, alpha, ell) for alpha in GRID_ALPHAS for ell in GRID_ELLS}
        picture = png(loss_plots.arrangement_grid(grid, trees[tree]))
        title = f"{tree} tree: correlation r of latent and tree distances between classes; accuracy"
        return grid_view(
            picture, grid, lambda one: f"r {one.alignment.pearson_between:.2f}, {one.accuracy:.0%}", title,
            "points, each with the tree laid over it",
        )  # fmt: skip

    controls = {
        "alpha": alpha_slider(ALPHAS, 20),
        "ell": ell_slider(),
        "tree": widgets.Dropdown(options=list(trees), **named("tree")),
    }
    return Panel(compute, controls, static, height=410)

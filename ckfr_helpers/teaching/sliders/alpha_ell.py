"""Panels over alpha and ell: points in the plane (notebook 02), frozen latents projected (notebook 03)."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import ipywidgets as widgets
import pandas as pd

from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.losses.arrangement import Arrangement, Setting, arrange
from ckfr_helpers.teaching.plots import loss as loss_plots
from ckfr_helpers.teaching.plots import refit as refit_plots
from ckfr_helpers.teaching.plots.style import png
from ckfr_helpers.teaching.refit import FrozenLatents, Refit, RefitSetting, refit
from ckfr_helpers.teaching.sliders.panel import Panel, View, alpha_slider, named

POINT_ALPHAS, REFIT_ALPHAS = (0, 1, 2, 5, 10, 20, 50, 100), (0, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
GRID_ELLS = (0.8, 1.2, 2.0)  # of both static grids; their alphas:
POINT_GRID, REFIT_GRID = (0.0, 2.0, 20.0, 100.0), (0.0, 0.2, 2.0, 20.0)
STARTS = 5


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
    """Notebook 02: points in the plane that arrange themselves again when alpha, ell or the tree changes.

    The first of the named trees is shown first, and in the static grid. ``settings`` are further fields of
    `arrangement.Setting`, e.g. ``steps`` or ``seed``.
    """

    @lru_cache(maxsize=256)
    def arranged(tree: str, alpha: float, ell: float) -> Arrangement:
        return arrange(trees[tree].distances("path"), Setting(alpha=alpha, ell=round(ell, 3), **settings))

    def compute(tree: str, alpha: float, ell: float) -> View:
        return arrangement_view(trees[tree], arranged(tree, alpha, ell))

    def cell(one: Arrangement) -> str:
        return f"r {one.alignment.pearson_between:.2f}, {one.accuracy:.0%}"

    def static() -> View:
        tree = next(iter(trees))
        grid = {(alpha, ell): arranged(tree, alpha, ell) for alpha in POINT_GRID for ell in GRID_ELLS}
        picture = png(loss_plots.arrangement_grid(grid, trees[tree]))
        title = f"{tree} tree: correlation r of latent and tree distances between classes; accuracy"
        return _grid_view(picture, grid, cell, title, "points, each with the tree laid over it")

    tree = widgets.Dropdown(options=list(trees), **named("tree"))
    return Panel(compute, _alpha_and_ell(POINT_ALPHAS, 20) | {"tree": tree}, static, height=410)


def refit_view(frozen: FrozenLatents, fit: Refit, before: Refit | None = None) -> View:
    """Picture and numbers of one fit, with the one before it as a ghost."""
    numbers = f"now     {_line(fit)}"
    if before is not None:
        numbers += f"\nbefore  {_line(before)}"
    alt = (
        f"Left: {len(fit.latents)} held-out scenes of {len(frozen.hierarchy)} classes and the class means "
        "in a plane, with lines from where the means were before. Right: accuracy, mistake severity and "
        f"latent–tree correlation, now and before. {numbers}"
    )
    picture = png(refit_plots.refit_view(fit, before, frozen.held_out_labels, frozen.hierarchy))
    return View(picture, numbers, alt)


def _line(fit: Refit) -> str:
    setting, scores = fit.setting, fit.scores
    return (
        f"alpha {setting.alpha:<4g} ell {setting.ell:.1f} start {setting.seed + 1} | accuracy "
        f"{scores['top1']:.1%} | mistake severity {scores['mistake_severity']:.2f} | latent–tree r "
        f"{scores['correlation']:.2f}"
    )


def refit_panel(frozen: FrozenLatents, **settings: Any) -> Panel:
    """Notebook 03: accuracy, severity, correlation and a map of the classes, refitted at every move.

    ``settings`` are further fields of `refit.RefitSetting`, e.g. ``steps``.
    """
    shown: list[Refit] = []  # the newest last

    @lru_cache(maxsize=512)
    def fitted(alpha: float, ell: float, start: int) -> Refit:
        return refit(frozen, RefitSetting(alpha=alpha, ell=ell, seed=start - 1, **settings))

    def compute(alpha: float, ell: float, start: int) -> View:
        shown.append(fitted(alpha, round(ell, 3), start))
        return refit_view(frozen, shown[-1], shown[-2] if len(shown) > 1 else None)

    def cell(fit: Refit) -> str:
        top1, severity, r = (fit.scores[name] for name in ("top1", "mistake_severity", "correlation"))
        return f"{top1:.0%} / {severity:.1f} / {r:.2f}"

    def static() -> View:
        grid = {(alpha, ell): fitted(alpha, ell, 1) for alpha in REFIT_GRID for ell in GRID_ELLS}
        picture = png(refit_plots.refit_grid(grid, frozen.held_out_labels, frozen.hierarchy), dpi=80)
        title = "held-out accuracy / mistake severity / latent–tree correlation r, start 1"
        said = "class means: with alpha the large branches of the tree draw apart"
        return _grid_view(picture, grid, cell, title, said)

    start = widgets.IntSlider(value=1, min=1, max=STARTS, **named("start"))
    return Panel(compute, _alpha_and_ell(REFIT_ALPHAS, 2) | {"start": start}, static, height=490)


def _alpha_and_ell(alphas: tuple[float, ...], value: float) -> dict[str, Any]:
    ell = widgets.FloatSlider(value=1.2, min=0.6, max=2.0, step=0.1, readout_format=".1f", **named("ell"))
    return {"alpha": alpha_slider(alphas, value), "ell": ell}


def _grid_view(
    picture: bytes, grid: dict[tuple[float, float], Any], cell: Callable[[Any], str], title: str, shown: str
) -> View:
    alphas, ells = sorted({a for a, _ in grid}), sorted({e for _, e in grid})
    rows = {f"ell = {ell:g}": {f"alpha = {a:g}": cell(grid[a, ell]) for a in alphas} for ell in ells}
    alt = (
        f"{len(grid)} small maps of {shown}; alpha grows to the right from {alphas[0]:g} to {alphas[-1]:g}, "
        f"ell downwards from {ells[0]:g} to {ells[-1]:g}."
    )
    return View(picture, f"{title}\n{pd.DataFrame(rows).T.to_string(col_space=14)}", alt)

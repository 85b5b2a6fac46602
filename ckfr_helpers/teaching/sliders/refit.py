"""Notebook 03's panel: a projection and a classifier that are fitted anew when alpha or ell moves."""

from functools import lru_cache
from typing import Any

import ipywidgets as widgets

from ckfr_helpers.teaching.plots import refit as refit_plots
from ckfr_helpers.teaching.plots.style import png
from ckfr_helpers.teaching.refit import FrozenLatents, Refit, RefitSetting, refit
from ckfr_helpers.teaching.sliders.controls import alpha_slider, ell_slider, grid_view, named
from ckfr_helpers.teaching.sliders.panel import Panel, View

ALPHAS = (0, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
GRID_ALPHAS, GRID_ELLS = (0, 0.2, 2, 20), (0.8, 1.2, 2.0)
STARTS = 5


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


def _cell(fit: Refit) -> str:
    scores = fit.scores
    return f"{scores['top1']:.0%} / {scores['mistake_severity']:.1f} / {scores['correlation']:.2f}"


def _line(fit: Refit) -> str:
    setting, scores = fit.setting, fit.scores
    return (
        f"alpha {setting.alpha:<4g} ell {setting.ell:.1f} start {setting.seed + 1} | accuracy "
        f"{scores['top1']:.1%} | mistake severity {scores['mistake_severity']:.2f} | latent–tree r "
        f"{scores['correlation']:.2f}"
    )


def refit_panel(frozen: FrozenLatents, **settings: Any) -> Panel:
    """Accuracy, severity, correlation and a map of the classes, refitted at every move.

    ``settings`` are further fields of `refit.RefitSetting`, e.g. ``steps``.
    """
    shown: list[Refit] = []  # the newest last

    @lru_cache(maxsize=512)
    def fitted(alpha: float, ell: float, start: int) -> Refit:
        return refit(frozen, RefitSetting(alpha=alpha, ell=ell, seed=start - 1, **settings))

    def compute(alpha: float, ell: float, start: int) -> View:
        shown.append(fitted(alpha, round(ell, 3), start))
        return refit_view(frozen, shown[-1], shown[-2] if len(shown) > 1 else None)

    def static() -> View:
        grid = {(alpha, ell): fitted(alpha, ell, 1) for alpha in GRID_ALPHAS for ell in GRID_ELLS}
        picture = png(refit_plots.refit_grid(grid, frozen.held_out_labels, frozen.hierarchy), dpi=80)
        title = "held-out accuracy / mistake severity / latent–tree correlation r, start 1"
        shown = "class means: with alpha the large branches of the tree draw apart"
        return grid_view(picture, grid, _cell, title, shown)

    controls = {
        "alpha": alpha_slider(ALPHAS, 2),
        "ell": ell_slider(),
        "start": widgets.IntSlider(value=1, min=1, max=STARTS, **named("start")),
    }
    return Panel(compute, controls, static, height=490)

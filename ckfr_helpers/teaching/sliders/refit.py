"""Notebook 03's panel: a projection and a classifier that are fitted anew when alpha or ell moves."""

from functools import lru_cache
from typing import Any

import ipywidgets as widgets

from ckfr_helpers.teaching.plots import refit as refit_plots
from ckfr_helpers.teaching.plots.style import png
from ckfr_helpers.teaching.refit import FrozenLatents, Refit, RefitSetting, refit
from ckfr_helpers.teaching.sliders.controls import alpha_slider, ell_slider, named
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


def _line(fit: Refit) -> str:
    setting, scores = fit.setting, fit.scores
    return (
        f"alpha {setting.alpha:<4g} ell {setting.ell:.1f} start {setting.seed + 1} | accuracy "
        f"{scores['top1']:.1%} | mistake severity {scores['mistake_severity']:.2f} | latent–tree r "
        f"{scores['correlation']:.2f}"
    )


def refit_panel(frozen: FrozenLatents, **settings: Any) -> Panel:
    """Notebook 03: accuracy, severity, correlation and a map of the classes, refitted at every move.

    Args:
        frozen: latents of a frozen network, e.g. from `refit.photo_latents`.
        settings: further fields of `refit.RefitSetting`, e.g. ``steps``.
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
        lines = ["held-out accuracy / mistake severity / latent–tree correlation r, start 1"]
        lines.append(" " * 10 + "".join(f"  alpha = {alpha:<12g}" for alpha in GRID_ALPHAS))
        for ell in GRID_ELLS:
            cells = "".join(
                f"  {one.scores['top1']:4.0%} / {one.scores['mistake_severity']:4.1f} / "
                f"{one.scores['correlation']:4.2f}  "
                for one in (grid[alpha, ell] for alpha in GRID_ALPHAS)
            )
            lines.append(f"ell = {ell:<4g}" + cells)
        alt = (
            f"Twelve small maps of class means, alpha growing to the right from {GRID_ALPHAS[0]} to "
            f"{GRID_ALPHAS[-1]} and ell downwards from {GRID_ELLS[0]} to {GRID_ELLS[-1]}; with alpha the "
            "large branches of the tree draw apart."
        )
        picture = png(refit_plots.refit_grid(grid, frozen.held_out_labels, frozen.hierarchy), dpi=80)
        return View(picture, "\n".join(lines), alt)

    controls = {
        "alpha": alpha_slider(ALPHAS, 2),
        "ell": ell_slider(),
        "start": widgets.IntSlider(value=1, min=1, max=STARTS, **named("start")),
    }
    return Panel(compute, controls, static, height=490)

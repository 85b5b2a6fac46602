"""What panels over alpha and ell share: their sliders, and a static view of a grid of settings."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import ipywidgets as widgets
import pandas as pd

from ckfr_helpers.teaching.sliders.panel import View

Result = TypeVar("Result")


def named(name: str, label_width: int = 45) -> dict[str, Any]:
    """Options of every control: its name beside it, and no new value (a computation) before it is let go."""
    style = {"description_width": f"{label_width}px"}
    return {"description": name, "style": style, "continuous_update": False}


def alpha_slider(alphas: Sequence[float], value: float, label_width: int = 45) -> widgets.SelectionSlider:
    """Alpha by named steps, since useful alphas span orders of magnitude."""
    options = [(f"{alpha:g}", alpha) for alpha in alphas]
    return widgets.SelectionSlider(options=options, value=value, **named("alpha", label_width))


def ell_slider() -> widgets.FloatSlider:
    """Ell from 0.6 to 2 in steps of 0.1; it starts at 1.2, the demo's default."""
    return widgets.FloatSlider(value=1.2, min=0.6, max=2.0, step=0.1, readout_format=".1f", **named("ell"))


def grid_view(
    picture: bytes,
    grid: Mapping[tuple[float, float], Result],
    cell: Callable[[Result], str],
    title: str,
    shown: str,
) -> View:
    """Small multiples over (alpha, ell), with a table of the same; ``shown`` says what a map shows."""
    alphas, ells = sorted({a for a, _ in grid}), sorted({e for _, e in grid})
    table = pd.DataFrame(
        [[cell(grid[alpha, ell]) for alpha in alphas] for ell in ells],
        [f"ell = {ell:g}" for ell in ells],
        [f"alpha = {alpha:g}" for alpha in alphas],
    )
    alt = (
        f"{len(grid)} small maps of {shown}; alpha grows to the right from {alphas[0]:g} to {alphas[-1]:g}, "
        f"ell downwards from {ells[0]:g} to {ells[-1]:g}."
    )
    return View(picture, f"{title}\n{table.to_string(col_space=14)}", alt)

"""The controls that panels share. Sliders wait until they are released: every new value is a computation."""

from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets


def named(name: str, label_width: int = 45) -> dict[str, Any]:
    """Options of every control: its name beside it, and no new value before it is let go."""
    style = {"description_width": f"{label_width}px"}
    return {"description": name, "style": style, "continuous_update": False}


def alpha_slider(alphas: Sequence[float], value: float, label_width: int = 45) -> widgets.SelectionSlider:
    """Alpha by named steps, since useful alphas span orders of magnitude."""
    options = [(f"{alpha:g}", alpha) for alpha in alphas]
    return widgets.SelectionSlider(options=options, value=value, **named("alpha", label_width))


def ell_slider() -> widgets.FloatSlider:
    """Ell from 0.6 to 2 in steps of 0.1; it starts at 1.2, the demo's default."""
    return widgets.FloatSlider(value=1.2, min=0.6, max=2.0, step=0.1, readout_format=".1f", **named("ell"))

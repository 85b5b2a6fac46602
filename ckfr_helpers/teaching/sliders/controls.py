"""The controls that panels share. Sliders wait until they are released: every new value is a computation."""

from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets


def named(name: str, label_width: int = 45) -> dict[str, Any]:
    """Options of every control: its name beside it.

    Args:
        name: the label; the argument of the panel's computing function should be called the same.
        label_width: in pixels; one width for all controls of a panel lines them up.
    """
    return {"description": name, "style": {"description_width": f"{label_width}px"}}


def on_release(name: str, label_width: int = 45) -> dict[str, Any]:
    """Options of every slider: as `named`, and no new value before it is let go."""
    return {**named(name, label_width), "continuous_update": False}


def alpha_slider(alphas: Sequence[float], value: float, label_width: int = 45) -> widgets.SelectionSlider:
    """Alpha by named steps, which may grow: useful alphas span orders of magnitude, and 0 is one of them.

    Args:
        alphas: the steps.
        value: the first one shown; one of ``alphas``.
        label_width: in pixels.
    """
    options = [(f"{alpha:g}", alpha) for alpha in alphas]
    return widgets.SelectionSlider(options=options, value=value, **on_release("alpha", label_width))


def ell_slider() -> widgets.FloatSlider:
    """Ell from 0.6 to 2 in steps of 0.1; it starts at 1.2, the demo's default."""
    return widgets.FloatSlider(
        value=1.2, min=0.6, max=2.0, step=0.1, readout_format=".1f", **on_release("ell")
    )

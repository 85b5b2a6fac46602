"""Live panels: a few controls, one picture, and the numbers under it.

A panel's computing function is an ordinary function from control values to a `View`; it is tested without any
widget. The panel prints a static grid of the same view first, so that a page without a kernel loses nothing,
and keeps its height, so that nothing jumps. ipywidgets 7.7 and 8.
"""

import base64
import html
import traceback
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import ipywidgets as widgets
from IPython.display import Image, display

from ckfr_helpers.arrangement import Arrangement, Setting, arrange
from ckfr_helpers.hierarchy import Hierarchy
from ckfr_helpers.plots import loss as loss_plots
from ckfr_helpers.plots.style import png

ALPHAS = (0, 1, 2, 5, 10, 20, 50, 100)
GRID_ALPHAS, GRID_ELLS = (0, 2, 20, 100), (0.8, 1.2, 2.0)


class View(NamedTuple):
    """What a panel shows.

    Attributes:
        picture: PNG.
        numbers: one line of text, shown under the picture and read out by screen readers when it changes.
        alt: what the picture shows, for readers who cannot see it.
    """

    picture: bytes
    numbers: str
    alt: str


class Panel:
    """Controls above a picture of fixed height, refreshed when a control is released.

    Args:
        compute: from the controls' values, by name, to a `View`.
        controls: name -> ipywidgets control with a ``value``.
        static: the same view for a few settings in one picture, shown before the controls.
        height: of the picture, in pixels.

    Attributes:
        view: the view now shown; None after an exception.
        error: the exception that the last refresh raised, or None.
        widget: the whole panel.
    """

    def __init__(
        self,
        compute: Callable[..., View],
        controls: Mapping[str, Any],
        static: Callable[[], View],
        height: int,
    ) -> None:
        self.compute, self.controls, self.static = compute, dict(controls), static
        self.view: View | None = None
        self.error: Exception | None = None
        self._static_shown = False
        self._picture = widgets.HTML(layout=widgets.Layout(height=f"{height + 10}px", overflow="auto"))
        self._numbers = widgets.HTML(layout=widgets.Layout(height="48px"))
        for control in self.controls.values():
            control.observe(self._changed, names="value")
        self.widget = widgets.VBox(
            [widgets.HBox(list(self.controls.values()), layout=widgets.Layout(flex_flow="row wrap")),
             self._picture, self._numbers]
        )  # fmt: skip
        self.refresh()

    def _changed(self, _change: object) -> None:
        self.refresh()

    def refresh(self) -> None:
        """Compute and show the view for the controls' present values.

        Raises:
            Exception: whatever ``compute`` raises, after the panel has shown it; it is kept in ``error``.
        """
        self._numbers.value = _status("computing …")
        try:
            view = self.compute(**{name: control.value for name, control in self.controls.items()})
        except Exception as error:
            # A widget's front end swallows exceptions: show it here, and raise it too, so that a run of the
            # notebook fails.
            self.view, self.error = None, error
            self._picture.value = f"<pre style='color:#a00'>{html.escape(traceback.format_exc())}</pre>"
            self._numbers.value = _status(f"{type(error).__name__}: {error}")
            raise
        self.view, self.error = view, None
        data = base64.b64encode(view.picture).decode()
        self._picture.value = (
            f'<img src="data:image/png;base64,{data}" alt="{html.escape(view.alt)}" style="max-width:100%">'
        )
        self._numbers.value = _status(view.numbers)

    def show_static(self) -> None:
        """Display the static grid."""
        view = self.static()
        display(Image(data=view.picture, format="png", alt=view.alt))
        print(view.numbers)
        self._static_shown = True

    def show(self) -> None:
        """Display the live panel, and before it the static grid unless that is already on the page."""
        if not self._static_shown:
            self.show_static()
        display(self.widget)


def _status(text: str) -> str:
    return f'<div role="status" style="font-family:monospace;line-height:1.4">{html.escape(text)}</div>'


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

    Args:
        trees: name -> tree; the first is shown first, and in the static grid.
        settings: further fields of `arrangement.Setting`, e.g. ``steps`` or ``seed``.

    Returns:
        The panel; ``panel.show()`` displays it.
    """

    @lru_cache(maxsize=256)
    def arranged(tree: str, alpha: float, ell: float) -> Arrangement:
        return arrange(trees[tree].distances("path"), Setting(alpha=alpha, ell=round(ell, 3), **settings))

    def compute(tree: str, alpha: float, ell: float) -> View:
        return arrangement_view(trees[tree], arranged(tree, alpha, ell))

    def static() -> View:
        tree = next(iter(trees))
        grid = {(alpha, ell): arranged(tree, alpha, ell) for alpha in GRID_ALPHAS for ell in GRID_ELLS}
        lines = [f"{tree} tree: correlation r of latent and tree distances between classes; accuracy"]
        lines.append(" " * 10 + "".join(f"   alpha = {alpha:<7g}" for alpha in GRID_ALPHAS))
        for ell in GRID_ELLS:
            row = [grid[alpha, ell] for alpha in GRID_ALPHAS]
            cells = "".join(f"   r {one.alignment.pearson_between:5.2f}, {one.accuracy:4.0%} " for one in row)
            lines.append(f"ell = {ell:<4g}" + cells)
        alt = (
            f"Twelve small maps of points, alpha growing to the right from {GRID_ALPHAS[0]} to "
            f"{GRID_ALPHAS[-1]} and ell downwards from {GRID_ELLS[0]} to {GRID_ELLS[-1]}, each with the tree "
            "laid over it."
        )
        return View(png(loss_plots.arrangement_grid(grid, trees[tree])), "\n".join(lines), alt)

    wide = {"description_width": "45px"}
    controls = {
        "alpha": widgets.SelectionSlider(
            options=ALPHAS, value=20, description="alpha", continuous_update=False, style=wide
        ),
        "ell": widgets.FloatSlider(
            value=1.2, min=0.6, max=2.0, step=0.1, description="ell", continuous_update=False, style=wide,
            readout_format=".1f",
        ),
        "tree": widgets.Dropdown(options=list(trees), description="tree", style=wide),
    }  # fmt: skip
    return Panel(compute, controls, static, height=410)

"""Live panels: a few controls, one picture, and the numbers under it. ipywidgets 7.7 and 8."""

from ckfr_helpers.teaching.sliders.alpha_ell import arrangement_panel, refit_panel
from ckfr_helpers.teaching.sliders.panel import Panel, View

__all__ = ["Panel", "View", "arrangement_panel", "refit_panel"]

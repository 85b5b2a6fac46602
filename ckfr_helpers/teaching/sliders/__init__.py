"""Live panels: a few controls, one picture, and the numbers under it. ipywidgets 7.7 and 8.

`panel` holds the panel itself and `controls` what several panels are moved by; each of the other files holds
one panel's computing function, an ordinary function from control values to a `View`, which is tested without
any widget.
"""

from ckfr_helpers.teaching.sliders.arrangement import arrangement_panel, arrangement_view
from ckfr_helpers.teaching.sliders.panel import Panel, Superseded, View, give_way
from ckfr_helpers.teaching.sliders.refit import refit_panel, refit_view

__all__ = [
    "Panel",
    "Superseded",
    "View",
    "arrangement_panel",
    "arrangement_view",
    "give_way",
    "refit_panel",
    "refit_view",
]

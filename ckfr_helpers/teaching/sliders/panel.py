"""The panel: controls above a picture of fixed height, with at most one computation under way.

A callback that computes would hold up every later move of a slider. Here a move only notes what is wanted;
one worker thread computes it, and leaves out every move that a newer one has overtaken.
"""

import base64
import html
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import ipywidgets as widgets
from IPython.display import Image, Javascript, display

# A slider's handle has no name for a screen reader, and tells the place of its step instead of the value.
SPEAKING_HANDLES = """
const tell = () => document.querySelectorAll('.ckfr-panel .widget-inline-hbox').forEach(row => {
  const handle = row.querySelector('.noUi-handle'), readout = row.querySelector('.widget-readout');
  if (!handle || !readout) return;
  const said = {'aria-label': row.querySelector('.widget-label').textContent.trim(),
                'aria-valuetext': readout.textContent.trim()};
  for (const name in said) handle.setAttribute(name, said[name]);
});
new MutationObserver(tell).observe(document.body, {subtree: true, childList: true, characterData: true});
tell();
"""


class View(NamedTuple):
    """A picture (PNG or JPEG), one or two lines of text under it, and words for who cannot see it."""

    picture: bytes
    numbers: str
    alt: str


class Panel:
    """Controls above a picture of fixed height, refreshed when a control is released.

    The first view is there when the constructor returns. Draw with `plots.style.subplots`, since a worker
    thread computes the later ones. ``view`` is the one shown; None after an exception, which is ``error``.
    ``compute`` gets the controls' values by name, and never runs twice at the same time; ``static`` gives the
    same view for a few settings in one picture; ``height`` is the picture's, in pixels.
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
        self.error: BaseException | None = None
        self._static_shown = False
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="panel")
        self._lock = threading.Lock()
        self._moves = 0
        self._newest: Future[None] = Future()
        self._picture = widgets.HTML(layout=widgets.Layout(height=f"{height + 10}px", overflow="auto"))
        self._numbers = widgets.HTML(layout=widgets.Layout(height="48px", overflow="auto"))
        for control in self.controls.values():
            control.observe(self._moved, names="value")
        row = widgets.HBox(list(self.controls.values()), layout=widgets.Layout(flex_flow="row wrap"))
        self.widget = widgets.VBox([row, self._picture, self._numbers])
        self.widget.add_class("ckfr-panel")
        self._moved()
        self.wait()

    def wait(self, timeout: float | None = None) -> None:
        """Return when the newest view is shown, or raise what ``compute`` raised; or time out (seconds)."""
        self._newest.result(timeout)
        if self.error is not None:
            raise self.error

    def show_static(self) -> None:
        """Display the static grid."""
        view = self.static()
        display(Image(data=view.picture, alt=view.alt))
        print(view.numbers)
        self._static_shown = True

    def show(self) -> None:
        """Display the live panel, and before it the static grid unless that is already on the page."""
        if not self._static_shown:
            self.show_static()
        display(self.widget)
        display(Javascript(SPEAKING_HANDLES))

    def _moved(self, _change: object = None) -> None:
        with self._lock:
            self._moves += 1
            values = {name: control.value for name, control in self.controls.items()}
            self._numbers.value = _status("computing …")
            self._newest = self._worker.submit(self._update, self._moves, values)

    def _update(self, move: int, values: dict[str, Any]) -> None:
        if move != self._moves:
            return
        view: View | None = None
        error: BaseException | None = None
        try:
            view = View(*self.compute(**values))
            kind = "jpeg" if view.picture[:2] == b"\xff\xd8" else "png"
            source = f"data:image/{kind};base64,{base64.b64encode(view.picture).decode()}"
            picture = f'<img src="{source}" alt="{html.escape(view.alt)}" style="max-width:100%">'
            numbers = view.numbers
        except Exception as raised:
            # Front ends swallow what a callback raises: show it here, and keep it for `wait`.
            error = raised
            text = "".join(traceback.format_exception(raised))
            picture = f"<pre style='color:#a00'>{html.escape(text)}</pre>"
            numbers = f"{type(raised).__name__}: {raised}"
        with self._lock:
            if move == self._moves:
                self.view, self.error = view, error
                self._picture.value, self._numbers.value = picture, _status(numbers)


def named(name: str, label_width: int = 45) -> dict[str, Any]:
    """Options of every control: its name beside it, and no new value (a computation) before it is let go."""
    style = {"description_width": f"{label_width}px"}
    return {"description": name, "style": style, "continuous_update": False}


def alpha_slider(alphas: Sequence[float], value: float, label_width: int = 45) -> widgets.SelectionSlider:
    """Alpha by named steps, since useful alphas span orders of magnitude."""
    options = [(f"{alpha:g}", alpha) for alpha in alphas]
    return widgets.SelectionSlider(options=options, value=value, **named("alpha", label_width))


def _status(text: str) -> str:
    style = "font-family:monospace;line-height:1.4;white-space:pre-wrap"
    return f'<div role="status" style="{style}">{html.escape(text)}</div>'

"""The panel: controls above a picture of fixed height, with at most one computation under way.

A kernel handles its messages one after another, so a callback that computes holds up every later move of a
slider. Here a move only notes what is wanted; one worker thread computes it. A newer move replaces the one
that waits, and a computation that calls `give_way` ends at once when nobody wants it any more.
"""

import base64
import html
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ipywidgets as widgets
from IPython.display import Image, display


class View(NamedTuple):
    """What a panel shows.

    Attributes:
        picture: PNG, or JPEG for photographs.
        numbers: text of one or two lines, shown under the picture.
        alt: what the picture shows, for readers who cannot see it.
        state: not shown; whatever the next computation wants to find in ``panel.view``, e.g. for a ghost.
    """

    picture: bytes
    numbers: str
    alt: str
    state: Any = None


class Superseded(Exception):
    """Ends a computation whose result nobody waits for any more; see `give_way`."""


_thread = threading.local()


def give_way() -> None:
    """Long computations call this now and then: it ends them when a control has moved on in the meantime.

    Outside a panel it does nothing, so that a computing function can be called and tested alone.

    Raises:
        Superseded: to be let through.
    """
    superseded = getattr(_thread, "superseded", None)
    if superseded is not None and superseded():
        raise Superseded


class Panel:
    """Controls above a picture of fixed height, refreshed when a control is released.

    The first view is there when the constructor returns. Later ones are computed by a worker thread: draw
    them with `plots.style.subplots`, which keeps figures away from pyplot and the cells that use it.

    Args:
        compute: from the controls' values, by name, to a `View`. Never runs twice at the same time.
        controls: name -> ipywidgets control with a ``value``.
        static: the same view for a few settings in one picture, shown before the controls.
        height: of the picture, in pixels.

    Attributes:
        view: the view now shown; None after an exception.
        error: the exception that the newest computation raised, or None.
        widget: the whole panel.

    Raises:
        Exception: whatever ``compute`` raises for the controls' first values.
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
        self._lock = threading.RLock()
        self._idle = threading.Condition(self._lock)
        self._newest = 0  # how many views have been asked for
        self._wanted: dict[str, Any] | None = None  # the one that waits
        self._working = False
        self._picture = widgets.HTML(layout=widgets.Layout(height=f"{height + 10}px", overflow="auto"))
        self._numbers = widgets.HTML(layout=widgets.Layout(height="48px", overflow="auto"))
        for control in self.controls.values():
            control.observe(self._changed, names="value")
        self.widget = widgets.VBox(
            [widgets.HBox(list(self.controls.values()), layout=widgets.Layout(flex_flow="row wrap")),
             self._picture, self._numbers]
        )  # fmt: skip
        self.widget.add_class("ckfr-panel")
        self.refresh()

    def refresh(self) -> None:
        """Compute the view for the controls' present values anew, and wait until it is shown.

        Raises:
            Exception: as `wait`.
        """
        self._ask()
        self.wait()

    def wait(self, timeout: float | None = None) -> None:
        """Return when the view for the newest control values is shown. A notebook's check calls this.

        Args:
            timeout: seconds to wait at most.

        Raises:
            Exception: what ``compute`` raised for these values; the panel shows it too.
            TimeoutError: if it takes longer.
        """
        with self._idle:
            if not self._idle.wait_for(lambda: not self._working, timeout):
                raise TimeoutError(f"The panel was still computing after {timeout:g} s.")
            if self.error is not None:
                raise self.error

    def show_static(self) -> None:
        """Display the static grid."""
        view = self.static()
        display(Image(data=view.picture, format=_format(view.picture), alt=view.alt))
        print(view.numbers)
        self._static_shown = True

    def show(self) -> None:
        """Display the live panel, and before it the static grid unless that is already on the page."""
        if not self._static_shown:
            self.show_static()
        display(self.widget)

    def _changed(self, _change: object) -> None:
        self._ask()

    def _ask(self) -> None:
        with self._lock:
            self._newest += 1
            self._wanted = {name: control.value for name, control in self.controls.items()}
            self._numbers.value = _status("computing …")
            if not self._working:
                self._working = True
                threading.Thread(target=self._work, name="panel", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                if self._wanted is None:
                    self._working = False
                    self._idle.notify_all()
                    return
                number, values, self._wanted = self._newest, self._wanted, None
            _thread.superseded = lambda number=number: number != self._newest
            try:
                view, error = View(*self.compute(**values)), None
                picture, numbers = _picture(view), _status(view.numbers)
            except BaseException as raised:  # a thread that dies would leave `wait` waiting
                # Front ends swallow what a callback raises: show it here, and keep it for `wait`.
                view, error = None, raised
                text = "".join(traceback.format_exception(raised))
                picture = f"<pre style='color:#a00'>{html.escape(text)}</pre>"
                numbers = _status(f"{type(raised).__name__}: {raised}")
            with self._lock:
                if number == self._newest:
                    self.view, self.error = view, error
                    self._picture.value, self._numbers.value = picture, numbers


def _picture(view: View) -> str:
    data = base64.b64encode(view.picture).decode()
    source = f"data:image/{_format(view.picture)};base64,{data}"
    return f'<img src="{source}" alt="{html.escape(view.alt)}" style="max-width:100%">'


def _format(picture: bytes) -> str:
    return "jpeg" if picture[:2] == b"\xff\xd8" else "png"


def _status(text: str) -> str:
    style = "font-family:monospace;line-height:1.4;white-space:pre-wrap"
    return f'<div role="status" style="{style}">{html.escape(text)}</div>'

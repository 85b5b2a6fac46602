"""Panels: the computing function alone, controls through their values, moves that overtake each other."""

import inspect
import io
import threading

import ipywidgets as widgets
import matplotlib.pyplot as plt
import pytest
from PIL import Image

from ckfr_helpers.losses.arrangement import Setting, arrange, small_trees
from ckfr_helpers.teaching.plots.style import use_style
from ckfr_helpers.teaching.sliders import Panel, View, arrangement_panel
from ckfr_helpers.teaching.sliders.alpha_ell import arrangement_view

TREES = small_trees()
PIXEL = b"\x89PNG"


@pytest.fixture(scope="module")
def panel():
    use_style()
    return arrangement_panel(TREES, steps=15)


def move(panel: Panel, name: str, value) -> None:
    panel.controls[name].value = value
    panel.wait(timeout=60)


def dial(compute, **options) -> Panel:
    """A panel of one slider x."""
    slider = widgets.IntSlider(value=0, min=0, max=9, continuous_update=False)
    return Panel(compute, {"x": slider}, lambda: View(PIXEL, "", ""), height=100, **options)


def size_of(picture: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(picture)).size


def test_the_view_is_computed_without_a_widget():
    result = arrange(TREES["balanced"].distances("path"), Setting(alpha=5, steps=15))
    view = arrangement_view(TREES["balanced"], result)
    assert size_of(view.picture) == (840, 410)
    assert f"different classes: r = {result.alignment.pearson_between:.2f}" in view.numbers
    assert "alpha 5, ell 1.2" in view.numbers
    assert "24 points of 8 classes" in view.alt


def test_every_control_changes_the_picture_and_the_numbers_at_one_height(panel):
    seen = [panel.view]
    for name, value in (("alpha", 100), ("ell", 1.8), ("tree", "lopsided"), ("tree", "flat")):
        move(panel, name, value)
        assert panel.error is None
        assert panel.view.numbers not in [view.numbers for view in seen]
        assert panel.view.picture not in [view.picture for view in seen]
        assert panel.view.numbers.split("|")[0].strip() in panel.widget.children[2].value
        seen.append(panel.view)
    assert len({size_of(view.picture) for view in seen}) == 1
    assert "undefined" in panel.view.numbers  # the flat tree has one distance between classes


def test_controls_wait_for_the_release_and_are_labelled(panel):
    for name, control in panel.controls.items():
        assert control.description == name
        assert getattr(control, "continuous_update", False) is False
    wanted = set(inspect.signature(panel.compute).parameters)
    assert wanted == set(panel.controls)


def test_the_static_grid_comes_first_and_once(panel, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr("ckfr_helpers.teaching.sliders.panel.display", shown.append)
    panel.show()
    assert [type(item).__name__ for item in shown] == ["Image", "VBox", "Javascript"]
    assert "small maps" in shown[0].alt
    assert capsys.readouterr().out.count("alpha = ") == 4
    shown.clear()
    panel.show()
    assert [type(item).__name__ for item in shown] == ["VBox", "Javascript"]


class Broken(RuntimeError):
    pass


def test_an_exception_is_shown_kept_and_raised_by_wait_and_the_panel_recovers():
    def compute(x: int) -> View:
        if x == 2:
            raise Broken("two is <not> allowed")
        return View(PIXEL, f"x is {x}", "a dot")

    panel = dial(compute)
    panel.controls["x"].value = 2
    with pytest.raises(Broken):
        panel.wait(timeout=10)
    assert isinstance(panel.error, Broken)
    assert panel.view is None
    assert "two is &lt;not&gt; allowed" in panel.widget.children[1].value
    assert "Traceback" in panel.widget.children[1].value
    with pytest.raises(Broken):  # a check that comes later fails as well
        panel.wait(timeout=10)
    move(panel, "x", 3)
    assert panel.error is None
    assert "x is 3" in panel.widget.children[2].value
    assert "Traceback" not in panel.widget.children[1].value


def test_what_is_no_view_is_an_error_and_nobody_waits_for_ever():
    panel = dial(lambda x: View(PIXEL, "fine", "a dot") if x == 0 else None)
    panel.controls["x"].value = 1
    with pytest.raises(TypeError):
        panel.wait(timeout=10)


class Gate:
    """A computation that stands still until it is let through, and keeps a book."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.begun: list[int] = []
        self.inside = 0
        self.most_inside = 0

    def __call__(self, x: int) -> View:
        self.begun.append(x)
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        self.entered.set()
        self.open.wait(10)
        self.inside -= 1
        return View(PIXEL, f"x is {x}", "a dot")


def test_moves_during_a_computation_do_not_wait_and_only_the_newest_is_computed():
    gate = Gate()
    panel = dial(gate)
    seen = []
    panel.widget.children[2].observe(lambda change: seen.append(change["new"]), names="value")
    gate.open.clear()
    gate.entered.clear()
    panel.controls["x"].value = 1
    assert gate.entered.wait(10)
    for x in (2, 3, 4, 5):  # each returns at once, though the gate is closed
        panel.controls["x"].value = x
    assert "computing" in panel.widget.children[2].value
    with pytest.raises(TimeoutError):
        panel.wait(timeout=0.05)
    gate.open.set()
    panel.wait(timeout=10)
    assert gate.begun == [0, 1, 5]
    assert gate.most_inside == 1
    assert panel.view.numbers == "x is 5"
    assert not [text for text in seen if "x is" in text and "x is 5" not in text]  # 1 was never shown


def test_a_panel_draws_no_figure_that_pyplot_knows(panel, monkeypatch):
    made = []
    monkeypatch.setattr(plt, "figure", lambda *_args, **_options: made.append("figure"))
    before = plt.get_fignums()
    move(panel, "alpha", 5 if panel.controls["alpha"].value != 5 else 10)
    assert made == []
    assert plt.get_fignums() == before

"""Panels: the computing function alone, the controls through their values, exceptions that stay visible."""

import inspect
import io

import numpy as np
import pytest
from PIL import Image

from ckfr_helpers.arrangement import Setting, arrange, small_trees
from ckfr_helpers.plots.style import use_style
from ckfr_helpers.sliders import Panel, View, arrangement_panel, arrangement_view

TREES = small_trees()
PIXEL = b"\x89PNG"


@pytest.fixture(scope="module")
def panel():
    use_style()
    return arrangement_panel(TREES, steps=15)


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
        panel.controls[name].value = value
        assert panel.error is None
        assert panel.view.numbers not in [view.numbers for view in seen]
        assert panel.view.picture not in [view.picture for view in seen]
        assert panel.view.numbers.split("|")[0].strip() in panel.widget.children[2].value
        seen.append(panel.view)
    assert len({size_of(view.picture) for view in seen}) == 1
    assert "undefined" in panel.view.numbers  # the flat tree has one distance between classes


def test_going_back_shows_the_first_view_again(panel):
    panel.controls["tree"].value = "balanced"
    before = panel.view
    panel.controls["alpha"].value = 2
    panel.controls["alpha"].value = 100
    assert panel.view == before


def test_controls_wait_for_the_release_and_are_labelled(panel):
    for name, control in panel.controls.items():
        assert control.description == name
        assert getattr(control, "continuous_update", False) is False
    wanted = set(inspect.signature(panel.compute).parameters)
    assert wanted == set(panel.controls)


def test_the_picture_carries_its_alt_text_and_a_fixed_height(panel):
    picture = panel.widget.children[1]
    assert 'alt="Left: ' in picture.value
    assert picture.layout.height.endswith("px")
    assert 'role="status"' in panel.widget.children[2].value


def test_the_static_grid_comes_first_and_once(panel, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr("ckfr_helpers.sliders.display", shown.append)
    panel.show()
    assert [type(item).__name__ for item in shown] == ["Image", "VBox"]
    assert "small maps" in shown[0].alt
    assert capsys.readouterr().out.count("alpha = ") == 4
    shown.clear()
    panel.show()
    assert [type(item).__name__ for item in shown] == ["VBox"]


class Broken(RuntimeError):
    pass


def test_an_exception_is_shown_kept_and_raised_and_the_panel_recovers():
    import ipywidgets as widgets

    def compute(x: int) -> View:
        if x == 2:
            raise Broken("two is <not> allowed")
        return View(PIXEL, f"x is {x}", "a dot")

    slider = widgets.IntSlider(value=1, min=0, max=5, continuous_update=False)
    panel = Panel(compute, {"x": slider}, lambda: View(PIXEL, "", ""), height=100)
    with pytest.raises(Broken):
        slider.value = 2
    assert isinstance(panel.error, Broken)
    assert panel.view is None
    assert "two is &lt;not&gt; allowed" in panel.widget.children[1].value
    assert "Traceback" in panel.widget.children[1].value
    slider.value = 3
    assert panel.error is None
    assert "x is 3" in panel.widget.children[2].value
    assert "Traceback" not in panel.widget.children[1].value


def test_a_panel_that_cannot_start_says_so_at_once():
    def compute() -> View:
        raise Broken("no data")

    with pytest.raises(Broken, match="no data"):
        Panel(compute, {}, lambda: View(PIXEL, "", ""), height=100)


def test_the_slider_finds_what_the_grid_shows(panel):
    """One setting, one arrangement, wherever it is shown."""
    panel.controls["tree"].value = "balanced"
    panel.controls["alpha"].value = 20
    panel.controls["ell"].value = 1.2
    expected = arrange(TREES["balanced"].distances("path"), Setting(alpha=20, ell=1.2, steps=15))
    assert f"all pairs: r = {expected.alignment.pearson:.2f} " in panel.view.numbers
    assert np.isfinite(expected.latents).all()

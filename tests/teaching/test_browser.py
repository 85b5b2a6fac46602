"""Panels as a reader meets them: JupyterLab in Chromium, sliders moved by mouse and by keyboard."""

import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import lab_panel  # noqa: E402

# The static grid is a dozen more fits and tests nothing here; the whole notebooks are run by nbmake.
NO_GRID = {"panel.show_static()": "panel.static = lambda: panel.view"}
# One line for each notebook with a panel: its number, the slider that is moved, and less work before it.
PANELS = [
    pytest.param("02", "alpha", NO_GRID, id="02"),
    pytest.param("03", "alpha", NO_GRID | {"scenes=16, held_out_scenes=10": "scenes=4, held_out_scenes=2"},
                 id="03", marks=pytest.mark.photos),
    pytest.param("04", "alpha", NO_GRID | {"(0, 5, 20, 80), bias=0.9)": "(0, 20, 80), bias=0.9, scenes=2)"},
                 id="04", marks=pytest.mark.photos),
    pytest.param("05", "classes", NO_GRID | {"returns=4, distractors=60, inst": "returns=1, distractors=3, inst"},  # noqa: E501
                 id="05", marks=pytest.mark.photos),
]  # fmt: skip

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(
        lab_panel.chromium() is None,
        reason="no Chromium here (Debian: apt-get install chromium); the panels are not tried in a browser",
    ),
]


def until(condition, what: str, seconds: float = 300) -> None:
    """Wait for a condition, and fail with a sentence."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds:g} s"
        time.sleep(0.05)


def settled(panel: lab_panel.OpenPanel, control: str) -> bool:
    """The kernel knows of the newest move, computes nothing more, and the page shows what it found."""
    numbers = panel.evaluate("(panel.wait(), panel.view.numbers)[1]")
    return panel.numbers == numbers and float(panel.readout(control)) == value(panel, control)


def first_line(text: str) -> str:
    return text.splitlines()[0]


def own_numbers(panel: lab_panel.OpenPanel) -> str:
    """The computing function alone, called with the values of the controls."""
    call = "panel.compute(**{name: control.value for name, control in panel.controls.items()}).numbers"
    return first_line(panel.evaluate(call))


def height(panel: lab_panel.OpenPanel) -> float:
    box = panel.root.bounding_box()
    assert box is not None
    return box["height"]


def value(panel: lab_panel.OpenPanel, control: str) -> float:
    return panel.evaluate(f"panel.controls[{control!r}].value")


def check_moved(panel: lab_panel.OpenPanel, control: str, picture: str, numbers: str, before: float) -> None:
    """Another picture, and the numbers of the new value as the computing function gives them."""
    until(lambda: panel.picture != picture, "a new picture")
    until(lambda: settled(panel, control), "the panel at rest")
    assert value(panel, control) != before
    assert panel.numbers != numbers
    assert first_line(panel.numbers) == own_numbers(panel)


@pytest.fixture(scope="module")
def lab():
    with lab_panel.open_lab() as lab:
        yield lab


@pytest.mark.parametrize(("number", "control", "changes"), PANELS)
def test_the_panel_follows_mouse_and_keyboard(number, control, changes, lab):
    (book,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    with lab.open(book, changes) as panel:
        tall = height(panel)
        assert len(panel.root.locator("img").get_attribute("alt")) > 40
        assert first_line(panel.numbers) == own_numbers(panel)

        picture, numbers, before = panel.picture, panel.numbers, value(panel, control)
        panel.drag(control, 0.98)
        check_moved(panel, control, picture, numbers, before)
        assert height(panel) == tall

        picture, numbers, before = panel.picture, panel.numbers, value(panel, control)
        panel.handle(control).focus()
        panel.page.keyboard.press("ArrowLeft")
        check_moved(panel, control, picture, numbers, before)
        assert value(panel, control) < before
        assert height(panel) == tall
        # What a screen reader says of the handle: the control's name and its value, not the step's number.
        handle = panel.handle(control)
        assert handle.get_attribute("aria-label") == control
        assert handle.get_attribute("aria-valuetext") == panel.readout(control)

        # Five moves at once: the last one counts, whatever was being computed.
        picture, numbers, before = panel.picture, panel.numbers, value(panel, control)
        for key in ("ArrowLeft", "ArrowLeft", "ArrowLeft", "ArrowRight", "ArrowLeft"):
            panel.page.keyboard.press(key)
        check_moved(panel, control, picture, numbers, before)
        assert height(panel) == tall
        assert panel.evaluate("panel.error") is None


def test_every_notebook_with_a_panel_is_tried():
    assert {param.values[0] for param in PANELS} == {path.name[:2] for path in lab_panel.books_with_panels()}

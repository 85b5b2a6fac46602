"""The growth figure: slopes that are known, lines that are drawn."""

import numpy as np
import pytest

from ckfr_helpers.teaching.plots.scaling import growth, scaling_figure


def result(exponent: float = 2.0) -> dict:
    rows = [
        {
            "what": what,
            "batch": batch,
            "classes": classes,
            "seconds": factor * 1e-6 * batch**exponent,
            "added_mb": factor * 1e-4 * batch**exponent,
        }
        for what, numbers, factor in (("loss", (10, 100, 1000), 1.0), ("step", (100,), 2.0))
        for batch in (32, 64, 512, 1024, 4096)
        for classes in numbers
    ]
    return {"rows": rows}


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0])
def test_growth_finds_the_exponent(exponent):
    made = result(exponent)
    made["rows"][0]["seconds"] *= 100  # a small batch's fixed cost is left out
    assert growth(made["rows"], "loss", "seconds") == pytest.approx(exponent)
    assert growth(made["rows"], "step", "added_mb") == pytest.approx(exponent)


def test_the_figure_draws_what_was_measured_and_the_order_through_its_last_point():
    time, memory = scaling_figure(result()).axes
    labels = [line.get_label() for line in time.lines]
    assert labels == [
        "loss, 10 classes",
        "loss, 100 classes",
        "loss, 1000 classes",
        "whole step",
        "step, alpha 0",
        "B² log B  (expected)",
    ]
    np.testing.assert_allclose(time.lines[0].get_ydata(), [1e-6 * b**2 for b in (32, 64, 512, 1024, 4096)])
    expected = memory.lines[-1]
    batches, values = expected.get_xdata(), expected.get_ydata()
    np.testing.assert_allclose(values, memory.lines[1].get_ydata())  # B² through the last point is the line
    assert batches.tolist() == [32, 64, 512, 1024, 4096]
    assert time.get_xscale() == time.get_yscale() == "log"

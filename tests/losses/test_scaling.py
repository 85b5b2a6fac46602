"""The growth figure and the benchmarks' stopwatch: slopes that are known, memory that is known."""

import gc
import sys
from pathlib import Path

import numpy as np
import pytest

from ckfr_helpers.teaching.plots.scaling import growth, scaling_figure

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import measuring


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
        "B² log B  (expected)",
    ]
    np.testing.assert_allclose(time.lines[0].get_ydata(), [1e-6 * b**2 for b in (32, 64, 512, 1024, 4096)])
    expected = memory.lines[-1]
    batches, values = expected.get_xdata(), expected.get_ydata()
    np.testing.assert_allclose(values, memory.lines[1].get_ydata())  # B² through the last point is the line
    assert batches.tolist() == [32, 64, 512, 1024, 4096]
    assert time.get_xscale() == time.get_yscale() == "log"


def _hold(mb: int) -> float:
    return measuring.added_memory(lambda: np.ones(mb * 2**17).sum(), "cpu")


def test_added_memory_is_what_the_work_held():
    """In this process the peak may be past already; the benchmarks measure in fresh ones."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("a peak can be started anew on Linux only")
    gc.collect()  # what other tests left must not go between the two peaks
    Path("/proc/self/clear_refs").write_text("5")
    assert _hold(200) == pytest.approx(200, rel=0.1)
    assert measuring.added_memory(lambda: np.ones(100 * 2**17).sum(), "cpu", warm=True) == pytest.approx(
        100, rel=0.1
    )


def test_the_clock_of_a_cpu_counts_work_and_not_waiting():
    import time

    seconds = measuring.median_seconds(
        {"waits": lambda: time.sleep(0.05), "works": lambda: sum(range(300_000))}, "cpu", repeats=3
    )
    assert seconds["waits"] < 0.02
    assert seconds["works"] > seconds["waits"]

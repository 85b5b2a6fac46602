"""Figure of ``benchmarks/scaling.py``: seconds and memory against batch size, beside the expected orders."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ckfr_helpers.teaching.plots.style import BASELINE, COLOURS, OURS

STEPS = (("step", COLOURS["orange"], "whole step"), ("step without the loss", BASELINE, "step, alpha 0"))


def scaling_figure(result: Mapping[str, Any]) -> Figure:
    """Time and added peak memory, log-log: the loss by number of classes, and a training step with it.

    Args:
        result: ``runtime.load_result("scaling_cpu")``.

    Returns:
        Two panels. Dashed: B² log B for time and B² for memory, drawn through the loss's largest batch, so
        that a measured line above it on its way there grows more slowly than the order says.
    """
    figure, (time, memory) = plt.subplots(1, 2, figsize=(10, 3.8))
    _panel(time, result["rows"], "seconds", lambda b: b**2 * np.log2(b), "B² log B")
    _panel(memory, result["rows"], "added_mb", lambda b: b**2, "B²")
    time.set(title="time of one step", ylabel="seconds")
    memory.set(title="peak memory above what was held before", ylabel="MB")
    time.legend()
    return figure


def growth(rows: Sequence[Mapping[str, Any]], what: str, value: str, least: int = 512) -> float:
    """Slope of log ``value`` over log batch, by least squares, from batches of ``least`` on: 2 means B².

    Args:
        rows: of the result; all numbers of classes together.
        what: "loss", "step" or "step without the loss".
        value: "seconds" or "added_mb".
        least: smaller batches are left out, where fixed costs rule.
    """
    points = [(row["batch"], row[value]) for row in rows if row["what"] == what and row["batch"] >= least]
    batches, values = np.log(np.array(points, dtype=float)).T
    return float(np.polyfit(batches, values, 1)[0])


def _panel(
    axis: Axes,
    rows: Sequence[Mapping[str, Any]],
    value: str,
    order: Callable[[np.ndarray], np.ndarray],
    name: str,
) -> None:
    loss = [row for row in rows if row["what"] == "loss"]
    classes = sorted({row["classes"] for row in loss})
    for marker, number in zip("osD^v", classes, strict=False):
        batch, values = _line(loss, value, classes=number)
        label = f"loss, {number} classes"
        axis.plot(batch, values, marker=marker, color=OURS, markersize=4, linewidth=1, label=label)
    for what, colour, label in STEPS:
        batch, values = _line([row for row in rows if row["what"] == what], value)
        if len(batch):
            axis.plot(batch, values, "o-", color=colour, markersize=4, label=label)
    batch, values = _line(loss, value, classes=classes[len(classes) // 2])
    expected = order(batch) * values[-1] / order(batch[-1])
    axis.plot(batch, expected, "--", color="black", linewidth=1, label=f"{name}  (expected)")
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    # The reference runs far below the smallest batches' fixed costs; it must not stretch the axis.
    lowest = min(row[value] for row in rows if row[value] > 0)
    axis.set_ylim(bottom=lowest / 2)
    axis.set(xlabel="batch size B", xticks=batch, xticklabels=[f"{int(b)}" for b in batch])


def _line(rows: Sequence[Mapping[str, Any]], value: str, **chosen: Any) -> tuple[np.ndarray, np.ndarray]:
    kept = [row for row in rows if all(row[key] == wanted for key, wanted in chosen.items())]
    kept.sort(key=lambda row: row["batch"])
    return np.array([row["batch"] for row in kept], dtype=float), np.array([row[value] for row in kept])

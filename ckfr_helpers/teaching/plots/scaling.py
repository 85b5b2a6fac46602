"""Figure of ``benchmarks/scaling.py``: seconds and memory against batch size, beside the expected orders."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ckfr_helpers.teaching.plots.style import BASELINE, COLOURS, OURS, subplots

STEPS = (("step", COLOURS["orange"], "whole step"), ("step without the loss", BASELINE, "step, alpha 0"))


def scaling_figure(result: Mapping[str, Any]) -> Figure:
    """Time and added peak memory, log-log: the loss by number of classes, and a training step with it.

    Args:
        result: ``runtime.load_result("scaling_cpu")``.

    Returns:
        Two panels. Dashed: B² log B for time and B² for memory, drawn through the loss's largest batch, so
        that a measured line above it on its way there grows more slowly than the order says.
    """
    rows = pd.DataFrame(result["rows"]).sort_values("batch")
    loss = rows[rows.what == "loss"]
    classes = sorted(loss.classes.unique())
    figure, axes = subplots(1, 2, figsize=(10, 3.8))
    for axis, value, name in zip(axes, ("seconds", "added_mb"), ("B² log B", "B²"), strict=True):
        for marker, number in zip("osD^v", classes, strict=False):
            one = loss[loss.classes == number]
            label = f"loss, {number} classes"
            axis.plot(
                one.batch, one[value], marker=marker, color=OURS, markersize=4, linewidth=1, label=label
            )
        for what, colour, label in STEPS:
            one = rows[rows.what == what]
            if len(one):
                axis.plot(one.batch, one[value], "o-", color=colour, markersize=4, label=label)
        one = loss[loss.classes == classes[len(classes) // 2]]
        order = one.batch**2 * (np.log2(one.batch) if value == "seconds" else 1)
        expected = order * one[value].iloc[-1] / order.iloc[-1]
        axis.plot(one.batch, expected, "--", color="black", linewidth=1, label=f"{name}  (expected)")
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        # The reference runs far below the smallest batches' fixed costs; it must not stretch the axis.
        axis.set_ylim(bottom=rows[value][rows[value] > 0].min() / 2)
        axis.set(xlabel="batch size B", xticks=one.batch, xticklabels=one.batch)
    axes[0].set(title="time of one step", ylabel="seconds")
    axes[1].set(title="peak memory above what was held before", ylabel="MB")
    axes[0].legend()
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

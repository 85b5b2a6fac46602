"""Figure of ``benchmarks/scaling.py``: seconds and memory against batch size, beside the expected orders."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ckfr_helpers.teaching.plots.style import BASELINE, COLOURS, OURS, subplots


def scaling_figure(result: Mapping[str, Any]) -> Figure:
    """Time and added peak memory, log-log: the loss by number of classes, and a training step with it.

    ``result`` is ``runtime.load_result("scaling_cpu")``. Dashed: the expected order, drawn through the loss's
    largest batch, so that a measured line above it on its way there grows more slowly.
    """
    rows = pd.DataFrame(result["rows"]).sort_values("batch")
    loss = rows[rows.what == "loss"]
    classes = sorted(loss.classes.unique())
    series = [
        (loss[loss.classes == number], f"loss, {number} classes", OURS, marker, 1)
        for number, marker in zip(classes, "osD^v", strict=False)
    ]
    series.append((rows[rows.what == "step"], "whole step", COLOURS["orange"], "o", 2))
    series.append((rows[rows.what == "step without the loss"], "step, alpha 0", BASELINE, "o", 2))
    figure, axes = subplots(1, 2, figsize=(10, 3.8))
    for axis, value, name in zip(axes, ("seconds", "added_mb"), ("B² log B", "B²"), strict=True):
        for one, label, colour, marker, width in series:
            axis.plot(one.batch, one[value], color=colour, marker=marker, ms=4, lw=width, label=label)
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
    """Slope of log ``value`` over log batch: 2 means B². Fixed costs rule below ``least``."""
    points = pd.DataFrame(rows).query("what == @what and batch >= @least")
    return float(np.polyfit(np.log(points.batch), np.log(points[value]), 1)[0])

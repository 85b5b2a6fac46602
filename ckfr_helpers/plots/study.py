"""One figure of a study: each method's test scores against the baseline, and CKFR's grid on validation."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ckfr_helpers.baselines import BASELINE as PLAIN
from ckfr_helpers.plots.style import BASELINE, CMAP, COLOURS, OURS
from ckfr_helpers.plots.training import HIGHER_IS_BETTER, NAMES, method_title

SCORES = ("top1", "mistake_severity", "hdist@1", "alignment_pearson")


def study_figure(summary: Mapping[str, Any], scores: Sequence[str] = SCORES) -> Figure:
    """One row a data set: differences to cross-entropy on test, then the alpha × ell grid where there is one.

    Args:
        summary: from `training.study.run_study`, or read back from its ``summary.json``.
        scores: which differences.
    """
    results = summary["results"]
    by = summary["study"]["choose_by"]
    grids = {label: grid_of(own["methods"], by) for label, own in results.items()}
    with_grid = any(grid is not None for grid in grids.values())
    columns = len(scores) + with_grid
    figure, axes = plt.subplots(
        max(1, len(results)),
        columns,
        figsize=(2.7 * columns + 1.2, 0.42 * _most_methods(results) * max(1, len(results)) + 1.7),
        squeeze=False,
        layout="constrained",
    )
    for row, (label, own) in zip(axes, results.items(), strict=False):
        for axis, score in zip(row, scores, strict=False):
            _differences(axis, own["methods"], score)
            axis.set_title(NAMES.get(score, score))
        row[0].set_ylabel(label)
        for axis in row[1 : len(scores)]:
            axis.set_yticklabels([])
        if with_grid:
            _grid(row[-1], grids[label], by)
    seeds = len(summary["study"]["seeds"])
    figure.suptitle(
        f"Difference to cross-entropy on the test split: mean and 95 % interval over {seeds} seeds",
        fontsize=11,
        fontweight="bold",
    )
    return figure


def alt_text(summary: Mapping[str, Any]) -> str:
    """The figure in one sentence, for readers who cannot see it."""
    parts = []
    for label, own in summary["results"].items():
        base = own["methods"][PLAIN]["scores"]["top1"]["mean"]["mean"]
        told = [
            f"{method} {100 * made['scores']['top1']['difference']['mean']:+.1f}"
            for method, made in own["methods"].items()
            if method != PLAIN
        ]
        parts.append(
            f"{label}: top-1 of cross-entropy {100 * base:.1f} %, differences in points: {', '.join(told)}"
        )
    return (
        "Differences of each method to cross-entropy on the test split, with 95 % intervals. "
        + "; ".join(parts)
        + "."
    )


def grid_of(methods: Mapping[str, Any], by: str) -> pd.DataFrame | None:
    """CKFR's validation score, alpha in rows and ell in columns; None without two of each.

    Where the grid has more dimensions (a learning rate, a measure), each cell is the best over them.
    """
    tried = pd.DataFrame(methods.get("ckfr", {}).get("validation", []))
    if tried.empty or tried["alpha"].nunique() < 2 or tried["ell"].nunique() < 2:
        return None
    how = "max" if by in HIGHER_IS_BETTER else "min"
    return tried.pivot_table(index="alpha", columns="ell", values=by, aggfunc=how)


def _differences(axis: Axes, methods: Mapping[str, Any], score: str) -> None:
    names = [method for method in methods if method != PLAIN]
    for place, method in enumerate(names):
        found = methods[method]["scores"].get(score)
        if found is None:
            continue
        difference = found["difference"]
        colour = OURS if method == "ckfr" else COLOURS["orange"]
        if difference["low"] is not None and not np.isnan(difference["low"]):
            axis.plot([difference["low"], difference["high"]], [place, place], color=colour)
        axis.plot(difference["mean"], place, "o", color=colour, markersize=5)
    axis.axvline(0, color=BASELINE, linewidth=1)
    axis.set_yticks(range(len(names)), [method_title(name) for name in names])
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.locator_params(axis="x", nbins=4)
    axis.set_xlabel("better →" if score in HIGHER_IS_BETTER else "← better")


def _grid(axis: Axes, grid: pd.DataFrame | None, by: str) -> None:
    if grid is None:
        axis.set_axis_off()
        return
    better_up = by in HIGHER_IS_BETTER
    sns.heatmap(
        grid, ax=axis, cmap=CMAP if better_up else f"{CMAP}_r", annot=True, fmt=".4g", cbar=False,
        annot_kws={"fontsize": 8},
    )  # fmt: skip
    axis.set_xticklabels([f"{ell:g}" for ell in grid.columns])
    axis.set_yticklabels([f"{alpha:g}" for alpha in grid.index], rotation=0)
    axis.set_title(f"CKFR: {NAMES.get(by, by)}\non validation (bright: better)")


def _most_methods(results: Mapping[str, Any]) -> int:
    return max([len(own["methods"]) for own in results.values()], default=1) + 2

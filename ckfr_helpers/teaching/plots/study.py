"""Figures of studies: each loss against cross-entropy on test, and how CKFR's settings were chosen."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ckfr_helpers.losses.rivals import BASELINE as PLAIN
from ckfr_helpers.teaching.plots.names import HIGHER_IS_BETTER, method_title, says_nothing
from ckfr_helpers.teaching.plots.names import STUDY_NAMES as NAMES
from ckfr_helpers.teaching.plots.study_tables import Summary, each
from ckfr_helpers.teaching.plots.style import BASELINE, CMAP, COLOURS, OURS

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


def differences(
    summaries: Sequence[Summary],
    methods: Sequence[str] = ("ckfr", f"{PLAIN} + CRM"),
    scores: Sequence[str] = SCORES,
) -> Figure:
    """Differences to cross-entropy on the test split: one panel a score, one line a data set.

    Args:
        summaries: of studies whose `methods` all have these.
        methods: one colour each, side by side.
        scores: one panel each.
    """
    found = list(each(summaries))
    figure, axes = plt.subplots(1, len(scores), figsize=(11, 0.62 * len(found) + 1.6), sharey=True)
    colours = (OURS, COLOURS["orange"], COLOURS["green"], COLOURS["purple"])
    for axis, score in zip(axes, scores, strict=True):
        for number, (method, colour) in enumerate(zip(methods, colours, strict=False)):
            shift = 0.26 * (number - (len(methods) - 1) / 2)
            for place, (_, own) in enumerate(found):
                scored = own["methods"][method]["scores"]
                if score not in scored or says_nothing(method, score):
                    continue
                told = scored[score]["difference"]
                axis.plot([told["low"], told["high"]], [place + shift] * 2, color=colour)
                axis.plot(told["mean"], place + shift, "o", color=colour, markersize=5)
        axis.axvline(0, color=BASELINE, linewidth=1)
        better = "more is better →" if score in HIGHER_IS_BETTER else "← less is better"
        axis.set(title=NAMES.get(score, score), xlabel=better)
        axis.locator_params(axis="x", nbins=4)
    axes[0].set_yticks(range(len(found)), [title for title, _ in found])
    axes[0].set_ylim(len(found) - 0.5, -0.5)
    handles = [
        Line2D([], [], color=colour, marker="o", markersize=5, label=f"{method_title(method)} − {PLAIN}")
        for method, colour in zip(methods, colours, strict=False)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def choices(summaries: Sequence[Summary]) -> Figure:
    """How CKFR's settings were chosen: validation score by alpha, one line an ell, one panel a data set.

    The ring is the choice, the grey line cross-entropy. Settings that differ from the choice in more than
    these two, in the learning rate say, are left out.
    """
    found = [(title, own, s["study"]["choose_by"]) for s in summaries for title, own in each([s])]
    columns = len(found) if len(found) < 4 else 2 if len(found) == 4 else 3
    rows = -(-len(found) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.7 * columns, 2.5 * rows + 0.3), squeeze=False)
    ells = sorted({one["ell"] for _, own, _ in found for one in own["methods"]["ckfr"]["validation"]})
    shades = dict(zip(ells, plt.get_cmap(CMAP)(np.linspace(0, 0.85, len(ells))), strict=True))
    for axis, (title, own, by) in zip(axes.flat, found, strict=False):
        chosen = own["methods"]["ckfr"]["chosen"]
        rest = {name: value for name, value in chosen.items() if name not in ("alpha", "ell")}
        tried = [one for one in own["methods"]["ckfr"]["validation"] if rest.items() <= one.items()]
        alphas = sorted({one["alpha"] for one in tried})
        for ell in sorted({one["ell"] for one in tried}):
            line = sorted((alphas.index(one["alpha"]), one[by]) for one in tried if one["ell"] == ell)
            axis.plot(*zip(*line, strict=True), "o-", color=shades[ell], markersize=4)
        best = next(one for one in tried if one["alpha"] == chosen["alpha"] and one["ell"] == chosen["ell"])
        axis.plot(alphas.index(best["alpha"]), best[by], "o", ms=14, mfc="none", mec="black")
        plain = own["methods"][PLAIN]
        level = next(one[by] for one in plain["validation"] if one["lr"] == plain["chosen"]["lr"])
        axis.axhline(level, color=BASELINE, linestyle="--")
        axis.set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
        axis.set(title=title, xlabel="alpha")
        axis.margins(x=0.1, y=0.15)
        if axis in axes[:, 0]:
            axis.set_ylabel(f"{NAMES.get(by, by)}\non validation")
    for axis in axes.flat[len(found) :]:
        axis.set_visible(False)
    handles = [Line2D([], [], color=shades[ell], marker="o", label=f"ell = {ell:g}") for ell in ells]
    handles.append(Line2D([], [], color=BASELINE, linestyle="--", label=PLAIN))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
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

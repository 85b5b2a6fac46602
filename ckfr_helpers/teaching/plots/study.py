"""Figures of studies, all drawn from the long table of `training.results`."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ckfr_helpers.losses.rivals import BASELINE as PLAIN
from ckfr_helpers.metrics import Interval
from ckfr_helpers.teaching.plots.names import dataset_title, method_title, score_title
from ckfr_helpers.teaching.plots.style import BASELINE, CMAP, COLOURS, OURS, subplots
from ckfr_helpers.training.results import CRM, Results, compare, more_is_better, parse

SCORES = ("top1", "mistake_severity", "hdist@1", "correlation")
OTHERS = [COLOURS[name] for name in ("orange", "green", "purple", "red", "brown", "pink")]


def differences(
    results: Sequence[Results], scores: Sequence[str] = SCORES, methods: Sequence[str] | None = ("ckfr", CRM)
) -> Figure:
    """Differences to cross-entropy on the test split: one panel a score, one line a data set.

    Thick bars are 95 % intervals over seeds; a thin one below resamples photographs, where scenes show few.
    Each method has its colour; None takes every method of the studies.
    """
    told = compare(results, scores, methods)
    told = told[told.method != PLAIN]
    shown = list(dict.fromkeys(told.method))
    lines = [(one, label) for one in results for label in one.datasets]
    colours = dict(zip([m for m in shown if m != "ckfr"], OTHERS, strict=False)) | {"ckfr": OURS}
    height = 0.3 * len(lines) * max(2, len(shown)) + 1.6
    figure, axes = plt.subplots(1, len(scores), figsize=(11, height), sharey=True, squeeze=False)
    for axis, score in zip(axes[0], scores, strict=True):
        for place, (one, label) in enumerate(lines):
            own = told[(told.study == one.name) & (told.dataset == label) & (told.score == score)]
            for row in own.itertuples():
                shift = (shown.index(row.method) - (len(shown) - 1) / 2) * 0.7 / len(shown)
                _bar(axis, row.difference, place + shift, colours[row.method], 3)
                _bar(axis, row.photographs_difference, place + shift + 0.16, colours[row.method], 1.2)
        axis.axvline(0, color=BASELINE, linewidth=1)
        better = "more is better →" if more_is_better(score) else "← less is better"
        axis.set(title=score_title(score, short=True), xlabel=better)
        axis.locator_params(axis="x", nbins=4)
    axes[0, 0].set_yticks(range(len(lines)), [dataset_title(one, label) for one, label in lines])
    axes[0, 0].set_ylim(len(lines) - 0.5, -0.5)
    dot: dict[str, Any] = {"marker": "o", "ms": 5}
    handles = [Line2D([], [], color=colours[m], label=f"{method_title(m)} − {PLAIN}", **dot) for m in shown]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles)))
    return figure


def choices(results: Sequence[Results]) -> Figure:
    """How CKFR's settings were chosen: validation score by alpha, one line an ell, one panel a data set.

    The ring is the choice, the grey line cross-entropy at its own.
    """
    panels = [(one, label) for one in results for label in one.datasets if (label, "ckfr") in one.chosen]
    columns = len(panels) if len(panels) < 4 else 2 if len(panels) == 4 else 3
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.7 * columns, 2.5 * rows + 0.3), squeeze=False)
    grids = {one.name: one.validation(one.about["study"]["choose_by"]) for one in results}
    ells = sorted({parse(text).get("ell", 1.2) for grid in grids.values() for text in grid.parameters})
    shades = dict(zip(ells, plt.get_cmap(CMAP)(np.linspace(0, 0.85, len(ells))), strict=True))
    for axis, (one, label) in zip(axes.flat, panels, strict=False):
        grid = grids[one.name].query("dataset == @label")
        own = grid[grid.method == "ckfr"].reset_index(drop=True)
        own = own.join(pd.DataFrame([{"ell": 1.2} | parse(text) for text in own.parameters]))
        alphas = sorted(own.alpha.unique())
        for ell, line in own.groupby("ell"):
            line = line.sort_values("alpha")
            places = np.searchsorted(alphas, line.alpha)
            axis.plot(places, line["mean"], "o-", color=shades[ell], ms=4)
        best = own[own.parameters == one.chosen[label, "ckfr"]].iloc[0]
        axis.plot(alphas.index(best.alpha), best["mean"], "o", ms=14, mfc="none", mec="black")
        plain = grid[(grid.method == PLAIN) & (grid.parameters == one.chosen[label, PLAIN])]
        axis.axhline(plain["mean"].iloc[0], color=BASELINE, linestyle="--")
        axis.set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
        axis.set(title=dataset_title(one, label), xlabel="alpha")
        axis.margins(x=0.1, y=0.15)
        if axis in axes[:, 0]:
            axis.set_ylabel(f"{score_title(one.about['study']['choose_by'])}\non validation")
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    handles = [Line2D([], [], color=shades[ell], marker="o", label=f"ell = {ell:g}") for ell in ells]
    handles.append(Line2D([], [], color=BASELINE, linestyle="--", label=PLAIN))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def by_bias(
    results: Results, scores: Sequence[str] = ("energy", "pointing", "gt_known_fixed", "drop")
) -> Figure:
    """How each score moves with the background bias of the training scenes; bars are 95 % intervals."""
    labels = results.datasets
    places = np.arange(len(labels))
    figure, axes = subplots(1, len(scores), figsize=(2.75 * len(scores), 3.2), squeeze=False)
    free = {"energy": "uniform map", "pointing": "random point", "gt_known_fixed": "centre map"}
    for axis, score in zip(axes[0], scores, strict=True):
        for shift, method, colour in ((-0.06, PLAIN, BASELINE), (0.06, "ckfr", OURS)):
            found = [results.mean(label, method, score) for label in labels]
            _line(axis, places + shift, found, colour, method_title(method))
        if score in free:
            level = results.level(labels[0], free[score], score.removesuffix("_fixed"))
            axis.axhline(level, color="black", linestyle=":", linewidth=1)
            axis.text(len(labels) - 1, level, f"{free[score]} ", ha="right", va="bottom", fontsize=9)
        axis.set_xticks(places, [label.removeprefix("bias ") for label in labels])
        axis.set_title(score_title(score, short=True))
        axis.set(xlabel="background bias", xlim=(-0.3, len(labels) - 0.7))
        axis.margins(y=0.15)
    axes[0, 0].legend()
    return figure


def by_alpha(results: Sequence[Results], scores: Sequence[str]) -> Figure:
    """Paired difference to cross-entropy at every alpha tried, with 95 % intervals over seeds."""
    figure, axes = subplots(1, len(scores), figsize=(2.75 * len(scores), 3.3), squeeze=False)
    palette = [COLOURS[name] for name in ("sky", "blue", "purple", "orange", "green")]
    lines = [(one, label) for one in results for label in one.datasets]
    for axis, score in zip(axes[0], scores, strict=True):
        for number, (one, label) in enumerate(lines):
            tried = one.validation(one.about["study"]["choose_by"])
            settings = tried[(tried.dataset == label) & (tried.method == "ckfr")].parameters
            found = {parse(t)["alpha"]: one.difference(label, "ckfr", score, parameters=t) for t in settings}
            alphas = sorted(alpha for alpha, told in found.items() if told is not None)
            places = np.array(alphas) * (1 + 0.06 * (number - 1.5))  # side by side, not on top of each other
            _line(axis, places, [found[a] for a in alphas], palette[number % 5], dataset_title(one, label))
        axis.axhline(0, color="black", linewidth=1)
        axis.set_xscale("log")
        axis.set_xticks([1, 5, 20, 80, 320], ["1", "5", "20", "80", "320"])
        axis.minorticks_off()
        better = "more is better" if more_is_better(score) else "less is better"
        axis.set(title=score_title(score, short=True), xlabel=f"alpha ({better})")
    axes[0, 0].set_ylabel("difference to cross-entropy")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.set_layout_engine("constrained")
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


def _bar(axis: Axes, told: Interval | None, height: float, colour: tuple, width: float) -> None:
    if told is not None:
        axis.plot([told.low, told.high], [height, height], color=colour, linewidth=width)
        axis.plot(told.mean, height, "o", color=colour, markersize=2.5 + width)


def _line(
    axis: Axes, places: np.ndarray, found: Sequence[Interval | None], colour: tuple, label: str
) -> None:
    told = [one for one in found if one is not None]
    if told:
        means = [one.mean for one in told]
        reach = [[one.mean - one.low for one in told], [one.high - one.mean for one in told]]
        axis.errorbar(places, means, reach, fmt="o-", capsize=3, ms=4, color=colour, label=label)

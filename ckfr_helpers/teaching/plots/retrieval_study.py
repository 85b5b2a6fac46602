"""Figure and tables of notebook 05's study: ways of ranking side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ckfr_helpers.metrics import Interval
from ckfr_helpers.teaching.plots.style import BASELINE, OURS, subplots
from ckfr_helpers.training.results import Results, chance_sentence

PROTOCOLS = {"ap_easy": "easy", "ap_medium": "medium", "ap_hard": "hard"}
AGAINST = "gem"
TITLES = {
    "spoc": "SPoC",
    "mac": "MAC",
    "gem": "GeM",
    "crow": "CroW",
    "rmac": "R-MAC",
    "query cropped": "GeM, query cropped",
    "own classes": "each picture's own classes",
    "random classes": "random classes",
    "query's classes": "the query's classes",
    "query's features": "the query's features",
    "best window": "the best window",
    "all objects' masks": "oracle: all objects together",
    "each object's mask": "oracle: each object by itself",
}


def title(method: str) -> str:
    """What figures and tables call a method."""
    return TITLES.get(method, method)


def quick_table(quality: Mapping[str, Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """One run's means over queries, one line a method: three mAPs and hierarchical precision."""
    shown = {score: f"mAP {name}" for score, name in PROTOCOLS.items()} | {
        "ahp": "hierarchical precision, area",
        "first_wrong": "tree height of the first wrong answer",
    }
    rows = {
        title(method): {name: float(np.nanmean(found[score])) for score, name in shown.items()}
        for method, found in quality.items()
    }
    return pd.DataFrame(rows).T


def levels(results: Results, methods: Sequence[str]) -> Figure:
    """Mean average precision of every method under each protocol; bars are 95 % intervals over seeds."""
    label = results.datasets[0]
    figure, axes = subplots(1, 3, figsize=(11, 0.33 * len(methods) + 1.1), sharey=True)
    figure.set_layout_engine("constrained")
    for axis, (score, name) in zip(axes, PROTOCOLS.items(), strict=True):
        for place, method in enumerate(methods):
            colour = OURS if method == "query's classes" else BASELINE
            _bar(axis, results.mean(label, method, score), place, "black" if "mask" in method else colour)
        best = results.mean(label, AGAINST, score)
        if best is not None:
            axis.axvline(best.mean, color=BASELINE, linewidth=1, linestyle=":")
        axis.set(title=f"{name} positives", xlabel="mean average precision")
        axis.grid(axis="x", linewidth=0.5)
    axes[0].set_yticks(range(len(methods)), [title(method) for method in methods])
    axes[0].invert_yaxis()
    return figure


def table(results: Results, methods: Sequence[str], against: str = AGAINST) -> pd.DataFrame:
    """Means over seeds with 95 % intervals, and the difference to one method over seeds and photographs."""
    label, rows = results.datasets[0], {}
    for method in methods:
        row = {
            f"mAP {name}": f"{results.mean(label, method, score):.3f}" for score, name in PROTOCOLS.items()
        }
        if method != against:
            seeds, photos = differences(results, method, against)
            row[f"medium − {title(against)}, over seeds"] = _told(seeds)
            row["over photographs"] = _told(photos)
        rows[title(method), results.chosen.get((label, method), "")] = row
    return pd.DataFrame(rows).T.fillna("").rename_axis(["method", "chosen on validation"])


def differences(
    results: Results, method: str, against: str = AGAINST, score: str = "ap_medium"
) -> tuple[Interval | None, Interval | None]:
    """Paired difference of two methods: over seeds, and resampling photographs."""
    label = results.datasets[0]
    return (
        results.difference(label, method, score, against),
        results.over_photographs(label, method, score, against),
    )


def by_chance(results: Results, methods: Sequence[str], against: str = AGAINST) -> str:
    """How many intervals `table` shows, and how many would exclude zero by chance."""
    told = [one for m in methods if m != against for one in differences(results, m, against)]
    return chance_sentence(told)


def _told(found: Interval | None) -> str:
    return "" if found is None else f"{found:+.3f}{' *' if found.excludes_zero else ''}"


def _bar(axis: Axes, found: Interval | None, place: float, colour: Any) -> None:
    if found is not None:
        axis.plot([found.low, found.high], [place, place], color=colour, linewidth=3, solid_capstyle="butt")
        axis.plot(found.mean, place, "o", color=colour, markersize=6)

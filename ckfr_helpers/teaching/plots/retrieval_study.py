"""Figures and tables of notebook 05's study: ways of ranking side by side, and what is put on top of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ckfr_helpers.losses.rivals import BASELINE as PLAIN
from ckfr_helpers.metrics import Interval
from ckfr_helpers.teaching.plots.style import BASELINE, COLOURS, OURS, subplots
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
    """What figures and tables call a method, with what stands on top of it."""
    for mark in (" + ", ", "):
        first, found, rest = method.partition(mark)
        if found:
            return f"{TITLES.get(first, first)}{mark}{'CKFR' if rest == 'ckfr' else rest}"
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


def on_top(
    results: Results, methods: Sequence[str], tricks: Sequence[str], score: str = "ap_medium"
) -> Figure:
    """What each trick changes for each method, paired on seeds, with 95 % intervals."""
    label = results.datasets[0]
    colours = dict(zip(tricks, (COLOURS["orange"], COLOURS["green"], COLOURS["purple"]), strict=False))
    figure, axis = subplots(figsize=(8.5, 0.5 * len(methods) + 1.2))
    figure.set_layout_engine("constrained")
    for place, method in enumerate(methods):
        for number, trick in enumerate(tricks):
            found = results.difference(label, f"{method} + {trick}", score, method)
            _bar(axis, found, place + 0.24 * (number - (len(tricks) - 1) / 2), colours[trick])
    axis.axvline(0, color="black", linewidth=1)
    axis.set_yticks(range(len(methods)), [title(method) for method in methods])
    axis.invert_yaxis()
    axis.set_xlabel(f"change of mean average precision ({PROTOCOLS[score]}) →  more is better")
    handles = [Line2D([], [], color=c, marker="o", label=f"+ {trick}") for trick, c in colours.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def tricks_by_chance(results: Results, methods: Sequence[str], tricks: Sequence[str]) -> str:
    """How many intervals `on_top` shows, and how many would exclude zero by chance."""
    label = results.datasets[0]
    pairs = [(f"{method} + {trick}", method) for method in methods for trick in tricks]
    return chance_sentence([results.difference(label, one, "ap_medium", other) for one, other in pairs])


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


def energy(results: Results) -> pd.DataFrame:
    """Energy of the class maps on the query's object, and its rank correlation with AP over queries."""
    label, scores = results.datasets[0], {"energy": "energy", "energy_ap": "rank correlation with AP"}
    rows = {
        title(method): {shown: f"{results.mean(label, method, score):.3f}" for score, shown in scores.items()}
        for method in ("own classes", "query's classes")
    }
    return pd.DataFrame(rows).T


def own_networks(results: Results) -> pd.DataFrame:
    """Features of cross-entropy's and CKFR's networks: finding the instance, and finding its class.

    Means over seeds; in the last rows CKFR − cross-entropy, paired on seeds. A star: the interval excludes 0.
    """
    label, rows = results.datasets[0], {}
    scores = {"ap_medium": "mAP medium (the instance)", "ahp": "hierarchical precision, area (its class)",
              "first_wrong": "tree height of the first wrong answer"}  # fmt: skip
    for way in ("gem", "query's classes"):
        for name, method in (("cross-entropy", f"{way}, {PLAIN}"), ("CKFR", f"{way}, ckfr")):
            found = {shown: f"{results.mean(label, method, score):.3f}" for score, shown in scores.items()}
            rows[title(way), name] = found
        rows[title(way), "difference"] = {
            shown: _told(results.difference(label, f"{way}, ckfr", score, f"{way}, {PLAIN}"))
            for score, shown in scores.items()
        }
    return pd.DataFrame(rows).T


def _told(found: Interval | None) -> str:
    return "" if found is None else f"{found:+.3f}{' *' if found.excludes_zero else ''}"


def _bar(axis: Axes, found: Interval | None, place: float, colour: Any) -> None:
    if found is not None:
        axis.plot([found.low, found.high], [place, place], color=colour, linewidth=3, solid_capstyle="butt")
        axis.plot(found.mean, place, "o", color=colour, markersize=6)

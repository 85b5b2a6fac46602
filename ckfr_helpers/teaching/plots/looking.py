"""Figures about where a network looks: maps on pictures, boxes, box accuracy, and the studies' summaries."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ckfr_helpers import metrics
from ckfr_helpers.teaching.plots.style import BASELINE, COLOURS, OURS, subplots

NAMES = {
    "top1": "top-1 accuracy",
    "energy": "energy on the object",
    "pointing": "pointing game",
    "pxap": "PxAP",
    "max_box_acc_v2": "MaxBoxAccV2",
    "box_acc_fixed": "box accuracy, threshold from validation",
    "gt_known": "GT-known (best threshold)",
    "gt_known_fixed": "GT-known, threshold from validation",
    "top1_loc_fixed": "Top-1 localisation, threshold from validation",
    "usual": "accuracy on the usual background",
    "foreign": "accuracy on a foreign background",
    "drop": "usual − foreign",
}
SHORT = {"box_acc_fixed": "box accuracy", "gt_known_fixed": "GT-known", "top1_loc_fixed": "Top-1 loc."}
LOWER_IS_BETTER = ("drop",)


def box_curves(
    curves: Mapping[str, np.ndarray], thresholds: np.ndarray, marks: Mapping[str, float]
) -> Figure:
    """Box accuracy over the score threshold, one panel for each IoU level.

    Args:
        curves: name -> (3, T) accuracies at IoU 0.3, 0.5 and 0.7: the baseline, CKFR, and one to compare.
        thresholds: (T,) score thresholds.
        marks: name -> threshold chosen on validation, drawn as a vertical line.
    """
    figure, axes = subplots(1, 3, figsize=(10, 3.2), sharey=True)
    colours = dict(zip(curves, (BASELINE, OURS, COLOURS["orange"]), strict=False))
    for level, (axis, iou) in enumerate(zip(axes, (0.3, 0.5, 0.7), strict=True)):
        for (name, values), style in zip(curves.items(), ("-", "-", "--"), strict=True):
            axis.plot(thresholds, values[level], style, color=colours[name], label=name)
        for name, threshold in marks.items():
            axis.axvline(threshold, color=colours[name], linewidth=0.9, linestyle=":")
        axis.set(title=f"IoU ≥ {iou}", xlabel="score threshold", xlim=(0, 1), ylim=(0, 1.02))
    axes[0].set_ylabel("share of boxes right")
    axes[2].legend()
    return figure


def by_bias(
    result: Mapping[str, Any], keys: Sequence[str] = ("energy", "pointing", "gt_known_fixed", "drop")
) -> Figure:
    """How each measure moves with the background bias of the training scenes; bars are 95 % intervals."""
    rows = result["results"]
    places = np.arange(len(rows))
    figure, axes = subplots(1, len(keys), figsize=(2.6 * len(keys), 3.0), squeeze=False)
    blind = {"energy": "uniform_energy", "pointing": "random_point", "gt_known_fixed": "centre_gt_known"}
    said = {"energy": "uniform map", "pointing": "random point", "gt_known_fixed": "centre map"}
    for axis, key in zip(axes[0], keys, strict=True):
        for shift, name, colour, label in (
            (-0.06, "baseline", BASELINE, "baseline"), (0.06, "ckfr", OURS, "CKFR")
        ):  # fmt: skip
            found = [metrics.Interval(**row["scores"][key][name]) for row in rows]
            means = [one.mean for one in found]
            reach = [[one.mean - one.low for one in found], [one.high - one.mean for one in found]]
            axis.errorbar(places + shift, means, yerr=reach, fmt="o-", color=colour, capsize=3, label=label)
        if key in blind:
            level = result["blind"][blind[key]]
            axis.axhline(level, color="black", linestyle=":", linewidth=1)
            axis.text(len(rows) - 1, level, f"{said[key]} ", ha="right", va="bottom", fontsize=8)
        axis.set_xticks(places, [row["condition"].removeprefix("bias ") for row in rows])
        axis.set(title=SHORT.get(key, NAMES[key]), xlabel="background bias", xlim=(-0.3, len(rows) - 0.7))
        axis.margins(y=0.15)
    axes[0, 0].legend()
    return figure


def differences(results: Mapping[str, Mapping[str, Any]], keys: Sequence[str]) -> Figure:
    """Paired differences CKFR − baseline: thick bars over seeds, thin ones over photographs."""
    lines = [
        (f"{name}\n{row['condition']}", row) for name, result in results.items() for row in result["results"]
    ]
    figure, axes = subplots(
        1, len(keys), figsize=(2.2 * len(keys), 0.7 * len(lines) + 1.5), sharey=True, squeeze=False
    )
    for axis, key in zip(axes[0], keys, strict=True):
        for place, (_, row) in enumerate(lines):
            for found, shift, width in (
                (row["over_photographs"].get(key, {}).get("difference"), 0.18, 1.2),
                (row["scores"].get(key, {}).get("difference"), -0.05, 3),
            ):
                if found is None:
                    continue
                one = metrics.Interval(**found)
                axis.plot([one.low, one.high], [place + shift] * 2, color=OURS, linewidth=width)
                axis.plot(one.mean, place + shift, "o", color=OURS, markersize=2 + width)
        axis.axvline(0, color="black", linewidth=1)
        better = "← less is better" if key in LOWER_IS_BETTER else "more is better →"
        axis.set(title=SHORT.get(key, NAMES[key]), xlabel=better)
        axis.xaxis.get_major_locator().set_params(nbins=4)
        axis.margins(x=0.15)
    axes[0, 0].set(
        yticks=range(len(lines)), yticklabels=[name for name, _ in lines], ylim=(len(lines) - 0.5, -0.5)
    )
    return figure


def look_table(result: Mapping[str, Any], keys: Sequence[str] = tuple(NAMES)) -> pd.DataFrame:
    """Means over seeds with 95 % intervals, the paired difference, and its interval over photographs."""
    rows = {}
    for row in result["results"]:
        for key in keys:
            pair = row["scores"].get(key)
            if pair is None:
                continue
            over = row["over_photographs"].get(key)
            rows[row["condition"], NAMES[key]] = {
                "baseline": f"{metrics.Interval(**pair['baseline']):.3f}",
                "CKFR": f"{metrics.Interval(**pair['ckfr']):.3f}",
                "difference over seeds": f"{metrics.Interval(**pair['difference']):+.3f}",
                "difference over photographs": f"{metrics.Interval(**over['difference']):+.3f}"
                if over
                else "",
            }
    return pd.DataFrame(rows).T


def free_table(results: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Scores that need no training, one column a data set, and the trained baseline's means beside them.

    Of several conditions the first is taken.
    """
    labels = {
        "uniform_energy": "energy: a map that is the same everywhere",
        "centre_energy": "energy: a blob in the centre",
        "random_point": "pointing game: a random point",
        "centre_point": "pointing game: the centre",
        "centre_max_box_acc_v2": "MaxBoxAccV2: a blob in the centre",
        "centre_gt_known": "GT-known: a blob in the centre",
        "whole_image_gt_known": "GT-known: the whole picture",
    }
    columns = {}
    for name, result in results.items():
        row = result["results"][0]
        found = {label: result["blind"][key] for key, label in labels.items()}
        for key in ("energy", "pointing", "max_box_acc_v2", "gt_known"):
            found[f"{NAMES[key]}: before training"] = row["untrained"][key]["mean"]
            found[f"{NAMES[key]}: trained baseline"] = row["scores"][key]["baseline"]["mean"]
        columns[name] = found
    return pd.DataFrame(columns)


def by_alpha(results: Mapping[str, Mapping[str, Any]], keys: Sequence[str]) -> Figure:
    """Paired difference to the baseline at every alpha tried, with 95 % intervals over seeds."""
    figure, axes = subplots(1, len(keys), figsize=(2.6 * len(keys), 3.1), squeeze=False)
    palette = [COLOURS[name] for name in ("sky", "blue", "purple", "orange", "green")]
    for axis, key in zip(axes[0], keys, strict=True):
        lines = [
            (f"{name}, {row['condition']}", row) for name, one in results.items() for row in one["results"]
        ]
        for number, (label, row) in enumerate(lines):
            tried = {float(a): found[key] for a, found in row["every_alpha"].items() if key in found}
            if not tried:
                continue
            alphas = np.array(sorted(tried)) * (1 + 0.06 * (number - 1.5))  # side by side, not on top
            found = [metrics.Interval(**tried[alpha]) for alpha in sorted(tried)]
            means = [one.mean for one in found]
            reach = [[one.mean - one.low for one in found], [one.high - one.mean for one in found]]
            axis.errorbar(
                alphas, means, yerr=reach, fmt="o-", color=palette[number], capsize=2, markersize=4,
                linewidth=1.3, label=label,
            )  # fmt: skip
        axis.axhline(0, color="black", linewidth=1)
        axis.set_xscale("log")
        axis.set_xticks([1, 5, 20, 80], ["1", "5", "20", "80"])
        axis.minorticks_off()
        better = "less is better" if key in LOWER_IS_BETTER else "more is better"
        axis.set(title=SHORT.get(key, NAMES[key]), xlabel=f"alpha ({better})")
    axes[0, 0].set_ylabel("difference to the baseline")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.set_layout_engine("constrained")
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=9)
    return figure


def quick_table(looks: Mapping[str, Mapping[str, float]], keys: Sequence[str]) -> pd.DataFrame:
    """Scores of single runs, one row a network."""
    return pd.DataFrame({name: {NAMES[key]: found[key] for key in keys} for name, found in looks.items()}).T

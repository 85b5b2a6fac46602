"""Figures about where a network looks: maps on pictures, boxes, box accuracy, and the studies' summaries."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ckfr_helpers import localization, metrics
from ckfr_helpers.attribution.look import Look
from ckfr_helpers.teaching.plots.style import BASELINE, CMAP, COLOURS, OURS, subplots

TRUE_BOX, FOUND_BOX = "white", COLOURS["orange"]

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


def overlay(picture: np.ndarray, scores: np.ndarray, blend: float = 0.6) -> np.ndarray:
    """A score map laid over a grey copy of the picture.

    Grey, because a map's colours mean something and the picture's must not be taken for them.

    Args:
        picture: (3, H, W) uint8.
        scores: (H, W) in [0, 1].
        blend: weight of the map's colour, 0 to 1.

    Returns:
        (H, W, 3) float in [0, 1].
    """
    weights = np.array([0.299, 0.587, 0.114])[:, None, None]
    grey = (picture * weights).sum(0)[..., None] / 255
    colour = mpl.colormaps[CMAP](scores)[..., :3]
    return (1 - blend) * grey + blend * colour


def best_iou(found: np.ndarray, true: np.ndarray) -> float:
    """Largest IoU of any found (n, 4) with any true (m, 4) box."""
    return float(localization.iou_matrix(found, true).max())


def maps_on_pictures(
    pictures: np.ndarray,
    boxes: Sequence[np.ndarray],
    names: Sequence[str],
    rows: Mapping[str, np.ndarray],
    thresholds: Mapping[str, float],
    *,
    blend: float = 0.6,
    width: float = 9.0,
) -> Figure:
    """Pictures with their true boxes, and below, for each network, its map, its box and the IoU of the two.

    Args:
        pictures: (n, 3, H, W) uint8.
        boxes: n arrays (m, 4) of true boxes, white.
        names: what stands above each picture.
        rows: network -> (n, H, W) maps in [0, 1].
        thresholds: network -> score threshold; the box of the largest contour above it is orange.
        blend: weight of the map over the grey picture.
        width: inches.
    """
    count = len(pictures)
    height = (width / count) * (len(rows) + 1) + 0.55
    figure, axes = subplots(len(rows) + 1, count, figsize=(width, height), squeeze=False)
    figure.set_layout_engine("constrained", w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
    for axis, picture, true, name in zip(axes[0], pictures, boxes, names, strict=True):
        _picture(axis, picture.transpose(1, 2, 0))
        _boxes(axis, true, TRUE_BOX)
        axis.set_title(name, fontsize=10)
    for line, (network, maps) in zip(axes[1:], rows.items(), strict=True):
        for axis, picture, true, scores in zip(line, pictures, boxes, maps, strict=True):
            found = localization.boxes_from_map(scores, thresholds[network])
            _picture(axis, overlay(picture, scores, blend))
            _boxes(axis, true, TRUE_BOX)
            _boxes(axis, found, FOUND_BOX)
            axis.set_xlabel(f"IoU {best_iou(found, true):.2f}", fontsize=9, labelpad=2)
        line[0].set_ylabel(network, fontsize=10)
    axes[0, 0].set_ylabel("picture", fontsize=10)
    return figure


def plain_maps(pictures: np.ndarray, rows: Mapping[str, np.ndarray], names: Sequence[str] = ()) -> Figure:
    """Maps in rows under their pictures, without boxes: for comparing maps with each other.

    Args:
        pictures: (n, 3, H, W) uint8.
        rows: what made the maps -> (n, H, W) in [0, 1].
        names: above the pictures.
    """
    count = len(pictures)
    figure, axes = subplots(len(rows) + 1, count, figsize=(1.15 * count + 1.6, 1.15 * (len(rows) + 1) + 0.2))
    figure.set_layout_engine("constrained", w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
    for place, (axis, picture) in enumerate(zip(axes[0], pictures, strict=True)):
        _picture(axis, picture.transpose(1, 2, 0))
        if len(names):
            axis.set_title(names[place], fontsize=9)
    for line, (name, maps) in zip(axes[1:], rows.items(), strict=True):
        for axis, picture, scores in zip(line, pictures, maps, strict=True):
            _picture(axis, overlay(picture, scores))
        line[0].set_ylabel(name, fontsize=9, rotation=0, ha="right", va="center")
    return figure


def pairs(
    usual: np.ndarray,
    foreign: np.ndarray,
    names: Sequence[str],
    answers: Mapping[str, Sequence[tuple[str, str]]],
) -> Figure:
    """The same cut-out on its usual and on a foreign background, with what each network answers.

    Args:
        usual, foreign: (n, 3, H, W) uint8.
        names: the true classes.
        answers: network -> n pairs (answer on the usual, answer on the foreign background).
    """
    count = len(usual)
    figure, axes = subplots(2, count, figsize=(1.75 * count, 1.75 * 2 + 0.5 * len(answers)), squeeze=False)
    for place, (line, shown, where) in enumerate(
        zip(axes, (usual, foreign), ("usual background", "foreign background"), strict=True)
    ):
        for column, (axis, picture) in enumerate(zip(line, shown, strict=True)):
            _picture(axis, picture.transpose(1, 2, 0))
            lines = []
            for network, given in answers.items():
                answer = given[column][place]
                mark = "✓" if answer == names[column] else "✗"
                lines.append(f"{network}: {answer} {mark}")
            axis.set_xlabel("\n".join(lines), fontsize=8)
        line[0].set_ylabel(where, fontsize=9)
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(name, fontsize=9)
    return figure


def box_curves(
    curves: Mapping[str, np.ndarray], thresholds: np.ndarray, marks: Mapping[str, float]
) -> Figure:
    """Box accuracy over the score threshold, one panel for each IoU level.

    Args:
        curves: name -> (3, T) accuracies at IoU 0.3, 0.5 and 0.7; the first two are baseline and CKFR.
        thresholds: (T,) score thresholds.
        marks: name -> threshold chosen on validation, drawn as a vertical line.
    """
    figure, axes = subplots(1, 3, figsize=(9, 2.9), sharey=True)
    colours = {"baseline": BASELINE, "CKFR": OURS}
    others = iter((COLOURS["orange"], COLOURS["green"], COLOURS["purple"]))
    styles = {"baseline": "-", "CKFR": "-"}
    for name in curves:
        colours.setdefault(name, next(others) if name not in colours else colours[name])
    for level, (axis, iou) in enumerate(zip(axes, (0.3, 0.5, 0.7), strict=True)):
        for name, values in curves.items():
            axis.plot(
                thresholds,
                values[level],
                styles.get(name, "--"),
                color=colours[name],
                label=name,
                linewidth=1.8,
            )
        for name, threshold in marks.items():
            axis.axvline(threshold, color=colours[name], linewidth=0.9, linestyle=":")
        axis.set(title=f"IoU ≥ {iou}", xlabel="score threshold", xlim=(0, 1), ylim=(0, 1.02))
    axes[0].set_ylabel("share of boxes right")
    axes[2].legend(fontsize=8)
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


def gains(first: Look, second: Look, first_threshold: float, second_threshold: float) -> np.ndarray:
    """(N,) IoU of the second network's box minus that of the first, each at its own score threshold."""
    columns = [round(1000 * t) for t in (first_threshold, second_threshold)]
    return second.ious_largest[:, columns[1]] - first.ious_largest[:, columns[0]]


def _picture(axis: Axes, picture: np.ndarray) -> None:
    axis.imshow(picture)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)


def _boxes(axis: Axes, boxes: np.ndarray, colour: Any) -> None:
    for x0, y0, x1, y1 in np.asarray(boxes).reshape(-1, 4).tolist():
        corner, extent = (x0 - 0.5, y0 - 0.5), (x1 - x0 + 1, y1 - y0 + 1)
        axis.add_patch(Rectangle(corner, *extent, fill=False, edgecolor="black", linewidth=2.6))
        axis.add_patch(Rectangle(corner, *extent, fill=False, edgecolor=colour, linewidth=1.4))


def threshold_grid(
    picture: np.ndarray, boxes: np.ndarray, rows: Mapping[str, np.ndarray], thresholds: Sequence[float]
) -> Figure:
    """One picture's maps, a row for each network, with the box at each threshold.

    Args:
        picture: (3, H, W) uint8.
        boxes: (m, 4) true boxes, white.
        rows: network -> (H, W) in [0, 1].
        thresholds: one a column.
    """
    figure, axes = subplots(
        len(rows),
        len(thresholds),
        figsize=(1.6 * len(thresholds) + 0.3, 1.75 * len(rows) + 0.2),
        squeeze=False,
    )
    figure.set_layout_engine("constrained", w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
    for line, (network, scores) in zip(axes, rows.items(), strict=True):
        for axis, threshold in zip(line, thresholds, strict=True):
            found = localization.boxes_from_map(scores, threshold)
            _picture(axis, overlay(picture, scores))
            _boxes(axis, boxes, TRUE_BOX)
            _boxes(axis, found, FOUND_BOX)
            axis.set_xlabel(f"IoU {best_iou(found, boxes):.2f}", fontsize=12, labelpad=2)
        line[0].set_ylabel(network, fontsize=13)
    for axis, threshold in zip(axes[0], thresholds, strict=True):
        axis.set_title(f"threshold {threshold:g}", fontsize=12)
    return figure

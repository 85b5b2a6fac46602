"""Notebook 06's pictures and figures: boxes side by side, where maps look, one run, and five seeds."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from ckfr_helpers.attribution.boxes import iou_matrix
from ckfr_helpers.attribution.cam import score_maps, upsample
from ckfr_helpers.attribution.energy import energy_in_mask
from ckfr_helpers.detection.tables import Detections
from ckfr_helpers.metrics import Interval
from ckfr_helpers.teaching.detection_scenes import Seen
from ckfr_helpers.teaching.plots.names import score_title
from ckfr_helpers.teaching.plots.photos import Tile, overlay, photo_grid
from ckfr_helpers.teaching.plots.style import BASELINE, COLOURS, OURS, subplots
from ckfr_helpers.training.results import Results, chance_sentence

FREE = ("random region", "whole picture", "centre")  # look at nothing
TOLD = ("supervised", "best proposals")  # have seen true boxes


def best_box(found: Detections, picture: int, label: int) -> np.ndarray:
    """(1, 4), the best-scored box of a class in a picture; (0, 4) where it has none."""
    boxes, scores, labels, pictures = (np.asarray(column) for column in found)
    rows = np.flatnonzero((pictures == picture) & (labels == label))
    return boxes[rows[scores[rows].argmax()]][None] if len(rows) else np.zeros((0, 4))


def tag(axis: Axes, boxes: Any, texts: Sequence[str]) -> None:
    """A word in the upper left corner of each box (n, 4), white on black."""
    look: dict[str, Any] = {"facecolor": "black", "alpha": 0.65, "edgecolor": "none", "pad": 1.2}
    for (x, y, *_), text in zip(np.asarray(boxes).reshape(-1, 4), texts, strict=True):
        axis.text(x + 3, y + 3, text, fontsize=9, color="white", va="top", bbox=look, clip_on=True)


def side_by_side(
    seen: Seen, pictures: Sequence[int], methods: Mapping[str, Detections], side: float = 2.4
) -> Figure:
    """A scene a row and a method a column: true boxes white, the best box of each class that is there orange.

    Below, for how many of its objects that box is well placed, at an IoU of at least 0.5.
    """
    names, rows, tags = seen.source.hierarchy.names, {}, []
    for picture in pictures:
        image = seen.source[picture][0].numpy()
        true, labels = (seen.targets[picture][key].numpy() for key in ("boxes", "box_labels"))
        line = [Tile(image, " ", true)]
        tags.append((true, [names[label] for label in labels]))
        for found in methods.values():
            boxes = [best_box(found, picture, label) for label in labels]
            overlaps = [iou_matrix(box, own[None]) for box, own in zip(boxes, true, strict=True)]
            right, drawn = sum((iou >= 0.5).any() for iou in overlaps), np.concatenate(boxes)
            line.append(Tile(image, f"{right} of {len(true)} right", true, drawn))
            tags.append((drawn, [names[n] for n, box in zip(labels, boxes, strict=True) if len(box)]))
        rows[f"scene {picture}"] = line
    figure = photo_grid(rows, ["what is there", *methods], side)
    for axis, words in zip(figure.axes, tags, strict=True):
        tag(axis, *words)
    return figure


def where_they_look(
    seen: Seen, pairs: Sequence[tuple[int, int]], maps: Mapping[str, Tensor], side: float = 2.4
) -> Figure:
    """A column for each picture and class in it: the picture, and every map (N, K, h, w) laid over it."""
    rows: dict[str, list[Tile]] = {name: [] for name in ("picture", *maps)}
    for picture, label in pairs:
        target, image = seen.targets[picture], seen.source[picture][0].numpy()
        place = int((target["box_labels"] == label).nonzero()[0, 0])
        true, mask = target["boxes"][place : place + 1].numpy(), seen.masks[picture][place]
        rows["picture"].append(Tile(image, seen.source.hierarchy.names[label], true))
        for name, own in maps.items():
            raw = own[picture, label][None]
            share = energy_in_mask(upsample(raw, mask.shape), mask[None])[0]
            shown = score_maps(raw, seen.size)[0].numpy()
            rows[name].append(Tile(overlay(image, shown), f"{share:.0%} on the object", true))
    return photo_grid(rows, side=side)


def bars(found: Mapping[str, Mapping[str, float]], scores: Sequence[str]) -> Figure:
    """A bar a method, a panel a score: light what looks at nothing, hatched what was told boxes."""
    figure, axes = _panels(scores, list(found))
    for axis, score in zip(axes, scores, strict=True):
        for place, (method, own) in enumerate(found.items()):
            if np.isfinite(value := own.get(score, np.nan)):
                colour = BASELINE if method in FREE else "white" if method in TOLD else OURS
                axis.barh(place, value, 0.7, color=colour, ec="black", hatch="///" * (method in TOLD))
                axis.annotate(f"{value:.2f}", (value, place), (3, 0), textcoords="offset points", va="center")
        axis.margins(x=0.14)
    return figure


def quick_table(found: Mapping[str, Mapping[str, float]], scores: Sequence[str]) -> pd.DataFrame:
    """Scores of one run, one line a method."""
    return pd.DataFrame(found).T.reindex(columns=list(scores)).rename(columns=score_title)


def levels(results: Results, methods: Sequence[str], scores: Sequence[str], against: str = "") -> Figure:
    """Means on test with 95 % intervals over seeds, each strength of pairing with its own mark.

    With ``against``, differences to that method, paired on seeds.
    """
    figure, axes = _panels(scores, methods)
    marks = dict(zip(results.datasets, ((OURS, "o"), (COLOURS["orange"], "s")), strict=False))
    for axis, score in zip(axes, scores, strict=True):
        for (number, label), (place, method) in itertools.product(enumerate(marks), enumerate(methods)):
            if (found := _interval(results, label, method, score, against)) is not None:
                height, (colour, mark) = place + 0.26 * (number - (len(marks) - 1) / 2), marks[label]
                axis.plot([found.low, found.high], [height] * 2, color=colour, solid_capstyle="butt")
                axis.plot(found.mean, height, mark, color=colour, markersize=6)
        if against:
            axis.axvline(0, color="black", linewidth=1)
        axis.grid(axis="x", linewidth=0.5)
    handles = [Line2D([], [], color=c, marker=m, label=label) for label, (c, m) in marks.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure


def study_table(
    results: Results, methods: Sequence[str], scores: Sequence[str], against: str = ""
) -> pd.DataFrame:
    """Means with 95 % intervals over seeds, and the first score's difference to a method, paired on seeds.

    A star: the interval excludes zero.
    """
    rows = {}
    for label, method in itertools.product(results.datasets, methods):
        if (label, method) in results.chosen:
            means = {score_title(s): _told(_interval(results, label, method, s)) for s in scores}
            if against:
                apart = _interval(results, label, method, scores[0], against)
                means[f"{scores[0]} − {against}"] = _told(apart, "+.3f")
            rows[label, method, results.chosen[label, method]] = means
    return pd.DataFrame(rows).T.rename_axis(["scenes", "method", "chosen or given"])


def by_chance(results: Results, methods: Sequence[str], scores: Sequence[str], against: str) -> str:
    """How many intervals of differences `levels` shows, and how many would exclude zero by chance."""
    asked = itertools.product(results.datasets, methods, scores)
    return chance_sentence([_interval(results, *one, against) for one in asked])


def _panels(scores: Sequence[str], methods: Sequence[str]) -> tuple[Figure, Sequence[Axes]]:
    """A panel a score, the methods from top to bottom."""
    size = (3.2 * len(scores) + 1.6, 0.38 * len(methods) + 1.1)
    figure, axes = subplots(1, len(scores), figsize=size, sharey=True, squeeze=False)
    figure.set_layout_engine("constrained")
    for axis, score in zip(axes[0], scores, strict=True):
        axis.set_title(score_title(score))
    axes[0, 0].set_yticks(range(len(methods)), methods)
    axes[0, 0].invert_yaxis()
    return figure, axes[0]


def _interval(results: Results, label: str, method: str, score: str, against: str = "") -> Interval | None:
    if not against:
        return results.mean(label, method, score)
    return None if method == against else results.difference(label, method, score, against)


def _told(found: Interval | None, spec: str = ".3f") -> str:
    star = " *" * (spec[0] == "+" and found is not None and found.excludes_zero)
    return "–" if found is None else f"{found:{spec}}{star}"

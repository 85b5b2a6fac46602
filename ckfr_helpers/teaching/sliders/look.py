"""Notebook 04's panel: maps and boxes that follow the score threshold, the blend and the network's alpha."""

from collections.abc import Sequence

import ipywidgets as widgets
import numpy as np
import pandas as pd

from ckfr_helpers.attribution.cam import score_maps
from ckfr_helpers.teaching.look_lesson import LookLesson
from ckfr_helpers.teaching.plots.photos import map_tile, maps_on_pictures, photo_grid
from ckfr_helpers.teaching.plots.style import jpeg
from ckfr_helpers.teaching.sliders.panel import Panel, View, alpha_slider, named

GRID_THRESHOLDS = (0.2, 0.45, 0.7)


def network_name(alpha: float) -> str:
    return "baseline" if alpha == 0 else f"alpha {alpha:g}"


def look_panel(lesson: LookLesson, indices: Sequence[int], picture: int = 0) -> Panel:
    """Sliders for score threshold, blend and the alpha of the network; boxes and scores follow.

    ``indices`` are of validation scenes, since who moves a slider while looking at a score chooses by it;
    ``picture`` is which of them the static grid shows.
    """
    scenes = lesson.sources["val"]
    examples = [scenes[int(index)] for index in indices]
    pictures = np.stack([image.numpy() for image, _ in examples])  # (n, 3, H, W)
    boxes = [target["boxes"].numpy() for _, target in examples]
    names = [scenes.hierarchy.names[target["label"]] for _, target in examples]
    height, width = pictures.shape[-2:]
    maps = {a: score_maps(lesson.maps(a, indices, "val"), (height, width)).numpy() for a in lesson.models}

    def share_right(alpha: float, threshold: float) -> float:
        return float(lesson.models[alpha].val.largest.at(threshold).mean())

    def compute(threshold: float, blend: float, alpha: float) -> View:
        threshold, name = round(float(threshold), 3), network_name(alpha)
        row, cut = {name: maps[alpha]}, {name: threshold}
        figure = maps_on_pictures(pictures, names, row, boxes, cut, blend=blend, side=1.5)
        ious = [axis.get_xlabel() for axis in figure.axes[len(names) :]]
        numbers = (
            f"{name}, threshold {threshold:.2f} | box right (IoU of at least 0.5) in "
            f"{share_right(alpha, threshold):.0%} of all {len(scenes)} validation scenes | best threshold "
            f"for this network {lesson.models[alpha].threshold:.2f}"
        )
        found = ", ".join(f"{name} {iou}" for name, iou in zip(names, ious, strict=True))
        alt = f"{len(names)} pictures with true boxes; below, maps and boxes of {numbers}: {found}."
        return View(jpeg(figure), numbers, alt)

    def static() -> View:
        image, true = pictures[picture], boxes[picture]
        tiles, shares = {}, {}
        for alpha, own in maps.items():
            tiles[network_name(alpha)] = [map_tile(image, own[picture], true, cut) for cut in GRID_THRESHOLDS]
            shares[network_name(alpha)] = {cut: f"{share_right(alpha, cut):.0%}" for cut in GRID_THRESHOLDS}
        figure = photo_grid(tiles, [f"threshold {cut:g}" for cut in GRID_THRESHOLDS], side=1.8)
        numbers = "share of all validation boxes right (IoU of at least 0.5) at each threshold:\n"
        numbers += pd.DataFrame(shares).T.to_string(col_space=8)
        alt = (
            f"The map of one {names[picture]} by {len(maps)} networks, one a row, with the box at "
            f"thresholds {', '.join(map(str, GRID_THRESHOLDS))}: the higher, the smaller the box."
        )
        return View(jpeg(figure), numbers, alt)

    wide = 70  # pixels, for the longest label
    cut, blend = {"max": 0.95, "step": 0.05}, {"max": 1, "step": 0.1, "readout_format": ".1f"}
    controls = {
        "threshold": widgets.FloatSlider(value=0.45, min=0, **cut, **named("threshold", wide)),
        "blend": widgets.FloatSlider(value=0.6, min=0, **blend, **named("blend", wide)),
        "alpha": alpha_slider(list(maps), next(iter(maps)), wide),
    }
    return Panel(compute, controls, static, height=390)

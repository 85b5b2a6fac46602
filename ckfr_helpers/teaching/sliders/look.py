"""Notebook 04's panel: maps and boxes that follow the score threshold, the blend and the network's alpha."""

from collections.abc import Sequence

import ipywidgets as widgets
import numpy as np

from ckfr_helpers.attribution.cam import score_maps
from ckfr_helpers.localization import boxes_from_map
from ckfr_helpers.teaching.look_lesson import LookLesson
from ckfr_helpers.teaching.plots import looking as plots
from ckfr_helpers.teaching.plots.style import jpeg
from ckfr_helpers.teaching.sliders.controls import alpha_slider, on_release
from ckfr_helpers.teaching.sliders.panel import Panel, View, give_way

GRID_THRESHOLDS = (0.2, 0.45, 0.7)


def network_name(alpha: float) -> str:
    """What a network is called in pictures."""
    return "baseline" if alpha == 0 else f"alpha {alpha:g}"


class LookViews:
    """Everything the panel shows, without any widget: maps are made once, pictures when asked for.

    Args:
        lesson: the networks and the test scenes.
        indices: the scenes to show.

    Attributes:
        pictures: (n, 3, H, W) uint8.
        boxes: n arrays (m, 4), the true boxes.
        names: n class names.
    """

    def __init__(self, lesson: LookLesson, indices: Sequence[int]) -> None:
        examples = [lesson.scenes[int(index)] for index in indices]
        self.lesson, self.indices = lesson, list(indices)
        self.pictures = np.stack([image.numpy() for image, _ in examples])
        self.boxes = [target["boxes"].numpy() for _, target in examples]
        self.names = [lesson.scenes.hierarchy.names[target["label"]] for _, target in examples]
        size = tuple(self.pictures.shape[-2:])
        self._maps = {
            alpha: score_maps(lesson.maps(alpha, self.indices), size).numpy() for alpha in lesson.models
        }

    def maps(self, alpha: float) -> np.ndarray:
        """(n, H, W) in [0, 1]: maps of the true class by one network."""
        return self._maps[alpha]

    def ious(self, alpha: float, threshold: float) -> np.ndarray:
        """(n,) IoU of each shown scene's box with the true one."""
        found = [boxes_from_map(scores, threshold) for scores in self.maps(alpha)]
        return np.array([plots.best_iou(one, true) for one, true in zip(found, self.boxes, strict=True)])

    def share_right(self, alpha: float, threshold: float) -> float:
        """GT-known localisation over *all* test scenes at this threshold: the share with IoU 0.5 or more."""
        return self.lesson.models[alpha].test.largest.localized(0.5, threshold).accuracy

    def view(self, threshold: float, blend: float, alpha: float) -> View:
        """Picture and numbers for one setting."""
        threshold = round(float(threshold), 3)
        give_way()
        figure = plots.maps_on_pictures(
            self.pictures,
            self.boxes,
            self.names,
            {network_name(alpha): self.maps(alpha)},
            {network_name(alpha): threshold},
            blend=blend,
        )
        ious = self.ious(alpha, threshold)
        chosen = self.lesson.models[alpha].threshold
        numbers = (
            f"{network_name(alpha)}, threshold {threshold:.2f} | these {len(ious)}: "
            f"mean IoU {ious.mean():.2f}, {(ious >= 0.5).sum()} right | "
            f"all {len(self.lesson.scenes)} test scenes: {self.share_right(alpha, threshold):.0%} right "
            f"(validation would choose {chosen:.2f})"
        )
        alt = (
            f"{len(ious)} pictures with true boxes; below them the maps of the network {network_name(alpha)} "
            f"and the boxes at threshold {threshold:.2f}, with IoUs "
            + ", ".join(f"{name} {iou:.2f}" for name, iou in zip(self.names, ious, strict=True))
            + "."
        )
        return View(jpeg(figure, 85, quality=75), numbers, alt)

    def grid(self, picture: int = 0) -> View:
        """One picture for every alpha and a few thresholds, and the share of boxes right as text."""
        rows = {network_name(alpha): self.maps(alpha)[picture] for alpha in self.lesson.models}
        figure = plots.threshold_grid(self.pictures[picture], self.boxes[picture], rows, GRID_THRESHOLDS)
        lines = ["share of all test boxes right (IoU of at least 0.5) at each threshold:"]
        lines.append(" " * 10 + "".join(f"{threshold:>8g}" for threshold in GRID_THRESHOLDS))
        for alpha in self.lesson.models:
            shares = "".join(f"{self.share_right(alpha, threshold):>8.0%}" for threshold in GRID_THRESHOLDS)
            lines.append(f"{network_name(alpha):<10}{shares}")
        alt = (
            f"The map of one {self.names[picture]} by {len(rows)} networks, one a row, with the box at "
            f"thresholds {', '.join(map(str, GRID_THRESHOLDS))}: the higher, the smaller the box."
        )
        return View(jpeg(figure, 56), "\n".join(lines), alt)


def look_panel(lesson: LookLesson, indices: Sequence[int], picture: int = 0) -> Panel:
    """Sliders for score threshold, blend and the alpha of the network; boxes and scores follow.

    Args:
        lesson: from `look_lesson.run_look_lesson`.
        indices: the test scenes to show.
        picture: which of them the static grid shows.
    """
    views = LookViews(lesson, indices)
    alphas = list(lesson.models)
    wide = 70  # pixels, for the longest label
    controls = {
        "threshold": widgets.FloatSlider(
            value=0.45, min=0, max=0.95, step=0.05, **on_release("threshold", wide)
        ),
        "blend": widgets.FloatSlider(
            value=0.6, min=0, max=1, step=0.1, readout_format=".1f", **on_release("blend", wide)
        ),
        "alpha": alpha_slider(alphas, alphas[0], wide),
    }
    return Panel(views.view, controls, lambda: views.grid(picture), height=340)

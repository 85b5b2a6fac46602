"""Notebook 06's panel: regions scored live, at a temperature, above a threshold, as many as one likes."""

from collections.abc import Sequence

import ipywidgets as widgets
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ckfr_helpers.attribution.boxes import iou_matrix
from ckfr_helpers.attribution.cam import score_maps
from ckfr_helpers.detection.head import image_scores, wsddn_scores
from ckfr_helpers.detection.rivals import region_maps
from ckfr_helpers.detection.tables import keep_best
from ckfr_helpers.metrics import multilabel_metrics
from ckfr_helpers.teaching.detection_lesson import DetectionLesson
from ckfr_helpers.teaching.detection_scenes import STEP
from ckfr_helpers.teaching.plots.detection import tag
from ckfr_helpers.teaching.plots.photos import Tile, overlay, photo_grid
from ckfr_helpers.teaching.plots.style import jpeg
from ckfr_helpers.teaching.sliders.panel import Panel, View, named

TEMPERATURES = (0.25, 0.5, 1.0, 2.0, 4.0)
THRESHOLDS = (0.003, 0.01, 0.03, 0.1, 0.3)
NAMED = 8  # boxes with a word, the best ones


class LiveRegions:
    """Validation scenes, their regions scored anew; fewer are drawn at random, each lot within the next."""

    def __init__(self, lesson: DetectionLesson, pictures: Sequence[int]) -> None:
        self.seen, self.head = lesson.seen["val"], lesson.detector.head
        self.names = self.seen.source.hierarchy.names
        order = torch.randperm(len(self.seen.proposals), generator=torch.Generator().manual_seed(0))
        self.boxes = self.seen.proposals[order]
        features = self.seen.regions.features["regions"]
        with torch.no_grad():
            embedded = torch.stack([self.head.embed(own[order].float()) for own in features])
            self.logits = [part(embedded) for part in (self.head.class_stream, self.head.detection_stream)]
        self.images = {picture: self.seen.source[picture][0].numpy() for picture in pictures}
        true = torch.cat([target["boxes"] for target in self.seen.targets])
        self.overlaps = iou_matrix(true.numpy(), self.boxes.numpy())  # (P, R)

    def scores(self, temperature: float, regions: int) -> Tensor:
        """(N, regions, K)."""
        of_class, of_region = (part[:, :regions] for part in self.logits)
        return wsddn_scores(of_class, of_region, self.head.class_temperature, temperature)

    def over_all(self, scores: Tensor) -> tuple[float, float]:
        """Share of objects whose class's best region is well placed on them; mAP of the pictures' labels."""
        best = scores[self.seen.shown[0], :, self.seen.shown[1]].argmax(1).numpy()
        right = self.overlaps[np.arange(len(best)), best] >= 0.5
        found = multilabel_metrics(image_scores(scores).clamp(0, 1), self.seen.labels)
        return float(right.mean()), found["mAP"]

    def tile(self, picture: int, label: int, scores: Tensor) -> Tile:
        """The map of one class on its picture, with the true box and the best region."""
        own, target = scores[picture], self.seen.targets[picture]
        raw, size = region_maps(self.boxes[: len(own)], own, self.seen.size, STEP), self.seen.size
        true, best = target["boxes"][target["box_labels"] == label], self.boxes[own[:, [label]].argmax(0)]
        said = f"best region for {self.names[label]}: IoU {iou_matrix(true.numpy(), best.numpy()).max():.2f}"
        shown = overlay(self.images[picture], score_maps(raw[[label]], size)[0].numpy())
        return Tile(shown, said, true, best)


def detection_panel(lesson: DetectionLesson, asked: Sequence[tuple[int, int]]) -> Panel:
    """Sliders for the temperature of WSDDN's softmax over regions, a threshold and the number of regions.

    ``asked`` are pairs of a scene and a class in it; the static grid shows the first. They are of validation,
    since who moves a slider while looking at a score chooses by it.
    """
    live = LiveRegions(lesson, [picture for picture, _ in asked])
    names, seen, total = live.names, live.seen, len(live.boxes)
    counts = [max(1, total // share) for share in (27, 9, 3, 1)]

    def compute(scene: int, temperature: float, threshold: float, regions: int) -> View:
        picture, label = asked[scene]
        scores = live.scores(temperature, regions)
        found = keep_best([live.boxes[:regions]], [scores[picture]], [0], least=threshold)
        where, worth, what = (np.asarray(column) for column in found[:3])
        said = f"{len(where)} boxes scored above {threshold:g}"
        left = Tile(live.images[picture], said, seen.targets[picture]["boxes"], where)
        figure = photo_grid({"": [left, live.tile(picture, label, scores)]}, side=4.2)
        words = [f"{names[one]} {score:.2f}" for one, score in zip(what, worth, strict=True)][:NAMED]
        tag(figure.axes[0], where[:NAMED], words)
        right, precision = live.over_all(scores)
        numbers = (
            f"temperature {temperature:g}, {regions} of {total} regions, {said} | score of {names[label]} "
            f"{image_scores(scores)[picture, label]:.2f} | all {len(scores)} validation scenes: best region "
            f"right for {right:.0%} of objects, mAP of labels {precision:.3f}"
        )
        return View(jpeg(figure), numbers, f"A scene, boxes ({', '.join(words) or 'none'}), a map. {numbers}")

    def static() -> View:
        tiles, columns = {}, [f"{count} regions" for count in counts[1:]]
        told = pd.DataFrame(columns=columns)
        for temperature in TEMPERATURES[::2]:
            every, name = [live.scores(temperature, count) for count in counts[1:]], f"{temperature:g}"
            tiles[f"temperature {name}"] = [live.tile(*asked[0], scores) for scores in every]
            told.loc[name] = ["{:.0%}, {:.3f}".format(*live.over_all(scores)) for scores in every]
        numbers = "all validation scenes, by temperature: share of objects whose best region is right, mAP\n"
        alt = f"The map of one {names[asked[0][1]]} and its best region, by temperature and regions."
        return View(jpeg(photo_grid(tiles, columns, side=2.7)), numbers + told.to_string(), alt)

    scenes = [(names[label], place) for place, (_, label) in enumerate(asked)]
    steps: list[tuple] = [("scene", scenes, 0), ("temperature", TEMPERATURES, 1.0)]
    steps += [("threshold", THRESHOLDS, 0.03), ("regions", counts, total)]
    controls = {n: widgets.SelectionSlider(options=o, value=v, **named(n, 85)) for n, o, v in steps}
    return Panel(compute, controls, static, height=465)

"""Pictures of pictures: contact sheets, the background tie, and one object in several places."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ckfr_helpers.datasets.base import Example, ImageSource
from ckfr_helpers.teaching.plots.style import COLOURS

GAP = 4  # white pixels between two pictures


def examples_of(source: ImageSource, label: int, count: int) -> np.ndarray:
    """The first pictures of one class.

    Returns:
        (count, 3, H, W) uint8; fewer if the class has no more.
    """
    indices = np.flatnonzero(source.labels == label)[:count]
    return np.stack([source[int(index)][0].numpy() for index in indices])


def mosaic(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of pictures as one picture on white.

    Args:
        rows: each (n, 3, H, W) uint8, all pictures of one size; rows may differ in n.

    Returns:
        (height, width, 3) uint8.
    """
    side_y, side_x = rows[0].shape[-2:]
    width = max(len(row) for row in rows) * (side_x + GAP) - GAP
    sheet = np.full((len(rows) * (side_y + GAP) - GAP, width, 3), 255, np.uint8)
    for line, row in enumerate(rows):
        for place, picture in enumerate(row):
            y, x = line * (side_y + GAP), place * (side_x + GAP)
            sheet[y : y + side_y, x : x + side_x] = picture.transpose(1, 2, 0)
    return sheet


def contact_sheet(rows: Mapping[str, np.ndarray], title: str = "", width: float = 9.0) -> Figure:
    """One row of pictures for each name.

    Args:
        rows: name to (n, 3, H, W) uint8, e.g. a class and some of its scenes.
        title: above the figure.
        width: inches.
    """
    sheet = mosaic(list(rows.values()))
    figure, axes = plt.subplots(figsize=(width, (width - 1.6) * sheet.shape[0] / sheet.shape[1] + 0.3))
    _show(axes, sheet, list(rows))
    if title:
        axes.set_title(title)
    return figure


def background_bias(groups: Mapping[str, Mapping[str, np.ndarray]], width: float = 9.0) -> Figure:
    """The tie between class and background, seen: one panel for each setting, side by side.

    Args:
        groups: setting (``"train, bias 0.9"``) to class name to (n, 3, H, W) uint8; the same classes in each.
        width: inches.
    """
    sheets = {title: mosaic(list(rows.values())) for title, rows in groups.items()}
    shapes = [sheet.shape for sheet in sheets.values()]
    height = (width - 1.2) * shapes[0][0] / sum(shape[1] for shape in shapes) + 0.4
    figure, panels = plt.subplots(
        1,
        len(sheets),
        figsize=(width, height),
        squeeze=False,
        gridspec_kw={"width_ratios": [shape[1] for shape in shapes]},
    )
    for number, (axes, (title, rows)) in enumerate(zip(panels[0], groups.items(), strict=True)):
        _show(axes, sheets[title], list(rows) if number == 0 else [])
        axes.set_title(title)
    return figure


def annotated(examples: Mapping[str, Example], width: float = 9.0) -> Figure:
    """Pictures with their exact mask (outlined) and box (dashed).

    Args:
        examples: caption to example; mask and boxes are drawn where there are any.
        width: inches.
    """
    count = len(examples)
    figure, panels = plt.subplots(1, count, figsize=(width, width / count + 0.3), squeeze=False)
    for axes, (caption, (image, target)) in zip(panels[0], examples.items(), strict=True):
        _show(axes, image.numpy().transpose(1, 2, 0), [])
        for mask in target.get("masks", ()):
            axes.contour(mask.numpy(), levels=[0.5], colors=[COLOURS["yellow"]], linewidths=1.5)
        for x0, y0, x1, y1 in target["boxes"].tolist() if "boxes" in target else []:
            # A box names its outermost object pixels; they end half a pixel beyond their centres.
            corner, extent = (x0 - 0.5, y0 - 0.5), (x1 - x0 + 1, y1 - y0 + 1)
            axes.add_patch(
                Rectangle(corner, *extent, fill=False, color="white", linestyle="--", linewidth=1.5)
            )
        axes.set_title(caption)
    return figure


def _show(axes: Axes, sheet: np.ndarray, names: Sequence[str]) -> None:
    axes.imshow(sheet, interpolation="antialiased")
    axes.set_xticks([])
    if names:
        rows = (sheet.shape[0] + GAP) / len(names)
        axes.set_yticks((np.arange(len(names)) + 0.5) * rows - GAP / 2, names)
        axes.tick_params(axis="y", length=0)
    else:
        axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)

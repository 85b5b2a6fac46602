"""Photographs in rows: scenes, score maps laid over them, true and found boxes, answers."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ckfr_helpers import localization
from ckfr_helpers.teaching.plots.style import CMAP, COLOURS, subplots

TRUE_BOX, FOUND_BOX = "white", COLOURS["orange"]


class Tile(NamedTuple):
    """One picture of a grid, with a caption and (n, 4) boxes, both ends inside: true white, found orange."""

    picture: np.ndarray  # (3, H, W) uint8, or (H, W, 3) float in [0, 1]
    caption: str = ""
    true: Any = ()
    found: Any = ()


def photo_grid(rows: Mapping[str, Sequence[Tile]], titles: Sequence[str] = (), side: float = 1.65) -> Figure:
    """Pictures in rows, equally many in each; names on the left, titles above, ``side`` inches a picture."""
    count = max(map(len, rows.values()))
    lines = [max(1 + one.caption.count("\n") if one.caption else 0 for one in row) for row in rows.values()]
    above = 1 + max((title.count("\n") for title in titles), default=-1)
    size = (side * count + 0.3 * any(rows), side * len(rows) + 0.2 * sum(lines) + 0.24 * above + 0.1)
    figure, axes = subplots(len(rows), count, figsize=size, squeeze=False)
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    for line, (name, tiles) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(name, fontsize=12)
        for axis, tile in zip(line, tiles, strict=True):
            flat = tile.picture.dtype == np.uint8
            axis.imshow(tile.picture.transpose(1, 2, 0) if flat else tile.picture, interpolation="lanczos")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            axis.set_xlabel(tile.caption, fontsize=11, labelpad=3)
            for boxes, colour in ((tile.true, TRUE_BOX), (tile.found, FOUND_BOX)):
                for x0, y0, x1, y1 in np.asarray(boxes).reshape(-1, 4).tolist():
                    # A box names its outermost pixels; they end half a pixel beyond their centres.
                    corner, extent = (x0 - 0.5, y0 - 0.5), (x1 - x0 + 1, y1 - y0 + 1)
                    for edge, width in (("black", 4.0), (colour, 2.2)):
                        axis.add_patch(Rectangle(corner, *extent, fill=False, ec=edge, lw=width))
    for axis, title in zip(axes[0], titles, strict=False):
        axis.set_title(title, fontsize=12)
    return figure


def overlay(picture: np.ndarray, scores: np.ndarray, blend: float = 0.6) -> np.ndarray:
    """A score map laid over a grey copy of the picture, whose own colours would be taken for the map's.

    (3, H, W) uint8, (H, W) in [0, 1], weight of the map's colour in [0, 1] -> (H, W, 3) float in [0, 1].
    """
    grey = np.tensordot([0.299, 0.587, 0.114], picture / 255, 1)[..., None]
    return (1 - blend) * grey + blend * mpl.colormaps[CMAP](scores)[..., :3]


def map_tile(
    picture: np.ndarray, scores: np.ndarray, true: Any, threshold: float | None, blend: float = 0.6
) -> Tile:
    """A map on its picture; with a threshold also the box of the largest region above it, and its IoU."""
    shown = overlay(picture, scores, blend)
    if threshold is None:
        return Tile(shown)
    found = localization.boxes_from_map(scores, threshold)
    iou = localization.iou_matrix(found, true).max()
    return Tile(shown, f"IoU {iou:.2f}", true, found)


def maps_on_pictures(
    pictures: np.ndarray,
    names: Sequence[str],
    rows: Mapping[str, np.ndarray],
    boxes: Sequence[Any] | None = None,
    thresholds: Mapping[str, float] | None = None,
    *,
    blend: float = 0.6,
    side: float = 1.65,
) -> Figure:
    """Pictures (n, 3, H, W) uint8 under their names, and below them the maps of each network.

    Args:
        rows: network -> (n, H, W) maps in [0, 1].
        boxes: n arrays (m, 4) of true boxes; None for maps without boxes.
        thresholds: network -> score threshold of its boxes.
    """
    true = boxes if boxes is not None else [()] * len(pictures)
    grid = {"picture": [Tile(picture, "", own) for picture, own in zip(pictures, true, strict=True)]}
    for network, maps in rows.items():
        cut = None if thresholds is None else thresholds[network]
        parts = zip(pictures, maps, true, strict=True)
        grid[network] = [map_tile(picture, scores, own, cut, blend) for picture, scores, own in parts]
    return photo_grid(grid, names, side)

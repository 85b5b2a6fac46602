"""A ranked list of pictures that one can look at: the query, then what was found."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ckfr_helpers.teaching.plots.photos import TRUE_BOX
from ckfr_helpers.teaching.plots.style import COLOURS, subplots

# Colour, line and word say the same, so that none of them is needed.
VERDICTS = {
    "right": (COLOURS["blue"], "solid"),
    "hard": (COLOURS["sky"], "solid"),
    "wrong": (COLOURS["orange"], (0, (3, 1))),
    "junk": (COLOURS["grey"], (0, (1, 1))),
}


class Ranked(NamedTuple):
    """One picture of a ranked list.

    Attributes:
        picture: (3, H, W) uint8.
        score: shown below it.
        name: shown below that, if any.
        verdict: ``"right"``, ``"hard"`` (right, but hard to see), ``"wrong"``, ``"junk"``, or empty where the
            truth is not known.
        box: x0, y0, x1, y1 of what was found there, if known.
    """

    picture: np.ndarray
    score: float
    name: str = ""
    verdict: str = ""
    box: Sequence[float] | None = None


def ranked_sheet(
    query: np.ndarray,
    box: Sequence[float] | None,
    ranked: Sequence[Ranked],
    *,
    columns: int = 5,
    side: float = 1.8,
) -> Figure:
    """The query with its box, and behind it the pictures found, best first.

    Args:
        query: (3, H, W) uint8.
        box: x0, y0, x1, y1 in pixels, both ends inside; None draws none.
        ranked: what was found.
        columns: pictures in a row, the query among them.
        side: of a picture in inches.
    """
    columns = min(columns, 1 + len(ranked))
    rows = -(-(1 + len(ranked)) // columns)
    lines = 1 + any(one.name for one in ranked)
    tallest = max(one.shape[1] / one.shape[2] for one in [query, *(found.picture for found in ranked)])
    figure, axes = subplots(
        rows,
        columns,
        figsize=(side * columns, (side * min(tallest, 1.0) + 0.25 * lines) * rows),
        squeeze=False,
    )
    figure.set_layout_engine("constrained", w_pad=0.03, h_pad=0.03, wspace=0.01, hspace=0.01)
    cells = iter(axes.flat)
    first = next(cells)
    _show(first, query, box)
    first.set_xlabel("query", fontsize=11, fontweight="bold", labelpad=3)
    for place, one in enumerate(ranked, 1):
        axis = next(cells)
        _show(axis, one.picture, one.box)
        said = f"{place}   {one.score:.3f}" + f"   {one.verdict}" * bool(one.verdict)
        name = one.name if len(one.name) <= 24 else f"{one.name[:11]}…{one.name[-12:]}"
        axis.set_xlabel(said + f"\n{name}" * bool(name), fontsize=10, labelpad=3)
        if one.verdict:
            colour, line = VERDICTS[one.verdict]
            axis.spines[:].set(visible=True, edgecolor=colour, linewidth=4, linestyle=line)
    for axis in cells:
        axis.set_axis_off()
    return figure


def _show(axis: Axes, picture: np.ndarray, box: Sequence[float] | None) -> None:
    """A picture in a square cell, its box white on black."""
    axis.imshow(picture.transpose(1, 2, 0), interpolation="lanczos")
    axis.set(xticks=[], yticks=[])
    axis.set_box_aspect(picture.shape[1] / picture.shape[2])
    axis.spines[:].set_visible(False)
    if box is not None:
        x0, y0, x1, y1 = box
        for edge, width in (("black", 4.0), (TRUE_BOX, 2.2)):
            frame = Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0 + 1, y1 - y0 + 1, fill=False)
            frame.set(edgecolor=edge, linewidth=width)
            axis.add_patch(frame)

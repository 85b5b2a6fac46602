"""One look for every figure, and alt text for readers who cannot see it."""

import io
from typing import Any

import matplotlib.pyplot as plt
import PIL.Image
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

#: Sequential colour map: prints in grey and reads alike for most kinds of colour blindness.
CMAP = "cividis"

#: Seaborn's colour-blind-safe cycle, by name, so that one thing keeps one colour across figures.
_NAMES = ("blue", "orange", "green", "red", "purple", "brown", "pink", "grey", "yellow", "sky")
COLOURS: dict[str, Any] = dict(zip(_NAMES, sns.color_palette("colorblind", 10), strict=True))

#: Baseline and method, everywhere.
BASELINE, OURS = COLOURS["grey"], COLOURS["blue"]


def use_style() -> None:
    """Set matplotlib's defaults for the series. Safe to call again."""
    sizes = {"font.size": 10, "axes.titlesize": 11, "axes.labelsize": 10, "lines.linewidth": 2}
    sizes |= dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 9)
    plain = dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False)
    layout = {
        "figure.dpi": 100,
        "savefig.dpi": 100,
        "image.cmap": CMAP,
        "figure.constrained_layout.use": True,
    }
    sns.set_theme(style="ticks", palette="colorblind", rc=sizes | plain | layout)


def subplots(
    rows: int = 1, columns: int = 1, *, figsize: tuple[float, float], **options: Any
) -> tuple[Figure, Any]:
    """Figure and axes as from ``plt.subplots``, for a figure that pyplot does not know.

    Panels draw in a thread of their own; a figure that pyplot knew could turn up under whatever cell runs.
    """
    figure = Figure(figsize=figsize)
    return figure, figure.subplots(rows, columns, **options)


def note(axis: Axes, text: str, place: Any, points: tuple[float, float], **look: Any) -> None:
    """Text so many points right of and above a place on the axis."""
    axis.annotate(text, place, xytext=points, textcoords="offset points", **look)


def png(figure: Figure, dpi: int = 100, colours: int = 256) -> bytes:
    """The figure as PNG in at most 256 colours, which keeps notebooks small; closes the figure."""
    picture = PIL.Image.open(io.BytesIO(_saved(figure, dpi, "png"))).convert("RGB")
    small = io.BytesIO()
    picture.quantize(colours, dither=PIL.Image.Dither.NONE).save(small, format="png", optimize=True)
    return small.getvalue()


def jpeg(figure: Figure, dpi: int = 100) -> bytes:
    """The figure as JPEG, for photographs, which 256 colours would posterise; closes the figure."""
    return _saved(figure, dpi, "jpg", pil_kwargs={"quality": 85, "optimize": True, "progressive": True})


def _saved(figure: Figure, dpi: int, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=dpi, facecolor="white", **options)
    plt.close(figure)
    return buffer.getvalue()


def show(figure: Figure, alt: str, dpi: int = 100, photo: bool = False, colours: int = 256) -> None:
    """Display the figure in a notebook, and close it; ``alt`` says what it shows to those who cannot see it.

    ``photo`` keeps it as JPEG. Of a PNG's ``colours``, 64 are plenty for lines and make it a quarter smaller.
    """
    from IPython.display import Image, display

    display(Image(data=jpeg(figure, dpi) if photo else png(figure, dpi, colours), alt=alt))

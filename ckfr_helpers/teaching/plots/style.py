"""One look for every figure, and alt text for readers who cannot see it."""

import io
from typing import Any

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

#: Sequential colour map: prints in grey and reads alike for most kinds of colour blindness.
CMAP = "cividis"

#: Seaborn's colour-blind-safe cycle, by name, so that one thing keeps one colour across figures.
COLOURS: dict[str, Any] = dict(
    zip(
        ("blue", "orange", "green", "red", "purple", "brown", "pink", "grey", "yellow", "sky"),
        sns.color_palette("colorblind", 10),
        strict=True,
    )
)

#: Baseline and method, everywhere.
BASELINE, OURS = COLOURS["grey"], COLOURS["blue"]


def use_style() -> None:
    """Set matplotlib's defaults for the series. Safe to call again."""
    sns.set_theme(style="ticks", palette="colorblind")
    plt.rcParams.update(
        {
            "image.cmap": CMAP,
            "figure.dpi": 100,
            "savefig.dpi": 100,
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 11,
            "axes.labelsize": 10,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "legend.fontsize": 9,
            "legend.frameon": False,
            "font.size": 10,
            "lines.linewidth": 2,
        }
    )


def subplots(
    rows: int = 1, columns: int = 1, *, figsize: tuple[float, float], **options: Any
) -> tuple[Figure, Any]:
    """Figure and axes as from ``plt.subplots``, for a figure that pyplot does not know.

    Panels draw in a thread of their own. A figure that pyplot knew could turn up under whatever cell runs
    at that moment, or be closed by it.

    Args:
        rows, columns: of the grid.
        figsize: inches.
        options: as for ``Figure.subplots``, e.g. ``width_ratios``.
    """
    figure = Figure(figsize=figsize)
    return figure, figure.subplots(rows, columns, **options)


def png(figure: Figure, dpi: int = 100, colours: int = 256) -> bytes:
    """The figure as PNG in at most 256 colours, which keeps notebooks small; closes the figure."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    plt.close(figure)
    small = io.BytesIO()
    picture = Image.open(buffer).convert("RGB").quantize(colours, dither=Image.Dither.NONE)
    picture.save(small, format="png", optimize=True)
    return small.getvalue()


def jpeg(figure: Figure, dpi: int = 100, quality: int = 85) -> bytes:
    """The figure as JPEG, for photographs, which 256 colours would posterise; closes the figure."""
    buffer = io.BytesIO()
    options = {"quality": quality, "optimize": True, "progressive": True}
    figure.savefig(buffer, format="jpg", dpi=dpi, facecolor="white", pil_kwargs=options)
    plt.close(figure)
    return buffer.getvalue()


def show(figure: Figure, alt: str, dpi: int = 100, photo: bool = False, colours: int = 256) -> None:
    """Display the figure in a notebook with ``alt`` as its alt text, which a bare matplotlib figure lacks.

    Args:
        figure: closed afterwards, so that the notebook does not show it a second time.
        alt: one sentence that says what the picture shows, for readers who cannot see it.
        dpi: resolution.
        photo: keep it as JPEG, which suits photographs, rather than as PNG.
        colours: of a PNG, at most; 64 are plenty for lines and make it a quarter smaller.
    """
    from IPython.display import Image, display

    if photo:
        display(Image(data=jpeg(figure, dpi), format="jpeg", alt=alt))
    else:
        display(Image(data=png(figure, dpi, colours), format="png", alt=alt))

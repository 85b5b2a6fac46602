"""Box accuracy over the score threshold, and the scores of single runs."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ckfr_helpers.teaching.plots.names import LOOK_NAMES
from ckfr_helpers.teaching.plots.style import BASELINE, COLOURS, OURS, subplots


def box_curves(
    curves: Mapping[str, np.ndarray], thresholds: np.ndarray, marks: Mapping[str, float]
) -> Figure:
    """Box accuracy over the score threshold: name -> (3, T) at IoU 0.3, 0.5 and 0.7, one panel for each.

    ``marks``: name -> threshold chosen on validation, drawn as a vertical line.
    """
    figure, axes = subplots(1, 3, figsize=(10, 3.2), sharey=True)
    colours = dict(zip(curves, (BASELINE, OURS, COLOURS["orange"]), strict=False))
    for level, (axis, iou) in enumerate(zip(axes, (0.3, 0.5, 0.7), strict=True)):
        for (name, values), style in zip(curves.items(), ("-", "-", "--"), strict=True):
            axis.plot(thresholds, values[level], style, color=colours[name], label=name)
        for name, threshold in marks.items():
            axis.axvline(threshold, color=colours[name], linewidth=0.9, linestyle=":")
        axis.set(title=f"IoU ≥ {iou}", xlabel="score threshold", xlim=(0, 1), ylim=(0, 1.02))
    axes[0].set_ylabel("share of boxes right")
    axes[2].legend()
    return figure


def quick_table(looks: Mapping[str, Mapping[str, float]], keys: Sequence[str]) -> pd.DataFrame:
    """Scores of single runs, one row a network."""
    rows = {name: {LOOK_NAMES[key]: found[key] for key in keys} for name, found in looks.items()}
    return pd.DataFrame(rows).T

"""Figures of notebook 03: curves, confusions in tree order, latent against tree distance, severities."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure

from ckfr_helpers import metrics
from ckfr_helpers.losses.triplet import latent_distances
from ckfr_helpers.teaching.plots.names import NAMES
from ckfr_helpers.teaching.plots.style import BASELINE, CMAP, OURS

if TYPE_CHECKING:
    from ckfr_helpers.teaching.lesson import Pair


def curves(pairs: Sequence["Pair"]) -> Figure:
    """Cross-entropy, metric term and validation accuracy over epochs, one row a condition."""
    panels = (
        ("train_cross_entropy", "cross-entropy (train)"),
        ("train_metric", "alpha × metric term (train)"),
        ("val_top1", "top-1 (validation)"),
    )
    figure, axes = plt.subplots(len(pairs), 3, figsize=(9, 2.6 * len(pairs)), squeeze=False)
    for row, pair in zip(axes, pairs, strict=True):
        for axis, (key, title) in zip(row, panels, strict=True):
            for name, outcome, colour in _both(pair):
                values = [epoch[key] for epoch in outcome.history]
                axis.plot(range(1, len(values) + 1), values, "o-", color=colour, label=name, markersize=4)
            axis.set(title=f"{title}\n{pair.condition}", xlabel="epoch")
            axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0, 0].legend()
    return figure


def confusions(pair: "Pair") -> Figure:
    """Both methods' mistakes, classes in tree order: near the diagonal means near in the tree."""
    order = pair.hierarchy.order()
    names = [pair.hierarchy.names[i] for i in order]
    figure, axes = plt.subplots(1, 2, figsize=(11, 5.2), sharey=True)
    for axis, (name, outcome, _) in zip(axes, _both(pair), strict=True):
        table = metrics.confusion_matrix(outcome.test.logits.argmax(1), outcome.test.labels, len(order))
        share = table / np.maximum(table.sum(1, keepdims=True), 1)
        sns.heatmap(
            share[np.ix_(order, order)],
            ax=axis,
            cmap=CMAP,
            vmin=0,
            vmax=1,
            square=True,
            xticklabels=names if len(names) <= 30 else False,
            yticklabels=names if len(names) <= 30 else False,
            cbar=axis is axes[-1],
            cbar_kws={"label": "share of the true class", "shrink": 0.8},
        )
        axis.set(title=f"{name}, {pair.condition}", xlabel="answer")
        axis.tick_params(labelsize=7, length=0)
    axes[0].set_ylabel("truth")
    return figure


def latent_against_tree(pair: "Pair", ell: float = 1.2, measure: str = "path", most: int = 300) -> Figure:
    """Latent distance at each tree distance: before training, after the baseline, after CKFR."""
    tree = pair.hierarchy.distances(measure)
    labels = pair.ckfr.test.labels
    keep = np.linspace(0, len(labels) - 1, min(most, len(labels))).round().astype(int)
    rows, columns = np.triu_indices(len(keep), 1)
    apart = tree[labels[keep]][:, labels[keep]][rows, columns]
    views = (
        ("before training", pair.before),
        ("baseline", pair.baseline.test.latents),
        ("CKFR", pair.ckfr.test.latents),
    )
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), sharey=True)
    for axis, (name, latents), colour in zip(axes, views, (CMAP, BASELINE, OURS), strict=True):
        latent = latent_distances(torch.as_tensor(latents[keep]), ell).numpy()[rows, columns]
        colour = "white" if colour == CMAP else colour
        sns.boxplot(
            x=apart.astype(int), y=latent, ax=axis, color=colour, showfliers=False, width=0.7, linewidth=1
        )
        different = apart > 0
        correlation = np.corrcoef(latent[different], apart[different])[0, 1]
        axis.set(
            title=f"{name}: correlation {correlation:.2f}", xlabel="edges between the classes", ylabel=""
        )
        lengths = np.unique(apart).astype(int)
        axis.set_xticks(range(0, len(lengths), 4), lengths[::4])
    axes[0].set_ylabel("latent distance")
    return figure


def severities(pair: "Pair") -> Figure:
    """How far from the truth the wrong answers are: counts by height of the lowest common ancestor."""
    matrix = pair.hierarchy.distances("lca_height")
    figure, axis = plt.subplots(figsize=(6.5, 3))
    heights = np.arange(1, int(matrix.max()) + 1)
    for shift, (name, outcome, colour) in zip((-0.2, 0.2), _both(pair), strict=True):
        far = metrics.mistake_distances(outcome.test.logits.argmax(1), outcome.test.labels, matrix)
        counts = [(far == height).sum() for height in heights]
        axis.bar(heights + shift, counts, width=0.4, color=colour, label=name)
    axis.set(xlabel="severity of the mistake (height of the lowest common ancestor)", ylabel="test scenes")
    axis.set(title=f"mistakes by severity, {pair.condition}", xticks=heights)
    axis.legend()
    return figure


def quick_table(pairs: Sequence["Pair"]) -> pd.DataFrame:
    """Test scores of one run each, with the free minimum-risk decisions of both beside them."""
    rows = {}
    for pair in pairs:
        for name, outcome, _ in _both(pair):
            for suffix, prefix in (("", ""), (" + CRM", "crm_")):
                rows[pair.condition, name + suffix] = {
                    label: outcome.scores.get(prefix + key, np.nan if prefix else outcome.scores[key])
                    for key, label in NAMES.items()
                }
    return pd.DataFrame(rows).T


def _both(pair: "Pair") -> list[tuple[str, Any, Any]]:
    return [("baseline", pair.baseline, BASELINE), ("CKFR", pair.ckfr, OURS)]


def three_matrices(pair: "Pair", ell: float = 1.2, measure: str = "path") -> Figure:
    """The tree's class distances beside those between class means of test latents, all in tree order."""
    order = pair.hierarchy.order()
    names = [pair.hierarchy.names[i] for i in order]
    tree = pair.hierarchy.distances(measure)
    views = [("the tree says", tree)]
    for name, outcome in (("cross-entropy alone learns", pair.baseline), ("CKFR learns", pair.ckfr)):
        means = [outcome.test.latents[outcome.test.labels == label].mean(0) for label in range(len(order))]
        latent = latent_distances(torch.as_tensor(np.stack(means)), ell).numpy()
        upper = np.triu_indices(len(order), 1)
        correlation = np.corrcoef(latent[upper], tree[upper])[0, 1]
        views.append((f"{name}  (r = {correlation:.2f})", latent))
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.6), sharey=True, layout="compressed")
    for axis, (title, matrix) in zip(axes, views, strict=True):
        image = axis.imshow(matrix[np.ix_(order, order)], cmap=CMAP)
        axis.set_title(title)
        axis.set_xticks(range(len(names)), names, rotation=90)
        axis.tick_params(labelsize=7, length=0)
        for spine in axis.spines.values():
            spine.set_visible(False)
    axes[0].set_yticks(range(len(names)), names)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, ticks=[matrix.min(), matrix.max()])
    bar.ax.set_yticklabels(["near", "far"])
    return figure

"""Figures of notebook 03: curves, confusions in tree order, latent against tree distance, severities."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix

from ckfr_helpers import metrics
from ckfr_helpers.losses.triplet import latent_distances
from ckfr_helpers.teaching.lesson import Pair
from ckfr_helpers.teaching.plots.classes import class_matrices
from ckfr_helpers.teaching.plots.names import NAMES
from ckfr_helpers.teaching.plots.style import BASELINE, OURS


def curves(pairs: Sequence[Pair]) -> Figure:
    """Cross-entropy, metric term and validation accuracy over epochs, one row a condition."""
    titles = ("cross-entropy (train)", "alpha × metric term (train)", "top-1 (validation)")
    panels = dict(zip(("train_cross_entropy", "train_metric", "val_top1"), titles, strict=True))
    figure, axes = plt.subplots(len(pairs), 3, figsize=(10, 2.7 * len(pairs)), squeeze=False)
    for row, pair in zip(axes, pairs, strict=True):
        for axis, (key, title) in zip(row, panels.items(), strict=True):
            for name, outcome, colour in _both(pair):
                values = [epoch[key] for epoch in outcome.history]
                axis.plot(range(1, len(values) + 1), values, "o-", color=colour, label=name, markersize=4)
            axis.set(title=f"{title}\n{pair.condition}", xlabel="epoch")
            axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0, 0].legend()
    return figure


def confusions(pair: Pair) -> Figure:
    """Both methods' answers (columns) by true class (rows): near the diagonal means near in the tree."""
    shares = {}
    for name, outcome, _ in _both(pair):
        answers = outcome.test.logits.argmax(1)
        shares[f"{name}, {pair.condition} (rows: truth, columns: answer)"] = confusion_matrix(
            outcome.test.labels, answers, labels=np.arange(len(pair.hierarchy)), normalize="true"
        )
    return class_matrices(shares, pair.hierarchy, "share of the true class", side=4.4)


def latent_against_tree(pair: Pair, ell: float = 1.2, most: int = 300) -> Figure:
    """Distances of pairs of test scenes, by path length: before training, after the baseline, after CKFR."""
    labels = pair.ckfr.test.labels
    keep = np.linspace(0, len(labels) - 1, min(most, len(labels))).round().astype(int)
    pairs = np.triu_indices(len(keep), 1)
    edges = pair.hierarchy.distances("path")[np.ix_(labels[keep], labels[keep])][pairs].astype(int)
    views = [("before training", pair.before, "white")]
    views += [(name, outcome.test.latents, colour) for name, outcome, colour in _both(pair)]
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), sharey=True)
    for axis, (name, latents, colour) in zip(axes, views, strict=True):
        latent = latent_distances(torch.as_tensor(latents[keep]), ell).numpy()[pairs]
        sns.boxplot(x=edges, y=latent, ax=axis, color=colour, showfliers=False, width=0.7, linewidth=1)
        correlation = np.corrcoef(latent[edges > 0], edges[edges > 0])[0, 1]
        axis.set(title=f"{name}: correlation {correlation:.2f}", xlabel="edges between the classes")
        lengths = np.unique(edges)
        axis.set_xticks(range(0, len(lengths), 4), lengths[::4])
    axes[0].set_ylabel("latent distance")
    return figure


def severities(pair: Pair) -> Figure:
    """How far from the truth the wrong answers are: counts by height of the lowest common ancestor."""
    matrix = pair.hierarchy.distances("lca_height")
    figure, axis = plt.subplots(figsize=(8, 3.2))
    heights = np.arange(1, int(matrix.max()) + 1)
    for shift, (name, outcome, colour) in zip((-0.2, 0.2), _both(pair), strict=True):
        far = metrics.mistake_distances(outcome.test.logits.argmax(1), outcome.test.labels, matrix)
        counts = [(far == height).sum() for height in heights]
        axis.bar(heights + shift, counts, width=0.4, color=colour, label=name)
    axis.set(xlabel="severity of the mistake (height of the lowest common ancestor)", ylabel="test scenes")
    axis.set(title=f"mistakes by severity, {pair.condition}", xticks=heights)
    axis.legend()
    return figure


def quick_table(pairs: Sequence[Pair]) -> pd.DataFrame:
    """Test scores of one run each, with the free minimum-risk decisions of both beside them."""
    rows = {}
    for pair in pairs:
        for name, outcome, _ in _both(pair):
            for suffix, prefix in (("", ""), (" + CRM", "crm_")):
                found = {label: outcome.scores.get(prefix + key) for key, label in NAMES.items()}
                rows[pair.condition, name + suffix] = found
    return pd.DataFrame(rows).T


def _both(pair: Pair) -> list[tuple[str, Any, Any]]:
    return [("baseline", pair.baseline, BASELINE), ("CKFR", pair.ckfr, OURS)]


def three_matrices(pair: Pair, ell: float = 1.2) -> Figure:
    """The tree's class distances beside those between class means of test latents, all in tree order."""
    tree = pair.hierarchy.distances("path")
    upper = np.triu_indices(len(tree), 1)
    views = {"the tree says": tree / tree.max()}
    for name, outcome in (("cross-entropy alone learns", pair.baseline), ("CKFR learns", pair.ckfr)):
        means = [outcome.test.latents[outcome.test.labels == label].mean(0) for label in range(len(tree))]
        latent = latent_distances(torch.as_tensor(np.stack(means)), ell).numpy()
        correlation = np.corrcoef(latent[upper], tree[upper])[0, 1]
        views[f"{name}  (r = {correlation:.2f})"] = latent / latent.max()
    return class_matrices(views, pair.hierarchy, "distance / largest")

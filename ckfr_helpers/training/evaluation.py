"""What a trained model says of a split, and every score the series reports."""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor, nn

from ckfr_helpers import metrics
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.models.classifier import evaluating


class Predictions(NamedTuple):
    """Outputs for one split, one row an example, ordered by index, its place in the source."""

    logits: np.ndarray  # (N, K) float32
    latents: np.ndarray  # (N, D) float32
    labels: np.ndarray  # (N,) int64
    indices: np.ndarray  # (N,) int64


def predict(model: Any, loader: Iterable, fabric: Fabric | None = None) -> Predictions:
    """Logits and latents of every example of a loader, as `collect` gives them.

    The model has ``embed`` and ``classify``.
    """

    def read(inputs: Any, targets: dict[str, Any]) -> dict[str, Tensor]:
        latents = model.embed(inputs)
        return {"logits": model.classify(latents), "latents": latents, "labels": targets["label"]}

    return Predictions(**{name: rows.numpy() for name, rows in collect(model, loader, read, fabric).items()})


@torch.no_grad()  # not inference_mode: older gloo gathers in another thread, which may not write such tensors
def collect(
    model: nn.Module,
    loader: Iterable,
    read: Callable[[Any, dict[str, Any]], dict[str, Tensor]],
    fabric: Fabric | None = None,
) -> dict[str, Tensor]:
    """What ``read(inputs, targets)`` says of every example of a loader, the model in evaluation mode.

    The modes come back afterwards. Without a fabric it runs alone.

    Args:
        read: gives tensors with one row an example, for a batch on the model's device.

    Returns:
        Its tensors of all batches and processes, and ``indices``; on the CPU, floating-point ones as float32,
        ordered by index, each example once.
    """
    device = next(model.parameters()).device
    parts: list[dict[str, Tensor]] = []
    with evaluating(model):
        for inputs, targets, indices in loader:
            inputs, targets, indices = move_data_to_device((inputs, targets, indices), device)
            with fabric.autocast() if fabric is not None else contextlib.nullcontext():
                seen = {**read(inputs, targets), "indices": indices}
            batch = {name: rows.float() if rows.is_floating_point() else rows for name, rows in seen.items()}
            if fabric is not None and fabric.world_size > 1:
                gathered: Any = fabric.all_gather(batch)
                batch = {name: rows.flatten(0, 1) for name, rows in gathered.items()}
            parts.append({name: rows.cpu() for name, rows in batch.items()})
    columns = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    # Several processes fill the last batch up with repeats; the index tells them.
    _, first = np.unique(columns["indices"].numpy(), return_index=True)
    return {name: rows[torch.from_numpy(first)] for name, rows in columns.items()}


def score(predictions: Predictions, hierarchy: Hierarchy) -> dict[str, float]:
    """Accuracy, how bad the mistakes are, the free CRM decisions, and how well latents follow the tree.

    Units are fixed, whatever a loss was trained with: mistakes are measured in LCA height, and latents are
    compared with path lengths.

    Returns:
        `metrics.hierarchical_metrics` of the argmax, with hdist@k for no k beyond K; the same under ``crm_``
        for minimum-risk decisions; "cross_entropy"; and `metrics.latent_tree_correlation`.
    """
    logits, labels = torch.from_numpy(predictions.logits).double(), predictions.labels
    heights = hierarchy.distances("lca_height")
    ks = tuple(k for k in (1, 5, 20) if k <= len(hierarchy))
    scores = dict(metrics.hierarchical_metrics(predictions.logits, labels, heights, ks=ks))
    scores["cross_entropy"] = float(nn.functional.cross_entropy(logits, torch.from_numpy(labels)))
    decisions = metrics.minimum_risk_scores(logits.softmax(1), heights)
    crm = metrics.hierarchical_metrics(decisions, labels, heights, ks=ks)
    scores |= {f"crm_{name}": value for name, value in crm.items()}
    return scores | metrics.latent_tree_correlation(predictions.latents, labels, hierarchy.distances("path"))


# What each score says, beside its name; ``crm_`` and ``hdist@k`` have words of their own.
TITLES = {
    "top1": "share of right answers",
    "top5": "share with the right class among the best five",
    "mistake_severity": "of mistakes: mean height of the lowest ancestor that answer and truth share",
    "cross_entropy": "mean -log(probability of the right class)",
    "correlation": "of latent distances with path lengths in the tree, between class means (Pearson)",
    "correlation_spearman": "the same by rank (Spearman)",
    "energy": "share of the map's mass that lies on the object",
    "pointing": "share of maps whose highest pixel lies on the object",
    "box_acc_fixed": "share of right boxes, all contours, mean over IoU 0.3, 0.5, 0.7; threshold from val",
    "gt_known_fixed": "share of right boxes, largest contour, IoU 0.5; threshold from val",
    "top1_loc_fixed": "the same, and the class right too",
    "max_box_acc_v2": "as box_acc_fixed, each threshold the best for this split (Choe et al.)",
    "gt_known": "as gt_known_fixed, the threshold the best for this split",
    "pxap": "average precision of the map's pixels against the masks",
}


def score_title(name: str) -> str:
    """A few words on a score, to stand beside its name; nothing for one that is not known."""
    if name.startswith("crm_"):
        return f"{name[4:]} of the answers of least expected distance (CRM)"
    if name.startswith("hdist@"):
        return f"mean height of the lowest ancestor that the truth shares with the best {name[6:]}"
    return TITLES.get(name, "")

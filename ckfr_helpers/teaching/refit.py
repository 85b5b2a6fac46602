"""A projection and a linear classifier, fitted on the spot to latents that a frozen network gave once.

What notebook 03's panel computes at every move of a slider: a fit takes about a second on one core, so alpha
and ell can be felt. It is the smallest model in which the loss can move latents at all: one matrix.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ckfr_helpers import datasets, metrics
from ckfr_helpers.datasets.loading import TransformedView, make_loader
from ckfr_helpers.datasets.scenes.photos import class_ids
from ckfr_helpers.datasets.transforms import make_transform
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.losses.triplet import AlignedTripletLoss
from ckfr_helpers.models.classifier import build_model
from ckfr_helpers.runtime import num_workers, one_thread
from ckfr_helpers.training.evaluation import predict


@dataclass(frozen=True)
class FrozenLatents:
    """What a network that is not trained any further says of two splits.

    Attributes:
        train, train_labels: (N, D) latents to fit to, and (N,) int64.
        held_out, held_out_labels: (M, D) latents to score on, and (M,) int64.
        hierarchy: of the classes.
    """

    train: np.ndarray
    train_labels: np.ndarray
    held_out: np.ndarray
    held_out_labels: np.ndarray
    hierarchy: Hierarchy


@dataclass(frozen=True)
class RefitSetting:
    """How the projection and the classifier are fitted.

    Attributes:
        alpha: weight of the metric term; 0 is the baseline.
        ell: exponent of the latent distance.
        dimensions: P, the projection's output.
        steps: of Adam, from 3e-3 with a cosine decay to 0.
        batch_size: samples a step; at most as many as there are.
        seed: of first weights and batches; equal seeds give both methods the same of each.
    """

    alpha: float = 0.0
    ell: float = 1.2
    dimensions: int = 32
    steps: int = 120
    batch_size: int = 64
    seed: int = 0


@dataclass(frozen=True)
class Refit:
    """A fitted model, as far as a picture of it needs it.

    Attributes:
        latents: (M, P) projected held-out latents.
        logits: (M, C) of the held-out samples.
        train_accuracy: share of the training samples that it gets right.
        scores: on the held-out samples: "top1"; "mistake_severity" and "hdist@k" in LCA height; and
            `metrics.latent_tree_correlation`, whose ell and measure do not follow the setting's.
    """

    setting: RefitSetting
    latents: np.ndarray
    logits: np.ndarray
    train_accuracy: float
    scores: dict[str, float]


def photo_latents(scenes: int = 16, held_out_scenes: int = 10, *, size: int = 160) -> FrozenLatents:
    """Pooled latents of the embedded photos' training and validation scenes, before any training.

    The test split stays out of it: who moves a slider while looking at a score is choosing by that score.

    Args:
        scenes, held_out_scenes: a class.
        size: side of the input in pixels.
    """
    model = build_model("efficientnet_lite0", 1)
    transform = make_transform("light", train=False, size=size, mean=model.mean, std=model.std)
    seen = []
    for split, each in (("train", scenes), ("val", held_out_scenes)):
        source = datasets.open_source("photos", split, size=size, scenes=len(class_ids()) * each)
        loader = make_loader(
            TransformedView(source, transform), 64, train=False, workers=min(2, num_workers())
        )
        seen.append(predict(model, loader))
    train, held_out = seen
    return FrozenLatents(train.latents, train.labels, held_out.latents, held_out.labels, source.hierarchy)


@one_thread()
def refit(frozen: FrozenLatents, setting: RefitSetting) -> Refit:
    """Fit a projection (D -> P) and a linear classifier (P -> C) to cross-entropy + alpha · metric term.

    Returns:
        The fit, scored on the held-out samples; the same for the same setting on the same machine.
    """
    samples, features = frozen.train.shape
    classes = len(frozen.hierarchy)
    # Every feature has mean 0 and deviation 1 over the training samples.
    middle, spread = frozen.train.mean(axis=0), frozen.train.std(axis=0) + 1e-6
    train, held_out = (
        torch.from_numpy(((split - middle) / spread).astype(np.float32))
        for split in (frozen.train, frozen.held_out)
    )
    labels = torch.from_numpy(frozen.train_labels)
    knowledge = frozen.hierarchy.distances("path")
    loss = AlignedTripletLoss(setting.alpha, setting.ell, 0.1 * knowledge)

    draws = torch.Generator().manual_seed(setting.seed)
    projection = torch.randn(setting.dimensions, features, generator=draws) / features**0.5
    weight = torch.randn(classes, setting.dimensions, generator=draws) / setting.dimensions**0.5
    bias = torch.zeros(classes)
    learned = [projection.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()]
    optimiser = torch.optim.Adam(learned, lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, setting.steps)
    batches = _batches(samples, min(setting.batch_size, samples), draws)
    for _ in range(setting.steps):
        batch = next(batches)
        latents = train[batch] @ projection.T  # (B, P)
        total = nn.functional.cross_entropy(latents @ weight.T + bias, labels[batch])
        total = total + loss(latents, labels[batch])
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        schedule.step()

    with torch.no_grad():
        latents = held_out @ projection.T  # (M, P)
        logits = (latents @ weight.T + bias).numpy()
        hits = (train @ projection.T @ weight.T + bias).argmax(1) == labels
    truth = frozen.held_out_labels
    scores = metrics.hierarchical_metrics(logits, truth, frozen.hierarchy.distances("lca_height"))
    scores |= metrics.latent_tree_correlation(latents, truth, knowledge)
    return Refit(setting, latents.numpy(), logits, float(hits.float().mean()), scores)


def _batches(samples: int, size: int, draws: torch.Generator) -> Iterator[Tensor]:
    """Index batches without end, each pass in a new order."""
    while True:
        order = torch.randperm(samples, generator=draws)
        for start in range(0, samples - size + 1, size):
            yield order[start : start + size]

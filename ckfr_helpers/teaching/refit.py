"""The smallest model that the loss can move: one matrix and a classifier, fitted to a network's latents."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

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
    """Latents of a network that is not trained any further: (N, D) to fit to, (M, D) held out to score on."""

    train: np.ndarray
    train_labels: np.ndarray
    held_out: np.ndarray
    held_out_labels: np.ndarray
    hierarchy: Hierarchy


@dataclass(frozen=True)
class RefitSetting:
    """How the projection and the classifier are fitted.

    There are ``steps`` of Adam, from 3e-3 with a cosine decay to 0, on batches of 64. ``dimensions`` is the
    projection's output, P; ``seed`` gives first weights and batches.
    """

    alpha: float = 0.0
    ell: float = 1.2
    dimensions: int = 32
    steps: int = 120
    seed: int = 0


@dataclass(frozen=True)
class Refit:
    """What a fitted model says of the held-out samples: (M, P) projected latents, (M, C) logits, and scores.

    These are "top1", "mistake_severity" and "hdist@k" in LCA height, and `metrics.latent_tree_correlation`,
    whose ell and measure do not follow the setting's.
    """

    setting: RefitSetting
    latents: np.ndarray
    logits: np.ndarray
    scores: dict[str, float]


def photo_latents(scenes: int = 16, held_out_scenes: int = 10, *, size: int = 160) -> FrozenLatents:
    """Pooled latents of the embedded photos' training and validation scenes, before any training.

    The test split stays out of it: who moves a slider while looking at a score is choosing by that score.
    There are so many ``scenes`` a class, of ``size`` pixels a side.
    """
    model = build_model("efficientnet_lite0", 1)
    transform = make_transform("light", train=False, size=size, mean=model.mean, std=model.std)
    seen = []
    for split, each in (("train", scenes), ("val", held_out_scenes)):
        source = datasets.open_source("photos", split, size=size, scenes=len(class_ids()) * each)
        view = TransformedView(source, transform)
        seen.append(predict(model, make_loader(view, 64, train=False, workers=num_workers(2))))
    train, held_out = seen
    return FrozenLatents(train.latents, train.labels, held_out.latents, held_out.labels, source.hierarchy)


@one_thread()
def refit(frozen: FrozenLatents, setting: RefitSetting) -> Refit:
    """Fit a projection (D -> P) and a linear classifier (P -> C) to cross-entropy + alpha · metric term."""
    samples, features = frozen.train.shape
    classes = len(frozen.hierarchy)
    # Every feature has mean 0 and deviation 1 over the training samples.
    middle, spread = frozen.train.mean(axis=0), frozen.train.std(axis=0) + 1e-6
    splits = frozen.train, frozen.held_out
    train, held_out = (torch.from_numpy((split - middle) / spread).float() for split in splits)
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
    size = min(64, samples)
    whole, passes = samples // size * size, -(-setting.steps // (samples // size))
    order = torch.cat([torch.randperm(samples, generator=draws)[:whole] for _ in range(passes)])
    for batch in order.split(size)[: setting.steps]:
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
    truth = frozen.held_out_labels
    scores = metrics.hierarchical_metrics(logits, truth, frozen.hierarchy.distances("lca_height"))
    scores |= metrics.latent_tree_correlation(latents, truth, knowledge)
    return Refit(setting, latents.numpy(), logits, scores)

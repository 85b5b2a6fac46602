"""Latents without a network: free points, moved by the loss alone or beside cross-entropy."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ckfr_helpers.hierarchy.checks import check_distances
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.losses.demo import draw_triplets, released_line_loss
from ckfr_helpers.losses.triplet import (
    aligned_triplet_loss,
    check_alpha_and_ell,
    latent_distances,
    sampled_triplet_loss,
    standardise,
)
from ckfr_helpers.runtime import CkfrError, check_number, one_thread

FRAMES = 25  # how many moments of a run are kept for drawing trails


@dataclass(frozen=True)
class Setting:
    """How free points are moved.

    Attributes:
        term: ``"aligned"``, the loss as stated, or ``"released"``, the released demo's line, which takes
            the third label from the second image (see `released_line_loss`).
        sampled: one random triplet per anchor and step, as the demo draws them, instead of every triplet.
        cross_entropy: add the cross-entropy of a linear classifier that is learned along with the points.
        dimensions: D of the latents.
        steps: Adam steps, with a cosine decay of the learning rate to 0.
        seed: of the start, whatever the term, and of the sampled triplets.
    """

    alpha: float = 20.0
    ell: float = 1.2
    term: Literal["aligned", "released"] = "aligned"
    sampled: bool = False
    cross_entropy: bool = True
    dimensions: int = 2
    per_class: int = 3
    steps: int = 200
    learning_rate: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        check_alpha_and_ell(self.alpha, self.ell)
        if self.term not in ("aligned", "released"):
            raise CkfrError(f"term is {self.term!r}; expected 'aligned' or 'released'.")
        for name in ("dimensions", "per_class", "steps"):
            check_number(name, getattr(self, name), 1, whole=True)
        if not self.cross_entropy and self.alpha == 0:
            raise CkfrError("alpha is 0 and there is no cross-entropy; expected one of the two.")


class Alignment(NamedTuple):
    """How well latent distances follow knowledge distances, over all pairs of samples.

    `metrics.latent_tree_correlation`, by which networks are compared, takes class means instead.

    Attributes:
        pearson: correlation over all pairs; NaN where one side is constant.
        pearson_between: the same over pairs of different classes, where telling classes apart earns nothing.
        same_to_different: mean latent distance within classes over that between classes; 0 is a collapse
            of every class to a point, 1 means that classes are invisible.
    """

    pearson: float
    pearson_between: float
    same_to_different: float


@dataclass(frozen=True)
class Arrangement:
    """Where points ended, and how they got there.

    Attributes:
        labels: (B,) class of each point.
        frames: (F, B, D) latents from the start to the end, standardised.
        frame_steps: (F,) how many steps had been taken at each frame.
        latent: (B, B) latent distances at the end; ``start`` those of the first frame.
        knowledge: (B, B) knowledge distances, unscaled.
        accuracy: share of the points that the learned classifier gets right; NaN without cross-entropy.
    """

    setting: Setting
    labels: np.ndarray
    frames: np.ndarray
    frame_steps: np.ndarray
    latent: np.ndarray
    start: np.ndarray
    knowledge: np.ndarray
    accuracy: float

    @property
    def latents(self) -> np.ndarray:
        """(B, D) where the points ended, standardised."""
        return self.frames[-1]

    @property
    def alignment(self) -> Alignment:
        return measure_alignment(self.latent, self.knowledge)

    def course(self) -> list[Alignment]:
        """The alignment at every frame."""
        latents = [_distances_of(frame, self.setting.ell) for frame in self.frames]
        return [measure_alignment(latent, self.knowledge) for latent in latents]


def measure_alignment(latent: np.ndarray, knowledge: np.ndarray) -> Alignment:
    """Correlations and the same-to-different ratio of two (B, B) distance matrices, over pairs a < b.

    A knowledge distance of 0 marks two samples of one class.
    """
    pairs = np.triu_indices(len(latent), 1)
    d, delta = np.asarray(latent, float)[pairs], np.asarray(knowledge, float)[pairs]
    apart = delta > 0
    ratio = d[~apart].mean() / d[apart].mean() if not apart.all() else np.nan  # one sample a class
    return Alignment(_pearson(d, delta), _pearson(d[apart], delta[apart]), float(ratio))


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    constant = len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0
    return float("nan") if constant else float(np.corrcoef(x, y)[0, 1])


def _distances_of(standardised: np.ndarray, ell: float) -> np.ndarray:
    return latent_distances(torch.from_numpy(standardised), ell, standardised=True).numpy()


@one_thread()
def arrange(distances: np.ndarray, setting: Setting) -> Arrangement:
    """Move free points by the loss; (C, C) ``distances`` are between classes, unscaled.

    Raises:
        CkfrError: if `check_distances` refuses ``distances``, or there are fewer than 3 points.
    """
    matrix = check_distances(distances).astype(np.float32)
    classes = len(matrix)
    labels = torch.arange(classes).repeat_interleave(setting.per_class)  # (B,)
    if len(labels) < 3:
        raise CkfrError(f"There are {len(labels)} points in {classes} classes; expected 3 or more.")
    knowledge = torch.from_numpy(matrix)[labels][:, labels]  # (B, B)
    target = 0.1 * knowledge  # the demo's factor
    # Two generators, so that the start does not depend on what is drawn later.
    start = torch.Generator().manual_seed(setting.seed)
    draws = torch.Generator().manual_seed(setting.seed + 1_000_003)
    points = torch.randn(len(labels), setting.dimensions, generator=start).requires_grad_()
    weight = (torch.randn(classes, setting.dimensions, generator=start) / 2).requires_grad_()
    bias = torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.Adam([points, weight, bias], lr=setting.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, setting.steps)

    keep = np.linspace(0, setting.steps, min(FRAMES, setting.steps + 1)).round().astype(int)
    frames: list[np.ndarray] = []
    for step in range(setting.steps):
        if step in keep:
            frames.append(standardise(points.detach()).numpy())
        loss = setting.alpha * _term(setting, latent_distances(points, setting.ell), target, draws)
        if setting.cross_entropy:
            loss = loss + nn.functional.cross_entropy(points @ weight.T + bias, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()

    with torch.no_grad():
        frames.append(standardise(points).numpy())
        hits = (points @ weight.T + bias).argmax(1) == labels
    return Arrangement(
        setting=setting,
        labels=labels.numpy(),
        frames=np.stack(frames),
        frame_steps=keep,
        latent=_distances_of(frames[-1], setting.ell),
        start=_distances_of(frames[0], setting.ell),
        knowledge=knowledge.numpy(),
        accuracy=float(hits.float().mean()) if setting.cross_entropy else float("nan"),
    )


def _term(setting: Setting, latent: Tensor, knowledge: Tensor, draws: torch.Generator) -> Tensor:
    triplets = draw_triplets(len(latent), draws) if setting.sampled else None
    if setting.term == "released":
        return released_line_loss(latent, knowledge, triplets)
    if triplets is not None:
        return sampled_triplet_loss(latent, knowledge, triplets)
    return aligned_triplet_loss(latent, knowledge)


def small_trees() -> dict[str, Hierarchy]:
    """Three little trees to arrange points by: balanced, lopsided, and flat (all distances equal)."""
    leaves = ["lion", "tiger", "robin", "owl", "frying pan", "wok", "bus", "tractor"]
    balanced = {
        "animal": {"cat": leaves[:2], "bird": leaves[2:4]},
        "artefact": {"pan": leaves[4:6], "vehicle": leaves[6:]},
    }
    lopsided = {
        "frying pan": None,
        "animal": {"bee": None, "vertebrate": {"robin": None, "mammal": {"wolf": None, "cat": leaves[:2]}}},
    }
    return {
        "balanced": Hierarchy.from_nested({"thing": balanced}, leaves),
        "lopsided": Hierarchy.from_nested({"thing": lopsided}),
        "flat": Hierarchy.from_nested({"thing": leaves}, leaves),
    }


def offset_share(latents: np.ndarray) -> float:
    """Share of all variance in (B, D) latents that is between features, the same for every sample.

    `losses.standardise` divides by the root of the whole variance: the nearer this is to 1, the smaller are
    all distances.
    """
    return float(latents.mean(0).var() / latents.var())


def uninformative_share(distances: np.ndarray) -> float:
    """Share of triplets that are told δ_ap = δ_an, when the three images are drawn uniformly.

    ``distances`` are (C, C), between classes taken as equally frequent and drawn independently, so that p and
    n may share a class with each other or with the anchor: the mean over anchors of Σ_v P(δ = v)².
    """
    counts = [np.unique(np.round(row, 6), return_counts=True)[1] for row in distances]
    return float(np.mean([np.square(count / len(distances)).sum() for count in counts]))

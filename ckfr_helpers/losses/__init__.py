"""The aligned triplet loss, the losses to compare it with, and free points in the plane."""

from ckfr_helpers.losses.demo import draw_triplets, three_view_loss
from ckfr_helpers.losses.rivals import (
    BASELINE,
    METHODS,
    CrossEntropy,
    HierarchicalCrossEntropy,
    Objective,
    ProxyAnchor,
    SoftLabels,
    check_method,
    make_loss,
)
from ckfr_helpers.losses.triplet import (
    AlignedTripletLoss,
    aligned_triplet_loss,
    check_alpha_and_ell,
    latent_distances,
    sampled_triplet_loss,
    standardise,
    triplet_terms,
)

__all__ = [
    "BASELINE",
    "METHODS",
    "AlignedTripletLoss",
    "CrossEntropy",
    "HierarchicalCrossEntropy",
    "Objective",
    "ProxyAnchor",
    "SoftLabels",
    "aligned_triplet_loss",
    "check_alpha_and_ell",
    "check_method",
    "draw_triplets",
    "latent_distances",
    "make_loss",
    "sampled_triplet_loss",
    "standardise",
    "three_view_loss",
    "triplet_terms",
]

"""The aligned triplet loss, the losses to compare it with, and free points in the plane."""

from ckfr_helpers.losses.demo import draw_triplets, three_view_loss
from ckfr_helpers.losses.rivals import METHODS, Objective, make_loss
from ckfr_helpers.losses.triplet import (
    AlignedTripletLoss,
    aligned_triplet_loss,
    latent_distances,
    sampled_triplet_loss,
    standardise,
    triplet_terms,
)

__all__ = [
    "METHODS",
    "AlignedTripletLoss",
    "Objective",
    "aligned_triplet_loss",
    "draw_triplets",
    "latent_distances",
    "make_loss",
    "sampled_triplet_loss",
    "standardise",
    "three_view_loss",
    "triplet_terms",
]

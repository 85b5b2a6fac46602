"""The class tree: where it comes from, and how far apart two classes are in it."""

from ckfr_helpers.hierarchy.files import load_pseudo_distances
from ckfr_helpers.hierarchy.tree import MEASURES, Hierarchy, Measure

__all__ = ["MEASURES", "Hierarchy", "Measure", "load_pseudo_distances"]

"""One shape for every backbone: stages, neck, linear head; and what a frozen trunk gives, kept."""

from ckfr_helpers.models.classifier import (
    LITE,
    Classifier,
    build_model,
    check_model_name,
    model_names,
)
from ckfr_helpers.models.frozen import CachedFeatures, cache_features, feature_key

__all__ = [
    "LITE",
    "CachedFeatures",
    "Classifier",
    "build_model",
    "cache_features",
    "check_model_name",
    "feature_key",
    "model_names",
]

"""One shape for every backbone: stages, neck, linear head."""

from ckfr_helpers.models.classifier import (
    AUXILIARY,
    LITE,
    Classifier,
    build_model,
    default_model_name,
    imagenet_categories,
    model_names,
)

__all__ = [
    "AUXILIARY",
    "LITE",
    "Classifier",
    "build_model",
    "default_model_name",
    "imagenet_categories",
    "model_names",
]

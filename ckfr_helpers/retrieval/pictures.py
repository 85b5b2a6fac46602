"""From a picture's file to its descriptor, by a recipe that a collection remembers."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from ckfr_helpers.datasets.files import decode_image
from ckfr_helpers.models.classifier import Classifier
from ckfr_helpers.retrieval.descriptors import Method, describe, describe_classes
from ckfr_helpers.runtime import CkfrError, check_number

SHORTEST = 32  # pixels of a thin picture's shorter side


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a picture becomes a descriptor.

    Attributes:
        method: a pooling of `describe`, or ``"classes"`` for `describe_classes` with each picture's own.
        size: of the longer side that a picture is resized to, in pixels.
        classes: how many classes of a picture count, for ``"classes"``.
        power: of GeM.
    """

    method: str = "gem"
    size: int = 448
    classes: int = 64
    power: float = 3.0

    def __post_init__(self) -> None:
        known = (*get_args(Method), "classes")
        if self.method not in known:
            raise CkfrError(f"There is no descriptor {self.method!r}; expected one of {', '.join(known)}.")
        check_number("size", self.size, SHORTEST, whole=True)
        check_number("classes", self.classes, 1, whole=True)


def fit(picture: Tensor, size: int) -> Tensor:
    """(3, H, W) uint8, resized so that its longer side has ``size`` pixels."""
    scale = size / max(picture.shape[1:])
    return resize(picture, [max(SHORTEST, round(scale * side)) for side in picture.shape[1:]])


def read_picture(path: Path) -> Tensor:
    """(3, H, W) uint8, upright and at its own size; a `CkfrError` if it is missing or damaged."""
    if not path.is_file():
        raise CkfrError(f"There is no picture {path}.")
    return decode_image(path)


@torch.inference_mode()
def picture_features(model: Classifier, pictures: Tensor) -> Tensor:
    """(B, 3, H, W) uint8 -> (B, C, h, w), on the model's device; put the model in evaluation mode before.

    Raises:
        CkfrError: for a network that takes pictures of one shape only.
    """
    inputs = model.normalize(pictures.to(next(model.parameters()).device))
    try:
        return model.features(
            inputs.contiguous(memory_format=torch.channels_last)
        )  # faster on a CPU by a third
    except AssertionError as error:  # how transformers say that they take one shape of picture only
        shape = f"{pictures.shape[3]} × {pictures.shape[2]} pixels"
        raise CkfrError(
            f"{model.name} takes no picture of {shape} ({error}); take a network that does."
        ) from error


def likeliest(model: Classifier, features: Tensor, number: int) -> Tensor:
    """(B, C, h, w) -> (B, number) classes, the likeliest first; all there are if that is fewer."""
    if not model.gap_linear:
        raise CkfrError(f"{model.name} has no class maps; take another descriptor, or a network that has.")
    scores = model.classifier(features.mean((2, 3)))
    return scores.topk(min(number, scores.shape[1]), dim=1).indices


@torch.inference_mode()
def describe_features(
    model: Classifier, features: Tensor, recipe: Recipe, classes: Tensor | None = None
) -> Tensor:
    """(B, C, h, w) -> (B, D) float32 on the CPU, by a recipe, or for given classes (N,)."""
    if classes is None and recipe.method != "classes":
        return describe(features, recipe.method, power=recipe.power)  # type: ignore[arg-type]
    classes = likeliest(model, features, recipe.classes) if classes is None else classes
    return describe_classes(features, model.classifier.weight, classes)


def describe_pictures(
    model: Classifier, pictures: Sequence[Tensor], recipe: Recipe, classes: Tensor | None = None
) -> Tensor:
    """Pictures (3, H, W) uint8 of any shapes -> (n, D); those of one shape go through together."""
    found: dict[int, Tensor] = {}
    for shape in dict.fromkeys(picture.shape for picture in pictures):
        places = [place for place, picture in enumerate(pictures) if picture.shape == shape]
        features = picture_features(model, torch.stack([pictures[place] for place in places]))
        found |= zip(places, describe_features(model, features, recipe, classes), strict=True)
    return torch.stack([found[place] for place in range(len(pictures))])

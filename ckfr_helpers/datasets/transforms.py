"""Pixel pipelines by name, on uint8 tensors: the original demo's, and a light one for small pictures.

Every pipeline takes a (3, H, W) uint8 picture, alone or as ``(image, target)`` with boxes and masks that move
along, and gives (3, S, S) float32 in [0, 1], normalised only where mean and standard deviation are given.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes, Mask, wrap

from ckfr_helpers.runtime import CkfrError, check_number

Transform = Callable[..., Any]  # (image) or (image, target), as torchvision.transforms.v2 has it
Statistics = Sequence[float] | None


def _pils_levels(value: Tensor) -> Tensor:
    if isinstance(value, BoundingBoxes | Mask):
        return value
    return wrap(value.floor().to(torch.uint8), like=value)


def _original(train: bool, size: int) -> list[nn.Module]:
    side = stored_side("original", size)
    if not train:
        return [v2.Resize((side, side), antialias=True), v2.CenterCrop(size)]
    return [
        v2.RandomResizedCrop(side, scale=(0.9, 1.0), ratio=(0.75, 1.0), antialias=True),
        v2.RandomHorizontalFlip(),
        v2.RandomAutocontrast(),
        # PIL's bilinear rotation: on uint8 tensors torchvision rounds, which is half a grey level brighter.
        v2.ToDtype(torch.float32),
        v2.RandomRotation(10, interpolation=v2.InterpolationMode.BILINEAR),
        v2.Lambda(_pils_levels, Tensor),
        v2.RandomApply([v2.GaussianBlur(kernel_size=5, sigma=(0.6, 1.5))], p=0.6),
        v2.CenterCrop(size),
    ]


def _light(train: bool, size: int) -> list[nn.Module]:
    if not train:
        return [v2.Resize((size, size), antialias=True)]
    return [
        v2.RandomResizedCrop(size, scale=(0.7, 1.0), ratio=(4 / 5, 5 / 4), antialias=True),
        v2.RandomHorizontalFlip(),
    ]


PIPELINES: dict[str, Callable[[bool, int], list[nn.Module]]] = {"original": _original, "light": _light}


def make_transform(
    name: str, train: bool, size: int = 224, mean: Statistics = None, std: Statistics = None
) -> Transform:
    """Build a pipeline by name, in its random training form or its fixed evaluation form.

    ``"original"`` is the CKFR demo's, which at ``size=224`` it matches step for step. Training: a random crop
    of 90-100 % of the area at an aspect ratio of 3:4 to 1:1, resized to 256 × 256; flip; random autocontrast;
    bilinear rotation by up to 10 degrees; in 60 % of cases a 5 × 5 Gaussian blur; the central 224 × 224.
    Evaluation: stretched to 256 × 256, then the central 224 × 224. The demo does not normalise, although its
    backbone was pretrained on normalised pictures; ``mean`` and ``std`` of the channels depart from it.

    ``"light"`` is cheap, and kind to small pictures. Training: a random crop of 70-100 % of the area, and
    flip. Evaluation: the whole picture, stretched; localisation scores need the object's far edges too.

    Raises:
        CkfrError: if the name is unknown, the size is not positive, or mean and std do not go together.
    """
    if name not in PIPELINES:
        raise CkfrError(f"There is no transform {name!r}; expected one of {', '.join(sorted(PIPELINES))}.")
    check_number("A picture's size", size, 1, whole=True)
    steps = [*PIPELINES[name](train, size), v2.ToDtype(torch.float32, scale=True)]
    if mean is not None or std is not None:
        if mean is None or std is None or len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise CkfrError(f"mean and std are {mean} and {std}; expected three numbers, and three above 0.")
        steps.append(v2.Normalize(mean=list(mean), std=list(std)))
    return v2.Compose(steps)


def stored_side(name: str, size: int) -> int:
    """The side to which pictures may be stretched and stored without changing a pipeline's evaluation."""
    return round(size * 256 / 224) if name == "original" else size


def transformed(transform: Transform, image: Any, target: Any) -> tuple[Any, Any]:
    """Call a transform on an example; both ends of a box stay inside its object, unlike torchvision's."""
    if "boxes" in target:
        target = {**target, "boxes": _far_end(target["boxes"], 1)}
    image, target = transform(image, target)
    if "boxes" in target:
        target["boxes"] = _far_end(target["boxes"], -1)
    return image, target


def _far_end(boxes: BoundingBoxes, pixels: int) -> BoundingBoxes:
    return wrap(boxes.as_subclass(Tensor) + torch.tensor([0, 0, pixels, pixels]), like=boxes)

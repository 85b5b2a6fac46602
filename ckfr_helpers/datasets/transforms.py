"""Pixel pipelines by name, on uint8 tensors: the original demo's, and a light one for small pictures.

Every pipeline takes a (3, H, W) uint8 tensor and gives a (3, S, S) float32 tensor in [0, 1], normalised only
where mean and standard deviation are given. Nothing here converts to PIL and back: the sources already give
tensors, and torchvision's uint8 resize is both faster and within one grey level of PIL's.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torchvision.transforms import v2

from ckfr_helpers.runtime import CkfrError

Transform = Callable[..., Any]  # (image) or (image, target), as torchvision.transforms.v2 has it


def _to_float(mean: Sequence[float] | None, std: Sequence[float] | None) -> list[torch.nn.Module]:
    """Last steps of every pipeline: uint8 to [0, 1], then (x − mean) / std where both are given."""
    if (mean is None) != (std is None):
        raise CkfrError("Normalisation needs both mean and std or neither; only one of them was given.")
    steps: list[torch.nn.Module] = [v2.ToDtype(torch.float32, scale=True)]
    if mean is not None and std is not None:
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise CkfrError(
                f"Normalisation needs three means and three positive stds; got {list(mean)} and {list(std)}."
            )
        steps.append(v2.Normalize(mean=list(mean), std=list(std)))
    return steps


def original_train(
    size: int = 224, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> Transform:
    """The original CKFR demo's training pipeline, which at ``size=224`` it matches step for step.

    Random crop of 90-100 % of the area at an aspect ratio of 3:4 to 1:1, resized to 256 × 256; flip; random
    autocontrast; rotation by up to 10 degrees; in 60 % of cases a 5 × 5 Gaussian blur; the central 224 × 224.
    The demo does not normalise, although its backbone was pretrained on normalised pictures; give ``mean``
    and ``std`` to depart from it.

    Args:
        size: side of the result in pixels; the random crop is resized to ``round(size * 256 / 224)``.
        mean: three channel means in [0, 1], or None for none (the demo).
        std: three channel standard deviations, or None for none (the demo).

    Returns:
        A callable from (3, H, W) uint8 to (3, size, size) float32.
    """
    return v2.Compose(
        [
            v2.RandomResizedCrop(_before_crop(size), scale=(0.9, 1.0), ratio=(0.75, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomAutocontrast(),
            v2.RandomRotation(10),
            v2.RandomApply([v2.GaussianBlur(kernel_size=5, sigma=(0.6, 1.5))], p=0.6),
            v2.CenterCrop(size),
            *_to_float(mean, std),
        ]
    )


def original_eval(
    size: int = 224, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> Transform:
    """The original demo's test pipeline: stretched to 256 × 256, then the central 224 × 224; not normalised.

    Stretching changes the aspect ratio; that is what the demo does. Arguments as in `original_train`.
    """
    side = _before_crop(size)
    return v2.Compose(
        [v2.Resize((side, side), antialias=True), v2.CenterCrop(size), *_to_float(mean, std)],
    )


def light_train(
    size: int = 224, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> Transform:
    """Flip and a gentle random resized crop (70-100 % of the area): cheap, and kind to small pictures.

    Args:
        size: side of the result in pixels.
        mean: three channel means in [0, 1], or None for no normalisation.
        std: three channel standard deviations, or None for no normalisation.

    Returns:
        A callable from (3, H, W) uint8 to (3, size, size) float32.
    """
    _check_size(size)
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=(0.7, 1.0), ratio=(4 / 5, 5 / 4), antialias=True),
            v2.RandomHorizontalFlip(),
            *_to_float(mean, std),
        ]
    )


def light_eval(
    size: int = 224, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> Transform:
    """The whole picture stretched to ``size`` × ``size``, so boxes follow by plain scaling.

    Nothing is cropped away: localisation scores need the object's far edges too. Arguments as in
    `light_train`.
    """
    _check_size(size)
    return v2.Compose([v2.Resize((size, size), antialias=True), *_to_float(mean, std)])


PIPELINES: dict[str, tuple[Callable[..., Transform], Callable[..., Transform]]] = {
    "original": (original_train, original_eval),
    "light": (light_train, light_eval),
}


def make_transform(
    name: str,
    train: bool,
    size: int = 224,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Transform:
    """Build a pipeline by name.

    Args:
        name: ``"original"`` (the CKFR demo's) or ``"light"``.
        train: whether the random training form or the fixed evaluation form is wanted.
        size: side of the result in pixels.
        mean: three channel means in [0, 1]; None leaves values in [0, 1], as the demo does.
        std: three channel standard deviations; None as for ``mean``.

    Returns:
        A callable from (3, H, W) uint8 to (3, size, size) float32.

    Raises:
        CkfrError: if the name is unknown, the size is not positive, or mean and std do not go together.
    """
    if name not in PIPELINES:
        raise CkfrError(f"There is no transform {name!r}; expected one of {', '.join(sorted(PIPELINES))}.")
    train_form, eval_form = PIPELINES[name]
    return (train_form if train else eval_form)(size, mean, std)


def stored_side(name: str, size: int) -> int:
    """The side to which pictures may be stretched and stored without changing a pipeline's evaluation.

    Args:
        name: as for `make_transform`.
        size: side of its result in pixels.

    Raises:
        CkfrError: if there is no such pipeline.
    """
    make_transform(name, train=False, size=size)  # complains of what is wrong
    return _before_crop(size) if name == "original" else size


def _check_size(size: int) -> int:
    if size < 1:
        raise CkfrError(f"A picture's size must be a positive number of pixels; got {size}.")
    return size


def _before_crop(size: int) -> int:
    """Side before the central crop: 256 for 224, and in the same proportion for other sizes."""
    return round(_check_size(size) * 256 / 224)

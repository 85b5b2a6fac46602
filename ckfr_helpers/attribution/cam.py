"""Class activation maps: in closed form, and by gradients through pytorch-grad-cam.

For a network that ends in average pooling and a linear layer, the classifier's weights applied at each place
of the last feature map are the exact share of each place in the logit (Zhou et al., CVPR 2016). No backward
pass is needed, and Grad-CAM gives the same map at a higher price.

pytorch-grad-cam knows the other methods, but used by hand it leaves the model in evaluation mode with
gradients set, swallows an ``IndexError``, answers too few targets with silent zero maps, keeps its hooks, and
scales each map twice. ``gradient_cam`` takes its definitions of the methods and none of its habits: whatever
happens inside, the model comes back as it was.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ckfr_helpers.models.classifier import Classifier
from ckfr_helpers.runtime import CkfrError

Method = Literal["gradcam", "hirescam", "layercam", "eigencam"]
METHODS = ("gradcam", "hirescam", "layercam", "eigencam")
Targets = Tensor | np.ndarray | Sequence[int] | None
FLAT = 1e-6  # a map whose range is below this share of its largest value is flat up to rounding


def class_activation_maps(
    model: Classifier,
    images: Tensor,
    targets: Targets = None,
    *,
    raw: bool = False,
    relu: bool = False,
    size: tuple[int, int] | None = None,
    batch_size: int = 64,
) -> Tensor:
    """Class activation maps in closed form: ``sum_k w[c, k] · features[k]`` at each place; no backward pass.

    The mean of a raw map over its places, plus the classifier's bias, is the logit.

    Args:
        model: a classifier with ``gap_linear``; its device, mode and weights are left alone.
        images: normalised images (N, 3, H, W); for the tail of ``Classifier.split``, the trunk's outputs.
        targets: class per image; None takes the predicted class.
        raw: give signed maps of the feature map's size; the other options then have no say.
        relu: drop negative evidence before scaling, as Grad-CAM does. The public WSOL evaluation does not.
        size: (height, width) of the maps; by default that of ``images``. For a tail, give the picture's.
        batch_size: images at a time.

    Returns:
        (N, H, W) float32 in [0, 1], each map scaled by its own minimum and maximum, flat maps zero; or, with
        ``raw``, (N, h, w) float32. On the CPU.

    Raises:
        CkfrError: a network that does not end in average pooling and a linear layer, or wrong images or
            targets, or features that are not finite.
    """
    if not getattr(model, "gap_linear", False):
        name = getattr(model, "name", type(model).__name__)
        raise CkfrError(
            f"{name} does not end in average pooling and one linear layer, so its maps have no closed form; "
            f"use gradient_cam."
        )
    _check_images(images)
    classes = _check_targets(targets, len(images), model.classifier.out_features)
    device = next(model.parameters()).device
    maps = []
    with _as_it_was(model), torch.inference_mode():
        for start in range(0, len(images), batch_size):
            chunk = slice(start, start + batch_size)
            state = model.stages(images[chunk].to(device))
            features = model.to_map(state)  # (B, C, h, w)
            _check_finite(features, start)
            chosen = (
                model.classify(model.neck(state)).argmax(1) if classes is None else classes[chunk].to(device)
            )
            weight = model.classifier.weight[chosen]  # (B, C)
            maps.append(torch.einsum("bchw,bc->bhw", features.float(), weight.float()).cpu())
    found = torch.cat(maps).clone()  # a plain tensor, not one of inference mode
    return found if raw else score_maps(found, size or tuple(images.shape[-2:]), relu=relu)


def gradient_cam(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    method: Method = "gradcam",
    *,
    raw: bool = False,
    relu: bool = True,
    size: tuple[int, int] | None = None,
    layer: nn.Module | None = None,
    to_map: nn.Module | None = None,
    batch_size: int = 16,
) -> Tensor:
    """Maps by pytorch-grad-cam's definitions, with nothing left behind.

    The model's modes, ``.grad``, ``requires_grad`` and hooks are as before when this returns or raises.
    Frozen models work, inside ``torch.no_grad`` and ``torch.inference_mode`` too: gradients start at a copy
    of the images, and the parameters take none.

    Args:
        model: a ``Classifier``, the tail of ``Classifier.split``, or, with ``layer``, any network that gives
            logits (N, K).
        images: normalised images (N, 3, H, W); for a tail, the trunk's outputs.
        targets: class per image; None takes the predicted class. EigenCAM does not look at them.
        method: ``"gradcam"`` (Selvaraju et al., ICCV 2017), ``"hirescam"`` (Draelos & Carin, 2020),
            ``"layercam"`` (Jiang et al., TIP 2021) or ``"eigencam"`` (Muhammad & Yeasin, IJCNN 2020: the
            first principal component, no class signal; its sign, which is arbitrary, is set so that the
            largest magnitude is positive).
        raw: give signed maps of the layer's size, before ReLU and scaling.
        relu: keep only evidence for the class, as Grad-CAM's paper does.
        size: (height, width) of the maps; by default that of ``images``.
        layer: the layer to look at; by default the last stage of a ``Classifier``.
        to_map: turns that layer's output into (B, C, h, w) where it is something else.
        batch_size: images at a time; a memory limit only, maps do not depend on it.

    Returns:
        (N, H, W) float32 in [0, 1], each map scaled by its own minimum and maximum, flat maps zero; or, with
        ``raw``, (N, h, w) float32. On the CPU.

    Raises:
        CkfrError: an unknown method, a network without a layer to look at, a number of targets that is not
            that of the images, a class that does not exist, features or gradients that are not finite.
    """
    if method not in METHODS:
        raise CkfrError(f"Unknown method {method!r}; expected one of {', '.join(METHODS)}.")
    _check_images(images)
    if isinstance(model, Classifier):
        if layer is None:
            layer, to_map = model.stages, model.to_map  # the whole Sequential: a tail may have no stage left
        elif all(module is not layer for module in model.modules()):
            raise CkfrError("The layer to look at is not part of the model.")
        classes = _check_targets(targets, len(images), model.classifier.out_features)
    else:
        if layer is None:
            raise CkfrError(
                f"{type(model).__name__} is no Classifier, so the layer to look at must be given."
            )
        classes = _check_targets(targets, len(images), None)
    device = next(model.parameters()).device
    maps = []
    with _as_it_was(model), torch.inference_mode(False), torch.enable_grad():
        model.requires_grad_(False)
        for start in range(0, len(images), batch_size):
            chunk = images[start : start + batch_size].detach().to(device).clone().requires_grad_(True)
            chosen = None if classes is None else classes[start : start + batch_size].tolist()
            maps.append(_library_maps(model, layer, to_map, chunk, chosen, method, start))
    found = torch.cat(maps)
    return found if raw else score_maps(found, size or tuple(images.shape[-2:]), relu=relu)


def score_maps(raw: Tensor, size: tuple[int, int], *, relu: bool = False) -> Tensor:
    """Raw maps (N, h, w) -> maps (N, H, W) in [0, 1]: upsampled, then scaled by each map's own range.

    A map that is flat (up to rounding) becomes zero, rather than its rounding errors blown up.

    Args:
        raw: signed maps.
        size: (height, width).
        relu: set negative values to zero first.
    """
    small = raw.float().clamp(min=0) if relu else raw.float()
    flat = small.amax((1, 2)) - small.amin((1, 2)) <= FLAT * small.abs().amax((1, 2))  # (N,)
    large = upsample(small, size)
    low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
    # Enlarging by interpolation reaches all values; shrinking might not, and could leave no range at all.
    flat = flat[:, None, None] | (high <= low)
    return torch.where(flat, 0.0, (large - low) / torch.where(flat, 1.0, high - low)).clamp(0, 1)


def upsample(raw: Tensor, size: tuple[int, int]) -> Tensor:
    """Raw maps (N, h, w) -> (N, H, W), bilinear, values kept: what ``attention.energy_in_mask`` wants."""
    return F.interpolate(raw[:, None].float(), tuple(size), mode="bilinear", align_corners=False)[:, 0]


class _Target:
    """One logit. Not the library's own class, whose ``IndexError`` the library hides."""

    def __init__(self, category: int, image: int) -> None:
        self.category, self.image = category, image

    def __call__(self, logits: Tensor) -> Tensor:
        if self.category >= logits.shape[-1]:
            raise CkfrError(
                f"Target {self.image} is class {self.category}; expected 0 to {logits.shape[-1] - 1}, "
                f"the classes of the model."
            )
        return logits[self.category]


def _library_maps(
    model: nn.Module,
    layer: nn.Module,
    to_map: nn.Module | None,
    images: Tensor,
    classes: list[int] | None,
    method: str,
    start: int,
) -> Tensor:
    """One batch through pytorch-grad-cam, without its scaling and without its context manager."""
    import pytorch_grad_cam as library  # slow to import; brings OpenCV and scikit-learn

    base = {
        "gradcam": library.GradCAM,
        "hirescam": library.HiResCAM,
        "layercam": library.LayerCAM,
        "eigencam": library.EigenCAM,
    }[method]

    class Raw(base):  # type: ignore[misc, valid-type]
        def compute_cam_per_layer(
            self, input_tensor: Tensor, targets: list, eigen_smooth: bool
        ) -> np.ndarray:
            kept = self.activations_and_grads
            if not kept.activations or (self.uses_gradients and not kept.gradients):
                raise CkfrError("The layer to look at has no part in the logits, so it has no map.")
            # A layer that runs several times is looked at where it runs last.
            activations = kept.activations[-1]
            gradients = kept.gradients[-1] if self.uses_gradients else None
            for tensor in (activations, gradients):
                if tensor is not None:
                    _check_finite(tensor, start)
            grads = None if gradients is None else gradients.float().numpy()
            return self.get_cam_image(
                input_tensor, self.target_layers[0], targets, activations.float().numpy(), grads, eigen_smooth
            )

        def aggregate_multi_layers(self, cam_per_target_layer: np.ndarray) -> np.ndarray:
            return cam_per_target_layer

    def shape(tensor: Tensor) -> Tensor:
        found = tensor if to_map is None else to_map(tensor)
        if found.ndim != 4:
            raise CkfrError(
                f"The layer to look at gives shape {tuple(tensor.shape)}; expected a map (B, C, h, w), or a "
                f"to_map that makes one."
            )
        return found.clone()  # the library keeps a view, which a later in-place ReLU would write over

    cam = Raw(model, [layer], reshape_transform=shape)
    try:
        targets = None if classes is None else [_Target(c, start + i) for i, c in enumerate(classes)]
        found = torch.from_numpy(np.asarray(cam(images, targets), dtype=np.float32))
    finally:
        cam.activations_and_grads.release()
    if method == "eigencam":
        turned = -found.amin((1, 2)) > found.amax((1, 2))
        found = torch.where(turned[:, None, None], -found, found)
    return found


@contextlib.contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; every module's mode and every parameter's gradient state restored after."""
    modes = [(module, module.training) for module in model.modules()]
    states = [(parameter, parameter.grad, parameter.requires_grad) for parameter in model.parameters()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, grad, requires_grad in states:
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad


def _check_images(images: Tensor) -> None:
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise CkfrError(
            f"Images are {kind}; expected a floating-point tensor, as Classifier.normalize gives."
        )
    if not images.ndim >= 3 or not len(images):
        raise CkfrError(f"Images have shape {tuple(images.shape)}; expected (N, 3, H, W) with N at least 1.")


def _check_targets(targets: Targets, images: int, classes: int | None) -> Tensor | None:
    if targets is None:
        return None
    found = torch.as_tensor(targets)
    if found.ndim != 1 or len(found) != images:
        raise CkfrError(
            f"Targets have shape {tuple(found.shape)} for {images} images; expected one class per image."
        )
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise CkfrError(f"Targets are {found.dtype}; expected class numbers.")
    for index, category in enumerate(found.tolist()):
        if category < 0 or (classes is not None and category >= classes):
            most = "or more" if classes is None else f"to {classes - 1}, the classes of the model"
            raise CkfrError(f"Target {index} is class {category}; expected 0 {most}.")
    return found.long().cpu()


def _check_finite(tensor: Tensor, start: int) -> None:
    bad = (~tensor.isfinite()).flatten(1).any(1).nonzero().flatten()
    if len(bad):
        raise CkfrError(
            f"Image {start + int(bad[0])} gives features or gradients that are NaN or infinite; "
            f"expected finite ones."
        )

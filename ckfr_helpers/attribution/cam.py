"""Class activation maps: in closed form, and by gradients through pytorch-grad-cam.

For a network that ends in average pooling and a linear layer, the classifier's weights applied at each place
of the last feature map are the exact share of each place in the logit (Zhou et al., CVPR 2016). For others
there are pytorch-grad-cam's methods, without its loop, which hides errors and leaves the model changed.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ckfr_helpers.models.classifier import Classifier, evaluating
from ckfr_helpers.runtime import CkfrError

Method = Literal["gradcam", "hirescam", "layercam", "eigencam"]
METHODS = {"gradcam": "GradCAM", "hirescam": "HiResCAM", "layercam": "LayerCAM", "eigencam": "EigenCAM"}
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
    if not model.gap_linear:
        raise CkfrError(
            f"{model.name} does not end in average pooling and one linear layer, so its maps have no closed "
            f"form; use gradient_cam."
        )
    classes = _check_inputs(images, targets)
    device = next(model.parameters()).device
    maps = []
    with evaluating(model), torch.inference_mode():
        for start in range(0, len(images), batch_size):
            state = model.stages(images[start : start + batch_size].to(device))
            features, logits = model.to_map(state), model.classify(model.neck(state))
            _check_finite(features, start)
            weight = model.classifier.weight[_chosen(classes, logits, start)]  # (B, C)
            maps.append(torch.einsum("bchw,bc->bhw", features.float(), weight.float()).cpu())
    found = torch.cat(maps).clone()  # a plain tensor, not one of inference mode
    return found if raw else score_maps(found, size or tuple(images.shape[-2:]), relu=relu)


def gradient_cam(
    model: Classifier,
    images: Tensor,
    targets: Targets = None,
    method: Method = "gradcam",
    *,
    raw: bool = False,
    relu: bool = True,
    size: tuple[int, int] | None = None,
    layer: nn.Module | None = None,
    batch_size: int = 16,
) -> Tensor:
    """Maps by pytorch-grad-cam's definitions, with nothing left behind in the model.

    Frozen models work, inside ``torch.no_grad`` and ``torch.inference_mode`` too. What is not named here is
    as for `class_activation_maps`.

    Args:
        model: any classifier, or the tail of one.
        targets: class per image; None takes the predicted class. EigenCAM does not look at them.
        method: ``"gradcam"`` (Selvaraju et al., ICCV 2017), ``"hirescam"`` (Draelos & Carin, 2020),
            ``"layercam"`` (Jiang et al., TIP 2021) or ``"eigencam"`` (Muhammad & Yeasin, IJCNN 2020: the
            first principal component, no class signal; its sign, which is arbitrary, is set so that the
            largest magnitude is positive).
        layer: the layer to look at; by default the last stage.

    Raises:
        CkfrError: an unknown method, a layer that is no part of the model or gives no map, wrong images or
            targets, features or gradients that are not finite.
    """
    if method not in METHODS:
        raise CkfrError(f"Unknown method {method!r}; expected one of {', '.join(METHODS)}.")
    classes = _check_inputs(images, targets)
    device = next(model.parameters()).device
    maps = []
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        for start in range(0, len(images), batch_size):
            chunk = images[start : start + batch_size].detach().to(device).clone().requires_grad_(True)
            # By default the whole Sequential: a tail may have no stage left.
            maps.append(_library_maps(model, layer or model.stages, chunk, classes, method, start))
    found = torch.cat(maps)
    return found if raw else score_maps(found, size or tuple(images.shape[-2:]), relu=relu)


def score_maps(raw: Tensor, size: tuple[int, ...], *, relu: bool = False) -> Tensor:
    """Signed maps (N, h, w) -> maps (N, H, W) in [0, 1]: upsampled, then scaled by each map's own range.

    A map that is flat (up to rounding) becomes zero, rather than its rounding errors blown up. ``relu`` sets
    negative values to zero first.
    """
    small = raw.float().clamp(min=0) if relu else raw.float()
    flat = small.amax((1, 2)) - small.amin((1, 2)) <= FLAT * small.abs().amax((1, 2))  # (N,)
    large = upsample(small, size)
    low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
    # Enlarging by interpolation reaches all values; shrinking might not, and could leave no range at all.
    flat = flat[:, None, None] | (high <= low)
    return torch.where(flat, 0.0, (large - low) / torch.where(flat, 1.0, high - low)).clamp(0, 1)


def upsample(raw: Tensor, size: tuple[int, ...]) -> Tensor:
    """Raw maps (N, h, w) -> (N, H, W), bilinear, values kept: what ``energy.energy_in_mask`` wants."""
    return F.interpolate(raw[:, None].float(), tuple(size), mode="bilinear", align_corners=False)[:, 0]


def _library_maps(
    model: Classifier, layer: nn.Module, images: Tensor, classes: Tensor | None, method: Method, start: int
) -> Tensor:
    import pytorch_grad_cam as library  # slow to import; brings OpenCV and scikit-learn

    def shape(tensor: Tensor) -> Tensor:
        found = model.to_map(tensor)
        if found.ndim != 4:
            raise CkfrError(
                f"The layer to look at gives shape {tuple(tensor.shape)}; expected a map (B, C, h, w)."
            )
        return found.clone()  # the library keeps a view, which a later in-place ReLU would write over

    cam = getattr(library, METHODS[method])(model, [layer], reshape_transform=shape)
    kept = cam.activations_and_grads
    try:
        logits = kept(images)
        chosen = _chosen(classes, logits, start)
        if cam.uses_gradients:  # of the images alone, so that no parameter receives any
            torch.autograd.grad(logits[range(len(chosen)), chosen.tolist()].sum(), images)
        # A layer that runs several times is looked at where it runs last.
        activations, gradients = kept.activations[-1:], kept.gradients[-1:]
        if not activations or (cam.uses_gradients and not gradients):
            raise CkfrError("The layer to look at has no part in the logits, so it has no map.")
        for tensor in activations + gradients:
            _check_finite(tensor, start)
        arrays = [part[0].float().numpy() if part else None for part in (activations, gradients)]
        found = torch.from_numpy(cam.get_cam_image(images, layer, None, *arrays, False)).float()
    finally:
        kept.release()
    if method == "eigencam":
        turned = -found.amin((1, 2)) > found.amax((1, 2))
        found = torch.where(turned[:, None, None], -found, found)
    return found


def _check_inputs(images: Tensor, targets: Targets) -> Tensor | None:
    """Targets as (N,) int64 on the CPU, where there are some."""
    if not images.is_floating_point() or images.ndim < 3 or not len(images):
        raise CkfrError(
            f"Images are {images.dtype} {tuple(images.shape)}; expected a floating-point tensor (N, 3, H, W) "
            f"with N at least 1, as Classifier.normalize gives."
        )
    if targets is None:
        return None
    classes = torch.as_tensor(targets)
    if classes.is_floating_point() or classes.shape != (len(images),):
        raise CkfrError(
            f"Targets are {classes.dtype} {tuple(classes.shape)} for {len(images)} images; expected one class"
            f" number per image."
        )
    return classes.long().cpu()


def _chosen(classes: Tensor | None, logits: Tensor, start: int) -> Tensor:
    """Class per image of the batch from ``start`` on, (B,): its target, or else the predicted class."""
    if classes is None:
        return logits.argmax(1)
    chosen = classes[start : start + len(logits)]
    for index, category in enumerate(chosen.tolist(), start):
        if not 0 <= category < logits.shape[1]:
            raise CkfrError(
                f"Target {index} is class {category}; expected 0 to {logits.shape[1] - 1}, the classes of "
                f"the model."
            )
    return chosen.to(logits.device)


def _check_finite(tensor: Tensor, start: int) -> None:
    bad = (~tensor.isfinite()).flatten(1).any(1).nonzero().flatten()
    if len(bad):
        raise CkfrError(
            f"Image {start + int(bad[0])} gives features or gradients that are NaN or infinite; "
            f"expected finite ones."
        )

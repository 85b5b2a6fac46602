"""Class activation maps: the definitions, the agreement between routes, and a model left as it was."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ckfr_helpers.attribution import cam
from ckfr_helpers.localization import max_box_acc
from ckfr_helpers.models import Classifier, build_model
from ckfr_helpers.runtime import CkfrError

torch.set_num_threads(1)


def tiny(gap: bool = True) -> Classifier:
    """Three stages with batch norm and an in-place ReLU, dropout before the classifier."""
    torch.manual_seed(0)
    stages = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)),
        nn.Sequential(nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12), nn.ReLU(inplace=True)),
        nn.Sequential(nn.Conv2d(12, 16, 3, padding=1)),
    )
    neck = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
    if not gap:
        neck = nn.Sequential(nn.ReLU(inplace=True), *neck, nn.Linear(16, 16), nn.Tanh())
    head = nn.Linear(16, 5)
    return Classifier(stages, neck, head, name="tiny", dropout=0.5, gap_linear=gap)


def pictures(count: int = 4, side: int = 32) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_closed_form_averages_to_the_logit():
    model, images = tiny().eval(), pictures()
    raw = cam.class_activation_maps(model, images, [0, 1, 2, 3], raw=True, batch_size=3)
    logits = model(images)[torch.arange(4), torch.arange(4)]
    assert raw.shape == (4, 8, 8)
    assert torch.allclose(raw.mean((1, 2)) + model.classifier.bias[:4], logits, atol=1e-6)


@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
def test_gradients_give_the_closed_form_on_average_pooling_and_a_linear_layer(method):
    model, images, targets = tiny(), pictures(), torch.tensor([4, 0, 2, 2])
    closed = cam.class_activation_maps(model, images, targets, raw=True)
    by_gradient = cam.gradient_cam(model, images, targets, method, raw=True, batch_size=3)
    assert torch.allclose(by_gradient * 64, closed, atol=1e-5)  # Grad-CAM averages the gradient: 1/(h·w)
    for relu in (True, False):
        scaled = cam.class_activation_maps(model, images, targets, relu=relu)
        again = cam.gradient_cam(model, images, targets, method, relu=relu)
        assert scaled.shape == (4, 32, 32)
        assert torch.allclose(scaled, again, atol=1e-5)
        assert scaled.amin((1, 2)).tolist() == [0] * 4
        assert scaled.amax((1, 2)).tolist() == [1] * 4


def test_layercam_is_its_formula():
    model, images = tiny(gap=False).eval(), pictures()
    features = model.features(images).detach().requires_grad_()
    model.classify(model.neck(features.clone())).diagonal().sum().backward()
    expected = (features.grad.clamp(min=0) * features).sum(1)
    found = cam.gradient_cam(model, images, [0, 1, 2, 3], "layercam", raw=True)
    assert torch.allclose(found, expected, atol=1e-6)  # and not what the neck's in-place ReLU left behind
    early = cam.gradient_cam(model, images, [0, 1, 2, 3], "layercam", raw=True, layer=model.stages[0])
    assert early.shape == (4, 16, 16)


def test_eigencam_is_the_first_principal_component_and_needs_no_target():
    model, images = tiny().eval(), pictures()
    found = cam.gradient_cam(model, images, method="eigencam", raw=True)
    for picture, features in zip(found, model.features(images).detach(), strict=True):
        flat = features.flatten(1).T  # (h·w, C)
        _, _, v = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
        axis = ((flat - flat.mean(0)) @ v[0]).reshape(8, 8)
        assert torch.allclose(picture.abs(), axis.abs(), atol=1e-4)
        assert picture.max() >= -picture.min()


@pytest.mark.parametrize("draw", [cam.class_activation_maps, cam.gradient_cam])
def test_no_target_means_the_predicted_class_and_the_batch_size_changes_nothing(draw):
    model, images = tiny().eval(), pictures(5)
    found = draw(model, images, batch_size=2)
    assert torch.allclose(found, draw(model, images, model(images).argmax(1)), atol=1e-6)


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "convnext_atto"])
def test_real_networks(name):
    torch.manual_seed(0)
    model = build_model(name, 4, pretrained=False)
    images = pictures(2, 64)
    maps = cam.gradient_cam(model, images, [1, 2], "layercam", raw=True)
    model.eval()
    assert maps.shape == (2, *model.features(images).shape[-2:])
    if model.gap_linear:
        closed = cam.class_activation_maps(model, images, [1, 2], raw=True)
        places = closed[0].numel()
        grad = cam.gradient_cam(model, images, [1, 2], raw=True) * places
        assert torch.allclose(grad, closed, atol=1e-5, rtol=1e-4)


def test_vision_transformer_through_its_tokens():
    torch.manual_seed(0)
    model = build_model("vit_tiny_patch16_224", 4, pretrained=False)
    maps = cam.gradient_cam(model, pictures(1, 224), [1], raw=True)
    assert maps.shape == (1, 14, 14)
    assert maps.abs().max() > 0


def state_of(model: nn.Module) -> dict:
    return {
        "training": [m.training for m in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grads": [p.grad if p.grad is None else p.grad.tolist() for p in model.parameters()],
        "hooks": [len(m._forward_hooks) + len(m._backward_hooks) for m in model.modules()],
        "values": {name: value.tolist() for name, value in model.state_dict().items()},
    }


def in_the_middle_of_training() -> Classifier:
    model = tiny().train().freeze(1)
    model(pictures()).sum().backward()
    return model


class Burst(nn.Module):
    def forward(self, _):
        raise IndexError("inside the network")


@pytest.mark.parametrize("method", [None, *cam.METHODS])
def test_the_model_and_the_images_come_back_as_they_were(method):
    """After an exception too, which gets out: pytorch-grad-cam's context manager would swallow this one."""
    draw = cam.class_activation_maps if method is None else partial(cam.gradient_cam, method=method)
    images = pictures()
    copied = images.clone()
    for breaks in (False, True):
        model = in_the_middle_of_training()
        if breaks:
            model.stages[2] = Burst()
        before = state_of(model)
        assert any(g is not None for g in before["grads"])
        assert not all(before["training"])
        with pytest.raises(IndexError, match="inside the network") if breaks else nullcontext():
            draw(model, images, [0] * 4)
        assert state_of(model) == before
    assert torch.equal(images, copied)
    assert not images.requires_grad
    assert torch.is_grad_enabled()


def test_frozen_models_no_grad_and_inference_mode():
    free, images = tiny(), pictures()
    expected = cam.gradient_cam(free, images, [1] * 4)
    frozen = tiny().requires_grad_(False)
    assert torch.equal(cam.gradient_cam(frozen, images, [1] * 4), expected)
    with torch.no_grad():
        assert torch.equal(cam.gradient_cam(frozen, images, [1] * 4), expected)
    with torch.inference_mode():
        assert torch.equal(cam.gradient_cam(frozen, pictures(), [1] * 4), expected)
    assert not any(p.requires_grad for p in frozen.parameters())


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_tail_of_a_split_gives_the_whole_models_maps(stage):
    model, images, targets = tiny().eval(), pictures(), [0, 1, 2, 3]
    trunk, tail = model.split(stage)
    cached = trunk(images).detach()
    for draw in (cam.class_activation_maps, cam.gradient_cam):
        whole = draw(model, images, targets)
        assert torch.allclose(draw(tail, cached, targets, size=(32, 32)), whole, atol=1e-6)


def test_flat_maps_become_zero_and_maps_feed_the_scores():
    raw = torch.stack([torch.full((5, 5), 0.1), torch.zeros(5, 5), -torch.eye(5), torch.eye(5)])
    maps = cam.score_maps(raw, (33, 41), relu=True)
    assert maps.shape == (4, 33, 41)
    assert maps[:3].abs().max() == 0
    assert (maps[3].min(), maps[3].max()) == (0, 1)
    signed = cam.score_maps(raw, (33, 41))
    assert signed[2].max() == 1
    result = max_box_acc(maps, [[[0, 0, 40, 32]]] * 4)
    assert result.counts.max() == 1
    assert torch.equal(
        cam.upsample(raw, (9, 9)), F.interpolate(raw[None], (9, 9), mode="bilinear", align_corners=False)[0]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": [0]}, r"int64 \(1,\) for 4 images"),
        ({"targets": [0, 1, 2, 5]}, "Target 3 is class 5; expected 0 to 4"),
        ({"targets": [0.0, 1.0, 2.0, 3.0]}, "Targets are torch.float32"),
        ({"images": torch.zeros(4, 3, 32, 32, dtype=torch.uint8)}, "Images are torch.uint8"),
        ({"images": torch.full((4, 3, 32, 32), torch.nan)}, "Image 0 gives features"),
    ],
)
@pytest.mark.parametrize("draw", [cam.class_activation_maps, cam.gradient_cam])
def test_bad_input_gets_one_sentence(draw, change, message):
    given = {"images": pictures(), "targets": [0, 1, 2, 3]} | change
    with pytest.raises(CkfrError, match=message):
        draw(tiny(), **given)


def test_bad_requests_get_one_sentence():
    with pytest.raises(CkfrError, match="tiny does not end in average pooling"):
        cam.class_activation_maps(tiny(gap=False), pictures())
    with pytest.raises(CkfrError, match="Unknown method 'scorecam'"):
        cam.gradient_cam(tiny(), pictures(), [0] * 4, "scorecam")
    whole = tiny(gap=False)
    with pytest.raises(CkfrError, match=r"gives shape \(4, 16\); expected a map"):
        cam.gradient_cam(whole, pictures(), [0] * 4, layer=whole.neck)
    idle = tiny()
    idle.spare = nn.ReLU()
    with pytest.raises(CkfrError, match="no part in the logits"):
        cam.gradient_cam(idle, pictures(), [0] * 4, layer=idle.spare)

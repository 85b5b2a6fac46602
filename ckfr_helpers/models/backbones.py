"""Where each family of networks keeps its stages, its neck and its linear layer.

One short adapter per family takes a torchvision network apart into references. Stages are cut where no stage
starts with an in-place operation: that would write over a cached trunk output. Every other network comes from
timm, as a single stage.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

from torch import Tensor, nn


class Parts(NamedTuple):
    """What an adapter finds in a network: references, never copies."""

    stages: list[nn.Module]
    classifier: nn.Module
    dropout: float = 0.0
    neck: nn.Module | None = None  # None: plain global average pooling
    to_map: nn.Module | None = None


def _resnet(net: Any) -> Parts:
    stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
    return Parts([stem, net.layer1, net.layer2, net.layer3, net.layer4], net.fc)


def _vgg(net: Any) -> Parts:
    stages: list[nn.Module] = []
    block: list[nn.Module] = []
    for module in net.features:
        block.append(module)
        if isinstance(module, nn.MaxPool2d):  # what follows is a convolution, never an in-place ReLU
            stages.append(nn.Sequential(*block))
            block = []
    *before, drop, head = net.classifier
    return Parts(stages, head, drop.p, nn.Sequential(net.avgpool, nn.Flatten(1), *before))


def _mobile(net: Any) -> Parts:
    """MobileNet v2 and v3, EfficientNet v1 and v2: children of ``features``, then a short classifier."""
    *before, drop, head = net.classifier
    neck = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), *before) if before else None
    return Parts(list(net.features), head, drop.p, neck)


def _shufflenet(net: Any) -> Parts:
    stem = nn.Sequential(net.conv1, net.maxpool)
    return Parts([stem, net.stage2, net.stage3, net.stage4, net.conv5], net.fc)


# torchvision's families: by how their names begin.
FAMILIES: Mapping[tuple[str, ...], Callable[[Any], Parts]] = {
    ("resnet", "resnext", "wide_resnet"): _resnet,
    ("efficientnet", "mobilenet"): _mobile,
    ("shufflenet",): _shufflenet,
    ("vgg",): _vgg,
}


def lite(net: Any) -> Parts:
    """EfficientNet-Lite0 (Tan & Le, ICML 2019, without squeeze-and-excitation) as timm builds it."""
    stem, head = nn.Sequential(net.conv_stem, net.bn1), nn.Sequential(net.conv_head, net.bn2)
    return Parts([stem, *net.blocks, head], net.classifier, dropout=0.2)  # 0.2 as in its published training


class _Features(nn.Module):
    """A timm network up to its head; owns all parameters but the linear layer's."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return self.net.forward_features(images)


class _Head(nn.Module):
    """The rest of that network, before its linear layer."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self._net = (net,)  # in a tuple: its parameters are registered once, in `_Features`

    def forward(self, state: Tensor) -> Tensor:
        return self._net[0].forward_head(state, pre_logits=True)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        self._net[0]._apply(fn, recurse)  # a tail without `_Features` moves between devices too
        return super()._apply(fn, recurse)


class _Grid(nn.Module):
    """A timm network's state, tokens or map, to the map (B, D, h, w)."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.width, self.first = net.num_features, getattr(net, "num_prefix_tokens", 0)

    def forward(self, state: Tensor) -> Tensor:
        if state.ndim == 3:  # (B, first + h·w, D), of a square picture
            patches = state[:, self.first :].transpose(1, 2)
            return patches.unflatten(2, (round(patches.shape[2] ** 0.5), -1))
        channels_last = state.shape[-1] == self.width != state.shape[1]
        return state.movedim(-1, 1) if channels_last else state


def from_timm(net: Any) -> Parts:
    """Any timm network as one stage, which is frozen or cached as a whole or not at all.

    A vision transformer is cut before its last block: after it only the class token reaches the logits, and
    every gradient-based map of the patches would be zero.
    """
    from timm.models import VisionTransformer

    head = net.get_classifier()
    neck: nn.Module = _Head(net)
    net.reset_classifier(0)
    if isinstance(net, VisionTransformer):
        neck = nn.Sequential(net.blocks[-1], net.norm, neck)
        net.blocks, net.norm = net.blocks[:-1], nn.Identity()
    return Parts([_Features(net)], head, neck=neck, to_map=_Grid(net))

"""Where each family of networks keeps its stages, its neck and its linear layer.

One short adapter per family takes a network apart into references; nothing is copied, so the parts compute
what the whole computes. Stages are cut where no stage starts with an in-place operation: that would write
over a cached trunk output.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ckfr_helpers.runtime import CkfrError


class Parts(NamedTuple):
    """What an adapter finds in a network: references, never copies."""

    stages: list[nn.Module]
    classifier: nn.Linear | None  # None: the family ends in something other than a linear layer
    dropout: float = 0.0
    neck: nn.Module | None = None  # None: plain global average pooling
    to_map: nn.Module | None = None


def global_pool() -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))


def _resnet(net: nn.Module) -> Parts:
    stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
    return Parts([stem, net.layer1, net.layer2, net.layer3, net.layer4], net.fc)


def _regnet(net: nn.Module) -> Parts:
    return Parts([net.stem, *net.trunk_output], net.fc)


def _densenet(net: nn.Module) -> Parts:
    parts = list(net.features)  # conv, norm, relu, pool, then block and transition by turns, then norm
    stages = [nn.Sequential(*parts[a : a + n]) for a, n in ((0, 4), (4, 2), (6, 2), (8, 2))]
    return Parts([*stages, nn.Sequential(*parts[10:], nn.ReLU(inplace=True))], net.classifier)


def _vgg(net: nn.Module) -> Parts:
    # Cut before each convolution that follows a pooling layer: no stage may start with an in-place ReLU,
    # which would write over cached trunk features.
    stages: list[nn.Sequential] = [nn.Sequential()]
    for module in net.features:
        last = stages[-1]
        if len(last) and isinstance(last[-1], nn.MaxPool2d):
            stages.append(nn.Sequential())
        stages[-1].append(module)
    layers = list(net.classifier)
    head = layers.pop()
    # VGG ends in dropout and a linear layer; AlexNet's last dropout comes before its last two linear layers.
    drop = layers.pop().p if isinstance(layers[-1], nn.Dropout) else 0.0
    return Parts(list(stages), head, drop, nn.Sequential(net.avgpool, nn.Flatten(1), *layers))


def _mobile(net: nn.Module) -> Parts:
    """MobileNet v2 and v3, EfficientNet v1 and v2: children of ``features``, then a short classifier."""
    *before, drop, head = net.classifier
    neck = nn.Sequential(*global_pool(), *before) if before else None
    return Parts(list(net.features), head, drop.p, neck)


def _mnasnet(net: nn.Module) -> Parts:
    layers = list(net.layers)
    stages = [nn.Sequential(*layers[:8]), *layers[8:14], nn.Sequential(*layers[14:])]
    return Parts(stages, net.classifier[1], net.classifier[0].p)


def _shufflenet(net: nn.Module) -> Parts:
    stem = nn.Sequential(net.conv1, net.maxpool)
    return Parts([stem, net.stage2, net.stage3, net.stage4, net.conv5], net.fc)


def _squeezenet(net: nn.Module) -> Parts:
    # Its own head is convolution, ReLU, pooling: not linear in the latent. A new head pools first.
    layers = list(net.features)
    cuts = [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    edges = zip([0, *[c + 1 for c in cuts]], [*[c + 1 for c in cuts], len(layers)], strict=True)
    return Parts([nn.Sequential(*layers[a:b]) for a, b in edges], None, net.classifier[0].p)


def _googlenet(net: nn.Module) -> Parts:
    groups = (
        ("conv1", "maxpool1", "conv2", "conv3", "maxpool2"),
        ("inception3a", "inception3b", "maxpool3"),
        ("inception4a", "inception4b", "inception4c", "inception4d", "inception4e", "maxpool4"),
        ("inception5a", "inception5b"),
    )
    return Parts([nn.Sequential(*(getattr(net, n) for n in g)) for g in groups], net.fc, net.dropout.p)


def _inception(net: nn.Module) -> Parts:
    groups = (
        ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1"),
        ("Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2"),
        ("Mixed_5b", "Mixed_5c", "Mixed_5d"),
        ("Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
        ("Mixed_7a", "Mixed_7b", "Mixed_7c"),
    )
    return Parts([nn.Sequential(*(getattr(net, n) for n in g)) for g in groups], net.fc, net.dropout.p)


def _pyramid(features: nn.Sequential) -> list[nn.Module]:
    """ConvNeXt and Swin: stem, stage, then (downsampling, stage) three times."""
    return [features[0], features[1], *(nn.Sequential(*features[i : i + 2]) for i in (2, 4, 6))]


def _convnext(net: nn.Module) -> Parts:
    norm, flatten, head = net.classifier
    return Parts(_pyramid(net.features), head, neck=nn.Sequential(net.avgpool, norm, flatten))


def _swin(net: nn.Module) -> Parts:
    stages = _pyramid(net.features)
    stages[-1] = nn.Sequential(*stages[-1], net.norm, net.permute)  # ends channels first, like the others
    return Parts(stages, net.head)


def _maxvit(net: nn.Module) -> Parts:
    return Parts([net.stem, *net.blocks], net.classifier[-1], neck=net.classifier[:-1])


class _Tokens(nn.Module):
    """Image (B, 3, S, S) -> class token and patch tokens with their positions, (B, 1 + h·w, D)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.conv_proj, self.class_token = net.conv_proj, net.class_token
        self.pos_embedding, self.dropout = net.encoder.pos_embedding, net.encoder.dropout
        self.side = net.image_size

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != (self.side, self.side):
            raise CkfrError(
                f"This vision transformer takes images of {self.side} × {self.side} pixels; "
                f"got {' × '.join(map(str, images.shape[-2:]))}."
            )
        patches = self.conv_proj(images).flatten(2).transpose(1, 2)  # (B, D, h, w) -> (B, h·w, D)
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), patches], dim=1)
        return self.dropout(tokens + self.pos_embedding)


class _Grid(nn.Module):
    """Tokens (B, 1 + h·w, D) -> map (B, D, h, w), without the class token."""

    def forward(self, tokens: Tensor) -> Tensor:
        side = round((tokens.shape[1] - 1) ** 0.5)
        return tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side))


class _ClassToken(nn.Module):
    """Tokens (B, 1 + h·w, D) -> class token (B, D)."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0]


def _vit(net: nn.Module) -> Parts:
    *blocks, last = net.encoder.layers
    neck = nn.Sequential(last, net.encoder.ln, _ClassToken())
    return Parts([_Tokens(net), *blocks], net.heads.head, neck=neck, to_map=_Grid())


# The first matching prefix decides, so the longer comes first where one name begins another.
ADAPTERS: Mapping[str, Callable[[nn.Module], Parts]] = {
    "resnet": _resnet,
    "resnext": _resnet,
    "wide_resnet": _resnet,
    "regnet": _regnet,
    "densenet": _densenet,
    "vgg": _vgg,
    "alexnet": _vgg,
    "mobilenet": _mobile,
    "efficientnet": _mobile,
    "mnasnet": _mnasnet,
    "shufflenet": _shufflenet,
    "squeezenet": _squeezenet,
    "googlenet": _googlenet,
    "inception": _inception,
    "convnext": _convnext,
    "swin": _swin,
    "maxvit": _maxvit,
    "vit": _vit,
}


def lite_network() -> nn.Module:
    """EfficientNet-Lite0 (Tan & Le, ICML 2019, without squeeze-and-excitation) as timm builds it."""
    import timm  # slow to import, and only this model needs it

    return timm.create_model("tf_efficientnet_lite0", pretrained=False)


def lite(net: nn.Module) -> Parts:
    stem, head = nn.Sequential(net.conv_stem, net.bn1), nn.Sequential(net.conv_head, net.bn2)
    return Parts([stem, *net.blocks, head], net.classifier, dropout=0.2)  # 0.2 as in its published training

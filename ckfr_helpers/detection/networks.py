"""Networks over regions: the detector, and a student that learns its features.

Their inputs are a mapping, which travels through the training loop like a tensor: ``boxes`` (B, R, 4) and
``counts`` (B,), see `regions`; ``maps``, what the network's stages take, so pictures (B, 3, H, W) or cached
outputs of a trunk; or in place of maps ``regions`` (B, R, C), pooled beforehand; and ``box_scores`` (B, R)
where the proposals have scores that shall count.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ckfr_helpers.detection.head import TwoStream
from ckfr_helpers.detection.regions import (
    BoxScores,
    Pooling,
    check_regions,
    flat,
    padded,
    pool_regions,
    weigh,
)
from ckfr_helpers.models import Classifier, build_model
from ckfr_helpers.runtime import CkfrError

Inputs = Mapping[str, Tensor]


class RegionNetwork(nn.Module):
    """What detector and student share: from inputs to pooled features, (N, C) or (N, C, side, side).

    Args:
        stages: from ``maps`` of the inputs to maps (B, C, h, w); none leaves them as they are.
        size: (height, width) of the picture that boxes are measured in; None if ``maps`` are these pictures.
        pooling, side: as for `regions.pool_regions`.
    """

    def __init__(
        self,
        stages: nn.Sequential | None = None,
        size: tuple[int, int] | None = None,
        pooling: Pooling = "align",
        side: int = 1,
    ) -> None:
        super().__init__()
        self.stages = nn.Sequential() if stages is None else stages
        self.size, self.pooling, self.side = size, pooling, side

    def pool(self, inputs: Inputs) -> Tensor:
        """Features of all regions, picture after picture."""
        boxes, counts = inputs["boxes"], inputs["counts"]
        if "regions" in inputs:
            check_regions(boxes, counts, len(inputs["regions"]))
            return flat(inputs["regions"], counts)
        maps = inputs["maps"]
        size = self.size or (maps.shape[2], maps.shape[3])
        return pool_regions(self.stages(maps), boxes, counts, size, self.pooling, self.side)[0]

    def box_scores(self, inputs: Inputs) -> Tensor | None:
        """(N,) scores of the proposals, if the inputs have any."""
        return flat(inputs["box_scores"], inputs["counts"]) if "box_scores" in inputs else None


class Detector(RegionNetwork):
    """A trunk, region pooling and WSDDN's head; calling it gives scores of regions, (B, R, C).

    >>> import torch
    >>> inputs = {"maps": torch.rand(2, 6, 7, 7), "counts": torch.tensor([2, 1])}
    >>> inputs["boxes"] = torch.tensor([[[0, 0, 50, 50], [20, 0, 99, 60]], [[0, 0, 99, 99], [0, 0, 0, 0]]])
    >>> Detector(TwoStream(6, 3), size=(100, 100))(inputs)[1, 1]
    tensor([0., 0., 0.], grad_fn=<SelectBackward0>)
    """

    def __init__(self, head: TwoStream, stages: nn.Sequential | None = None, **options: Any) -> None:
        super().__init__(stages, **options)
        self.head = head

    def embed(self, inputs: Inputs) -> Tensor:
        """What the head's two layers see of each region, (N, width)."""
        return self.head.embed(self.pool(inputs), self.box_scores(inputs))

    def score(self, embedded: Tensor, inputs: Inputs, sharpen: float = 1.0) -> Tensor:
        """Scores (B, R, C) from those, 0 in the padding."""
        return self.head.score(embedded, inputs["counts"], inputs["boxes"].shape[1], sharpen)

    def forward(self, inputs: Inputs, sharpen: float = 1.0) -> Tensor:
        """Inputs of B pictures -> scores (B, R, C); ``sharpen`` as for `head.TwoStream.score`."""
        return self.score(self.embed(inputs), inputs, sharpen)


class RegionStudent(RegionNetwork):
    """A classifier's stages and a projection to the teacher's features: what learns in stage 1.

    The stages are the classifier's own, so they stay trained in it; its neck and linear layer are not here.

    Args:
        network: gives the stages.
        project: from a region's pooled features, flattened, to the teacher's width: a new linear layer, or
            layers of the classifier too (in the source fc6 and fc7).
        box_scores: ``"product"`` multiplies the pooled features by their boxes' scores, as the source does: a
            box of score 0 then teaches nothing but the projection's offset. By default all are equal.
        options: as for `RegionNetwork`. Boxes and ``size`` are the teacher's, whatever size the student sees.
    """

    def __init__(
        self, network: Classifier, project: nn.Module, box_scores: BoxScores = "none", **options: Any
    ) -> None:
        super().__init__(nn.Sequential(*network.stages, network.to_map), **options)
        self.project, self.how = project, box_scores

    def forward(self, inputs: Inputs) -> Tensor:
        """Inputs of B pictures -> features (B, R, width), 0 in the padding."""
        features = self.project(weigh(self.pool(inputs).flatten(1), self.box_scores(inputs), self.how))
        return padded(features, inputs["counts"], inputs["boxes"].shape[1])


def vgg_parts(network: Classifier) -> tuple[nn.Sequential, nn.Sequential]:
    """Of torchvision's VGG: the convolutions without the last pooling, and fc6 and fc7 with their ReLU."""
    if not network.name.startswith("vgg"):
        raise CkfrError(
            f"The network is {network.name}; expected a VGG, whose layers after pooling are known."
        )
    *before, last = network.stages
    assert isinstance(last, nn.Sequential)
    assert isinstance(network.neck, nn.Sequential)
    return nn.Sequential(*before, last[:-1]), network.neck[2:]


def vgg_detector(
    classes: int,
    name: str = "vgg16",
    preset: str = "adursun",
    pretrained: bool = True,
    weights_path: str | Path | None = None,
) -> Detector:
    """WSDDN as it was published: regions of VGG's last map, max-pooled to 7 x 7, through its own fc6 and fc7.

    Args:
        preset: which implementation's temperatures and box scores, see `head.PRESETS`.
        name, pretrained, weights_path: as for `models.build_model`.
    """
    network = build_model(name, None, pretrained, weights_path)
    stages, layers = vgg_parts(network)
    features = next(part for part in layers if isinstance(part, nn.Linear)).in_features
    head = TwoStream.preset(preset, features, classes, hidden=layers, dropout=network.dropout.p)
    return Detector(head, stages, pooling="max", side=7)

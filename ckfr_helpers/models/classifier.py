"""One shape for every backbone: stages, a neck, a linear classifier.

CKFR needs three views of the same network: the spatial map (to see where it looks), the latent vector (to
compare with knowledge distances) and the logits. Weights are never copied or changed on the way: the logits
are the untouched network's, to the last bit.
"""

from typing import Self

import torch
import torchvision.transforms.v2.functional as tvf
from torch import Tensor, nn

from ckfr_helpers.runtime import CkfrError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Classifier(nn.Module):
    """Backbone and linear classifier, in pieces that can be used one by one.

    Calling it gives logits: ``classify(embed(x))``. Dropout, where the family has it before its classifier,
    acts inside ``classify``, so latents carry no dropout noise into a distance.

    Attributes:
        stages: image (B, 3, H, W) -> state, in the family's own layout: mostly the map (B, C, h, w).
        to_map: state -> map (B, C, h, w): the identity, except for tokens and channels that come last. For
            pytorch-grad-cam it is the ``reshape_transform`` to target layer ``stages[-1]``.
        neck: state -> latent (B, D): pooling, and whatever the family puts before its last linear layer.
        dropout: between latent and classifier.
        classifier: the linear layer D -> K.
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

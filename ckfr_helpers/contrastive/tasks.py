"""Pre-training that aligns encoders, and the classifier that joins what they say; both for `training.fit`.

Inputs are a mapping with one tensor an encoder, B rows each: ``image`` pictures or cached features, ``text``
vectors of `text.TextEncoder`, ``metadata`` of `encode_location`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from ckfr_helpers.contrastive.losses import (
    PAIRS,
    mended_soft_target_loss,
    pair_losses,
    soft_target_loss,
    supervised_contrastive_loss,
)
from ckfr_helpers.contrastive.metadata import Projection
from ckfr_helpers.runtime import CkfrError, check_number
from ckfr_helpers.training.evaluation import collect
from ckfr_helpers.training.task import Task

LOSSES: dict[str, Callable[..., Tensor]] = {
    "released": soft_target_loss,
    "mended": mended_soft_target_loss,
    "supervised": supervised_contrastive_loss,
}


class Towers(nn.Module):
    """One encoder and one `Projection` for each kind of input, into a space that all share.

    Args:
        encoders: by name of input, e.g. ``{"image": nn.Identity(), "metadata": MetadataEncoder()}``. The
            latents of a `models.Classifier` are ``nn.Sequential(model.stages, model.neck)``.
        features: what each encoder gives, (B, features).
        width: of the shared space.
        dropout: of the projections.
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        features: Mapping[str, int],
        width: int = 256,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if not encoders or set(encoders) != set(features):
            names = f"{', '.join(encoders) or 'none'} and {', '.join(features) or 'none'}"
            raise CkfrError(f"Encoders and their widths are for {names}; expected the same names.")
        self.encoders = nn.ModuleDict(encoders)
        heads = {name: Projection(size, width, dropout) for name, size in features.items()}
        self.projections = nn.ModuleDict(heads)
        self.width = width

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every encoder's projection (B, width), by name."""
        return {name: self.project(name, inputs) for name in self.encoders}

    def project(self, name: str, inputs: Mapping[str, Tensor]) -> Tensor:
        """One encoder's projection, (B, width)."""
        if name not in inputs:
            raise CkfrError(f"There is no input {name!r}; expected it among {', '.join(inputs)}.")
        return self.projections[name](self.encoders[name](inputs[name]))


class AlignTask(Task):
    """Contrastive pre-training of `Towers`: a loss for each pair of encoders, minimised together.

    Args:
        loss: one of `LOSSES`: ``"released"``, ``"mended"`` or ``"supervised"``; the last reads labels.
        pairs: which encoders, in which order; the released loss depends on it.
        options: the loss's own, e.g. ``temperature=0.1``.
    """

    chosen_by = "alignment"
    more_is_better = False

    def __init__(
        self, loss: str = "supervised", pairs: Sequence[tuple[str, str]] = PAIRS, **options: Any
    ) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise CkfrError(f"There is no loss {loss!r}; expected one of {', '.join(LOSSES)}.")
        if not pairs:
            raise CkfrError("There is no pair of encoders to align; expected at least one.")
        self.loss, self.pairs, self.options = loss, tuple(pairs), options

    def outputs(self, model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The projections (B, width) of the encoders that stand in a pair."""
        names = dict.fromkeys(name for pair in self.pairs for name in pair)
        return {name: model.project(name, inputs) for name in names}

    def losses(self, outputs: dict[str, Tensor], targets: dict[str, Any]) -> dict[str, Tensor]:
        """One for each pair, such as ``text_image``."""
        labels = {"labels": targets["label"]} if self.loss == "supervised" else {}
        return pair_losses(outputs, LOSSES[self.loss], self.pairs, **labels, **self.options)

    def validate(self, model: nn.Module, loader: Any, fabric: Fabric | None = None) -> dict[str, float]:
        """Each pair's loss with the whole split as one batch, their sum ``alignment``, and ``…_matched``.

        That is the share of rows of the first whose most similar row of the second, by cosine, is of the
        same class.
        """

        def read(inputs: Any, targets: dict[str, Any]) -> dict[str, Tensor]:
            return {**self.outputs(model, inputs), "label": targets["label"]}

        seen = collect(model, loader, read, fabric)
        labels = seen["label"]
        found = {name: float(value) for name, value in self.losses(seen, {"label": labels}).items()}
        scores = {**found, "alignment": sum(found.values())}
        for one, other in self.pairs:
            cosines = F.normalize(seen[one], dim=1) @ F.normalize(seen[other], dim=1).T
            right = labels[cosines.argmax(1)] == labels
            scores[f"{one}_{other}_matched"] = float(right.double().mean())
        return scores


class Fusion(nn.Module):
    """A classifier of what several towers say side by side: Linear, GELU, dropout, Linear.

    It has ``embed`` and ``classify``, so `training.ClassificationTask` trains it and scores it by the tree.
    Every tower goes on learning; text is left out, since it would be the answer.

    Args:
        towers: pre-trained or not.
        classes: C.
        names: which towers, e.g. ``("image",)`` for the picture alone.
        dropout: between the two layers; 0.5 in the source.
    """

    def __init__(
        self,
        towers: Towers,
        classes: int,
        names: Sequence[str] = ("image", "metadata"),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_number("classes", classes, 2, whole=True)
        if not names or not set(names) <= set(towers.encoders):
            known = ", ".join(towers.encoders)
            raise CkfrError(f"The towers to join are {tuple(names)}; expected some of {known}.")
        self.towers, self.names = towers, tuple(names)
        width = towers.width
        self.head = nn.Sequential(
            nn.Linear(width * len(self.names), width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, classes),
        )

    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Projections side by side, (B, width · towers)."""
        return torch.cat([self.towers.project(name, inputs) for name in self.names], dim=1)

    def classify(self, latents: Tensor) -> Tensor:
        """(B, width · towers) -> logits (B, C)."""
        return self.head(latents)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Inputs -> logits (B, C)."""
        return self.classify(self.embed(inputs))

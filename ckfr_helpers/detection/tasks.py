"""What is learnt here: a detector from labels of pictures, a student from its features, and from its scores.

Tasks for `training.fit`; what their models take as inputs stands in `networks`. Labels are targets
``labels`` (B, C), 0 or 1; a picture without any label is a picture in which nothing is to be found.
"""

from typing import Any

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from ckfr_helpers import metrics
from ckfr_helpers.detection.head import CLAMP, check_labels, image_loss, image_scores, spatial_regulariser
from ckfr_helpers.detection.networks import Inputs
from ckfr_helpers.detection.regions import flat, present
from ckfr_helpers.runtime import CkfrError, check_number
from ckfr_helpers.training.evaluation import collect
from ckfr_helpers.training.task import Task

RATE = 10  # how much faster than all else the learnable scale of the source moves


class DetectorTask(Task):
    """WSDDN: a `networks.Detector` whose scores, summed over regions, shall be the labels of the picture.

    Args:
        spatial: weight of `head.spatial_regulariser`, summed over a picture's classes, mean over pictures;
            1e-4 as WSDDN's authors have it, whose batches have one picture. 0 leaves it out.
        clamp: as for `head.image_loss`.
    """

    chosen_by = "mAP"

    def __init__(self, spatial: float = 0.0, clamp: float = CLAMP) -> None:
        super().__init__()
        check_number("spatial", spatial, 0)
        check_number("clamp", clamp, 0, 0.5, below=True)
        self.spatial, self.clamp = spatial, clamp

    def outputs(self, model: Any, inputs: Inputs) -> dict[str, Tensor]:
        """``scores`` (B, C) of pictures; ``spatial`` (B, C), what the regulariser is for each class."""
        embedded, counts = model.embed(inputs), inputs["counts"]
        scores = model.score(embedded, inputs)
        found = {"scores": image_scores(scores)}
        if self.spatial:
            own = (embedded, flat(scores, counts), flat(inputs["boxes"], counts))
            pictures = zip(*(part.split(counts.tolist()) for part in own), strict=True)
            found["spatial"] = torch.stack([spatial_regulariser(*picture) for picture in pictures])
        return found

    def losses(self, outputs: dict[str, Tensor], targets: dict[str, Any]) -> dict[str, Tensor]:
        """``image``, and ``spatial`` with its weight."""
        found = {"image": image_loss(outputs["scores"], targets["labels"], self.clamp)}
        if self.spatial:
            found["spatial"] = self.spatial * (outputs["spatial"] * targets["labels"]).sum(1).mean()
        return found

    def validate(self, model: nn.Module, loader: Any, fabric: Fabric | None = None) -> dict[str, float]:
        """`metrics.multilabel_metrics` of the pictures' scores, and the loss ``image``."""

        def read(inputs: Any, targets: dict[str, Any]) -> dict[str, Tensor]:
            return {"scores": image_scores(model(inputs)), "labels": targets["labels"]}

        seen = collect(model, loader, read, fabric)
        loss = float(image_loss(seen["scores"], seen["labels"], self.clamp))
        return {**_scores(seen["scores"].clamp(0, 1), seen["labels"]), "image": loss}


class MultiLabelTask(Task):
    """A classifier of several labels, and stage 2 of the distillation: it also learns a teacher's scores.

    The loss is ``BCE(sigmoid(z), y) + weight * BCE(sigmoid(s z), p)``, each summed over classes, mean over
    pictures; p are targets ``teacher`` (B, C) in [0, 1], from `loading.teach`. By default every s is 1.
    The source (MLIC-KD-WSD) learns one for each, from 0.2, ten times as fast as all else
    (``scale=0.2, learn_scale=True``): s alone can then lower the second loss, and near 0 leaves nothing of it
    that the network could learn from. `validate` reports a learnt s.

    Args:
        classes: C.
        teacher: whether targets have ``teacher``.
        weight: of the teacher's loss.
        smoothing: of the labels, 1 becomes 1 - smoothing / 2 and 0 smoothing / 2.
        scale: s, or where it starts.
        learn_scale: a parameter of this task. Its speed is that of Adam without weight decay.
    """

    chosen_by = "mAP"

    def __init__(
        self,
        classes: int,
        teacher: bool = False,
        weight: float = 1.0,
        smoothing: float = 0.0,
        scale: float = 1.0,
        learn_scale: bool = False,
    ) -> None:
        super().__init__()
        check_number("classes", classes, 1, whole=True)
        check_number("weight", weight, 0)
        check_number("smoothing", smoothing, 0, 1, below=True)
        check_number("scale", scale, 0, above=True)
        if learn_scale and not teacher:
            raise CkfrError("learn_scale is for a teacher's scores; expected teacher=True with it.")
        self.teacher, self.weight, self.smoothing = teacher, weight, smoothing
        # Adam's steps do not depend on the gradient's size: a tenth of s moves s at ten times the rate.
        share = torch.full((classes,), scale / RATE)
        self.learn_scale = learn_scale
        self.share: Tensor
        if learn_scale:
            self.share = nn.Parameter(share)
        else:
            self.register_buffer("share", share)

    @property
    def scale(self) -> Tensor:
        """s, (C,)."""
        return RATE * self.share

    def outputs(self, model: Any, inputs: Any) -> dict[str, Tensor]:
        """``logits`` (B, C) of any model whose call gives them."""
        return {"logits": model(inputs)}

    def losses(self, outputs: dict[str, Tensor], targets: dict[str, Any]) -> dict[str, Tensor]:
        """``labels``, and ``teacher`` with its weight."""
        logits = outputs["logits"]
        truth = check_labels(targets["labels"], logits).to(logits.dtype)
        found = {"labels": _cross_entropy(logits, truth * (1 - self.smoothing) + self.smoothing / 2)}
        if self.teacher:
            found["teacher"] = self.weight * _cross_entropy(logits * self.scale, _teacher(targets, logits))
        return found

    def validate(self, model: nn.Module, loader: Any, fabric: Fabric | None = None) -> dict[str, float]:
        """`metrics.multilabel_metrics`, the loss ``labels`` without smoothing, and a learnt scale."""

        def read(inputs: Any, targets: dict[str, Any]) -> dict[str, Tensor]:
            return {**self.outputs(model, inputs), "labels": targets["labels"]}

        seen = collect(model, loader, read, fabric)
        logits, labels = seen["logits"], seen["labels"]
        loss = float(_cross_entropy(logits, check_labels(labels, logits).to(logits.dtype)))
        scores = {**_scores(logits.sigmoid(), labels), "labels": loss}
        if self.learn_scale:
            scale = self.scale.detach()
            scores |= {"scale": float(scale.mean())}
            scores |= {"scale_least": float(scale.min()), "scale_most": float(scale.max())}
        return scores


class FeatureTask(Task):
    """Stage 1 of the distillation: a `networks.RegionStudent` learns the teacher's features of regions.

    The loss is ``1/(2R) sum_r |t_r - f_r|^2``, mean over pictures; t are targets ``regions`` (B, R, width),
    from `loading.teach`, and no label is used. There the teacher is in evaluation mode; in the source its
    dropout makes the targets noisy, and the student's, after the last layer, its answers too.
    """

    chosen_by = "distance"
    more_is_better = False

    def outputs(self, model: Any, inputs: Inputs) -> dict[str, Tensor]:
        """``regions`` (B, R, width), and ``shares`` (B, R), what each region counts: 0 in the padding."""
        found, counts = model(inputs), inputs["counts"]
        return {"regions": found, "shares": present(counts, found.shape[1]) / (2.0 * counts[:, None])}

    def losses(self, outputs: dict[str, Tensor], targets: dict[str, Any]) -> dict[str, Tensor]:
        """``distance``."""
        return {"distance": self._distances(outputs, targets).mean()}

    def validate(self, model: nn.Module, loader: Any, fabric: Fabric | None = None) -> dict[str, float]:
        """``distance`` over all pictures."""

        def read(inputs: Any, targets: dict[str, Any]) -> dict[str, Tensor]:
            return {"distance": self._distances(self.outputs(model, inputs), targets)}

        return {"distance": float(collect(model, loader, read, fabric)["distance"].double().mean())}

    def _distances(self, outputs: dict[str, Tensor], targets: dict[str, Any]) -> Tensor:
        """Of each picture, (B,)."""
        found, taught = outputs["regions"], targets.get("regions")
        if taught is None or taught.shape != found.shape:
            shape = "none" if taught is None else tuple(taught.shape)
            raise CkfrError(
                f"The teacher's features are {shape}; expected {tuple(found.shape)} as the student's."
            )
        return (outputs["shares"] * (found - taught).square().sum(2)).sum(1)


def _cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """Summed over classes, mean over pictures."""
    return F.binary_cross_entropy_with_logits(logits, truth, reduction="none").sum(1).mean()


def _teacher(targets: dict[str, Any], logits: Tensor) -> Tensor:
    scores = targets.get("teacher")
    if scores is None or scores.shape != logits.shape:
        shape = "none" if scores is None else tuple(scores.shape)
        raise CkfrError(f"The teacher's scores are {shape}; expected {tuple(logits.shape)} as the logits.")
    return scores.to(logits.dtype).clamp(0, 1)


def _scores(scores: Tensor, labels: Tensor) -> dict[str, float]:
    return metrics.multilabel_metrics(scores, labels)

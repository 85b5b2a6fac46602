"""WSDDN's head: one softmax says what a region shows, another which region shows it.

The product of the two, summed over a picture's regions, is the picture's score for a class, in [0, 1]: so the
labels of pictures train a detector that never saw a box (Bilen and Vedaldi, CVPR 2016).
"""

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_iou

from ckfr_helpers.detection.regions import BoxScores, edges, padded, weigh
from ckfr_helpers.runtime import CkfrError, check_number

_LENGTHS_STAY: dict[str, Any] = {"length": None, "class_temperature": 1.0}
PRESETS: dict[str, dict[str, Any]] = {
    "hbilen": {**_LENGTHS_STAY, "detection_temperature": 2.0, "box_scores": "hbilen"},
    "adursun": {**_LENGTHS_STAY, "detection_temperature": 1.0, "box_scores": "product"},
    "mlic": {**_LENGTHS_STAY, "detection_temperature": 1.0, "box_scores": "product"},
}
"""What WSDDN's authors, wsddn.pytorch and MLIC-KD-WSD do; the last teaches at ``sharpen=2``."""

CLAMP = 1e-4  # MLIC-KD-WSD's; WSDDN's authors and wsddn.pytorch have none


def wsddn_scores(
    class_logits: Tensor,
    detection_logits: Tensor,
    class_temperature: float = 1.0,
    detection_temperature: float = 1.0,
) -> Tensor:
    """How much each region speaks for each class: softmax over classes times softmax over regions.

    >>> wsddn_scores(torch.zeros(2, 4), torch.zeros(2, 4)).sum(0)
    tensor([0.2500, 0.2500, 0.2500, 0.2500])

    Args:
        class_logits, detection_logits: (R, C) of one picture, or (…, R, C). A row of ``-inf`` in the
            second is no region: its scores are 0.
        class_temperature, detection_temperature: what the logits are divided by; above 1 flattens.

    Returns:
        Scores of the same shape; those of a region sum to at most 1 over classes.

    Raises:
        CkfrError: different shapes, no region, a temperature that is not above 0.
    """
    shape = class_logits.shape
    if shape != detection_logits.shape or len(shape) < 2:
        raise CkfrError(
            f"Logits have shapes {tuple(shape)} and {tuple(detection_logits.shape)}; expected (R, C) twice."
        )
    if not shape[-2]:
        raise CkfrError("There is no region to score; expected at least one proposal a picture.")
    check_number("class_temperature", class_temperature, 0, above=True)
    check_number("detection_temperature", detection_temperature, 0, above=True)
    of_class = (class_logits / class_temperature).softmax(-1)
    return of_class * (detection_logits / detection_temperature).softmax(-2)


def image_scores(region_scores: Tensor) -> Tensor:
    """A picture's score for each class, the sum over its regions: (R, C) -> (C,), or (…, R, C) -> (…, C).

    Of `wsddn_scores` it lies in [0, 1], but for rounding; one region gives the softmax of its class logits.
    """
    if region_scores.ndim < 2 or not region_scores.shape[-2]:
        raise CkfrError(
            f"Region scores have shape {tuple(region_scores.shape)}; expected (R, C), R at least 1."
        )
    return region_scores.sum(-2)


def image_loss(scores: Tensor, labels: Tensor, clamp: float = CLAMP) -> Tensor:
    """Binary cross-entropy, summed over classes, mean over pictures.

    Args:
        scores: (B, C) or (C,), from `image_scores`.
        labels: the same shape, 0 or 1. A picture without any label counts: nothing shall be found in it.
        clamp: scores are kept this far from 0 and 1. Their gradient is that at the clamped value, not 0: a
            class that was given up can come back, and no gradient exceeds 1 / clamp.

    Raises:
        CkfrError: another shape, or labels outside {0, 1}.
    """
    check_number("clamp", clamp, 0, 0.5, below=True)
    truth = check_labels(labels, scores).to(scores.dtype)
    kept = scores + (scores.clamp(clamp, 1 - clamp) - scores).detach()
    return F.binary_cross_entropy(kept, truth, reduction="none").sum(-1).mean()


def check_labels(labels: Tensor, like: Tensor) -> Tensor:
    """Labels of the shape of what they are compared with, all 0 or 1; or a `CkfrError`."""
    if labels.shape != like.shape:
        raise CkfrError(f"Labels have shape {tuple(labels.shape)}; expected {tuple(like.shape)}.")
    wrong = (labels != 0) & (labels != 1)
    if wrong.any():
        raise CkfrError(f"Labels hold {float(labels[wrong][0]):g}; expected 0 or 1 for each class.")
    return labels


def spatial_regulariser(
    features: Tensor, scores: Tensor, boxes: Tensor, overlap: float = 0.6, top: int = 10
) -> Tensor:
    """How unlike the best region are those that lie on it: ``1/2 sum_r |p_r (f_r - f_best)|^2`` a class.

    For each class, r runs over those of its ``top`` best regions whose IoU with the best one is above
    ``overlap``. The scores p count as constants. It is meant for the classes that a picture has: multiply by
    its labels and sum. The gradient is that of this formula; the authors' code has p in it instead of p^2,
    and writes one class's over another's.

    Args:
        features: (R, D) of one picture.
        scores: (R, C) of its regions, from `wsddn_scores`.
        boxes: (R, 4) in pixels, both ends inside.

    Returns:
        (C,), with a gradient for ``features``.

    Reference:
        Bilen and Vedaldi, CVPR 2016, §3.4.
    """
    check_number("overlap", overlap, 0, 1)
    check_number("top", top, 1, whole=True)
    best, where = scores.detach().sort(dim=0, descending=True, stable=True)
    best, where = best[:top], where[:top]  # (K, C)
    overlaps = box_iou(edges(boxes[where[0]]), edges(boxes)).T.gather(0, where)
    difference = (features[where] - features[where[0]]).square().sum(2)
    return 0.5 * (best.square() * (overlaps > overlap) * difference).sum(0)


class TwoStream(nn.Module):
    """Features of regions to scores, by two linear layers and two softmaxes, for many pictures at once.

    Args:
        features, classes: D and C.
        hidden: width of a layer before the two, none if 0; or a network of one's own, D -> its last linear
            layer's width, such as the two fully connected layers of VGG-16.
        length: what the length of every region's features is set to; None leaves them, as the presets do. 30
            was best of what was tried on small scenes.
        dropout: before the two layers.
        class_temperature, detection_temperature: the logits are divided by them.
        box_scores: what a proposal's own score does to its features, see `regions.weigh`.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        hidden: int | nn.Module = 0,
        length: float | None = 30.0,
        dropout: float = 0.0,
        class_temperature: float = 1.0,
        detection_temperature: float = 1.0,
        box_scores: BoxScores = "none",
    ) -> None:
        super().__init__()
        for name, count in (("features", features), ("classes", classes)):
            check_number(name, count, 1, whole=True)
        for name, value in (
            ("class_temperature", class_temperature),
            ("detection_temperature", detection_temperature),
        ):
            check_number(name, value, 0, above=True)
        if length is not None:
            check_number("length", length, 0, above=True)
        self.width = features
        self.body: nn.Module = nn.Identity()
        if isinstance(hidden, nn.Module):
            self.body = hidden
            self.width = [part for part in hidden.modules() if isinstance(part, nn.Linear)][-1].out_features
        elif hidden:
            self.body, self.width = nn.Sequential(nn.Linear(features, hidden), nn.ReLU()), hidden
        self.dropout = nn.Dropout(dropout)
        self.class_stream = nn.Linear(self.width, classes)
        self.detection_stream = nn.Linear(self.width, classes, bias=False)  # softmax over regions cancels one
        self.class_temperature, self.detection_temperature = class_temperature, detection_temperature
        self.length, self.box_scores = length, box_scores

    @classmethod
    def preset(cls, name: str, features: int, classes: int, **changes: Any) -> Self:
        """As one of `PRESETS`; ``changes`` are further or other arguments."""
        if name not in PRESETS:
            raise CkfrError(f"There is no preset {name!r}; expected one of {', '.join(PRESETS)}.")
        return cls(features, classes, **{**PRESETS[name], **changes})

    def embed(self, features: Tensor, box_scores: Tensor | None = None) -> Tensor:
        """Pooled (N, D) or (N, c, k, k), and box scores (N,) -> what the two layers see, (N, width)."""
        features = features.flatten(1)
        if self.length is not None:
            features = self.length * F.normalize(features, dim=1)
        return self.body(weigh(features, box_scores, self.box_scores))

    def score(self, embedded: Tensor, counts: Tensor, most: int, sharpen: float = 1.0) -> Tensor:
        """(N, width) of pictures with ``counts`` (B,) regions -> scores (B, most, C), 0 in the padding.

        ``sharpen`` divides both temperatures; MLIC-KD-WSD's teacher has 2.
        """
        check_number("sharpen", sharpen, 0, above=True)
        embedded = self.dropout(embedded)
        return wsddn_scores(
            padded(self.class_stream(embedded), counts, most),
            padded(self.detection_stream(embedded), counts, most, fill=-torch.inf),
            self.class_temperature / sharpen,
            self.detection_temperature / sharpen,
        )

    def forward(self, features: Tensor, counts: Tensor, box_scores: Tensor | None = None) -> Tensor:
        """Pooled features of pictures with ``counts`` (B,) regions -> scores (B, R, C), R the most."""
        return self.score(self.embed(features, box_scores), counts, int(counts.max()))

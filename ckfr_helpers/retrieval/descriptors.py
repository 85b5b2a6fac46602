"""From a feature map to one vector of unit length: class-weighted pooling, and its rivals.

Class activation maps say where in a picture the evidence for a class lies; pooling the features under each
of several maps gives one vector a class, and their sum describes the picture (Jimenez et al., BMVC 2017).
All of it is batched: N maps and their pooling are one einsum each.
"""

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ckfr_helpers.retrieval import pooling
from ckfr_helpers.runtime import CkfrError, check_number

if TYPE_CHECKING:
    from sklearn.decomposition import PCA

Method = Literal["spoc", "mac", "gem", "crow", "rmac"]


def channel_weights(features: Tensor) -> Tensor:
    """CroW's channel weights: rare channels count more, as rare words do in text search.

    With Q_k the share of places where channel k is positive, the weight is ``log(sum_n Q_n / Q_k)``, and 0
    where Q_k is 0.

    Args:
        features: (B, C, H, W), signed or not.

    Returns:
        (B, C), on the features' device.

    Reference:
        Kalantidis et al., ECCV workshops 2016, §3.3; their code counts what is not 0: the same after a ReLU.
    """
    features = pooling.check_features(features)
    shares = (features > 0).to(features.dtype).mean((2, 3))  # (B, C)
    ratios = shares.sum(1, keepdim=True) / shares
    return torch.where(shares > 0, ratios, 1.0).log()


def class_weighted_descriptors(features: Tensor, maps: Tensor) -> Tensor:
    """Sum over places of features times maps: one vector a map, neither weighted nor normalised.

    Args:
        features: (B, C, H, W).
        maps: (B, N, H, W), of the same height and width.

    Returns:
        (B, N, C), on the features' device.
    """
    features = pooling.check_features(features)
    if maps.ndim != 4 or len(maps) != len(features) or maps.shape[2:] != features.shape[2:]:
        raise CkfrError(
            f"Maps have shape {tuple(maps.shape)} for features {tuple(features.shape)}; expected (B, N, H, W)"
            " with the B, H and W of the features."
        )
    return torch.einsum("bchw,bnhw->bnc", features, maps.to(features))


def class_maps(features: Tensor, weight: Tensor, classes: Tensor) -> Tensor:
    """Class activation maps of several classes at once, negative places 0, each divided by its maximum.

    A map with no positive place is zero: dividing by a negative maximum would turn the evidence around.

    Args:
        features: (B, C, H, W), what the classifier's average pooling sees.
        weight: (K, C), the classifier's, e.g. ``model.classifier.weight`` of a model with ``gap_linear``.
        classes: (N,) for all pictures, or (B, N), each picture its own.

    Returns:
        (B, N, H, W) in [0, 1], on the features' device.

    Raises:
        CkfrError: shapes that do not fit, features that are not finite, or a class that the weight lacks.
    """
    features = pooling.check_features(features)
    if weight.ndim != 2 or weight.shape[1] != features.shape[1]:
        raise CkfrError(
            f"The classifier's weight has shape {tuple(weight.shape)} for features of {features.shape[1]} "
            "channels; expected (K, C) with as many."
        )
    chosen = _check_classes(classes, len(features), len(weight)).to(weight.device)
    rows = weight.detach()[chosen].to(features)  # (N, C) or (B, N, C)
    maps = torch.einsum("bchw,nc->bnhw" if rows.ndim == 2 else "bchw,bnc->bnhw", features, rows).clamp(min=0)
    largest = maps.amax((2, 3), keepdim=True)
    return maps / torch.where(largest > 0, largest, 1.0)


def describe_classes(
    features: Tensor, weight: Tensor, classes: Tensor, weighted: bool = True, whitening: "PCA | None" = None
) -> Tensor:
    """The class-weighted descriptor: the pooled vectors of N classes, see `aggregate`.

    *Online* aggregation asks every picture for the query's classes, (N,); *offline* each for its own, (B, N).

    Args:
        features, weight, classes: as for `class_maps`.
        weighted: times `channel_weights`.
        whitening: of `fit_whitening`.

    Returns:
        (B, D) float32 on the CPU, of unit length, or zero where no map has a positive place.

    Reference:
        Jimenez, Alvarez, Giró-i-Nieto: Class-weighted convolutional features, BMVC 2017.
    """
    maps = class_maps(features, weight, classes)
    return describe_maps(features, maps, weighted=weighted, whitening=whitening)


def describe_maps(
    features: Tensor, maps: Tensor, weighted: bool = True, whitening: "PCA | None" = None
) -> Tensor:
    """`describe_classes` for maps (B, N, H, W) from anywhere: masks, similarities; (B, D)."""
    vectors = class_weighted_descriptors(features, maps)
    if weighted:
        vectors = vectors * channel_weights(features)[:, None]
    return aggregate(vectors, whitening)


def describe(
    features: Tensor, method: Method, *, power: float = 3.0, whitening: "PCA | None" = None
) -> Tensor:
    """The poolings without classes; signed features are defined for each.

    Args:
        features: (B, C, H, W).
        method: ``"spoc"``, the sum over places (Babenko & Lempitsky, ICCV 2015, without centre prior);
            ``"mac"``, the maximum (Tolias et al., ICLR 2016); ``"gem"``, the generalised mean of the positive
            part (Radenović et al., TPAMI 2018); ``"crow"``, the sum weighted by place and channel (Kalantidis
            et al., 2016; places whose channels sum below zero weigh nothing); ``"rmac"``, the sum over square
            regions of three sizes, each with its own maximum and its own whitening (Tolias et al., 2016).
        power: GeM's exponent, above 0; 1 is the mean, and large ones near the maximum.
        whitening: of `fit_whitening`; for R-MAC one fitted on such regions.

    Returns:
        (B, D) float32 on the CPU, of unit length, or zero where there is nothing to pool.

    Raises:
        CkfrError: an unknown method, a power that is not positive, or features that are not finite.
    """
    features = pooling.check_features(features)
    if method == "spoc":
        vectors = features.sum((2, 3))
    elif method == "mac":
        vectors = features.amax((2, 3))
    elif method == "gem":
        vectors = pooling.generalised_mean(features, power)
    elif method == "crow":
        vectors = (features * pooling.place_weights(features)).sum((2, 3)) * channel_weights(features)
    elif method == "rmac":
        return aggregate(pooling.region_maxima(features), whitening)
    else:
        raise CkfrError(f"Unknown pooling {method!r}; expected one of {', '.join(get_args(Method))}.")
    return aggregate(vectors[:, None], whitening)


def aggregate(vectors: Tensor, whitening: "PCA | None" = None) -> Tensor:
    """Unit length, whitening, unit length, sum, unit length: (B, N, C) -> (B, D) float32 on the CPU.

    A zero vector, of a map without a positive place, say, stays zero: whitening would move it to where the
    training mean is not.
    """
    units = F.normalize(pooling.check_finite(vectors, "vectors").detach().float(), dim=2).cpu()
    if whitening is not None:
        if vectors.shape[2] != whitening.n_features_in_:
            raise CkfrError(
                f"The whitening was fitted on vectors of {whitening.n_features_in_} numbers, these have "
                f"{vectors.shape[2]}; expected those of the same network."
            )
        whitened = torch.from_numpy(whitening.transform(units.flatten(0, 1).numpy())).float()
        kept = units.flatten(0, 1).any(1, keepdim=True)
        units = F.normalize(whitened * kept, dim=1).unflatten(0, units.shape[:2])
    return F.normalize(units.sum(1), dim=1)


def fit_whitening(vectors: Tensor | np.ndarray, dimension: int, shrinkage: float = 0.0) -> "PCA":
    """scikit-learn's ``PCA(whiten=True)`` on descriptors of other pictures than those searched.

    Args:
        vectors: (M, C), of unit length as they are whitened; rows of zeros are left out.
        dimension: how many components to keep, fewer than vectors and at most C.
        shrinkage: in [0, 1], mixes the components' variances with their mean. Few vectors underestimate the
            small variances, whose noise whitening then blows up; 1 only rotates.

    Raises:
        CkfrError: a dimension that the sample does not allow, or a shrinkage outside [0, 1].
    """
    from sklearn.decomposition import PCA  # slow to import

    check_number("shrinkage", shrinkage, 0, 1)
    rows = torch.as_tensor(vectors).detach().cpu()
    if rows.ndim != 2:
        raise CkfrError(f"The vectors have shape {tuple(rows.shape)}; expected (M, C).")
    sample = pooling.check_finite(rows, "vectors").double().numpy()
    sample = sample[sample.any(1)]
    most = min(len(sample) - 1, sample.shape[1])  # M points span M - 1 directions about their mean
    if 1 <= dimension <= most:
        fitted = PCA(dimension, whiten=True, svd_solver="full").fit(sample)
        variances = fitted.explained_variance_
        if variances[-1] > 1e-12 * variances[0]:
            fitted.explained_variance_ = (1 - shrinkage) * variances + shrinkage * variances.mean()
            return fitted
        most = int((variances > 1e-12 * variances[0]).sum())
    raise CkfrError(
        f"Whitening to {dimension} dimensions cannot be fitted on {len(sample)} vectors of {sample.shape[1]} "
        f"numbers; expected from 1 to {most}."
    )


def _check_classes(classes: Tensor, pictures: int, count: int) -> Tensor:
    """Class numbers (N,) or (B, N) as int64."""
    chosen = torch.as_tensor(classes)
    if chosen.is_floating_point() or chosen.shape[:-1] not in [(), (pictures,)] or not chosen.numel():
        raise CkfrError(
            f"Classes are {chosen.dtype} {tuple(chosen.shape)} for {pictures} pictures; expected whole "
            "numbers (N,) or (B, N)."
        )
    if chosen.min() < 0 or chosen.max() >= count:
        low, high = int(chosen.min()), int(chosen.max())
        raise CkfrError(f"Classes run from {low} to {high}; expected 0 to {count - 1}, the classifier's.")
    return chosen.long()

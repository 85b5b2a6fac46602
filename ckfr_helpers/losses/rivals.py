"""Losses to compare the aligned triplet loss with, all behind one call.

    objective = make_loss("hxe", hierarchy, alpha=0.2)
    loss = objective.total(latents, logits, labels)  # (B, D), (B, K), (B,) -> scalar

Two of them change the cross-entropy itself (soft labels, HXE), two stand beside it and pull on the latents
(CKFR, Proxy-Anchor). Minimum-risk decisions, the baseline that needs no training, are
`metrics.minimum_risk_labels`.
"""

import difflib
from typing import Any

import torch
from torch import Tensor, nn

from ckfr_helpers.hierarchy.checks import check_distances
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.losses.triplet import AlignedTripletLoss
from ckfr_helpers.runtime import CkfrError, check_number

BASELINE = "cross-entropy"
# What each method takes, with its default; the grid of a study and `--method-option` are held to it.
METHODS: dict[str, dict[str, Any]] = {
    BASELINE: {},
    "ckfr": {"alpha": 20.0, "ell": 1.2},  # the original demo's
    "soft-labels": {"beta": 10.0},
    "hxe": {"alpha": 0.1},
    "proxy-anchor": {"weight": 1.0},
}
PROXY_RATE = 10.0  # Kim et al.'s proxies learn at 1e-2; this gives that beside a tail trained at 1e-3


class SoftLabels(nn.Module):
    """Cross-entropy against targets that give some credit to near classes.

    For a picture of class c the target of class k is softmax over k of −beta · d(k, c), with d the height of
    their lowest common ancestor divided by the largest such height, so that d lies in [0, 1]. A large beta
    is the usual one-hot target, 0 the same target for every class. Source: Bertinetto et al., "Making Better
    Mistakes" (CVPR 2020), section 3.2; the authors try beta from 4 to 30.
    """

    def __init__(self, hierarchy: Hierarchy, beta: float = 10.0) -> None:
        super().__init__()
        check_number("beta", beta, 0)
        height = torch.from_numpy(hierarchy.distances("lca_height")).double()  # (K, K)
        targets = (-beta * height / height.max().clamp(min=1)).softmax(dim=1)
        self.register_buffer("targets", targets.float(), persistent=False)
        self.targets: Tensor

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(B, K), (B,) -> scalar mean."""
        logits = _at_least_float(logits)
        return nn.functional.cross_entropy(logits, self.targets[labels].to(logits.dtype))


class HierarchicalCrossEntropy(nn.Module):
    """HXE: cross-entropy taken apart along the way to the root, generic decisions weighing more.

    The softmax over the leaves gives every node the sum of the probabilities below it. With C_0 the true
    leaf, C_1 its parent and so on up to the root,

        L = − Σ_l exp(−alpha · h(C_l)) · log p(C_l | C_{l+1}).

    At alpha = 0 the logarithms telescope to plain cross-entropy, on any tree. Source: Bertinetto et al.,
    "Making Better Mistakes" (CVPR 2020), section 3.1. As in the authors' released code (and as the text's
    "discounted down the hierarchy" asks), h counts edges from the root; their code also divides all weights
    by one constant, which Adam does not see and which is left out here. They try alpha from 0.1 to 0.9.
    """

    def __init__(self, hierarchy: Hierarchy, alpha: float = 0.1) -> None:
        super().__init__()
        check_number("alpha", alpha, 0)
        ways = [hierarchy.path_to_root(name) for name in hierarchy.classes]
        longest = max(map(len, ways))
        column = {node: place for place, node in enumerate(hierarchy.nodes)}
        # Padded with steps from the root to itself, which cost nothing.
        padded = [[column[node] for node in way] + [0] * (longest - len(way)) for way in ways]
        depth = [[max(len(way) - 1 - step, 0) for step in range(longest - 1)] for way in ways]
        weights = torch.exp(-float(alpha) * torch.tensor(depth, dtype=torch.float64))
        self.register_buffer("paths", torch.tensor(padded), persistent=False)  # (K, L + 1), root in column 0
        self.register_buffer("weights", weights.float(), persistent=False)  # (K, L)
        # Every pair of a leaf and a node above it (or itself): which leaves a node's probability sums.
        pairs = [(label, column[node]) for label, way in enumerate(ways) for node in way]
        self.register_buffer("pairs", torch.tensor(pairs).T.contiguous(), persistent=False)  # (2, E)
        self.nodes = len(column)
        self.paths: Tensor
        self.weights: Tensor
        self.pairs: Tensor

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(B, K), (B,) -> scalar mean."""
        with torch.autocast(logits.device.type, enabled=False):
            leaf, node = self.pairs
            table = _segment_logsumexp(_at_least_float(logits).log_softmax(dim=1)[:, leaf], node, self.nodes)
            way = table.gather(1, self.paths[labels])  # (B, L + 1): log p from the leaf up to the root
            conditional = way[:, :-1] - way[:, 1:]
            return -(conditional * self.weights[labels].to(table.dtype)).sum(dim=1).mean()


def _segment_logsumexp(values: Tensor, segment: Tensor, count: int) -> Tensor:
    """log Σ exp over the columns of each segment: (B, E) values, (E,) segment numbers -> (B, count)."""
    where = segment.expand_as(values)
    largest = values.detach().new_full((len(values), count), -torch.inf)
    largest = largest.scatter_reduce(1, where, values.detach(), "amax")
    shifted = (values - largest.gather(1, where)).exp()
    return largest + torch.zeros_like(largest).scatter_add(1, where, shifted).log()


class ProxyAnchor(nn.Module):
    """Proxy-Anchor beside the cross-entropy: one learnt point a class, latents drawn to their own.

    A metric loss that knows the classes but not the tree, so it shows what can be had without one: (B, D),
    (B,) -> scalar, times ``weight``. Source: Kim et al., "Proxy Anchor Loss for Deep Metric Learning" (CVPR
    2020), with the paper's margin 0.1 and scale 32, from pytorch-metric-learning.

    Raises:
        CkfrError: if pytorch-metric-learning is not installed, or the weight is out of range.
    """

    def __init__(self, classes: int, embed_dim: int, weight: float = 1.0) -> None:
        super().__init__()
        try:
            from pytorch_metric_learning.losses import ProxyAnchorLoss
        except ImportError as error:
            raise CkfrError(
                "The method proxy-anchor needs the package pytorch-metric-learning, which is not installed; "
                "`pip install pytorch-metric-learning` brings it."
            ) from error
        check_number("weight", weight, 0)
        self.weight = float(weight)
        self.loss = ProxyAnchorLoss(classes, embed_dim, margin=0.1, alpha=32.0)
        # Adam moves every parameter by about the learning rate, whatever the gradient's size: a proxy
        # stored divided by PROXY_RATE moves that much faster, in any loop, without a second optimiser.
        nn.utils.parametrize.register_parametrization(self.loss, "proxies", _Times())

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(latents.device.type, enabled=False):
            return self.weight * self.loss(latents.to(self.loss.proxies.dtype), labels)


class _Times(nn.Module):
    def forward(self, stored: Tensor) -> Tensor:
        return stored * PROXY_RATE

    def right_inverse(self, wanted: Tensor) -> Tensor:
        return wanted / PROXY_RATE


class CrossEntropy(nn.Module):
    """Plain cross-entropy: (B, K), (B,) -> scalar mean."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(_at_least_float(logits), labels)


class Objective(nn.Module):
    """All that a step minimises: a loss of the logits plus a term on the latents.

    The two stay apart: of several processes each may take its own mean over pictures, while a term on pairs
    or triplets needs the latents of all.

    Attributes:
        classification: (B, K), (B,) -> scalar.
        metric: (B, D), (B,) -> scalar; None for no such term. It may have parameters to train.
    """

    def __init__(self, classification: nn.Module, metric: nn.Module | None = None) -> None:
        super().__init__()
        self.classification = classification
        self.metric = metric

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """The metric term alone, weighted: (B, D), (B,) -> scalar."""
        if self.metric is None:
            return latents.new_zeros((), dtype=torch.float32)
        return self.metric(latents, labels)

    def total(self, latents: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """Both together: (B, D), (B, K), (B,) -> scalar."""
        return self.classification(logits, labels) + self(latents, labels)


def check_method(method: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """The method's parameters with their defaults filled in; for unknown ones an error names the nearest."""
    if method not in METHODS:
        raise CkfrError(f"There is no method {method!r}; expected one of {_list(METHODS, method)}")
    for name in parameters:
        if name not in METHODS[method]:
            known = METHODS[method]
            expected = f"expected one of {_list(known, name)}" if known else "it takes none."
            raise CkfrError(f"{method} has no parameter {name!r}; {expected}")
    return {**METHODS[method], **parameters}


def make_loss(
    method: str,
    hierarchy: Hierarchy,
    *,
    embed_dim: int | None = None,
    knowledge_scale: float = 0.1,
    knowledge: Any = None,
    **parameters: Any,
) -> Objective:
    """The objective of one method.

    Args:
        method: one of `METHODS`, which holds the parameters of each with their defaults.
        hierarchy: of the classes, in label order.
        embed_dim: D of the latents; needed by "proxy-anchor" only.
        knowledge: (K, K) distances for "ckfr", times ``knowledge_scale``; the tree's path distances if None.

    Raises:
        CkfrError: for an unknown method or parameter, or a value out of range.

    Example:
        >>> tree = Hierarchy.from_nested({"thing": {"cat": ["lion", "tiger"], "pan": None}})
        >>> logits, labels = torch.zeros(2, 3), torch.tensor([0, 2])
        >>> round(float(make_loss("hxe", tree, alpha=0).total(torch.zeros(2, 4), logits, labels)), 4)
        1.0986
    """
    given = check_method(method, parameters)
    check_number("knowledge_scale", knowledge_scale, 0, above=True)
    distances = hierarchy.distances() if knowledge is None else knowledge
    scaled = knowledge_scale * check_distances(distances, hierarchy.classes)
    if method == "ckfr":
        return Objective(CrossEntropy(), AlignedTripletLoss(distances=scaled, **given))
    if method == "soft-labels":
        return Objective(SoftLabels(hierarchy, **given))
    if method == "hxe":
        return Objective(HierarchicalCrossEntropy(hierarchy, **given))
    if method == "proxy-anchor":
        if embed_dim is None:
            raise CkfrError("proxy-anchor needs embed_dim, the size of the latents.")
        return Objective(CrossEntropy(), ProxyAnchor(len(hierarchy), embed_dim, **given))
    return Objective(CrossEntropy())


def _at_least_float(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _list(known: Any, wrong: str) -> str:
    near = difflib.get_close_matches(wrong, known, n=1)
    return ", ".join(known) + "." + (f" Did you mean {near[0]!r}?" if near else "")

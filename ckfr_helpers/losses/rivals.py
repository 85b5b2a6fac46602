"""Losses to compare the aligned triplet loss with, all behind one call.

    objective = make_loss("hxe", hierarchy, alpha=0.2)
    loss = objective.total(latents, logits, labels)  # (B, D), (B, K), (B,) -> scalar

Two of them change the cross-entropy itself (soft labels, HXE), two stand beside it and pull on the latents
(CKFR, Proxy-Anchor). Minimum-risk decisions, the baseline that needs no training, are
`metrics.minimum_risk_labels`.
"""

import difflib
import inspect
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ckfr_helpers.hierarchy.checks import check_distances
from ckfr_helpers.hierarchy.tree import Hierarchy, Measure
from ckfr_helpers.losses.triplet import AlignedTripletLoss
from ckfr_helpers.runtime import CkfrError, check_number

BASELINE = "cross-entropy"


class SoftLabels(nn.Module):
    """Cross-entropy against targets that give some credit to near classes.

    For a picture of class c the target of class k is softmax over k of −beta · d(k, c), with d the height of
    their lowest common ancestor divided by the largest such height, so that d lies in [0, 1]. A large beta
    is the usual one-hot target. Source: Bertinetto et al., "Making Better Mistakes" (CVPR 2020), section
    3.2; the authors try beta from 4 to 30.

    Args:
        hierarchy: of the K classes.
        beta: how sharp, zero or more; 0 gives every class the same target.

    Raises:
        CkfrError: for a negative or infinite beta.
    """

    def __init__(self, hierarchy: Hierarchy, beta: float = 10.0) -> None:
        super().__init__()
        check_number("beta", beta, 0)
        self.beta = float(beta)
        height = torch.from_numpy(hierarchy.distances("lca_height")).double()  # (K, K)
        targets = (-self.beta * height / height.max().clamp(min=1)).softmax(dim=1)
        self.register_buffer("targets", targets.float(), persistent=False)
        self.targets: Tensor

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(B, K), (B,) -> scalar mean."""
        _check_batch(logits, labels, len(self.targets))
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
    by one constant, which Adam does not see and which is left out here.

    Args:
        hierarchy: of the K classes; any tree, nodes with one child included.
        alpha: discount a level, zero or more (the authors try 0.1 to 0.9).
        level: "depth" counts h from the root; "height" counts it from the deepest leaf below, the other
            reading of the paper's h, which favours fine distinctions.

    Raises:
        CkfrError: for a negative or infinite alpha, or another level.
    """

    def __init__(
        self, hierarchy: Hierarchy, alpha: float = 0.1, level: Literal["depth", "height"] = "depth"
    ) -> None:
        super().__init__()
        check_number("alpha", alpha, 0)
        self.alpha = float(alpha)
        if level not in ("depth", "height"):
            raise CkfrError(f"level is {level!r}; expected 'depth' or 'height'.")
        tree = _Branchings(hierarchy, hierarchy.depth if level == "depth" else hierarchy.height)
        self.classes = len(hierarchy)
        self._rounds = len(tree.rounds)
        for number, (below, above, count) in enumerate(tree.rounds):
            self.register_buffer(f"below{number}", torch.tensor(below), persistent=False)
            self.register_buffer(f"above{number}", torch.tensor(above), persistent=False)
            setattr(self, f"count{number}", count)
        weights = torch.exp(-self.alpha * torch.from_numpy(tree.levels))  # (K, L) float64
        weights = torch.where(torch.from_numpy(tree.paths == tree.ends), 0.0, weights)
        self.register_buffer("paths", torch.from_numpy(tree.paths), persistent=False)
        self.register_buffer("ends", torch.from_numpy(tree.ends), persistent=False)
        self.register_buffer("weights", weights.float(), persistent=False)
        self.paths: Tensor
        self.ends: Tensor
        self.weights: Tensor

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(B, K), (B,) -> scalar mean."""
        _check_batch(logits, labels, self.classes)
        with torch.autocast(logits.device.type, enabled=False):
            table = _at_least_float(logits).log_softmax(dim=1)  # (B, K), then one column a branching
            for number in range(self._rounds):
                below, above = (getattr(self, f"{name}{number}") for name in ("below", "above"))
                summed = _segment_logsumexp(table[:, below], above, getattr(self, f"count{number}"))
                table = torch.cat([table, summed], dim=1)
            conditional = table.gather(1, self.paths[labels]) - table.gather(1, self.ends[labels])  # (B, L)
            return -(conditional * self.weights[labels].to(table.dtype)).sum(dim=1).mean()

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, classes={self.classes}"


class _Branchings:
    """A tree as index arrays: columns 0 … K−1 are the leaves, one more for every node that branches.

    A node with one child has its child's probability, so it needs no column, and the step to it costs
    nothing. Of such a chain only its top counts: there the branching above was decided.

    Attributes:
        rounds: (columns of the children, which new column each adds to, number of new columns), in an
            order in which children come before their parents.
        paths, ends: (K, L) int64 columns: for every step on the way from a leaf to the root, where it
            starts and where it ends; padded with steps from the root to itself.
        levels: (K, L) float64: h of the topmost node of the step's chain.
    """

    def __init__(self, hierarchy: Hierarchy, level: Callable[[str], int]) -> None:
        children = hierarchy.children
        column = {name: label for label, name in enumerate(hierarchy.classes)}
        branching = [node for node in hierarchy.nodes if len(children.get(node, ())) > 1]
        kept = {*column, *branching}

        def first_kept(node: str) -> str:
            while node not in kept:
                (node,) = children[node]
            return node

        height = dict.fromkeys(column, 0)
        for node in reversed(branching):  # children before parents
            height[node] = 1 + max(height[first_kept(child)] for child in children[node])
        self.rounds: list[tuple[list[int], list[int], int]] = []
        for rank in range(1, max(height.values()) + 1):
            below: list[int] = []
            above: list[int] = []
            nodes = [node for node in branching if height[node] == rank]
            for place, node in enumerate(nodes):
                below += [column[first_kept(child)] for child in children[node]]
                above += [place] * len(children[node])
            column |= {node: len(column) + place for place, node in enumerate(nodes)}
            self.rounds.append((below, above, len(nodes)))
        top = column[first_kept(hierarchy.root)]
        steps = [self._steps(hierarchy, leaf, kept, column, level) for leaf in hierarchy.classes]
        longest = max(1, *map(len, steps))
        padded = [own + [(top, top, 0)] * (longest - len(own)) for own in steps]
        self.paths = np.array([[start for start, _, _ in own] for own in padded], dtype=np.int64)
        self.ends = np.array([[end for _, end, _ in own] for own in padded], dtype=np.int64)
        self.levels = np.array([[h for _, _, h in own] for own in padded], dtype=np.float64)

    @staticmethod
    def _steps(
        hierarchy: Hierarchy, leaf: str, kept: set[str], column: dict[str, int], level: Callable[[str], int]
    ) -> list[tuple[int, int, int]]:
        steps, start, top = [], leaf, leaf
        for node in hierarchy.path_to_root(leaf)[1:]:
            if node in kept:
                steps.append((column[start], column[node], level(top)))
                start = node
            top = node
        return steps


def _segment_logsumexp(values: Tensor, segment: Tensor, count: int) -> Tensor:
    """log Σ exp over the columns of each segment: (B, E) values, (E,) segment numbers -> (B, count)."""
    where = segment.expand_as(values)
    largest = values.detach().new_full((len(values), count), -torch.inf)
    largest = largest.scatter_reduce(1, where, values.detach(), "amax")
    shifted = (values - largest.gather(1, where)).exp()
    return largest + torch.zeros_like(largest).scatter_add(1, where, shifted).log()


class ProxyAnchor(nn.Module):
    """Proxy-Anchor beside the cross-entropy: one learnt point a class, latents drawn to their own.

    A metric loss that knows the classes but not the tree, so it shows what can be had without one.
    It is pytorch-metric-learning's. Source: Kim et al., "Proxy Anchor Loss for Deep Metric Learning" (CVPR
    2020).

    Args:
        classes: K.
        embed_dim: D of the latents.
        weight: of the term beside the cross-entropy.
        margin, scale: the paper's delta and alpha.
        proxy_rate: how much faster proxies move than the network. The authors' proxies learn at 1e-2; the
            default gives that beside a tail trained at 1e-3.

    Raises:
        CkfrError: if pytorch-metric-learning is not installed, or a number is out of range.
    """

    def __init__(
        self,
        classes: int,
        embed_dim: int,
        weight: float = 1.0,
        margin: float = 0.1,
        scale: float = 32.0,
        proxy_rate: float = 10.0,
    ) -> None:
        super().__init__()
        try:
            from pytorch_metric_learning.losses import ProxyAnchorLoss
        except ImportError as error:
            raise CkfrError(
                "The method proxy-anchor needs the package pytorch-metric-learning, which is not installed; "
                "`pip install pytorch-metric-learning` brings it."
            ) from error
        check_number("weight", weight, 0)
        check_number("margin", margin, 0)
        check_number("scale", scale, 0, above=True)
        check_number("proxy_rate", proxy_rate, 0, above=True)
        self.alpha = float(weight)
        self.loss = ProxyAnchorLoss(classes, embed_dim, margin=margin, alpha=scale)
        # Adam moves every parameter by about the learning rate, whatever the gradient's size: a proxy
        # stored divided by `proxy_rate` moves that much faster, in any loop, without a second optimiser.
        nn.utils.parametrize.register_parametrization(self.loss, "proxies", _Times(proxy_rate))

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """(B, D), (B,) -> scalar, already multiplied by ``weight``."""
        with torch.autocast(latents.device.type, enabled=False):
            return self.alpha * self.loss(latents.to(self.loss.proxies.dtype), labels)


class _Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, stored: Tensor) -> Tensor:
        return stored * self.factor

    def right_inverse(self, wanted: Tensor) -> Tensor:
        return wanted / self.factor


class CrossEntropy(nn.Module):
    """Plain cross-entropy: (B, K), (B,) -> scalar mean."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(_at_least_float(logits), labels)


class Objective(nn.Module):
    """All that a step minimises: a loss of the logits plus a term on the latents.

    The two stay apart, as `training.step.gradients` takes them: of several processes each may take its own
    mean over pictures, while a term on pairs or triplets needs the latents of all.

    Args:
        classification: (B, K), (B,) -> scalar.
        metric: (B, D), (B,) -> scalar; None for no such term. It may have parameters to train.
        distances: (K, K) knowledge distances, scaled, as `losses.AlignedTripletLoss` keeps them.

    Attributes:
        classification, metric, distances: as given.
        alpha: weight of the metric term; 0 where there is none.
    """

    def __init__(self, classification: nn.Module, metric: nn.Module | None, distances: Any) -> None:
        super().__init__()
        self.classification = classification
        self.metric = metric
        self.alpha = 0.0 if metric is None else float(metric.alpha)  # type: ignore[arg-type]
        matrix = torch.as_tensor(distances, dtype=torch.float32).clone()
        self.register_buffer("distances", matrix, persistent=False)
        self.distances: Tensor

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """The metric term alone, weighted: (B, D), (B,) -> scalar."""
        if self.metric is None:
            return latents.new_zeros((), dtype=torch.float32)
        return self.metric(latents, labels)

    def total(self, latents: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """Both together: (B, D), (B, K), (B,) -> scalar."""
        return self.classification(logits, labels) + self(latents, labels)


# What each method takes, with its default; the grid of a study and `--method-option` are held to it.
METHODS: dict[str, dict[str, Any]] = {
    BASELINE: {},
    "ckfr": {"alpha": 20.0, "ell": 1.2},  # the original demo's
    **{
        name: {
            key: parameter.default
            for key, parameter in inspect.signature(loss).parameters.items()
            if parameter.default is not parameter.empty
        }
        for name, loss in (
            ("soft-labels", SoftLabels),
            ("hxe", HierarchicalCrossEntropy),
            ("proxy-anchor", ProxyAnchor),
        )
    },
}


def check_method(method: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """The method's parameters with their defaults filled in.

    Raises:
        CkfrError: for a method or parameter that does not exist, naming the nearest that does.
    """
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
    measure: Measure = "path",
    knowledge_scale: float = 0.1,
    knowledge: Any = None,
    **parameters: Any,
) -> Objective:
    """The objective of one method.

    Args:
        method: "cross-entropy", "ckfr", "soft-labels", "hxe" or "proxy-anchor".
        hierarchy: of the classes, in label order.
        embed_dim: D of the latents; needed by "proxy-anchor" only.
        measure: knowledge distance of "ckfr".
        knowledge_scale: factor on it.
        knowledge: (K, K) unscaled distances to use in place of ``measure``.
        parameters: ckfr: alpha, ell. soft-labels: beta. hxe: alpha, level. proxy-anchor: weight, margin,
            scale, proxy_rate. Defaults are in `METHODS`.

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
    distances = (
        hierarchy.distances(measure) if knowledge is None else check_distances(knowledge, hierarchy.classes)
    )
    scaled = knowledge_scale * distances
    classification: nn.Module = CrossEntropy()
    metric: nn.Module | None = None
    if method == "ckfr":
        metric = AlignedTripletLoss(given["alpha"], given["ell"], scaled)
    elif method == "soft-labels":
        classification = SoftLabels(hierarchy, **given)
    elif method == "hxe":
        classification = HierarchicalCrossEntropy(hierarchy, **given)
    elif method == "proxy-anchor":
        if embed_dim is None:
            raise CkfrError("proxy-anchor needs embed_dim, the size of the latents.")
        metric = ProxyAnchor(len(hierarchy), embed_dim, **given)
    return Objective(classification, metric, scaled)


def _at_least_float(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _check_batch(logits: Tensor, labels: Tensor, classes: int) -> None:
    if logits.ndim != 2 or logits.shape[1] != classes or labels.shape != logits.shape[:1]:
        raise CkfrError(
            f"Logits have shape {tuple(logits.shape)} and labels {tuple(labels.shape)}; "
            f"expected (B, {classes}) and (B,)."
        )


def _list(known: Any, wrong: str) -> str:
    near = difflib.get_close_matches(wrong, known, n=1)
    return ", ".join(known) + "." + (f" Did you mean {near[0]!r}?" if near else "")

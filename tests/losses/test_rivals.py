"""Every loss to compare with, against the formula walked by hand, and what must hold for any tree."""

import itertools
import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ckfr_helpers.hierarchy import Hierarchy
from ckfr_helpers.losses import AlignedTripletLoss
from ckfr_helpers.losses.rivals import (
    METHODS,
    HierarchicalCrossEntropy,
    ProxyAnchor,
    SoftLabels,
    make_loss,
)
from ckfr_helpers.runtime import CkfrError

# Branchings of two and three, a class beside a group, and chains of one child above a leaf, in the middle
# and above the first branching.
TREE = Hierarchy.from_nested(
    {
        "entity": {
            "thing": {
                "animal": {
                    "cat": {"wild cat": ["lion", "tiger"]},
                    "dog": {"hound": ["beagle"]},
                    "fish": None,
                },
                "tool": {"pan": {"wok": ["steel wok"]}, "saw": ["handsaw"]},
            }
        }
    }
)


@st.composite
def trees(draw) -> Hierarchy:
    """Any shape: every new node hangs below an earlier one; what ends up without children is a class."""
    size = draw(st.integers(2, 14))
    parents = [draw(st.integers(0, node - 1)) for node in range(1, size)]
    pairs = [(f"n{above}", f"n{below}") for below, above in enumerate(parents, start=1)]
    leaves = [f"n{node}" for node in range(1, size) if node not in parents]
    return Hierarchy.from_pairs(pairs, draw(st.permutations(leaves)))


def batch(classes: int, size: int = 9, features: int = 5, seed: int = 0, spread: float = 3.0):
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(size, features, generator=generator, dtype=torch.float64)
    logits = spread * torch.randn(size, classes, generator=generator, dtype=torch.float64)
    return latents, logits, torch.randint(classes, (size,), generator=generator)


def walked_hxe(tree: Hierarchy, logits: torch.Tensor, labels: torch.Tensor, alpha: float) -> float:
    """The paper's sum, one picture and one edge at a time, on probabilities."""
    below = {node: [leaf for leaf in tree.classes if node in tree.path_to_root(leaf)] for node in tree.nodes}
    total = 0.0
    for row, label in zip(logits.numpy(), labels.tolist(), strict=True):
        chance = np.exp(row - row.max())
        chance /= chance.sum()
        p = {node: sum(chance[tree.label(leaf)] for leaf in below[node]) for node in tree.nodes}
        path = tree.path_to_root(tree.classes[label])
        for node, parent in itertools.pairwise(path):
            total -= math.exp(-alpha * (len(tree.path_to_root(node)) - 1)) * math.log(p[node] / p[parent])
    return total / len(labels)


@settings(max_examples=30, deadline=None)
@given(tree=trees(), seed=st.integers(0, 999), alpha=st.floats(0, 1.5))
def test_hxe_is_the_walk_on_any_tree(tree, seed, alpha):
    _, logits, labels = batch(len(tree), size=4, seed=seed)
    value = HierarchicalCrossEntropy(tree, alpha)(logits, labels)
    expected = walked_hxe(tree, logits, labels, alpha)
    assert float(value) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(tree=trees(), seed=st.integers(0, 999))
def test_hxe_without_discount_is_cross_entropy_on_any_tree(tree, seed):
    _, logits, labels = batch(len(tree), seed=seed)
    mine, plain = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    value = HierarchicalCrossEntropy(tree, 0.0)(mine, labels)
    expected = nn.functional.cross_entropy(plain, labels)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
    value.backward()
    expected.backward()
    torch.testing.assert_close(mine.grad, plain.grad, rtol=1e-9, atol=1e-12)


def hxe(alpha: float) -> HierarchicalCrossEntropy:
    return HierarchicalCrossEntropy(TREE, alpha)


def test_hxe_stays_finite_where_probabilities_underflow():
    logits = torch.full((2, len(TREE)), -1e4)
    logits[:, 0] = 1e4  # every other leaf has probability 0 in any floating point type
    logits.requires_grad_()
    labels = torch.tensor([TREE.label("handsaw"), 0])
    value = hxe(0.3)(logits, labels)
    value.backward()
    assert torch.isfinite(logits.grad).all()
    assert 1e3 < float(value.detach()) < float("inf")
    assert hxe(0.3)(logits[1:], labels[1:]) == 0


@pytest.mark.parametrize("beta", [0.0, 10.0])
def test_soft_labels_are_the_formula(beta):
    _, logits, labels = batch(len(TREE))
    heights = TREE.distances("lca_height").tolist()
    largest = max(map(max, heights))
    total = 0.0
    for row, label in zip(logits.numpy(), labels.tolist(), strict=True):
        credit = [math.exp(-beta * h / largest) for h in heights[label]]
        logs = row - row.max() - math.log(np.exp(row - row.max()).sum())
        total -= sum(c / sum(credit) * log for c, log in zip(credit, logs, strict=True))
    assert float(SoftLabels(TREE, beta)(logits, labels)) == pytest.approx(total / len(labels), rel=1e-6)


def test_proxies_move_ten_times_as_fast_as_the_network():
    latents, _, labels = batch(4)
    term = ProxyAnchor(4, 5)
    before = term.loss.proxies.detach().clone()
    optimizer = torch.optim.Adam(term.parameters(), lr=1e-3)
    term(latents.float(), labels).backward()
    optimizer.step()
    moved = (term.loss.proxies.detach() - before).abs()
    assert float(moved.median()) == pytest.approx(1e-2, rel=0.02)


@settings(max_examples=12, deadline=None)
@given(tree=trees(), seed=st.integers(0, 99), method=st.sampled_from(sorted(METHODS)))
def test_no_loss_depends_on_the_order_of_pictures_or_on_a_shift_of_the_logits(tree, seed, method):
    latents, logits, labels = batch(len(tree), seed=seed)
    torch.manual_seed(0)
    objective = make_loss(method, tree, embed_dim=5)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    value = objective.total(latents, logits, labels)
    close = {"rtol": 1e-6, "atol": 1e-6}
    torch.testing.assert_close(objective.total(latents[order], logits[order], labels[order]), value, **close)
    torch.testing.assert_close(objective.total(latents, logits + 7.5, labels), value, **close)
    assert value.item() >= 0


def test_cross_entropy_and_ckfr_are_what_they_always_were():
    latents, logits, labels = batch(len(TREE))
    plain = nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(make_loss("cross-entropy", TREE).total(latents, logits, labels), plain)
    term = AlignedTripletLoss(7.0, 1.5, 0.3 * TREE.distances("wu_palmer"))
    other = TREE.distances("wu_palmer")
    objective = make_loss("ckfr", TREE, knowledge=other, knowledge_scale=0.3, alpha=7.0, ell=1.5)
    torch.testing.assert_close(objective.total(latents, logits, labels), plain + term(latents, labels))
    torch.testing.assert_close(objective.metric.distances, term.distances)
    torch.testing.assert_close(objective(latents, labels), term(latents, labels))
    assert make_loss("hxe", TREE)(latents, labels) == 0
    assert make_loss("ckfr", TREE).metric.alpha == 20


@pytest.mark.parametrize(
    ("method", "parameters", "says"),
    [
        ("hxee", {}, "Did you mean 'hxe'"),
        ("hxe", {"alhpa": 1}, "Did you mean 'alpha'"),
        ("cross-entropy", {"alpha": 1}, "takes none"),
        ("hxe", {"alpha": -1}, "alpha is -1"),
        ("soft-labels", {"beta": float("inf")}, "beta is inf"),
        ("ckfr", {"ell": 0}, "ell is 0"),
    ],
)
def test_wrong_requests_are_told_in_one_sentence(method, parameters, says):
    with pytest.raises(CkfrError, match=says) as caught:
        make_loss(method, TREE, embed_dim=5, **parameters)
    assert "\n" not in str(caught.value)


def test_missing_embed_dim_and_package_are_told(monkeypatch):
    with pytest.raises(CkfrError, match="embed_dim"):
        make_loss("proxy-anchor", TREE)
    monkeypatch.setitem(sys.modules, "pytorch_metric_learning.losses", None)
    with pytest.raises(CkfrError, match="pip install pytorch-metric-learning"):
        make_loss("proxy-anchor", TREE, embed_dim=5)

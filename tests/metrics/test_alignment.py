"""The latent–tree correlation against SciPy, against latents that are a tree, and where it is not defined."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import pearsonr, spearmanr

from ckfr_helpers.hierarchy import Hierarchy
from ckfr_helpers.metrics import latent_tree_correlation
from ckfr_helpers.runtime import CkfrError

TREE = Hierarchy.from_nested(
    {"all": {"animal": {"cat": ["lion", "tiger"], "bird": ["gull", "crow"]}, "tool": ["saw", "pan"]}}
)
D = TREE.distances("path").astype(float)


@pytest.mark.parametrize("ell", [0.5, 1.2])
def test_it_is_scipys_over_pairs_of_class_means(ell):
    generator = np.random.default_rng(1)
    labels = generator.permutation(np.repeat(np.arange(6), [1, 2, 3, 9, 12, 13]))
    latents = generator.normal(size=(40, 7)) + 2 * generator.normal(size=(6, 7))[labels]
    means = np.stack([latents[labels == c].mean(0) for c in range(6)])
    apart, tree = pdist(means, "minkowski", p=ell) ** ell, D[np.triu_indices(6, 1)]
    found = latent_tree_correlation(latents, labels, D, ell)
    assert found["correlation"] == pytest.approx(pearsonr(apart, tree).statistic)
    assert found["correlation_spearman"] == pytest.approx(spearmanr(apart, tree).statistic)
    assert (ell == 1.2) == (found == latent_tree_correlation(latents, labels, D))


def test_labels_in_turn_are_as_good_as_shuffled_ones():
    """24 classes in turn: a stride over the samples would meet few of the classes, or one alone."""
    generator = np.random.default_rng(2)
    where = generator.normal(size=(24, 4))
    tree = np.abs(where[:, None] - where[None]).sum(-1)
    labels = np.arange(24 * 100) % 24
    latents = where[labels] + 0.1 * generator.normal(size=(2400, 4))
    order = generator.permutation(2400)
    in_turn = latent_tree_correlation(latents, labels, tree)
    assert in_turn == pytest.approx(latent_tree_correlation(latents[order], labels[order], tree))
    assert in_turn["correlation"] > 0.95


def test_latents_that_are_the_tree_correlate_perfectly():
    """Coordinates whose city-block distances are the path lengths: one axis an edge. Units do not matter."""
    nodes = [n for n in TREE.nodes if n != TREE.root]
    latents = np.array([[float(n in TREE.path_to_root(c)) for n in nodes] for c in TREE.classes])
    for scaled in (latents, 1e4 * latents + 7):
        found = latent_tree_correlation(scaled, np.arange(6), D, ell=1.0)
        assert list(found.values()) == pytest.approx([1, 1])


@pytest.mark.parametrize(
    ("latents", "labels", "tree"),
    [
        (np.ones((6, 2)), np.arange(6), D),  # all latents alike
        (np.random.default_rng(0).normal(size=(6, 2)), np.arange(6), 1 - np.eye(6)),  # all classes alike
        (np.random.default_rng(0).normal(size=(6, 2)), np.arange(6) % 2, D),  # one pair of classes
        (np.ones((3, 2)), np.zeros(3, int), D),  # one class
    ],
)
def test_what_does_not_vary_has_no_correlation(latents, labels, tree):
    assert np.isnan(list(latent_tree_correlation(latents, labels, tree).values())).all()


@pytest.mark.parametrize(
    ("latents", "labels", "tree", "sentence"),
    [
        (np.zeros((3, 2)), [0, 1], D, "3 latents beside 2 labels"),
        ([[0.0], [np.nan]], [0, 1], D, "Latents have a NaN in row 1"),
        ([[0.0], [np.inf], [1.0]], [0, 1, 2], D, "infinite"),
        (np.zeros((2, 2)), [0, 6], D, "expected 0 to 5"),
        (np.zeros((2, 2)), [0, 1], np.triu(D), "from class .* same in both directions"),
    ],
)
def test_wrong_input_gets_one_sentence(latents, labels, tree, sentence):
    with pytest.raises(CkfrError, match=sentence):
        latent_tree_correlation(latents, labels, tree)

"""Free points: the loss moves them where it should, the released line elsewhere, and both repeatably."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr

from ckfr_helpers.losses import latent_distances
from ckfr_helpers.losses.arrangement import (
    FRAMES,
    Setting,
    arrange,
    measure_alignment,
    offset_share,
    small_trees,
    uninformative_share,
)
from ckfr_helpers.runtime import CkfrError

TREE = small_trees()["balanced"].distances("path")
# The term alone, with a coordinate for every edge and more: an exact arrangement exists.
ROOMY = dict(cross_entropy=False, dimensions=16, steps=300, learning_rate=0.05)


def test_the_stated_term_finds_the_tree_and_the_released_line_does_not():
    stated = arrange(TREE, Setting(**ROOMY)).alignment
    released = arrange(TREE, Setting(term="released", sampled=True, **ROOMY)).alignment
    assert stated.pearson > 0.99
    assert stated.pearson_between > 0.99
    assert stated.same_to_different < 0.05  # its catch: classes collapse
    assert abs(released.pearson) < 0.4
    assert released.same_to_different > 0.8  # all pairs about equally far, of one class or of two


def test_alpha_brings_the_tree_into_the_plane():
    without, some = (arrange(TREE, Setting(alpha=alpha)) for alpha in (0.0, 20.0))
    assert without.accuracy == 1.0
    assert some.alignment.pearson > without.alignment.pearson + 0.2
    assert some.alignment.pearson_between > without.alignment.pearson_between + 0.4


def test_equal_settings_repeat_and_every_term_starts_alike():
    a, b = (arrange(TREE, Setting(steps=20)) for _ in range(2))
    np.testing.assert_array_equal(a.frames, b.frames)
    other = arrange(TREE, Setting(steps=20, term="released", sampled=True))
    np.testing.assert_array_equal(a.frames[0], other.frames[0])
    assert not np.allclose(a.latents, other.latents)
    assert not np.array_equal(a.frames[0], arrange(TREE, Setting(steps=20, seed=1)).frames[0])


def test_what_an_arrangement_holds():
    result = arrange(TREE, Setting(steps=40, per_class=2, dimensions=3, ell=2.0))
    size = 2 * len(TREE)
    assert result.frames.shape == (FRAMES, size, 3)
    assert result.labels.tolist() == [label for label in range(len(TREE)) for _ in range(2)]
    np.testing.assert_array_equal(result.knowledge, TREE[np.ix_(result.labels, result.labels)])
    # ell = 2: the mean squared difference of the standardised latents, written out.
    z = result.latents
    expected = ((z[:, None] - z[None]) ** 2).mean(-1)
    np.testing.assert_allclose(result.latent, expected, rtol=1e-4, atol=1e-5)
    assert z.mean() == pytest.approx(0, abs=1e-5)
    assert z.std(ddof=1) == pytest.approx(1, rel=1e-4)
    course = result.course()
    assert len(course) == len(result.frame_steps) == FRAMES
    assert (result.frame_steps[0], result.frame_steps[-1]) == (0, 40)
    assert course[0] == measure_alignment(result.start, result.knowledge)
    assert course[-1] == result.alignment


def test_alignment_against_scipy():
    generator = np.random.default_rng(4)
    latent, labels = generator.random((9, 9)), np.array([0, 0, 1, 1, 1, 2, 2, 2, 2])
    knowledge = np.array([[0.0, 1, 3], [1, 0, 2], [3, 2, 0]])[np.ix_(labels, labels)]
    pairs = list(itertools.combinations(range(9), 2))
    d, delta = np.array([latent[p] for p in pairs]), np.array([knowledge[p] for p in pairs])
    found = measure_alignment(latent, knowledge)
    assert found.pearson == pytest.approx(pearsonr(d, delta).statistic)
    assert found.pearson_between == pytest.approx(pearsonr(d[delta > 0], delta[delta > 0]).statistic)
    assert found.same_to_different == pytest.approx(d[delta == 0].mean() / d[delta > 0].mean())


@given(st.integers(2, 6), st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_uninformative_share_against_enumeration(classes, seed):
    matrix = np.random.default_rng(seed).integers(0, 3, (classes, classes)).astype(float)
    triples = itertools.product(range(classes), repeat=3)
    equal = [matrix[a, p] == matrix[a, n] for a, p, n in triples]
    assert uninformative_share(matrix) == pytest.approx(np.mean(equal))


def test_a_shared_offset_takes_the_variance_and_shrinks_every_distance():
    z = np.random.default_rng(0).normal(size=(50, 2))
    far = z + np.array([30, -30])
    assert offset_share(z) < 0.1
    assert offset_share(far) > 0.99
    near, shrunk = (latent_distances(torch.from_numpy(x)).mean() for x in (z, far))
    assert shrunk < near / 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(alpha=-1), "alpha"),
        (dict(ell=0), "ell"),
        (dict(term="other"), "term"),
        (dict(steps=0), "steps"),
        (dict(alpha=0, cross_entropy=False), "cross-entropy"),
    ],
)
def test_impossible_settings_are_named(options, message):
    with pytest.raises(CkfrError, match=message):
        Setting(**options)

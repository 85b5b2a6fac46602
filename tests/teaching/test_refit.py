"""The small model behind notebook 03's panel: what it fits, what it shows, and what it refuses."""

import dataclasses
import functools
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial import procrustes
from sklearn.linear_model import LogisticRegression

from ckfr_helpers import datasets
from ckfr_helpers.losses.arrangement import small_trees
from ckfr_helpers.metrics import hierarchical_metrics, latent_tree_correlation
from ckfr_helpers.teaching.plots.refit import plane
from ckfr_helpers.teaching.plots.style import use_style
from ckfr_helpers.teaching.refit import FrozenLatents, RefitSetting, photo_latents, refit
from ckfr_helpers.teaching.sliders.alpha_ell import refit_panel, refit_view

TREE = small_trees()["balanced"]


def clouds(per_class: int, seed: int, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """(8 · per_class, 20) points around eight centres that know nothing of the tree, and their labels."""
    centres = np.random.default_rng(5).normal(size=(8, 20))
    labels = np.arange(8).repeat(per_class)
    spread = np.random.default_rng(seed).normal(size=(len(labels), 20))
    return (centres[labels] + noise * spread).astype(np.float32), labels


@pytest.fixture(scope="module")
def frozen() -> FrozenLatents:
    use_style()
    return FrozenLatents(*clouds(12, 0), *clouds(10, 1), TREE)


def test_without_the_metric_term_it_is_a_linear_classifier(frozen):
    """Held-out accuracy beside scikit-learn's logistic regression on the same latents."""
    fit = refit(frozen, RefitSetting(alpha=0, steps=200))
    reference = LogisticRegression(max_iter=2000).fit(frozen.train, frozen.train_labels)
    assert abs(fit.scores["top1"] - reference.score(frozen.held_out, frozen.held_out_labels)) < 0.08


def test_scores_are_those_of_its_own_outputs(frozen):
    fit = refit(frozen, RefitSetting(alpha=2, ell=1.5, steps=30))
    expected = hierarchical_metrics(fit.logits, frozen.held_out_labels, TREE.distances("lca_height"))
    expected |= latent_tree_correlation(fit.latents, frozen.held_out_labels, TREE.distances("path"))
    assert fit.scores == expected
    assert fit.latents.shape == (80, 32)
    assert fit.logits.shape == (80, 8)


def test_alpha_makes_held_out_latents_follow_the_tree(frozen):
    without, with_it = (refit(frozen, RefitSetting(alpha=alpha)).scores["correlation"] for alpha in (0, 10))
    assert with_it > without + 0.2


def test_equal_settings_give_equal_fits_whatever_ran_before_and_seeds_differ(frozen):
    torch.manual_seed(1)
    first = refit(frozen, RefitSetting(alpha=1, steps=20))
    torch.rand(3)
    again = refit(frozen, RefitSetting(alpha=1, steps=20))
    other = refit(frozen, RefitSetting(alpha=1, steps=20, seed=1))
    np.testing.assert_array_equal(first.logits, again.logits)
    assert not np.allclose(first.logits, other.logits)


def test_the_held_out_split_has_no_say_in_the_fit(frozen):
    """Other held-out samples: the same model, so the same answers to the samples that both hold."""
    half = dataclasses.replace(
        frozen, held_out=frozen.held_out[::2], held_out_labels=frozen.held_out_labels[::2]
    )
    whole, part = (refit(each, RefitSetting(alpha=2, steps=20)) for each in (frozen, half))
    np.testing.assert_allclose(whole.logits[::2], part.logits, atol=1e-5)


@pytest.mark.photos
def test_photo_latents_come_from_two_splits_with_other_photographs(monkeypatch):
    fewer_places = functools.partial(datasets.open_source, instances=2)
    monkeypatch.setattr(datasets, "open_source", fewer_places)
    frozen = photo_latents(1, 1, size=64)
    assert frozen.train.shape == frozen.held_out.shape == (24, 1280)
    for labels in (frozen.train_labels, frozen.held_out_labels):
        assert sorted(labels) == list(range(24))
    assert np.isfinite(frozen.train).all()
    assert not np.allclose(frozen.train, frozen.held_out)


# The picture


def test_the_plane_keeps_all_of_what_lies_in_a_plane():
    """Class means that do lie in a plane come back as they were, but for a turn and a scale."""
    rng = np.random.default_rng(0)
    flat, basis = rng.normal(size=(8, 2)), np.linalg.qr(rng.normal(size=(20, 2)))[0]
    labels = np.arange(8).repeat(4)
    latents = 3 * flat[labels] @ basis.T + 7
    points, means, share = plane(latents, labels, TREE.distances("path"))
    assert share == pytest.approx(1)
    np.testing.assert_allclose(points, means[labels], atol=1e-8)
    *_, disparity = procrustes(flat, means)
    assert disparity < 1e-12
    assert np.square(means).sum(axis=1).mean() == pytest.approx(1)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100))
def test_the_plane_does_not_depend_on_how_latents_are_turned_or_scaled(seed, scale):
    rng = np.random.default_rng(seed)
    latents, labels = rng.normal(size=(24, 5)), np.arange(8).repeat(3)
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    distances = TREE.distances("path")
    here, there = plane(latents, labels, distances), plane(scale * latents @ turn + 3, labels, distances)
    np.testing.assert_allclose(here[1], there[1], atol=1e-5)
    np.testing.assert_allclose(here[0], there[0], atol=1e-5)
    assert here[2] == pytest.approx(there[2])


def test_view_and_panel_show_the_fit_and_the_one_before(frozen):
    first, second = (refit(frozen, RefitSetting(alpha=alpha, steps=10)) for alpha in (0, 5))
    alone, both = refit_view(frozen, first), refit_view(frozen, second, first)
    assert Image.open(io.BytesIO(alone.picture)).size == Image.open(io.BytesIO(both.picture)).size
    assert "before" not in alone.numbers
    now, before = both.numbers.splitlines()
    assert now.startswith("now     alpha 5 ")
    assert before.startswith("before  alpha 0 ")
    assert f"accuracy {first.scores['top1']:.1%} | mistake" in before


def test_the_panel_refits_and_keeps_the_setting_before(frozen):
    panel = refit_panel(frozen, steps=10)
    first = panel.view.numbers
    for name, value, said in (("alpha", 20, "alpha 20 "), ("ell", 0.8, "ell 0.8"), ("start", 3, "start 3")):
        was = panel.view
        panel.controls[name].value = value
        panel.wait(timeout=60)
        now, before = panel.view.numbers.splitlines()
        assert said in now
        assert before.removeprefix("before  ") == was.numbers.splitlines()[0].removeprefix("now     ")
        assert panel.view.picture != was.picture
    values = {name: control.value for name, control in panel.controls.items()}
    assert values == {"alpha": 20, "ell": 0.8, "start": 3}
    expected = refit(frozen, RefitSetting(alpha=20, ell=0.8, seed=2, steps=10)).scores
    assert f"{expected['top1']:.1%} | mistake severity {expected['mistake_severity']:.2f}" in now
    assert first != now

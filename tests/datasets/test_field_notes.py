"""The density is a density, the notes follow it, and shuffled or lost notes are what they are called."""

import math

import numpy as np
import pytest
import torch
from flat_colours import TREE, FlatColours
from scipy import stats

from ckfr_helpers.datasets.field_notes import FieldNotes
from ckfr_helpers.datasets.location import on_sphere
from ckfr_helpers.datasets.noted import Noted
from ckfr_helpers.hierarchy import Hierarchy
from ckfr_helpers.runtime import CkfrError

NAN = float("nan")
LABELS = np.arange(4000) % 4


def test_the_density_integrates_to_one_and_notes_follow_it():
    world = FieldNotes(TREE, kappa=6.0, season_kappa=2.0, seed=3)
    draw = np.random.default_rng(0)
    z, east, time = draw.random((3, 40000))
    uniform = (360 * east - 180, np.rad2deg(np.arcsin(2 * z - 1)), time)
    density = world.log_density(*uniform).exp()
    assert torch.allclose(density.mean(0), torch.ones(4, dtype=torch.float64), atol=0.05)
    # The mean log-density of drawn notes is minus the entropy; importance sampling gives it too.
    notes = world.draw(LABELS)
    found = world.log_density(*notes)[np.arange(4000), LABELS].mean()
    assert float(found) == pytest.approx(float((density * density.log()).mean()), rel=0.05)


def test_places_and_dates_have_their_distributions():
    world = FieldNotes(TREE, kappa=15.0, season_kappa=3.0, homes=1)
    notes = world.draw(np.zeros(3000, int))
    points = on_sphere(*(torch.from_numpy(column) for column in notes[:2])).numpy()
    cosine = points @ world.centres[0, 0]
    # On the sphere exp(kappa (cosine - 1)) is uniform between exp(-2 kappa) and 1.
    assert stats.kstest(np.exp(15 * (cosine - 1)), stats.uniform().cdf).pvalue > 0.01
    mean = points.mean(0)
    assert mean @ world.centres[0, 0] / np.linalg.norm(mean) > 0.999
    angle = 2 * np.pi * ((notes.date - world.peaks[0] + 0.5) % 1 - 0.5)
    assert stats.kstest(angle, stats.vonmises(3.0).cdf).pvalue > 0.01
    assert ((notes.date >= 0) & (notes.date < 1)).all()


def test_the_posterior_is_bayes_and_integrates_out_what_is_missing():
    world = FieldNotes(TREE, seed=1)
    columns = ([10.0, NAN, 10.0, NAN], [20.0, NAN, 20.0, 3.0], [0.4, 0.4, NAN, NAN])
    density = world.log_density(*columns)
    assert torch.allclose(density[0], density[1] + density[2])
    assert not density[3].any()
    posterior = world.log_probabilities(*columns)
    assert torch.allclose(posterior[:3], density[:3] - density[:3].logsumexp(1, keepdim=True))
    assert posterior[3].isnan().all()


def test_more_kappa_tells_more():
    right = []
    for kappa in (0.01, 5.0, 500.0):
        world = FieldNotes(TREE, kappa=kappa, season_kappa=0.0)
        answers = world.log_probabilities(*world.draw(LABELS)).argmax(1).numpy()
        right.append((answers == LABELS).mean())
    assert right[0] < 0.32 < right[1] < right[2]
    assert right[2] > 0.99


def test_near_classes_live_near_in_the_tree_layout_and_homes_stay_uniform():
    # Height 2 at the root, 1 above two leaves: correlation 0 and a half.
    sisters, strangers = [], []
    for seed in range(300):
        centres = FieldNotes(TREE, homes=1, layout="tree", seed=seed).centres[:, 0]
        sisters.append(centres[0] @ centres[1])
        strangers.append(centres[0] @ centres[2])
    assert np.mean(sisters) > 0.3
    assert abs(np.mean(strangers)) < 0.15
    latitudes = [FieldNotes(TREE, homes=1, layout="tree", seed=seed).centres[0, 0, 2] for seed in range(300)]
    assert stats.kstest(latitudes, stats.uniform(-1, 2).cdf).pvalue > 0.01


def test_the_world_is_the_seeds_and_a_longer_set_begins_with_the_shorter():
    one, same, other = (FieldNotes(TREE, seed=seed) for seed in (5, 5, 6))
    assert np.array_equal(one.centres, same.centres)
    assert not np.array_equal(one.centres, other.centres)
    short, long = one.draw(LABELS[:50]), same.draw(LABELS[:80])
    assert all(np.array_equal(a, b[:50]) for a, b in zip(short, long, strict=True))
    assert not np.array_equal(short.date, one.draw(LABELS[:50], seed=1).date)


def test_shuffled_and_lost_notes():
    world = FieldNotes(TREE, kappa=200.0)
    plain = world.draw(LABELS)
    within, over = (world.draw(LABELS, shuffle=how) for how in ("class", "all"))
    for label in range(4):
        rows = label == LABELS
        assert np.array_equal(np.sort(within.date[rows]), np.sort(plain.date[rows]))
        assert (within.date[rows] != plain.date[rows]).mean() > 0.9
    for notes, low, high in ((plain, 0.95, 1), (within, 0.95, 1), (over, 0.2, 0.3)):
        answers = world.log_probabilities(*notes).argmax(1).numpy()
        assert low <= (answers == LABELS).mean() <= high
    # A note goes as a whole: date moves with its place.
    pairs = set(zip(plain.longitude, plain.date, strict=True))
    assert set(zip(over.longitude, over.date, strict=True)) == pairs
    lost = world.draw(LABELS, missing=0.3)
    gone = np.isnan(lost.date)
    assert gone.mean() == pytest.approx(0.3, abs=0.03)
    assert np.array_equal(gone, np.isnan(lost.longitude))
    assert np.array_equal(lost.latitude[~gone], plain.latitude[~gone])


def test_pictures_keep_all_and_get_a_note():
    source, world = FlatColours(per_class=3), FieldNotes(TREE)
    noted = Noted(source, world, missing=0.5)
    assert len(noted) == 12
    for i in range(12):
        (image, target), (own, before) = noted[i], source[i]
        assert torch.equal(image, own)
        assert {key: target[key] for key in before} == before
        for name, value in target["metadata"].items():
            np.testing.assert_equal(value, getattr(noted.notes, name)[i])
    assert (
        sum(math.isnan(target["metadata"]["date"]) for _, target in noted) == np.isnan(noted.notes.date).sum()
    )
    assert noted.fingerprint() != Noted(source, world).fingerprint()
    test = Noted(FlatColours("test", per_class=3), world)
    assert not np.array_equal(test.notes.date, Noted(source, world).notes.date)


def test_bad_options_are_one_sentence():
    with pytest.raises(CkfrError, match="layout is 'ring'; expected 'random' or 'tree'"):
        FieldNotes(TREE, layout="ring")
    with pytest.raises(CkfrError, match="shuffle is 'some'"):
        FieldNotes(TREE).draw([0], shuffle="some")
    with pytest.raises(CkfrError, match="Labels run from 0 to 4; expected 0 to 3"):
        FieldNotes(TREE).draw([0, 4])
    with pytest.raises(CkfrError, match="kappa is 0"):
        FieldNotes(Hierarchy.from_nested({"r": ["a", "b"]}), kappa=0)

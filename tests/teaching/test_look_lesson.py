"""Notebook 04's networks and panel, on drawn cut-outs, untrained where training adds nothing to a test."""

import io

import numpy as np
import pytest
import torch
from drawn_scenes import TREE, cutouts
from PIL import Image

from ckfr_helpers import datasets, localization
from ckfr_helpers.attribution import cam
from ckfr_helpers.datasets.scenes.single import PhotoScenes
from ckfr_helpers.runtime import CkfrError
from ckfr_helpers.teaching import look_lesson
from ckfr_helpers.teaching.sliders.look import look_panel
from ckfr_helpers.training import tails


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    """The real function, with small scenes of drawn cut-outs in place of the photographs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CKFR_DATA", str(tmp_path_factory.mktemp("data")))

        def open_source(name, split, root=None, size=64, scenes=None, seed=0, background_bias=0.0):
            assert name == "photos"
            return PhotoScenes(
                split, size, scenes, seed, background_bias, cutouts=cutouts(), hierarchy=TREE, instances=2
            )

        patch.setattr(datasets, "open_source", open_source)
        patch.setattr(look_lesson, "SIZE", 64)
        patch.setattr(tails, "num_workers", lambda: 0)  # so few scenes are not worth a process
        yield look_lesson.run_look_lesson((0, 20), bias=0.5, scenes=4)


def test_every_network_is_looked_at_on_the_same_scenes(lesson):
    assert set(lesson.models) == {0.0, 20.0}
    for watched in lesson.models.values():
        assert watched.test.indices.tolist() == list(range(len(lesson.scenes)))
        np.testing.assert_array_equal(watched.test.labels, lesson.scenes.labels)
        assert watched.scores["drop"] == pytest.approx(watched.scores["usual"] - watched.scores["foreign"])
        assert 0 <= watched.threshold < 1
    first, second = (lesson.models[alpha].tail.classifier.weight for alpha in (0.0, 20.0))
    assert not torch.equal(first, second)


def test_maps_and_answers_are_those_of_the_whole_network(lesson):
    whole, picked = lesson.whole(20.0), [0, 4, 7]
    pictures = lesson.pictures(picked)
    with torch.no_grad():
        answers = whole(pictures).argmax(1).numpy()
    np.testing.assert_array_equal(answers, lesson.models[20.0].test.predicted[picked])
    labels = torch.as_tensor(lesson.scenes.labels[picked])
    maps = cam.class_activation_maps(whole, pictures, labels, raw=True)
    torch.testing.assert_close(
        maps, lesson.maps(20.0, picked), rtol=0.02, atol=0.02 * float(maps.abs().max())
    )


def test_gains_compare_each_network_at_its_own_threshold(lesson):
    for i, gain in enumerate(lesson.gains(20.0)):
        box = lesson.scenes[i][1]["boxes"].numpy()
        ious = []
        for alpha in (20.0, 0.0):
            scores = cam.score_maps(lesson.maps(alpha, [i]), (64, 64)).numpy()[0]
            found = localization.boxes_from_map(scores, lesson.models[alpha].threshold)
            ious.append(localization.iou_matrix(found, box).max())
        assert gain == pytest.approx(ious[0] - ious[1])


def test_the_panel_follows_threshold_blend_and_alpha_on_validation_scenes(lesson):
    panel = look_panel(lesson, [0, 1, 2])
    view = panel.compute(0.4, 0.6, 0.0)
    picture = Image.open(io.BytesIO(view.picture))
    assert picture.format == "JPEG"
    assert picture.width > 400
    maps = cam.score_maps(lesson.maps(0.0, [0, 1, 2], "val"), (64, 64)).numpy()
    for i, scores in enumerate(maps):
        true = lesson.sources["val"][i][1]["boxes"].numpy()
        iou = localization.iou_matrix(localization.boxes_from_map(scores, 0.4), true).max()
        assert f"IoU {iou:.2f}" in view.alt
    share = lesson.models[0.0].val.largest.at(0.4).mean()
    assert f"{share:.0%} of all {len(lesson.sources['val'])} validation scenes" in view.numbers
    others = (panel.compute(*values) for values in ((0.4, 0.6, 20.0), (0.8, 0.6, 0.0), (0.4, 0.1, 0.0)))
    assert all(other.picture != view.picture for other in others)
    static = panel.static()
    assert Image.open(io.BytesIO(static.picture)).format == "JPEG"
    assert "alpha 20" in static.numbers
    assert "thresholds 0.2" in static.alt


def test_the_panel_moves(lesson):
    panel = look_panel(lesson, [0, 1])
    before = panel.view
    panel.controls["alpha"].value = 20.0
    panel.wait(60)
    assert panel.view.numbers.startswith("alpha 20")
    assert panel.view.picture != before.picture
    panel.controls["threshold"].value = 0.9
    panel.wait(60)
    assert "threshold 0.90" in panel.view.numbers


def test_an_unknown_background_bias_is_refused(lesson):
    with pytest.raises(CkfrError, match="background_bias"):
        look_lesson.run_look_lesson((0,), bias=1.5, scenes=4)

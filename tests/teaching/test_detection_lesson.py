"""Notebook 06's scenes, teachers and students, on drawn cut-outs and small pictures."""

import functools

import numpy as np
import pytest
import torch
from drawn_scenes import TREE, coloured_cutouts

from ckfr_helpers import datasets
from ckfr_helpers.attribution.boxes import iou_matrix
from ckfr_helpers.attribution.cam import class_activation_maps
from ckfr_helpers.datasets.loading import CachedLoader
from ckfr_helpers.datasets.scenes.several import SeveralScenes
from ckfr_helpers.detection.head import TwoStream, image_loss
from ckfr_helpers.losses import aligned_triplet_loss, latent_distances
from ckfr_helpers.metrics import multilabel_metrics
from ckfr_helpers.teaching import detection_lesson, detection_scenes, detection_training
from ckfr_helpers.teaching.detection_lesson import label_scores, pairing_scores
from ckfr_helpers.teaching.detection_training import AlignedDetectorTask, few_regions, region_scores, said

SIDES = (96, 64)


def drawn(name, split, pairing=0.0, **options):
    assert name == "several-photos"
    return SeveralScenes(
        split, pairing=pairing, cutouts=coloured_cutouts(), hierarchy=TREE, instances=2, **options
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The real functions, with a few small scenes of drawn cut-outs in place of the photographs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CKFR_DATA", str(tmp_path_factory.mktemp("data")))
        patch.setattr(datasets, "open_source", drawn)
        patch.setattr(detection_scenes, "OBJECTS", (1, 2))
        few = {"train": 32, "val": 16, "test": 16}

        def see(network, scenes, seed):
            return detection_scenes.see(network, few, seed, sides=SIDES, workers=0)

        patch.setattr(detection_lesson, "see", see)
        options = {"train_detector": (6, 0.01), "train_plain": (2, 0.01), "train_supervised": (12, 0.01)}
        for name, (epochs, lr) in {**options, "train_student": (1, 1e-3)}.items():
            shorter = functools.partial(getattr(detection_training, name), epochs=epochs, lr=lr)
            patch.setattr(detection_lesson, name, shorter)
        yield


@pytest.fixture(scope="module")
def lesson(small):
    return detection_lesson.run_detection_lesson()


@pytest.fixture(scope="module")
def unseen(lesson):
    return lesson.seen["test"]


def test_what_is_cached_is_what_the_network_sees(lesson, unseen):
    images, targets = zip(*(unseen.source[i] for i in (0, 5)), strict=True)
    with torch.no_grad():
        live = lesson.network.features(lesson.network.normalize(torch.stack(images)))
    torch.testing.assert_close(unseen.maps.features[[0, 5]].float(), live, atol=0.02, rtol=0.02)
    for row, target in zip((0, 5), targets, strict=True):
        assert torch.equal(unseen.labels[row], target["labels"])
        assert torch.equal(unseen.targets[row]["boxes"], target["boxes"].as_subclass(torch.Tensor))
        covered = unseen.masks[row].repeat_interleave(4, 1).repeat_interleave(4, 2)
        assert (covered | ~target["masks"]).all()  # a mask's pixel is set where any of its sixteen is
    assert unseen.small.features.shape[1:] == (192, 2, 2)
    pictures, labels, masks = unseen.shown
    assert len(pictures) == len(labels) == len(masks) == sum(len(own["boxes"]) for own in unseen.targets)
    assert (unseen.labels[pictures, labels] == 1).all()


def test_everything_that_the_notebook_shows_is_there(lesson, unseen):
    scores = lesson.label_scores
    assert set(scores) == {"WSDDN", "plain, large", "plain on regions", *lesson.students}
    assert all(0 < own["mAP"] <= 1 for own in scores.values())
    assert scores["WSDDN"]["mAP"] == pytest.approx(
        multilabel_metrics(said(lesson.detector, unseen), unseen.labels)["mAP"]
    )
    assert set(lesson.box_scores) == {
        "random region", "whole picture", "centre", "class map", "plain on regions", "WSDDN", "supervised",
        "best proposals",
    }  # fmt: skip
    overlaps = [iou_matrix(own["boxes"], unseen.proposals).max(1) for own in unseen.targets]
    best = lesson.box_scores["best proposals"]
    assert best["located"] == pytest.approx((np.concatenate(overlaps) >= 0.5).mean())
    assert best["label_right"] == 1
    assert set(lesson.looks) == {"class map", "WSDDN"}
    assert 0 < lesson.looks["WSDDN"]["energy"] < 1
    assert lesson.looks["class map"]["gt_known_fixed"] <= lesson.looks["class map"]["gt_known"]


def test_a_detector_learns_colours_and_supervision_where_they_are(lesson, unseen):
    assert lesson.label_scores["WSDDN"]["mAP"] > 0.9
    scores, told = region_scores(lesson.supervised, unseen), []
    for target in unseen.targets:
        own = torch.zeros(len(unseen.proposals), 3)
        own[:, target["box_labels"]] = torch.from_numpy(iou_matrix(unseen.proposals, target["boxes"])).float()
        told.append(own >= 0.5)
    truth = torch.stack(told).flatten(0, 1)
    found = multilabel_metrics(scores.flatten(0, 1), truth, top=1)["mAP"]
    assert found > 3 * truth.float().mean()  # what scores that know nothing would get


def test_class_maps_are_those_of_every_class(lesson, unseen):
    maps = detection_training.class_maps(lesson.plain, unseen)
    for label in range(3):
        wanted = class_activation_maps(
            lesson.plain, unseen.maps.features.float(), [label] * len(maps), raw=True
        )
        torch.testing.assert_close(maps[:, label], wanted, atol=1e-4, rtol=1e-4)


def test_stage_1_is_taught_the_features_of_the_regions_it_sees(lesson):
    part = lesson.seen["train"]
    few = few_regions(part, lesson.detector)
    boxes, told = few.features["boxes"], few.targets["regions"]
    for picture in (0, 7):
        rows = [(part.proposals == box).all(1).nonzero().item() for box in boxes[picture]]
        assert len(set(rows)) == len(rows)
        with torch.no_grad():
            wanted = lesson.detector.head.embed(part.regions.features["regions"][picture, rows].float())
        torch.testing.assert_close(told[picture], wanted)


def test_scores_by_partner_are_those_counted_by_hand(unseen):
    scores = torch.rand(len(unseen.labels), 3, generator=torch.Generator().manual_seed(0))
    found = pairing_scores(scores, unseen, top=1)
    labels, answered = unseen.labels.numpy().astype(bool), scores.argmax(1).numpy()
    shares, elsewhere = [], []
    for label, partner in enumerate(unseen.source.partners):
        alone = labels[:, label] & ~labels[:, partner]
        neither = ~labels[:, label] & ~labels[:, partner]
        shares.append((answered[alone] == partner).mean() if alone.any() else np.nan)
        elsewhere.append((answered[neither] == partner).mean() if neither.any() else np.nan)
    assert found["partner_answered"] == pytest.approx(np.nanmean(shares))
    assert found["partner_elsewhere"] == pytest.approx(np.nanmean(elsewhere))
    perfect = pairing_scores(unseen.labels, unseen)
    assert perfect["ap_with"] == perfect["ap_without"] == 1


def test_a_wrong_class_costs_its_height_in_the_tree(unseen):
    heights, labels = TREE.distances("lca_height"), unseen.labels
    scores = labels.clone()
    found = label_scores(scores, unseen)
    wrong = [int(np.flatnonzero(row == 0)[0]) for row in labels.numpy()]
    wanted = [heights[one, row.numpy() == 1].min() for one, row in zip(wrong, labels, strict=True)]
    assert found["hdist@wrong"] == pytest.approx(np.mean(wanted))


def test_the_aligned_loss_is_that_of_the_best_regions(lesson):
    part, model = lesson.seen["train"], detection_training.Detector(TwoStream(1280, 3, hidden=8))
    inputs, targets, rows = next(iter(CachedLoader(part.regions, 16, train=False)))
    found = AlignedDetectorTask(2.0, TREE).step(model, (inputs, targets, rows))
    scores, embedded = model(inputs), model.embed(inputs).unflatten(0, (16, -1))
    best, labels = [], []
    for picture, label in targets["labels"].nonzero().tolist():
        best.append(embedded[picture, scores[picture, :, label].argmax()])
        labels.append(label)
    knowledge = torch.from_numpy(0.1 * TREE.distances("path")[labels][:, labels])
    wanted = 2 * aligned_triplet_loss(latent_distances(torch.stack(best), 1.2), knowledge)
    torch.testing.assert_close(found["metric"], wanted)
    torch.testing.assert_close(found["image"], image_loss(scores.sum(1), targets["labels"]))

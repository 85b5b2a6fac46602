"""Notebook 05's collection: what its queries see, and how its lists are scored."""

import numpy as np
import pytest
import torch

from ckfr_helpers.models import build_model
from ckfr_helpers.retrieval.protocols import average_precision
from ckfr_helpers.retrieval.rivals import Ranker
from ckfr_helpers.teaching import retrieval_lesson
from ckfr_helpers.teaching.plots import retrieval as plots
from ckfr_helpers.teaching.retrieval_lesson import LITE, STAGE, collect, energies
from ckfr_helpers.teaching.sliders.retrieval import retrieval_panel

pytestmark = pytest.mark.photos
SIZE = 192  # pixels; the notebook's pictures are larger


@pytest.fixture(scope="module", autouse=True)
def _small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval_lesson, "SIZE", SIZE)
        yield


@pytest.fixture(scope="module")
def network():
    return build_model(LITE, None).eval()


@pytest.fixture(scope="module")
def collection(network):
    return collect(network, "val", returns=1, distractors=3, instances=1)


@pytest.fixture(scope="module")
def seen(network, collection):
    return collection.through(network.split(STAGE)[1])


def test_queries_see_only_what_is_in_their_boxes(network, collection, seen):
    queries, database = seen
    assert len(queries) == 27
    assert len(database) == 27 + 3
    with torch.no_grad():
        image = network.normalize(collection.database[4][0])[None]
        live = network.features(image)[0]
    assert torch.allclose(database.features[4], live, atol=2e-2)  # the trunk's outputs are kept in 16 bits
    cell = SIZE / queries.features.shape[-1]
    for index in range(27):
        x0, y0, x1, y1 = collection.box(index).tolist()
        rows, columns = queries.features[index].sum(0).nonzero().unbind(1)
        assert columns.numel()
        assert columns.min() >= x0 // cell - 1
        assert columns.max() <= x1 // cell + 1
        assert rows.min() >= y0 // cell - 1
        assert rows.max() <= y1 // cell + 1


def test_lists_are_scored_query_by_query(collection):
    truth = torch.zeros(27, 30)
    for row, one in zip(truth, collection.truths, strict=True):
        row[list(one.easy)] = 3
        row[list(one.hard)] = 2
        row[list(one.junk)] = 1
    found = collection.quality(truth)
    assert np.nanmin(found["ap_medium"]) == 1
    noise = torch.rand(27, 30, generator=torch.Generator().manual_seed(0))
    found = collection.quality(noise)
    order = noise[3].argsort(descending=True).tolist()
    one = collection.truths[3]
    assert found["ap_medium"][3] == pytest.approx(average_precision(order, one.easy + one.hard, one.junk))
    wrong = next(p for p in order if not collection.grade(3, p))
    heights = collection.hierarchy.distances("lca_height")
    asked = collection.queries[3][1]["label"]
    classes = collection.database[wrong][1]["box_labels"].tolist()
    assert found["first_wrong"][3] == min(heights[asked, c] for c in classes)


def test_distractors_are_nobodys_answer(collection):
    assert all(one < 27 for truth in collection.truths for ids in truth for one in ids)
    assert all((target["photos"] == -1).all() for _, target in collection.database[27:])


def test_energy_is_the_share_of_the_maps_on_the_object(network, collection, seen):
    queries, database = seen
    weight = network.classifier.weight.detach()
    found = energies(collection, queries, database, weight, Ranker("query's classes", classes=2))
    assert found.shape == (27,)
    shown = np.array([bool(truth.easy or truth.hard) for truth in collection.truths])
    assert np.array_equal(np.isnan(found), ~shown)
    assert ((found[shown] >= 0) & (found[shown] < 1)).all()
    assert np.median(found[shown]) > 0.03  # an object covers a few hundredths of its picture, and more
    own = energies(collection, queries, database, weight, Ranker("own classes", classes=2))
    assert not np.allclose(own[shown], found[shown])


def test_lists_and_panel_say_what_is_right(network, collection, seen):
    queries, database = seen
    weight = network.classifier.weight.detach()
    scores = Ranker("gem").scores(queries, database, weight)[0]
    tiles = plots.ranked(collection, 0, scores, 3)
    assert len(tiles) == 4
    best = int(scores.argmax())
    assert tiles[1].caption.startswith(plots.MARKS[collection.grade(0, best)])
    panel = retrieval_panel(collection, queries, database, weight, [0, 5])
    assert "8 classes" in panel.view.numbers
    before = panel.view
    panel.controls["query"].value = 1
    panel.wait()
    assert panel.view.picture != before.picture
    assert collection.hierarchy.names[collection.queries[5][1]["label"]] in panel.view.numbers
    assert len(panel.static().numbers.splitlines()) == 4

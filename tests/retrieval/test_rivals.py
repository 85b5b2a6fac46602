"""Every way of ranking: against loops written out, and what no ranking may depend on."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ckfr_helpers.retrieval.descriptors import channel_weights, describe, describe_classes
from ckfr_helpers.retrieval.regions import best_windows, similarity_maps
from ckfr_helpers.retrieval.rivals import METHODS, Pictures, Ranker
from ckfr_helpers.runtime import CkfrError

QUERIES, MANY, CHANNELS, CLASSES = 3, 9, 6, 10


def drawn(seed: int, *size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def pictures(seed: int, count: int, objects: int = 0) -> Pictures:
    masks = drawn(seed + 2, count, objects, 5, 4).sigmoid() if objects else torch.zeros(0)
    order = drawn(seed + 1, count, CLASSES).argsort(dim=1)
    return Pictures(drawn(seed, count, CHANNELS, 5, 4).relu(), order, masks)


WEIGHT = drawn(9, CLASSES, CHANNELS)
ASKED, STORED = pictures(0, QUERIES), pictures(10, MANY, objects=2)


def pooled(features: Tensor, place: Tensor) -> Tensor:
    """One picture's sum over places, weighted by place and channel: (C, H, W), (H, W) -> (C,)."""
    total = sum(features[:, y, x] * place[y, x] for y in range(5) for x in range(4))
    return F.normalize(total * channel_weights(features[None])[0], dim=0)


def test_poolings_are_cosines_of_their_descriptors():
    for method in ("spoc", "mac", "gem", "crow", "rmac"):
        found = Ranker(method, power=2).scores(ASKED, STORED, WEIGHT)
        ours, theirs = (describe(part.features, method, power=2) for part in (ASKED, STORED))
        assert torch.allclose(found, ours @ theirs.T, atol=1e-6)
        assert found.shape == (QUERIES, MANY)


def test_the_querys_classes_are_asked_of_every_picture():
    found = Ranker("query's classes", classes=3).scores(ASKED, STORED, WEIGHT)
    for query in range(QUERIES):
        chosen = ASKED.classes[query, :3]
        ours = describe_classes(ASKED.features[[query]], WEIGHT, chosen)
        theirs = describe_classes(STORED.features, WEIGHT, chosen)
        assert torch.allclose(found[query], (theirs @ ours.T)[:, 0], atol=1e-5)


def test_own_and_random_classes():
    own = Ranker("own classes", classes=2).scores(ASKED, STORED, WEIGHT)
    ours, theirs = (describe_classes(p.features, WEIGHT, p.classes[:, :2]) for p in (ASKED, STORED))
    assert torch.allclose(own, ours @ theirs.T, atol=1e-5)
    every = Ranker("random classes", classes=CLASSES).scores(ASKED, STORED, WEIGHT)
    ours, theirs = (describe_classes(p.features, WEIGHT, torch.arange(CLASSES)) for p in (ASKED, STORED))
    assert torch.allclose(every, ours @ theirs.T, atol=1e-5)  # all of them, in whatever order
    one, other = (Ranker("random classes", classes=2, seed=s).scores(ASKED, STORED, WEIGHT) for s in (0, 1))
    assert not torch.allclose(one, other)


def test_looking_with_the_querys_features_and_windows():
    alike = Ranker("query's features").scores(ASKED, STORED, WEIGHT)
    windows = Ranker("best window").scores(ASKED, STORED, WEIGHT)
    sums = ASKED.features.sum((2, 3))
    maps, (_, boxes) = similarity_maps(STORED.features, sums), best_windows(STORED.features, sums)
    for query in range(QUERIES):
        asked = pooled(ASKED.features[query], torch.ones(5, 4))
        for picture in range(MANY):
            features = STORED.features[picture]
            assert alike[query, picture] == pytest.approx(
                float(asked @ pooled(features, maps[picture, query])), abs=1e-5
            )
            x0, y0, x1, y1 = boxes[picture, query].tolist()
            inside = torch.zeros(5, 4)
            inside[y0 : y1 + 1, x0 : x1 + 1] = 1
            assert windows[query, picture] == pytest.approx(float(asked @ pooled(features, inside)), abs=1e-5)


def test_oracles_see_objects_together_or_the_best_of_them():
    together = Ranker("all objects' masks").scores(ASKED, STORED, WEIGHT)
    single = Ranker("each object's mask").scores(ASKED, STORED, WEIGHT)
    for query in range(QUERIES):
        asked = pooled(ASKED.features[query], torch.ones(5, 4))
        for picture in range(MANY):
            features, masks = STORED.features[picture], STORED.masks[picture]
            both = float(asked @ pooled(features, masks.sum(0)))
            each = max(float(asked @ pooled(features, mask)) for mask in masks)
            assert together[query, picture] == pytest.approx(both, abs=1e-5)
            assert single[query, picture] == pytest.approx(each, abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("more", [{}, {"expansion": 2}, {"rerank": 4}, {"dimension": 3}])
def test_no_query_depends_on_another_and_nothing_is_written_back(method, more):
    ranker = Ranker(method, classes=2, **more)
    train = pictures(20, 12)
    whitening = ranker.whitening(train, WEIGHT)
    assert (whitening is None) == ("dimension" not in more)
    before = STORED.features.clone()
    found = ranker.scores(ASKED, STORED, WEIGHT, whitening)
    assert torch.equal(STORED.features, before)
    turned = [2, 0]
    part = Pictures(ASKED.features[turned], ASKED.classes[turned], ASKED.masks)
    assert torch.allclose(ranker.scores(part, STORED, WEIGHT, whitening), found[turned], atol=1e-5)
    assert torch.isfinite(found).all()


def test_expansion_adds_the_first_answers_to_the_query():
    found = Ranker("mac", expansion=2).scores(ASKED, STORED, WEIGHT)
    ours, theirs = (describe(part.features, "mac") for part in (ASKED, STORED))
    for query in range(QUERIES):
        first = (theirs @ ours[query]).topk(2).indices
        wider = F.normalize(ours[query] + theirs[first[0]] + theirs[first[1]], dim=0)
        assert torch.allclose(found[query], theirs @ wider, atol=1e-6)


def test_reranking_moves_only_the_first():
    plain = Ranker("gem").scores(ASKED, STORED, WEIGHT).argsort(dim=1, descending=True, stable=True)
    again = Ranker("gem", rerank=4).scores(ASKED, STORED, WEIGHT).argsort(dim=1, descending=True)
    assert torch.equal(plain[:, 4:], again[:, 4:])
    assert torch.equal(plain[:, :4].sort(1).values, again[:, :4].sort(1).values)
    assert not torch.equal(plain, again)


def test_a_threshold_keeps_the_strongest_places():
    maps = Ranker("own classes", threshold=0.5).maps(STORED.features, WEIGHT, torch.tensor([1, 2]))
    plain = Ranker("own classes").maps(STORED.features, WEIGHT, torch.tensor([1, 2]))
    assert torch.equal(maps, plain * (plain >= 0.5))
    assert 0 < maps.count_nonzero() < plain.count_nonzero()


def test_a_method_that_is_not_there_is_refused():
    with pytest.raises(CkfrError, match=r"no method 'vlad'; expected one of spoc, "):
        Ranker("vlad")

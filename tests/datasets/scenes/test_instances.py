"""The embedded retrieval set, made of cut-outs drawn here; one test needs the photographs."""

from collections import Counter
from itertools import pairwise

import pytest
import torch
from drawn_scenes import SIZE, TREE, coloured_cutouts, kept_places  # noqa: F401 -- a fixture

from ckfr_helpers.datasets.scenes import instances, photos
from ckfr_helpers.datasets.scenes.instances import InstanceScenes, RetrievalSet, grades, retrieval_set
from ckfr_helpers.datasets.scenes.several import SeveralScenes
from ckfr_helpers.runtime import CkfrError

ROOT = photos.data_root()  # before a fixture points elsewhere

pytestmark = pytest.mark.usefixtures("kept_places")
DRAWN = {"cutouts": coloured_cutouts(), "hierarchy": TREE, "size": SIZE, "instances": 2}


def drawn_set(returns: int = 12) -> RetrievalSet:
    return RetrievalSet(
        InstanceScenes("test", "queries", **DRAWN),
        InstanceScenes("test", "database", returns=returns, **DRAWN),
        SeveralScenes("val", scenes=2, **DRAWN),
    )


def target_of(*objects: tuple[int, float, float]) -> dict:
    """A target with (photograph, visible pixels of 10,000, visible share) of each object."""
    masks = torch.zeros(len(objects), 100, 100, dtype=torch.bool)
    for mask, (_, pixels, _) in zip(masks, objects, strict=True):
        mask.view(-1)[: int(pixels)] = True
    photo, _, visible = zip(*objects, strict=True)
    return {"masks": masks, "photos": torch.tensor(photo), "visible": torch.tensor(visible)}


def test_every_photograph_returns_as_often_as_promised():
    source = drawn_set(returns=4).database
    assert len(source) == 20
    first = [int(source[index][1]["photos"][0]) for index in range(20)]
    assert first == [source.photo_of(index) for index in range(20)]
    assert set(Counter(first).values()) == {4}
    assert all(source[index][1]["label"] == source.labels[index] for index in range(20))
    with pytest.raises(IndexError):
        source[20]


def test_a_query_shows_its_photograph_first_in_a_place_of_no_other_scene():
    found = drawn_set()
    assert len(found.queries) == len(found.queries.photos) == 5
    for index in range(5):
        _, target = found.queries[index]
        assert target["photos"][0] == index
        assert target["visible"][0] >= 0.9
        assert grades(target)[index] != "junk"
    assert found.queries.bank == "test queries" != found.database.bank
    places = [source._places for source in found]
    assert len({one.tobytes() for bank in places for family in bank for one in family}) == 3 * 18
    assert len({source.fingerprint() for source in found}) == 3


def test_answers_are_the_scenes_that_show_the_photograph():
    found = drawn_set()
    targets = [found.database[index][1] for index in range(len(found.database))]
    answers = found.answers(iter(targets))
    assert len(answers) == 5
    for photo, answer in enumerate(answers):
        shown = {i for i, target in enumerate(targets) if photo in target["photos"].tolist()}
        assert set(answer.easy) | set(answer.hard) | set(answer.junk) == shown
        assert sum(map(len, answer)) == len(shown) >= 12
        assert all(a < b for ids in answer for a, b in pairwise(ids))
        for grade, ids in answer._asdict().items():
            assert all(grades(targets[i])[photo] == grade for i in ids)
    assert all(answer.easy and answer.hard for answer in answers)
    with pytest.raises(CkfrError, match="59 targets for a database of 60 scenes"):
        found.answers(targets[1:])


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([(3, 500, 1.0)], {3: "easy"}),
        ([(3, 500, 0.76)], {3: "easy"}),
        ([(3, 500, 0.7)], {3: "hard"}),  # partly covered
        ([(3, 500, 0.2)], {3: "junk"}),  # hardly a quarter shows
        ([(3, 150, 1.0)], {3: "hard"}),  # small
        ([(3, 39, 1.0)], {3: "junk"}),
        ([(3, 40, 1.0)], {3: "hard"}),
        ([(3, 300, 1.0), (1, 1200, 1.0)], {3: "hard", 1: "easy"}),  # crowded out
        ([(3, 300, 1.0), (1, 700, 1.0), (2, 30, 0.9)], {3: "easy", 1: "easy", 2: "junk"}),
    ],
)
def test_grades_follow_the_thresholds(objects, expected):
    assert grades(target_of(*objects)) == expected


def test_mistakes_get_one_sentence():
    with pytest.raises(CkfrError, match="no role 'query'; expected queries or database"):
        InstanceScenes("test", "query", **DRAWN)
    with pytest.raises(CkfrError, match="returns is 0"):
        InstanceScenes("test", returns=0, **DRAWN)
    with pytest.raises(CkfrError, match="no split 'tset'"):
        retrieval_set("tset")


@pytest.mark.photos
def test_easy_and_hard_are_common_and_junk_is_not_among_the_photographs():
    found = retrieval_set("test", SIZE, distractors=24, root=ROOT, instances=2)
    assert not set(found.queries.photos) & set(found.distractors.photos)
    assert found.queries.photos == found.database.photos
    answers = found.answers(target for _, target in found.database)
    easy, hard, junk = (
        sum(len(getattr(one, grade)) for one in answers) for grade in ("easy", "hard", "junk")
    )
    assert easy + hard + junk > len(found.database)  # objects in company count too
    assert min(easy, hard) > 0.35 * (easy + hard + junk)
    assert 0 < junk < 0.15 * (easy + hard + junk)
    assert instances.DISTRACTORS["test"] == found.distractors.split == "val"

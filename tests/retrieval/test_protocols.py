"""Measures against the published procedures written out, and readers against files as the sets ship them."""

import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ckfr_helpers.retrieval.protocols import (
    Truth,
    average_precision,
    evaluate,
    hierarchical_area,
    hierarchical_precision,
    precision_at,
    read_truth,
)
from ckfr_helpers.runtime import CkfrError


def literal(ranking: list[int], positives: set[int], junk: set[int]) -> tuple[float, list[bool]]:
    """The trapezoid rule of Oxford5k's own program: walk down the list, junk passed over."""
    area, old_recall, old_precision, seen, rank = 0.0, 0.0, 1.0, 0, 0
    kept = []
    for one in ranking:
        if one in junk:
            continue
        seen += one in positives
        rank += 1
        recall, precision = seen / len(positives), seen / rank
        area += (recall - old_recall) * (old_precision + precision) / 2
        old_recall, old_precision = recall, precision
        kept.append(one in positives)
    return area, kept


@st.composite
def cases(draw) -> tuple[list[int], set[int], set[int]]:
    number = draw(st.integers(1, 30))
    kinds = draw(st.lists(st.sampled_from("pjn"), min_size=number, max_size=number))
    ranking = draw(st.permutations(range(number)))[: draw(st.integers(1, number))]
    positives, junk = ({i for i, kind in enumerate(kinds) if kind == wanted} for wanted in "pj")
    return list(ranking), positives, junk


@settings(max_examples=200, deadline=None)
@given(cases(), st.integers(1, 35))
def test_scores_of_one_ranking_are_those_of_the_walk_down_the_list(case, k):
    ranking, positives, junk = case
    found = average_precision(ranking, positives, junk), precision_at(ranking, positives, k, junk)
    if not positives:
        assert all(map(math.isnan, found))
        return
    area, kept = literal(ranking, positives, junk)
    last = max((place + 1 for place, right in enumerate(kept) if right), default=k)
    assert found[0] == pytest.approx(area, abs=1e-12)
    assert found[1] == pytest.approx(sum(kept[: min(k, last)]) / min(k, last))
    without = [one for one in ranking if one not in junk]
    assert average_precision(without, positives) == found[0]


def test_ids_may_be_names_arrays_or_tensors():
    expected = average_precision([7, 3, 9, 4], [3, 4], [7])
    assert average_precision(list("gcid"), list("cd"), ["g"]) == expected
    assert average_precision(list("gcid"), list("cd")) < expected
    assert average_precision(torch.tensor([7, 3, 9, 4]), np.array([3, 4]), {7}) == expected
    assert average_precision([], [3]) == 0
    assert precision_at([1, 2], [3], 5) == 0
    with pytest.raises(CkfrError, match="each picture once"):
        average_precision([1, 2, 1], [1])
    with pytest.raises(CkfrError, match="k is 0"):
        precision_at([1, 2], [1], 0)


def test_three_protocols_move_easy_and_hard_between_wanted_and_junk():
    truths = [Truth((0, 1), (2,), (3,)), Truth((), (4,), ()), Truth((), (), (1,))]
    rankings = np.array([[3, 2, 5, 0, 4, 1], [0, 4, 1, 2, 3, 5], [0, 1, 2, 3, 4, 5]])
    found = evaluate(rankings, truths, ks=(1, 2))
    assert set(found) == {f"{s}_{p}" for s in ("ap", "p@1", "p@2") for p in ("easy", "medium", "hard")}
    assert found["ap_easy"][0] == average_precision([5, 0, 4, 1], [0, 1])
    assert found["ap_medium"][0] == average_precision([2, 5, 0, 4, 1], [0, 1, 2])
    assert found["ap_hard"][0] == 1 == found["p@2_hard"][0]
    assert np.isnan(found["ap_easy"]).tolist() == [False, True, True]
    assert np.isnan(found["p@1_hard"]).tolist() == [False, False, True]
    assert found["p@2_medium"][:2].tolist() == [0.5, 0.5]
    with pytest.raises(CkfrError, match="No query has a positive"):
        evaluate(rankings[2:], truths[2:])
    with pytest.raises(CkfrError, match="3 rankings for 2"):
        evaluate(rankings, truths[:2])


def alike(seed: int, classes: int = 5) -> np.ndarray:
    drawn = np.random.default_rng(seed).random((classes, classes))
    drawn = (drawn + drawn.T) / 2
    np.fill_diagonal(drawn, 1)
    return drawn


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(1, 15))
def test_hierarchical_precision_is_the_share_of_the_best_order(seed, labels, k):
    similarity = alike(seed)
    gains = [similarity[2, label] for label in labels]
    curve = [sum(gains[:n]) / sum(sorted(gains, reverse=True)[:n]) for n in range(1, min(k, len(labels)) + 1)]
    assert hierarchical_precision(labels, 2, similarity, k) == pytest.approx(curve[-1])
    steps = [(a + b) / 2 for a, b in itertools.pairwise(curve)]
    area = hierarchical_area(labels, 2, similarity, k)
    assert area == pytest.approx(sum(steps) / len(steps) if steps else curve[0])
    best = sorted(labels, key=lambda label: -similarity[2, label])
    assert hierarchical_precision(best, 2, similarity, k) == pytest.approx(1)
    assert hierarchical_area(best, 2, similarity, k) == pytest.approx(1)
    assert math.isnan(hierarchical_precision([0, 1], 2, np.eye(3), k))


@pytest.mark.parametrize(
    ("labels", "query", "similarity", "k", "said"),
    [
        ([0, 5], 0, np.eye(3), 1, "run from 0 to 5"),
        ([0, 1], -1, np.eye(3), 1, "run from -1"),
        ([], 0, np.eye(3), 1, "expected whole numbers in a row"),
        ([0.5], 0, np.eye(3), 1, "expected whole numbers in a row"),
        ([0], 0, 2 * np.eye(3), 1, "from 0 to 1"),
        ([0], 0, np.ones((3, 2)), 1, "expected a square"),
        ([0], 0, np.eye(3), 0, "k is 0"),
    ],
)
def test_labels_and_similarities_out_of_range_are_refused(labels, query, similarity, k, said):
    with pytest.raises(CkfrError, match=said):
        hierarchical_precision(labels, query, similarity, k)


@pytest.fixture
def oxford(tmp_path):
    """Two queries as Oxford5k has them; the first names its own picture among the good ones."""
    files = {
        "all_souls_1_query": "oxc1_all_souls_000013 136.5 34.1 648.5 955.7\n",
        "all_souls_1_good": "all_souls_000013\nall_souls_000026\n",
        "all_souls_1_ok": "oxford_002985\n",
        "all_souls_1_junk": "radcliffe_000001\n",
        "defense_1_query": "paris_defense_000605 1 2 30 40\n",
        "defense_1_good": "paris_defense_000001\n",
        "defense_1_ok": "",
        "defense_1_junk": "",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.txt").write_text(text)
    return tmp_path


def test_oxfords_text_files_are_read_and_the_querys_own_picture_is_junk(oxford):
    from ckfr_helpers.retrieval.protocols import read_oxford

    held = read_truth(oxford)
    assert held.queries == ("all_souls_000013", "paris_defense_000605")
    assert held.boxes.tolist() == [[136.5, 34.1, 648.5, 955.7], [1, 2, 30, 40]]
    named = [{kind: {held.names[i] for i in ids} for kind, ids in t._asdict().items()} for t in held.truths]
    assert named[0] == {
        "easy": {"all_souls_000026", "oxford_002985"},
        "hard": set(),
        "junk": {"radcliffe_000001", "all_souls_000013"},
    }
    assert named[1] == {"easy": {"paris_defense_000001"}, "hard": set(), "junk": {"paris_defense_000605"}}
    counted = read_oxford(oxford, own_counts=True)
    assert counted.names.index("all_souls_000013") in counted.truths[0].easy


def test_damaged_oxford_files_are_named(oxford, tmp_path_factory):
    with pytest.raises(CkfrError, match=r"holds no \*_query.txt"):
        read_truth(tmp_path_factory.mktemp("none"))
    (oxford / "defense_1_query.txt").write_text("paris_defense_000605 1 2 x 40\n")
    with pytest.raises(CkfrError, match=r"defense_1_query\.txt has no box"):
        read_truth(oxford)
    (oxford / "all_souls_1_ok.txt").unlink()
    with pytest.raises(CkfrError, match=r"all_souls_1_ok\.txt cannot be read"):
        read_truth(oxford)


def revisited() -> dict:
    one = {"bbx": [1.0, 2.0, 30.0, 40.0], "easy": [0, 2], "hard": np.array([1]), "junk": []}
    return {"imlist": ["a", "b", "c"], "qimlist": ["q"], "gnd": [one]}


def test_the_revisited_pickle_is_read_as_plain_data(tmp_path):
    path = tmp_path / "gnd_roxford5k.pkl"
    path.write_bytes(pickle.dumps(revisited()))
    held = read_truth(path)
    assert held.names == ("a", "b", "c")
    assert held.queries == ("q",)
    assert held.truths == (Truth((0, 2), (1,), ()),)
    assert held.boxes.tolist() == [[1, 2, 30, 40]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda held: held.pop("gnd"), "KeyError"),
        (lambda held: held["gnd"][0].update(easy=[3]), "an id outside 0 to 2"),
        (lambda held: held["gnd"][0].update(bbx=[5, 2, 1, 4]), "has no box"),
        (lambda held: held["qimlist"].append("more"), "2 queries and the truth of 1"),
        (lambda held: held.update(gnd=print), "refused"),
    ],
)
def test_other_pickles_are_refused(tmp_path, change, said):
    held = revisited()
    change(held)
    (tmp_path / "gnd.pkl").write_bytes(pickle.dumps(held))
    with pytest.raises(CkfrError, match=said):
        read_truth(tmp_path / "gnd.pkl")

"""Search against a full sort written out, ties and memory-mapped files included."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ckfr_helpers.retrieval import search as module
from ckfr_helpers.retrieval.search import ApproximateIndex, expand, recall, search
from ckfr_helpers.runtime import CkfrError


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=-1)


def sorted_out(queries: torch.Tensor, database: torch.Tensor, k: int) -> list[list[int]]:
    scores = (queries.double() @ database.double().T).float().tolist()
    return [sorted(range(len(row)), key=lambda i: (-row[i], i))[:k] for row in scores]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 45), st.integers(1, 9))
def test_hits_are_those_of_a_full_sort_with_ties_by_id(seed: int, rows: int, k: int, block: int):
    """Small whole numbers tie often; blocks of a few rows cut through the ties."""
    draw = np.random.default_rng(seed)
    queries, database = (torch.from_numpy(draw.integers(-1, 2, (n, 3))).float() for n in (4, rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block * 4)
        patch.setattr(module, "MORE", 0)  # so that candidates are few, and rounding alone could decide
        hits = search(queries, database, k)
    assert hits.ids.tolist() == sorted_out(queries, database, k)
    exact = (queries @ database.T).gather(1, hits.ids)
    assert torch.equal(hits.scores, exact)
    assert hits.scores.dtype == torch.float32
    assert hits.ids.dtype == torch.int64


def test_equal_rows_score_equally_wherever_they_lie():
    row = unit(1, 1280)
    database = torch.cat([unit(300, 1280, seed=1), row, unit(403, 1280, seed=2), row, row])
    hits = search(unit(7, 1280, seed=3), database, len(database))
    for ids, scores in zip(hits.ids.tolist(), hits.scores.tolist(), strict=True):
        places = [ids.index(i) for i in (300, 704, 705)]
        assert places == list(range(places[0], places[0] + 3))
        assert len({scores[place] for place in places}) == 1


def test_a_query_is_answered_alike_alone_and_among_others():
    queries, database = unit(20, 64), unit(5000, 64, seed=1)
    together = search(queries, database, 50)
    assert together.ids.tolist() == sorted_out(queries, database, 50)
    backwards = search(queries.flip(0), database, 50)
    assert torch.equal(together.ids, backwards.ids.flip(0))
    for one in range(0, 20, 5):
        alone = search(queries[one : one + 1], database, 50)
        assert torch.equal(alone.ids[0], together.ids[one])
        assert torch.equal(alone.scores[0], together.scores[one])


def test_a_memory_mapped_database_is_read_in_blocks(tmp_path, monkeypatch):
    database = unit(3000, 16)
    np.save(tmp_path / "d.npy", database.numpy())
    mapped = np.load(tmp_path / "d.npy", mmap_mode="r")
    monkeypatch.setattr(module, "BLOCK", 1600)
    read = []
    rows = module._rows
    monkeypatch.setattr(module, "_rows", lambda d, which, t: read.append(which) or rows(d, which, t))
    hits = search(unit(2, 16, seed=1), mapped, 10)
    assert max(which.stop - which.start for which in read if isinstance(which, slice)) == 100
    assert hits.ids.tolist() == sorted_out(unit(2, 16, seed=1), database, 10)


def test_a_query_whose_candidates_rounding_could_mix_up_is_answered_exactly(monkeypatch):
    """A thousand equal rows: the smallest ids win, though float32 may place any of them first."""
    database = torch.cat([unit(50, 96), unit(1, 96, seed=1).expand(1000, -1), unit(50, 96, seed=2)])
    scanned = []
    scan = module._scan
    monkeypatch.setattr(module, "_scan", lambda q, *rest: scanned.append(q.dtype) or scan(q, *rest))
    hits = search(unit(1, 96, seed=1), database, 5)
    assert hits.ids.tolist() == [[50, 51, 52, 53, 54]]
    assert scanned == [np.float32, np.float64]
    search(unit(1, 96, seed=1), unit(1000, 96, seed=3), 5)
    assert scanned[2:] == [np.float32]


@pytest.mark.parametrize(
    ("queries", "database", "k", "said"),
    [
        (np.zeros((2, 3)), np.zeros((0, 3)), 1, "expected \\(rows, numbers\\)"),
        (np.zeros((2, 3)), np.zeros((4, 2)), 1, "expected finite ones, \\(Q, 2\\)"),
        (np.zeros(3), np.zeros((4, 3)), 1, "shape \\(3,\\)"),
        (np.full((1, 2), np.nan), np.zeros((4, 2)), 1, "expected finite"),
        (np.ones((1, 2)), np.array([[0, 1], [np.nan, 0]]), 2, "not finite"),
        (np.ones((1, 2)), np.array([[0, 1], [np.inf, 0]]), 1, "not finite"),
        (np.ones((1, 2)), np.zeros((4, 2)), 0, "k is 0"),
    ],
)
def test_wrong_input_is_refused_in_one_sentence(queries, database, k, said):
    with pytest.raises(CkfrError, match=said):
        search(queries, database, k)


def test_recall_counts_ids_whatever_their_order():
    assert recall([[3, 1, 2], [4, 5, 6]], [[1, 2, 3], [4, 7, 8]]) == pytest.approx((1 + 1 / 3) / 2)


def test_expansion_is_the_query_and_its_neighbours_written_out():
    queries, database = unit(3, 8), unit(30, 8, seed=1)
    before = database.clone()
    ids = search(queries, database, 6).ids
    found = expand(queries, database, ids, 4)
    for query, near, one in zip(queries, ids, found, strict=True):
        total = query.double().clone()
        for row in near[:4]:
            total += database[row].double()
        torch.testing.assert_close(one, (total / total.norm()).float())
    assert torch.equal(database, before)
    assert torch.equal(expand(queries.flip(0), database.numpy(), ids.flip(0), 4), found.flip(0))
    torch.testing.assert_close(expand(queries, database, ids, 0), queries)
    with pytest.raises(CkfrError, match="first is 7"):
        expand(queries, database, ids, 7)


def test_approximate_search_finds_what_exact_search_finds():
    pytest.importorskip("faiss")
    centres = unit(60, 32)
    database = torch.nn.functional.normalize(centres.repeat(100, 1) + 0.15 * unit(6000, 32, seed=1), dim=1)
    queries = torch.nn.functional.normalize(centres[:40] + 0.15 * unit(40, 32, seed=2), dim=1)
    exact = search(queries, database, 50)
    found = search(queries, database, 50, ApproximateIndex(database, probes=8))
    assert recall(found.ids, exact.ids) > 0.95
    every = search(queries, database, 50, ApproximateIndex(database, lists=7, probes=7))
    assert recall(every.ids, exact.ids) > 0.99
    true = (queries.double() @ database.double().T).float().gather(1, found.ids)
    torch.testing.assert_close(found.scores, true, atol=0, rtol=1e-6)
    assert (found.scores.diff(dim=1) <= 0).all()


def test_an_index_that_holds_too_few_where_it_looks_gives_way_to_exact_search():
    pytest.importorskip("faiss")
    database, queries = unit(200, 8), unit(5, 8, seed=1)
    index = ApproximateIndex(database, lists=100, probes=1)
    assert torch.equal(search(queries, database, 60, index).ids, search(queries, database, 60).ids)
    with pytest.raises(CkfrError, match="make it anew"):
        search(queries, database[:100], 5, index)
    with pytest.raises(CkfrError, match="probes is 0"):
        ApproximateIndex(database, probes=0)


def test_without_faiss_one_sentence_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(CkfrError, match="needs faiss-cpu"):
        ApproximateIndex(unit(10, 4))

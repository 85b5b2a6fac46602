"""The nearest descriptors of a collection by inner product, exact or approximate, and query expansion."""

import importlib
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, DTypeLike
from torch import Tensor

from ckfr_helpers.runtime import CkfrError, check_number

Vectors = np.ndarray | Tensor  # (N, D); an array may be memory-mapped
BLOCK = 2**23  # numbers held at once: 64 MB
SPARE, MORE = 2, 16  # candidates in float32 for each hit wanted, and beyond


class Hits(NamedTuple):
    """The best of a database for each query, best first; of equal scores the smaller id first."""

    scores: Tensor  # (Q, k) float32 inner products
    ids: Tensor  # (Q, k) int64 rows of the database


class ApproximateIndex:
    """A small index in memory that looks at a part of the database only; needs the package faiss-cpu.

    An inverted file (Jégou et al., PAMI 2011), one byte a number: 140 MB for 1 million x 128. A query looks
    at ``probes`` of its ``lists`` cells, by default the square root of N of them.
    """

    def __init__(self, database: Vectors, lists: int | None = None, probes: int = 64, seed: int = 0) -> None:
        try:
            faiss = importlib.import_module("faiss")
        except ImportError as error:
            raise CkfrError("Approximate search needs faiss-cpu, which is not installed.") from error
        number, dimension = _check_database(database)
        lists = round(number**0.5) if lists is None else lists
        check_number("lists", lists, 1, number, whole=True)
        check_number("probes", probes, 1, whole=True)
        self.index = faiss.index_factory(dimension, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
        self.index.cp.seed, self.index.cp.min_points_per_centroid = seed, 1  # few are no reason to warn
        sample = np.random.default_rng(seed).permutation(number)[: 64 * lists]
        self.index.train(_rows(database, np.sort(sample), np.float32))
        for start in range(0, number, block := max(1, BLOCK // dimension)):
            self.index.add(_rows(database, slice(start, start + block), np.float32))
        self.index.nprobe = min(probes, lists)


def search(
    queries: ArrayLike, database: Vectors, k: int, approximate: ApproximateIndex | None = None
) -> Hits:
    """The ``k`` nearest rows of a database for each query, whatever the other queries.

    Args:
        queries: (Q, D).
        database: (N, D); a memory-mapped one is read block by block, never as a whole.
        k: hits a query; more than N give N.
        approximate: an index of the same database: it proposes, exact scores decide. None looks at every row.

    Raises:
        CkfrError: for shapes that do not fit, numbers that are not finite, no rows, or k below 1.
    """
    number, dimension = _check_database(database)
    check_number("k", k, 1, whole=True)
    wanted = np.asarray(queries, dtype=np.float64)
    if wanted.ndim != 2 or wanted.shape[1] != dimension or not np.isfinite(wanted).all():
        raise CkfrError(f"Queries have shape {wanted.shape}; expected finite ones, (Q, {dimension}).")
    if approximate and (approximate.index.ntotal, approximate.index.d) != (number, dimension):
        raise CkfrError(f"The index is not of these {number} rows of {dimension}; make it anew.")
    k, many = min(k, number), SPARE * k + MORE
    if many >= number:
        return _scan(wanted, database, k)[0]
    # Candidates in float32; what decides is their scores in float64, rounded, which are equal for equal rows.
    single = wanted.astype(np.float32)
    if approximate:
        found = torch.from_numpy(approximate.index.search(single, many)[1])  # −1: these cells hold no more
    else:
        found = _candidates(single, database, k, many)
    hits = Hits(torch.empty(len(wanted), k), torch.empty(len(wanted), k, dtype=torch.int64))
    unsure = (found[:, :k] < 0).any(1)
    for row in (~unsure).nonzero()[:, 0].tolist():
        near = found[row][found[row] >= 0].sort().values
        scores = torch.from_numpy(_rows(database, near.numpy(), np.float64) @ wanted[row]).float()
        hits.scores[row], hits.ids[row] = (part[0] for part in _first(scores[None], near[None], k))
    if unsure.any():
        hits.scores[unsure], hits.ids[unsure] = _scan(wanted[unsure.numpy()], database, k)[0]
    return hits


def _candidates(queries: np.ndarray, database: Vectors, k: int, many: int) -> Tensor:
    """(Q, many) ids; −1 for a query whose k best could, by rounding alone, lie beyond them."""
    (scores, ids), longest = _scan(queries, database, many)
    slack = 2**-20 * (queries.shape[1] ** 0.5) * longest * np.linalg.norm(queries, axis=1)
    return ids.masked_fill(scores[:, k - 1, None] - scores[:, -1:] <= torch.from_numpy(slack)[:, None], -1)


def _scan(queries: np.ndarray, database: Vectors, k: int) -> tuple[Hits, float]:
    """The best of all rows, computed in the queries' type, and the length of the longest row."""
    best = Hits(torch.empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64))
    longest, size = 0.0, max(1, BLOCK // max(queries.shape))
    for start in range(0, len(database), size):
        rows = _rows(database, slice(start, start + size), queries.dtype)
        block = _first(torch.from_numpy(queries @ rows.T).float(), torch.arange(start, start + size)[None], k)
        # What was found before stands first, so ids rise wherever scores are equal.
        best = _first(torch.cat([best.scores, block.scores], 1), torch.cat([best.ids, block.ids], 1), k)
        longest = max(longest, float(np.einsum("ij,ij->i", rows, rows).max()) ** 0.5)
    return best, longest


def _first(scores: Tensor, ids: Tensor, k: int) -> Hits:
    """The ``k`` best columns of each row, of equal scores those further left; ids (Q, n) or (1, n)."""
    k, more = min(k, scores.shape[1]), min(k + 1, scores.shape[1])
    values, places = scores.topk(more, dim=1)
    if not values.isfinite().all():
        raise CkfrError("A row of the database holds numbers that are not finite.")
    for row in (values[:, k - 1 : k] == values[:, k:]).any(1).nonzero()[:, 0]:  # a tie across the cut
        last = values[row, k - 1]
        parts = [(scores[row] > last).nonzero(), (scores[row] == last).nonzero()]
        places[row, :k] = torch.cat(parts)[:k, 0]
    places = places[:, :k].sort(dim=1).values
    best, order = scores.gather(1, places).sort(dim=1, descending=True, stable=True)
    return Hits(best, ids.expand(len(scores), -1).gather(1, places.gather(1, order)))


def recall(found: ArrayLike, exact: ArrayLike) -> float:
    """The share of the exact ids that were found, mean over queries: (Q, k), (Q, k) -> [0, 1]."""
    pairs = zip(np.asarray(found).tolist(), np.asarray(exact).tolist(), strict=True)
    return float(np.mean([len({*one} & {*true}) / len(true) for one, true in pairs]))


def expand(queries: ArrayLike, database: Vectors, ids: ArrayLike, first: int) -> Tensor:
    """Average query expansion (Chum et al., ICCV 2007): the query joined by its ``first`` neighbours.

    Takes (Q, D), (N, D) and (Q, k) rows of the database, best first; gives (Q, D) float32 of unit length.
    """
    near, own = np.asarray(ids), np.asarray(queries, dtype=np.float64)
    check_number("first", first, 0, near.shape[1], whole=True)
    joined = _rows(database, near[:, :first].ravel(), np.float64).reshape(len(own), first, own.shape[1])
    return torch.nn.functional.normalize(torch.from_numpy(own + joined.sum(1)), dim=1).float()


def _rows(database: Vectors, which: slice | np.ndarray, dtype: DTypeLike) -> np.ndarray:
    return np.asarray(database[which], dtype=dtype)


def _check_database(database: Vectors) -> tuple[int, int]:
    if database.ndim != 2 or not len(database):
        raise CkfrError(f"The database has shape {tuple(database.shape)}; expected (rows, numbers).")
    return database.shape[0], database.shape[1]

"""The nearest descriptors of a collection by inner product, exact or approximate, and query expansion."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import normalize

from ckfr_helpers.runtime import CkfrError, check_number

Vectors = np.ndarray | Tensor  # (N, D); an array may be memory-mapped
BLOCK = 2**23  # numbers held at once: 64 MB
SPARE = 2  # candidates of an approximate index for each hit wanted


class Hits(NamedTuple):
    """The best of a database for each query, best first; of equal scores the smaller id first."""

    scores: Tensor  # (Q, k) float32 inner products
    ids: Tensor  # (Q, k) int64 rows of the database


class ApproximateIndex:
    """A small index in memory that looks at a part of the database only; needs the package faiss-cpu.

    An inverted file (Jégou et al., PAMI 2011) that keeps one byte a number: 140 MB for 1 million x 128.

    Args:
        database: (N, D); read in blocks.
        lists: how many cells the space is cut into; by default the square root of N.
        probes: how many of them a query looks at: more find more and take longer.
        seed: of the clustering.
    """

    def __init__(self, database: Vectors, lists: int | None = None, probes: int = 16, seed: int = 0) -> None:
        try:
            import faiss
        except ImportError as error:
            raise CkfrError("Approximate search needs faiss-cpu, which is not installed.") from error
        number, dimension = _check_database(database)
        lists = round(number**0.5) if lists is None else lists
        check_number("lists", lists, 1, number, whole=True)
        check_number("probes", probes, 1, whole=True)
        self.number, kind = number, f"IVF{lists},SQ8"
        self.index = faiss.index_factory(dimension, kind, faiss.METRIC_INNER_PRODUCT)
        self.index.cp.seed, self.index.cp.min_points_per_centroid = seed, 1  # few are no reason to warn
        sample = np.random.default_rng(seed).permutation(number)[: 64 * lists]
        self.index.train(_rows(database, np.sort(sample)).float().numpy())
        for start in range(0, number, block := max(1, BLOCK // dimension)):
            self.index.add(_rows(database, slice(start, start + block)).float().numpy())
        self.index.nprobe = min(probes, lists)

    def candidates(self, queries: Tensor, k: int) -> Tensor:
        """(Q, D) -> (Q, k) int64 ids, about the best; −1 where the cells looked at hold no more."""
        return torch.from_numpy(self.index.search(queries.float().numpy(), min(k, self.number))[1])


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
    wanted = torch.as_tensor(np.asarray(queries)).double()
    if wanted.ndim != 2 or wanted.shape[1] != dimension or not wanted.isfinite().all():
        raise CkfrError(f"Queries have shape {tuple(wanted.shape)}; expected finite ones, (Q, {dimension}).")
    k = min(k, number)
    if approximate is None:
        return _exact(wanted, database, k)
    if approximate.number != number or approximate.index.d != dimension:
        raise CkfrError(f"The index is of {approximate.number} rows, not of these {number}; make it anew.")
    hits = Hits(torch.empty(len(wanted), k), torch.empty(len(wanted), k, dtype=torch.int64))
    for row, found in enumerate(approximate.candidates(wanted, SPARE * k)):
        near = found[found >= 0].sort().values
        if len(near) < k:  # the cells looked at hold too few
            best = _exact(wanted[row : row + 1], database, k)
        else:
            best = _first((wanted[row : row + 1] @ _rows(database, near.numpy()).T).float(), near[None], k)
        hits.scores[row], hits.ids[row] = best.scores[0], best.ids[0]
    return hits


def _exact(queries: Tensor, database: Vectors, k: int) -> Hits:
    best = Hits(torch.empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64))
    rows = max(256, BLOCK // max(queries.shape))
    for start in range(0, len(database), rows):
        # Sums in float64, rounded: equal rows score equally wherever they lie in a block.
        scores = (queries @ _rows(database, slice(start, start + rows)).T).float()
        block = _first(scores, torch.arange(start, start + rows)[None], k)
        # What was found before stands first, so ids rise wherever scores are equal.
        best = _first(*(torch.cat(parts, 1) for parts in zip(best, block, strict=True)), k)
    return best


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
    near, own = np.asarray(ids), torch.as_tensor(np.asarray(queries)).double()
    check_number("first", first, 0, near.shape[1], whole=True)
    joined = _rows(database, near[:, :first].ravel()).view(len(own), first, own.shape[1])
    return normalize(own + joined.sum(1), dim=1).float()


def _rows(database: Vectors, which: slice | np.ndarray) -> Tensor:
    """Some rows as float64, a copy: memory-mapped files are often read-only."""
    if isinstance(database, Tensor):
        return database[which].double()
    return torch.from_numpy(np.array(database[which], dtype=np.float64))


def _check_database(database: Vectors) -> tuple[int, int]:
    if database.ndim != 2 or not len(database):
        raise CkfrError(f"The database has shape {tuple(database.shape)}; expected (rows, numbers).")
    return database.shape[0], database.shape[1]

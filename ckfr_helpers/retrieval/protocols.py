"""How good a ranking is: average precision with junk, precision at k, hierarchical precision, ground truth.

Ids are whole numbers or names; a ranking holds them best first, each once, and need not hold all. Junk counts
neither for nor against a ranking: it is struck out first.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ckfr_helpers.runtime import CkfrError, check_number, load_plain_pickle

Ids = Iterable[int] | Iterable[str]
PROTOCOLS = ("easy", "medium", "hard")


class Truth(NamedTuple):
    """The ids of pictures that show a query's object: plainly, hardly, or too little to count."""

    easy: tuple[int, ...]
    hard: tuple[int, ...]
    junk: tuple[int, ...]

    def under(self, protocol: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Positives and junk under ``"easy"``, ``"medium"`` or ``"hard"``."""
        if protocol == "medium":
            return self.easy + self.hard, self.junk
        return (
            (self.easy, self.hard + self.junk) if protocol == "easy" else (self.hard, self.easy + self.junk)
        )


class Benchmark(NamedTuple):
    """The ground truth of a collection; names of pictures are without their endings."""

    names: tuple[str, ...]  # that the truths' ids count
    queries: tuple[str, ...]
    boxes: np.ndarray  # (Q, 4) x0, y0, x1, y1 of the object in each query, in pixels
    truths: tuple[Truth, ...]  # one a query


def average_precision(ranking: Ids, positives: Ids, junk: Ids = ()) -> float:
    """Area under precision over recall by trapezoids, as Oxford5k and its revision compute it.

    Radenović et al., "Revisiting Oxford and Paris" (CVPR 2018). A positive that the ranking lacks counts 0.

    Args:
        ranking, positives, junk: ids, best first; ids to be found; ids to be ignored.

    Returns:
        In [0, 1]; NaN without positives.

    Raises:
        CkfrError: if the ranking names an id twice.

    >>> average_precision([7, 3, 9, 4], [3, 4], junk=[7])
    0.7916666666666666
    """
    places, number = _places(ranking, positives, junk)
    before = np.arange(len(places))
    precision_before = np.where(places > 0, before / np.maximum(places, 1), 1.0)
    area = (precision_before + (before + 1) / (places + 1)).sum() / 2
    return float(area / number) if number else float("nan")


def precision_at(ranking: Ids, positives: Ids, k: int, junk: Ids = ()) -> float:
    """The share of positives among the first k, which the revisited evaluation cuts to the last one's rank.

    NaN without positives.
    """
    check_number("k", k, 1, whole=True)
    places, number = _places(ranking, positives, junk)
    if not number or not len(places):
        return 0.0 if number else float("nan")
    k = min(k, int(places[-1]) + 1)
    return float((places < k).sum() / k)


def _places(ranking: Ids, positives: Ids, junk: Ids) -> tuple[np.ndarray, int]:
    """Ranks of the positives from 0, junk struck out, and how many positives there are in all."""
    ranked, wanted, out = (
        np.asarray(ids if hasattr(ids, "__array__") else list(ids)) for ids in (ranking, positives, junk)
    )
    if ranked.ndim != 1 or len(np.unique(ranked)) < len(ranked):
        raise CkfrError("A ranking names each picture once, in one row; this one does not.")
    found, struck = (np.flatnonzero(np.isin(ranked, ids) & bool(ids.size)) for ids in (wanted, out))
    return found - np.searchsorted(struck, found), len(np.unique(wanted))


def evaluate(
    rankings: Iterable[Ids], truths: Sequence[Truth], ks: Sequence[int] = (1, 5, 10)
) -> dict[str, np.ndarray]:
    """Average precision and precision at ``ks`` of each query under the three revisited protocols.

    Easy: hard pictures are junk. Medium: both are wanted. Hard: easy pictures are junk.

    Returns:
        ``"ap_easy"``, ``"p@1_easy"``, … ``"p@10_hard"``: (Q,) each, NaN where a query has no positives under
        that protocol. Their means without NaN are mAP and mP@k.

    Raises:
        CkfrError: if rankings and truths are not equally many, or no query has a positive.
    """
    rankings = list(rankings)
    if len(rankings) != len(truths):
        raise CkfrError(f"There are {len(rankings)} rankings for {len(truths)} queries; expected one each.")
    if not any(truth.easy or truth.hard for truth in truths):
        raise CkfrError("No query has a positive picture; expected at least one.")
    found: dict[str, np.ndarray] = {}
    for protocol in PROTOCOLS:
        split = [truth.under(protocol) for truth in truths]
        cases = [(ranking, *one) for ranking, one in zip(rankings, split, strict=True)]
        found[f"ap_{protocol}"] = np.array([average_precision(*case) for case in cases])
        for k in ks:
            found[f"p@{k}_{protocol}"] = np.array([precision_at(r, p, k, junk) for r, p, junk in cases])
    return found


def hierarchical_precision(labels: ArrayLike, query_label: int, similarity: ArrayLike, k: int) -> float:
    """How alike the first k are to the query's class, over the best order's (Deng et al., CVPR 2011).

    Args:
        labels: (M,) classes of the ranked pictures, best first; all of them, since the best order is theirs.
        query_label: the query's class.
        similarity: (C, C) in [0, 1], e.g. 1 − the height of the lowest common ancestor / the tree's height.
        k: more than M gives M.

    Returns:
        In [0, 1]; NaN where nothing ranked is at all alike.

    Raises:
        CkfrError: for labels out of range, nothing ranked, or similarities outside [0, 1].
    """
    return float(_hierarchical_curve(labels, query_label, similarity, k)[-1])


def hierarchical_area(labels: ArrayLike, query_label: int, similarity: ArrayLike, k: int) -> float:
    """Area under `hierarchical_precision` over 1 … k by trapezoids, divided by k − 1: the best order has 1.

    Barz & Denzler (WACV 2019) report it for k = 250; their code divides by k. Arguments as there.
    """
    curve = _hierarchical_curve(labels, query_label, similarity, k)
    return float((curve[1:] + curve[:-1]).mean() / 2 if len(curve) > 1 else curve[0])


def _hierarchical_curve(labels: ArrayLike, query_label: int, similarity: ArrayLike, k: int) -> np.ndarray:
    """(min(k, M),) HP@1 … HP@k."""
    ranked, alike = np.asarray(labels), np.asarray(similarity, dtype=np.float64)
    check_number("k", k, 1, whole=True)
    if alike.ndim != 2 or len(set(alike.shape)) > 1 or not ((alike >= 0) & (alike <= 1)).all():
        raise CkfrError(f"Similarities have shape {alike.shape}; expected a square of numbers from 0 to 1.")
    if ranked.ndim != 1 or not len(ranked) or not np.issubdtype(ranked.dtype, np.integer):
        raise CkfrError(f"Labels have shape {ranked.shape}, {ranked.dtype}; expected whole numbers in a row.")
    low, high = min(ranked.min(), query_label), max(ranked.max(), query_label)
    if low < 0 or high >= len(alike):
        raise CkfrError(f"Labels run from {low} to {high}; expected 0 to {len(alike) - 1}.")
    gains = alike[query_label, ranked]
    sums, best = (np.cumsum(values)[:k] for values in (gains, np.sort(gains)[::-1]))
    return np.divide(sums, best, out=np.full(len(sums), np.nan), where=best > 0)


def read_truth(path: str | Path) -> Benchmark:
    """The ground truth in a folder of Oxford5k's text files, or in a ``gnd_*.pkl`` of the revisited sets."""
    return read_oxford(path) if Path(path).is_dir() else read_revisited(path)


def read_oxford(folder: str | Path, own_counts: bool = False) -> Benchmark:
    """The text ground truth of Oxford5k and Paris6k: ``NAME_query.txt``, ``_good``, ``_ok``, ``_junk``.

    Good and ok are easy here; hard does not occur. Pictures that no file names are distractors.

    Args:
        folder: where the files lie.
        own_counts: leave the query's own picture, which any method ranks first, among the positives, as most
            published numbers do. Otherwise it is junk.

    Raises:
        CkfrError: if there are no such files, or one is missing or malformed.
    """
    folder = Path(folder)
    files = sorted(folder.glob("*_query.txt"))
    if not files:
        raise CkfrError(f"{folder} holds no *_query.txt; expected the ground truth of Oxford5k or Paris6k.")
    queries, boxes, lists = [], [], []
    for file in files:
        name, *corners = _text(file).split() or [""]
        boxes.append(_box(corners, file))
        queries.append(name.removeprefix("oxc1_"))
        stem = file.name.removesuffix("_query.txt")
        lists.append([_text(folder / f"{stem}_{kind}.txt").split() for kind in ("good", "ok", "junk")])
    names = sorted({name for one in lists for kind in one for name in kind} | set(queries))
    number = {name: place for place, name in enumerate(names)}
    truths = []
    for query, (good, ok, junk) in zip(queries, lists, strict=True):
        easy = [name for name in good + ok if own_counts or name != query]
        own = [] if own_counts else [query]
        truths.append(Truth(*(tuple(number[name] for name in kind) for kind in (easy, [], junk + own))))
    return Benchmark(tuple(names), tuple(queries), np.array(boxes), tuple(truths))


def read_revisited(path: str | Path) -> Benchmark:
    """The ground truth of revisited Oxford and Paris, ``gnd_roxford5k.pkl`` or ``gnd_rparis6k.pkl``."""
    what = "the ground truth of a revisited set (gnd_roxford5k.pkl)"
    held = load_plain_pickle(path, what)
    try:
        names, queries = (tuple(map(str, held[key])) for key in ("imlist", "qimlist"))
        truths = [Truth(*(_ids(one[kind], len(names)) for kind in Truth._fields)) for one in held["gnd"]]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CkfrError(f"{path} is not {what} ({type(error).__name__}: {error}).") from error
    if len(queries) != len(truths):
        raise CkfrError(f"{path} has {len(queries)} queries and the truth of {len(truths)}; fetch it again.")
    boxes = np.array([_box(one.get("bbx", ()), path) for one in held["gnd"]])
    return Benchmark(names, queries, boxes, tuple(truths))


def _ids(values: Any, number: int) -> tuple[int, ...]:
    ids = tuple(int(value) for value in np.ravel(values))
    if any(not 0 <= one < number for one in ids):
        raise ValueError(f"an id outside 0 to {number - 1}")
    return ids


def _box(corners: Any, place: str | Path) -> np.ndarray:
    try:
        box = np.ravel(np.asarray(corners, dtype=np.float64))
    except ValueError:
        box = np.zeros(0)
    if box.shape != (4,) or not np.isfinite(box).all() or (box[2:] <= box[:2]).any():
        raise CkfrError(f"{place} has no box; expected x0 y0 x1 y1 with x0 < x1 and y0 < y1.")
    return box


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CkfrError(f"The file {path} cannot be read ({error}).") from error

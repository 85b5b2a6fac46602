"""WordNet 3.0 as a small table: enough to place every ImageNet class in a tree, offline.

``data/wordnet.tsv`` holds every noun synset that ImageNet has a class for (21,841 of them), all plants,
animals and foods, and every synset above those, each with *all* its hypernyms. ``tools/build_wordnet.py``
rebuilds it from WordNet's own files. A WordNet id ("wnid") is ``n`` and the eight-digit offset in
WordNet 3.0's noun file; WordNet 3.1 numbers its synsets differently, so its offsets do not fit.

**The rule.** In WordNet a synset may have several hypernyms: a dog is a *canine* and a *domestic animal*.
A tree allows one. We keep the hypernym that WordNet lists **first** (``rule="first"``). On ImageNet that one
is nearly always what the thing *is* (dog: canine; wheeled vehicle: vehicle), and the later ones are a role
it plays (dog: domestic animal; wheeled vehicle: container). The obvious alternative, the hypernym nearest to
the root (``rule="shortest"``), changes fewer distances, but it takes dogs away from wolves and puts cars
among the containers. Either way a synset's parent depends on nothing but the synset, so the path between two
classes is the same whichever other classes stand beside them.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from ckfr_helpers.runtime import CkfrError, data_root, project_file

if TYPE_CHECKING:
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

Rule = Literal["first", "shortest"]
ROOT = "n00001740"  # entity.n.01, above every noun


class Synset(NamedTuple):
    """One row of ``data/wordnet.tsv``."""

    wnid: str
    name: str  # the first lemma, with spaces
    hypernyms: tuple[str, ...]  # in WordNet's order; instance hypernyms included
    lists: tuple[str, ...]  # "imagenet", "cifar10:automobile", ...


# -- The table -----------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def synsets() -> Mapping[str, Synset]:
    """Every synset of ``data/wordnet.tsv``, by wnid.

    Raises:
        CkfrError: the file is missing or a row is malformed (the row is named).
    """
    path = project_file("wordnet.tsv")
    table: dict[str, Synset] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("#") or line.startswith("wnid\t"):
            continue
        fields = line.split("\t")
        if len(fields) != 4:
            raise CkfrError(
                f"Line {number} of {path} has {len(fields)} columns; expected 4, separated by tabs."
            )
        wnid, name, hypernyms, lists = fields
        table[wnid] = Synset(wnid, name, tuple(hypernyms.split()), tuple(lists.split()))
    return table


def synset(wnid: str) -> Synset:
    """One synset; CkfrError if the id is not in the table."""
    if (found := synsets().get(wnid)) is None:
        raise CkfrError(
            f"Unknown WordNet id {wnid!r}; expected a noun of WordNet 3.0 in data/wordnet.tsv, "
            "such as 'n02129165' (lion)."
        )
    return found


def find(text: str) -> tuple[str, ...]:
    """Ids of the synsets whose name is ``text`` (case and underscores do not matter), in id order."""
    wanted = text.replace("_", " ").casefold()
    return tuple(w for w, s in synsets().items() if s.name.casefold() == wanted)


def readable_names(wnids: Sequence[str]) -> tuple[str, ...]:
    """One readable, distinct name per id.

    ImageNet has two classes called *crane*; where a name is not unique among ``wnids`` its hypernym follows
    in brackets (``crane (wading bird)``), and where even that is not enough, the id.
    """
    names = [synset(w).name for w in wnids]
    for tail in (lambda s: synset(s.hypernyms[0]).name if s.hypernyms else s.wnid, lambda s: s.wnid):
        count = Counter(names)
        names = [
            f"{s.name} ({tail(s)})" if count[n] > 1 else n
            for n, s in zip(names, map(synset, wnids), strict=True)
        ]
    return tuple(names)


def class_list(name: str) -> tuple[str, ...]:
    """Ids of a dataset's classes in that dataset's label order.

    Args:
        name: ``"imagenet"`` (the 1000 classes of ILSVRC 2012), ``"mini-imagenet"`` (100),
            ``"tiny-imagenet"`` (200), ``"cifar10"`` or ``"cifar100"``. The ImageNet family is ordered by id,
            as torchvision and timm order it; CIFAR by its own class names. The CIFAR ids are this project's
            choice: see the table in ``tools/build_wordnet.py``.

    Raises:
        CkfrError: there is no such list.
    """
    return tuple(w for w, _ in _class_list(name))


def class_names(name: str) -> tuple[str, ...]:
    """The dataset's own class names, in label order (for ImageNet: readable WordNet names)."""
    own = tuple(n for _, n in _class_list(name))
    return own if all(own) else readable_names(class_list(name))


@lru_cache(maxsize=16)
def _class_list(name: str) -> tuple[tuple[str, str], ...]:
    members: list[tuple[str, str]] = []
    known: set[str] = set()
    for wnid, row in synsets().items():
        for entry in row.lists:
            listed, _, own = entry.partition(":")
            known.add(listed)
            if listed == name:
                members.append((wnid, own))
    if not members:
        raise CkfrError(f"No class list is called {name!r}; expected one of {', '.join(sorted(known))}.")
    return tuple(sorted(members, key=lambda m: (m[1], m[0])))


# -- From the graph to a tree --------------------------------------------------------------------


@cache
def _depth(wnid: str) -> int:
    above = synset(wnid).hypernyms
    return 1 + min(map(_depth, above)) if above else 0


def parent(wnid: str, rule: Rule = "first") -> str | None:
    """The one hypernym that the tree keeps, or None for the root.

    Args:
        wnid: a synset.
        rule: ``"first"``, the hypernym WordNet lists first (the default; this module's text says why), or
            ``"shortest"``, the hypernym with the fewest edges to the root, the first-listed of equals.
    """
    if rule not in ("first", "shortest"):
        raise CkfrError(f"No rule for the tree is called {rule!r}; expected 'first' or 'shortest'.")
    above = synset(wnid).hypernyms
    if not above:
        return None
    return above[0] if rule == "first" else min(above, key=_depth)  # min keeps the first of equals


def tree_pairs(wnids: Sequence[str], rule: Rule = "first") -> list[tuple[str, str]]:
    """(parent, child) ids of the tree that hangs all ``wnids`` on WordNet's root, *entity*.

    The chain from a class to the root is kept whole, also where an inner node has one child only: path
    lengths are then WordNet's own, and do not change when classes come or go.
    """
    pairs: list[tuple[str, str]] = []
    placed: set[str] = set()
    for wnid in wnids:
        chain = []
        node = wnid
        while node not in placed and (above := parent(node, rule)) is not None:
            placed.add(node)
            chain.append((above, node))
            node = above
        pairs.extend(reversed(chain))
    return pairs


# -- Distances in the graph itself ---------------------------------------------------------------


def ancestor_distances(wnid: str) -> dict[str, int]:
    """Fewest edges from a synset up to each of its ancestors in the graph, itself (0) included."""
    distance = {wnid: 0}
    queue = [wnid]
    for node in queue:
        for above in synset(node).hypernyms:
            if above not in distance:
                distance[above] = distance[node] + 1
                queue.append(above)
    return distance


def graph_distances(wnids: Sequence[str]) -> np.ndarray:
    """Shortest paths in WordNet's graph, before any rule: NLTK's ``shortest_path_distance`` for every pair.

    The path runs up from both synsets to a common ancestor; the nearest way over any ancestor counts.

    Args:
        wnids: C synsets.

    Returns:
        (C, C) float32, in edges, zero on the diagonal.
    """
    below: dict[str, list[tuple[int, int]]] = {}
    for index, wnid in enumerate(wnids):
        for above, edges in ancestor_distances(wnid).items():
            below.setdefault(above, []).append((index, edges))
    size = len(wnids)
    best = np.full((size, size), np.iinfo(np.int16).max, dtype=np.int16)  # (C, C)
    for members in below.values():
        index, edges = np.array(members, dtype=np.int16).T
        block = np.ix_(index, index)
        best[block] = np.minimum(best[block], edges[:, None] + edges[None, :])
    return best.astype(np.float32)


# -- WordNet's own files, for the builder and for comparison with NLTK ---------------------------


class Record(NamedTuple):
    """One noun synset of WordNet's ``data.noun``."""

    lemmas: tuple[str, ...]
    hypernyms: tuple[str, ...]


def read_database(folder: str | Path) -> dict[str, Record]:
    """Parse ``data.noun`` of a WordNet 3.0 folder (format: the manual page wndb(5WN)).

    Raises:
        CkfrError: no ``data.noun`` there, or it is another version's.
    """
    path = Path(folder) / "data.noun"
    if not path.is_file():
        raise CkfrError(f"{folder} holds no WordNet: expected the file data.noun of WordNet 3.0 in it.")
    records: dict[str, Record] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):  # the licence
            continue
        field = line.partition(" | ")[0].split()
        words = int(field[3], 16)
        lemmas = tuple(word.replace("_", " ") for word in field[4 : 4 + 2 * words : 2])
        pointers = field[5 + 2 * words :]
        above = tuple(
            f"n{pointers[i + 1]}"
            for i in range(0, 4 * int(field[4 + 2 * words]), 4)
            if pointers[i] in ("@", "@i")
        )
        records[f"n{field[0]}"] = Record(lemmas, above)
    if "lion" not in records.get("n02129165", Record((), ())).lemmas:
        raise CkfrError(f"{path} is not WordNet 3.0's: offset 02129165 should be the lion.")
    return records


def find_database() -> Path | None:
    """A WordNet 3.0 folder on this machine (``$CKFR_WORDNET``, ours, NLTK's, Debian's), or None."""
    places = [Path(os.environ["CKFR_WORDNET"])] if os.environ.get("CKFR_WORDNET") else []
    places.append(data_root() / "wordnet" / "corpora" / "wordnet")
    with contextlib.suppress(ImportError):  # NLTK is only needed for the comparison
        import nltk.data

        places += [Path(str(p)) / "corpora" / "wordnet" for p in nltk.data.path]
    places.append(Path("/usr/share/wordnet"))
    return next((place for place in places if (place / "data.noun").is_file()), None)


def nltk_wordnet() -> "WordNetCorpusReader | None":
    """NLTK's own reader over WordNet 3.0, or None where its files (or NLTK) are missing.

    ``ckfr fetch wordnet`` brings the files. NLTK 3.10 and later read corpora only from below
    ``nltk.data.path``, so our data folder is added to it.
    """
    try:
        import nltk
    except ImportError:
        return None
    ours = data_root() / "wordnet"
    if (ours / "corpora" / "wordnet").is_dir() and str(ours) not in nltk.data.path:
        nltk.data.path.insert(0, str(ours))
    try:
        nltk.corpus.wordnet.ensure_loaded()
    except LookupError:
        return None
    return nltk.corpus.wordnet

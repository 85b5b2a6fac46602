"""WordNet 3.0 as a small table: enough to place every ImageNet class in a tree, offline.

``data/wordnet.tsv`` (written by ``tools/build_wordnet.py``) holds ImageNet's 21,841 synsets, all plants,
animals and foods, and every synset above those, each with *all* its hypernyms. An id ("wnid") is ``n`` and
the eight-digit offset in WordNet 3.0's noun file; WordNet 3.1 numbers its synsets differently.

**The rule.** A synset may have several hypernyms; a tree allows one. We keep the one that WordNet lists
**first** (``rule="first"``): it is nearly always what the thing *is* (dog: canine), and later ones are a role
(dog: domestic animal). The hypernym nearest to the root (``rule="shortest"``) changes fewer distances, but
takes dogs away from wolves and puts cars among the containers. Either way a synset's parent depends on
nothing but the synset, so a path is the same whichever other classes stand by.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np

from ckfr_helpers.runtime import CkfrError, data_root, project_file

Rule = Literal["first", "shortest"]
ROOT = "n00001740"  # entity.n.01, above every noun


class Synset(NamedTuple):
    """One row of ``data/wordnet.tsv``."""

    wnid: str
    name: str  # the first lemma, with spaces
    hypernyms: tuple[str, ...]  # in WordNet's order; instance hypernyms included
    lists: tuple[str, ...]  # "imagenet", "cifar10:automobile", ...


@cache
def synsets() -> Mapping[str, Synset]:
    """Every synset of ``data/wordnet.tsv``, by wnid."""
    lines = project_file("wordnet.tsv").read_text(encoding="utf-8").splitlines()
    rows = (line.split("\t") for line in lines if not line.startswith(("#", "wnid\t")))
    return {wnid: Synset(wnid, name, tuple(up.split()), tuple(on.split())) for wnid, name, up, on in rows}


def synset(wnid: str) -> Synset:
    """One synset; CkfrError if the id is not in the table."""
    if (found := synsets().get(wnid)) is None:
        raise CkfrError(
            f"Unknown WordNet id {wnid!r}; expected a noun of data/wordnet.tsv, as n02129165, lion."
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
    """Ids of the classes of imagenet (ILSVRC 2012), mini- or tiny-imagenet, cifar10, cifar100, voc2007, coco.

    They stand in the label order used here: by id for ImageNet's, else by name. All but ImageNet's are this
    project's choice (``tools/build_wordnet.py``).
    """
    return tuple(wnid for _, wnid in _class_list(name))


def class_names(name: str) -> tuple[str, ...]:
    """The dataset's own class names, in label order (for ImageNet: readable WordNet names)."""
    own = tuple(word for word, _ in _class_list(name))
    return own if all(own) else readable_names(class_list(name))


@cache
def _class_list(name: str) -> list[tuple[str, str]]:
    listed = [(*entry.partition(":")[::2], row.wnid) for row in synsets().values() for entry in row.lists]
    members = sorted((own, wnid) for called, own, wnid in listed if called == name)
    if not members:
        known = ", ".join(sorted({called for called, *_ in listed}))
        raise CkfrError(f"No class list is called {name!r}; expected one of {known}.")
    return members


@cache
def _depth(wnid: str) -> int:
    above = synset(wnid).hypernyms
    return 1 + min(map(_depth, above)) if above else 0


def parent(wnid: str, rule: Rule = "first") -> str | None:
    """The one hypernym that the tree keeps, or None for the root; this module's text explains the rules."""
    if rule not in ("first", "shortest"):
        raise CkfrError(f"No rule for the tree is called {rule!r}; expected 'first' or 'shortest'.")
    above = synset(wnid).hypernyms
    if not above:
        return None
    return above[0] if rule == "first" else min(above, key=_depth)  # min keeps the first of equals


def tree_pairs(wnids: Sequence[str], rule: Rule = "first") -> list[tuple[str, str]]:
    """(parent, child) ids of the tree that hangs all ``wnids`` on *entity*, every chain whole."""
    pairs: list[tuple[str, str]] = []
    placed: set[str] = set()
    for node in wnids:
        chain = []
        while node not in placed and (above := parent(node, rule)) is not None:
            placed.add(node)
            chain.append((above, node))
            node = above
        pairs.extend(reversed(chain))
    return pairs


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
    """(C, C) float32 shortest paths in WordNet's graph over a common ancestor, as NLTK counts them."""
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


def nltk_wordnet() -> Any:
    """NLTK's own reader over WordNet 3.0, or None where the files are missing (``ckfr fetch wordnet``)."""
    import nltk

    ours = data_root() / "wordnet"
    # NLTK 3.10 and later read corpora only from below its own path.
    if (ours / "corpora" / "wordnet").is_dir() and str(ours) not in nltk.data.path:
        nltk.data.path.insert(0, str(ours))
    try:
        nltk.corpus.wordnet.ensure_loaded()
    except LookupError:
        return None
    return nltk.corpus.wordnet

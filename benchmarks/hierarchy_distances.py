"""All 499,500 distances between the 1000 ImageNet classes, each way against another library's same answers.

    python benchmarks/hierarchy_distances.py

Two comparisons, both of equal values; one that differs stops the run:

- ``wordnet.graph_distances`` against NLTK's ``Synset.shortest_path_distance``: shortest paths in WordNet's
  graph. NLTK is asked for a random sample of pairs, its synsets looked up and read beforehand, and the time
  is scaled to all pairs: the whole loop would take a minute and say the same.
- ``Hierarchy.distances("path")`` against networkx's breadth-first search from every class of the same tree.

Both sides take turns, in one process on one thread, and each is called once untimed before every timed call;
times are that process's CPU time and the ratio is of medians. Reading WordNet's table and building the tree
are timed apart. Writes benchmarks/results/hierarchy_distances.json.
"""

import argparse
import json
import math
import random
import statistics
import sys
from pathlib import Path
from typing import Any

import networkx
import nltk
import numpy as np
from measuring import in_turns, load

from ckfr_helpers.hierarchy import Hierarchy, wordnet
from ckfr_helpers.runtime import CkfrError, atomic_path, environment

RESULT = Path(__file__).parent / "results" / "hierarchy_distances.json"


def build_cold(wnids: tuple[str, ...]) -> Hierarchy:
    """The tree from nothing: the table of synsets is read and parsed again."""
    wordnet.synsets.cache_clear()
    return Hierarchy.from_wordnet(wnids)


def compare(what: str, against: str, times: dict[str, list[float]], scale: float = 1.0) -> dict[str, Any]:
    """One row: medians in milliseconds, their ratio, and the smallest and largest ratio of a turn."""
    theirs = [scale * seconds for seconds in times["theirs"]]
    ratios = [slow / fast for slow, fast in zip(theirs, times["ours"], strict=True)]
    ours_ms, theirs_ms = (1e3 * statistics.median(values) for values in (times["ours"], theirs))
    return {
        "what": what,
        "against": against,
        "ours_ms": ours_ms,
        "theirs_ms": theirs_ms,
        "times_faster": theirs_ms / ours_ms,
        "times_faster_in_single_turns": [min(ratios), max(ratios)],
        "turns": len(ratios),
    }


def against_nltk(wnids: tuple[str, ...], repeats: int, sampled: int) -> dict[str, Any]:
    """Shortest paths in WordNet's graph."""
    reader = wordnet.nltk_wordnet()
    if reader is None:
        raise CkfrError("NLTK has no WordNet 3.0 on this machine; run `ckfr fetch wordnet` first.")
    synsets = [reader.synset_from_pos_and_offset("n", int(wnid[1:])) for wnid in wnids]
    every = [(a, b) for a in range(len(wnids)) for b in range(a)]
    pairs = random.Random(0).sample(every, min(sampled, len(every)))

    def loop() -> list[int]:
        return [synsets[a].shortest_path_distance(synsets[b]) for a, b in pairs]

    matrix = wordnet.graph_distances(wnids)
    for (a, b), theirs in zip(pairs, loop(), strict=True):
        if matrix[a, b] != theirs:
            raise CkfrError(f"NLTK says {theirs} for {wnids[a]} and {wnids[b]}; we say {matrix[a, b]:g}.")
    times = in_turns({"ours": lambda: wordnet.graph_distances(wnids), "theirs": loop}, "cpu", repeats)
    return compare(
        f"shortest paths in WordNet's graph, {len(wnids)} ImageNet classes",
        f"NLTK {nltk.__version__}, Synset.shortest_path_distance pair by pair, equal values; timed on "
        f"{len(pairs)} sampled pairs and scaled to all {len(every)}",
        times,
        len(every) / len(pairs),
    )


def against_networkx(wnids: tuple[str, ...], repeats: int) -> dict[str, Any]:
    """Path lengths in the tree."""
    tree = Hierarchy.from_wordnet(wnids)
    graph = networkx.Graph(list(tree.parent.items()))

    def search() -> list[list[int]]:
        found = (networkx.single_source_shortest_path_length(graph, name) for name in wnids)
        return [[lengths[other] for other in wnids] for lengths in found]

    if not np.array_equal(search(), tree.distances("path")):
        raise CkfrError("networkx finds other path lengths in the tree.")
    times = in_turns({"ours": lambda: tree.distances("path"), "theirs": search}, "cpu", repeats)
    return compare(
        f"path lengths in the tree, {len(wnids)} ImageNet classes, tree given",
        f"networkx {networkx.__version__}, breadth-first search from every class, same tree, equal values",
        times,
    )


def measure(repeats: int, sampled: int, classes: int | None = None) -> dict[str, Any]:
    """Every number of the result file but the environment."""
    wnids = wordnet.class_list("imagenet")[:classes]
    works = {"from_the_file": lambda: build_cold(wnids), "table_read": lambda: Hierarchy.from_wordnet(wnids)}
    building = in_turns(works, "cpu", repeats)
    return {
        "classes": len(wnids),
        "pairs": math.comb(len(wnids), 2),
        "clock": "CPU time of one thread, medians of turns",
        "rows": [against_nltk(wnids, repeats, sampled), against_networkx(wnids, repeats)],
        "building_the_tree_ms": {name: 1e3 * statistics.median(times) for name, times in building.items()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7, help="timed turns (default 7)")
    parser.add_argument("--pairs", type=int, default=1000, help="sampled pairs of NLTK's side (default 1000)")
    parser.add_argument("--classes", type=int, help="the first so many only, to try it; writes nothing")
    arguments = parser.parse_args()
    before = load()
    try:
        result = measure(arguments.repeats, arguments.pairs, arguments.classes)
    except CkfrError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(result, indent=1))
    if arguments.classes is None:
        made = {"environment": environment() | {"load": {"before": before, "after": load()}}}
        with atomic_path(RESULT) as path:
            path.write_text(json.dumps(made | result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

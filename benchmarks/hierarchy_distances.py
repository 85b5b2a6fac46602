"""All 499,500 distances between the 1000 ImageNet classes, against NLTK's own path distance pair by pair.

    python benchmarks/hierarchy_distances.py

Our side is the full (1000, 1000) matrix of ``Hierarchy.distances("path")``. Building the tree is timed apart,
from nothing: ``data/wordnet.tsv`` is read and parsed again each time. The other side calls NLTK's
``Synset.shortest_path_distance`` for a random sample of pairs, its synsets looked up and read beforehand, and
the mean over the sample is scaled to all pairs: the whole loop would take a minute and say the same.
Everything runs in one process on one thread. Times are that thread's CPU time, and each side counts with the
fastest of its repeats, so that whatever else keeps the machine busy favours neither.

NLTK measures in WordNet's graph and we in a tree, so the values need not agree; a third timing is of
``wordnet.graph_distances``, ours in the graph, whose values must equal NLTK's on every sampled pair; one that
does not stops the run. Writes benchmarks/results/hierarchy_distances.json.
"""

import argparse
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nltk
import numpy as np

from ckfr_helpers.hierarchy import Hierarchy, wordnet
from ckfr_helpers.runtime import CkfrError, atomic_path, environment

RESULT = Path(__file__).parent / "results" / "hierarchy_distances.json"


def seconds(work: Callable[[], object], repeats: int) -> list[float]:
    """CPU seconds of each of ``repeats`` calls."""
    times = []
    for _ in range(repeats):
        start = time.thread_time()
        work()
        times.append(time.thread_time() - start)
    return times


def build_cold(wnids: tuple[str, ...]) -> Hierarchy:
    """The tree from nothing: the table of synsets is read and parsed again."""
    wordnet.synsets.cache_clear()
    return Hierarchy.from_wordnet(wnids)


def sample_pairs(size: int, count: int, seed: int) -> list[tuple[int, int]]:
    """``count`` distinct unordered pairs of different classes, drawn uniformly."""
    every = [(a, b) for a in range(size) for b in range(a)]
    return random.Random(seed).sample(every, count)


def time_nltk(wnids: tuple[str, ...], pairs: list[tuple[int, int]]) -> tuple[list[float], list[int]]:
    """NLTK's path distance for every pair: CPU seconds of the fastest of three calls, and the value."""
    reader = wordnet.nltk_wordnet()
    if reader is None:
        raise CkfrError("NLTK has no WordNet 3.0 on this machine; run `ckfr fetch wordnet` first.")
    synsets = [reader.synset_from_pos_and_offset("n", int(wnid[1:])) for wnid in wnids]
    for synset in synsets:  # NLTK reads synsets from its file when first asked, and keeps them
        synset.shortest_path_distance(synsets[0])
    times, values = [], []
    for a, b in pairs:
        times.append(min(seconds(lambda a=a, b=b: synsets[a].shortest_path_distance(synsets[b]), 3)))
        values.append(synsets[a].shortest_path_distance(synsets[b]))
    return times, values


def measure(repeats: int, count: int, seed: int) -> dict[str, object]:
    """Every number of the result file but the environment."""
    wnids = wordnet.class_list("imagenet")
    all_pairs = math.comb(len(wnids), 2)
    pairs = sample_pairs(len(wnids), count, seed)
    times, values = time_nltk(wnids, pairs)  # first: it says at once if the files are missing

    cold = seconds(lambda: build_cold(wnids), repeats)
    tree = Hierarchy.from_wordnet(wnids)
    first = seconds(lambda: Hierarchy.from_wordnet(wnids).distances("path"), repeats)
    matrix = seconds(lambda: tree.distances("path"), repeats)
    graph = seconds(lambda: wordnet.graph_distances(wnids), repeats)

    rows, columns = np.array(pairs).T
    in_graph = wordnet.graph_distances(wnids)[rows, columns]
    in_tree = tree.distances("path")[rows, columns]
    for (a, b), ours, theirs in zip(pairs, in_graph, values, strict=True):
        if ours != theirs:
            raise CkfrError(f"NLTK says {theirs} for {wnids[a]} and {wnids[b]}, our graph distance {ours:g}.")

    mean = statistics.fmean(times)
    loop = mean * all_pairs
    tree_s, matrix_s = min(cold), min(matrix)
    return {
        "classes": len(wnids),
        "pairs": all_pairs,
        "clock": "CPU time of the one thread",
        "ours": {
            "build_tree_cold_ms": 1e3 * tree_s,
            "matrix_ms": 1e3 * matrix_s,
            "build_tree_warm_and_matrix_ms": 1e3 * min(first),
            "graph_matrix_ms": 1e3 * min(graph),
            "repeats": repeats,
            "statistic": "fastest",
        },
        "nltk": {
            "call": "Synset.shortest_path_distance",
            "version": nltk.__version__,
            "sampled_pairs": count,
            "seed": seed,
            "mean_us_per_pair": 1e6 * mean,
            "standard_error_us": 1e6 * statistics.stdev(times) / math.sqrt(count),
            "loop_over_all_pairs_s": loop,
            "how": "fastest of 3 calls a pair, mean over the sampled pairs, scaled to all pairs",
        },
        "times_faster": {
            "matrix": loop / matrix_s,
            "tree_built_from_the_file_and_matrix": loop / (tree_s + matrix_s),
            "graph_matrix": loop / min(graph),
        },
        "sampled_pairs_where_graph_and_nltk_agree": count,
        "sampled_pairs_longer_in_the_tree": int((in_tree > in_graph).sum()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5, help="timed repeats of our side (default 5)")
    parser.add_argument("--pairs", type=int, default=1000, help="sampled pairs of NLTK's side (default 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default 0)")
    arguments = parser.parse_args()
    try:
        result = measure(arguments.repeats, arguments.pairs, arguments.seed)
    except CkfrError as error:
        print(error, file=sys.stderr)
        return 2
    with atomic_path(RESULT) as path:
        path.write_text(json.dumps({"environment": environment(), **result}, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return 0 if result["times_faster"]["matrix"] >= 100 else 1


if __name__ == "__main__":
    sys.exit(main())

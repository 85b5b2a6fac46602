"""Search and indexing: top-k against sorting all, approximate against exact search, pictures a second.

    python benchmarks/search_speed.py

Times are CPU times of one thread, medians over turns; so that of a busy machine little shows. Vectors are
synthetic: clusters of 200 on the unit sphere, which real descriptors of a large collection resemble only
roughly. Pictures are noise of the size of photographs, as JPEG, through EfficientNet-Lite0 at 448 pixels;
their time is that of all threads together. Writes benchmarks/results/search_speed.json.
"""

import argparse
import json
import tempfile
from pathlib import Path

import faiss
import numpy as np
import torch
from measuring import load, median_seconds
from PIL import Image

from ckfr_helpers.models import build_model
from ckfr_helpers.retrieval.collection import build
from ckfr_helpers.retrieval.search import ApproximateIndex, recall, search
from ckfr_helpers.runtime import atomic_path, environment

RESULT = Path(__file__).parent / "results" / "search_speed.json"
SEED, DIMENSION, CLUSTER, K = 0, 128, 200, 100


def clustered(rows: int, queries: int) -> tuple[np.ndarray, np.ndarray]:
    """Database (rows, 128) and queries (queries, 128), float32 of unit length; each query from a cluster."""
    draw = np.random.default_rng(SEED)
    centres = draw.standard_normal((max(1, rows // CLUSTER), DIMENSION), dtype=np.float32)
    members = draw.integers(0, len(centres), rows + queries)
    vectors = centres[members]
    vectors += 0.8 * draw.standard_normal(vectors.shape, dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors[:rows], vectors[rows:]


def sort_all(queries: np.ndarray, database: np.ndarray) -> np.ndarray:
    """The k best by sorting every score."""
    return np.argsort(-(queries @ database.T), axis=1)[:, :K]


def top_k(rows: int, repeats: int) -> dict:
    """Exact search against a full sort of the same scores; selection alone; one query after the other."""
    database, queries = clustered(rows, 20)
    scores = torch.from_numpy(queries @ database.T)
    works = {
        "search": lambda: search(queries, database, K),
        "argsort": lambda: sort_all(queries, database),
        "single_argsort": lambda: [sort_all(query[None], database) for query in queries],
        "only_topk": lambda: scores.topk(2 * K + 16),
        "only_argsort": lambda: np.argsort(-scores.numpy(), axis=1),
    }
    seconds = median_seconds(works, "cpu", repeats)
    per_query = {f"{name}_ms_per_query": 1e3 * value / len(queries) for name, value in seconds.items()}
    return {"rows": rows, "queries": len(queries), **per_query} | {
        "times_faster_than_argsort": seconds["argsort"] / seconds["search"],
        "times_faster_than_argsort_one_by_one": seconds["single_argsort"] / seconds["search"],
        "selection_times_faster": seconds["only_argsort"] / seconds["only_topk"],
        "same_ids": recall(search(queries, database, K).ids, sort_all(queries, database)),
    }


def approximate(rows: int, repeats: int, probes: int) -> dict:
    """Approximate against exact search of the same database."""
    database, queries = clustered(rows, 100)
    found: dict = {}
    index: list[ApproximateIndex] = []
    building = median_seconds(
        {"build": lambda: index.append(ApproximateIndex(database, probes=probes))}, "cpu", 1, 0
    )
    works = {
        "exact": lambda: found.update(exact=search(queries, database, K)),
        "approximate": lambda: found.update(approximate=search(queries, database, K, index[0])),
    }
    seconds = median_seconds(works, "cpu", repeats)
    return {
        "rows": rows,
        "probes": probes,
        "lists": index[0].index.nlist,
        "build_seconds": building["build"],
        "index_mb": faiss.serialize_index(index[0].index).nbytes / 2**20,
        "recall_at_100": recall(found["approximate"].ids, found["exact"].ids),
        "exact_ms_per_query": 1e3 * seconds["exact"] / len(queries),
        "approximate_ms_per_query": 1e3 * seconds["approximate"] / len(queries),
        "times_faster_than_exact": seconds["exact"] / seconds["approximate"],
    }


def indexing(sizes: list[int]) -> list[dict]:
    """Pictures described a second of CPU time, for collections of two sizes."""
    model, draw, rows = build_model("efficientnet_lite0", None), np.random.default_rng(SEED), []
    with tempfile.TemporaryDirectory() as scratch:
        for count in sizes:
            folder = Path(scratch) / f"pictures {count}"
            folder.mkdir()
            for number in range(count):
                coarse = Image.fromarray(draw.integers(0, 256, (24, 32, 3), dtype=np.uint8))
                coarse.resize((1024, 768)).save(folder / f"{number}.jpg", quality=90)
            out = folder.with_name(f"collection {count}")
            work = {"build": lambda folder=folder, out=out: build(folder, out, model, progress=False)}
            seconds = median_seconds(work, "cpu", 1, 0)["build"]
            rows.append({"pictures": count, "pictures_per_second": count / seconds})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7, help="timed turns (default 7)")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of approximate search")
    parser.add_argument("--probes", type=int, default=64, help="cells that a query looks at (default 64)")
    parser.add_argument("--pictures", type=int, nargs="+", default=[60, 240], help="sizes of collections")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    before = load()
    result: dict = {"top_k": top_k(200_000, arguments.repeats)}
    print(json.dumps(result["top_k"], indent=1))
    result["approximate"] = approximate(arguments.rows, arguments.repeats, arguments.probes)
    print(json.dumps(result["approximate"], indent=1))
    result["indexing"] = indexing(arguments.pictures)
    print(json.dumps(result["indexing"], indent=1))
    settings = {"dimension": DIMENSION, "cluster": CLUSTER, "noise": 0.8, "k": K, "seed": SEED, "threads": 1}
    settings |= {"repeats": arguments.repeats, "load_before": before, "load_after": load()}
    about = environment() | {"faiss": faiss.__version__}
    with atomic_path(RESULT) as path:
        path.write_text(json.dumps({"environment": about, "settings": settings, **result}, indent=1) + "\n")


if __name__ == "__main__":
    main()

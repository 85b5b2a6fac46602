"""How many scenes a second come out of a loader.

    python benchmarks/scene_throughput.py

Every pass reads through a plain DataLoader: each scene is composed afresh and collated into batches. Places
and cut-outs are loaded, and the workers have delivered their first batches, before the clock starts. Writes
benchmarks/results/scene_throughput.json. Needs the photographs (`ckfr fetch photos`).
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from ckfr_helpers.datasets.base import Example
from ckfr_helpers.datasets.loading import seed_worker
from ckfr_helpers.datasets.scenes import PhotoScenes
from ckfr_helpers.runtime import atomic_path, environment, num_workers

RESULT = Path(__file__).parent / "results" / "scene_throughput.json"
WARM_UP = 8  # batches


def collate(examples: list[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, 3, H, W) uint8 and (B,) int64."""
    return torch.stack([one.image for one in examples]), torch.tensor([one.label for one in examples])


def through_loader(source: PhotoScenes, workers: int, batch: int) -> float:
    """Scenes a second, once the loader is warm."""
    loader = DataLoader(
        source, batch, num_workers=workers, collate_fn=collate, worker_init_fn=seed_worker, drop_last=True
    )
    start, seen = 0.0, 0
    for number, (images, _) in enumerate(loader):
        if number == WARM_UP:
            start = time.perf_counter()
        elif number > WARM_UP:
            seen += len(images)
    return seen / (time.perf_counter() - start)


def on_one_core(source: PhotoScenes, scenes: int) -> float:
    """Milliseconds of processor time for one scene, in this process."""
    for index in range(64):
        source[index]
    start = time.process_time()
    for index in range(scenes):
        source[index]
    return (time.process_time() - start) / scenes * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--scenes", type=int, default=4800)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=num_workers(most=2))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seed_worker(0)  # one thread for OpenCV here too
    source = PhotoScenes("train", size=arguments.size, scenes=arguments.scenes, background_bias=0.9)
    load_before = os.getloadavg()[0]
    rates = [through_loader(source, arguments.workers, arguments.batch) for _ in range(arguments.repeats)]
    results = {
        "environment": environment(),
        "settings": {
            key: getattr(arguments, key) for key in ("size", "scenes", "batch", "workers", "repeats")
        }
        | {"seed": source.seed, "background_bias": source.background_bias},
        "scenes_per_second": {"median": statistics.median(rates), "runs": rates},
        "milliseconds_per_scene_on_one_core": on_one_core(source, 960),
        "load_average_before": load_before,
    }
    with atomic_path(arguments.output) as temporary:
        temporary.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()

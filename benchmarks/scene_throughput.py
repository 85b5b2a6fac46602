"""How many scenes a second come out of a loader.

    python benchmarks/scene_throughput.py

Every pass reads through a plain DataLoader: each scene is composed afresh and collated into batches. Places
and cut-outs are loaded, and the workers have delivered their first batches, before the clock starts. Writes
benchmarks/results/scene_throughput.json. Needs the photographs (`ckfr fetch photos`).
"""

import argparse
import json
import os
import resource
import statistics
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from ckfr_helpers.datasets.base import Example
from ckfr_helpers.datasets.loading import single_thread
from ckfr_helpers.datasets.scenes.single import PhotoScenes
from ckfr_helpers.runtime import atomic_path, environment, num_workers

RESULT = Path(__file__).parent / "results" / "scene_throughput.json"
WARM_UP = 8  # batches


def collate(examples: list[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, 3, H, W) uint8 and (B,) int64."""
    images, targets = zip(*examples, strict=True)
    return torch.stack(images), torch.tensor([target["label"] for target in targets])


def processor_seconds() -> float:
    """Used so far by this process and by those that it started and that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def through_loader(source: PhotoScenes, workers: int, batch: int) -> tuple[float, float]:
    """Scenes a second, once the loader is warm, and processor milliseconds a scene in all processes together.

    The second figure includes starting the workers; other people's work on the machine does not change it.
    """
    used = processor_seconds()
    loader = DataLoader(
        source,
        batch,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=single_thread,
        drop_last=True,
    )
    start, seen = 0.0, 0
    for number, (images, _) in enumerate(loader):
        if number == WARM_UP:
            start = time.perf_counter()
        elif number > WARM_UP:
            seen += len(images)
    rate = seen / (time.perf_counter() - start)
    del loader  # its workers end, and their time counts
    return rate, (processor_seconds() - used) / len(source) * 1000


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
    single_thread()  # one thread for OpenCV here too
    source = PhotoScenes("train", size=arguments.size, scenes=arguments.scenes, background_bias=0.9)
    load_before = os.getloadavg()[0]
    runs = [through_loader(source, arguments.workers, arguments.batch) for _ in range(arguments.repeats)]
    rates, costs = zip(*runs, strict=True)
    results = {
        "environment": environment(),
        "settings": {
            key: getattr(arguments, key) for key in ("size", "scenes", "batch", "workers", "repeats")
        }
        | {"seed": source.seed, "background_bias": source.background_bias},
        "scenes_per_second": {"median": statistics.median(rates), "runs": rates},
        "processor_milliseconds_per_scene": {"median": statistics.median(costs), "runs": costs},
        "milliseconds_per_scene_on_one_core": on_one_core(source, 960),
        # Others' work on the machine lowers the rate; the processor times hardly notice it.
        "load_average_before": load_before,
    }
    with atomic_path(arguments.output) as temporary:
        temporary.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()

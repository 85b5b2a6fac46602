"""Batched class maps and pooling, one einsum each, against loops over pictures, classes and channels.

    python benchmarks/pooling_speed.py

The loops do what the published code of class-weighted features (Jimenez et al., BMVC 2017) does in NumPy: add
up a map channel by channel, and sum one product for every channel and class. Both sides take turns in one
process on one thread, and run once untimed before every timed call. Times are the process's CPU time, ratios
are of medians. Writes benchmarks/results/pooling_speed.json.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import in_turns, keep_memory, load

from ckfr_helpers.retrieval.descriptors import channel_weights, class_maps, class_weighted_descriptors
from ckfr_helpers.runtime import atomic_path, environment

RESULT = Path(__file__).parent / "results" / "pooling_speed.json"
CLASSES, SIDE, PICTURES = 64, 14, 4


def looped_maps(features: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(B, C, H, W), (N, C) -> (B, N, H, W)."""
    maps = np.zeros((len(features), len(weight), *features.shape[2:]), np.float32)
    for picture in range(len(features)):
        for number, row in enumerate(weight):
            one = np.zeros(features.shape[2:], np.float32)
            for channel, value in enumerate(row):
                one += value * features[picture, channel]
            one /= one.max()
            one[one < 0] = 0
            maps[picture, number] = one
    return maps


def looped_pooling(features: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """(B, C, H, W), (B, N, H, W) -> (B, N, C), times channel weights."""
    pictures, channels = features.shape[:2]
    vectors = np.zeros((pictures, maps.shape[1], channels), np.float32)
    for picture in range(pictures):
        shares = np.array([np.count_nonzero(one) / one.size for one in features[picture]])
        weights = [np.log(shares.sum() / share) if share else 0.0 for share in shares]
        for channel in range(channels):
            for number in range(maps.shape[1]):
                product = np.multiply(features[picture, channel], maps[picture, number])
                vectors[picture, number, channel] = weights[channel] * product.sum()
    return vectors


def compare(channels: int, repeats: int) -> dict[str, Any]:
    """One row; run it in a fresh process."""
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(PICTURES, channels, SIDE, SIDE, generator=draw).relu()
    weight, classes = torch.randn(CLASSES, channels, generator=draw), torch.arange(CLASSES)
    maps = class_maps(features, weight, classes)
    array, rows, shown = features.numpy(), weight.numpy(), maps.numpy()

    works = {
        "maps": lambda: class_maps(features, weight, classes),
        "pooling": lambda: class_weighted_descriptors(features, maps) * channel_weights(features)[:, None],
        "looped maps": lambda: looped_maps(array, rows),
        "looped pooling": lambda: looped_pooling(array, shown),
    }
    gaps = []
    for part in ("maps", "pooling"):
        ours, theirs = works[part]().numpy(), works[f"looped {part}"]()
        gaps.append(float(np.abs(ours - theirs).max() / np.abs(theirs).max()))
    times = {name: statistics.median(seconds) for name, seconds in in_turns(works, "cpu", repeats).items()}
    return {
        "what": f"{CLASSES} class maps and their weighted pooling, {SIDE} x {SIDE} places",
        "against": "loops over pictures, classes, channels in NumPy, same features and thread, memory warm",
        "pictures, channels": [PICTURES, channels],
        "milliseconds": {name: 1e3 * seconds for name, seconds in times.items()},
        "maps_times_faster": times["looped maps"] / times["maps"],
        "pooling_times_faster": times["looped pooling"] / times["pooling"],
        "largest_relative_differences_of_maps_and_pooling": gaps,
        "turns": repeats,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7, help="timed turns (default 7)")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)  # runs in a process of its own
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(compare(arguments.one, arguments.repeats)))
        return
    before, found = load(), []
    for channels in (1280, 2048):
        command = [sys.executable, __file__, f"--one={channels}", f"--repeats={arguments.repeats}"]
        found.append(json.loads(subprocess.check_output(command, text=True, env=keep_memory())))
        print(json.dumps(found[-1], indent=1), flush=True)
    result = {"environment": environment() | {"load": {"before": before, "after": load()}}, "rows": found}
    with atomic_path(RESULT) as path:
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

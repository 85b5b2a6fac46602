"""The exact loss against brute-force broadcasting over all triplets, and its memory at B = 4096.

    python benchmarks/loss_speed.py

Both sides get the same distances, in the same run, and compute value and gradient; the ratio is of median
times. Writes benchmarks/results/loss_speed.json.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ckfr_helpers.losses import AlignedTripletLoss, aligned_triplet_loss, latent_distances
from ckfr_helpers.runtime import atomic_path, environment

RESULT = Path(__file__).parent / "results" / "loss_speed.json"


def broadcast_loss(latent: Tensor, knowledge: Tensor) -> Tensor:
    """The definition, written with broadcasting: O(B³) time and memory."""
    size = len(latent)
    d_ap, d_an = latent[:, :, None], latent[:, None, :]  # (B, B, 1), (B, 1, B)
    delta_ap, delta_an = knowledge[:, :, None], knowledge[:, None, :]
    same = torch.eye(size, dtype=torch.bool)
    distinct = ~(same[:, :, None] | same[:, None, :] | same[None])  # (B, B, B)
    return ((d_ap * delta_an - d_an * delta_ap).abs() * distinct).sum() / distinct.sum()


def make_batch(size: int, features: int = 64, classes: int = 100) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (size,), generator=generator)
    heights = torch.randint(1, 14, (classes, classes), generator=generator).float()
    distances = ((heights + heights.T) / 2).fill_diagonal_(0)
    return torch.randn(size, features, generator=generator), labels, distances


def timed(loss: Callable[[Tensor, Tensor], Tensor], latent: Tensor, knowledge: Tensor, repeats: int):
    """Median seconds of value and gradient, after one warm-up, with the last value and gradient."""
    seconds = []
    for _ in range(repeats + 1):
        leaf = latent.clone().requires_grad_()
        start = time.perf_counter()
        value = loss(leaf, knowledge)
        value.backward()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:]), value.item(), leaf.grad


def compare(size: int, repeats: int) -> dict[str, float]:
    latents, labels, distances = make_batch(size)
    latent, knowledge = latent_distances(latents), distances[labels][:, labels]
    ours, value, gradient = timed(aligned_triplet_loss, latent, knowledge, repeats * 5)
    brute, expected, reference = timed(broadcast_loss, latent, knowledge, repeats)
    return {
        "batch": size,
        "triplets": size * (size - 1) * (size - 2),
        "exact_ms": 1e3 * ours,
        "broadcast_ms": 1e3 * brute,
        "times_faster": brute / ours,
        "value_relative_difference": abs(value - expected) / expected,
        "gradient_relative_difference": float((gradient - reference).norm() / reference.norm()),
    }


def peak_memory(size: int, features: int) -> dict[str, float]:
    """Peak resident memory of one forward and backward, above what Python and torch take by themselves."""
    latents, labels, distances = make_batch(size, features)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    leaf = latents.requires_grad_()
    AlignedTripletLoss(20, 1.2, distances)(leaf, labels).backward()
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "batch": size,
        "features": features,
        "triplets": size * (size - 1) * (size - 2),
        "seconds": seconds,
        "peak_resident_gb": after / 2**20,
        "added_by_the_loss_gb": (after - before) / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7, help="timed repeats of the slow side (default 7)")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)  # run in a process of its own
    arguments = parser.parse_args()
    if arguments.peak:
        print(json.dumps(peak_memory(arguments.peak, features=128)))
        return
    rows = [compare(size, arguments.repeats) for size in (128, 256)]
    for row in rows:
        print(f"B = {row['batch']}: {row['times_faster']:.0f} times faster than broadcasting")
    large = json.loads(subprocess.check_output([sys.executable, __file__, "--peak", "4096"], text=True))
    print(f"B = 4096: peak {large['peak_resident_gb']:.2f} GB resident, {large['seconds']:.1f} s")
    with atomic_path(RESULT) as path:
        result = {"environment": environment(), "against_broadcasting": rows, "large_batch": large}
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

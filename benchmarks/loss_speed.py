"""The exact loss against brute-force broadcasting over all triplets, and its memory at B = 4096.

    python benchmarks/loss_speed.py

Both sides get the same distances, compute value and gradient, and take turns in one process on one thread.
Each is called once untimed before every timed call, and the process keeps the memory it frees
(`measuring.keep_memory`), so that neither pays for cold caches or new pages; broadcasting would, for its
(B, B, B) arrays. Times are the process's CPU time, the ratio is of medians. Writes
benchmarks/results/loss_speed.json.
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
from typing import Any

import torch
from measuring import in_turns, keep_memory, load
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


def compare(size: int, repeats: int) -> dict[str, Any]:
    """One row; run it in a fresh process."""
    torch.set_num_threads(1)
    latents, labels, distances = make_batch(size)
    latent, knowledge = latent_distances(latents), distances[labels][:, labels]

    def run(loss: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        leaf = latent.clone().requires_grad_()
        value = loss(leaf, knowledge)
        value.backward()
        return value.detach(), leaf.grad

    (value, gradient), (expected, reference) = run(aligned_triplet_loss), run(broadcast_loss)
    works = {"ours": lambda: run(aligned_triplet_loss), "theirs": lambda: run(broadcast_loss)}
    times = in_turns(works, "cpu", repeats)
    ratios = [slow / fast for slow, fast in zip(times["theirs"], times["ours"], strict=True)]
    ours, theirs = (statistics.median(times[side]) for side in ("ours", "theirs"))
    return {
        "what": "exact loss and gradient over all ordered triplets, from distances",
        "against": "the definition by broadcasting over (B, B, B), same distances, same thread, memory warm",
        "batch": size,
        "triplets": size * (size - 1) * (size - 2),
        "exact_ms": 1e3 * ours,
        "broadcast_ms": 1e3 * theirs,
        "times_faster": theirs / ours,
        "times_faster_in_single_turns": [min(ratios), max(ratios)],
        "turns": repeats,
        "value_relative_difference": float((value - expected).abs() / expected),
        "gradient_relative_difference": float((gradient - reference).norm() / reference.norm()),
    }


def peak_memory(size: int, features: int) -> dict[str, Any]:
    """Peak resident memory of one forward and backward, above what Python and torch take by themselves."""
    latents, labels, distances = make_batch(size, features)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    leaf = latents.requires_grad_()
    AlignedTripletLoss(20, 1.2, distances)(leaf, labels).backward()
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "what": "peak of memory of one value and gradient, from latents",
        "against": "the same process before it",
        "batch": size,
        "features": features,
        "triplets": size * (size - 1) * (size - 2),
        "seconds": seconds,
        "peak_resident_gb": after / 2**20,
        "added_by_the_loss_gb": (after - before) / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=9, help="timed turns (default 9)")
    parser.add_argument("--batch", type=int, nargs="+", help="other sizes, to try it; writes nothing")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)  # these two run in a process of their own
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one or arguments.peak:
        row = compare(arguments.one, arguments.repeats) if arguments.one else peak_memory(arguments.peak, 128)
        print(json.dumps(row))
        return

    def fresh(*options: object, **settings: Any) -> dict[str, Any]:
        command = [sys.executable, __file__, *map(str, options), "--repeats", str(arguments.repeats)]
        return json.loads(subprocess.check_output(command, text=True, **settings))

    before, rows = load(), []
    for size in arguments.batch or (128, 256):
        rows.append(fresh("--one", size, env=keep_memory()))
        print(f"B = {size}: {rows[-1]['times_faster']:.0f} times faster than broadcasting", flush=True)
    if arguments.batch:
        return
    large = fresh("--peak", 4096)
    print(f"B = 4096: peak {large['peak_resident_gb']:.2f} GB resident, {large['seconds']:.1f} s")
    result = {
        "environment": environment() | {"load": {"before": before, "after": load()}},
        "against_broadcasting": rows,
        "large_batch": large,
    }
    with atomic_path(RESULT) as path:
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

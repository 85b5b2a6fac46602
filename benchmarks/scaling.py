"""Time and memory of the loss and of a whole step as batch and number of classes grow.

    python benchmarks/scaling.py                                       # this machine's CPU, one thread
    python benchmarks/scaling.py --device cuda --model wide_resnet50_2 --size 224 --batch 32 64 128 256 512

Expected: the loss sorts B rows of B numbers, O(B² log B) time and O(B²) memory, after O(B² D) for the
distances of latents of D features; the number of classes enters nowhere but in a (C, C) table. The network is
O(B) in both. Every size runs in a process of its own; the first run of each gives the peak of memory.
Seconds on a CPU are the process's own, so that other work on the machine counts little. Writes
benchmarks/results/scaling_<device>.json, which `plots.scaling.scaling_figure` draws.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from measuring import added_memory, classification_task, in_fresh_process, load, median_seconds

from ckfr_helpers.runtime import atomic_path, environment

RESULTS = Path(__file__).parent / "results"


def measure_loss(device: str, size: int, classes: int, features: int, repeats: int) -> dict[str, Any]:
    """Value and gradient of the metric term alone, from latents."""
    import torch

    from ckfr_helpers.losses import AlignedTripletLoss

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(size, features, generator=generator).to(device).requires_grad_()
    labels = torch.randint(classes, (size,), generator=generator).to(device)
    loss = AlignedTripletLoss(20, 1.2, random_distances(classes)).to(device)

    def work() -> None:
        latents.grad = None
        loss(latents, labels).backward()

    loss(latents[:8], labels[:8]).backward()  # what torch takes for its first backward is not the loss's
    return row("loss", device, work, repeats, size, classes, features)


def measure_step(
    device: str, size: int, classes: int, alpha: float, model_name: str, side: int, repeats: int
) -> dict[str, Any]:
    """A training step, both loss terms, backward and Adam; pictures are there already."""
    import torch
    from lightning_fabric import Fabric

    from ckfr_helpers.models import build_model
    from ckfr_helpers.training.step import TaskNetwork, gradients

    torch.set_num_threads(1)
    fabric = Fabric(accelerator=device, devices=1)
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(size, 3, side, side, generator=generator).to(fabric.device)
    labels = torch.randint(classes, (size,), generator=generator).to(fabric.device)
    torch.manual_seed(0)
    model = build_model(model_name, classes, pretrained=False).train()
    task = classification_task(classes, alpha).to(fabric.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    network, optimizer = fabric.setup(TaskNetwork(model, task), optimizer)

    def work() -> None:
        gradients(fabric, network, task, pictures, {"label": labels})
        optimizer.step()
        optimizer.zero_grad()

    what = "step" if alpha else "step without the loss"
    return row(what, device, work, repeats, size, classes, model.embed_dim)


def row(
    what: str, device: str, work: Any, repeats: int, size: int, classes: int, features: int
) -> dict[str, Any]:
    # The first run serves memory and as warm-up; the largest sizes take long enough to need none.
    memory = added_memory(work, device)
    seconds = median_seconds({"work": work}, device, repeats, warmup=0)["work"]
    return {
        "what": what,
        "batch": size,
        "classes": classes,
        "features": features,
        "triplets": size * (size - 1) * (size - 2),
        "seconds": seconds,
        "added_mb": round(memory, 2),
        "repeats": repeats,
    }


def random_distances(classes: int):
    """(C, C) symmetric whole numbers as a tree's path lengths are: many ties, some zeros."""
    import torch

    generator = torch.Generator().manual_seed(0)
    steps = torch.randint(1, 14, (classes, classes), generator=generator).float()
    return 0.1 * ((steps + steps.T) / 2).fill_diagonal_(0)


def repeats_for(size: int) -> int:
    return 9 if size <= 256 else 3 if size <= 1024 else 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 64, 128, 256, 512, 1024, 2048, 4096])
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--features", type=int, default=128, help="of the latents, for the loss alone")
    parser.add_argument("--model", default="shufflenet_v2_x0_5", help="for the step")
    parser.add_argument("--size", type=int, default=32, help="side of its pictures")
    arguments = parser.parse_args()
    middle = sorted(arguments.classes)[len(arguments.classes) // 2]
    rows: list[dict[str, Any]] = []
    before = load()

    def add(found: dict[str, Any]) -> None:
        rows.append(found)
        print(
            f"{found['what']}, B = {found['batch']}, {found['classes']} classes: "
            f"{found['seconds']:.4f} s, {found['added_mb']:.1f} MB",
            flush=True,
        )

    for size in arguments.batch:
        for classes in arguments.classes:
            options = (arguments.device, size, classes, arguments.features, repeats_for(size))
            add(in_fresh_process(measure_loss, *options))
        for alpha in (20.0, 0.0):
            options = (arguments.device, size, middle, alpha, arguments.model, arguments.size)
            add(in_fresh_process(measure_step, *options, repeats_for(size)))
    result = {
        "environment": environment(),
        "device": arguments.device,
        "seconds": "of the process's own work, one thread" if arguments.device == "cpu" else "of the wall",
        "model": arguments.model,
        "size": arguments.size,
        "load": {"before": before, "after": load()},
        "rows": rows,
    }
    with atomic_path(RESULTS / f"scaling_{arguments.device}.json") as path:
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

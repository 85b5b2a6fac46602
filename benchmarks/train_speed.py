"""What each speed flag of ``ckfr train`` brings: images a second and peak memory, beside the plain step.

    python benchmarks/train_speed.py                       # this machine's CPU, a small network
    python benchmarks/train_speed.py --device cuda --model wide_resnet50_2 --size 224 --batch 128 --workers 16

Each flag is timed in turns with the plain step, in one process; its peak of memory is taken in another. The
step is `training.step.gradients` and Adam, on pictures that are on the device already. Then the best of these
through the real loader, from JPEG files of 500 × 375 pixels and from the memory-mapped cache, with the demo's
augmentation (``--data NAME`` takes a data set that is here): as a share of what it reaches without loading,
and over the original's form, which encodes three pictures for each anchor. Seconds on a CPU are the process's
own, in one thread, so loader workers stay 0 there. Writes benchmarks/results/train_speed_<device>.json.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measuring import (
    added_memory,
    classification_task,
    clock,
    in_fresh_process,
    load,
    median_seconds,
    return_memory_early,
)

from ckfr_helpers.runtime import atomic_path, environment

RESULTS = Path(__file__).parent / "results"
FLAGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "16-mixed": {"precision": "16-mixed"},  # CUDA only; on a CPU Fabric takes bf16 for it
    "channels-last": {"channels_last": True},
    "compile": {"compile": True},
    "accumulate 4": {"accumulate": 4},
    "grad-checkpointing": {"grad_checkpointing": True},
    "bf16, channels-last, compile": {"precision": "bf16-mixed", "channels_last": True, "compile": True},
}
CLASSES, PER_CLASS = 16, 32  # of the generated JPEG files


def make_step(options: dict[str, Any], flag: str, classes: int = 100) -> tuple[Callable, Any]:
    """``step(inputs, labels)`` under one flag, and its engine."""
    import torch
    from lightning_fabric import Fabric

    from ckfr_helpers.models import build_model
    from ckfr_helpers.training.step import TaskNetwork, grad_checkpointing, gradients

    flags = {**FLAGS[flag]}
    compiled, parts = flags.pop("compile", False), flags.pop("accumulate", 1)
    fabric = Fabric(accelerator=options["device"], devices=1, precision=flags.pop("precision", "32-true"))
    torch.manual_seed(0)
    model = build_model(options["model"], classes, pretrained=False).train()
    if flags.pop("grad_checkpointing", False):
        grad_checkpointing(model).__enter__()  # until the process ends
    task = classification_task(classes)
    network = TaskNetwork(model, task, **flags)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    network, optimizer = fabric.setup(torch.compile(network) if compiled else network, optimizer)
    task.to(fabric.device)

    def step(inputs, labels) -> None:
        gradients(fabric, network, task, inputs, {"label": labels}, parts=parts)
        optimizer.step()
        optimizer.zero_grad()

    return step, fabric


def one_thread_on_a_cpu(device: str) -> None:
    import torch

    if device == "cpu":
        torch.set_num_threads(1)


def synthetic(options: dict[str, Any], device: Any) -> tuple[Any, Any]:
    import torch

    generator = torch.Generator().manual_seed(0)
    side, batch = options["size"], options["batch"]
    pictures = torch.rand(batch, 3, side, side, generator=generator)
    labels = torch.randint(CLASSES, (batch,), generator=generator)
    return pictures.to(device), labels.to(device)


def time_flag(options: dict[str, Any], flag: str) -> dict[str, float]:
    one_thread_on_a_cpu(options["device"])
    (plain, fabric), (flagged, _) = make_step(options, "plain"), make_step(options, flag)
    data = synthetic(options, fabric.device)
    works = {"plain": lambda: plain(*data), "flagged": lambda: flagged(*data)}
    seconds = median_seconds(works, options["device"], options["repeats"], warmup=2)
    return {
        "images_per_second": options["batch"] / seconds["flagged"],
        "plain_images_per_second": options["batch"] / seconds["plain"],
        "times_plain": seconds["plain"] / seconds["flagged"],
    }


def weigh_flag(options: dict[str, Any], flag: str) -> float:
    one_thread_on_a_cpu(options["device"])
    step, fabric = make_step(options, flag)
    data = synthetic(options, fabric.device)
    return added_memory(lambda: step(*data), options["device"], warm=True)


def against_loader(options: dict[str, Any], flag: str) -> dict[str, float]:
    """Steps on pictures that are there, from files, from the cache, and of the original's form, in turns."""
    from step_speed import ThreeEncodings

    from ckfr_helpers.datasets.cache import cached
    from ckfr_helpers.datasets.transforms import stored_side
    from ckfr_helpers.models import build_model
    from ckfr_helpers.training import TrainConfig
    from ckfr_helpers.training.run import open_split, split_loader

    one_thread_on_a_cpu(options["device"])
    with tempfile.TemporaryDirectory() as folder:
        if options["data"] is None:
            write_pictures(Path(folder))
        config = TrainConfig(
            data=options["data"] or "tiny-imagenet",
            root=options["root"] if options["data"] else folder,
            model=options["model"],
            pretrained=False,
            size=options["size"],
            batch_size=options["batch"],
            workers=options["workers"],
        )
        source = open_split(config, "train")
        step, fabric = make_step(options, flag, classes=len(source.classes))
        plain = build_model(options["model"], len(source.classes), pretrained=False).train().to(fabric.device)
        data = synthetic(options, fabric.device)
        original = original_step(ThreeEncodings, plain, source, data)
        side = stored_side(config.transform, config.size)
        kept = cached(source, side, Path(folder), workers=options["workers"], progress=False)

        def through(source: Any) -> Callable[[], None]:
            batches = endless(split_loader(config, source, plain))

            def loaded() -> None:
                inputs, targets, _ = next(batches)
                step(inputs, targets["label"])

            return loaded

        works = {"synthetic": lambda: step(*data), "files": through(source), "cache": through(kept)}
        if options["device"] == "cpu":
            seconds = median_seconds(works, "cpu", options["repeats"], warmup=2)
        else:  # workers fill their queues while another form has its turn: each alone, over many steps
            seconds = {name: steady(work, options) for name, work in works.items()}
        seconds |= median_seconds({"original": original}, options["device"], options["repeats"], warmup=2)
    return {
        **{f"{name}_images_per_second": options["batch"] / value for name, value in seconds.items()},
        "files_over_synthetic": seconds["synthetic"] / seconds["files"],
        "cache_over_synthetic": seconds["synthetic"] / seconds["cache"],
        "cache_over_original_form": seconds["original"] / seconds["cache"],
        "synthetic_over_original_form": seconds["original"] / seconds["synthetic"],
    }


def steady(work: Callable[[], Any], options: dict[str, Any]) -> float:
    """Seconds a step over a long run, the first tenth left out."""
    now, steps = clock(options["device"]), 20 * options["repeats"]
    for _ in range(steps // 10):
        work()
    start = now()
    for _ in range(steps):
        work()
    return (now() - start) / steps


def original_step(three: type, model: Any, source: Any, data: tuple[Any, Any]) -> Callable[[], None]:
    """The original's form, plain: three batches encoded, one triplet an anchor."""
    import torch

    distances = torch.as_tensor(0.1 * source.hierarchy.distances("path")).to(data[0].device)
    form, optimizer = three(model, distances), torch.optim.Adam(model.parameters(), lr=1e-5)
    pictures, labels = data
    views = [pictures, pictures.roll(1, 0), pictures.roll(2, 0)]
    names = [labels, labels.roll(1, 0), labels.roll(2, 0)]

    def step() -> None:
        form(views, names).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def endless(loader: Any):
    from ckfr_helpers.datasets.loading import start_epoch

    epoch = 0
    while True:
        start_epoch(loader, epoch)
        yield from loader
        epoch += 1


def write_pictures(folder: Path) -> None:
    """JPEG files as large as ImageNet's are on average, with as much detail, in Tiny-ImageNet's layout."""
    import numpy as np
    from PIL import Image

    from ckfr_helpers.datasets.scenes.photos import class_ids

    wnids = list(class_ids())[:CLASSES]
    root = folder / "tiny-imagenet-200"
    generator = np.random.default_rng(0)
    for wnid in wnids:
        place = root / "train" / wnid / "images"
        place.mkdir(parents=True)
        for number in range(PER_CLASS):
            coarse = Image.fromarray(generator.integers(0, 255, (48, 64, 3), dtype=np.uint8))
            coarse.resize((500, 375), Image.Resampling.BICUBIC).save(place / f"{wnid}_{number}.JPEG")
        lines = [f"{wnid}_{number}.JPEG\t1\t2\t30\t40\n" for number in range(PER_CLASS)]
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("\n".join(wnids))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--workers", type=int, help="loader processes (default: 0 on a CPU, else one per core)"
    )
    parser.add_argument("--data", help="a data set that is here, in place of generated JPEG files")
    parser.add_argument("--root", help="its folder")
    parser.add_argument("--flags", nargs="+", choices=list(FLAGS), help="only these (default: all)")
    options = vars(parser.parse_args())
    if options["device"] == "cpu":
        options["workers"] = 0
    chosen = options.pop("flags") or [
        name for name in FLAGS if options["device"] != "cpu" or name != "16-mixed"
    ]
    return_memory_early()
    before, rows = load(), []
    for flag in chosen:
        row = {"flag": flag, **in_fresh_process(time_flag, options, flag)}
        row["peak_mb"] = round(in_fresh_process(weigh_flag, options, flag), 1)
        rows.append(row)
        print(
            f"{flag}: {row['images_per_second']:.1f} images/s, {row['times_plain']:.2f} times plain; "
            f"peak {row['peak_mb']:.0f} MB above weights and moments",
            flush=True,
        )
    best = max(rows, key=lambda row: row["times_plain"])["flag"]
    through = {"flag": best, **in_fresh_process(against_loader, options, best)}
    print(
        f"{best}: of what it reaches without loading, {through['files_over_synthetic']:.2f} from files and "
        f"{through['cache_over_synthetic']:.2f} from the cache; "
        f"{through['synthetic_over_original_form']:.2f} times the original's form"
    )
    result = {
        "environment": environment(),
        "options": options,
        "seconds": "of the process's own work, one thread" if options["device"] == "cpu" else "of the wall",
        "load": {"before": before, "after": load()},
        "flags": rows,
        "loader": through,
    }
    with atomic_path(RESULTS / f"train_speed_{options['device']}.json") as path:
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""One training step of ours against the original's form: three encodings per anchor, one triplet each.

    python benchmarks/step_speed.py                                  # this machine's CPU
    python benchmarks/step_speed.py --device cuda --model wide_resnet50_2 --size 224 --batch 32 256 \
        --precision float32 bfloat16 --compile                       # a GPU

Both forms train the same network with the same number of anchors, in turns within one run, from pictures that
already lie on the device. Writes benchmarks/results/step_speed_<device>.json.
"""

import argparse
import contextlib
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ckfr_helpers.losses import AlignedTripletLoss, three_view_loss
from ckfr_helpers.models import build_model
from ckfr_helpers.runtime import atomic_path, environment

RESULTS = Path(__file__).parent / "results"
CLASSES = 100
# Dense peak of the parts we could name, FLOP/s: (float32 on the usual units, bfloat16 matrix units), from
# their data sheets. Others get no fraction.
PEAKS = {"H100": (67e12, 989e12), "H200": (67e12, 989e12), "A100": (19.5e12, 312e12)}


class OneEncoding:
    """Ours: encode B pictures once; every triplet among them counts."""

    def __init__(self, model: nn.Module, distances: Tensor) -> None:
        self.model, self.metric = model, AlignedTripletLoss(20, 1.2, distances)
        self.metric.to(distances.device)

    def __call__(self, views: list[Tensor], labels: list[Tensor]) -> Tensor:
        latents = self.model.embed(views[0])
        logits = self.model.classify(latents).float()
        return nn.functional.cross_entropy(logits, labels[0]) + self.metric(latents, labels[0])


class ThreeEncodings:
    """The original's: encode three batches; one triplet for each of the B anchors."""

    def __init__(self, model: nn.Module, distances: Tensor) -> None:
        self.model, self.distances = model, distances

    def __call__(self, views: list[Tensor], labels: list[Tensor]) -> Tensor:
        latents = [self.model.embed(view).float() for view in views]
        logits = self.model.classify(latents[0]).float()
        first, second, third = labels
        metric = three_view_loss(
            tuple(latents), self.distances[first, second], self.distances[first, third], 1.2
        )
        return nn.functional.cross_entropy(logits, first) + 20 * metric


def median_step(
    form: Callable, batch: tuple, optimizer: torch.optim.Optimizer, cast, device: str, seconds: list[float]
):
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    with cast():
        loss = form(*batch)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if device == "cuda":
        torch.cuda.synchronize()
    seconds.append(time.perf_counter() - start)


def measure(arguments: argparse.Namespace, batch: int, precision: str, compiled: bool) -> dict:
    device = arguments.device
    generator = torch.Generator().manual_seed(0)
    views = [
        torch.rand(batch, 3, arguments.size, arguments.size, generator=generator).to(device) for _ in range(3)
    ]
    labels = [torch.randint(CLASSES, (batch,), generator=generator).to(device) for _ in range(3)]
    steps = torch.randint(1, 14, (CLASSES, CLASSES), generator=generator).float() / 10
    distances = (steps + steps.T).fill_diagonal_(0).to(device)
    if device == "cuda":
        views = [view.to(memory_format=torch.channels_last) for view in views]
    torch.manual_seed(0)
    model = build_model(arguments.model, CLASSES, pretrained=False).to(device).train()
    if device == "cuda":
        model = model.to(memory_format=torch.channels_last)
    counter = FlopCounterMode(display=False)
    with counter:
        nn.functional.cross_entropy(model(views[0]), labels[0]).backward()
    model.zero_grad(set_to_none=True)
    flops = counter.get_total_flops() / batch
    if compiled:
        model.stages = torch.compile(model.stages)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    dtype = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]

    def cast():
        return torch.autocast(device, dtype=dtype) if dtype else contextlib.nullcontext()

    forms = {"ours": OneEncoding(model, distances), "original": ThreeEncodings(model, distances)}
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(arguments.warmup + arguments.repeats):
        for name, form in forms.items():  # in turns, so that whatever disturbs one disturbs both
            median_step(form, (views, labels), optimizer, cast, device, seconds[name])
    median = {name: statistics.median(times[arguments.warmup :]) for name, times in seconds.items()}
    row = {
        "model": arguments.model,
        "size": arguments.size,
        "batch": batch,
        "precision": precision,
        "compiled": compiled,
        "anchors_per_second": {name: batch / value for name, value in median.items()},
        "times_the_anchors_per_second": median["original"] / median["ours"],
        "triplets_per_step": {"ours": batch * (batch - 1) * (batch - 2), "original": batch},
        "flop_per_image": flops,
    }
    name = torch.cuda.get_device_name(0) if device == "cuda" else ""
    peaks = next((peak for part, peak in PEAKS.items() if part in name), None)
    if peaks:
        row["fraction_of_peak"] = flops * batch / median["ours"] / peaks[0 if dtype is None else 1]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--batch", type=int, nargs="+", default=[32])
    parser.add_argument("--precision", nargs="+", default=["float32"])
    parser.add_argument("--compile", action="store_true", help="measure with torch.compile too")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    rows = []
    for batch in arguments.batch:
        for precision in arguments.precision:
            for compiled in (False, True) if arguments.compile else (False,):
                row = measure(arguments, batch, precision, compiled)
                rows.append(row)
                speeds = row["anchors_per_second"]
                print(
                    f"{row['model']} B={batch} {precision}{' compiled' if compiled else ''}: "
                    f"{speeds['ours']:.1f} anchors/s against {speeds['original']:.1f}, "
                    f"{row['times_the_anchors_per_second']:.2f} times"
                )
    with atomic_path(RESULTS / f"step_speed_{arguments.device}.json") as path:
        path.write_text(json.dumps({"environment": environment(), "steps": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

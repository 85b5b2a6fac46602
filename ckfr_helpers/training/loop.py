"""The training loop: one encoding of each image per step, cross-entropy plus the aligned triplet loss.

Precision, devices and several processes are Lightning Fabric's business; this file holds what is ours: the
two loss terms, the gathered batch, the choice of the best epoch on validation, and a state from which a run
goes on as if it had never stopped.
"""

import contextlib
import csv
import dataclasses
import io
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm.auto import tqdm

from ckfr_helpers import metrics
from ckfr_helpers.datasets.loading import start_epoch
from ckfr_helpers.losses import AlignedTripletLoss
from ckfr_helpers.runtime import CkfrError, atomic_path, mix_seed
from ckfr_helpers.training.checkpoints import load_checkpoint, save_checkpoint
from ckfr_helpers.training.config import TrainConfig
from ckfr_helpers.training.evaluation import predict
from ckfr_helpers.training.gather import gather_batch

SAVE_EVERY_SECONDS = 600  # a killed process loses at most this much


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or a termination signal arrived; the state was saved first where a folder was given."""


@dataclass
class FitResult:
    """What a fit leaves behind.

    Attributes:
        history: one dict an epoch, as in ``history.csv``.
        best_epoch: from 0; highest validation top-1, the earliest if several share it.
        best_weights: the model's state dict after that epoch, on the CPU.
    """

    history: list[dict[str, float]]
    best_epoch: int
    best_weights: dict[str, Tensor]


class _LogitsAndLatents(nn.Module):
    """One forward pass for both loss terms; data-parallel engines only hook ``forward``."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        latents = self.model.embed(inputs)  # (B, D)
        return self.model.classify(latents), latents


def fit(
    model: nn.Module,
    loss: AlignedTripletLoss,
    train_loader: Any,
    val_loader: Any,
    config: TrainConfig,
    *,
    fabric: Fabric | None = None,
    out: Path | None = None,
    progress: bool = True,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> FitResult:
    """Train ``model`` in place; its weights at the end are the last epoch's, the best are in the result.

    Args:
        model: has ``embed`` (B, …) -> (B, D) and ``classify`` (B, D) -> (B, K).
        loss: the metric term, with the class distances it aligns to.
        train_loader, val_loader: batches (inputs, labels, indices), from `make_loader` or `CachedLoader`.
        config: epochs, learning rate and seed are read here.
        fabric: the engine; None for one CPU process, or the config's accelerator.
        out: folder for ``last.pt``, ``best.pt`` and ``history.csv``; None keeps everything in memory. If it
            holds a ``last.pt``, training goes on from there.
        progress: show bars with both loss terms and throughput.
        on_epoch: called with each finished row of the history.

    Raises:
        CkfrError: if ``out`` holds a run with other settings, or the loss is no longer finite.
        Interrupted: after Ctrl-C, once the state is saved.
    """
    fabric = fabric or Fabric(accelerator=config.accelerator, devices=1, precision=config.precision)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=config.lr, weight_decay=config.weight_decay)
    state = _fresh_state()
    if out is not None and (out / "last.pt").is_file():
        state = _resume(out / "last.pt", config, model, optimizer, fabric)
    if state["epoch"] >= config.epochs:
        return FitResult(state["history"], state["best_epoch"], state["best_weights"])
    network, optimizer = fabric.setup(_LogitsAndLatents(model), optimizer)
    loss = loss.to(fabric.device)

    def save() -> None:
        if out is not None and fabric.is_global_zero:
            _save(out, state, config, model, optimizer, fabric)
        fabric.barrier()

    with _stop_signals() as stop:
        saved = time.monotonic()
        while state["epoch"] < config.epochs:
            epoch = state["epoch"]
            # A function of the epoch, so that there is no scheduler whose state could be lost.
            rate = config.lr * config.lr_gamma ** (epoch // config.lr_step)
            for group in optimizer.param_groups:
                group["lr"] = rate
            start_epoch(train_loader, epoch, state["step"])
            model.train()
            bar = tqdm(
                train_loader,
                desc=f"epoch {epoch + 1}/{config.epochs}",
                initial=state["step"],
                total=state["step"] + len(train_loader),
                disable=not (progress and fabric.is_global_zero),
                leave=False,
            )
            for inputs, labels, _ in bar:
                # Seeding every step makes dropout a function of (seed, epoch, step): no generator state has
                # to be saved, and a resumed run draws what the undisturbed one would have drawn.
                torch.manual_seed(mix_seed(config.seed, epoch, state["step"], fabric.global_rank))
                began = time.perf_counter()
                _step(fabric, network, loss, optimizer, inputs, labels, state["sums"])
                state["step"] += 1
                state["sums"]["seconds"] += time.perf_counter() - began
                if progress:
                    bar.set_postfix(_averages(state["sums"]), refresh=False)
                asked, due = _agreed(fabric, stop.asked, time.monotonic() - saved > SAVE_EVERY_SECONDS)
                if asked:
                    save()
                    bar.close()
                    raise Interrupted(f"Stopped in epoch {epoch + 1} at step {state['step']}.")
                if due:
                    save()
                    saved = time.monotonic()
            row = {"epoch": epoch + 1, "lr": rate}
            row |= {
                f"train_{k}" if k != "images_per_second" else k: v
                for k, v in _averages(state["sums"]).items()
            }
            row |= _validate(model, val_loader, loss, config, fabric)
            state["history"].append(row)
            state |= {"epoch": epoch + 1, "step": 0, "sums": _fresh_state()["sums"]}
            if row["val_top1"] > state["best_top1"]:
                weights = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
                state |= {"best_top1": row["val_top1"], "best_epoch": epoch, "best_weights": weights}
            save()
            saved = time.monotonic()
            if on_epoch is not None:
                on_epoch(row)
            if _agreed(fabric, stop.asked)[0]:
                raise Interrupted(f"Stopped after epoch {epoch + 1}.")
    return FitResult(state["history"], state["best_epoch"], state["best_weights"])


def _step(
    fabric: Fabric,
    network: nn.Module,
    loss: AlignedTripletLoss,
    optimizer: Any,
    inputs: Tensor,
    labels: Tensor,
    sums: dict[str, float],
) -> None:
    inputs = inputs.to(fabric.device, non_blocking=True)
    labels = labels.to(fabric.device, non_blocking=True)
    logits, latents = network(inputs)  # (B, K), (B, D)
    cross_entropy = nn.functional.cross_entropy(logits.float(), labels)
    metric = loss(*gather_batch(fabric, latents, labels))
    total = cross_entropy + metric
    if not torch.isfinite(total):
        raise CkfrError(
            f"The loss is {total.item()} (cross-entropy {cross_entropy.item():.4g}, metric term "
            f"{metric.item():.4g}); expected a finite number: lower the learning rate or alpha."
        )
    fabric.backward(total)
    optimizer.step()
    optimizer.zero_grad()
    size = len(labels)
    sums["images"] += size
    sums["cross_entropy"] += cross_entropy.item() * size
    sums["metric"] += metric.item() * size
    sums["correct"] += int((logits.argmax(1) == labels).sum())


def _validate(
    model: nn.Module, loader: Any, loss: AlignedTripletLoss, config: TrainConfig, fabric: Fabric
) -> dict[str, float]:
    if fabric.world_size > 1:
        # Running batch-norm statistics differ by process; the first one's are kept, so all judge by them.
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, 0)
    start_epoch(loader, 0)
    seen = predict(model, loader, fabric)
    distances = loss.distances.cpu().numpy() / config.knowledge_scale  # in the measure's own unit
    scores = metrics.hierarchical_metrics(seen.logits, seen.labels, distances, ks=(1,))
    entropy = nn.functional.cross_entropy(torch.from_numpy(seen.logits), torch.from_numpy(seen.labels))
    return {
        "val_cross_entropy": float(entropy),
        "val_top1": float(scores["top1"]),
        "val_mistake_severity": float(scores["mistake_severity"]),
    }


def _fresh_state() -> dict[str, Any]:
    return {
        "epoch": 0,
        "step": 0,
        "sums": {"images": 0, "cross_entropy": 0.0, "metric": 0.0, "correct": 0, "seconds": 0.0},
        "history": [],
        "best_top1": -1.0,
        "best_epoch": -1,
        "best_weights": {},
    }


def _averages(sums: dict[str, float]) -> dict[str, float]:
    images = max(sums["images"], 1)
    return {
        "cross_entropy": round(sums["cross_entropy"] / images, 5),
        "metric": round(sums["metric"] / images, 5),
        "top1": round(sums["correct"] / images, 5),
        "images_per_second": round(images / max(sums["seconds"], 1e-9), 1),
    }


def _save(
    out: Path,
    state: dict[str, Any],
    config: TrainConfig,
    model: nn.Module,
    optimizer: Any,
    fabric: Fabric,
) -> None:
    best = {"config": dataclasses.asdict(config), "epoch": state["best_epoch"], "top1": state["best_top1"]}
    if state["best_weights"] and state["best_epoch"] == state["epoch"] - 1 and state["step"] == 0:
        save_checkpoint(out / "best.pt", {**best, "model": state["best_weights"]})
    save_checkpoint(
        out / "last.pt",
        {
            **state,
            "config": dataclasses.asdict(config),
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "precision": fabric.strategy.precision.state_dict(),  # the gradient scaler of 16-mixed
        },
    )
    if state["history"]:
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(state["history"][0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(state["history"])
        with atomic_path(out / "history.csv") as path:
            path.write_text(text.getvalue())


def _resume(
    path: Path, config: TrainConfig, model: nn.Module, optimizer: Any, fabric: Fabric
) -> dict[str, Any]:
    saved = load_checkpoint(path)
    difference = config.difference(TrainConfig.from_dict(saved["config"], path))
    if difference:
        raise CkfrError(
            f"{path} belongs to a run with other settings ({difference}); give this one another folder."
        )
    model.load_state_dict(saved["model"])
    model.to(fabric.device)  # first, because Adam's moments go where the parameters are
    optimizer.load_state_dict(saved["optimizer"])
    fabric.strategy.precision.load_state_dict(saved["precision"])
    return {name: saved[name] for name in _fresh_state()}


class _Stop:
    asked = False


@contextlib.contextmanager
def _stop_signals() -> Iterator[_Stop]:
    """Turn the first Ctrl-C or termination signal into a flag that the loop reads between steps.

    Raised in the middle of a step it would leave weights half updated. A second Ctrl-C stops at once.
    """
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread receives signals
        return
    previous: dict[int, Any] = {}

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True

    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _agreed(fabric: Fabric, *flags: bool) -> tuple[bool, ...]:
    """Flags raised in any process: a signal or a clock may reach one first, yet all must act at one step."""
    if fabric.world_size == 1:
        return flags
    votes = torch.tensor([float(flag) for flag in flags], device=fabric.device)
    return tuple(bool(vote > 0) for vote in fabric.all_reduce(votes, reduce_op="sum"))

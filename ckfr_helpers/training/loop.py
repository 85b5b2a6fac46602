"""The training loop: one encoding of each image per step, cross-entropy plus the aligned triplet loss.

Precision, devices and several processes are Lightning Fabric's business; this file holds what is ours: the
two loss terms, the gathered batch, the choice of the best epoch on validation, and a state from which a run
goes on as if it had never stopped.
"""

import csv
import dataclasses
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm.auto import tqdm

from ckfr_helpers import metrics
from ckfr_helpers.datasets.loading import start_epoch
from ckfr_helpers.runtime import CkfrError, atomic_path
from ckfr_helpers.training.checkpoints import load_checkpoint, save_checkpoint
from ckfr_helpers.training.config import TrainConfig
from ckfr_helpers.training.evaluation import predict
from ckfr_helpers.training.processes import agreed, stop_signals
from ckfr_helpers.training.step import LogitsAndLatents, compiler_errors_named, gradients

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


def fit(
    model: nn.Module,
    loss: nn.Module,
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
        loss: the metric term of the gathered batch's latents and labels, with the (C, C) class ``distances``
            it aligns to; what else it may have is in `training.step.gradients`. Its own parameters, if it
            has any, are trained and saved like the model's.
        train_loader, val_loader: batches (inputs, targets, indices), from `make_loader` or `CachedLoader`.
        config: epochs, learning rate, seed and the speed flags are read here.
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
    loss = loss.to(fabric.device)
    trainable = [p for p in [*model.parameters(), *loss.parameters()] if p.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=config.lr, weight_decay=config.weight_decay)
    state = _fresh_state()
    if out is not None and (out / "last.pt").is_file():
        state = _resume(out / "last.pt", config, model, loss, optimizer, fabric)
    if state["epoch"] >= config.epochs:
        if fabric.is_global_zero and out is not None:
            _write_history(out, state["history"])  # a run killed after its last save may lack the last line
        return FitResult(state["history"], state["best_epoch"], state["best_weights"])
    network: nn.Module = LogitsAndLatents(
        model, grad_checkpointing=config.grad_checkpointing, channels_last=config.channels_last
    )
    if config.compile:
        network = torch.compile(network)
    network, optimizer = fabric.setup(network, optimizer)

    def save() -> None:
        if out is not None and fabric.is_global_zero:
            _save(out, state, config, model, loss, optimizer, fabric)
        fabric.barrier()

    with stop_signals() as stop:
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
            began = time.perf_counter()
            for inputs, targets, _ in bar:
                _step(fabric, network, loss, optimizer, inputs, targets["label"], config, state)
                # From step to step, so that waiting for pictures counts.
                state["sums"]["seconds"] += time.perf_counter() - began
                began = time.perf_counter()
                if progress:
                    bar.set_postfix(_averages(state["sums"]), refresh=False)
                due = time.monotonic() - saved > SAVE_EVERY_SECONDS
                due |= config.save_every > 0 and state["step"] % config.save_every == 0
                asked, due = agreed(fabric, stop.asked, due)
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
            if agreed(fabric, stop.asked)[0]:
                raise Interrupted(f"Stopped after epoch {epoch + 1}.")
    return FitResult(state["history"], state["best_epoch"], state["best_weights"])


def _step(
    fabric: Fabric,
    network: nn.Module,
    loss: nn.Module,
    optimizer: Any,
    inputs: Tensor,
    labels: Tensor,
    config: TrainConfig,
    state: dict[str, Any],
) -> None:
    # Seeding every step makes dropout a function of (seed, epoch, step): no generator state has to be saved,
    # and a resumed run draws what the undisturbed one would have drawn.
    seed = (config.seed, state["epoch"], state["step"], fabric.global_rank)
    with compiler_errors_named():
        sums = gradients(fabric, network, loss, inputs, labels, parts=config.accumulate, seed=seed)
    optimizer.step()
    optimizer.zero_grad()
    state["step"] += 1
    for name, value in sums.items():
        state["sums"][name] += value


def _validate(
    model: nn.Module, loader: Any, loss: nn.Module, config: TrainConfig, fabric: Fabric
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
    loss: nn.Module,
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
            "loss": loss.state_dict(),
            "optimizer": optimizer.state_dict(),
            "precision": fabric.strategy.precision.state_dict(),  # the gradient scaler of 16-mixed
        },
    )
    if state["history"]:
        _write_history(out, state["history"])


def _write_history(out: Path, history: list[dict[str, float]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    with atomic_path(out / "history.csv") as path:
        path.write_text(text.getvalue())


def _resume(
    path: Path, config: TrainConfig, model: nn.Module, loss: nn.Module, optimizer: Any, fabric: Fabric
) -> dict[str, Any]:
    saved = load_checkpoint(path)
    difference = config.difference(TrainConfig.from_dict(saved["config"], path))
    if difference:
        raise CkfrError(
            f"{path} belongs to a run with other settings ({difference}); give this one another folder."
        )
    if saved["epoch"] > config.epochs:
        raise CkfrError(
            f"{path} has {saved['epoch']} epochs behind it already; expected at most the {config.epochs} "
            "that are asked for. Give this run another folder."
        )
    model.load_state_dict(saved["model"])
    model.to(fabric.device)  # first, because Adam's moments go where the parameters are
    loss.load_state_dict(saved.get("loss", {}))
    optimizer.load_state_dict(saved["optimizer"])
    fabric.strategy.precision.load_state_dict(saved["precision"])
    return {name: saved[name] for name in _fresh_state()}

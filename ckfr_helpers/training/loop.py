"""The training loop: steps, epochs, checkpoints, the epoch to keep; what every task shares.

A state it has saved goes on as if it had never stopped.
"""

import contextlib
import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm.auto import tqdm

from ckfr_helpers.datasets.loading import start_epoch
from ckfr_helpers.runtime import CkfrError, as_json
from ckfr_helpers.training.checkpoints import load_checkpoint, save_checkpoint, write_text
from ckfr_helpers.training.config import TrainConfig
from ckfr_helpers.training.processes import any_process, on_first_process, stop_signals
from ckfr_helpers.training.step import TaskNetwork, grad_checkpointing, gradients, step_errors_explained
from ckfr_helpers.training.task import Task

SAVE_EVERY_SECONDS = 600  # a killed process loses at most this much
# What a checkpoint holds beside weights and moments.
STATE = ("epoch", "step", "sums", "history", "best_epoch", "best_weights")


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or a termination signal arrived; the state was saved first where a folder was given."""


@dataclass
class FitResult:
    """What a fit leaves behind; ``history`` has one dict an epoch, as ``history.csv`` a row."""

    history: list[dict[str, float]]  # "epoch", "lr", train_<loss> …, "images_per_second", val_<score> …
    best_epoch: int  # from 0; best by the task's ``chosen_by`` score, the earliest if several share it
    best_weights: dict[str, Tensor]  # the model's state dict after that epoch, on the CPU


def fit(
    model: nn.Module,
    task: Task,
    train_loader: Any,
    val_loader: Any,
    config: TrainConfig,
    *,
    fabric: Fabric | None = None,
    out: Path | None = None,
    keep: dict[str, Any] | None = None,
    progress: bool = True,
) -> FitResult:
    """Train ``model`` in place; its weights at the end are the last epoch's, the best are in the result.

    Args:
        train_loader, val_loader: batches (inputs, targets, indices), from `datasets.loading`.
        config: epochs, learning rate, seed and the speed flags are read here.
        fabric: the engine; None for one process on the config's accelerator.
        out: folder for checkpoints, ``config.json`` and ``history.csv``; None keeps everything in memory. If
            it holds a ``last.pt``, training goes on from there.
        keep: further plain values and tensors that both checkpoints shall hold.

    Raises:
        CkfrError: if ``out`` holds a run with other settings, or the loss is no longer finite.
        Interrupted: after Ctrl-C, once the state is saved.
    """
    fabric = fabric or Fabric(accelerator=config.accelerator, devices=1, precision=config.precision)  # type: ignore[arg-type]
    run = _Fit(model, task.to(fabric.device), config, fabric, out, keep or {})
    if out is not None:
        on_first_process(fabric, lambda: write_text(out / "config.json", as_json(dataclasses.asdict(config))))
    if run.state["epoch"] < config.epochs:
        with run.network_ready():
            run.epochs(train_loader, val_loader, progress)
    elif out is not None:  # a run killed after its last save may lack the last line
        on_first_process(fabric, run.write_history)
    return FitResult(run.state["history"], run.state["best_epoch"], run.state["best_weights"])


class _Fit:
    def __init__(
        self, model: nn.Module, task: Task, config: TrainConfig, fabric: Fabric, out: Path | None, keep: Any
    ) -> None:
        self.model, self.task, self.config, self.fabric = model, task, config, fabric
        self.out, self.keep = out, keep
        if config.sync_batch_norm and fabric.world_size > 1:
            self.model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        trainable = [p for p in [*self.model.parameters(), *task.parameters()] if p.requires_grad]
        self.optimizer: Any = torch.optim.Adam(trainable, lr=config.lr, weight_decay=config.weight_decay)
        self.state: dict[str, Any] = dict(zip(STATE, (0, 0, {}, [], -1, {}), strict=True))
        saved = None if out is None else last_state(out, config)
        if saved is not None:
            self._resume(saved)

    @contextlib.contextmanager
    def network_ready(self) -> Any:
        """Within it, ``self.network`` is the model behind the engine and the speed flags."""
        config = self.config
        with grad_checkpointing(self.model) if config.grad_checkpointing else contextlib.nullcontext():
            network: nn.Module = TaskNetwork(self.model, self.task, channels_last=config.channels_last)
            if config.compile:
                network = torch.compile(network)  # type: ignore[assignment]
            self.network, self.optimizer = self.fabric.setup(network, self.optimizer)
            yield

    def epochs(self, train_loader: Any, val_loader: Any, progress: bool) -> None:
        state, config = self.state, self.config
        start_epoch(train_loader, state["epoch"])
        each = len(train_loader)
        hidden, done = not (progress and self.fabric.is_global_zero), state["epoch"] * each + state["step"]
        bar = tqdm(total=config.epochs * each, initial=done, disable=hidden, leave=False)
        with stop_signals() as stop, contextlib.closing(bar):
            while state["epoch"] < config.epochs:
                epoch = state["epoch"]
                # A function of the epoch, so that there is no scheduler whose state could be lost.
                rate = config.lr * config.lr_gamma ** (epoch // config.lr_step)
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                start_epoch(train_loader, epoch, state["step"])
                bar.set_description(f"epoch {epoch + 1}/{config.epochs}")
                self._steps(train_loader, bar, stop)
                bar.set_description(f"epoch {epoch + 1}/{config.epochs}, validation")
                row = {"epoch": epoch + 1, "lr": rate, **_averages(state["sums"])}
                row |= self._validate(val_loader)
                state["history"].append(row)
                state |= {"epoch": epoch + 1, "step": 0, "sums": {}}
                if best_epoch(state["history"], self.task) == epoch:
                    weights = {k: v.detach().cpu().clone() for k, v in self.model.state_dict().items()}
                    state |= {"best_epoch": epoch, "best_weights": weights}
                self.save()
                if any_process(self.fabric, stop.asked)[0]:
                    raise Interrupted(f"Stopped after epoch {epoch + 1}.")

    def _steps(self, loader: Any, bar: tqdm, stop: Any) -> None:
        """The steps left of one epoch."""
        state, config, fabric = self.state, self.config, self.fabric
        chosen_by = f"val_{self.task.chosen_by}"
        last = {chosen_by: state["history"][-1][chosen_by]} if state["history"] else {}
        self.model.train()
        saved, began = time.monotonic(), time.perf_counter()
        for inputs, targets, indices in loader:
            # Seeding every step makes dropout a function of (seed, epoch, step): no generator state has to be
            # saved, and a resumed run draws what the undisturbed one would have drawn.
            seed = (config.seed, state["epoch"], state["step"], fabric.global_rank)
            how: dict[str, Any] = {"parts": config.accumulate, "seed": seed}
            with step_errors_explained():
                losses = gradients(fabric, self.network, self.task, inputs, targets, **how)
            self.optimizer.step()
            self.optimizer.zero_grad()
            state["step"] += 1
            images = len(indices) * fabric.world_size
            added = {f"train_{name}": value * images for name, value in losses.items()}
            # From step to step, so that waiting for pictures counts.
            added |= {"images": images, "seconds": time.perf_counter() - began}
            began = time.perf_counter()
            state["sums"] = {name: state["sums"].get(name, 0) + value for name, value in added.items()}
            shown = {name.removeprefix("train_"): v for name, v in _averages(state["sums"]).items()}
            bar.set_postfix(shown | last, refresh=False)
            bar.update()
            due = time.monotonic() - saved > SAVE_EVERY_SECONDS
            due |= config.save_every > 0 and state["step"] % config.save_every == 0
            asked, due = any_process(fabric, stop.asked, due)
            if asked or due:
                self.save()
                saved = time.monotonic()
            if asked:
                raise Interrupted(f"Stopped in epoch {state['epoch'] + 1} at step {state['step']}.")

    def _validate(self, loader: Any) -> dict[str, float]:
        if self.fabric.world_size > 1:
            # Running batch-norm statistics differ by process; the first one's are kept, so all judge by them.
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, 0)
        start_epoch(loader, 0)
        scores = self.task.validate(self.model, loader, self.fabric)
        return {f"val_{name}": float(value) for name, value in scores.items()}

    def save(self) -> None:
        if self.out is not None:
            on_first_process(self.fabric, self._save)

    def _save(self) -> None:
        assert self.out is not None
        state = self.state
        common = {**self.keep, "config": dataclasses.asdict(self.config)}
        if state["best_weights"] and state["best_epoch"] == state["epoch"] - 1 and state["step"] == 0:
            best = {"epoch": state["best_epoch"], "model": state["best_weights"]}
            save_checkpoint(self.out / "best.pt", {**common, **best})
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        save_checkpoint(self.out / "last.pt", {**common, **state, **parts})
        if state["history"]:
            self.write_history()

    def write_history(self) -> None:
        assert self.out is not None
        table = pd.DataFrame(self.state["history"])
        write_text(self.out / "history.csv", table.to_csv(index=False, na_rep="nan", lineterminator="\n"))

    def _resume(self, saved: dict[str, Any]) -> None:
        self.model.to(self.fabric.device)  # first, because Adam's moments go where the parameters are
        for name, part in self._parts().items():
            part.load_state_dict(saved[name])
        self.state = {name: saved[name] for name in STATE}

    def _parts(self) -> dict[str, Any]:
        scaler = self.fabric.strategy.precision  # of 16-mixed
        return {"model": self.model, "task": self.task, "optimizer": self.optimizer, "precision": scaler}


def last_state(out: Path, config: TrainConfig) -> dict[str, Any] | None:
    """What ``last.pt`` in ``out`` holds, None without one; refused where ``config`` cannot go on from it."""
    path = out / "last.pt"
    if not path.is_file():
        return None
    saved = load_checkpoint(path, ("config", "model", "task", "optimizer", "precision", *STATE))
    difference = config.difference(TrainConfig.from_dict(saved["config"], path))
    if difference:
        raise CkfrError(
            f"{out} holds a run with other settings ({difference}); give this one another folder with --out."
        )
    if saved["epoch"] > config.epochs:
        raise CkfrError(
            f"{path} has {saved['epoch']} epochs behind it already; expected at most the {config.epochs} "
            "that are asked for. Give this run another folder."
        )
    return saved


def best_epoch(history: list[dict[str, float]], task: Task) -> int:
    """From 0: the first epoch that no other beats by the score that the task chooses by; NaN never wins."""
    sign = 1 if task.more_is_better else -1
    scores = [sign * row[f"val_{task.chosen_by}"] for row in history]
    return max(range(len(scores)), key=lambda i: scores[i] if scores[i] == scores[i] else float("-inf"))


def _averages(sums: dict[str, float]) -> dict[str, float]:
    """Columns of the history: the mean of each loss over pictures, and pictures a second."""
    losses = {n: round(value / sums["images"], 5) for n, value in sums.items() if n.startswith("train_")}
    return losses | {"images_per_second": round(sums["images"] / max(sums["seconds"], 1e-9), 1)}

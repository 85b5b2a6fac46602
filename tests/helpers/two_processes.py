"""Run by test_distributed: all that it compares with, from one interpreter that imports torch once and forks.

    python two_processes.py OUT CONFIG.json

Losses and gradients of one step from one process and from two; a run of two processes that nothing disturbs
(``OUT/whole``), and one of a single process that is killed in its second epoch (``OUT/alone``).
"""

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import nn

from ckfr_helpers.hierarchy import Hierarchy
from ckfr_helpers.losses import make_loss
from ckfr_helpers.models import Classifier
from ckfr_helpers.training import ClassificationTask, TrainConfig, train
from ckfr_helpers.training.step import TaskNetwork, grad_checkpointing, gradients

SIZE = 16


def build() -> Classifier:
    """Every kind of weight but batch norm, which sees each process's own pictures."""
    torch.manual_seed(0)
    stages = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh()), nn.Sequential(nn.Conv2d(6, 6, 3), nn.Tanh())
    )
    neck = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(1), nn.Linear(24, 5), nn.LayerNorm(5))
    return Classifier(stages, neck, nn.Linear(5, 3), name="small")


def step(fabric: Fabric, out: str, name: str, parts: int, checkpointed: bool) -> None:
    torch.set_num_threads(1)
    model = build()
    generator = torch.Generator().manual_seed(1)
    inputs, labels = torch.randn(SIZE, 3, 8, 8, generator=generator), torch.arange(SIZE) % 3
    tree = Hierarchy.from_nested({"thing": {"cat": ["lion", "tiger"], "pan": None}})
    task = ClassificationTask(make_loss("ckfr", tree, alpha=20, ell=1.2), tree)
    network = fabric.setup(TaskNetwork(model, task))
    share = SIZE // fabric.world_size
    mine = slice(fabric.global_rank * share, (fabric.global_rank + 1) * share)
    with grad_checkpointing(model) if checkpointed else contextlib.nullcontext():
        losses = gradients(fabric, network, task, inputs[mine], {"label": labels[mine]}, parts=parts)
    grads = {key: p.grad.clone() for key, p in model.named_parameters()}
    torch.save({"losses": losses, "gradients": grads}, Path(out) / f"{name}-{fabric.global_rank}.pt")


def every_form(fabric: Fabric, out: str, name: str) -> None:
    step(fabric, out, f"{name}-plain", 1, False)
    step(fabric, out, f"{name}-parts", 4, False)
    step(fabric, out, f"{name}-checkpointed", 1, True)


def train_as(rank: int, world: int, port: int, config: TrainConfig, out: Path) -> None:
    """What torchrun does for each of its processes: say in the environment who one is, and start."""
    if world > 1:
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world,
                 "MASTER_PORT": port}  # fmt: skip
        os.environ.update({name: str(value) for name, value in names.items()})
        os.environ.update(MASTER_ADDR="127.0.0.1", TORCHELASTIC_RUN_ID="test")
    torch.set_num_threads(1)
    train(config, out, progress=False)


def runs(out: Path, config: TrainConfig) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    whole = [fork.Process(target=train_as, args=(rank, 2, port, config, out / "whole")) for rank in (0, 1)]
    alone = fork.Process(target=train_as, args=(0, 1, port, config, out / "alone"))
    for process in (alone, *whole):
        process.start()
    while not (out / "alone" / "history.csv").is_file():  # the first epoch's line: the second is under way
        assert alone.is_alive()
        time.sleep(0.01)
    os.kill(alone.pid, signal.SIGKILL)
    for process in (alone, *whole):
        process.join()
    assert [process.exitcode for process in (alone, *whole)] == [-signal.SIGKILL, 0, 0]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    runs(folder, TrainConfig(**json.loads(Path(sys.argv[2]).read_text())))
    Fabric(accelerator="cpu", devices=2, strategy="ddp_fork").launch(every_form, sys.argv[1], "two")
    every_form(Fabric(accelerator="cpu", devices=1), sys.argv[1], "one")

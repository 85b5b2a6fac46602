"""Run by test_distributed: losses and gradients of one step, from one process and from two, to compare."""

import contextlib
import sys
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import nn

from ckfr_helpers.hierarchy import Hierarchy
from ckfr_helpers.losses import make_loss
from ckfr_helpers.models import Classifier
from ckfr_helpers.training import ClassificationTask
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


if __name__ == "__main__":
    # Forked, so that nothing is imported three times.
    Fabric(accelerator="cpu", devices=2, strategy="ddp_fork").launch(every_form, sys.argv[1], "two")
    every_form(Fabric(accelerator="cpu", devices=1), sys.argv[1], "one")

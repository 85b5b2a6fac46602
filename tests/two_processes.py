"""Run by test_training: the gradients of one step, from one process and from two, saved for comparison."""

import sys
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import nn

from ckfr_helpers.losses import AlignedTripletLoss
from ckfr_helpers.training.gather import gather_batch


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 5))
        self.classifier = nn.Linear(5, 3)

    def forward(self, x):
        latents = self.body(x)
        return self.classifier(latents), latents


def step(fabric: Fabric, out: str, name: str) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = Net()
    inputs, labels = torch.randn(16, 6), torch.arange(16) % 3
    distances = torch.tensor([[0.0, 1, 3], [1, 0, 3], [3, 3, 0]])
    network = fabric.setup(model)
    mine = slice(
        fabric.global_rank * 16 // fabric.world_size, (fabric.global_rank + 1) * 16 // fabric.world_size
    )
    logits, latents = network(inputs[mine])
    metric = AlignedTripletLoss(20, 1.2, distances)(*gather_batch(fabric, latents, labels[mine]))
    fabric.backward(nn.functional.cross_entropy(logits, labels[mine]) + metric)
    if fabric.is_global_zero:
        gradients = {key: p.grad.clone() for key, p in model.named_parameters()}
        torch.save({"metric": metric.detach(), "gradients": gradients}, Path(out) / f"{name}.pt")


if __name__ == "__main__":
    step(Fabric(accelerator="cpu", devices=1), sys.argv[1], "one")
    pair = Fabric(accelerator="cpu", devices=2, strategy="ddp_spawn")
    pair.launch(step, sys.argv[1], "two")

"""One training step's gradients, at whatever cost in memory was asked for.

Losses see the outputs of all processes, with gradients: the step is that of one process with the whole batch.

Accumulation is exact (Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup",
RepL4NLP 2021): a first pass without a graph gives every output, hence the losses and their gradients with
respect to each output; a second carries those down to the weights, part by part. So no triplet that joins two
parts is lost; only batch norm sees the difference, since it normalises a part.

Gradient checkpointing is exact (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016): the
second time draws the same dropout, and its batch-norm statistics are thrown away.
"""

import contextlib
import functools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ckfr_helpers.runtime import CkfrError, mix_seed
from ckfr_helpers.training.task import Task

# Said to Fabric's authors, not to whoever trains; it would stand in the output of every run.
warnings.filterwarnings("ignore", message=r".*all_gather is deprecated", module=r"lightning_fabric\..*")


class TaskNetwork(nn.Module):
    """A model whose ``forward`` gives its task's ``outputs``; data-parallel engines only hook ``forward``.

    With ``channels_last`` pictures (B, 3, H, W) and the model's weights lie in memory as (B, H, W, 3).
    """

    def __init__(self, model: nn.Module, task: Task, *, channels_last: bool = False) -> None:
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last) if channels_last else model
        self._outputs = task.outputs
        self.channels_last = channels_last

    def forward(self, inputs: Any) -> dict[str, Tensor]:
        """Inputs of one batch -> the task's outputs, one row an example."""
        if self.channels_last and isinstance(inputs, Tensor) and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return self._outputs(self.model, inputs)


@contextlib.contextmanager
def grad_checkpointing(model: nn.Module) -> Iterator[None]:
    """Keep only what enters each block of ``model.stages``, and compute the rest again on the way back."""
    blocks = checkpointed_blocks(model.stages)  # type: ignore[arg-type]
    for block in blocks:  # on the instance, so that the model's own code and state dict stay as they are
        block.forward = functools.partial(_checkpointed, block, block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _checkpointed(block: nn.Module, forward: Callable[..., Any], state: Tensor) -> Any:
    if torch.compiler.is_compiling():
        # The compiler keeps each write to a buffer once, and cannot trace a context of ours.
        return checkpoint(forward, state, use_reentrant=False)
    # torch alone would count batch-norm statistics twice.
    again = functools.partial(restored_buffers, block)
    return checkpoint(forward, state, use_reentrant=False, context_fn=lambda: (nullcontext(), again()))


def checkpointed_blocks(stages: Sequence[nn.Module]) -> list[nn.Module]:
    """The pieces to compute again: a stage's own blocks where it is a sequence of them, else the stage.

    A stage of bare layers (a stem) stays whole: to keep what enters each layer is to keep everything.
    """
    blocks: list[nn.Module] = []
    for stage in stages:
        children = list(stage.children())
        composite = isinstance(stage, nn.Sequential) and all(any(child.children()) for child in children)
        blocks += children if composite and children else [stage]
    return blocks


@contextlib.contextmanager
def restored_buffers(module: nn.Module) -> Iterator[None]:
    """Whatever forward passes in here write into buffers (batch-norm statistics) is thrown away.

    The buffers are replaced for the while, not written back: autograd objects to a tensor changed in place.
    """
    kept = [
        (part, name, buffer)
        for part in module.modules()
        for name, buffer in part.named_buffers(recurse=False)
    ]
    for part, name, buffer in kept:
        setattr(part, name, buffer.clone())
    try:
        yield
    finally:
        for part, name, buffer in kept:
            setattr(part, name, buffer)


def gradients(
    fabric: Fabric,
    network: nn.Module,
    task: Task,
    inputs: Any,
    targets: dict[str, Any],
    *,
    parts: int = 1,
    seed: Sequence[int] = (0,),
) -> dict[str, float]:
    """Forward and backward of one batch: adds to every ``.grad``, exactly as one process with it all would.

    Args:
        network: `TaskNetwork`, set up by the engine.
        inputs: of this process: a tensor (B, …), or a mapping of such.
        parts: how many to cut the batch into, at most B; see the top of this file.
        seed: numbers that fix dropout; each part mixes in its own.

    Returns:
        Each loss of the whole batch of all processes.

    Raises:
        CkfrError: if the loss is not finite, in all processes alike; the gradients are then of no use.
    """
    inputs, targets = fabric.to_device((inputs, targets))
    targets = _gather_targets(fabric, targets)
    if parts == 1:
        _seed(seed, 0)
        losses = task.losses(_gather_outputs(fabric, network(inputs)), targets)
        fabric.backward(_total(losses))
    else:
        losses = _in_parts(fabric, network, task, _cut(inputs, parts), targets, seed)
    values = torch.stack([value.detach().float() for value in losses.values()]).tolist()  # one transfer
    named = dict(zip(losses, values, strict=True))
    if not math.isfinite(sum(values)):
        terms = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in named.items())
        raise CkfrError(f"The loss is not finite ({terms}); lower the learning rate or a weight.")
    return named


def _in_parts(
    fabric: Fabric, network: Any, task: Task, slices: list[Any], targets: dict[str, Any], seed: Sequence[int]
) -> dict[str, Tensor]:
    seen = []
    with torch.no_grad(), restored_buffers(network):
        for number, some in enumerate(slices):
            _seed(seed, number)
            seen.append(network(some))
    leaves = {name: torch.cat([part[name] for part in seen]).requires_grad_() for name in seen[0]}
    losses = task.losses(_gather_outputs(fabric, leaves), targets)
    fabric.backward(_total(losses))  # not autograd.grad: a task may have parameters of its own
    # 16-mixed scales a loss before going backward, and will scale the products with the outputs again.
    scaler = getattr(fabric.strategy.precision, "scaler", None)
    scale = scaler.get_scale() if scaler is not None else 1.0
    pulled = [name for name, leaf in leaves.items() if leaf.grad is not None]
    sizes = [len(next(iter(part.values()))) for part in seen]
    pulls = [(leaves[name].grad / scale).split(sizes) for name in pulled]  # type: ignore[operator, union-attr]
    for number, (some, *pull) in enumerate(zip(slices, *pulls, strict=True)):
        # Gradients of the weights travel between processes once, with the last part.
        with fabric.no_backward_sync(network, enabled=number < len(slices) - 1):
            _seed(seed, number)  # the same dropout as the first time
            outputs = network(some)
            products = [(outputs[name] * own).sum() for name, own in zip(pulled, pull, strict=True)]
            fabric.backward(torch.stack(products).sum())
    return losses


def _total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack([value.float() for value in losses.values()]).sum()


def _gather_outputs(fabric: Fabric, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rows of all processes, with gradients, the same in all of them.

    Every process computes the losses of all rows. Gathering sums the gradients that come back from all of
    them, and the data-parallel engine divides by their number: the step of one process with the whole batch.
    """
    outputs = {name: v if v.dtype == torch.float64 else v.float() for name, v in outputs.items()}
    if fabric.world_size == 1:
        return outputs
    gather: Callable[..., Any] = fabric.all_gather
    return {name: gather(value, sync_grads=True).flatten(0, 1) for name, value in outputs.items()}


def _gather_targets(fabric: Fabric, targets: dict[str, Any]) -> dict[str, Any]:
    if fabric.world_size == 1:
        return targets
    gathered = {}
    for name, value in targets.items():
        if isinstance(value, Tensor):
            rows: Any = fabric.all_gather(value)
            gathered[name] = rows.flatten(0, 1)
        else:  # texts, or as many boxes as a picture happens to have
            lists: list[Any] = [None] * fabric.world_size
            torch.distributed.all_gather_object(lists, value)
            gathered[name] = [item for some in lists for item in some]
    return gathered


def _cut(inputs: Any, parts: int) -> list[Any]:
    if isinstance(inputs, Tensor):
        return list(inputs.tensor_split(parts))
    columns = [value.tensor_split(parts) for value in inputs.values()]
    return [dict(zip(inputs, part, strict=True)) for part in zip(*columns, strict=True)]


def _seed(seed: Sequence[int], part: int) -> None:
    torch.manual_seed(mix_seed(*seed, *([part] if part else [])))


@contextlib.contextmanager
def step_errors_explained() -> Iterator[None]:
    """One `CkfrError` for what torch says in pages: a compiler that fails, batch norm over one example."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError) and "more than 1 value per channel" in str(error):
            raise CkfrError(
                "Batch norm cannot normalise a single example; expected at least 2 pictures a process and "
                "part (batch_size, devices, accumulate)."
            ) from error
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = str(error).strip().partition("\n")[0]
        raise CkfrError(
            f"torch.compile failed here ({reason[:200]}); train without compile, or install a C++ compiler "
            "(on a CPU) or Triton (on a GPU)."
        ) from error

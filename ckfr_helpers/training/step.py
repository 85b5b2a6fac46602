"""One training step's gradients: cross-entropy and the metric term, at whatever cost in memory was asked for.

**Accumulation is exact.** Cut into parts, a batch must not lose the triplets that join two parts: of a batch
of 32, four parts of 8 hold 4 · 336 of its 29,760. So a step with parts goes through the network twice (Gao
et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", RepL4NLP 2021): once
without a graph to have every latent, from which come the metric term and its gradient with respect to each
latent; once more, part by part, to carry that gradient and the cross-entropy's down to the weights. Memory
for activations is one part's, loss and gradient are the whole batch's. Only batch norm sees the difference,
since it normalises by what it is given: a part. Without the metric term the first pass is left out.

**Gradient checkpointing is exact.** Activations inside a block are computed again when its gradient is needed
(Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016). The second time draws the same dropout,
and its batch-norm statistics are thrown away, which `torch.utils.checkpoint` by itself would count twice.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ckfr_helpers.runtime import CkfrError, mix_seed
from ckfr_helpers.training.gather import gather_batch


class LogitsAndLatents(nn.Module):
    """One forward pass for both loss terms; data-parallel engines only hook ``forward``.

    Args:
        model: has ``embed`` (B, …) -> (B, D) and ``classify`` (B, D) -> (B, K).
        grad_checkpointing: keep only what enters each block, and compute the rest again on the way back.
        channels_last: pictures (B, 3, H, W) are laid out in memory as (B, H, W, 3), like the model's weights.

    Raises:
        CkfrError: if ``grad_checkpointing`` is asked of a model without ``stages`` and ``neck``.
    """

    def __init__(
        self, model: nn.Module, *, grad_checkpointing: bool = False, channels_last: bool = False
    ) -> None:
        super().__init__()
        if grad_checkpointing and not (hasattr(model, "stages") and hasattr(model, "neck")):
            raise CkfrError(
                f"grad_checkpointing needs a Classifier, whose stages it knows; got {type(model).__name__}."
            )
        self.model = model.to(memory_format=torch.channels_last) if channels_last else model
        self.grad_checkpointing = grad_checkpointing
        self.channels_last = channels_last

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (B, …) -> logits (B, K), latents (B, D)."""
        if self.channels_last and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        if self.grad_checkpointing and torch.is_grad_enabled():
            latents = self._embed_in_blocks(inputs)
        else:
            latents = self.model.embed(inputs)  # (B, D)
        return self.model.classify(latents), latents

    def _embed_in_blocks(self, state: Tensor) -> Tensor:
        for block in checkpointed_blocks(self.model.stages):
            if not any(p.requires_grad for p in block.parameters()) and not state.requires_grad:
                state = block(state)  # frozen: nothing is kept for it anyway
            elif torch.compiler.is_compiling():
                # The compiler keeps each write to a buffer once, and cannot trace a context of ours.
                state = checkpoint(block, state, use_reentrant=False)
            else:
                state = checkpoint(
                    block,
                    state,
                    use_reentrant=False,
                    context_fn=functools.partial(_first_time_counts, block),
                )
        return self.model.neck(state)


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


def _first_time_counts(block: nn.Module) -> tuple[Any, Any]:
    return contextlib.nullcontext(), buffers_forgotten(block)


@contextlib.contextmanager
def buffers_forgotten(module: nn.Module) -> Iterator[None]:
    """Whatever forward passes in here write into buffers (batch-norm statistics) is thrown away.

    The buffers are replaced for the while, not written back: autograd objects to a tensor changed in place.
    """
    kept = [
        (part, name, buffer)
        for part in module.modules()
        for name, buffer in part.named_buffers(recurse=False)
        if buffer is not None
    ]
    for part, name, buffer in kept:
        setattr(part, name, buffer.clone())
    try:
        yield
    finally:
        for part, name, buffer in kept:
            setattr(part, name, buffer)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of (B, K) logits, in float32."""
    return nn.functional.cross_entropy(logits.float(), labels)


def gradients(
    fabric: Fabric,
    network: nn.Module,
    loss: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    parts: int = 1,
    seed: Sequence[int] | None = None,
) -> dict[str, float]:
    """Forward and backward of one batch: adds to every ``.grad``, exactly as one process with it all would.

    Args:
        fabric: the engine.
        network: `LogitsAndLatents`, set up by the engine.
        loss: called with the latents (W·B, D) and labels (W·B,) of all W processes, gives the metric term. A
            method ``classification(logits, labels)`` of it, a mean over examples, replaces cross-entropy.
        inputs: (B, …) of this process.
        labels: (B,).
        parts: how many to cut the batch into; see the top of this file.
        seed: numbers that fix dropout; each part mixes in its own. None leaves the generators alone.

    Returns:
        "images", and sums over them of "cross_entropy", "metric" and "correct", of all processes together.

    Raises:
        CkfrError: if the loss is not finite, in all processes alike; the gradients are then of no use.
    """
    inputs = inputs.to(fabric.device, non_blocking=True)
    labels = labels.to(fabric.device, non_blocking=True)
    if not 1 <= parts <= len(labels):
        raise CkfrError(f"A batch of {len(labels)} cannot be cut into {parts} parts; expected 1 to its size.")
    classification = getattr(loss, "classification", cross_entropy)
    if parts == 1:
        _seed(seed, 0)
        logits, latents = network(inputs)  # (B, K), (B, D)
        entropy = classification(logits, labels)
        metric = loss(*gather_batch(fabric, latents, labels))
        fabric.backward(entropy + metric)
        correct = (logits.detach().argmax(1) == labels).sum()
    else:
        entropy, metric, correct = _in_parts(
            fabric, network, loss, classification, inputs, labels, parts, seed
        )
    return _sums(fabric, len(labels), entropy.detach(), metric.detach(), correct)


def _in_parts(
    fabric: Fabric,
    network: nn.Module,
    loss: nn.Module,
    classification: Callable[[Tensor, Tensor], Tensor],
    inputs: Tensor,
    labels: Tensor,
    parts: int,
    seed: Sequence[int] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    slices = list(zip(inputs.tensor_split(parts), labels.tensor_split(parts), strict=True))
    pulls: Sequence[Tensor | None] = [None] * parts
    metric = torch.zeros((), device=fabric.device)
    if getattr(loss, "alpha", 1) != 0:
        seen = []
        with torch.no_grad(), buffers_forgotten(network):
            for number, (some, _) in enumerate(slices):
                _seed(seed, number)
                seen.append(network(some)[1].float())
        leaf = torch.cat(seen).requires_grad_()  # (B, D)
        metric = loss(*gather_batch(fabric, leaf, labels))
        fabric.backward(metric)  # not autograd.grad: a loss may have parameters of its own
        assert leaf.grad is not None
        pulls = (leaf.grad / _loss_scale(fabric)).tensor_split(parts)
    entropy, correct = torch.zeros_like(metric), torch.zeros_like(metric)
    for number, (some, their, pull) in enumerate(zip(*zip(*slices, strict=True), pulls, strict=True)):
        # Gradients of the weights travel between processes once, with the last part.
        with fabric.no_backward_sync(network, enabled=number < parts - 1):
            _seed(seed, number)
            logits, latents = network(some)
            part = classification(logits, their) * (len(their) / len(labels))
            # Its gradient with respect to the latents is the metric term's.
            fabric.backward(part if pull is None else part + (latents.float() * pull).sum())
        entropy += part.detach()
        correct += (logits.detach().argmax(1) == their).sum()
    return entropy, metric, correct


@contextlib.contextmanager
def compiler_errors_named() -> Iterator[None]:
    """Say in one sentence that ``torch.compile`` failed, which it does at the first step, in pages.

    Raises:
        CkfrError: in place of the compiler's error.
    """
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
        raise CkfrError(
            f"torch.compile failed here ({reason[:200]}); train without compile, or install a C++ compiler "
            "(on a CPU) or Triton (on a GPU)."
        ) from error


def _seed(seed: Sequence[int] | None, part: int) -> None:
    if seed is not None:
        torch.manual_seed(mix_seed(*seed, *([part] if part else [])))


def _loss_scale(fabric: Fabric) -> float:
    """What 16-mixed multiplies a loss by before going backward."""
    scaler = getattr(fabric.strategy.precision, "scaler", None)
    return scaler.get_scale() if scaler is not None else 1.0


def _sums(fabric: Fabric, size: int, entropy: Tensor, metric: Tensor, correct: Tensor) -> dict[str, float]:
    """The step's numbers over all processes, brought to the CPU in one go."""
    numbers = torch.stack([entropy.float(), metric.float(), correct.float()])
    if fabric.world_size > 1:
        numbers = fabric.all_reduce(numbers, reduce_op="sum")
        # Every process has as many examples, so means may be averaged; the metric term is the same in all.
        numbers[:2] /= fabric.world_size
    entropy_mean, metric_value, right = numbers.tolist()
    images = size * fabric.world_size
    if not abs(entropy_mean + metric_value) < float("inf"):
        raise CkfrError(
            f"The loss is {entropy_mean + metric_value} (cross-entropy {entropy_mean:.4g}, metric term "
            f"{metric_value:.4g}); expected a finite number: lower the learning rate or alpha."
        )
    return {
        "images": images,
        "cross_entropy": entropy_mean * images,
        "metric": metric_value * images,
        "correct": round(right),
    }

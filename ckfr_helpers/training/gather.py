"""The one thing several processes must share for this loss: the whole batch's latents."""

import warnings
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# Said to Fabric's authors, not to whoever trains; it would stand in the output of every run.
warnings.filterwarnings("ignore", message=r".*all_gather is deprecated", module=r"lightning_fabric\..*")


def gather_batch(fabric: "Fabric", latents: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Latents (with gradients) and labels of all processes: every triplet of the global batch counts.

    Each process computes the loss of the whole gathered batch. Gathering sums the gradients that come back
    from all of them, and the data-parallel engine divides by their number, so that the step is exactly that
    of one process holding the whole batch.

    Args:
        fabric: the engine.
        latents: (B, D) of this process.
        labels: (B,) of this process.

    Returns:
        (W·B, D) and (W·B,), the same in all W processes.
    """
    if fabric.world_size == 1:
        return latents, labels
    everyone = fabric.all_gather(latents.float(), sync_grads=True)  # (W, B, D)
    return everyone.flatten(0, 1), fabric.all_gather(labels).flatten()

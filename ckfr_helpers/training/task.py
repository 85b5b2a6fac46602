"""What is learnt: a task says what a network's outputs are, what is minimised and which score counts.

The loop (`training.loop.fit`) does the rest, the same for every task: precision, devices, exact accumulation,
checkpoints, going on after a stop, progress. A new task is one class:

    class MultiLabel(Task):
        chosen_by = "accuracy"

        def outputs(self, model, inputs):
            return {"logits": model(inputs)}

        def losses(self, outputs, targets):
            loss = nn.functional.multilabel_soft_margin_loss(outputs["logits"], targets["labels"])
            return {"logistic": loss}

        def validate(self, model, loader, fabric=None):
            ...
"""

from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from ckfr_helpers import metrics
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.losses.rivals import Objective
from ckfr_helpers.training.evaluation import predict


class Task(nn.Module):
    """Base of all tasks.

    Parameters of its own (proxies, a temperature) are trained and saved with the model's. They may be used in
    ``losses`` alone; what has weights and is needed in ``outputs`` belongs to the model.
    """

    chosen_by: str  # the score of ``validate`` by which the epoch to keep is chosen
    more_is_better: bool = True  # of that score

    def outputs(self, model: Any, inputs: Any) -> dict[str, Tensor]:
        """What the losses need of one batch's inputs: floating-point tensors with one row an example."""
        raise NotImplementedError

    def losses(self, outputs: dict[str, Tensor], targets: dict[str, Any]) -> dict[str, Tensor]:
        """Named scalars whose sum is minimised, of the whole batch of all its parts and all processes."""
        raise NotImplementedError

    def step(self, model: nn.Module, batch: tuple[Any, dict[str, Any], Tensor]) -> dict[str, Tensor]:
        """The losses of one batch ``(inputs, targets, indices)``, in one piece and one process."""
        inputs, targets, _ = batch
        return self.losses(self.outputs(model, inputs), targets)

    def validate(self, model: nn.Module, loader: Any, fabric: Fabric | None = None) -> dict[str, float]:
        """Scores of the model on a split; of all processes' examples, and the same in every process."""
        raise NotImplementedError


class ClassificationTask(Task):
    """Cross-entropy (or what a rival puts in its place) plus a metric term, as `losses.make_loss` gives them.

    Severities are heights of lowest common ancestors in the hierarchy.
    """

    chosen_by = "top1"

    def __init__(self, objective: Objective, hierarchy: Hierarchy) -> None:
        super().__init__()
        self.objective = objective
        self.hierarchy = hierarchy

    def outputs(self, model: Any, inputs: Tensor) -> dict[str, Tensor]:
        """Logits (B, K) and latents (B, D) of a model with ``embed`` and ``classify``."""
        latents = model.embed(inputs)
        return {"logits": model.classify(latents), "latents": latents}

    def losses(self, outputs: dict[str, Tensor], targets: dict[str, Any]) -> dict[str, Tensor]:
        """``cross_entropy``, and ``metric`` with its weight."""
        labels = targets["label"]
        return {
            "cross_entropy": self.objective.classification(outputs["logits"], labels),
            "metric": self.objective(outputs["latents"], labels),
        }

    def validate(self, model: nn.Module, loader: Any, fabric: Fabric | None = None) -> dict[str, float]:
        """``cross_entropy``, ``top1`` and ``mistake_severity``."""
        seen = predict(model, loader, fabric)
        severity = self.hierarchy.distances("lca_height")
        scores = metrics.hierarchical_metrics(seen.logits, seen.labels, severity, ks=(1,))
        logits, labels = torch.from_numpy(seen.logits), torch.from_numpy(seen.labels)
        return {
            "cross_entropy": float(nn.functional.cross_entropy(logits, labels)),
            "top1": float(scores["top1"]),
            "mistake_severity": float(scores["mistake_severity"]),
        }

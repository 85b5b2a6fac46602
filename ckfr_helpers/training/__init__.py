"""Training: settings, tasks, the loop, checkpoints, evaluation."""

from ckfr_helpers.training.config import TrainConfig
from ckfr_helpers.training.evaluation import Predictions, predict, score
from ckfr_helpers.training.loop import Interrupted, fit
from ckfr_helpers.training.run import Run, evaluate, load_run, train
from ckfr_helpers.training.tails import cache_split, train_tail
from ckfr_helpers.training.task import ClassificationTask, Task

__all__ = [
    "ClassificationTask",
    "Interrupted",
    "Predictions",
    "Run",
    "Task",
    "TrainConfig",
    "cache_split",
    "evaluate",
    "fit",
    "load_run",
    "predict",
    "score",
    "train",
    "train_tail",
]

"""From a config to a trained, evaluated run in a folder, and back from the folder."""

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException
from tqdm.auto import tqdm

from ckfr_helpers import datasets
from ckfr_helpers.datasets.base import ImageSource
from ckfr_helpers.datasets.cache import cached
from ckfr_helpers.datasets.loading import TransformedView, make_loader
from ckfr_helpers.datasets.subset import balanced
from ckfr_helpers.datasets.transforms import make_transform, stored_side
from ckfr_helpers.hierarchy.demo_file import load_pseudo_distances
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.losses import rivals as baselines
from ckfr_helpers.models.classifier import Classifier, build_model, default_model_name
from ckfr_helpers.runtime import (
    CkfrError,
    atomic_path,
    environment,
    num_workers,
    pick_device,
    runs_root,
    seed_everything,
)
from ckfr_helpers.training.checkpoints import load_checkpoint
from ckfr_helpers.training.config import TrainConfig
from ckfr_helpers.training.evaluation import predict, score
from ckfr_helpers.training.loop import fit
from ckfr_helpers.training.processes import lost_peers_named


@dataclass
class Run:
    """A finished run.

    Attributes:
        config: its settings, with the model filled in.
        folder: where ``last.pt``, ``best.pt``, ``history.csv``, ``config.json`` and ``scores.json`` lie.
        model: with the weights of the best validation epoch.
        history: one dict an epoch.
        scores: on the test split, from `score`.
    """

    config: TrainConfig
    folder: Path
    model: Classifier
    history: list[dict[str, float]]
    scores: dict[str, float]


def train(config: TrainConfig, out: Path | None = None, *, progress: bool = True) -> Run:
    """Train, keep the epoch that validates best, and score it once on the test split.

    Args:
        config: all settings.
        out: folder; by default named after the settings under `runs_root`. If it holds an unfinished run with
            the same settings, that run goes on.
        progress: show bars.

    Raises:
        CkfrError: for missing data or weights, a folder that belongs to another run, or a loss that is no
            longer finite.
    """
    config = resolve(config)
    out = Path(out) if out is not None else runs_root() / config.run_name()
    fabric = make_fabric(config)
    with lost_peers_named(fabric.world_size):
        return _train(config, out, fabric, progress)


def _train(config: TrainConfig, out: Path, fabric: Fabric, progress: bool) -> Run:
    source = {split: open_split(config, split, progress) for split in ("train", "val", "test")}
    distances = knowledge_distances(config, source["train"])
    seed_everything(config.seed)
    model = make_model(config, num_classes=len(source["train"].classes))
    loaders = {split: split_loader(config, source[split], model, fabric) for split in source}
    loss = make_loss(config, distances, source["train"].hierarchy, model.embed_dim)
    _refuse_other_run(out, config)  # in every process, so that none waits for one that has stopped
    if fabric.is_global_zero:
        for half in out.glob(".*.tmp"):  # left by a run that was killed while it wrote
            half.unlink(missing_ok=True)
        with atomic_path(out / "config.json") as path:
            path.write_text(config.to_json())
    fabric.barrier()
    result = fit(
        model, loss, loaders["train"], loaders["val"], config, fabric=fabric, out=out, progress=progress
    )
    model.load_state_dict(result.best_weights)
    scores = score(predict(model.to(fabric.device), loaders["test"], fabric), source["test"].hierarchy)
    if fabric.is_global_zero:
        record = {"scores": scores, "best_epoch": result.best_epoch + 1, "environment": environment()}
        with atomic_path(out / "scores.json") as path:
            path.write_text(json.dumps(record, indent=1) + "\n")
    return Run(config, out, model, result.history, scores)


def load_run(folder: Path) -> Run:
    """Bring back a run on the CPU, its model holding the best weights so far; no ``scores`` before its end.

    Raises:
        CkfrError: if the folder holds no run with a finished epoch, or a file in it is damaged.
    """
    folder = Path(folder)
    saved = load_checkpoint(folder / "best.pt")
    config = TrainConfig.from_dict(saved["config"], folder / "best.pt")
    classes = saved["model"]["classifier.weight"].shape[0]
    model = make_model(dataclasses.replace(config, pretrained=False, weights=None), num_classes=classes)
    model.load_state_dict(saved["model"])
    scores_file = folder / "scores.json"
    scores = json.loads(scores_file.read_text())["scores"] if scores_file.is_file() else {}
    history = load_checkpoint(folder / "last.pt")["history"]
    return Run(config, folder, model.eval(), history, scores)


def evaluate(folder: Path, split: str = "test", *, progress: bool = True) -> dict[str, float]:
    """Score a run's best epoch so far on one split of its data.

    Raises:
        CkfrError: if the folder holds no run with a finished epoch, or the data is missing.
    """
    run = load_run(folder)
    config = dataclasses.replace(run.config, devices=1)
    fabric = make_fabric(config)
    source = open_split(config, split, progress)
    # The evaluation transform and order on every split, the training split too.
    loader = split_loader(config, source, run.model, fabric, train=False)
    if progress and fabric.is_global_zero:
        loader = tqdm(loader, desc=split, leave=False)
    return score(predict(run.model.to(fabric.device), loader, fabric), source.hierarchy)


def resolve(config: TrainConfig) -> TrainConfig:
    """Fill in what depends on the machine: the model, when none is named."""
    if config.model is not None:
        return config
    device = pick_device() if config.accelerator == "auto" else config.accelerator
    return dataclasses.replace(config, model=default_model_name(device))


def make_fabric(config: TrainConfig) -> Fabric:
    """The engine: device, precision and processes, launched."""
    under_torchrun = "LOCAL_WORLD_SIZE" in os.environ
    devices = int(os.environ["LOCAL_WORLD_SIZE"]) if under_torchrun else config.devices
    nodes = int(os.environ["WORLD_SIZE"]) // devices if under_torchrun else 1
    accelerator = pick_device() if config.accelerator == "auto" else config.accelerator
    try:
        fabric = Fabric(accelerator=accelerator, devices=devices, num_nodes=nodes, precision=config.precision)
    except (ValueError, RuntimeError, MisconfigurationException) as error:
        raise CkfrError(
            f"Cannot train with {accelerator} × {devices} at {config.precision}: {error}"
        ) from error
    if fabric.world_size > 1:
        fabric.launch()
    if config.batch_size % fabric.world_size:
        raise CkfrError(
            f"A batch of {config.batch_size} cannot be shared by {fabric.world_size} processes; "
            "expected a multiple of their number."
        )
    share = config.batch_size // fabric.world_size
    if config.accumulate > share:
        raise CkfrError(
            f"accumulate is {config.accumulate}, but each process has {share} images a step; "
            "expected at most that many parts."
        )
    return fabric


def open_split(config: TrainConfig, split: str, progress: bool = True) -> ImageSource:
    """The config's image source for one split, read from the cache and cut to ``per_class`` if it says so."""
    root = Path(config.root) if config.root is not None else None
    options = config.data_options | (config.train_options if split == "train" else {})
    source = datasets.open_source(config.data, split, root=root, **options)
    if config.cache:  # of the whole split: every seed's part reads the same file
        side = stored_side(config.transform, config.size)
        source = cached(source, side, workers=config.workers, progress=progress)
    count = config.per_class.get(split)
    return source if count is None else balanced(source, count, config.seed if split == "train" else 0)


def make_model(config: TrainConfig, num_classes: int) -> Classifier:
    """The config's model, its first stages frozen as asked."""
    assert config.model is not None, "resolve() first"
    model = build_model(config.model, num_classes, pretrained=config.pretrained, weights_path=config.weights)
    return model.freeze(config.freeze)


def split_loader(
    config: TrainConfig,
    source: ImageSource,
    model: Classifier,
    fabric: Fabric | None = None,
    train: bool | None = None,
) -> Any:
    """Batches of one split; random order and transform for training alone, unless ``train`` says."""
    training = source.split == "train" if train is None else train
    statistics = {"mean": model.mean, "std": model.std} if config.normalise else {}
    transform = make_transform(config.transform, train=training, size=config.size, **statistics)
    world = fabric.world_size if fabric is not None else 1
    return make_loader(
        TransformedView(source, transform, config.seed),
        config.batch_size // world,
        train=training,
        workers=num_workers() if config.workers is None else config.workers,
        rank=fabric.global_rank if fabric is not None else 0,
        world_size=world,
    )


def make_loss(
    config: TrainConfig, distances: np.ndarray, hierarchy: Hierarchy, embed_dim: int
) -> baselines.Objective:
    """The config's objective for (C, C) unscaled class distances; `fit` says what it asks of a loss.

    Raises:
        CkfrError: for an unknown method, or a wrong option of it.
    """
    options = dict(config.method_options)
    if config.method == "ckfr":
        if options:
            raise CkfrError(
                f"method_options is {options}; expected none for ckfr, whose alpha and ell are settings."
            )
        options = {"alpha": config.alpha, "ell": config.ell}
    return baselines.make_loss(
        config.method,
        hierarchy,
        embed_dim=embed_dim,
        knowledge_scale=config.knowledge_scale,
        knowledge=distances,
        **options,
    )


def knowledge_distances(config: TrainConfig, source: ImageSource) -> np.ndarray:
    """(C, C) float32 class distances, unscaled, in the label order of the source.

    Raises:
        CkfrError: if a distance file lacks one of the classes.
    """
    if config.distances is None:
        return source.hierarchy.distances(config.measure)
    path = Path(config.distances)
    if path.suffix == ".npz":
        return Hierarchy.load(path).subset(source.classes).distances(config.measure)
    return load_pseudo_distances(path, source.classes)[1]


def _refuse_other_run(out: Path, config: TrainConfig) -> None:
    existing = out / "config.json"
    if not existing.is_file():
        return
    try:
        values = json.loads(existing.read_text())
    except json.JSONDecodeError as error:
        raise CkfrError(
            f"{existing} is not JSON ({error}); remove the folder or name another with --out."
        ) from error
    difference = config.difference(TrainConfig.from_dict(values, existing))
    if difference:
        raise CkfrError(
            f"{out} holds a run with other settings ({difference}); name another folder with --out."
        )
    history = out / "history.csv"
    done = len(history.read_text().splitlines()) - 1 if history.is_file() else 0
    if done > config.epochs:
        raise CkfrError(
            f"{out} holds a run of {done} epochs already; expected at most the {config.epochs} asked for. "
            "Name another folder with --out."
        )

"""From a config to a trained, evaluated run in a folder, and back from the folder."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException
from tqdm.auto import tqdm

from ckfr_helpers import datasets, runtime
from ckfr_helpers.datasets.base import ImageSource
from ckfr_helpers.datasets.cache import cached
from ckfr_helpers.datasets.loading import TransformedView, make_loader
from ckfr_helpers.datasets.subset import balanced
from ckfr_helpers.datasets.transforms import make_transform, stored_side
from ckfr_helpers.hierarchy.files import load_pseudo_distances
from ckfr_helpers.hierarchy.tree import Hierarchy, Measure
from ckfr_helpers.losses.rivals import make_loss
from ckfr_helpers.models.classifier import LITE, Classifier, build_model, check_model_name
from ckfr_helpers.runtime import CkfrError, as_json, environment, num_workers, pick_device, runs_root
from ckfr_helpers.training.checkpoints import (
    load_checkpoint,
    pack_hierarchy,
    refuse_other_classes,
    run_folder,
    unpack_hierarchy,
    write_text,
)
from ckfr_helpers.training.config import TrainConfig
from ckfr_helpers.training.evaluation import predict, score
from ckfr_helpers.training.loop import fit, last_state
from ckfr_helpers.training.processes import lost_process_explained, on_first_process
from ckfr_helpers.training.task import ClassificationTask


@dataclass
class Run:
    """A run, finished or with at least one epoch behind it.

    Its ``folder`` holds ``last.pt``, ``best.pt``, ``history.csv``, ``config.json`` and ``scores.json``;
    ``model`` has the weights of ``best_epoch`` (from 1), ``history`` one dict an epoch, and ``scores`` are
    those of the test split, none before the end.
    """

    config: TrainConfig
    folder: Path
    model: Classifier
    hierarchy: Hierarchy
    best_epoch: int
    history: list[dict[str, float]]
    scores: dict[str, float]


def train(config: TrainConfig, out: Path | None = None, *, progress: bool = True) -> Run:
    """Train, keep the epoch that validates best, and score it once on the test split.

    The folder ``out`` is by default named after the settings, under `runs_root`. If it holds an unfinished
    run with the same settings, that run goes on.

    Raises:
        CkfrError: for missing data or weights, a folder that another process trains in or that belongs to
            another run, or a loss that is no longer finite.
        Interrupted: after Ctrl-C, once the state is saved.
    """
    config = resolve(config)
    out = Path(out) if out is not None else runs_root() / config.run_name()
    fabric = make_fabric(config)
    with lost_process_explained(fabric.world_size), contextlib.ExitStack() as stack:
        _try_settings(config)
        on_first_process(fabric, lambda: stack.enter_context(run_folder(out)))
        return _train(config, out, fabric, progress)


def _train(config: TrainConfig, out: Path, fabric: Fabric, progress: bool) -> Run:
    saved = last_state(out, config)  # other settings are refused before data and weights are touched
    source = {split: open_split(config, split, progress) for split in ("train", "val", "test")}
    hierarchy = source["train"].hierarchy
    if saved is not None:
        refuse_other_classes(saved, hierarchy, f"The run in {out}")
    runtime.seed_everything(config.seed)
    model = make_model(config, len(hierarchy))
    loaders = {split: split_loader(config, source[split], model, fabric) for split in source}
    task = make_task(config, hierarchy, model.embed_dim)
    result = fit(
        model, task, loaders["train"], loaders["val"], config, fabric=fabric, out=out,
        keep=pack_hierarchy(hierarchy), progress=progress,
    )  # fmt: skip
    model.load_state_dict(result.best_weights)
    scores = score(predict(model.to(fabric.device), loaders["test"], fabric), hierarchy)
    record = {"scores": scores, "best_epoch": result.best_epoch + 1, "environment": environment()}
    on_first_process(fabric, lambda: write_text(out / "scores.json", as_json(record)))
    return Run(config, out, model, hierarchy, result.best_epoch + 1, result.history, scores)


def load_run(folder: Path) -> Run:
    """Bring back a run on the CPU, its model holding the best weights so far; its data is not needed.

    Raises:
        CkfrError: if the folder holds no run with a finished epoch, or a file in it is damaged.
    """
    folder = Path(folder)
    saved = load_checkpoint(folder / "best.pt", ("config", "model", "epoch", "classes", "names", "pairs"))
    config = TrainConfig.from_dict(saved["config"], folder / "best.pt")
    hierarchy = unpack_hierarchy(saved)
    model = make_model(dataclasses.replace(config, pretrained=False, weights=None), len(hierarchy))
    model.load_state_dict(saved["model"])
    history, scores = folder / "history.csv", folder / "scores.json"
    with _damage_named(history):
        table = pd.read_csv(history, dtype=str) if history.is_file() else pd.DataFrame()
        rows = table.astype(float).to_dict("records")  # Python reads floats to the last bit
    with _damage_named(scores):
        found = json.loads(scores.read_text())["scores"] if scores.is_file() else {}
        found = {name: float("nan") if value is None else float(value) for name, value in found.items()}
    return Run(config, folder, model.eval(), hierarchy, saved["epoch"] + 1, rows, found)


@contextlib.contextmanager
def _damage_named(file: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a different type for each way a file can be wrong
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise CkfrError(f"{file} is damaged ({reason}); remove it, or put back a whole copy.") from error


def evaluate(
    folder: Path,
    split: str = "test",
    *,
    root: str | Path | None = None,
    accelerator: str | None = None,
    progress: bool = True,
) -> dict[str, float]:
    """Score a run's best epoch so far on one split of its data, always with the evaluation transform.

    ``root`` and ``accelerator`` are for data and devices that are not where the run had them.

    Raises:
        CkfrError: if the folder holds no run with a finished epoch, or its data is missing or another.
    """
    run = load_run(folder)
    config = for_this_machine(run.config, root=root, accelerator=accelerator)
    fabric = make_fabric(config)
    source = open_split(config, split, progress)
    refuse_other_classes(pack_hierarchy(run.hierarchy), source.hierarchy, f"The run in {folder}")
    loader = split_loader(config, source, run.model, fabric, train=False)
    if progress and fabric.is_global_zero:
        loader = tqdm(loader, desc=split, leave=False)
    return score(predict(run.model.to(fabric.device), loader, fabric), run.hierarchy)


def for_this_machine(
    config: TrainConfig, *, root: str | Path | None = None, accelerator: str | None = None
) -> TrainConfig:
    """Settings with which a run trained anywhere can be looked at here: one process, on what there is."""
    if accelerator is None:
        accelerator = config.accelerator if config.accelerator in ("cpu", pick_device()) else "auto"
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and pick_device() == "cpu")
    precision = "32-true" if on_cpu and config.precision == "16-mixed" else config.precision
    return dataclasses.replace(
        config, devices=1, accumulate=1, compile=False, sync_batch_norm=False,
        accelerator=accelerator, precision=precision, root=config.root if root is None else str(root),
    )  # fmt: skip


def resolve(config: TrainConfig) -> TrainConfig:
    """Name the model when none is: the original demo's Wide ResNet on a GPU, else EfficientNet-Lite0."""
    device = pick_device() if config.accelerator == "auto" else config.accelerator
    name = config.model or ("wide_resnet50_2" if device.startswith("cuda") else LITE)
    return dataclasses.replace(config, model=name)


def make_fabric(config: TrainConfig) -> Fabric:
    """The engine: device, precision and processes, launched; a `CkfrError` if this machine cannot do it."""
    devices = int(os.environ.get("LOCAL_WORLD_SIZE", config.devices))  # torchrun's word counts
    nodes = int(os.environ.get("WORLD_SIZE", devices)) // devices
    accelerator = pick_device() if config.accelerator == "auto" else config.accelerator
    if accelerator == "cpu" and config.precision == "16-mixed":
        raise CkfrError("16-mixed needs a GPU; on a CPU expected bf16-mixed or 32-true.")
    if accelerator in ("cpu", "mps") and config.sync_batch_norm and devices * nodes > 1:
        raise CkfrError("sync_batch_norm works between GPUs only; expected to train without it.")
    try:
        precision: Any = config.precision
        fabric = Fabric(accelerator=accelerator, devices=devices, num_nodes=nodes, precision=precision)
    except (ValueError, RuntimeError, MisconfigurationException) as error:
        raise CkfrError(f"Cannot train with {accelerator} × {devices}: {error}") from error
    if fabric.world_size > 1:
        fabric.launch()
    share, left = divmod(config.batch_size, fabric.world_size)
    if left:
        shown = f"{config.batch_size} cannot be shared by {fabric.world_size} processes"
        raise CkfrError(f"A batch of {shown}; expected a multiple of their number.")
    if config.accumulate > share:
        shown = f"{config.accumulate}, but each process has {share} images a step"
        raise CkfrError(f"accumulate is {shown}; expected at most that many parts.")
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
    rank, world = (fabric.global_rank, fabric.world_size) if fabric is not None else (0, 1)
    return make_loader(
        TransformedView(source, transform, config.seed), config.batch_size // world, train=training,
        workers=num_workers() if config.workers is None else config.workers, rank=rank, world_size=world,
    )  # fmt: skip


def make_task(config: TrainConfig, hierarchy: Hierarchy, embed_dim: int) -> ClassificationTask:
    """The config's task: cross-entropy plus the metric term, or a rival of theirs."""
    options = {"alpha": config.alpha, "ell": config.ell} if config.method == "ckfr" else config.method_options
    file, measure = config.distances, cast(Measure, config.measure)
    if file is None:
        knowledge = hierarchy.distances(measure)
    elif file.endswith(".npz"):
        knowledge = Hierarchy.load(file).subset(hierarchy.classes).distances(measure)
    else:
        knowledge = load_pseudo_distances(file, hierarchy.classes)[1]
    objective = make_loss(
        config.method, hierarchy, embed_dim=embed_dim, knowledge_scale=config.knowledge_scale,
        knowledge=knowledge, **options,
    )  # fmt: skip
    return ClassificationTask(objective, hierarchy)


def _try_settings(config: TrainConfig) -> None:
    """Refuse what only other rooms know to be wrong, before anything large is read or downloaded."""
    for name in ("distances", "weights"):
        path = getattr(config, name)
        if path is not None and not Path(path).is_file():
            raise CkfrError(f"{name} is {path!r}, which is no file.")
    check_model_name(config.model or "")
    toy = Hierarchy.from_pairs([("thing", "one"), ("thing", "other")])
    make_task(dataclasses.replace(config, distances=None), toy, embed_dim=2)

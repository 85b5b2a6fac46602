"""One run of a study, or one split through the frozen trunk: what a worker does, and how it is found again.

Every finished run is one JSON file named after its complete settings, so that a run is never computed twice
and a study can grow: a second alpha, five more seeds. Trunk outputs are one file of float16 a split.
"""

import dataclasses
import functools
import hashlib
import json
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ckfr_helpers import datasets
from ckfr_helpers.datasets.base import SPLITS, ImageSource
from ckfr_helpers.datasets.subset import balanced
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.losses.rivals import METHODS
from ckfr_helpers.models import CachedFeatures, build_model
from ckfr_helpers.runtime import CkfrError, atomic_path, environment
from ckfr_helpers.training.config import TrainConfig
from ckfr_helpers.training.evaluation import Predictions, predict, score
from ckfr_helpers.training.results import SCORES
from ckfr_helpers.training.run import make_fabric, open_split, split_loader, train
from ckfr_helpers.training.study.config import Data, Study
from ckfr_helpers.training.tails import cache_split, train_tail

FORMAT = "ckfr-study-run-1"


class Failure(NamedTuple):
    """A job that did not finish: which, and why in one sentence."""

    name: str
    reason: str


@dataclass(frozen=True)
class Features:
    """One split of one data set through the trunk.

    Attributes:
        folder: of the study.
        data, model, stage: what and through what.
        split: "train", "val" or "test".
        seed: which part of it; 0 wherever the seed makes no difference.
    """

    folder: Path
    data: Data
    model: str
    stage: int
    split: str
    seed: int

    @classmethod
    def of(cls, folder: Path, data: Data, model: str, stage: int, split: str, seed: int) -> "Features":
        """Validation and test pictures are the same for every seed, and all pictures of a class are all."""
        part = split == "train" and (data.name == "photos" or "train" in data.per_class)
        return cls(folder, data, model, stage, split, seed if part else 0)

    @property
    def name(self) -> str:
        """Readable, and different for different contents."""
        data = _portable(self.data)
        data |= {kind: self.data_size(kind) for kind in ("per_class", "scenes")}
        if self.split != "train":  # the background bias is in training alone: conditions share the rest
            data["options"] = {k: v for k, v in data["options"].items() if k != "background_bias"}
        what = [data | {"label": None}, self.model, self.stage, self.split, self.seed]
        label = self.data.label if self.split == "train" else self.data.name
        return f"{_plain(label)}_{self.split}_s{self.seed}_{_digest(what)}"

    def data_size(self, kind: str) -> int | None:
        """``per_class`` or ``scenes`` of this split."""
        return getattr(self.data, kind).get(self.split)

    @property
    def path(self) -> Path:
        """Where the outputs lie."""
        return self.folder / "features" / f"{self.name}.pt"

    def open(self) -> ImageSource:
        """The pictures."""
        data = self.data
        options = dict(data.options)
        if data.name == "photos":
            options |= {"size": data.size, "seed": self.seed}
            if self.data_size("scenes") is not None:
                options["scenes"] = self.data_size("scenes")
        source = datasets.open_source(data.name, self.split, root=data.root, **options)
        each = self.data_size("per_class")
        return source if each is None else balanced(source, each, self.seed)


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        folder: of the study.
        data: what it trains on.
        method, parameters, lr, seed: what it trains with; every parameter spelt out.
        model, stage, epochs, batch_size, measure, train: as in `Study`.
    """

    folder: Path
    data: Data
    method: str
    parameters: dict[str, Any]
    lr: float
    seed: int
    model: str
    stage: int
    epochs: int
    batch_size: int
    measure: str
    train: dict[str, Any]

    @classmethod
    def of(
        cls, study: Study, folder: Path, data: Data, method: str, parameters: dict, lr: float, seed: int
    ) -> "Job":
        return cls(
            folder, data, method, parameters, lr, seed, study.model, study.stage, study.epochs,
            study.batch_size, study.measure, study.train,
        )  # fmt: skip

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the result, as plain values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "folder"}
        return values | {"data": _portable(self.data)}

    @property
    def name(self) -> str:
        """Readable, and different for different settings."""
        made = "_".join(f"{key}{_short(value)}" for key, value in self.parameters.items())
        parts = [_plain(self.data.label), self.method, made, f"lr{self.lr:g}_s{self.seed}"]
        return "_".join(filter(None, [*parts, _digest(self.settings)]))

    @property
    def path(self) -> Path:
        """The run's one file."""
        return self.folder / "runs" / f"{self.name}.json"

    def finished(self) -> dict[str, Any] | None:
        """What an earlier call left, if it is whole and belongs to these settings."""
        try:
            record = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return None
        right = isinstance(record, dict) and record.get("format") == FORMAT
        return record if right and record["settings"] == self.settings else None

    def features(self) -> dict[str, Features]:
        """The cached splits it needs; none when the whole network is trained."""
        if not self.stage:
            return {}
        return {
            split: Features.of(self.folder, self.data, self.model, self.stage, split, self.seed)
            for split in SPLITS
        }


def cache(wanted: Features) -> str | Failure:
    """Send one split through the trunk and keep what comes out, or say why not."""
    return _guarded(wanted, _cache)


def run(job: Job) -> dict[str, Any] | Failure:
    """Train and score one run and keep its record, or say why not. A finished one is read."""
    return job.finished() or _guarded(job, _run)


def _guarded(job: Any, work: Any) -> Any:
    """One thread, since the runs themselves are spread over the cores; and no failure stops the others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    log = job.folder / "failed" / f"{job.name}.txt"
    try:
        result = work(job)
        log.unlink(missing_ok=True)  # of an earlier try
        return result
    except Exception as error:
        with atomic_path(log) as path:
            path.write_text(traceback.format_exc())
        lines = str(error).strip().splitlines() or [type(error).__name__]
        told = lines[0] if isinstance(error, CkfrError) else f"{type(error).__name__}: {lines[0]}"
        return Failure(job.name, told)
    finally:
        torch.set_num_threads(threads)


def _cache(wanted: Features) -> str:
    if wanted.path.is_file():
        return wanted.name
    source = wanted.open()
    trunk = build_model(wanted.model, 1).eval()
    kept = cache_split(source, trunk, wanted.stage, wanted.data.size, workers=0, progress=False)
    content = {
        "features": kept.features,
        "labels": kept.labels,
        "indices": kept.indices,
        "groups": _groups(source),
        "classes": list(source.classes),
        "pairs": [list(pair) for pair in source.hierarchy.to_pairs()],
    }
    with atomic_path(wanted.path) as path:
        torch.save(content, path)
    return wanted.name


@functools.lru_cache(maxsize=6)
def load(path: Path) -> dict[str, Any]:
    """What `cache` kept; the file is mapped, so that processes on one machine share the memory.

    Raises:
        CkfrError: if it is damaged; the sentence says what to do.
    """
    try:
        return torch.load(path, weights_only=True, mmap=True)
    except Exception as error:  # torch raises a different type for each way a file can be wrong
        raise CkfrError(f"The features {path} cannot be read; remove the file and start again.") from error


def _run(job: Job) -> dict[str, Any]:
    began, computed = time.perf_counter(), time.process_time()
    record = {"format": FORMAT, "name": job.name, "settings": job.settings}
    record |= _tail(job) if job.stage else _whole(job)
    record |= {split: _kept(record[split]) for split in ("val", "test")} | {"environment": environment()}
    record["seconds"] = round(time.perf_counter() - began, 2)
    record["cpu_seconds"] = round(time.process_time() - computed, 2)  # what counts on a shared machine
    with atomic_path(job.path) as path:
        path.write_text(json.dumps(record))
    # As it will be read: numbers, lists and names, and the same whether computed now or earlier.
    return json.loads(json.dumps(record))


def _kept(scores: dict[str, float]) -> dict[str, float]:
    """What the table holds."""
    return {name: scores[name] for name in SCORES if name in scores}


def _method(job: Job) -> dict[str, Any]:
    """The loss, as `TrainConfig` calls it."""
    own = {name: job.parameters[name] for name in METHODS[job.method]}
    if job.method == "ckfr":
        extra = {name: value for name, value in job.parameters.items() if name not in own}
        return {"method": "ckfr", **own, **extra}
    return {"method": job.method, "method_options": own, "alpha": 0.0}


def _tail(job: Job) -> dict[str, Any]:
    content = {split: load(wanted.path) for split, wanted in job.features().items()}
    test = content["test"]
    hierarchy = Hierarchy.from_pairs([tuple(pair) for pair in test["pairs"]], test["classes"])
    features = {
        split: CachedFeatures(some["features"], some["labels"], some["indices"])
        for split, some in content.items()
    }
    config = TrainConfig(
        **_method(job), model=job.model, freeze=job.stage, epochs=job.epochs, lr=job.lr, lr_step=job.epochs,
        batch_size=job.batch_size, seed=job.seed, accelerator="cpu",
    )  # fmt: skip
    made = train_tail(features, hierarchy, config)
    return {
        "best_epoch": made.best_epoch,
        "history": made.history,
        "val": made.scores["val"],
        "test": made.scores["test"],
        "test_distance": _distances(made.seen["test"], hierarchy),
        "test_groups": test["groups"],
    }


def _whole(job: Job) -> dict[str, Any]:
    own = {"size": job.data.size} if job.data.name == "photos" else {}
    config = TrainConfig(
        data=job.data.name, root=job.data.root, data_options=job.data.options | own, size=job.data.size,
        # Each seed paints its own training scenes; validation and test are the same for all.
        train_options={"seed": job.seed} if own else {}, per_class=job.data.per_class,
        model=job.model, epochs=job.epochs, batch_size=job.batch_size, lr=job.lr, seed=job.seed,
        **_method(job), **job.train,
    )  # fmt: skip
    made = train(config, job.folder / "whole" / job.name, progress=False)  # resumes within the run
    fabric = make_fabric(made.config)
    found = {}
    for split in ("val", "test"):
        source = open_split(made.config, split, progress=False)
        found[split] = predict(
            made.model.to(fabric.device), split_loader(made.config, source, made.model, fabric), fabric
        )
    hierarchy = source.hierarchy
    scores = {split: score(seen, hierarchy) for split, seen in found.items()}
    uncached = open_split(dataclasses.replace(made.config, cache=False), "test")
    return {
        "best_epoch": made.best_epoch,
        "history": made.history,
        **scores,
        "test_distance": _distances(found["test"], hierarchy),
        "test_groups": _groups(uncached),
    }


def _distances(seen: Predictions, hierarchy: Hierarchy) -> list[int]:
    """How far each answer on the test split is from the truth, in its order; 0 is right."""
    return hierarchy.distances("lca_height")[seen.logits.argmax(1), seen.labels].astype(np.int64).tolist()


def _portable(data: Data) -> dict[str, Any]:
    """Without the place of the data on this machine: of the root, its last name alone counts."""
    return dataclasses.asdict(data) | {"root": None if data.root is None else Path(data.root).name}


def _groups(source: ImageSource) -> list[int] | None:
    """Which photograph each scene shows: scenes of one are not independent, so intervals resample these."""
    photo_of = getattr(source, "photo_of", None)
    return None if photo_of is None else [int(photo_of(i)) for i in range(len(source))]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def _plain(text: str) -> str:
    return "".join(c if c.isalnum() or c in ".-" else "-" for c in text)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)

"""One run of a study, or one split through the frozen trunk: what a worker does, and how it is found again.

A finished run is one JSON file named after its settings, what its pictures are, and the code that computes
it; so a run is never computed twice, a study can grow, and an edited loss computes its runs anew. Trunk
outputs are one file of float16 for what they are made of: pictures, weights, stage and size.
"""

import ast
import functools
import hashlib
import json
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

import numpy as np
import torch

from ckfr_helpers import datasets
from ckfr_helpers.datasets.base import SPLITS, ImageSource
from ckfr_helpers.datasets.loading import CachedLoader
from ckfr_helpers.datasets.scenes.single import OnBackground, PhotoScenes
from ckfr_helpers.datasets.subset import balanced
from ckfr_helpers.losses.rivals import METHODS
from ckfr_helpers.models import CachedFeatures, Classifier, build_model, feature_key
from ckfr_helpers.runtime import PACKAGE, CkfrError, as_json, atomic_path, environment
from ckfr_helpers.training.checkpoints import write_text
from ckfr_helpers.training.config import TrainConfig
from ckfr_helpers.training.evaluation import Predictions, predict, score
from ckfr_helpers.training.results import SCORES
from ckfr_helpers.training.run import make_fabric, open_split, split_loader, train
from ckfr_helpers.training.study.config import Data, Study
from ckfr_helpers.training.tails import cache_split, new_tail, train_tail

UNTRAINED = "untrained"  # the method of jobs that train nothing; only further scores ask for them
BACKGROUNDS = ("usual", "foreign")
SCORERS = {"look": "ckfr_helpers.attribution.look:study_scores"}
# Method and score that stand in the table for what "look" says without any network.
FREE = {
    "uniform_energy": ("uniform map", "energy"),
    "centre_energy": ("centre map", "energy"),
    "random_point": ("random point", "pointing"),
    "centre_point": ("centre map", "pointing"),
    "centre_max_box_acc_v2": ("centre map", "max_box_acc_v2"),
    "centre_gt_known": ("centre map", "gt_known"),
    "whole_image_gt_known": ("whole picture", "gt_known"),
}


class Failure(NamedTuple):
    """Which job did not finish, and why in one sentence."""

    name: str
    reason: str


@dataclass(frozen=True)
class Job:
    """One run: what its study shares, and its own method, parameters (all spelt out), rate and seed."""

    folder: Path
    study: Study
    data: Data
    method: str
    parameters: dict[str, Any]
    lr: float
    seed: int

    @functools.cached_property
    def splits(self) -> dict[str, tuple[str, int]]:
        """The pictures it needs: split -> what to open, and the seed that draws it; 0 where none does.

        Validation and test pictures are the same for every seed. Which place is usual for a class is drawn by
        the seed that paints the training scenes, so the swapped scenes follow it, and the test scenes them.
        """
        photos, look = self.data.name == "photos", "look" in self.study.scores
        own = self.seed if photos or "train" in self.data.per_class else 0
        swapped = BACKGROUNDS if photos and look else ()
        after = {split: self.seed if swapped else 0 for split in ("test", *swapped)}
        return {split: (split, {"train": own, "val": 0, **after}[split]) for split in (*SPLITS, *swapped)}

    def open(self, split: str) -> ImageSource:
        """The pictures of a split."""
        return _open(self.data.model_dump_json(), *self.splits[split])

    @functools.cached_property
    def content(self) -> dict[str, str]:
        """Split -> what its pictures are, and with a frozen trunk what they become behind it."""
        data, study = self.data.model_dump_json(), self.study
        pictures = {split: _fingerprint(data, *drawn) for split, drawn in self.splits.items()}
        if not study.stage:
            return pictures
        return {s: _behind(study.model, study.stage, shown, self.data.size) for s, shown in pictures.items()}

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the result, as plain values; where things lie is none of it."""
        shared = {"model", "stage", "epochs", "batch_size", "train", "scores"}
        rooms = ["hierarchy", "losses", "metrics", "models", "training"]
        return self.study.model_dump(mode="json", include=shared) | {
            "data": self.data.model_dump(mode="json", exclude={"root"}),
            "content": self.content,
            "code": code_digest(*rooms, *(["attribution"] if self.study.scores else [])),
            "method": self.method,
            "parameters": self.parameters,
            "lr": self.lr,
            "seed": self.seed,
        }

    @functools.cached_property
    def name(self) -> str:
        """Readable, and different for different settings."""
        made = [f"{k}{v:g}" if isinstance(v, float) else f"{k}{v}" for k, v in self.parameters.items()]
        own = [f"lr{self.lr:g}", f"s{self.seed}", _digest(self.settings)]
        return "_".join([_plain(self.data.label), self.method, *made, *own])

    @property
    def path(self) -> Path:
        """The run's one file."""
        return self.folder / "runs" / f"{self.name}.json"

    def finished(self) -> dict[str, Any] | None:
        """What an earlier call left, if it is whole and belongs to these settings."""
        try:
            record = json.loads(self.path.read_text())
            return record if record["settings"] == self.settings else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def features(self) -> list["Features"]:
        """The cached splits it needs; none when the whole network is trained."""
        return [Features(self.folder, self, split) for split in self.splits] if self.study.stage else []

    def compute(self) -> dict[str, Any]:
        """Train and score, and keep the record."""
        began = time.perf_counter()
        record = {"name": self.name, "settings": self.settings, **_scored(self)}
        record |= {"environment": environment(), "seconds": round(time.perf_counter() - began, 2)}
        text = as_json(record, digits=6)
        write_text(self.path, text)
        return json.loads(text)  # as it will be read: the same whether computed now or earlier


@dataclass(frozen=True)
class Features:
    """One split behind the frozen trunk; jobs with equal content share one file."""

    folder: Path
    job: Job
    split: str

    @property
    def name(self) -> str:
        """Readable, and different for different contents."""
        return f"{_plain(self.job.data.name)}_{self.split}_{self.job.content[self.split]}"

    @property
    def path(self) -> Path:
        """Where the outputs lie."""
        return self.folder / "features" / f"{self.name}.pt"

    def finished(self) -> str | None:
        """The name, if the outputs are there."""
        return self.name if self.path.is_file() else None

    def compute(self) -> str:
        """Send the split through the trunk and keep what comes out."""
        study, source = self.job.study, self.job.open(self.split)
        fabric = make_fabric(TrainConfig(accelerator=study.executor.accelerator))
        trunk = build_model(study.model, 1).eval().to(fabric.device)
        kept = cache_split(source, trunk, study.stage, self.job.data.size, workers=0, progress=False)
        with atomic_path(self.path) as path:
            torch.save(vars(kept), path)
        return self.name


def attempt(job: Job | Features) -> Any:
    """A job's record (or the name of what was cached), read or computed; else a `Failure`, logged."""
    log = job.folder / "failed" / f"{job.name}.txt"
    try:
        result = job.finished() or job.compute()
        log.unlink(missing_ok=True)  # of an earlier try
        return result
    except Exception as error:
        write_text(log, traceback.format_exc())
        first = (str(error).strip().splitlines() or [""])[0]
        said = first if isinstance(error, CkfrError) else f"{type(error).__name__}: {first}"
        return Failure(job.name, said)


@functools.lru_cache(maxsize=10)
def _load(path: Path) -> CachedFeatures:
    """What was cached; the file is mapped, so that processes on one machine share the memory."""
    try:
        return CachedFeatures(**torch.load(path, weights_only=True, mmap=True))
    except Exception as error:  # torch raises a different type for each way a file can be wrong
        raise CkfrError(f"The features {path} cannot be read; remove the file and start again.") from error


def _scored(job: Job) -> dict[str, Any]:
    """Scores of both splits, by photograph what intervals resample, and once what needs no network at all."""
    model, loaders, seen = _tail(job) if job.study.stage else _whole(job)
    test, names = job.open("test"), job.study.scores
    record: dict[str, Any] = {"val": {}, "test": {}}
    photos: dict[str, Any] = {}
    for split, said in seen.items():
        values = score(said, test.hierarchy)
        record[split] = {name: values[name] for name in SCORES if name in values}
    if seen:
        photos["top1"] = (seen["test"].logits.argmax(1) == seen["test"].labels).astype(int)
    for name in names:
        own, images = scorer(name)(model, loaders, {"val": job.open("val"), "test": test})
        record["test"] |= own
        photos |= {key: np.round(values, 5) for key, values in images.items()}
    if isinstance(test, PhotoScenes):  # scenes of one photograph are not independent
        record["photos"] = {key: values.tolist() for key, values in photos.items()}
        record["groups"] = [int(test.photo_of(i)) for i in range(len(test))]
    if job.method == UNTRAINED and job.seed == job.study.seeds[0] and "look" in names:
        free = resolve_name("ckfr_helpers.attribution.look:free_scores")(test)
        record["free"] = [(*FREE[name], value) for name, value in free.items()]
    return record


def scorer(name: str) -> Callable[..., Any]:
    """A further score by its name, or by ``package.module:function``: found so, as it may be of a room above.

    It is called ``scorer(model, loaders, sources)`` with the trained network (behind a frozen trunk, its
    tail), loaders of "val" and "test" in order, for scenes also of "usual" and "foreign" where the study
    asks for "look", and the sources of their pictures. It returns scores of the test split, and for some of
    them the value of each test picture.
    """
    try:
        return resolve_name(SCORERS.get(name, name))
    except (ImportError, AttributeError, ValueError) as error:
        raise CkfrError(
            f"There is no score {name!r} ({error}); expected {', '.join(SCORERS)} or package.module:function."
        ) from error


def _config(job: Job, **more: Any) -> TrainConfig:
    own = {name: job.parameters[name] for name in METHODS[job.method]}
    loss: dict[str, Any] = {"method_options": own, "alpha": 0.0} if job.method != "ckfr" else job.parameters
    shared = job.study.model_dump(include={"model", "epochs", "batch_size"})
    return TrainConfig(method=job.method, lr=job.lr, seed=job.seed, **shared, **loss, **more)


Trained = tuple[Classifier, dict[str, Any], dict[str, Predictions]]
"""A network, loaders, and what it says of "val" and "test"; nothing before training."""


def _tail(job: Job) -> Trained:
    study, features = job.study, {part.split: _load(part.path) for part in job.features()}
    hierarchy = job.open("test").hierarchy
    loaders = {split: CachedLoader(some, 64, train=False) for split, some in features.items()}
    if job.method == UNTRAINED:
        return new_tail(study.model, study.stage, len(hierarchy), job.seed).eval(), loaders, {}
    accelerator = study.executor.accelerator
    config = _config(job, freeze=study.stage, lr_step=study.epochs, accelerator=accelerator)
    made = train_tail(features, hierarchy, config)
    return made.tail, loaders, made.seen


def _whole(job: Job) -> Trained:
    data = job.data
    # Each seed paints its own training scenes; validation and test are the same for all.
    scenes = data.name == "photos"
    config = _config(
        job, data=data.name, root=data.root, size=data.size, per_class={**data.per_class},
        data_options=data.options | ({"size": data.size} if scenes else {}),
        train_options={"seed": job.seed} if scenes else {}, **job.study.train,
    )  # fmt: skip
    made = train(config, job.folder / "whole" / job.name, progress=False)  # resumes within the run
    fabric = make_fabric(made.config)
    model = made.model.to(fabric.device)
    sources = {split: open_split(made.config, split, progress=False) for split in ("val", "test")}
    loaders = {split: split_loader(made.config, sources[split], model, fabric) for split in sources}
    return model, loaders, {split: predict(model, loaders[split], fabric) for split in sources}


@functools.lru_cache(maxsize=4)  # each may hold hundreds of megabytes of pictures
def _open(told: str, split: str, seed: int) -> ImageSource:
    data = Data.model_validate_json(told)
    kind = "test" if split in BACKGROUNDS else split
    options = dict(data.options)
    if data.name == "photos":
        options |= {"size": data.size, "seed": seed}
        options |= {"scenes": data.scenes[kind]} if kind in data.scenes else {}
    source = datasets.open_source(data.name, kind, root=data.root, **options)
    if kind in data.per_class:
        return balanced(source, data.per_class[kind], seed)
    return OnBackground(source, split) if split in BACKGROUNDS else source  # type: ignore[arg-type]


@functools.cache
def _fingerprint(data: str, split: str, seed: int) -> str:
    return _digest(_open(data, split, seed).fingerprint())


@functools.cache
def _behind(model: str, stage: int, pictures: str, size: int) -> str:
    code = code_digest("models", "datasets/transforms.py")
    return feature_key(_trunk(model, stage), pictures=pictures, size=size, code=code)


@functools.cache
def _trunk(model: str, stage: int) -> torch.nn.Module:
    return build_model(model, 1).split(stage)[0]


@functools.cache
def code_digest(*rooms: str) -> str:
    """Of the code in these rooms or files, comments and docstrings left out; rooms inside rooms are none."""
    files = [file for room in rooms for file in sorted((PACKAGE / room).glob("*.py")) or [PACKAGE / room]]
    trees = [ast.parse(file.read_text()) for file in files if file.name != "results.py"]
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, documented) and ast.get_docstring(node) is not None:
                del node.body[0]
    return _digest([ast.dump(tree) for tree in trees])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def _plain(text: str) -> str:
    return "".join(c if c.isalnum() or c in ".-" else "-" for c in text)

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
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ckfr_helpers import datasets
from ckfr_helpers.datasets.base import SPLITS, ImageSource
from ckfr_helpers.datasets.loading import CachedLoader
from ckfr_helpers.datasets.scenes.single import OnBackground
from ckfr_helpers.datasets.subset import balanced
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.losses.rivals import METHODS
from ckfr_helpers.models import CachedFeatures, build_model
from ckfr_helpers.runtime import PACKAGE, CkfrError, atomic_path, environment
from ckfr_helpers.training.config import TrainConfig
from ckfr_helpers.training.evaluation import Predictions, predict, score
from ckfr_helpers.training.results import SCORES, strict
from ckfr_helpers.training.run import make_fabric, open_split, split_loader, train
from ckfr_helpers.training.study import scores as further
from ckfr_helpers.training.study.config import Data, Study
from ckfr_helpers.training.tails import cache_split, new_tail, train_tail

FORMAT = "ckfr-study-run-2"
UNTRAINED, FREE = "untrained", "free"  # jobs that train nothing; only further scores ask for them
BACKGROUNDS = ("usual", "foreign")


class Failure(NamedTuple):
    """A job that did not finish: which, and why in one sentence."""

    name: str
    reason: str


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        folder: of the study.
        study: what is the same for all runs.
        data: what it trains on.
        method, parameters, lr, seed: what it trains with; every parameter spelt out.
    """

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
        return _open(self.data, *self.splits[split])

    @functools.cached_property
    def content(self) -> dict[str, str]:
        """Split -> what its pictures are, and with a frozen trunk what they become behind it."""
        data, study = self.data.model_dump_json(), self.study
        pictures = {split: _fingerprint(data, *drawn) for split, drawn in self.splits.items()}
        if not study.stage:
            return pictures
        code = code_digest("models", "datasets/transforms.py")
        behind = [_trunk_digest(study.model, study.stage), self.data.size, code]
        return {split: _digest([shown, *behind]) for split, shown in pictures.items()}

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the result, as plain values; where things lie is none of it."""
        asked = self.study.model_dump(
            mode="json", include={"model", "stage", "epochs", "batch_size", "train", "scores"}
        )
        rooms = ["losses", "metrics", "models", "training", *(["attribution"] if self.study.scores else [])]
        return asked | {
            "data": self.data.model_dump(mode="json", exclude={"root"}),
            "content": self.content,
            "code": code_digest(*rooms),
            "method": self.method,
            "parameters": self.parameters,
            "lr": self.lr,
            "seed": self.seed,
        }

    @functools.cached_property
    def name(self) -> str:
        """Readable, and different for different settings."""
        made = "_".join(
            f"{k}{v:g}" if isinstance(v, float) else f"{k}{v}" for k, v in self.parameters.items()
        )
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
        return record if right and record.get("settings") == self.settings else None

    def features(self) -> list["Features"]:
        """The cached splits it needs; none when the whole network is trained."""
        return [Features(self, split) for split in self.splits] if self.study.stage else []


@dataclass(frozen=True)
class Features:
    """One split behind the frozen trunk; jobs with equal content share one file."""

    job: Job
    split: str

    @property
    def folder(self) -> Path:
        """Of the study."""
        return self.job.folder

    @property
    def name(self) -> str:
        """Readable, and different for different contents."""
        return f"{_plain(self.job.data.name)}_{self.split}_{self.job.content[self.split]}"

    @property
    def path(self) -> Path:
        """Where the outputs lie."""
        return self.folder / "features" / f"{self.name}.pt"


def cache(wanted: Features) -> str | Failure:
    """Send one split through the trunk and keep what comes out, or say why not."""
    return _guarded(wanted, _cache)


def run(job: Job) -> dict[str, Any] | Failure:
    """Train and score one run and keep its record, or say why not. A finished one is read."""
    return job.finished() or _guarded(job, _run)


def _guarded(job: Any, work: Callable[[Any], Any]) -> Any:
    """No failure stops the others."""
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


def _cache(wanted: Features) -> str:
    if wanted.path.is_file():
        return wanted.name
    job, source = wanted.job, wanted.job.open(wanted.split)
    trunk = build_model(job.study.model, 1).eval().to(_device(job))
    kept = cache_split(source, trunk, job.study.stage, job.data.size, workers=0, progress=False)
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


@functools.lru_cache(maxsize=10)
def _load(path: Path) -> dict[str, Any]:
    """What `cache` kept; the file is mapped, so that processes on one machine share the memory."""
    try:
        return torch.load(path, weights_only=True, mmap=True)
    except Exception as error:  # torch raises a different type for each way a file can be wrong
        raise CkfrError(f"The features {path} cannot be read; remove the file and start again.") from error


def _run(job: Job) -> dict[str, Any]:
    began = time.perf_counter()
    record: dict[str, Any] = {"format": FORMAT, "name": job.name, "settings": job.settings}
    if job.method == FREE:
        found = further.free(job.study.scores, job.open("test"))
        record["free"] = [[method, name, value] for (method, name), value in found.items()]
    else:
        record |= _tail(job) if job.study.stage else _whole(job)
    record |= {"environment": environment(), "seconds": round(time.perf_counter() - began, 2)}
    text = json.dumps(strict(record), allow_nan=False)
    with atomic_path(job.path) as path:
        path.write_text(text)
    return json.loads(text)  # as it will be read: the same whether computed now or earlier


def _method(job: Job) -> dict[str, Any]:
    """The loss, as `TrainConfig` calls it."""
    own = {name: job.parameters[name] for name in METHODS[job.method]}
    if job.method == "ckfr":
        extra = {name: value for name, value in job.parameters.items() if name not in own}
        return {"method": "ckfr", **own, **extra}
    return {"method": job.method, "method_options": own, "alpha": 0.0}


def _tail(job: Job) -> dict[str, Any]:
    study, content = job.study, {part.split: _load(part.path) for part in job.features()}
    test = content["test"]
    hierarchy = Hierarchy.from_pairs([tuple(pair) for pair in test["pairs"]], test["classes"])
    features = {
        split: CachedFeatures(c["features"], c["labels"], c["indices"]) for split, c in content.items()
    }
    loaders = {split: CachedLoader(some, 64, train=False) for split, some in features.items()}
    if job.method == UNTRAINED:
        tail = new_tail(study.model, study.stage, len(hierarchy), job.seed).eval()
        return _record(job, {}, None, hierarchy, tail, loaders, None)
    config = TrainConfig(
        **_method(job), model=study.model, freeze=study.stage, epochs=study.epochs, lr=job.lr,
        lr_step=study.epochs, batch_size=study.batch_size, seed=job.seed,
        accelerator=study.executor.accelerator,
    )  # fmt: skip
    made = train_tail(features, hierarchy, config)
    return _record(job, made.scores, made.seen["test"], hierarchy, made.tail, loaders, test["groups"])


def _whole(job: Job) -> dict[str, Any]:
    study, data = job.study, job.data
    own = {"size": data.size} if data.name == "photos" else {}
    config = TrainConfig(
        data=data.name, root=data.root, data_options=data.options | own, size=data.size,
        # Each seed paints its own training scenes; validation and test are the same for all.
        train_options={"seed": job.seed} if own else {}, per_class={**data.per_class},
        model=study.model, epochs=study.epochs, batch_size=study.batch_size, lr=job.lr, seed=job.seed,
        **_method(job), **study.train,
    )  # fmt: skip
    made = train(config, job.folder / "whole" / job.name, progress=False)  # resumes within the run
    fabric = make_fabric(made.config)
    model = made.model.to(fabric.device)
    sources = {split: open_split(made.config, split, progress=False) for split in ("val", "test")}
    loaders = {split: split_loader(made.config, sources[split], model, fabric) for split in sources}
    seen = {split: predict(model, loaders[split], fabric) for split in sources}
    scores = {split: score(seen[split], made.hierarchy) for split in seen}
    return _record(job, scores, seen["test"], made.hierarchy, model, loaders, _groups(job.open("test")))


def _record(
    job: Job, scores: dict[str, dict[str, float]], test: Predictions | None, hierarchy: Hierarchy, model: Any,
    loaders: dict[str, Any], groups: list[int] | None,
) -> dict[str, Any]:  # fmt: skip
    """What is kept of a run: scores of both splits, and by photograph what intervals resample."""
    found = {
        s: {name: scores.get(s, {})[name] for name in SCORES if name in scores.get(s, {})}
        for s in ("val", "test")
    }
    photos: dict[str, Any] = {}
    if test is not None:
        photos["top1"] = (test.logits.argmax(1) == test.labels).astype(int).tolist()
    for name in job.study.scores:
        sources = {split: job.open(split) for split in ("val", "test")}
        own, images = further.resolve(name)(model, loaders, sources)
        found["test"] |= own
        photos |= {key: np.round(values, 5).tolist() for key, values in images.items()}
    return found | ({} if groups is None else {"photos": photos, "groups": groups})


def _open(data: Data, split: str, seed: int) -> ImageSource:
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
    return _digest(_open(Data.model_validate_json(data), split, seed).fingerprint())


@functools.cache
def _trunk_digest(model: str, stage: int) -> str:
    trunk, _ = build_model(model, 1).split(stage)
    return _digest(
        {k: hashlib.sha256(v.numpy().tobytes()).hexdigest() for k, v in trunk.state_dict().items()}
    )


@functools.cache
def code_digest(*rooms: str) -> str:
    """Of the code in these rooms or files, comments and docstrings left out; rooms inside rooms are none."""
    files: Iterable[Path] = (
        file for room in rooms for file in sorted((PACKAGE / room).glob("*.py")) or [PACKAGE / room]
    )
    trees = [ast.parse(file.read_text()) for file in files if file.name != "results.py"]
    for node in (node for tree in trees for node in ast.walk(tree)):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            del body[0]
    return _digest([ast.dump(tree) for tree in trees])


def _device(job: Job) -> torch.device:
    return make_fabric(TrainConfig(accelerator=job.study.executor.accelerator)).device


def _groups(source: ImageSource) -> list[int] | None:
    """Which photograph each scene shows: scenes of one are not independent, so intervals resample these."""
    photo_of = getattr(source, "photo_of", None)
    return None if photo_of is None else [int(photo_of(i)) for i in range(len(source))]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def _plain(text: str) -> str:
    return "".join(c if c.isalnum() or c in ".-" else "-" for c in text)

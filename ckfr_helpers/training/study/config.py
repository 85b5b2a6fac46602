"""What a study file may say, checked before anything is computed; studies/README.md shows one whole.

A list is a choice to be made on validation; everything else is fixed.
"""

import dataclasses
import difflib
import itertools
import re
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ckfr_helpers import datasets
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.losses.rivals import BASELINE, METHODS, check_method, make_loss
from ckfr_helpers.models import check_model_name
from ckfr_helpers.runtime import CkfrError, num_workers
from ckfr_helpers.training.config import TrainConfig
from ckfr_helpers.training.results import SCORES

Count = Annotated[int, Field(strict=True, ge=1)]
Rate = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Splits = dict[Literal["train", "val", "test"], Count]
_TWO = Hierarchy.from_pairs([("either", "one"), ("either", "other")])
KNOWLEDGE = {"measure": "path", "knowledge_scale": 0.1}  # further parameters of ckfr


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(_Part):
    """One data set under one condition.

    Attributes:
        name: as in ``ckfr fetch NAME``.
        label: what tables and figures call it; the name, where it is left out.
        root: where it lies; None for the usual place.
        size: side of the input in pixels.
        options: of the source, in every split; ``background_bias`` acts in training alone by itself.
        per_class: for each split, how many pictures of every class; a split that is missing has all.
        scenes: photos only: how many for each split.
    """

    name: str
    label: str = ""
    root: str | None = None
    size: Count = 224
    options: dict[str, Any] = {}
    per_class: Splits = {}
    scenes: Splits = {}

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {
            "label": values.get("name"),
            **({"size": 160} if values.get("name") == "photos" else {}),
            **values,
        }

    @model_validator(mode="after")
    def _fits(self) -> "Data":
        if not datasets.is_source(self.name):
            _one_of("name:", self.name, datasets.names())
        photos = self.name == "photos"
        if photos and self.per_class:
            raise CkfrError("per_class is for pictures; photos are scenes without end, expected scenes")
        if self.scenes and not photos:
            raise CkfrError("scenes is given, but only photos have scenes; expected per_class")
        for name, other in (("seed", "the seeds of the study"), ("size", "the size of the data set")):
            if photos and name in self.options:
                raise CkfrError(f"options has {name}, which would be overwritten; expected {other} instead")
        return self


class Executor(_Part):
    """Where runs are computed.

    Attributes:
        kind: "processes" on this machine, or "submitit", which takes further settings of its own
            (timeout_min, cpus_per_task, mem_gb, slurm_partition …) beside these.
        processes: how many of the first kind.
        accelerator: for networks behind a frozen trunk, as in `TrainConfig`; small ones are faster on a CPU.
        cluster: submitit's: "slurm", or "local" for processes that look like a cluster's jobs.
        jobs: how many jobs of a cluster the runs are dealt out to; None for one a run on slurm, and one a
            core locally. A run takes seconds to minutes, an import of torch alone some seconds.
        parameters: those further settings.
    """

    kind: Literal["processes", "submitit"] = "processes"
    processes: Count = Field(default_factory=lambda: max(1, num_workers()))
    accelerator: Literal["cpu", "gpu", "auto"] = "cpu"
    cluster: Literal["slurm", "local"] = "slurm"
    jobs: Count | None = None
    parameters: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _further(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or values.get("kind") != "submitit":
            return values
        known = {name: value for name, value in values.items() if name in cls.model_fields}
        return {"parameters": {n: v for n, v in values.items() if n not in known}, **known}


class Study(_Part):
    """A grid of runs.

    Attributes:
        name: of its folder and files.
        datasets: what to train on.
        methods: for each, a list of values for each of its parameters. Cross-entropy is always among them.
        model: backbone.
        stage: how many leading stages are frozen, their outputs cached; 0 trains the whole network.
        epochs, batch_size: as in `TrainConfig`.
        seeds: one run each; of the training pictures where only some are taken, of the network's new layers
            and of the order.
        lr: learning rates.
        lr_for: "baseline": one rate for all methods, the best for cross-entropy; "each": part of each
            method's own grid.
        lr_by, choose_by: the validation score that the baseline's rate, and a method's parameters, are
            chosen by.
        choose_over: "each" data set chooses for itself, or "all" together, by their mean.
        scores: further scores beside the usual ones; see `study.scores`.
        train: with stage 0 only: further settings of `TrainConfig`.
        executor: where to compute.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    datasets: Annotated[tuple[Data, ...], Field(min_length=1)]
    methods: dict[str, dict[str, tuple[Any, ...]]]
    model: str = "efficientnet_lite0"
    stage: Annotated[int, Field(strict=True, ge=0)] = 8
    epochs: Count = 4
    batch_size: Count = 32
    seeds: tuple[Annotated[int, Field(strict=True, ge=0)], ...] = (0, 1, 2, 3, 4)
    lr: Annotated[tuple[Rate, ...], Field(min_length=1)] = (1e-3,)
    lr_for: Literal["baseline", "each"] = "baseline"
    lr_by: str = "top1"
    choose_by: str = "hdist@1"
    choose_over: Literal["each", "all"] = "each"
    scores: tuple[str, ...] = ()
    train: dict[str, Any] = {}
    executor: Executor = Field(default_factory=Executor)

    @field_validator("seeds", "lr", mode="before")
    @classmethod
    def _several(cls, value: Any, info: Any) -> Any:
        if not isinstance(value, list):
            value = (
                range(value) if info.field_name == "seeds" and type(value) is int and value > 0 else [value]
            )
        if len({str(one) for one in value}) < len(value):
            raise CkfrError(f"{value} is not as expected: different values")
        return list(value)

    @field_validator("stage", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        return 0 if value in (None, "none") else value

    @field_validator("model")
    @classmethod
    def _built(cls, value: str) -> str:
        check_model_name(value)
        return value

    @field_validator("lr_by", "choose_by")
    @classmethod
    def _known(cls, value: str) -> str:
        return _one_of("", value, SCORES)

    @field_validator("methods", mode="before")
    @classmethod
    def _methods(cls, values: Any) -> Any:
        if isinstance(values, list) and all(isinstance(one, str) for one in values):
            values = dict.fromkeys(values)
        if not isinstance(values, Mapping):
            raise CkfrError(f"{reprlib.repr(values)} is neither names alone nor a mapping without dashes")
        return {BASELINE: {}} | {name: _grid(name, given) for name, given in values.items()}

    @model_validator(mode="after")
    def _fits(self) -> "Study":
        labels = [data.label for data in self.datasets]
        for label in labels:
            if labels.count(label) > 1:
                raise CkfrError(f"two datasets are labelled {label!r}; give each its own label")
        if self.stage == 0 and any(data.scenes for data in self.datasets):
            raise CkfrError("scenes needs cached features; expected a stage above 0, or options with scenes")
        if self.train and self.stage:
            raise CkfrError("train is for whole networks; expected stage 0 beside it")
        decided = {"data", "data_options", "train_options", "method", "method_options", "alpha", "ell",
                   "measure", "knowledge_scale", "seed", *Study.model_fields, *Data.model_fields}  # fmt: skip
        known = [f.name for f in dataclasses.fields(TrainConfig) if f.name not in decided]
        for name in self.train:
            _one_of("train:", name, known)
        try:
            TrainConfig(**self.train)
        except CkfrError as error:
            raise CkfrError(f"train: {error}") from error
        return self

    def grid(self, method: str) -> list[dict[str, Any]]:
        """Every combination of a method's parameters, all of them spelt out."""
        given = self.methods[method]
        combined = [dict(zip(given, values, strict=True)) for values in itertools.product(*given.values())]
        return [{**_spelt(method), **some} for some in combined]

    def asked(self) -> dict[str, Any]:
        """The study as its file says it, without where things lie and what computes them."""
        values = self.model_dump(mode="json", exclude={"executor"})
        for data in values["datasets"]:
            data["root"] = None if data["root"] is None else Path(data["root"]).name
        return values

    def how(self) -> dict[str, str]:
        """The rules of choice in words, for the result file."""
        over = " and data sets" if self.choose_over == "all" else ""
        rate = f"{self.lr_by} of {BASELINE} on validation, mean over seeds{over}, for all methods"
        each = f"{self.choose_by} on validation, mean over seeds{over}"
        return {
            "learning rate": rate if self.lr_for == "baseline" else f"{each}, for each method",
            "parameters": each,
            "epoch": "top1 on validation, in each run",
            "intervals": "95 %, Student's t over seeds; differences paired on seeds",
            "severity unit": "height of the lowest common ancestor",
            "correlation": "Pearson, over pairs of class means of the split, latent distance with ell 1.2 "
            "against path length in the tree",
        }


def load_study(path: str | Path) -> Study:
    """Read a study file.

    Raises:
        CkfrError: if it is missing or no YAML, or a key or value in it is wrong; the sentence names it and,
            for a misspelt key, the nearest that exists.
    """
    path = Path(path)
    try:
        values = yaml.load(path.read_text(), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise CkfrError(f"The study {path} cannot be read ({error}).") from error
    except RecursionError:
        raise CkfrError(f"{path} is nested too deeply for a study.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise CkfrError(f"{path}{where} is not YAML: {getattr(error, 'problem', None) or error}.") from error
    return study_from(values, path.name, base=path.parent)


def study_from(values: Any, source: str = "the study", base: Path | None = None) -> Study:
    """A study from a mapping; relative ``root`` folders start at ``base``. Errors as `load_study`."""
    try:
        study = Study.model_validate(values)
    except ValidationError as error:
        raise CkfrError(_sentence(error, source)) from None
    if base is None:
        return study
    return with_root(study, lambda root: str((base / Path(root).expanduser()).resolve()))


def with_root(study: Study, root: Any) -> Study:
    """The study with ``root(old)`` in the place of each root that is given."""
    moved = [d if d.root is None else d.model_copy(update={"root": root(d.root)}) for d in study.datasets]
    return study.model_copy(update={"datasets": tuple(moved)})


def _grid(method: str, given: Any) -> dict[str, tuple[Any, ...]]:
    """A method's parameters as lists, each combination tried on a tree of two leaves."""
    _one_of("", method, METHODS)
    known, grid = _spelt(method), {}
    if not isinstance(given := {} if given is None else given, Mapping):
        raise CkfrError(f"{method} is {reprlib.repr(given)}; expected its parameters, e.g. {{}}")
    for name, value in given.items():
        _one_of(f"{method}:", name, known)
        several = value if isinstance(value, list) else [value]
        number = isinstance(known[name], float)
        for one in several:
            if number and (isinstance(one, bool) or not isinstance(one, (int, float))):
                raise CkfrError(f"{method}: {name} is {reprlib.repr(one)}; expected a number")
        if not several or len({str(one) for one in several}) < len(several):
            raise CkfrError(f"{method}: {name} is {several}; expected one value or several different ones")
        grid[name] = tuple(float(one) if number else one for one in several)
    for combined in itertools.product(*grid.values()):
        own = dict(zip(grid, combined, strict=True))
        knowledge = {name: own.pop(name) for name in KNOWLEDGE if method == "ckfr" and name in own}
        try:
            make_loss(
                method, Hierarchy.from_pairs([("either", "one"), ("either", "other")]), embed_dim=2, **own
            )
            TrainConfig(**knowledge)
        except CkfrError as error:
            raise CkfrError(f"{method}: {error}") from error
    return grid


def _spelt(method: str) -> dict[str, Any]:
    return {**check_method(method, {}), **(KNOWLEDGE if method == "ckfr" else {})}


def _one_of(where: str, value: Any, known: Iterable[str]) -> Any:
    names = list(known)
    if value not in names:
        raise CkfrError(f"{where} unknown {reprlib.repr(value)}; {_expected(value, names)}".strip())
    return value


def _expected(wrong: Any, known: list[str]) -> str:
    near = difflib.get_close_matches(str(wrong), known, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    listed = ", ".join(known)
    return f"expected {listed if len(listed) < 300 else 'another'}"


_SAID = {
    "string_pattern_mismatch": "expected letters, digits, - and _ only",
    "model_type": "expected names with values",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "greater_than": "expected a number above 0",
}


def _sentence(error: ValidationError, source: str) -> str:
    """The first thing that is wrong, with its place."""
    first = error.errors()[0]
    *outer, last = [part for part in first["loc"] if part != "[key]"] or [""]
    place = source + "".join(f"[{part}]" if isinstance(part, int) else f": {part}" for part in outer)
    if first["type"] == "extra_forbidden":
        part: Any = {"datasets": Data, "executor": Executor}.get(str(outer[0]) if outer else "", Study)
        return f"{place}: unknown {last!r}; {_expected(last, list(part.model_fields))}"
    if first["type"] == "missing":
        return f"{place} has no {last}; expected one."
    place += f"[{last}]" if isinstance(last, int) else f": {last}" if last else ""
    if first["type"] == "value_error":
        said = first["msg"].removeprefix("Value error, ").rstrip(".")
        return f"{place}: {said}" + ("" if said.endswith("?") else ".")
    said = _SAID.get(first["type"], first["msg"].replace("Input should be", "expected"))
    return f"{place} is {reprlib.repr(first['input'])}; {said}."


class _Loader(yaml.SafeLoader):
    """YAML without aliases, in which a key stands once and 1e-3 is a number.

    PyYAML itself would keep the last of two equal keys, and unfold aliases of aliases until memory ends.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem="aliases have no place here", problem_mark=self.peek_event().start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key, _ in reversed(node.value):
            if isinstance(key, yaml.ScalarNode) and keys.count(key.value) > 1:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark
                )
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789")
)

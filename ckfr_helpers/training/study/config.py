"""What a study file may say, checked before anything is computed; studies/README.md shows one whole.

A list is a choice to be made on validation; everything else is fixed.
"""

import difflib
import itertools
import re
import reprlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ckfr_helpers import datasets
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.losses.rivals import BASELINE, check_method, make_loss
from ckfr_helpers.runtime import CkfrError, num_workers
from ckfr_helpers.training.config import TrainConfig
from ckfr_helpers.training.results import SCORES

Count = Annotated[int, Field(strict=True, ge=1)]
Natural = Annotated[int, Field(strict=True, ge=0)]
Rate = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Splits = dict[Literal["train", "val", "test"], Count]
KNOWLEDGE = {"measure": "path", "knowledge_scale": 0.1}  # further parameters of ckfr
TWO_LEAVES = Hierarchy.from_pairs([("either", "one"), ("either", "other")])  # to try parameters on


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(_Part):
    """One data set under one condition: ``options`` go to its source in every split."""

    name: str
    label: str = ""
    root: str | None = None
    size: Count = 224
    options: dict[str, Any] = {}
    per_class: Splits = {}
    scenes: Splits = {}

    @model_validator(mode="before")
    @classmethod
    def _labelled(cls, values: Any) -> Any:
        return {"label": values.get("name"), **values} if isinstance(values, dict) else values

    @field_validator("root")
    @classmethod
    def _found(cls, value: str | None, info: Any) -> str | None:
        folder = (info.context or {}).get("folder", Path())
        return value and str((folder / Path(value).expanduser()).resolve())

    @model_validator(mode="after")
    def _fits(self) -> "Data":
        if not datasets.is_source(self.name):
            raise CkfrError(f"unknown name {self.name!r}; {_expected(self.name, datasets.names())}")
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
    """Where runs are computed: in processes on this machine, or on a cluster through submitit.

    That takes further settings of its own (timeout_min, mem_gb …) as ``model_extra``. The accelerator is for
    networks behind a frozen trunk; None ``jobs`` are one a run on slurm, one a core locally.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: Literal["processes", "submitit"] = "processes"
    processes: Count = Field(default_factory=lambda: max(1, num_workers()))
    accelerator: Literal["cpu", "gpu", "auto"] = "cpu"
    cluster: Literal["slurm", "local"] = "slurm"
    jobs: Count | None = None

    @model_validator(mode="after")
    def _further(self) -> "Executor":
        if self.kind == "processes":
            for name in self.model_extra or ():
                raise CkfrError(f"unknown {name!r}; {_expected(name, Executor.model_fields)}")
        return self


class Study(_Part):
    """A grid of runs; studies/README.md explains every setting."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    datasets: Annotated[tuple[Data, ...], Field(min_length=1)]
    methods: dict[str, dict[str, tuple[Any, ...]]]
    model: str = "efficientnet_lite0"
    stage: Natural = 8
    epochs: Count = 4
    batch_size: Count = 32
    seeds: Annotated[tuple[Natural, ...], Field(min_length=1)] = (0, 1, 2, 3, 4)
    lr: Annotated[tuple[Rate, ...], Field(min_length=1)] = (1e-3,)
    lr_for: Literal["baseline", "each"] = "baseline"
    lr_by: Literal[SCORES] = "top1"  # type: ignore[valid-type]
    choose_by: Literal[SCORES] = "hdist@1"  # type: ignore[valid-type]
    choose_over: Literal["each", "all"] = "each"
    scores: tuple[str, ...] = ()
    train: dict[str, Any] = {}
    executor: Executor = Field(default_factory=Executor)

    @field_validator("seeds", "lr", mode="before")
    @classmethod
    def _several(cls, value: Any, info: Any) -> Any:
        if info.field_name == "seeds" and type(value) is int:
            if not 0 < value <= 1000:
                raise CkfrError(f"{value} is not as expected: how many, 1 to 1000, or a list of them")
            return list(range(value))
        return _different("", value)

    @field_validator("methods", mode="before")
    @classmethod
    def _methods(cls, values: Any) -> Any:
        if isinstance(values, list) and all(isinstance(one, str) for one in values):
            values = dict.fromkeys(values)
        if not isinstance(values, dict):
            raise CkfrError(f"{reprlib.repr(values)} is neither names alone nor a mapping without dashes")
        return {BASELINE: {}} | {name: _grid(name, given) for name, given in values.items()}

    @model_validator(mode="after")
    def _fits(self) -> "Study":
        label, count = Counter(data.label for data in self.datasets).most_common(1)[0]
        if count > 1:
            raise CkfrError(f"two datasets are labelled {label!r}; give each its own label")
        if self.stage == 0 and any(data.scenes for data in self.datasets):
            raise CkfrError("scenes needs cached features; expected a stage above 0, or options with scenes")
        if self.train and self.stage:
            raise CkfrError("train is for whole networks; expected stage 0 beside it")
        decided = {"data", "data_options", "train_options", "method", "method_options", "alpha", "ell",
                   "measure", "knowledge_scale", "seed", *Study.model_fields, *Data.model_fields}  # fmt: skip
        if wrong := sorted(decided & self.train.keys()):
            raise CkfrError(f"train: unknown {wrong[0]!r}; the study itself decides it")
        try:
            TrainConfig.from_dict(self.train)
        except CkfrError as error:
            raise CkfrError(f"train: {error}") from error
        return self

    def grid(self, method: str) -> list[dict[str, Any]]:
        """Every combination of a method's parameters, all of them spelt out."""
        given = self.methods[method]
        combined = (dict(zip(given, values, strict=True)) for values in itertools.product(*given.values()))
        return [{**_parameters(method), **some} for some in combined]

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
    """Read a study file; relative ``root`` folders start at its own.

    Raises:
        CkfrError: if it is missing or no YAML, or a key or value in it is wrong; the sentence names it and,
            for a misspelt key, the nearest that exists.
    """
    path = Path(path)
    try:
        values = yaml.load(path.read_text(), Loader=_Loader)
    except OSError as error:
        raise CkfrError(f"The study {path} cannot be read ({error}).") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise CkfrError(f"{path}{where} is not YAML: {getattr(error, 'problem', None) or error}.") from error
    return study_from(values, path.name, path.parent)


def study_from(values: Any, source: str = "the study", folder: Path = Path()) -> Study:
    """A study from a mapping; its ``root`` folders start at ``folder``. Errors as `load_study`."""
    try:
        return Study.model_validate(values, context={"folder": folder})
    except ValidationError as error:
        raise CkfrError(_sentence(error, source)) from None


def _parameters(method: str) -> dict[str, Any]:
    return {**check_method(method, {}), **(KNOWLEDGE if method == "ckfr" else {})}


def _grid(method: str, given: Any) -> dict[str, tuple[Any, ...]]:
    """A method's parameters as lists, each value tried by itself."""
    known, grid = _parameters(method), {}
    if not isinstance(given := {} if given is None else given, dict):
        raise CkfrError(f"{method} is {reprlib.repr(given)}; expected its parameters, e.g. {{}}")
    for name, value in given.items():
        if name not in known:
            raise CkfrError(f"{method}: unknown {name!r}; {_expected(name, known)}")
        grid[name] = tuple(_different(f"{method}: {name}: ", value))
        for one in grid[name]:
            try:
                knowledge = TWO_LEAVES.distances(one if name == "measure" else "path")
                own = {} if name == "measure" else {name: one}
                make_loss(method, TWO_LEAVES, embed_dim=2, knowledge=knowledge, **own)
            except CkfrError as error:
                raise CkfrError(f"{method}: {error}") from error
        if isinstance(known[name], float):
            grid[name] = tuple(map(float, grid[name]))
    return grid


def _different(place: str, value: Any) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    if not values or len({str(one) for one in values}) < len(values):
        shown = f"{place}{reprlib.repr(value)}"
        raise CkfrError(f"{shown} is not as expected: one value or several different ones")
    return values


def _expected(wrong: Any, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(wrong), list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"


def _sentence(error: ValidationError, source: str) -> str:
    """The first thing that is wrong, with its place."""
    first = error.errors()[0]
    *outer, last = [source, *(str(part) for part in first["loc"] if part != "[key]")]
    if first["type"] == "extra_forbidden":
        part = Data if "datasets" in outer else Study
        said = f"{': '.join(outer)}: unknown {last!r}; {_expected(last, part.model_fields)}"
    elif first["type"] == "missing":
        said = f"{': '.join(outer)} has no {last}; expected one"
    elif first["type"] == "value_error":
        said = f"{': '.join([*outer, last])}: {first['ctx']['error']}"
    else:
        reason = first["msg"].replace("Input should be", "expected").replace("valid dictionary", "mapping")
        said = f"{': '.join([*outer, last])} is {reprlib.repr(first['input'])}; {reason}"
    return said if said.endswith(("?", ".")) else f"{said}."


class _Loader(yaml.SafeLoader):
    """YAML without aliases (which unfold until memory ends), where a key stands once and 1e-3 is a number."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="aliases have no place here", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        for name, count in Counter(str(key.value) for key, _ in node.value).items():
            if count > 1:
                raise yaml.MarkedYAMLError(problem=f"the key {name!r} stands twice")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789")
)

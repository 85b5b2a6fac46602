"""What a study file may say, checked word by word before anything is computed.

    name: photos_grid
    datasets:
      - {name: photos, label: bias 0.9, size: 160, options: {background_bias: 0.9},
         scenes: {train: 1200, val: 720, test: 1440}}
    stage: 8
    epochs: 4
    seeds: 5
    lr: [1e-4, 3e-4, 1e-3]
    methods:
      ckfr: {alpha: [5, 20, 80], ell: [1.0, 1.2, 2.0]}
      hxe: {alpha: [0.1, 0.3]}

A list is a choice to be made on validation; everything else is fixed.
"""

import dataclasses
import difflib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ckfr_helpers import datasets
from ckfr_helpers.datasets.base import SPLITS
from ckfr_helpers.hierarchy.tree import MEASURES, Hierarchy
from ckfr_helpers.losses.rivals import BASELINE, METHODS, check_method, make_loss
from ckfr_helpers.models import check_model_name
from ckfr_helpers.runtime import CkfrError, num_workers
from ckfr_helpers.training.config import TrainConfig

# What a choice on validation may be made by, and whether more is better.
SCORES = {
    "top1": True, "top5": True, "mistake_severity": False, "hdist@1": False, "hdist@5": False,
    "hdist@20": False, "cross_entropy": False, "crm_top1": True, "crm_hdist@1": False,
}  # fmt: skip
_TWO = Hierarchy.from_pairs([("either", "one"), ("either", "other")])
KNOWLEDGE = {"measure": "path", "knowledge_scale": 0.1}  # further parameters of ckfr


@dataclass(frozen=True)
class Data:
    """One data set under one condition.

    Attributes:
        label: what tables and figures call it.
        name: as in ``ckfr fetch NAME``.
        root: where it lies; None for the usual place.
        size: side of the input in pixels.
        options: of the source, in every split; ``background_bias`` acts in training alone by itself.
        per_class: for each split, how many pictures of every class; a split that is missing has all.
        scenes: photos only: how many for each split.
    """

    label: str
    name: str
    root: str | None = None
    size: int = 224
    options: dict[str, Any] = field(default_factory=dict)
    per_class: dict[str, int] = field(default_factory=dict)
    scenes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Executor:
    """Where runs are computed.

    Attributes:
        kind: "processes" on this machine, or "submitit".
        processes: how many of the first kind.
        cluster: submitit's: "slurm", or "local" for processes that look like a cluster's jobs.
        jobs: how many jobs of a cluster the runs are dealt out to; None for one a run on slurm, and one a
            core locally. A run takes seconds to minutes, an import of torch alone some seconds.
        folder: submitit's logs; None for a folder beside the runs. Runs and logs must lie on a file system
            that every node sees.
        parameters: of `submitit.AutoExecutor.update_parameters`: timeout_min, cpus_per_task, mem_gb,
            slurm_partition …
    """

    kind: str = "processes"
    processes: int = 1
    cluster: str = "slurm"
    jobs: int | None = None
    folder: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
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
        rates: learning rates.
        lr_for: "baseline": one rate for all methods, the best for cross-entropy; "each": part of each
            method's own grid.
        lr_by, choose_by: the validation score that the baseline's rate, and a method's parameters, are
            chosen by.
        choose_over: "each" data set chooses for itself, or "all" together, by their mean.
        measure: tree distance that latents are compared with in the alignment scores, for every method.
        scores: further scores beside the usual ones, e.g. "look".
        train: with stage 0 only: further settings of `TrainConfig`.
        executor: where to compute.
    """

    name: str
    datasets: tuple[Data, ...]
    methods: dict[str, dict[str, tuple[Any, ...]]]
    model: str = "efficientnet_lite0"
    stage: int = 8
    epochs: int = 4
    batch_size: int = 32
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    rates: tuple[float, ...] = (1e-3,)
    lr_for: str = "baseline"
    lr_by: str = "top1"
    choose_by: str = "hdist@1"
    choose_over: str = "each"
    measure: str = "path"
    scores: tuple[str, ...] = ()
    train: dict[str, Any] = field(default_factory=dict)
    executor: Executor = field(default_factory=lambda: Executor(processes=max(1, num_workers())))

    def grid(self, method: str) -> list[dict[str, Any]]:
        """Every combination of a method's parameters, all of them spelt out."""
        given = self.methods[method]
        combined = [dict(zip(given, values, strict=True)) for values in itertools.product(*given.values())]
        return [{**_defaults(method), **some} for some in combined]

    def asked(self) -> dict[str, Any]:
        """The study as its file says it, without where things lie and what computes them."""
        values = dataclasses.asdict(self)
        del values["executor"]
        for data in values["datasets"]:
            data["root"] = None if data["root"] is None else data["root"].rsplit("/", 1)[-1]
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
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise CkfrError(f"{path}{where} is not YAML: {getattr(error, 'problem', None) or error}.") from error
    return study_from(values, path.name, base=path.parent)


def study_from(values: Any, source: str = "the study", base: Path | None = None) -> Study:
    """A study from a mapping; relative ``root`` folders start at ``base``. Errors as `load_study`."""
    check = {
        "name": _text, "datasets": _any, "model": _text, "stage": _stage, "epochs": _count,
        "batch_size": _count, "seeds": _seeds, "lr": _rates, "lr_for": _one_of("baseline", "each"),
        "lr_by": _one_of(*SCORES), "choose_by": _one_of(*SCORES), "choose_over": _one_of("each", "all"),
        "measure": _one_of(*MEASURES),
        "methods": _any, "train": _mapping, "scores": _texts, "executor": _any,
    }  # fmt: skip
    given = _section(values, source, check, required=("name", "datasets", "methods"))
    given["rates"] = given.pop("lr", Study.rates)
    if not all(c.isalnum() or c in "-_" for c in given["name"]):
        raise CkfrError(f"{source}: name is {given['name']!r}; expected letters, digits, - and _ only.")
    try:
        check_model_name(given.get("model", Study.model))
    except CkfrError as error:
        raise CkfrError(f"{source}: {error}") from error
    entries = given["datasets"]
    if not isinstance(entries, list) or not entries:
        raise CkfrError(f"{source}: datasets is {entries!r}; expected a list of at least one.")
    whole = given.get("stage", Study.stage) == 0
    given["datasets"] = tuple(
        _data(entry, f"{source}: datasets[{number}]", base, whole) for number, entry in enumerate(entries)
    )
    labels = [data.label for data in given["datasets"]]
    for label in labels:
        if labels.count(label) > 1:
            raise CkfrError(f"{source}: two datasets are labelled {label!r}; give each its own label.")
    given["methods"] = _methods(given["methods"], f"{source}: methods")
    given["train"] = _train(given.get("train", {}), f"{source}: train", whole)
    if "executor" in given:
        given["executor"] = _executor(given["executor"], f"{source}: executor", base)
    return Study(**given)


def _data(values: Any, where: str, base: Path | None, whole: bool) -> Data:
    check = {
        "label": _text, "name": _one_of(*datasets.names()), "root": _text, "size": _count,
        "options": _mapping, "per_class": _splits, "scenes": _splits,
    }  # fmt: skip
    given = _section(values, where, check, required=("name",))
    given.setdefault("label", given["name"])
    if base is not None and given.get("root") is not None:
        given["root"] = str((base / Path(given["root"]).expanduser()).resolve())
    if given["name"] == "photos":
        given.setdefault("size", 160)
        if "per_class" in given:
            raise CkfrError(f"{where}: photos are scenes without end; expected scenes in place of per_class.")
        for name in ("seed", "size"):
            if name in given.get("options", {}):
                other = "seeds of the study" if name == "seed" else "size of the data set"
                raise CkfrError(
                    f"{where}: options: {name} would be overwritten; expected the {other} instead."
                )
    elif "scenes" in given:
        raise CkfrError(f"{where}: only photos have scenes; expected per_class.")
    if whole and "scenes" in given:
        raise CkfrError(
            f"{where}: scenes needs cached features; expected a stage above 0, or options with scenes, "
            "one number for all splits."
        )
    return Data(**given)


def _methods(values: Any, where: str) -> dict[str, dict[str, tuple[Any, ...]]]:
    if isinstance(values, list):
        for entry in values:
            if not isinstance(entry, str):
                raise CkfrError(
                    f"{where} lists {entry!r}; expected names alone, or a mapping without dashes."
                )
        values = dict.fromkeys(values, None)
    if not isinstance(values, Mapping) or not values:
        raise CkfrError(f"{where} is {values!r}; expected method names with their parameters.")
    found: dict[str, dict[str, tuple[Any, ...]]] = {BASELINE: {}}
    for method, parameters in values.items():
        if method not in METHODS:
            raise CkfrError(f"{where} {_near(method, METHODS)}")
        known = _defaults(method)
        parameters = {} if parameters is None else parameters
        if not isinstance(parameters, Mapping):
            raise CkfrError(f"{where}: {method} is {parameters!r}; expected its parameters, e.g. {{}}.")
        chosen = {}
        for name, value in parameters.items():
            if name not in known:
                raise CkfrError(f"{where}: {method} {_near(name, known)}")
            several = value if isinstance(value, list) else [value]
            if not several:
                raise CkfrError(f"{where}: {method}: {name} is an empty list; expected at least one value.")
            check = _number if isinstance(known[name], float) else _text
            if name == "measure":
                check = _one_of(*MEASURES)
            chosen[name] = tuple(check(one, f"{where}: {method}: {name}") for one in several)
            if len(set(chosen[name])) < len(chosen[name]):
                raise CkfrError(f"{where}: {method}: {name} names a value twice.")
        found[method] = chosen
        for combined in itertools.product(*chosen.values()):
            _try(method, dict(zip(chosen, combined, strict=True)), where)
    return found


def _try(method: str, parameters: dict[str, Any], where: str) -> None:
    """Make the loss for a tree of two leaves: it knows best which values it takes."""
    own = {name: value for name, value in parameters.items() if name != "knowledge_scale"}
    try:
        make_loss(method, _TWO, embed_dim=2, **own)
    except CkfrError as error:
        raise CkfrError(f"{where}: {method}: {error}") from error
    scale = parameters.get("knowledge_scale", 1.0)
    if scale <= 0:
        raise CkfrError(f"{where}: {method}: knowledge_scale is {scale}; expected a positive number.")


def _defaults(method: str) -> dict[str, Any]:
    return {**check_method(method, {}), **(KNOWLEDGE if method == "ckfr" else {})}


def _train(values: dict[str, Any], where: str, whole: bool) -> dict[str, Any]:
    if values and not whole:
        raise CkfrError(f"{where} is for whole networks; expected stage 0 beside it.")
    own = {
        "data", "root", "data_options", "train_options", "per_class", "model", "epochs", "batch_size", "lr",
        "seed", "size", "alpha", "ell", "measure", "knowledge_scale", "method", "method_options",
    }  # fmt: skip
    known = {f.name: _like(f.default) for f in dataclasses.fields(TrainConfig) if f.name not in own}
    given = _section(values, where, known)
    try:
        TrainConfig(**given)
    except CkfrError as error:
        raise CkfrError(f"{where}: {error}") from error
    return given


def _executor(values: Any, where: str, base: Path | None) -> Executor:
    kind = values.get("kind", "processes") if isinstance(values, Mapping) else None
    if kind == "submitit":
        given = dict(values)
        own = _section(
            {k: given.pop(k) for k in ("kind", "cluster", "jobs", "folder") if k in given},
            where,
            {"kind": _text, "cluster": _one_of("local", "slurm"), "jobs": _count, "folder": _text},
        )
        if base is not None and own.get("folder") is not None:
            own["folder"] = str((base / Path(own["folder"]).expanduser()).resolve())
        return Executor(processes=1, **own, parameters=given)
    check = {"kind": _one_of("processes", "submitit"), "processes": _count}
    return Executor(**{"processes": max(1, num_workers()), **_section(values, where, check)})


class _Loader(yaml.SafeLoader):
    """YAML in which a key stands once; PyYAML itself would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # no name at all; what it is, the base class says
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


Check = Callable[[Any, str], Any]


def _section(
    values: Any, where: str, check: Mapping[str, Check], required: tuple[str, ...] = ()
) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise CkfrError(f"{where} is {values!r}; expected {', '.join(check)}, each with a value.")
    for key in values:
        if key not in check:
            raise CkfrError(f"{where} {_near(key, check)}")
    for key in required:
        if key not in values:
            raise CkfrError(f"{where} has no {key}; expected one.")
    return {key: check[key](value, f"{where}: {key}") for key, value in values.items()}


def _near(wrong: Any, known: Any) -> str:
    near = difflib.get_close_matches(str(wrong), list(known), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(known) if known else "none"
    if len(listed) > 300:
        return f"has the unknown {wrong!r}.{hint}"
    return f"has the unknown {wrong!r}; expected {listed}.{hint}"


def _any(value: Any, where: str) -> Any:
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise CkfrError(f"{where} is {value!r}; expected a text.")
    return value


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise CkfrError(f"{where} is {value!r}; expected a list of names.")
    return tuple(_text(one, where) for one in value)


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise CkfrError(f"{where} is {value!r}; expected names with values.")
    return dict(value)


def _number(value: Any, where: str) -> float:
    try:
        # YAML 1.1 takes 1e-3, which has no dot, for a text.
        number = float(value) if isinstance(value, (int, float, str)) and value is not True else None
    except ValueError:
        number = None
    if number is None or isinstance(value, bool) or not abs(number) < float("inf"):
        raise CkfrError(f"{where} is {value!r}; expected a number.")
    return number


def _like(default: Any) -> Check:
    """What a setting with this default may be; TrainConfig itself checks the range."""
    if isinstance(default, bool):
        return _flag
    if isinstance(default, float):
        return _number
    return _whole if isinstance(default, int) else _any


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise CkfrError(f"{where} is {value!r}; expected true or false.")
    return value


def _whole(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise CkfrError(f"{where} is {value!r}; expected a whole number.")
    return value


def _count(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CkfrError(f"{where} is {value!r}; expected a whole number of at least 1.")
    return value


def _stage(value: Any, where: str) -> int:
    return 0 if value in (None, "none", 0) and value is not False else _count(value, where)


def _seeds(value: Any, where: str) -> tuple[int, ...]:
    seeds = list(range(_count(value, where))) if not isinstance(value, list) else value
    right = all(isinstance(s, int) and not isinstance(s, bool) and s >= 0 for s in seeds)
    if not right or not seeds or len(set(seeds)) < len(seeds):
        raise CkfrError(f"{where} is {value!r}; expected how many, or a list of different whole numbers.")
    return tuple(seeds)


def _rates(value: Any, where: str) -> tuple[float, ...]:
    rates = tuple(_number(one, where) for one in (value if isinstance(value, list) else [value]))
    if not rates or min(rates) <= 0 or len(set(rates)) < len(rates):
        raise CkfrError(f"{where} is {value!r}; expected different positive numbers.")
    return rates


def _splits(value: Any, where: str) -> dict[str, int]:
    return {split: number for split, number in _section(value, where, dict.fromkeys(SPLITS, _count)).items()}


def _one_of(*known: str) -> Check:
    def check(value: Any, where: str) -> str:
        if value not in known:
            raise CkfrError(f"{where} {_near(value, known)}")
        return value

    return check

"""The command line: ``ckfr train``, ``evaluate``, ``study``, ``retrieve``, ``fetch``, ``demo``.

Wrong input ends with one sentence on standard error and status 2; Ctrl-C with status 130 once the state is
saved. Heavy imports wait until a command needs them, so that ``--help`` answers at once.
"""

import argparse
import contextlib
import dataclasses
import inspect
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ckfr_helpers.runtime import CkfrError, as_json, atomic_path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser([*arguments[:1]]).parse_args(arguments)
    try:
        with _own_warnings_alone():
            options.run(options)
    except (CkfrError, OSError) as error:  # also a file or disk that nobody thought of
        _report(f"ckfr: {error}")
        return 2
    except KeyboardInterrupt as stop:
        goes_on = bool(str(stop)) or options.command == "study"  # training says where it stopped
        more = " The same command goes on from there." if goes_on else ""
        _report(f"\nckfr: {str(stop) or 'Stopped.'}{more}")
        return 130
    return 0


@contextlib.contextmanager
def _own_warnings_alone() -> Iterator[None]:
    """Of warnings, print this package's, in one line each; what libraries say is for programmers."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"ckfr: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
            warnings.filterwarnings("default", category=UserWarning, module=r"ckfr_helpers(\.|$)")
            warnings.showwarning = show
        for library in ("lightning_fabric", "lightning.fabric", "torch.distributed"):
            logging.getLogger(library).setLevel(logging.ERROR)
        yield


def _report(sentence: str) -> None:
    """Of several processes one prints; torch is not imported to find out that this is the only one."""
    if "LOCAL_RANK" in os.environ:
        from ckfr_helpers.training.processes import claim_error_report

        if not claim_error_report():
            return
    print(sentence, file=sys.stderr)


def _says() -> bool:
    """Whether this process prints results: the only one, or the first of several."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"


def _train(options: argparse.Namespace) -> None:
    from ckfr_helpers.training import train

    run = train(_config(options), options.out, progress=not options.quiet)
    if _says():
        print(f"Kept in {run.folder}; test scores of epoch {run.best_epoch} of {len(run.history)}:")
    _print_scores(run.scores)


def _evaluate(options: argparse.Namespace) -> None:
    from ckfr_helpers.training import evaluate

    where = {"root": options.root, "accelerator": options.accelerator, "progress": not options.quiet}
    _print_scores(evaluate(options.folder, options.split, **where), options.json)


def _look(options: argparse.Namespace) -> None:
    from ckfr_helpers.attribution.look_run import look_at_run

    where = {"root": options.root, "accelerator": options.accelerator, "progress": not options.quiet}
    _print_scores(look_at_run(options.folder, options.data, method=options.method, **where), options.json)


def _retrieve(options: argparse.Namespace) -> None:
    found = options.work(options)
    if found is not None:  # a search has something to show
        from ckfr_helpers.retrieval.pictures import fit, read_picture
        from ckfr_helpers.teaching.plots.ranking import Ranked, ranked_sheet
        from ckfr_helpers.teaching.plots.style import use_style

        use_style()
        pairs = zip(found.paths, found.scores, strict=True)
        ranked = [Ranked(fit(read_picture(path), 400).numpy(), score, path.name) for path, score in pairs]
        with atomic_path(found.out / "ranked.png") as path:
            ranked_sheet(found.query.numpy(), found.box, ranked).savefig(path, format="png", dpi=110)
        print(f"{len(ranked)} pictures are ranked in {found.out / 'ranked.png'} and ranked.csv beside it.")


def _fetch(options: argparse.Namespace) -> None:
    from ckfr_helpers import datasets

    where = {}
    if options.source is not None:
        if options.name != "mini-imagenet":
            raise CkfrError(f"--from names another copy of mini-imagenet; {options.name} has no such choice.")
        where["repo"], _, revision = options.source.partition("@")
        where |= {"revision": revision} if revision else {}
    print(f"{options.name} is at {datasets.fetch(options.name, options.root, **where)}")


def _demo(options: argparse.Namespace) -> None:
    from ckfr_helpers.teaching.demo import build_demo

    print(f"Open {build_demo(options.out, options.notebooks)}")


def _study(options: argparse.Namespace) -> None:
    from ckfr_helpers.teaching.plots.study import differences
    from ckfr_helpers.teaching.plots.style import png, use_style
    from ckfr_helpers.training.results import write_results
    from ckfr_helpers.training.study.config import load_study
    from ckfr_helpers.training.study.run import failed, run_study

    study = load_study(options.file)
    if options.root is not None:
        moved = [data.model_copy(update={"root": str(options.root.resolve())}) for data in study.datasets]
        study = study.model_copy(update={"datasets": tuple(moved)})
    if options.processes is not None:
        own = study.executor.model_copy(update={"kind": "processes", "processes": max(1, options.processes)})
        study = study.model_copy(update={"executor": own})
    result = run_study(study, options.out, progress=not options.quiet)
    if len(result.results.table):
        if options.results is not None:
            write_results(result.results, options.results / f"study_{study.name}.csv")
        if result.results.chosen:  # none before every seed of a setting has finished
            use_style()
            with atomic_path(result.folder / "figure.png") as path:
                path.write_bytes(png(differences([result.results], methods=None)))
        print(f"The table and all drawn from it are in {result.folder}")
    if (error := failed(result)) is not None:
        raise error


def _config(options: argparse.Namespace) -> Any:
    """Settings from the command line, filled in for the data set that is there."""
    from ckfr_helpers.training import TrainConfig

    given: dict[str, Any] = {}
    for f in dataclasses.fields(TrainConfig):
        value = getattr(options, f.name, None)
        if value is not None:
            given[f.name] = _value(value) if f.type in (int, float, int | None) else value
    method = given.get("method", "ckfr")
    for name in () if method == "ckfr" else given.keys() & {"alpha", "ell"}:
        raise CkfrError(f"--{name} is ckfr's own; for {method} expected --method-option {name}=….")
    if "data" not in given:
        given["data"] = _data_that_is_there(given.get("root"))
    extra = dict(_key_value(text, "--option", "scenes=2000") for text in options.option)
    if options.train_per_class is not None:
        given["per_class"] = {"train": options.train_per_class}
    given["method_options"] = dict(
        _key_value(text, "--method-option", "beta=30") for text in options.method_option
    )
    if given["data"] == "photos":
        given.setdefault("size", 160)
    return TrainConfig(**given, data_options=extra)


def _data_that_is_there(root: str | None) -> str:
    """The original demo's data set where its folder is; else the embedded photos, said aloud."""
    from ckfr_helpers.datasets.sources.mini_imagenet import FOLDER, find_place
    from ckfr_helpers.runtime import data_root

    base = Path(root) if root is not None else data_root()
    if find_place(base) is not None:
        return "mini-imagenet"
    if _says():
        print(f"{base / FOLDER} is not there, so this trains on the embedded photos; see --data.")
    return "photos"


def _key_value(text: str, flag: str, example: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise CkfrError(f"{flag} {text!r} is not of the form NAME=VALUE, e.g. {example}.")
    return name, _value(value)


def _value(text: str) -> Any:
    """A number (or list, …) where the text is one; else the text, for `TrainConfig` to judge."""
    for read in (json.loads, int, float):  # the latter two also know 007 and .5
        with contextlib.suppress(ValueError, RecursionError):
            return read(text)
    return text


def _print_scores(scores: Mapping[str, float | None], json_wanted: bool = False) -> None:
    if not _says():
        return
    if json_wanted:
        print(as_json(scores), end="")
        return
    from ckfr_helpers.training.evaluation import score_title

    there = {name: value for name, value in scores.items() if value is not None}
    width = max(map(len, there))
    for name, value in there.items():
        print(f"  {name:<{width}}  {value:9.4f}  {score_title(name)}".rstrip())


def _parser(wanted: list[str]) -> argparse.ArgumentParser:
    # The flags of ``train`` are read off its settings, which takes torch: only where they are wanted.
    parser = argparse.ArgumentParser(prog="ckfr", description="Categorical Knowledge Fused Recognition.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    train = commands.add_parser("train", help="train a classifier, with the aligned triplet loss or without")
    if wanted == ["train"]:
        _add_train(train)
    retrieve = commands.add_parser("retrieve", help="find the same thing again in a folder of pictures")
    if wanted == ["retrieve"]:
        from ckfr_helpers.retrieval.command import add_arguments

        add_arguments(retrieve)
        retrieve.set_defaults(run=_retrieve)

    evaluate = commands.add_parser("evaluate", help="score a finished run")
    evaluate.add_argument("--split", default="test", help="train, val or test (default: test)")
    evaluate.set_defaults(run=_evaluate)

    look = commands.add_parser("look", help="does a finished run look at the object?")
    look.add_argument("--data", help="pictures of the same classes with boxes (default: the run's own)")
    look.add_argument("--method", help="gradcam, hirescam, layercam or eigencam (default: closed-form CAM)")
    look.set_defaults(run=_look)
    for command in (evaluate, look):
        command.add_argument("folder", type=Path, help="folder of the run")
        command.add_argument("--root", help="folder of the data (default: where the run had it)")
        command.add_argument("--accelerator", help="cpu, cuda or mps (default: the run's, where it is there)")
        command.add_argument("--json", action="store_true", help="print JSON; null: undefined")
        command.add_argument("--quiet", action="store_true", help="no progress bars")

    fetch = commands.add_parser("fetch", help="bring a data set here")
    names = "photos, cifar10, cifar100, tiny-imagenet, mini-imagenet, imagenet, voc2007, coco or wordnet"
    fetch.add_argument("name", help=names)
    fetch.add_argument("--root", type=Path, help="folder for data (default: $CKFR_DATA, else data/)")
    copy = "mini-imagenet: another copy on the Hugging Face Hub (default: timm/mini-imagenet)"
    fetch.add_argument("--from", dest="source", metavar="REPO[@REVISION]", help=copy)
    fetch.set_defaults(run=_fetch)

    study = commands.add_parser("study", help="run a grid of settings, methods and seeds from a file")
    study.add_argument("file", type=Path, help="the study, e.g. studies/photos_grid.yaml")
    study.add_argument("--root", type=Path, help="where the data of all its data sets lie")
    study.add_argument("--out", type=Path, help="folder for its runs (default: runs/study_NAME)")
    study.add_argument("--results", type=Path, help="folder for one more study_NAME.csv and .json")
    study.add_argument("--processes", type=int, help="processes on this machine, whatever the file says")
    study.add_argument("--quiet", action="store_true", help="no progress bars")
    study.set_defaults(run=_study)

    demo = commands.add_parser("demo", help="run the notebooks on the embedded photos and gather one page")
    demo.add_argument("--out", type=Path, default=Path("site"), help="folder for the page (default: site)")
    demo.add_argument("--notebooks", type=Path, help="folder of the notebooks (default: the checkout's)")
    demo.set_defaults(run=_demo)
    return parser


OTHER_FLAGS = ("data_options", "train_options", "per_class", "method_options", "pretrained")


def _add_train(train: argparse.ArgumentParser) -> None:
    """Every setting has a flag of its name and the help of its docstring; a few have a shorter form."""
    from ckfr_helpers.training import TrainConfig

    documented = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", inspect.getdoc(TrainConfig) or "", re.MULTILINE)
    told = {name: " ".join(text.replace("`", "").split()) for name, text in documented}
    for f in dataclasses.fields(TrainConfig):
        if f.name not in OTHER_FLAGS:
            switch: dict[str, Any] = {"action": "store_true", "default": None} if f.type is bool else {}
            default = "" if f.default is None or f.type is bool else f" (default: {f.default})"
            train.add_argument(
                f"--{f.name.replace('_', '-')}", help=told[f.name].rstrip(".") + default, **switch
            )
    add = train.add_argument
    add("--from-scratch", dest="pretrained", action="store_false", default=None, help="no ImageNet weights")
    few = "train on N pictures of each class"
    add("--per-class", dest="train_per_class", type=int, metavar="N", help=few)
    repeated: dict[str, Any] = {"action": "append", "default": [], "metavar": "NAME=VALUE"}
    add("--option", help="option of the data set, e.g. background_bias=0.9 of photos", **repeated)
    add("--method-option", help="parameter of that loss, e.g. beta=30", **repeated)
    add("--out", type=Path, help="folder of the run (default: runs/, named after the settings)")
    add("--quiet", action="store_true", help="no progress bars")
    train.set_defaults(run=_train)


if __name__ == "__main__":
    sys.exit(main())

"""What ``ckfr retrieve`` does: describe a folder of pictures, search it, score it against a ground truth."""

import argparse
import csv
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from tqdm.auto import tqdm

from ckfr_helpers.models.classifier import LITE, Classifier, build_model
from ckfr_helpers.retrieval.answer import Box, rank
from ckfr_helpers.retrieval.collection import Collection, build, open_collection
from ckfr_helpers.retrieval.pictures import Recipe
from ckfr_helpers.retrieval.protocols import PROTOCOLS, evaluate, read_truth
from ckfr_helpers.runtime import CkfrError, atomic_path, check_number, pick_device, runs_root
from ckfr_helpers.training.run import load_run


class Found(NamedTuple):
    """A search: the query (3, H, W) and its box, the pictures found with their scores, and where to."""

    query: Tensor
    box: Box
    paths: list[Path]
    scores: list[float]
    out: Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The three commands; each sets ``work``, to be called with the options."""
    commands = parser.add_subparsers(dest="what", required=True, metavar="index | search | evaluate")
    index = commands.add_parser("index", help="describe every picture in a folder and its subfolders")
    index.set_defaults(work=run_index)
    find = commands.add_parser("search", help="rank a collection by likeness to a picture, or a part of it")
    find.add_argument("picture", type=Path, help="the query")
    find.add_argument("--box", type=float, nargs=4, metavar=("X0", "Y0", "X1", "Y1"), help="what to look for")
    find.add_argument("--top", type=int, default=20, help="how many pictures to show (default: 20)")
    find.add_argument("--out", type=Path, default=Path(), help="folder for ranked.png and ranked.csv")
    find.set_defaults(work=run_search)
    score = commands.add_parser("evaluate", help="mAP and mP@k of a folder with a ground truth")
    score.add_argument(
        "--truth", type=Path, required=True, help="gnd_roxford5k.pkl, or a folder of text files"
    )
    score.set_defaults(work=run_evaluate)
    for command in (index, score):
        command.add_argument("folder", type=Path, help="folder of the pictures")
        source = command.add_mutually_exclusive_group()
        source.add_argument("--model", default=LITE, help=f"network with ImageNet weights (default: {LITE})")
        source.add_argument("--run", dest="trained", type=Path, help="folder of a run of ckfr train")
        command.add_argument("--descriptor", default="gem", help="gem, spoc, mac, crow, rmac or classes")
        command.add_argument(
            "--size", type=int, default=448, help="of the longer side in pixels (default: 448)"
        )
    for command in (index, find, score):
        names = ("--out", "--collection") if command is index else ("--collection",)
        command.add_argument(*names, dest="collection", type=Path, help="folder (default: runs/collection)")
        command.add_argument("--quiet", action="store_true", help="no progress bars")
    for command, number in ((find, 100), (score, 0)):
        text = f"ask the first N again for the query's classes (default: {number})"
        command.add_argument("--online", type=int, default=number, metavar="N", help=text)
        text = "join the query with its N nearest pictures before ranking by it (default: 0)"
        command.add_argument("--expand", type=int, default=0, metavar="N", help=text)


def run_index(options: argparse.Namespace) -> None:
    """Build or complete a collection and say where it is."""
    collection, _ = _built(options)
    print(f"{len(collection.names)} pictures of {collection.pictures} are described in {_place(options)}")


def run_search(options: argparse.Namespace) -> Found:
    """Rank a collection, write ``ranked.csv``, and give what there is to draw."""
    check_number("--top", options.top, 1, whole=True)
    place = _place(options)
    model = _model(open_collection(place).origin)
    collection = open_collection(place, model)
    online = min(options.online, len(collection.names)) if model.gap_linear else 0
    most = max(options.top, online) + 1  # the query itself may be among them, and is left out
    query, ranked = rank(model, collection, options.picture, options.box, online, most, options.expand)
    ranked = ranked[: options.top]
    with atomic_path(options.out / "ranked.csv") as path, open(path, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("rank", "picture", "score"))
        table.writerows((n, collection.names[r], f"{s:.6f}") for n, (r, s) in enumerate(ranked, 1))
    paths = [collection.pictures / collection.names[row] for row, _ in ranked]
    box = options.box or [0, 0, query.shape[2] - 1, query.shape[1] - 1]
    return Found(query, box, paths, [score for _, score in ranked], options.out)


def run_evaluate(options: argparse.Namespace) -> None:
    """Index what is not yet indexed, rank all for every query, print the means under each protocol."""
    truth = read_truth(options.truth)
    collection, model = _built(options)
    stems = [Path(name).stem for name in collection.names]
    where = dict(zip(stems, collection.names, strict=True))
    if len(where) < len(stems):
        raise CkfrError(
            f"Two pictures in {collection.pictures} have one name; a ground truth needs different ones."
        )
    positives = {truth.names[one] for each in truth.truths for one in each.easy + each.hard}
    if lacking := sorted({*truth.queries, *positives} - where.keys()):
        raise CkfrError(
            f"{len(lacking)} pictures of the ground truth, first {lacking[0]}, are not in {options.folder}."
        )
    number = {name: place for place, name in enumerate(truth.names)}
    only_queries = set(truth.queries) - set(truth.names)  # the revisited sets are searched without them
    rankings = []
    pairs = zip(truth.queries, truth.boxes.tolist(), strict=True)
    for query, box in tqdm(pairs, total=len(truth.queries), desc="queries", disable=options.quiet):
        path = collection.pictures / where[query]
        _, ranked = rank(model, collection, path, box, options.online, len(stems), options.expand)
        kept = [row for row, _ in ranked if stems[row] not in only_queries]
        rankings.append([number.get(stems[row], len(number) + row) for row in kept])
    scores = evaluate(rankings, truth.truths)
    print(f"{len(rankings)} queries, {len(stems)} pictures".ljust(32) + "".join(f"{p:>9}" for p in PROTOCOLS))
    for name, title in {"ap": "mAP", "p@1": "mP@1", "p@5": "mP@5", "p@10": "mP@10"}.items():
        means = [scores[f"{name}_{protocol}"] for protocol in PROTOCOLS]
        shown = (f"{np.nanmean(one):9.4f}" if np.isfinite(one).any() else f"{'-':>9}" for one in means)
        print(f"  {title:<30}" + "".join(shown))


def _built(options: argparse.Namespace) -> tuple[Collection, Classifier]:
    trained = options.trained and options.trained.resolve()
    origin = {"run": str(trained)} if trained else {"model": options.model}
    model, recipe = _model(origin), Recipe(options.descriptor, options.size)
    made = build(options.folder, _place(options), model, recipe, origin=origin, progress=not options.quiet)
    return made, model


def _model(origin: dict[str, Any]) -> Classifier:
    """With its ImageNet head, or as a run left it."""
    if "run" not in origin:
        return build_model(origin["model"], None).to(pick_device())
    run = load_run(Path(origin["run"]))
    if not run.config.normalise:  # it was trained on plain pictures
        run.model.mean, run.model.std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return run.model.to(pick_device())


def _place(options: argparse.Namespace) -> Path:
    return options.collection or runs_root() / "collection"

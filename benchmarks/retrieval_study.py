"""Notebook 05 over five seeds: every way of ranking, chosen on validation photographs, scored on test ones.

    python benchmarks/retrieval_study.py                        # every method by itself
    python benchmarks/retrieval_study.py --on-top --networks    # and what can be added to it

A seed draws other scenes of the same photographs, and other random classes. Settings of a method are chosen
by mean average precision (medium) on the validation split, means over seeds. With ``--on-top`` the better
methods at their chosen settings are tried with whitening (fitted on scenes of training photographs alone),
query expansion and re-ranking; with ``--networks``, features of networks trained as in notebook 04's study,
with cross-entropy and with CKFR at the settings chosen there. Writes
benchmarks/results/study_retrieval.csv and .json. Needs the photographs (`ckfr fetch photos`).
"""

import argparse
import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor
from tqdm.auto import tqdm

from ckfr_helpers import datasets
from ckfr_helpers.datasets.scenes.instances import InstanceScenes
from ckfr_helpers.datasets.scenes.photos import class_ids
from ckfr_helpers.losses.rivals import BASELINE
from ckfr_helpers.models import Classifier, build_model
from ckfr_helpers.retrieval.protocols import PROTOCOLS
from ckfr_helpers.retrieval.rivals import METHODS, Pictures, Ranker
from ckfr_helpers.runtime import environment
from ckfr_helpers.teaching.retrieval_lesson import (
    LITE,
    SIZE,
    STAGE,
    Collection,
    collect,
    energies,
    seen_by,
    trunk_outputs,
)
from ckfr_helpers.training import TrainConfig, cache_split, train_tail
from ckfr_helpers.training.results import (
    Results,
    as_table,
    made_by,
    parse,
    read_results,
    run_rows,
    spell,
    write_results,
)

RESULTS = Path(__file__).parent / "results"
LABEL = "scenes"
TRIED: dict[str, list[dict[str, float]]] = {
    "gem": [{"power": power} for power in (1.5, 2, 3, 5, 8)],
    "own classes": [{"classes": count} for count in (1, 4, 8, 16, 32, 64)],
    "random classes": [{"classes": 64}],
    "query's classes": [{"classes": count} for count in (1, 2, 4, 8, 16, 32)],
}
ON_TOP: dict[str, list[dict[str, float]]] = {
    "whitening": [{"dimension": dimension} for dimension in (32, 64, 128)],
    "expansion": [{"expansion": first} for first in (1, 3, 10)],
    "re-ranking": [{"rerank": first} for first in (10, 30)],
}
UNDER = ("gem", "own classes", "query's classes", "query's features", "best window")
# Of each split; precision at 1 and at 5 stays out of a file that is heavy already.
KEPT = (*(f"{name}_{protocol}" for protocol in PROTOCOLS for name in ("ap", "p@10")), "ahp", "first_wrong")
RETURNS = 4  # of each training photograph: 260 scenes to fit whitening on
LOOKING = [{"classes": count} for count in (1, 2, 4, 8)]  # of the 24 of our own networks


@dataclass(frozen=True)
class Seen:
    """One seed's pictures through one network; ``train``: for whitening, training scenes alone."""

    seed: int
    weight: Tensor
    train: Pictures
    sides: Mapping[str, tuple[Collection, Pictures, Pictures]]  # split -> collection, queries, database


def draw(folder: Path, number: int) -> None:
    """Compose one seed's scenes, send them through the trunk, and keep what it gives in a file."""
    network = build_model(LITE, None).eval()
    scenes = InstanceScenes("train", "database", SIZE, RETURNS, number)
    train = trunk_outputs(network, [scenes[index][0] for index in range(len(scenes))])
    sides = {split: collect(network, split, number) for split in ("val", "test")}
    joblib.dump((train, sides), folder / f"{number}.joblib")


def through(folder: Path, number: int, tail: Classifier) -> Seen:
    outputs, collections = joblib.load(folder / f"{number}.joblib")
    train = Pictures(*seen_by(tail, outputs), torch.zeros(0))
    sides = {split: (part, *part.through(tail)) for split, part in collections.items()}
    return Seen(number, tail.classifier.weight.detach(), train, sides)


def rows_of(seen: Seen, title: str, start: Ranker, tried: list[dict[str, float]]) -> list[dict[str, Any]]:
    """Every score of one way to rank at some settings; on test also a value for each photograph."""
    rows, plain = [], Ranker("mac")
    photos = np.array([int(target["photos"][0]) for _, target in seen.sides["test"][0].queries])
    for change in tried:
        ranker = replace(start, seed=seen.seed, **change)  # type: ignore[arg-type]
        told = {k: v for k, v in asdict(ranker).items() if v != getattr(plain, k)} | change
        told = {k: v for k, v in told.items() if k not in ("method", "seed")}
        place = {"method": title, "parameters": spell(told), "seed": seen.seed}
        whitening, scores, single = ranker.whitening(seen.train, seen.weight), {}, {}
        for split, (collection, queries, database) in seen.sides.items():
            single = collection.quality(ranker.scores(queries, database, seen.weight, whitening))
            scores[split] = {name: float(np.nanmean(single[name])) for name in KEPT}
        rows += run_rows(place, scores)
        found = single["ap_medium"]  # of test, which came last
        kept = ~np.isnan(found)
        rows += run_rows(place, {}, {"ap_medium": found[kept]}, photos[kept])
    return rows


def energy_rows(seen: Seen, ranker: Ranker, parameters: str) -> list[dict[str, Any]]:
    """Energy of the class maps on the object, and its rank correlation with AP over queries."""
    scores = {}
    for split, (collection, queries, database) in seen.sides.items():
        shares = energies(collection, queries, database, seen.weight, ranker)
        found = collection.quality(ranker.scores(queries, database, seen.weight))["ap_medium"]
        tie = spearmanr(shares, found, nan_policy="omit")[0]
        scores[split] = {"energy": float(np.nanmean(shares)), "energy_ap": float(tie)}
    place = {"method": ranker.method, "parameters": parameters, "seed": seen.seed}
    return run_rows(place, scores)


def imagenet_tail() -> Classifier:
    return build_model(LITE, None).eval().split(STAGE)[1]


def each_alone(folder: Path, number: int) -> list[dict[str, Any]]:
    seen = through(folder, number, imagenet_tail())
    return [
        row for method in METHODS for row in rows_of(seen, method, Ranker(method), TRIED.get(method, [{}]))
    ]


def energy_of_maps(
    folder: Path, number: int, alone: Mapping[str, tuple[Ranker, str]]
) -> list[dict[str, Any]]:
    seen = through(folder, number, imagenet_tail())
    found = [energy_rows(seen, *alone[method]) for method in ("own classes", "query's classes")]
    return list(itertools.chain.from_iterable(found))


def on_top(folder: Path, number: int, alone: Mapping[str, tuple[Ranker, str]]) -> list[dict[str, Any]]:
    seen, rows = through(folder, number, imagenet_tail()), []
    for method in UNDER:
        for name, tried in ON_TOP.items():
            rows += rows_of(seen, f"{method} + {name}", alone[method][0], tried)
    return rows


def own_features(folder: Path, number: int, power: float) -> list[dict[str, Any]]:
    rows = []
    for name, trained in own_networks(number):
        seen = through(folder, number, trained)
        rows += rows_of(seen, f"gem, {name}", Ranker("gem"), [{"power": power}])
        rows += rows_of(seen, f"query's classes, {name}", Ranker("query's classes"), LOOKING)
    return rows


def own_networks(number: int) -> Iterator[tuple[str, Classifier]]:
    """Tails as in notebook 04's study at bias 0, at the settings chosen there: cross-entropy and CKFR."""
    study = read_results("study_look_photos")
    network, parts = build_model(LITE, 1).eval(), {}
    each = study.about["study"]["datasets"][0]["scenes"]
    for split in ("train", "val", "test"):
        count = each[split] if split != "test" else len(class_ids())  # its scores are not asked for here
        source = datasets.open_source("photos", split, size=224, scenes=count, seed=number)
        # Without workers: a process of joblib's cannot start a loader's own.
        parts[split] = cache_split(source, network, STAGE, 224, workers=0, progress=False)
    for method in (BASELINE, "ckfr"):
        chosen = parse(study.chosen["bias 0", method])
        config = TrainConfig(
            model=LITE, freeze=STAGE, alpha=chosen.get("alpha", 0.0), lr=chosen["lr"], seed=number,
            epochs=study.about["study"]["epochs"], accelerator="cpu",
        )  # fmt: skip
        yield method, train_tail(parts, source.hierarchy, config).tail


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="seeds at a time, one process each")
    parser.add_argument("--on-top", action="store_true", help="whitening, expansion and re-ranking too")
    parser.add_argument("--networks", action="store_true", help="cross-entropy's and CKFR's features too")
    parser.add_argument("--out", type=Path, default=RESULTS / "study_retrieval.csv")
    arguments = parser.parse_args()
    datasets.fetch("photos")
    machine = environment()
    where = {"study": "retrieval", "dataset": LABEL, "made_by": made_by(machine)}
    about: dict[str, Any] = {
        "study": {"name": "retrieval", "seeds": list(range(arguments.seeds)), "choose_by": "ap_medium",
                  "lr_by": "ap_medium", "lr_for": "each", "methods": [],
                  "datasets": [{"name": "photos", "label": LABEL}]},
        "made_by": {where["made_by"]: machine},
        "how": "settings by mean average precision (medium) on validation photographs, means over seeds",
    }  # fmt: skip
    rows: list[dict[str, Any]] = []

    def results() -> Results:
        about["study"]["methods"] = list(dict.fromkeys(row["method"] for row in rows))
        return Results(as_table([row | where for row in rows]), about)

    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)

        def every_seed(title: str, work: Callable[..., Any], *more: Any) -> list[Any]:
            jobs = (joblib.delayed(work)(folder, number, *more) for number in range(arguments.seeds))
            found = joblib.Parallel(arguments.jobs, return_as="generator")(jobs)
            return list(tqdm(found, title, arguments.seeds))

        every_seed("scenes and trunk", draw)
        rows += itertools.chain.from_iterable(every_seed("methods", each_alone))
        write_results(results(), arguments.out)  # after every part, so that nothing is lost
        alone = {}
        for method in METHODS:
            told = results().chosen[LABEL, method]
            kept = {name: value if name == "power" else int(value) for name, value in parse(told).items()}
            alone[method] = (Ranker(method, **kept), told)
        rows += itertools.chain.from_iterable(every_seed("energy", energy_of_maps, alone))
        write_results(results(), arguments.out)
        if arguments.on_top:
            rows += itertools.chain.from_iterable(every_seed("on top", on_top, alone))
            write_results(results(), arguments.out)
        if arguments.networks:
            power = alone["gem"][0].power
            rows += itertools.chain.from_iterable(every_seed("own networks", own_features, power))
            write_results(results(), arguments.out)


if __name__ == "__main__":
    main()

"""Baseline against CKFR over five seeds, on the embedded photos or on real CIFAR-10.

    python benchmarks/study.py photos          # scenes at background bias 0 and 0.9
    python benchmarks/study.py cifar10         # 5,000 training pictures a seed, all test pictures

The trunk of EfficientNet-Lite0 (ImageNet weights) is frozen and its output cached once; the last stages
and the classifier are trained. The learning rate is chosen for the baseline, and alpha for CKFR, on the
validation split; the test split is scored once for each run and never chosen on. A run that is stopped
goes on where it was. Writes benchmarks/results/study_<name>.json.
"""

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from choosing import CHOSEN_BY, mean_val, of_seeds, tried
from tqdm.auto import tqdm

from ckfr_helpers import datasets, metrics
from ckfr_helpers.datasets.base import ImageSource
from ckfr_helpers.datasets.subset import balanced
from ckfr_helpers.models import build_model
from ckfr_helpers.runtime import atomic_path, environment, runs_root
from ckfr_helpers.training import CachedFeatures, TailSettings, cache_split, train_tail

RESULTS = Path(__file__).parent / "results"
ALPHAS = (5.0, 20.0, 80.0)
RATES = (1e-4, 3e-4, 1e-3)


@dataclass(frozen=True)
class Plan:
    """One study: what is trained on, where the network is cut, how long."""

    name: str
    conditions: tuple[str, ...]
    stage: int
    size: int
    epochs: int
    model: str = "efficientnet_lite0"
    train_size: int = 0  # scenes, or pictures of each class


PLANS = {
    "photos": Plan("photos", ("bias 0", "bias 0.9"), stage=8, size=160, epochs=4, train_size=1200),
    "cifar10": Plan("cifar10", ("real",), stage=8, size=96, epochs=4, train_size=500),
}
SCENES = {"val": 720, "test": 1440}


def open_part(plan: Plan, condition: str, split: str, seed: int) -> ImageSource:
    """Training scenes change with the seed; validation and test are the same for every run."""
    if plan.name == "cifar10":
        source = datasets.open_source("cifar10", split)
        return balanced(source, plan.train_size, seed) if split == "train" else source
    if split != "train":
        return datasets.open_source("photos", split, size=plan.size, scenes=SCENES[split], seed=0)
    bias = float(condition.split()[1])
    return datasets.open_source(
        "photos", split, size=plan.size, scenes=plan.train_size, seed=seed, background_bias=bias
    )


def cache_file(plan: Plan, condition: str, split: str, seed: int) -> Path:
    which = f"{condition.replace(' ', '')}_{split}_{seed}" if split == "train" else split
    return (
        runs_root() / f"study_{plan.name}" / f"features_{plan.size}_{plan.stage}_{plan.train_size}_{which}.pt"
    )


def cache_all(plan: Plan, seeds: list[int]) -> None:
    """Trunk outputs of every split that is not there yet."""
    wanted = [("", split, 0) for split in ("val", "test")]
    wanted += [(condition, "train", seed) for condition in plan.conditions for seed in seeds]
    missing = [key for key in wanted if not cache_file(plan, *key).is_file()]
    if not missing:
        return
    model = build_model(plan.model, 10).eval()
    for key in tqdm(missing, desc="caching trunk outputs"):
        features = cache_split(open_part(plan, *key), model, plan.stage, plan.size, progress=False)
        with atomic_path(cache_file(plan, *key)) as path:
            torch.save(asdict(features), path)


def load_features(plan: Plan, condition: str, seed: int) -> dict[str, CachedFeatures]:
    return {
        split: CachedFeatures(**torch.load(cache_file(plan, condition, split, seed), weights_only=True))
        for split in ("train", "val", "test")
    }


def run_one(job: tuple[Plan, str, TailSettings]) -> dict:
    """Train and score one tail, or read what an earlier call left; runs in a process of its own."""
    plan, condition, settings = job
    torch.set_num_threads(1)
    made = f"{plan.size}_{plan.stage}_{plan.train_size}_{settings.epochs}_{condition.replace(' ', '')}"
    name = f"run_{made}_a{settings.alpha:g}_l{settings.ell:g}_lr{settings.lr:g}_s{settings.seed}.json"
    kept = runs_root() / f"study_{plan.name}" / name
    if kept.is_file():
        return json.loads(kept.read_text())
    source = open_part(plan, condition, "test", 0)
    run = train_tail(load_features(plan, condition, settings.seed), source, settings, stage=plan.stage)
    severity = source.hierarchy.distances("lca_height")
    answer = run.test.logits.argmax(1)
    record = {
        "condition": condition,
        "settings": asdict(settings),
        "best_epoch": run.best_epoch,
        "history": run.history,
        "val": run.val_scores,
        "test": run.test_scores,
        # Each answer's distance to the truth, in the order of the test split: 0 is right.
        "test_distance": severity[answer, run.test.labels].astype(int).tolist(),
    }
    with atomic_path(kept) as path:
        path.write_text(json.dumps(record))
    return record


def summarise(plan: Plan, records: list[dict], rates: dict, alphas: dict, seeds: list[int]) -> list[dict]:
    """For each condition: both methods' means with intervals, and their paired difference."""
    rows = []
    test = open_part(plan, plan.conditions[0], "test", 0)
    photos = [test.photo_of(i) for i in range(len(test))] if plan.name == "photos" else None
    for condition in plan.conditions:

        def of(alpha: float, condition: str = condition) -> list[dict]:
            return of_seeds(records, condition, seeds, alpha=alpha, lr=rates[condition])

        base, ckfr = of(0.0), of(alphas[condition])
        row = {"condition": condition, "lr": rates[condition], "alpha": alphas[condition], "scores": {}}
        for name in base[0]["test"]:
            a, b = ([r["test"][name] for r in group] for group in (base, ckfr))
            row["scores"][name] = {
                "baseline": asdict(metrics.mean_interval(a)),
                "ckfr": asdict(metrics.mean_interval(b)),
                "difference": asdict(metrics.paired_difference(b, a)),
            }
        if photos is not None:
            # Few photographs: the interval that counts resamples photographs, not scenes of the same ones.
            right = [
                np.mean([np.array(r["test_distance"]) == 0 for r in group], axis=0) for group in (base, ckfr)
            ]
            row["top1_over_photographs"] = {
                name: asdict(metrics.bootstrap_interval(values, photos))
                for name, values in (
                    ("baseline", right[0]),
                    ("ckfr", right[1]),
                    ("difference", right[1] - right[0]),
                )
            }
            row["photographs"] = len(set(photos))
        row["severity_counts"] = {
            name: np.bincount(np.concatenate([r["test_distance"] for r in group])).tolist()
            for name, group in (("baseline", base), ("ckfr", ckfr))
        }
        row["curves"] = {
            name: {key: np.mean([[e[key] for e in r["history"]] for r in group], axis=0).tolist() for key in
                   ("train_cross_entropy", "train_metric", "val_top1", "val_mistake_severity")}
            for name, group in (("baseline", base), ("ckfr", ckfr))
        }  # fmt: skip
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("study", choices=sorted(PLANS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--epochs", type=int, help="other than the study's own")
    parser.add_argument("--only-cache", action="store_true", help="cache trunk outputs and stop")
    arguments = parser.parse_args()
    plan, seeds = PLANS[arguments.study], list(range(arguments.seeds))
    plan = replace(plan, epochs=arguments.epochs or plan.epochs)
    cache_all(plan, seeds)
    if arguments.only_cache:
        return
    with ProcessPoolExecutor(arguments.processes) as pool:

        def run_all(jobs: list[tuple[Plan, str, TailSettings]]) -> list[dict]:
            return list(tqdm(pool.map(run_one, jobs), total=len(jobs), desc="runs"))

        start = TailSettings(epochs=plan.epochs)
        first = run_all([(plan, c, replace(start, lr=lr)) for c in plan.conditions for lr in RATES])
        rates = {
            c: max(RATES, key=lambda lr, c=c: mean_val(first, c, "top1", lr=lr)) for c in plan.conditions
        }
        records = run_all(
            [
                (plan, c, replace(start, lr=rates[c], alpha=alpha, seed=seed))
                for c in plan.conditions
                for alpha in (0.0, *ALPHAS)
                for seed in seeds
            ]
        )
    alphas = {
        c: min(ALPHAS, key=lambda a, c=c: mean_val(records, c, CHOSEN_BY, alpha=a)) for c in plan.conditions
    }
    result = {
        "environment": environment(),
        "plan": asdict(plan),
        "seeds": seeds,
        "loss": {"ell": start.ell, "measure": start.measure, "knowledge_scale": start.knowledge_scale},
        "batch_size": start.batch_size,
        "chosen_on_validation": {
            "lr by top1 of the baseline, seed 0": tried(first, plan.conditions, "top1", "lr", RATES),
            f"alpha by {CHOSEN_BY}, all seeds": tried(
                records, plan.conditions, CHOSEN_BY, "alpha", (0.0, *ALPHAS)
            ),
        },
        "severity_unit": "height of the lowest common ancestor",
        "results": summarise(plan, records, rates, alphas, seeds),
        "runs": [
            {
                "condition": r["condition"],
                "alpha": r["settings"]["alpha"],
                "seed": r["settings"]["seed"],
                "best_epoch": r["best_epoch"],
                **{f"val_{k}": r["val"][k] for k in ("top1", CHOSEN_BY)},
                **{f"test_{k}": v for k, v in r["test"].items()},
            }
            for r in records
        ],
    }
    # Anything but the plan's own settings stays below runs/: the committed file is the plan's.
    as_planned = plan == PLANS[arguments.study] and len(seeds) == 5
    folder = RESULTS if as_planned else runs_root() / f"study_{plan.name}"
    with atomic_path(folder / f"study_{plan.name}.json") as path:
        path.write_text(json.dumps(result, indent=1) + "\n")
    for row in result["results"]:
        for name in ("top1", "mistake_severity", "hdist@1"):
            pair = row["scores"][name]
            print(row["condition"], name, {k: round(v["mean"], 4) for k, v in pair.items()})


if __name__ == "__main__":
    main()

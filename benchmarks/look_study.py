"""Does CKFR change where a network looks? Five seeds, on scenes and on real photographs.

    python benchmarks/look_study.py photos
    python benchmarks/look_study.py tiny-imagenet --root tiny-imagenet-100.zip

Photos: scenes at background bias 0, 0.5 and 0.9, with exact masks, and the same test scenes on the usual and
on a foreign background. Tiny-ImageNet (here its 100-class cut): real photographs with boxes.

EfficientNet-Lite0 (ImageNet weights) is frozen up to its last block; that block, the last convolution and the
classifier are trained on cached trunk outputs. On validation are chosen: the learning rate for the baseline
and alpha for CKFR, by their mean over the conditions, and every score threshold for its own model. The test
split is scored once for each run. The official scores, whose threshold is picked on the scored split, stand
beside. A run that is stopped goes on where it was. Writes benchmarks/results/look_<name>.json, or below runs/
when an option differs from the plan.
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

from ckfr_helpers import datasets, localization, metrics
from ckfr_helpers.attribution import energy as attention
from ckfr_helpers.attribution.look import POINTING_TOLERANCE, look, look_scores, object_mask, per_image
from ckfr_helpers.datasets.base import ImageSource
from ckfr_helpers.datasets.scenes.swapped import OnBackground
from ckfr_helpers.datasets.subset import balanced
from ckfr_helpers.models import build_model
from ckfr_helpers.runtime import atomic_path, environment, runs_root
from ckfr_helpers.training import CachedFeatures, TrainConfig, cache_split, predict, train_tail
from ckfr_helpers.training.tails import new_tail

RESULTS = Path(__file__).parent / "results"
BOOTSTRAPPED = ("top1", "energy", "pointing", "box_acc_fixed", "gt_known_fixed", "top1_loc_fixed")
BOOTSTRAPPED += ("usual", "foreign", "drop")


@dataclass(frozen=True)
class Plan:
    """One study: what is trained on, where the network is cut, how long, and what is tried."""

    name: str
    conditions: tuple[str, ...]
    epochs: int
    train_size: int  # scenes, or pictures of each class
    alphas: tuple[float, ...] = (5.0, 20.0, 80.0)
    rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3)
    stage: int = 7
    size: int = 224
    model: str = "efficientnet_lite0"
    root: str | None = None

    @property
    def folder(self) -> Path:
        return runs_root() / f"look_{self.name}_{self.size}_{self.stage}_{self.train_size}"


PLANS = {
    "photos": Plan("photos", ("bias 0", "bias 0.5", "bias 0.9"), epochs=4, train_size=1200),
    "tiny-imagenet": Plan("tiny-imagenet", ("real",), epochs=3, train_size=100, alphas=(1.0, 5.0, 20.0)),
}
SCENES = {"val": 480, "test": 720}
PAIRED = ("usual", "foreign")


def open_part(plan: Plan, condition: str, part: str, seed: int) -> ImageSource:
    """Photos: everything but validation changes with the seed, which also deals out the usual places."""
    if plan.name == "tiny-imagenet":
        return datasets.open_source("tiny-imagenet", part, root=plan.root)
    if part == "train":
        bias = float(condition.split()[1])
        return datasets.open_source(
            "photos", "train", size=plan.size, scenes=plan.train_size, seed=seed, background_bias=bias
        )
    split = "val" if part == "val" else "test"
    scenes = datasets.open_source("photos", split, size=plan.size, scenes=SCENES[split], seed=seed)
    return OnBackground(scenes, part) if part in PAIRED else scenes


def cache_key(plan: Plan, condition: str, part: str, seed: int) -> tuple[str, str, int]:
    """Which cached features a run reads; only training scenes depend on the condition."""
    if plan.name == "tiny-imagenet" or part == "val":
        return "", part, 0
    return (condition if part == "train" else ""), part, seed


def cache_file(plan: Plan, condition: str, part: str, seed: int) -> Path:
    return plan.folder / f"features_{condition.replace(' ', '')}_{part}_{seed}.pt"


def parts(plan: Plan) -> tuple[str, ...]:
    return ("train", "val", "test", *(PAIRED if plan.name == "photos" else ()))


def cache_one(job: tuple[Plan, tuple[str, str, int]]) -> None:
    """Trunk outputs of one split, unless they are there; in a process of its own, with one thread."""
    plan, key = job
    if cache_file(plan, *key).is_file():
        return
    torch.set_num_threads(1)
    model = build_model(plan.model, 10).eval()
    features = cache_split(open_part(plan, *key), model, plan.stage, plan.size, workers=0, progress=False)
    with atomic_path(cache_file(plan, *key)) as path:
        torch.save(asdict(features), path)


def load(plan: Plan, condition: str, part: str, seed: int) -> CachedFeatures:
    key = cache_key(plan, condition, part, seed)
    features = CachedFeatures(**torch.load(cache_file(plan, *key), weights_only=True, mmap=True))
    if plan.name == "tiny-imagenet" and part == "train":
        rows = torch.from_numpy(balanced(open_part(plan, *key), plan.train_size, seed).indices)
        features = CachedFeatures(features.features[rows], features.labels[rows], features.indices[rows])
    return features


def run_one(job: tuple[Plan, str, TrainConfig | int]) -> dict:
    """Train one tail and look through it, or read what an earlier call left; in a process of its own.

    A seed in place of settings stands for the network before training: ImageNet trunk, random classifier.
    """
    plan, condition, asked = job
    torch.set_num_threads(1)
    settings = TrainConfig(seed=asked) if isinstance(asked, int) else asked
    what = (
        f"untrained_s{asked}"
        if isinstance(asked, int)
        else f"e{asked.epochs}_a{asked.alpha:g}_l{asked.ell:g}_lr{asked.lr:g}_s{asked.seed}"
    )
    kept = plan.folder / f"run_{condition.replace(' ', '')}_{what}.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    seed = settings.seed
    features = {part: load(plan, condition, part, seed) for part in parts(plan)}
    sources = {part: open_part(plan, *cache_key(plan, condition, part, seed)) for part in ("val", "test")}
    record: dict = {"condition": condition, "settings": asdict(settings)}
    if isinstance(asked, int):
        tail = new_tail(plan.model, plan.stage, len(sources["test"].classes), seed).eval()
    else:
        run = train_tail(features, sources["test"].hierarchy, settings)
        tail = run.tail
        record |= {"best_epoch": run.best_epoch, "val": run.scores["val"], "test": run.scores["test"]}
    looks = {
        part: look(tail, features[part].loader(64, train=False), sources[part]) for part in ("val", "test")
    }
    images = per_image(looks["test"], looks["val"])
    scores = look_scores(looks["test"], looks["val"])
    if plan.name == "photos":
        labels = features["test"].labels.numpy()
        says = [predict(tail, features[part].loader(256, train=False)).logits.argmax(1) for part in PAIRED]
        swap = attention.background_swap(*says, labels)
        right = swap.by_pair.astype(float)
        images |= {"usual": right[:, 0], "foreign": right[:, 1], "drop": right[:, 0] - right[:, 1]}
        scores |= {"usual": swap.usual, "foreign": swap.foreign, "drop": swap.drop, "same": swap.same}
    record["look"] = scores
    record["thresholds"] = looks["val"].boxes.best_thresholds.tolist()
    record["curves"] = looks["test"].boxes.curves[:, ::10].round(5).tolist()  # (3, 100)
    record["images"] = {name: np.round(value, 5).tolist() for name, value in images.items()}
    record["area"] = float(looks["test"].area.mean())
    with atomic_path(kept) as path:
        path.write_text(json.dumps(record))
    return record


def over_conditions(records: list[dict], plan: Plan, score: str, **settings: float) -> float:
    """Mean over the conditions of the mean validation score."""
    return float(np.mean([mean_val(records, c, score, **settings) for c in plan.conditions]))


def blind(plan: Plan) -> dict[str, float]:
    """What is had without looking: centre map, whole image, uniform energy, a random point."""
    key = cache_key(plan, plan.conditions[0], "test", 0)
    test = open_part(plan, *key)
    step = max(1, len(test) // 720)
    examples = [test[i] for i in range(0, len(test), step)]
    masks = [object_mask(e, i) for i, e in enumerate(examples)]
    boxes = [target["boxes"].numpy() for _, target in examples]
    height, width = examples[0][0].shape[-2:]
    centre = [localization.centre_map(height, width)] * len(examples)
    tolerance = round(POINTING_TOLERANCE * max(height, width))
    return {
        "images": len(examples),
        "uniform_energy": float(attention.uniform_energy(masks).mean()),
        "centre_energy": float(attention.energy_in_mask(centre, masks).mean()),
        "random_point": float(attention.random_point_hits(masks, tolerance).mean()),
        "centre_point": float(attention.pointing_game(centre, masks, tolerance).mean()),
        "centre_max_box_acc_v2": localization.max_box_acc(centre, boxes).mean,
        "centre_gt_known": float(localization.max_box_acc(centre, boxes, (0.5,), "largest").per_iou[0]),
        "whole_image_gt_known": float(
            localization.box_acc(localization.centre_box(height, width), boxes, (0.5,))[0]
        ),
    }


def summarise(
    plan: Plan, records: list[dict], untrained: list[dict], rates: dict, alphas: dict, seeds: list[int]
) -> list[dict]:
    """For each condition: means with intervals over seeds, paired differences, and over photographs."""
    rows = []
    test = open_part(plan, plan.conditions[0], "test", 0)
    # Which photograph a test image shows: the same for every seed. Of Tiny-ImageNet each is its own.
    units = [test.photo_of(i) if plan.name == "photos" else i for i in range(len(test))]
    for condition in plan.conditions:

        def of(alpha: float, condition: str = condition) -> list[dict]:
            return of_seeds(records, condition, seeds, alpha=alpha, lr=rates[condition])

        base = of(0.0)
        row: dict = {"condition": condition, "lr": rates[condition], "alpha": alphas[condition], "scores": {}}
        names = [*base[0]["look"], "mistake_severity", "hdist@1", "correlation"]

        def values(group: list[dict], name: str) -> list[float]:
            return [r["look"][name] if name in r["look"] else r["test"][name] for r in group]

        ckfr = of(alphas[condition])
        for name in names:
            a, b = values(base, name), values(ckfr, name)
            if np.isnan([*a, *b]).any():
                continue
            row["scores"][name] = {
                "baseline": asdict(metrics.mean_interval(a)),
                "ckfr": asdict(metrics.mean_interval(b)),
                "difference": asdict(metrics.paired_difference(b, a)),
            }
        row["every_alpha"] = {
            f"{alpha:g}": {
                name: asdict(metrics.paired_difference(values(of(alpha), name), values(base, name)))
                for name in row["scores"]
            }
            for alpha in plan.alphas
        }
        row["untrained"] = {
            name: asdict(metrics.mean_interval([r["look"][name] for r in untrained]))
            for name in (
                "energy",
                "pointing",
                "box_acc_fixed",
                "gt_known_fixed",
                "max_box_acc_v2",
                "gt_known",
            )
        }
        row["over_photographs"] = {}
        for name in BOOTSTRAPPED:
            if name not in base[0]["images"]:
                continue
            a, b = (np.mean([r["images"][name] for r in group], axis=0) for group in (base, ckfr))
            row["over_photographs"][name] = {
                key: asdict(metrics.bootstrap_interval(value, units))
                for key, value in (("baseline", a), ("ckfr", b), ("difference", b - a))
            }
        row["photographs"] = len(set(units))
        row["curves"] = {
            name: np.mean([r["curves"] for r in group], axis=0).round(4).tolist()
            for name, group in (("baseline", base), ("ckfr", ckfr), ("untrained", untrained))
        }
        row["object_share"] = float(np.mean([r["area"] for r in base]))
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("study", choices=sorted(PLANS))
    parser.add_argument("--root", help="where the data set is, if not in data/")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="other than the plan's own")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    seeds = list(range(arguments.seeds))
    own = PLANS[arguments.study]
    plan = replace(own, epochs=arguments.epochs or own.epochs, root=arguments.root)
    as_planned = plan.epochs == own.epochs and len(seeds) == 5
    caches = {cache_key(plan, c, part, s) for c in plan.conditions for part in parts(plan) for s in seeds}
    with ProcessPoolExecutor(arguments.processes) as pool:

        def run_all(jobs: list) -> list[dict]:
            return list(tqdm(pool.map(run_one, jobs), total=len(jobs), desc="runs"))

        wanted = [(plan, key) for key in sorted(caches)]
        list(tqdm(pool.map(cache_one, wanted), total=len(wanted), desc="caching trunk outputs"))
        start = TrainConfig(
            model=plan.model, freeze=plan.stage, alpha=0.0, epochs=plan.epochs, lr=3e-4, accelerator="cpu"
        )
        first = run_all([(plan, c, replace(start, lr=lr)) for c in plan.conditions for lr in plan.rates])
        # One rate and one alpha for all conditions: what moves from one to the next is then the bias alone.
        rate = max(plan.rates, key=lambda lr: over_conditions(first, plan, "top1", lr=lr))
        rates = dict.fromkeys(plan.conditions, rate)
        records = run_all(
            [
                (plan, c, replace(start, lr=rates[c], alpha=alpha, seed=seed))
                for c in plan.conditions
                for alpha in (0.0, *plan.alphas)
                for seed in seeds
            ]
        )
        untrained = run_all([(plan, plan.conditions[0], seed) for seed in seeds])
    chosen = min(plan.alphas, key=lambda alpha: over_conditions(records, plan, CHOSEN_BY, alpha=alpha))
    alphas = dict.fromkeys(plan.conditions, chosen)
    result = {
        "environment": environment(),
        "plan": asdict(replace(plan, root=None)),
        "seeds": seeds,
        "loss": {"ell": start.ell, "measure": start.measure, "knowledge_scale": start.knowledge_scale},
        "batch_size": start.batch_size,
        "maps": "closed-form class activation maps of the true class, 7 x 7, bilinear to the picture's size",
        "chosen_on_validation": {
            "lr by top1 of the baseline, seed 0": tried(
                first, plan.conditions, "top1", "lr", plan.rates
            ),
            f"alpha by {CHOSEN_BY}, all seeds": tried(
                records, plan.conditions, CHOSEN_BY, "alpha", (0.0, *plan.alphas)
            ),
        },
        "curve_thresholds": localization.THRESHOLDS[::10].round(3).tolist(),
        "blind": blind(plan),
        "results": summarise(plan, records, untrained, rates, alphas, seeds),
        "runs": [
            {
                "condition": r["condition"], "alpha": r["settings"]["alpha"], "seed": r["settings"]["seed"],
                "best_epoch": r["best_epoch"], "thresholds": r["thresholds"],
                f"val_{CHOSEN_BY}": r["val"][CHOSEN_BY],
                **{name: round(value, 5) for name, value in r["look"].items()},
            }
            for r in records
        ],
    }  # fmt: skip
    name = f"look_{plan.name.replace('-', '_')}.json"
    target = RESULTS / name if as_planned else plan.folder / name
    with atomic_path(target) as path:
        path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"Wrote {target.name}")
    for row in result["results"]:
        for score, pair in row["scores"].items():
            print(row["condition"], score, {k: f"{metrics.Interval(**v):.3f}" for k, v in pair.items()})


if __name__ == "__main__":
    main()

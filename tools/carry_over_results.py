"""Turn results of commit 23c67d7, one wide table a study, into the long table of `training.results`.

    git show 23c67d7:benchmarks/results/study_cifar10_grid.csv > OLD/study_cifar10_grid.csv   # and .json
    python tools/carry_over_results.py wide OLD/study_cifar10_grid.csv
    python tools/carry_over_results.py wide OLD/study_photos_grid.csv --runs RUNS/study_photos_grid
    python tools/carry_over_results.py look studies/look_photos.yaml OLD/look_photos.json \\
        --runs RUNS/look_photos_224_7_1200

Runs are folders of that commit's own run files; they add what its tables did not hold, the values of single
photographs, and are compared with the table where both have a number. What is carried over says so.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ckfr_helpers import datasets
from ckfr_helpers.runtime import PACKAGE
from ckfr_helpers.training.results import SCORES, Results, as_table, made_by, run_rows, spell, write_results
from ckfr_helpers.training.study.config import load_study
from ckfr_helpers.training.study.jobs import FREE

RESULTS = PACKAGE.parent / "benchmarks" / "results"
NOTE = {"note": "carried over from commit 23c67d7", "code": "23c67d7"}
# Over class means of all pictures of the split, ell 1.2: what `metrics.alignment` computes now.
RENAMED = {"alignment_class_pearson": "correlation", "alignment_class_spearman": "correlation_spearman"}
IN_PHOTOS = (
    "top1",
    "energy",
    "pointing",
    "box_acc_fixed",
    "gt_known_fixed",
    "top1_loc_fixed",
    "usual",
    "foreign",
    "drop",
)


def kept(scores: dict[str, float]) -> dict[str, float]:
    """Under today's names; without alignments of sample pairs and what no table shows."""
    renamed = {RENAMED.get(name, name): value for name, value in scores.items()}
    return {name: renamed[name] for name in SCORES if name in renamed}


def wide(table: Path, runs: Path | None) -> Results:
    """A study's table; with its run files also the accuracy on each photograph."""
    old, rows = json.loads(table.with_suffix(".json").read_text()), pd.read_csv(table)
    about = {"study": old["study"], "made_by": {}, "how": old["how"], "failed": old["failed"]}
    study = about["study"] | {"choose_over": "each", "scores": []}
    about["study"] = study
    maker = NOTE | old["environment"]
    about["made_by"][made_by(maker)] = maker
    records = {} if runs is None else dict(keyed(runs, study))
    long: list[dict[str, Any]] = []
    furthest = 0.0
    for row in rows.to_dict("records"):
        named = study["methods"][row["method"]]
        where = {
            "study": study["name"], "dataset": row["dataset"], "method": row["method"],
            "parameters": spell({"lr": row["lr"], **{k: row[k] for k in named}}), "seed": row["seed"],
            "made_by": made_by(maker),
        }  # fmt: skip
        scores = {
            split: kept({k.removeprefix(f"{split}_"): v for k, v in row.items() if k.startswith(f"{split}_")})
            for split in ("val", "test")
        }
        record = records.pop((where["dataset"], where["method"], where["parameters"], where["seed"]), None)
        if record is None:
            long += run_rows(where, scores)
            continue
        furthest = max(furthest, *(abs(kept(record[s])[k] - v) for s in scores for k, v in scores[s].items()))
        right = (np.array(record["test_distance"]) == 0).astype(float)
        long += run_rows(where, scores, {"top1": right}, record["test_groups"])
    if runs is not None:
        print(f"{table.name}: {len(rows)} runs, largest difference to the run files {furthest:.2g}")
    return Results(as_table(long), about)


def keyed(runs: Path, study: dict[str, Any]) -> Any:
    """Run files by data set, method, parameters and seed."""
    for path in sorted(runs.glob("runs/*.json")):
        record = json.loads(path.read_text())
        settings = record["settings"]
        named = study["methods"].get(settings["method"], {})
        text = spell({"lr": settings["lr"], **{k: settings["parameters"][k] for k in named}})
        yield (settings["data"]["label"], settings["method"], text, settings["seed"]), record


def look(file: Path, old: Path, runs: Path | None) -> Results:
    """A study of where networks look: from its run files, or else from what the old result file says of runs.

    The old file has one learning rate and no run's scores on validation but the one that alpha was chosen by,
    and of untrained networks only the mean.
    """
    study, before = load_study(file), json.loads(old.read_text())
    maker = NOTE | before["environment"]
    about: dict[str, Any] = {
        "study": study.asked(), "made_by": {made_by(maker): maker}, "how": study.how(), "failed": []
    }  # fmt: skip
    labels = {re.sub(r"\W", "", label): label for label in about_labels(about)}
    photos = study.datasets[0].name == "photos"
    long: list[dict[str, Any]] = []

    def place(condition: str, method: str, parameters: str) -> dict[str, Any]:
        label = labels.get(re.sub(r"\W", "", condition), study.datasets[0].label)
        return {"study": study.name, "dataset": label, "method": method, "parameters": parameters,
                "made_by": made_by(maker)}  # fmt: skip

    if runs is None:
        about["how"]["learning rate"] = "top1 of cross-entropy on validation, seed 0, mean over data sets"
        about["study"] |= {
            "lr_by": "hdist@1",
            "rates": [before["results"][0]["lr"]],
            "seeds": before["seeds"],
        }
        about["study"]["methods"]["ckfr"]["alpha"] = before["plan"]["alphas"]
        named = ("condition", "alpha", "seed", "best_epoch", "thresholds", "val_hdist@1", "same")
        for run in before["runs"]:
            method, chosen = told(run["alpha"], before["results"][0]["lr"])
            scores = {
                "val": {"hdist@1": run["val_hdist@1"]},
                "test": {k: v for k, v in run.items() if k not in named},
            }
            long += run_rows(place(run["condition"], method, chosen) | {"seed": run["seed"]}, scores)
        for score, value in before["results"][0]["untrained"].items():
            where = place(before["results"][0]["condition"], "untrained", "")
            long.append(where | {"split": "test", "score": score, "value": value["mean"]})
    else:
        scenes = (
            datasets.open_source("photos", "test", size=study.datasets[0].size, scenes=720)
            if photos
            else None
        )
        groups = [int(scenes.photo_of(i)) for i in range(len(scenes))] if scenes is not None else None
        for path in sorted(runs.glob("run_*.json")):
            run = json.loads(path.read_text())
            method, chosen = told(run["settings"]["alpha"], run["settings"]["lr"])
            if "val" not in run:
                method, chosen = "untrained", ""
            scores = {"val": kept(run.get("val", {})), "test": kept(run.get("test", {})) | run["look"]}
            scores["test"].pop("same", None)
            images = {k: run["images"][k] for k in IN_PHOTOS if k in run["images"]} if photos else None
            long += run_rows(
                place(run["condition"], method, chosen) | {"seed": run["settings"]["seed"]},
                scores, None if method == "untrained" else images, groups,
            )  # fmt: skip
    for key, (method, score) in FREE.items():
        where = place(study.datasets[0].label, method, "")
        long.append(where | {"split": "test", "score": score, "value": before["blind"][key]})
    return Results(as_table(long), about)


def told(alpha: float, lr: float) -> tuple[str, str]:
    """Method and parameters, as the long table spells them."""
    return ("ckfr", spell({"lr": lr, "alpha": alpha})) if alpha else ("cross-entropy", spell({"lr": lr}))


def about_labels(about: dict[str, Any]) -> list[str]:
    """The data sets of a study."""
    return [data["label"] for data in about["study"]["datasets"]]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    one = kinds.add_parser("wide")
    one.add_argument("table", type=Path)
    two = kinds.add_parser("look")
    two.add_argument("study", type=Path)
    two.add_argument("table", type=Path)
    for each in (one, two):
        each.add_argument("--runs", type=Path)
        each.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.kind == "wide":
        made = wide(options.table, options.runs)
    else:
        made = look(options.study, options.table, options.runs)
    target = options.out / f"study_{made.name}.csv"
    write_results(made, target)
    print(f"{target.name}: {len(pd.read_csv(target))} rows, {target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()

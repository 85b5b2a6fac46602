"""Notebook 06 over five seeds: what a detector finds that saw no box, and what a classifier learns from it.

    python benchmarks/detection_study.py

A seed draws other scenes of the same photographs, other partners of classes, and first weights. Settings are
chosen by mean average precision of labels on validation scenes, means over seeds: rates of the plain student,
of the plain classifier of large pictures and of WSDDN, and WSDDN's temperature; all other students have the
plain student's rate. The share of the centre's box, the spatial regulariser and alpha are chosen by box mAP
at IoU 0.5 on validation, the threshold of class maps by box accuracy there: these have seen validation boxes,
WSDDN has not. Writes study_detection (labels, at two strengths of pairing) and study_detection_boxes into
benchmarks/results, .csv and .json. Needs the photographs (`ckfr fetch photos`).
"""

import argparse
import itertools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import joblib
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ckfr_helpers import datasets
from ckfr_helpers.detection.rivals import box_scores
from ckfr_helpers.detection.tables import Detections
from ckfr_helpers.detection.tasks import DetectorTask
from ckfr_helpers.models import build_model
from ckfr_helpers.runtime import environment
from ckfr_helpers.teaching.detection_lesson import (
    best_proposals,
    detections_of,
    detector_maps,
    label_scores,
    looks,
    pairing_scores,
    rivals,
)
from ckfr_helpers.teaching.detection_scenes import LITE, SIZE, SMALL, Seen, see
from ckfr_helpers.teaching.detection_training import (
    AlignedDetectorTask,
    class_maps,
    region_scores,
    said,
    train_detector,
    train_plain,
    train_student,
    train_supervised,
)
from ckfr_helpers.training import results as tables

RESULTS = Path(__file__).parent / "results"
SCENES = {"train": 336, "val": 120, "test": 240}  # whole turns of the 24 classes
PAIRINGS = (0.0, 0.8)
EPOCHS = 10
STUDENT, PLAIN, WSDDN = "plain student", "plain, large", "WSDDN"
HIDDEN = "WSDDN, hidden layer"
TRIED: dict[str, list[dict[str, float]]] = {
    STUDENT: [{"lr": lr} for lr in (1e-3, 3e-3, 1e-2)],
    PLAIN: [{"lr": lr} for lr in (3e-3, 1e-2, 3e-2)],
    WSDDN: [
        {"lr": lr, "detection_temperature": t}
        for lr, t in ((3e-4, 1.0), (1e-3, 1.0), (1e-3, 2.0), (3e-3, 1.0))
    ],
}
SHARES, WIDTH, SPATIAL, ALPHAS = (0.3, 0.4, 0.6), 64, (1e2, 1e3), (0.1, 1.0)

Splits = Mapping[str, Seen]


def draw(folder: Path, number: int, scenes: Mapping[str, int]) -> None:
    """Compose one seed's scenes, send them through the trunk, and keep what it gives in files."""
    network = build_model(LITE, None).eval()
    for pairing in PAIRINGS:
        asked = scenes if pairing == 0 else {"train": scenes["train"]}  # the other splits are never paired
        joblib.dump(see(network, asked, number, pairing, workers=0), folder / f"{number}_{pairing:g}.joblib")


def load(folder: Path, number: int, pairing: float = 0.0) -> dict[str, Seen]:
    parts = joblib.load(folder / f"{number}_0.joblib")
    return parts | joblib.load(folder / f"{number}_{pairing:g}.joblib")


def answers(model: nn.Module, seen: Splits, **options: Any) -> dict[str, Tensor]:
    return {split: said(model, part, **options) for split, part in seen.items()}


def of(pairing: float, method: str, parameters: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The columns that all rows of one run share."""
    label = f"pairing {pairing:g}"
    return {"dataset": label, "method": method, "parameters": tables.spell(parameters), "seed": seed}


def label_rows(place: dict[str, Any], seen: Splits, found: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Every score of labels on val and test, and mAP on the scenes it was trained on."""
    scores: dict[str, Any] = {
        split: {**label_scores(found[split], seen[split]), **pairing_scores(found[split], seen[split])}
        for split in ("val", "test")
    }
    scores["train"] = {"mAP": label_scores(found["train"], seen["train"])["mAP"]}
    return tables.run_rows(place, scores)


def settings(folder: Path, number: int, scenes: Mapping[str, int]) -> list[dict[str, Any]]:
    """Scenes, and on them the three networks whose settings are chosen, at all of these."""
    draw(folder, number, scenes)
    seen, rows = load(folder, number), []
    ways: dict[str, Callable[..., Any]] = {STUDENT: train_student, PLAIN: train_plain, WSDDN: train_detector}
    for method, way in ways.items():
        for tried in TRIED[method]:
            found = answers(way(seen, EPOCHS, seed=number, **tried), seen)
            rows += label_rows(of(0, method, tried, number), seen, found)
    return rows


def distillation(
    folder: Path, number: int, chosen: Mapping[str, Any], pairing: float
) -> list[dict[str, Any]]:
    """Every teacher, every student and every control."""
    seen, rate = load(folder, number, pairing), chosen[STUDENT]["lr"]
    rows: list[dict[str, Any]] = []

    def write(method: str, parameters: Mapping[str, Any], found: dict[str, Tensor]) -> dict[str, Tensor]:
        if pairing or method not in TRIED:  # at pairing 0 those stand among the settings
            rows.extend(label_rows(of(pairing, method, parameters, number), seen, found))
        return found

    def student(method: str, told: Mapping[str, Any] | None = None, **recipe: Any) -> dict[str, Tensor]:
        recipe = {"epochs": EPOCHS, "lr": rate, "seed": number} | recipe
        return write(method, {"lr": rate} | (told or {}), answers(train_student(seen, **recipe), seen))

    detector = train_detector(seen, EPOCHS, seed=number, **chosen[WSDDN])
    plain = train_plain(seen, EPOCHS, seed=number, **chosen[PLAIN])
    scores, sharp = answers(detector, seen), answers(detector, seen, sharpen=2.0)
    over_regions = {split: region_scores(plain.classifier, part).amax(1) for split, part in seen.items()}
    taught = {
        WSDDN: write(WSDDN, chosen[WSDDN], scores),
        f"{WSDDN} x2": write(f"{WSDDN} x2", chosen[WSDDN], sharp),
        PLAIN: write(PLAIN, chosen[PLAIN], answers(plain, seen)),
        "plain on regions": write("plain on regions", chosen[PLAIN], over_regions),
    }
    for name, teacher in taught.items():
        student(f"taught by {name}", teacher=teacher)
    student("self-distillation", teacher=student(STUDENT))
    # Both stages together pass over the scenes as often as the control of equal compute.
    first: dict[str, Any] = {"features_of": detector, "first_epochs": EPOCHS}
    student("stage 1, then taught by WSDDN", {"first_epochs": EPOCHS}, teacher=scores, **first)
    if pairing:
        return rows
    student("stage 1 alone", {"first_epochs": EPOCHS}, **first)
    student("label smoothing", {"smoothing": 0.1}, smoothing=0.1)
    student("equal compute", {"epochs": 2 * EPOCHS}, epochs=2 * EPOCHS)
    order = torch.randperm(len(seen["train"].labels), generator=torch.Generator().manual_seed(number))
    student("shuffled teacher", teacher=scores | {"train": scores["train"][order]})
    student("taught as in the source", teacher=sharp, scale=0.2, learn_scale=True)
    return rows


def boxes(folder: Path, number: int, chosen: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Boxes and maps of WSDDN and of its rivals, at pairing 0."""
    seen = load(folder, number)
    tree, rows, asked = seen["test"].source.hierarchy, [], ("val", "test")
    plain = train_plain(seen, EPOCHS, seed=number, **chosen[PLAIN])
    detector = train_detector(seen, EPOCHS, seed=number, **chosen[WSDDN])
    looked = {
        "class map": {split: looks(class_maps(plain, seen[split]), seen[split]) for split in asked},
        WSDDN: {split: looks(detector_maps(detector, seen[split]), seen[split]) for split in asked},
    }

    def write(method: str, found: Mapping[str, Detections], **parameters: float) -> None:
        scores = {s: box_scores(found[s], seen[s].objects, tree) for s in asked}
        for split, look in looked.get(method, {}).items():
            scores[split] |= look.scores(chosen_on=looked[method]["val"])
        rows.extend(tables.run_rows(of(0, method, parameters, number), scores))

    def write_regions(method: str, model: nn.Module, **parameters: float) -> None:
        write(method, {split: detections_of(model, seen[split]) for split in asked}, **parameters)

    threshold = looked["class map"]["val"].threshold
    for share in SHARES:
        found = {split: rivals(seen[split], plain, threshold, number, share) for split in asked}
        write("centre", {split: own["centre"] for split, own in found.items()}, share=share)
    for name in ("random region", "whole picture", "class map"):
        write(name, {split: own[name] for split, own in found.items()})
    write_regions("plain on regions", plain.classifier)
    write_regions(WSDDN, detector)
    write_regions("supervised", train_supervised(seen, seed=number))
    write("best proposals", {split: best_proposals(seen[split]) for split in asked})
    hidden = {**chosen[WSDDN], "hidden": WIDTH, "seed": number}
    write_regions(HIDDEN, train_detector(seen, EPOCHS, **hidden))
    for weight in SPATIAL:
        model = train_detector(seen, EPOCHS, task=DetectorTask(spatial=weight), **hidden)
        write_regions(f"{HIDDEN}, spatial", model, spatial=weight)
    for alpha in ALPHAS:
        model = train_detector(seen, EPOCHS, task=AlignedDetectorTask(alpha, tree), **hidden)
        write_regions(f"{HIDDEN}, CKFR", model, alpha=alpha)
    return rows


def results_of(rows: list[dict[str, Any]], name: str, by: str, told: Mapping[str, Any]) -> tables.Results:
    machine = environment()
    where = {"study": name, "made_by": tables.made_by(machine)}
    methods, labels = (list(dict.fromkeys(row[key] for row in rows)) for key in ("method", "dataset"))
    named = [{"name": "several-photos", "label": label} for label in labels]
    study = {"name": name, "choose_by": by, "lr_by": by, "lr_for": "each", "methods": methods}
    how = f"settings by {by} on validation scenes, means over seeds; others' rates as {STUDENT}'s"
    about = {
        "study": {**study, "datasets": named, **told},
        "made_by": {where["made_by"]: machine},
        "how": how,
    }
    return tables.Results(tables.as_table([row | where for row in rows]), about)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="seeds at a time, one process each")
    parser.add_argument("--share", type=float, default=1.0, help="of the scenes, for a quick look")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    datasets.fetch("photos")
    scenes = {split: round(arguments.share * count) for split, count in SCENES.items()}
    told = {
        "seeds": list(range(arguments.seeds)),
        "scenes": scenes,
        "epochs": EPOCHS,
        "pixels": {"teachers": SIZE, "students": SMALL},
    }
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)

        def every_row(title: str, work: Callable[..., Any], *cases: tuple) -> list[dict[str, Any]]:
            asked = list(itertools.product(cases, range(arguments.seeds)))
            jobs = (joblib.delayed(work)(folder, number, *case) for case, number in asked)
            found = joblib.Parallel(arguments.jobs, return_as="generator")(jobs)
            return list(itertools.chain.from_iterable(tqdm(found, title, len(asked))))

        def keep(rows: list[dict[str, Any]], name: str, by: str) -> tables.Results:
            results = results_of(rows, name, by, told)
            place = arguments.out / f"study_{name}.csv"
            tables.write_results(results, place)  # after every part, so that nothing is lost
            return results

        rows = every_row("scenes and settings", settings, (scenes,))
        found = keep(rows, "detection", "mAP").chosen
        chosen = {method: tables.parse(found["pairing 0", method]) for method in TRIED}
        keep(every_row("boxes", boxes, (chosen,)), "detection_boxes", "box_mAP@0.5")
        rows += every_row("distillation", distillation, *((chosen, pairing) for pairing in PAIRINGS))
        keep(rows, "detection", "mAP")


if __name__ == "__main__":
    main()

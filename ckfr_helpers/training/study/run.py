"""``ckfr study FILE.yaml``: a grid of runs, chosen on validation, told with intervals over seeds.

    if __name__ == "__main__":  # its processes import a script again
        made = run_study(load_study("studies/photos_grid.yaml"))
        made.table    # one row a run
        made.summary  # for each data set and method: what was chosen, test scores, difference to baseline

What is chosen (learning rate, a method's parameters) is chosen by the mean over seeds of one validation
score. The test split is scored in every run and stands in the table; the summary tells it for the chosen
settings alone. A study that is stopped, or extended, computes what is missing.
"""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ckfr_helpers.losses.rivals import BASELINE
from ckfr_helpers.models.classifier import build_model
from ckfr_helpers.runtime import CkfrError, atomic_path, runs_root
from ckfr_helpers.training.study.config import Data, Study
from ckfr_helpers.training.study.executors import compute
from ckfr_helpers.training.study.jobs import Failure, Job, cache, run
from ckfr_helpers.training.study.summary import best_rate, summarise


@dataclass
class StudyResult:
    """What a study found.

    Attributes:
        study: what was asked for.
        folder: where runs, features and the files below lie.
        table: one row a finished run: data set, method, parameters, val_… and test_… scores.
        summary: see `study_summary.summarise`.
        failures: jobs that did not finish.
    """

    study: Study
    folder: Path
    table: pd.DataFrame
    summary: dict[str, Any]
    failures: list[Failure]


def study_folder(study: Study) -> Path:
    """Where a study lies unless told otherwise."""
    return runs_root() / f"study_{study.name}"


def run_study(
    study: Study, folder: Path | None = None, *, only_cache: bool = False, progress: bool = True
) -> StudyResult:
    """Compute what is missing of a study, and write ``results.csv`` and ``summary.json`` into its folder.

    Args:
        study: from `load_study`.
        folder: another than `study_folder`.
        only_cache: stop when the trunk outputs are there.
        progress: show a bar.

    Raises:
        CkfrError: if submitit is asked for and missing, or the model has no such stage. A run that fails
            raises nothing; see ``failures``.
    """
    stages = len(build_model(study.model, 1, pretrained=False).stages)
    if study.stage > stages:
        raise CkfrError(f"Study {study.name}: stage is {study.stage}; {study.model} has {stages}.")
    folder = (study_folder(study) if folder is None else Path(folder)).resolve()
    failures: list[Failure] = []
    records: dict[str, dict[str, Any]] = {}

    def finish(jobs: list[Job], title: str) -> None:
        finished = [done for job in jobs if (done := job.finished())]
        names = {record["name"] for record in finished}
        left = [job for job in jobs if job.name not in names]
        failures.extend(_cache(left, study, folder, progress))
        missing = {failure.name for failure in failures}
        for job in list(left):
            lacking = sorted({part.name for part in job.features().values()} & missing)
            if lacking:
                left.remove(job)
                failures.append(Failure(job.name, f"its features {lacking[0]} are missing"))
        computed = [] if only_cache else _work(run, left, study, folder, title, progress)
        failures.extend(result for result in computed if isinstance(result, Failure))
        made = [result for result in computed if not isinstance(result, Failure)]
        records.update({record["name"]: record for record in (*finished, *made)})

    finish(_baseline_jobs(study, folder), "baseline runs")
    finish(_other_jobs(study, folder, list(records.values())), "runs")
    everything = list(records.values())
    result = StudyResult(study, folder, _table(everything), {}, failures)
    if everything:
        result.summary = summarise(study, everything, failures)
        write_results(result, folder / "results.csv", folder / "summary.json")
    return result


def write_results(result: StudyResult, table: Path, summary: Path) -> None:
    """The table as CSV (six digits) and the summary as JSON, each whole or not at all."""
    text = io.StringIO()
    rows = result.table.to_dict("records")
    writer = csv.DictWriter(text, fieldnames=list(result.table.columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: _rounded(v) for k, v in row.items()} for row in rows)
    with atomic_path(table) as path:
        path.write_text(text.getvalue())
    with atomic_path(summary) as path:
        path.write_text(json.dumps(_plain_json(result.summary), indent=1, allow_nan=False) + "\n")


def failed(result: StudyResult) -> CkfrError | None:
    """One sentence that lists what did not finish; None if everything did."""
    if not result.failures:
        return None
    listed = "; ".join(f"{name} ({reason.rstrip('.')})" for name, reason in result.failures[:5])
    failures = result.folder / "failed"
    logs = f"Their errors are in {failures}. " if any(failures.glob("*.txt")) else ""
    more = f"; and {len(result.failures) - 5} more" if len(result.failures) > 5 else ""
    return CkfrError(
        f"{len(result.failures)} of the study's jobs did not finish: {listed}{more}. "
        f"{logs}The same command tries them again."
    )


def _cache(jobs: list[Job], study: Study, folder: Path, progress: bool) -> list[Failure]:
    """Trunk outputs that these jobs need and nobody has kept yet; those that could not be had."""
    wanted = {part.name: part for job in jobs for part in job.features().values()}
    missing = [part for part in wanted.values() if not part.path.is_file()]
    results = _work(cache, missing, study, folder, "trunk outputs", progress)
    return [result for result in results if isinstance(result, Failure)]


def _work(
    work: Callable[[Any], Any], jobs: list[Any], study: Study, folder: Path, title: str, progress: bool
) -> list[Any]:
    results = []
    with tqdm(total=len(jobs), desc=title, disable=not progress, leave=False) as bar:
        for result in compute(work, jobs, study.executor, folder / "cluster"):
            results.append(result)
            bar.update()
            if isinstance(result, Failure) and progress:
                tqdm.write(f"failed: {result.name}: {result.reason}")
    return results


def _baseline_jobs(study: Study, folder: Path) -> list[Job]:
    return [
        Job.of(study, folder, data, BASELINE, {}, lr, seed)
        for data in study.datasets
        for lr in study.rates
        for seed in study.seeds
    ]


def _other_jobs(study: Study, folder: Path, baseline: list[dict[str, Any]]) -> list[Job]:
    def rates(data: Data) -> tuple[float, ...]:
        if study.lr_for == "each":
            return study.rates
        chosen = best_rate(study, data.label, baseline)
        return () if chosen is None else (chosen,)

    return [
        Job.of(study, folder, data, method, parameters, lr, seed)
        for data in study.datasets
        for lr in rates(data)
        for method in study.methods
        if method != BASELINE
        for parameters in study.grid(method)
        for seed in study.seeds
    ]


def _table(records: list[dict[str, Any]]) -> pd.DataFrame:
    rows = []
    for record in records:
        settings = record["settings"]
        rows.append(
            {
                "dataset": settings["data"]["label"],
                "method": settings["method"],
                **settings["parameters"],
                "lr": settings["lr"],
                "seed": settings["seed"],
                "best_epoch": record["best_epoch"],
                "seconds": record["seconds"],
                "cpu_seconds": record["cpu_seconds"],
                **{f"val_{name}": value for name, value in record["val"].items()},
                **{f"test_{name}": value for name, value in record["test"].items()},
            }
        )
    table = pd.DataFrame(rows)
    if rows:
        first = [name for name in table.columns if not name.startswith(("val_", "test_"))]
        order = ["dataset", "method", *[n for n in first if n not in _FIXED], "lr", "seed", "best_epoch"]
        rest = [name for name in table.columns if name not in order]
        table = table[[*order, *rest]].sort_values(order[:-1], kind="stable", ignore_index=True)
    return table


_FIXED = ("dataset", "method", "lr", "seed", "best_epoch", "seconds", "cpu_seconds")


def _rounded(value: Any) -> Any:
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else float(f"{value:.6g}")
    return value


def _plain_json(value: Any) -> Any:
    """Numbers to six digits, and null for what is not defined: NaN is no JSON."""
    if isinstance(value, dict):
        return {key: _plain_json(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain_json(one) for one in value]
    if isinstance(value, (float, np.floating)):
        return None if not np.isfinite(value) else float(f"{value:.6g}")
    return value

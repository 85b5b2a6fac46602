"""``ckfr study FILE.yaml``: a grid of runs, chosen on validation, told with intervals over seeds.

    if __name__ == "__main__":  # its processes import a script again
        made = run_study(load_study("studies/photos_grid.yaml"))
        made.results  # the long table, and what is computed from it (`training.results`)

What is chosen (learning rate, a method's parameters) is chosen by the mean over seeds of one validation
score. The test split is scored in every run and stands in the table; figures tell it for the chosen settings
alone. A study that is stopped, or extended, computes what is missing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ckfr_helpers.losses.rivals import BASELINE
from ckfr_helpers.models.classifier import build_model
from ckfr_helpers.runtime import CkfrError, runs_root
from ckfr_helpers.training.results import Results, as_table, made_by, run_rows, spell, write_results
from ckfr_helpers.training.study.config import Data, Study
from ckfr_helpers.training.study.executors import compute
from ckfr_helpers.training.study.jobs import Failure, Job, cache, run


@dataclass
class StudyResult:
    """What a study found.

    Attributes:
        study: what was asked for.
        folder: where runs, features and the files below lie.
        results: of finished runs.
        failures: jobs that did not finish.
    """

    study: Study
    folder: Path
    results: Results
    failures: list[Failure]


def study_folder(study: Study) -> Path:
    """Where a study lies unless told otherwise."""
    return runs_root() / f"study_{study.name}"


def run_study(
    study: Study, folder: Path | None = None, *, only_cache: bool = False, progress: bool = True
) -> StudyResult:
    """Compute what is missing of a study, and write ``results.csv`` and ``results.json`` into its folder.

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
    finish(_other_jobs(study, folder, _results(study, records)), "runs")
    results = _results(study, records, failures)
    if records:
        write_results(results, folder / "results.csv")
    return StudyResult(study, folder, results, failures)


def _results(
    study: Study, records: Mapping[str, dict[str, Any]], failures: Sequence[Failure] = ()
) -> Results:
    """The long table of these runs."""
    makers: dict[str, Any] = {}
    rows = []
    for record in records.values():
        settings, maker = record["settings"], record["environment"]
        makers[made_by(maker)] = maker
        named = {name: settings["parameters"][name] for name in study.methods[settings["method"]]}
        where = {
            "study": study.name, "dataset": settings["data"]["label"], "method": settings["method"],
            "parameters": spell({"lr": settings["lr"], **named}), "seed": settings["seed"],
            "made_by": made_by(maker),
        }  # fmt: skip
        groups = record["test_groups"]
        right = None if groups is None else {"top1": np.array(record["test_distance"]) == 0}
        rows += run_rows(where, {"val": record["val"], "test": record["test"]}, right, groups)
    about = {
        "study": study.asked(), "how": study.how(), "made_by": makers,
        "failed": [failure._asdict() for failure in failures],
    }  # fmt: skip
    return Results(as_table(rows), about)


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


def _other_jobs(study: Study, folder: Path, baseline: Results) -> list[Job]:
    def rates(data: Data) -> tuple[float, ...]:
        if study.lr_for == "each":
            return study.rates
        chosen = baseline.best_rate(data.label)
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

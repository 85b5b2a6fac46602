"""``ckfr study FILE.yaml``: a grid of runs, computed here with joblib or on a cluster through submitit."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm.auto import tqdm

from ckfr_helpers.losses.rivals import BASELINE
from ckfr_helpers.models.classifier import build_model
from ckfr_helpers.runtime import CkfrError, num_workers, runs_root
from ckfr_helpers.training.results import Results, as_table, made_by, run_rows, spell, write_results
from ckfr_helpers.training.study.config import Data, Executor, Study
from ckfr_helpers.training.study.jobs import UNTRAINED, Failure, Job, attempt, scorer

Work = Callable[[Any], Any]


@dataclass
class StudyResult:
    """What a study found: the table of finished runs, and the jobs that did not finish."""

    folder: Path
    results: Results
    failures: list[Failure]


def run_study(study: Study, folder: Path | None = None, *, progress: bool = True) -> StudyResult:
    """Compute what is missing of a study, and write ``results.csv`` and ``results.json`` into its folder.

    The folder is ``runs/study_NAME`` where none is given.

    Raises:
        CkfrError: if submitit is missing, the model has no such stage, or there is no such score. A run that
            fails raises nothing; see ``failures``.
    """
    stages = len(build_model(study.model, 1, pretrained=False).stages)
    if study.stage > stages:
        raise CkfrError(f"Study {study.name}: stage is {study.stage}; {study.model} has {stages}.")
    for name in study.scores:
        scorer(name)
    folder = (runs_root() / f"study_{study.name}" if folder is None else Path(folder)).resolve()
    failures: list[Failure] = []
    records: dict[str, dict[str, Any]] = {}

    def work(todo: Sequence[Any], title: str) -> list[Any]:
        results: list[Any] = []
        with tqdm(total=len(todo), desc=title, disable=not progress, leave=False) as bar:
            for result in compute(attempt, todo, study.executor, folder / "cluster"):
                bar.update()
                (failures if isinstance(result, Failure) else results).append(result)
        return results

    def finish(jobs: list[Job], title: str) -> None:
        done = {job.name: record for job in jobs if (record := job.finished())}
        left = [job for job in jobs if job.name not in done]
        missing = {part.name: part for job in left for part in job.features() if not part.finished()}
        work(list(missing.values()), "trunk outputs")
        records.update(done | {one["name"]: one for one in work(left, title)})

    def jobs(
        data: Data, method: str, rates: Iterable[float], grid: Iterable[dict[str, Any]] = ({},)
    ) -> list[Job]:
        settings = itertools.product(rates, grid, study.seeds)
        return [Job(folder, study, data, method, given, lr, seed) for lr, given, seed in settings]

    there = []
    for data in study.datasets:
        try:
            _ = jobs(data, BASELINE, study.lr)[0].settings  # opens its pictures
            there.append(data)
        except CkfrError as error:
            failures.append(Failure(data.label, str(error)))
    finish([job for data in there for job in jobs(data, BASELINE, study.lr)], "baseline runs")
    first, others = _results(study, records), []
    for data in there:
        rate = first.best_rate(data.label)
        rates = study.lr if study.lr_for == "each" else () if rate is None else (rate,)
        for method in study.methods:
            if method != BASELINE:
                others += jobs(data, method, rates, study.grid(method))
    if study.scores and study.stage and there:
        others += jobs(there[0], UNTRAINED, [0.0])
    finish(others, "runs")
    results = _results(study, records, failures)
    if records:
        write_results(results, folder / "results.csv")
    return StudyResult(folder, results, failures)


def failed(result: StudyResult) -> CkfrError | None:
    """One sentence that lists what did not finish; None if everything did."""
    if not result.failures:
        return None
    listed = "; ".join(f"{name} ({reason.rstrip('.')})" for name, reason in result.failures[:5])
    more = "; …" * (len(result.failures) > 5)
    return CkfrError(
        f"{len(result.failures)} of the study's jobs did not finish: {listed}{more}. Logs, if any, are in "
        f"{result.folder / 'failed'}. The same command tries them again."
    )


def _results(
    study: Study, records: Mapping[str, dict[str, Any]], failures: Sequence[Failure] = ()
) -> Results:
    """The long table of these runs."""
    makers: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for record in records.values():
        settings, maker = record["settings"], record["environment"]
        makers[made_by(maker)] = maker
        where = {"study": study.name, "dataset": settings["data"]["label"], "made_by": made_by(maker)}
        for method, score, value in record.get("free", ()):
            rows.append(where | {"method": method, "split": "test", "score": score, "value": value})
        named = {name: settings["parameters"][name] for name in study.methods.get(settings["method"], ())}
        parameters = "" if settings["method"] == UNTRAINED else spell({"lr": settings["lr"], **named})
        where |= {"method": settings["method"], "parameters": parameters, "seed": settings["seed"]}
        scores = {split: record[split] for split in ("val", "test")}
        rows += run_rows(where, scores, record.get("photos"), record.get("groups"))
    about = {
        "study": study.asked(), "how": study.how(), "made_by": makers,
        "failed": [failure._asdict() for failure in failures],
    }  # fmt: skip
    return Results(as_table(rows), about)


def compute(work: Work, jobs: Sequence[Any], executor: Executor, logs: Path) -> Iterator[Any]:
    """Results as they come, in any order; a job (which has a ``name``) whose process dies gives a `Failure`.

    Several processes share the cores; a single one has them all. Submitit's files go to the folder ``logs``;
    a `CkfrError` says that it is not installed or refuses its parameters.
    """
    if executor.kind == "submitit":
        yield from _submitit(work, jobs, executor, logs)
        return
    if executor.processes == 1 or len(jobs) < 2:
        yield from map(work, jobs)
        return
    left = {job.name for job in jobs}
    processes = min(executor.processes, len(jobs))
    pool = joblib.Parallel(processes, batch_size=1, pre_dispatch="n_jobs", return_as="generator_unordered")
    try:
        for name, result in pool(joblib.delayed(_named)(work, job) for job in jobs):
            left.discard(name)
            yield result
    except TerminatedWorkerError:
        for name in sorted(left):  # whose fault it was nobody knows; finished runs are on the disk
            yield Failure(name, "a process ended before it could answer (killed, or out of memory)")


def _named(work: Work, job: Any) -> tuple[str, Any]:
    return job.name, work(job)


def _submitit(work: Work, jobs: Sequence[Any], executor: Executor, logs: Path) -> Iterator[Any]:
    try:
        import submitit
    except ImportError as error:
        raise CkfrError("An executor of kind submitit needs it: `pip install submitit`.") from error
    count = executor.jobs or (num_workers() if executor.cluster == "local" else len(jobs))
    # Dealt out like cards, so that neighbours of one kind, equally long, go to different hands.
    hands = [list(jobs[start::count]) for start in range(min(count, len(jobs)))]
    further = executor.model_extra or {}
    try:
        launcher = submitit.AutoExecutor(folder=logs / "%j", cluster=executor.cluster)
        launcher.update_parameters(**{"timeout_min": 60, "name": "ckfr-study", **further})
        sent = launcher.map_array(_play, [work] * len(hands), hands) if hands else []
    except Exception as error:  # submitit raises many types; the user can only change what was asked
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise CkfrError(f"submitit refuses {executor.cluster} with {further}: {reason}.") from error
    hand_of = dict(zip(sent, hands, strict=True))
    try:
        for job in submitit.helpers.as_completed(
            sent, poll_frequency=1 if executor.cluster == "local" else 10
        ):
            try:
                yield from job.result()
            except Exception as error:  # of the job as a whole: time limit, lost node, no import there
                lines = str(error).strip().splitlines() or [type(error).__name__]
                reason = next((line for line in reversed(lines) if "Error: " in line), lines[0])
                for one in hand_of[job]:
                    done = one.finished() if hasattr(one, "finished") else None
                    yield done or Failure(one.name, f"its cluster job {job.job_id} failed: {reason}")
    finally:
        for job in sent:
            if not job.done():
                job.cancel(check=False)


def _play(work: Work, hand: Sequence[Any]) -> list[Any]:
    return [work(job) for job in hand]

"""Where the jobs of a study are computed: here with joblib, or on a cluster through submitit."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from ckfr_helpers.runtime import CkfrError, num_workers
from ckfr_helpers.training.study.config import Executor
from ckfr_helpers.training.study.jobs import Failure

Work = Callable[[Any], Any]


def compute(work: Work, jobs: Sequence[Any], executor: Executor, logs: Path) -> Iterator[Any]:
    """Results as they come, in any order; a job (which has a ``name``) whose process dies gives a `Failure`.

    Several processes share the cores; a single one has them all. Submitit's files go to the folder ``logs``.

    Raises:
        CkfrError: if submitit is not installed or refuses its parameters.
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

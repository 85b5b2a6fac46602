"""Where the jobs of a study are computed: here, in several processes, or on a cluster through submitit."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import Any

from ckfr_helpers.runtime import CkfrError, num_workers
from ckfr_helpers.training.study.config import Executor
from ckfr_helpers.training.study.jobs import Failure

Work = Callable[[Any], Any]


def compute(work: Work, jobs: Sequence[Any], executor: Executor, logs: Path) -> Iterator[Any]:
    """Results as they come, in any order; a job whose process dies gives a `Failure`.

    Args:
        work: a function of a module, of one job.
        jobs: each with a ``name``.
        executor: where.
        logs: folder for submitit's files, unless the executor names another.

    Raises:
        CkfrError: if submitit is not installed or refuses its parameters.
    """
    if not jobs:
        return iter(())
    if executor.kind == "submitit":
        return _submitit(work, jobs, executor, logs)
    if executor.processes == 1:
        return map(work, jobs)
    return _pool(work, jobs, min(executor.processes, len(jobs)))


def _pool(work: Work, jobs: Sequence[Any], processes: int) -> Iterator[Any]:
    left, queue = list(jobs), iter(jobs)
    with _new_pool(processes, work) as pool:
        # No more are handed over than run at once: what is handed over cannot be taken back on Ctrl-C.
        waiting: dict[Future, Any] = {pool.submit(work, job): job for job in islice(queue, processes)}
        try:
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    job = waiting.pop(future)
                    result = future.result()
                    left.remove(job)
                    yield result
                    waiting |= {pool.submit(work, following): following for following in islice(queue, 1)}
        except BrokenProcessPool:
            pass  # one worker died and took the pool along; whose fault it was shows below
    for job in left:
        with _new_pool(1, work) as pool:
            try:
                yield pool.submit(work, job).result()
            except BrokenProcessPool:
                yield Failure(
                    job.name,
                    "its process ended before it could answer (killed, out of memory, or started by a script "
                    "that has no `if __name__ == '__main__':`)",
                )


class _Pool(ProcessPoolExecutor):
    """Left with an exception, Ctrl-C say, it begins nothing more; its own class would compute on unseen."""

    def __exit__(self, kind: type[BaseException] | None, *details: Any) -> bool:
        self.shutdown(wait=True, cancel_futures=kind is not None)
        return False


def _new_pool(processes: int, work: Work) -> ProcessPoolExecutor:
    # Forked from a server that has imported everything and computed nothing: no second import of torch for
    # each worker, and none of the dangers of forking a process with running threads.
    if "forkserver" in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([work.__module__])
    else:
        context = multiprocessing.get_context("spawn")
    return _Pool(processes, mp_context=context)


def _submitit(work: Work, jobs: Sequence[Any], executor: Executor, logs: Path) -> Iterator[Any]:
    try:
        import submitit
    except ImportError as error:
        raise CkfrError(
            "An executor of kind submitit needs the package submitit, which is not installed; "
            "`pip install submitit` brings it."
        ) from error
    folder = Path(executor.folder) if executor.folder is not None else logs
    try:
        launcher = submitit.AutoExecutor(folder=folder / "%j", cluster=executor.cluster)
        launcher.update_parameters(**{"timeout_min": 60, "name": "ckfr-study", **executor.parameters})
    except (RuntimeError, NameError, TypeError, ValueError, KeyError, AssertionError) as error:
        raise CkfrError(
            f"submitit refuses cluster {executor.cluster} with {executor.parameters}: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}."
        ) from error
    count = executor.jobs or (num_workers() if executor.cluster == "local" else len(jobs))
    # Dealt out like cards, so that neighbours of one kind, equally long, go to different hands.
    hands = [list(jobs[start::count]) for start in range(min(count, len(jobs)))]
    try:
        with launcher.batch():
            sent = [launcher.submit(play, work, hand) for hand in hands]
    except (RuntimeError, OSError) as error:  # sbatch's own refusal, of a partition or an account
        raise CkfrError(
            f"{executor.cluster} refuses the jobs: {' '.join(str(error).split())[:300]}."
        ) from error
    by_id = {job.job_id: hand for job, hand in zip(sent, hands, strict=True)}
    try:
        for job in submitit.helpers.as_completed(
            sent, poll_frequency=1 if executor.cluster == "local" else 10
        ):
            try:
                yield from job.result()
            except Exception as error:  # of the job as a whole: time limit, lost node, no import there
                reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
                for one in by_id[job.job_id]:
                    done = one.finished() if hasattr(one, "finished") else None
                    yield done or Failure(one.name, f"its cluster job {job.job_id} failed: {reason}")
    except BaseException:
        for job in sent:
            job.cancel(check=False)
        raise


def play(work: Work, hand: Sequence[Any]) -> list[Any]:
    """What one cluster job does: its jobs one after the other."""
    return [work(job) for job in hand]

"""Runs as jobs: each in a folder of its own, done once, stopped and resumed, wherever it runs.

All that the processes share is the file system. A job is done when its result is there; whoever
does it holds a lock meanwhile, and others wait for it.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import queue
import signal
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import torch

from refer3d.runs.errors import InputError
from refer3d.runs.folder import RunFolder
from refer3d.runs.many import Many, Variant
from refer3d.runs.progress import Progress
from refer3d.runs.results import load_results, save_results

log = logging.getLogger(__name__)

LOG = "job.log"
HOLD = ".job"
"""Folder inside a job's, locked by the process that does the job."""
TABLE = "many.json"
ATTEMPTS = 2
"""Times that a job is begun whose process is killed, as for want of memory."""
SECONDS_BETWEEN_LOOKS = 0.5


class Job(NamedTuple):
    """Something to do in a folder."""

    folder: Path
    config: Any
    work: Callable[[Any], object]
    """A module's function, which goes on where it was stopped."""
    result: Path
    """The file that the work writes last."""

    @property
    def is_done(self) -> bool:
        """Whether the result is there."""
        return self.result.is_file()


def do(job: Job) -> str:
    """Does a job, unless another process has; what it prints goes to ``job.log``.

    Returns:
        The error, empty if there was none.
    """
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(RunFolder(job.folder / HOLD, object).held("--out"))
                break
            except InputError:  # another process does it
                time.sleep(SECONDS_BETWEEN_LOOKS)
        if job.is_done:
            return ""
        file = stack.enter_context((job.folder / LOG).open("a", encoding="utf-8"))
        stack.enter_context(redirect_stdout(file))
        stack.enter_context(redirect_stderr(file))
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(message)s", stream=file, force=True
        )
        try:
            job.work(job.config)
        except Exception as error:  # a broken job does not stop the others
            if not isinstance(error, InputError):
                traceback.print_exc()
            file.write(f"error: {error}\n")
            return str(error) or type(error).__name__
        return ""


def do_all(
    jobs: Sequence[Job], engine: str = "local", workers: int = 1, slurm: Mapping[str, Any] = {}
) -> dict[str, str]:
    """Does the jobs that are not done, with one bar for all.

    Args:
        jobs: The jobs.
        engine: One of ``ENGINES``.
        workers: Jobs at a time.
        slurm: Parameters of SLURM's jobs.

    Returns:
        The error of each job that failed, by the name of its folder.

    Raises:
        InputError: The engine is not installed.
    """
    waiting = [job for job in jobs if not job.is_done]
    run = {"local": _local, "ray": _ray, "slurm": _slurm}[engine]
    errors = {}
    log.info("%d of %d to do; what they print is in %s", len(waiting), len(jobs), f"*/{LOG}")
    with Progress("jobs", len(jobs), len(jobs) - len(waiting)) as progress:
        for job, error in run(waiting, workers, dict(slurm)) if waiting else ():
            name = job.folder.name
            if not job.is_done:
                errors[name] = error or "it has ended without a result"
            log.info("%s: %s", name, errors.get(name, "done"))
            progress.advance()
    return errors


def do_many(many: Many, jobs: Mapping[Variant, Job], shown: Sequence[str]) -> None:
    """Does all runs of ``many``, writes ``many.json`` and prints the table.

    Args:
        many: How they are run.
        jobs: Their jobs, whose results have ``metrics``.
        shown: Metrics in the table.

    Raises:
        InputError: A run has failed; the others are done and in the file.
    """
    errors = do_all(list(jobs.values()), many.engine, many.workers, many.slurm)
    done = {variant: job.result for variant, job in jobs.items() if job.is_done}
    runs = [(variant, load_results(path)["metrics"]) for variant, path in done.items()]
    groups = summarize(runs)
    table = {
        "runs": [
            {**one._asdict(), "settings": dict(one.settings), "folder": one.name, "metrics": scores}
            for one, scores in runs
        ],
        "groups": groups,
        "errors": errors,
    }
    save_results(many.out / TABLE, table)
    sys.stdout.write("\n".join(table_lines(groups, shown)) + "\n")
    log.info("%s is written", many.out / TABLE)
    if errors:
        name, error = next(iter(errors.items()))
        raise InputError(
            f"{len(errors)} of {len(jobs)} runs failed, {name} with: {error} (see "
            f"{many.out / name / LOG}); the same command goes on with what is missing"
        )


def summarize(runs: Sequence[tuple[Variant, Mapping[str, float | None]]]) -> list[dict[str, Any]]:
    """Takes mean and standard deviation over the seeds of each scene with each setting.

    A metric that a run lacks is left out; one seed has no deviation.
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, float | None]]] = {}
    for variant, scores in runs:
        key = (variant.label, *variant.settings)
        groups.setdefault(key, []).append(scores)
    rows = []
    for (label, *settings), scores in groups.items():
        row = {"name": label, "settings": dict(settings), "seeds": len(scores)}
        row |= {"mean": {}, "deviation": {}}
        for metric in scores[0]:
            values = [value for one in scores if (value := one.get(metric)) is not None]
            if len(values) == len(scores):
                row["mean"][metric] = statistics.fmean(values)
                several = len(values) > 1
                row["deviation"][metric] = statistics.stdev(values) if several else None
        rows.append(row)
    return rows


def table_lines(groups: Sequence[Mapping[str, Any]], shown: Sequence[str]) -> Iterator[str]:
    """Yields the lines of a table of :func:`summarize`'s rows for the terminal."""
    options = list(groups[0]["settings"]) if groups else []
    metrics = [metric for metric in shown if any(metric in group["mean"] for group in groups)]
    rows = [["name", *options, "seeds", *metrics]]
    for group in groups:
        cells = [group["name"], *(group["settings"][name] for name in options)]
        cells.append(str(group["seeds"]))
        for metric in metrics:
            mean, deviation = (group[part].get(metric) for part in ("mean", "deviation"))
            spread = "" if deviation is None else f" ± {deviation:.4g}"
            cells.append("–" if mean is None else f"{mean:.4g}{spread}")
        rows.append(cells)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(
            f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)
        ).rstrip()


Outcomes = Iterator[tuple[Job, str]]
"""Jobs as they end, each with its error."""


def _local(jobs: Sequence[Job], workers: int, _: Mapping[str, Any]) -> Outcomes:
    """Does jobs in processes here, as many as there are GPUs or cores for."""
    has_server = "forkserver" in multiprocessing.get_all_start_methods()  # not on Windows
    context: Any = multiprocessing.get_context("forkserver" if has_server else "spawn")
    if has_server:  # imports once what all jobs need
        context.set_forkserver_preload([jobs[0].work.__module__])
    workers = min(workers, len(jobs))
    threads = max(1, torch.get_num_threads() // workers)
    places: queue.SimpleQueue[int] = queue.SimpleQueue()
    for place in range(workers):
        places.put(place)
    running: set[Any] = set()

    def attempt(job: Job) -> str:
        """Does a job, again if its process is killed; returns its error."""
        place = places.get()
        error = ""
        for _ in range(ATTEMPTS):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(sender, job, place, threads))
            process.start()
            running.add(process)
            sender.close()
            try:
                error = receiver.recv()
                break
            except EOFError:
                process.join()
                error = f"its process has ended with {process.exitcode}"
                if process.exitcode != -9:  # killed, perhaps for want of memory
                    break
            finally:
                process.join()
                running.discard(process)
        places.put(place)
        return error

    pool = ThreadPoolExecutor(workers)
    try:
        futures = {pool.submit(attempt, job): job for job in jobs}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(running):
            process.terminate()


def _child(sender: Any, job: Job, place: int, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller ends its jobs
    threading.Thread(target=_end_with_caller, daemon=True).start()
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.cuda.set_device(place % torch.cuda.device_count())
    sender.send(do(job))


def _end_with_caller() -> None:
    caller = multiprocessing.parent_process()
    if caller is not None:
        caller.join()
        os._exit(1)


def _ray(jobs: Sequence[Job], workers: int, _: Mapping[str, Any]) -> Outcomes:
    """Does jobs on a cluster of Ray: that of ``RAY_ADDRESS``, else one started here."""
    ray = _package("ray")
    here = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": workers}
    try:
        ray.init(log_to_driver=False, include_dashboard=False, **here)
    except Exception as error:  # of many kinds
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"--engine ray: cannot reach a cluster, or start one here ({reason}); check "
            "RAY_ADDRESS, or use another engine"
        ) from error
    try:
        gpus = min(1, ray.cluster_resources().get("GPU", 0))
        # A process of its own for each job: it frees a GPU's memory, and its log is its own.
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_calls=1, max_retries=ATTEMPTS)(do)
        waiting = {task.remote(job): job for job in jobs}
        while waiting:
            (ended,), _others = ray.wait(list(waiting))
            try:
                error = ray.get(ended)
            except ray.exceptions.RayError as lost:
                error = str(lost).partition("\n")[0]
            yield waiting.pop(ended), error
    finally:
        ray.shutdown()


def _slurm(jobs: Sequence[Job], workers: int, parameters: Mapping[str, Any]) -> Outcomes:
    """Does jobs as an array of SLURM's, whose logs go to ``slurm/`` beside the jobs."""
    submitit = _package("submitit", "slurm")
    executor = submitit.AutoExecutor(folder=jobs[0].folder.parent / "slurm")
    executor.update_parameters(slurm_array_parallelism=workers, **parameters)
    futures = executor.map_array(do, jobs)
    waiting = dict(zip(futures, jobs, strict=True))
    while waiting:
        for future in [one for one in waiting if one.done()]:
            error = future.exception()
            yield waiting.pop(future), str(error).partition("\n")[0] if error else future.result()
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _package(name: str, extra: str = "") -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        extra = extra or name
        raise InputError(
            f"--engine {extra}: expected the package {name}, got none; pip install "
            f"'refer3d[{extra}]'"
        ) from error

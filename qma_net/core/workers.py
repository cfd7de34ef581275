"""Worker processes for data preparation; they end when their parent process ends."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import Any

from .errors import QMANetError

_STATE: dict[str, Any] = {}  # In a worker: the function and what all of its jobs share.


class WorkersError(QMANetError):
    """A worker process that was killed."""


def available_cores() -> int:
    """Count the processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_in_processes(
    function: Callable, shared: object, jobs: Sequence, workers: int | None, chunk: int = 8
) -> Iterator:
    """Yield ``function(shared, job)`` for every job, in order, from one or several processes.

    Args:
        function: A function at the top level of a module.
        shared: The first argument of every call, sent to each process once. Anything that the
            function stores in it is available to later calls in the same process only.
        jobs: The second arguments of the calls.
        workers: Number of processes, by default one per core. Fewer are started if there is
            little to do; with one, the calls happen in this process.
        chunk: Number of jobs that a worker receives at a time.

    Raises:
        WorkersError: If a worker was killed. The results yielded until then are complete.
    """
    workers = min(available_cores() if workers is None else workers, -(-len(jobs) // chunk))
    if workers <= 1:
        with _single_threaded_opencv():
            for job in jobs:
                yield function(shared, job)
        return
    context = get_context("spawn" if os.name == "nt" else "forkserver")
    if os.name != "nt":
        context.set_forkserver_preload([function.__module__])
    pool = ProcessPoolExecutor(workers, context, _initialize, (function, shared))
    try:
        yield from pool.map(_call, jobs, chunksize=chunk)
    except BrokenProcessPool:
        raise WorkersError(
            f"one of {workers} worker processes was killed (out of memory, or a script without "
            "`if __name__ == '__main__':`); run the command again with fewer workers; finished "
            "work is kept"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _initialize(function: Callable, shared: object) -> None:
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent stops its workers.
    cv2.setNumThreads(1)
    _STATE.update(function=function, shared=shared)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """End this worker when its parent has been killed; it would wait forever otherwise."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(job: object) -> object:
    return _STATE["function"](_STATE["shared"], job)


@contextmanager
def _single_threaded_opencv() -> Iterator[None]:
    """Give OpenCV one thread, as in a worker, so that results are the same as with workers."""
    import cv2

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)

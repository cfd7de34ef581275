"""Work spread over processes that end when their parent does, however it ends."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process

from .errors import QMANetError

_SHARED = {}  # in a worker: what all of its jobs have in common


class WorkersError(QMANetError):
    """A process that was killed; one line says what to do."""


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def in_processes(
    function: Callable, shared: object, jobs: Sequence, workers: int | None, at_once: int = 8
) -> Iterator:
    """``function(shared, job)`` of every job, in order, in this process or in several.

    Args:
        function: of a module's top level.
        shared: sent to every process once; what a function keeps in it is kept there.
        jobs: what is to be done.
        workers: processes, default one per core; fewer where there is too little to do.
        at_once: jobs handed over together.

    Raises:
        WorkersError: when a process was killed; what was yielded before is done.
    """
    workers = min(cores() if workers is None else workers, -(-len(jobs) // at_once))
    if workers <= 1:
        with _one_thread():
            for job in jobs:
                yield function(shared, job)
        return
    context = get_context("forkserver")
    context.set_forkserver_preload([function.__module__])
    pool = ProcessPoolExecutor(workers, context, _start, (function, shared))
    try:
        yield from pool.map(_call, jobs, chunksize=at_once)
    except BrokenProcessPool:
        raise WorkersError(
            f"got {workers} processes, of which one was killed (out of memory, or a script without "
            "`if __name__ == '__main__':`), expected all to stay: run it again with fewer "
            "workers; what is finished stays"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start(function: Callable, shared: object) -> None:
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the others
    cv2.setNumThreads(1)
    _SHARED.update(function=function, shared=shared)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """A worker whose parent was killed would wait for ever."""
    parent_process().join()
    os._exit(1)


def _call(job: object) -> object:
    return _SHARED["function"](_SHARED["shared"], job)


@contextmanager
def _one_thread() -> Iterator[None]:
    """OpenCV as it is in a worker, so that one process computes what several do."""
    import cv2

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)

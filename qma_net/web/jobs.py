"""Examinations in a row: one computes, a few wait, the rest are told so."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from .limits import Limits, ServeError, Stopped


class Job:
    """One examination that waits, computes or is done.

    Args:
        work: called with ``progress(done, total)``, which raises to end it.
        limits: of its time.
    """

    def __init__(self, work: Callable, limits: Limits):
        self._work, self._limits = work, limits
        self._stop = threading.Event()
        self.future: Future | None = None
        self.started = 0.0  # time.monotonic() when it began to compute; 0 before
        self.tiles = (0, 0)  # done, and of how many

    def run(self):
        """Computes; what :meth:`result` gives back."""
        self.started = time.monotonic()
        self._progress(0, 0)
        return self._work(self._progress)

    def stop(self) -> None:
        """Ends it at the next tile, or before it begins."""
        self._stop.set()

    def is_done(self, seconds: float) -> bool:
        """Whether it is done, after waiting for so long."""
        return bool(wait([self.future], timeout=seconds).done)

    def result(self):
        """What its work returned, once it is done.

        Raises:
            Stopped: after :meth:`stop`.
            ServeError: when it took too long.
            Exception: whatever its work raised.
        """
        return self.future.result()

    def seconds_left(self) -> float | None:
        """By the tiles that are done; None before the first."""
        done, total = self.tiles
        return (time.monotonic() - self.started) * (total - done) / done if done else None

    def _progress(self, done: int, total: int) -> None:
        if self._stop.is_set():
            raise Stopped
        self._limits.require_time(time.monotonic() - self.started)
        self.tiles = (done, total)


class Jobs:
    """Where examinations wait for their turn, in the order in which they came.

    All of them compute in one thread.

    Args:
        limits: how many may wait.
        prepare: called in that thread before its first.
    """

    def __init__(self, limits: Limits, prepare: Callable[[], None] = lambda: None):
        self._limits = limits
        self._thread = ThreadPoolExecutor(1, "examine", initializer=prepare)
        self._lock, self._open = threading.Lock(), []

    def add(self, work: Callable) -> Job:
        """A job for this work, see :class:`Job`.

        Raises:
            ServeError: when as many wait as may.
        """
        job = Job(work, self._limits)
        with self._lock:
            if len(self._open) > self._limits.waiting:
                raise ServeError(
                    f"got one photograph more than may wait ({self._limits.waiting}), expected "
                    "fewer: try again when some are done"
                )
            self._open.append(job)
            job.future = self._thread.submit(job.run)
        job.future.add_done_callback(lambda _: self._remove(job))
        return job

    def before(self, job: Job) -> int:
        """How many come before it."""
        with self._lock:
            return self._open.index(job) if job in self._open else 0

    def stop(self) -> None:
        """Stops all of them."""
        with self._lock:
            for job in self._open:
                job.stop()

    def close(self) -> None:
        """Stops all of them and waits until they have ended."""
        self.stop()
        self._thread.shutdown()

    def _remove(self, job: Job) -> None:
        with self._lock:
            self._open.remove(job)

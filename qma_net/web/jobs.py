"""A queue of examinations, of which one is computed at a time."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from ..examine.examination import Examination
from .limits import Limits, ServeError, Stopped

Progress = Callable[[int, int], None]
Work = Callable[[Progress], Examination]


class Job:
    """One examination: waiting, running or finished.

    Args:
        work: Called with ``progress(done, total)``, which raises an exception to end it.
        limits: The limits of its duration.

    Attributes:
        started: ``time.monotonic()`` when it began to run; 0 before.
        tiles: The number of finished tiles, and of all tiles.
    """

    def __init__(self, work: Work, limits: Limits):
        self._work, self._limits = work, limits
        self._stop = threading.Event()
        self.future: Future[Examination] | None = None
        self.started = 0.0
        self.tiles = (0, 0)

    def run(self) -> Examination:
        """Do the work; :meth:`result` returns what this returns."""
        self.started = time.monotonic()
        self._progress(0, 0)
        return self._work(self._progress)

    def stop(self) -> None:
        """End the job at the next tile, or before it starts."""
        self._stop.set()

    def wait(self, seconds: float) -> bool:
        """Wait for at most this time; return whether the job has finished."""
        assert self.future
        return bool(wait([self.future], timeout=seconds).done)

    def result(self) -> Examination:
        """Return what the work returned, once it has finished.

        Raises:
            Stopped: After :meth:`stop`.
            ServeError: If it took too long.
            Exception: Whatever the work raised.
        """
        assert self.future
        return self.future.result()

    def seconds_left(self) -> float | None:
        """Estimate the remaining time from the finished tiles; None before the first."""
        done, total = self.tiles
        return (time.monotonic() - self.started) * (total - done) / done if done else None

    def _progress(self, done: int, total: int) -> None:
        if self._stop.is_set():
            raise Stopped
        self._limits.require_time(time.monotonic() - self.started)
        self.tiles = (done, total)


class Jobs:
    """A first-in, first-out queue that runs its jobs in one thread.

    Args:
        limits: The number of jobs that may wait.
        prepare: Called in the queue's thread before its first job.
    """

    def __init__(self, limits: Limits, prepare: Callable[[], None] = lambda: None):
        self._limits = limits
        self._thread = ThreadPoolExecutor(1, "examine", initializer=prepare)
        self._lock = threading.Lock()
        self._open: list[Job] = []

    def add(self, work: Work) -> Job:
        """Add a job; see :class:`Job`.

        Raises:
            ServeError: If too many jobs are waiting.
        """
        job = Job(work, self._limits)
        with self._lock:
            if len(self._open) > self._limits.waiting:
                raise ServeError(
                    f"too many photos are waiting (the limit is {self._limits.waiting}); "
                    "try again later"
                )
            self._open.append(job)
            job.future = self._thread.submit(job.run)
        job.future.add_done_callback(lambda _: self._remove(job))
        return job

    def position(self, job: Job) -> int:
        """Return the number of unfinished jobs that precede this one."""
        with self._lock:
            return self._open.index(job) if job in self._open else 0

    def stop(self) -> None:
        """Stop all jobs."""
        with self._lock:
            for job in self._open:
                job.stop()

    def close(self) -> None:
        """Stop all jobs and wait until they have ended."""
        self.stop()
        self._thread.shutdown()

    def _remove(self, job: Job) -> None:
        with self._lock:
            self._open.remove(job)

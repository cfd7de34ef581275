"""The examinations of all visitors: their files, their states and their queue."""

import errno
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import QMANetError
from .limits import Limits, ServeError
from .worker import FAULT, Worker

logger = logging.getLogger(__name__)

UPLOADING, WAITING, RUNNING = "uploading", "waiting", "running"
DONE, FAILED, STOPPED = "done", "failed", "stopped"
FINAL_STATES = (DONE, FAILED, STOPPED)
STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass
class Examination:
    """One photo that was uploaded to be examined.

    Attributes:
        id: An unguessable name, which is also the name of its folder.
        folder: The folder of its files, whose names are fixed.
        native: Whether to process the photo at original resolution.
        name: The file's name on the visitor's device, for display only.
        state: One of the constants above.
        message: Why it failed.
        tiles: The number of finished tiles and the total number.
        result: What the page needs to show the result.
        bytes: The size of its files.
        streams: The number of open event streams.
    """

    id: str
    folder: Path
    native: bool
    name: str = ""
    state: str = UPLOADING
    message: str = ""
    tiles: tuple[int, int] = (0, 0)
    result: dict[str, Any] = field(default_factory=dict)
    bytes: int = 0
    streams: int = 0
    started: float = 0
    requested: float = field(default_factory=time.monotonic)
    is_claimed: bool = False
    is_removed: bool = False

    def seconds_left(self) -> float | None:
        """Estimate the remaining time from the finished tiles; None if none is finished."""
        done, total = self.tiles
        if self.state != RUNNING or not done:
            return None
        return round((time.monotonic() - self.started) * (total - done) / done, 1)


class Examinations:
    """Stores examinations and computes them one at a time, in the order of their arrival.

    Args:
        folder: The folder in which each examination gets its own folder.
        worker: The process that computes them; it must have been started.
        limits: The limits for all requests.

    Attributes:
        is_closed: Whether the server is shutting down.
    """

    def __init__(self, folder: Path, worker: Worker, limits: Limits):
        self.limits, self.is_closed = limits, False
        self._folder, self._worker = folder, worker
        self._all: dict[str, Examination] = {}
        self._queue: list[Examination] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @contextmanager
    def upload(self, native: bool) -> Iterator[Examination]:
        """Yield a new examination with a folder for an upload; remove both after an exception.

        Raises:
            ServeError: If too many examinations are waiting, being uploaded or stored, or if the
                disk is full.
        """
        with self._changed:
            examinations = list(self._all.values())
            uploads = sum(e.state == UPLOADING for e in examinations)
            self._require_queue(uploads < self.limits.uploads)
            if len(examinations) >= self.limits.kept:
                raise ServeError("too many results are stored; try again later", 429)
            if sum(e.bytes for e in examinations) > self.limits.kept_gigabytes * 2**30:
                raise ServeError("the server has no space left; try again later", 507)
            name = secrets.token_urlsafe(24)
            examination = Examination(name, self._folder / name, native)
            self._all[name] = examination
        try:
            with storing():
                examination.folder.mkdir(mode=0o700)
                yield examination
        except BaseException:
            self.remove(examination)
            raise

    def enqueue(self, examination: Examination) -> None:
        """Add an examination to the queue after its upload.

        Raises:
            ServeError: If the queue has become full in the meantime.
        """
        with self._changed:
            self._require_queue()
            examination.state, examination.requested = WAITING, time.monotonic()
            self._queue.append(examination)
            self._changed.notify_all()

    def get(self, name: str) -> Examination:
        """Return the examination with this id, and keep it for a while longer.

        Raises:
            ServeError: If there is none, or if it has been removed.
        """
        with self._changed:
            examination = self._all.get(name)
            if examination is None or examination.state == UPLOADING:
                raise ServeError("there is no such examination; it may have been removed", 404)
            examination.requested, examination.is_claimed = time.monotonic(), True
            return examination

    def describe(self, examination: Examination) -> dict[str, Any]:
        """Return the state of an examination for the API."""
        with self._changed:
            queue = self._queue
            done, total = examination.tiles
            return {
                "id": examination.id,
                "name": examination.name,
                "state": STOPPED if examination.is_removed else examination.state,
                "position": queue.index(examination) + 1 if examination in queue else 0,
                "progress": {"done": done, "total": total},
                "seconds_left": examination.seconds_left(),
                "error": examination.message or None,
                "result": examination.result or None,
            }

    def remove(self, examination: Examination) -> None:
        """Stop an examination and remove its files."""
        with self._changed:
            self._all.pop(examination.id, None)
            examination.is_removed = True
            if examination in self._queue:
                self._queue.remove(examination)
            is_running = examination.state == RUNNING
        if not is_running:  # Otherwise the thread removes the files as soon as it has stopped.
            shutil.rmtree(examination.folder, ignore_errors=True)

    def remove_old(self) -> None:
        """Remove the examinations that nobody has requested for a while."""
        minutes = self.limits.claim_minutes, self.limits.kept_minutes
        with self._changed:
            now, examinations = time.monotonic(), list(self._all.values())
        for examination in examinations:
            is_old = now - examination.requested > 60 * minutes[examination.is_claimed]
            if is_old and examination.state != UPLOADING:
                self.remove(examination)

    def close(self) -> None:
        """Stop all examinations."""
        with self._changed:
            self.is_closed = True
            self._changed.notify_all()
        self._worker.kill()
        self._thread.join(10)

    def _require_queue(self, has_room: bool = True) -> None:
        if not has_room or len(self._queue) >= self.limits.waiting:
            raise ServeError("too many photos are waiting; try again later", 429)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self.is_closed)
                if self.is_closed:
                    return
                examination = self._queue.pop(0)
                examination.state, examination.started = RUNNING, time.monotonic()
            self._examine(examination)
            if examination.is_removed:
                shutil.rmtree(examination.folder, ignore_errors=True)
            if not (self.is_closed or self._worker.is_alive):  # It was killed, or has crashed.
                try:
                    self._worker.start()
                except Exception as error:  # The next examination tries again.
                    logger.warning("cannot start the process that examines photos: %s", error)

    def _examine(self, examination: Examination) -> None:
        def progress(tiles: tuple[int, int]) -> None:
            examination.tiles = tiles

        folder, state, message, result, size = examination.folder, STOPPED, "", None, 0
        try:
            result = self._worker.examine(
                folder,
                name=examination.name,
                native=examination.native,
                is_stopped=lambda: examination.is_removed or self.is_closed,
                progress=progress,
            )
            if result is not None:
                state, size = DONE, sum(path.stat().st_size for path in folder.iterdir())
        except QMANetError as error:
            state, message = FAILED, str(error)
        except Exception:
            logger.exception("the examination failed")
            state, message = FAILED, FAULT
        if state != DONE:  # Nothing of a photo without a result is kept.
            shutil.rmtree(folder, ignore_errors=True)
        with self._changed:
            examination.bytes, examination.state = size, state
            examination.result, examination.message = result or {}, message


@contextmanager
def storing() -> Iterator[None]:
    """Convert an error that means the disk is full to a :class:`ServeError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in STORAGE_ERRORS:
            raise
        raise ServeError(f"cannot store the file: {os.strerror(error.errno)}", 507) from None

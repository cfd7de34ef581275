"""Requests to stop a training run: SIGTERM, SIGINT, or a file ``STOP`` in the output folder.

Whichever rank receives the request, all ranks agree after each optimizer step and after each
batch of a test, and stop together.
"""

import logging
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import NoReturn

from .torchrun import max_over_ranks, rank

logger = logging.getLogger(__name__)

STOP_FILE = "STOP"  # A file of this name in --output_dir stops the run.

# Ranks agree on the largest of these numbers.
_NONE, _BY_FILE, _BY_SIGINT, _BY_SIGTERM = range(4)
_SIGNALS: dict[int, int] = {signal.SIGINT: _BY_SIGINT, signal.SIGTERM: _BY_SIGTERM}
_EXIT_CODES = {_BY_FILE: 0, _BY_SIGINT: 130, _BY_SIGTERM: 143}
_SOURCES = {_BY_FILE: f"the file {STOP_FILE}", _BY_SIGINT: "SIGINT", _BY_SIGTERM: "SIGTERM"}


class StopRequests:
    """Requests to stop a training run, which can then be resumed with ``command``."""

    def __init__(self, command: str):
        self.command = command
        self.request = _NONE  # Received by this process through a signal.
        self.training_has_begun = False  # Before that, there is nothing to resume.
        self._folder: Path | None = None
        self._interrupted, self._process = False, os.getpid()

    def install_handlers(self) -> None:
        """Handle SIGINT and SIGTERM from now on."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self._handle)

    def begin(self, folder: Path | None) -> None:
        """Begin the first epoch; from now on, a ``STOP`` file in the output folder ends the run."""
        self.training_has_begun, self._folder = True, folder

    def check(self) -> None:
        """Exit if a request has reached any rank; every rank must call this at the same step.

        Raises:
            SystemExit: With 0 for the file, 130 for SIGINT and 143 for SIGTERM.
        """
        request = self.request
        if not request and rank() == 0 and self._folder and (self._folder / STOP_FILE).exists():
            request = _BY_FILE
        request = max_over_ranks(request)
        if request != _NONE:
            self.exit(request)

    def exit(self, request: int) -> NoReturn:
        """Exit because of a request."""
        if self.training_has_begun:
            if self._folder and rank() == 0:
                (self._folder / STOP_FILE).unlink(missing_ok=True)
            message = "stopped by %s; saved checkpoints are intact. Resume with: %s"
            logger.info(message, _SOURCES[request], self.command)
        sys.exit(_EXIT_CODES[request])

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # A data loader process; the run ends it.
            return
        if number == signal.SIGINT and self._interrupted:
            os._exit(_EXIT_CODES[_BY_SIGINT])
        is_first = not self.request
        self._interrupted |= number == signal.SIGINT
        self.request = max(self.request, _SIGNALS[number])
        if rank() == 0 and is_first:  # A logging or print call may be in progress.
            when = "after this step" if self.training_has_begun else "before the first epoch"
            line = f"\nqma-net: received {_SOURCES[self.request]}, stopping {when}\n"
            os.write(2, line.encode())
        if not self.training_has_begun:
            sys.exit(_EXIT_CODES[self.request])

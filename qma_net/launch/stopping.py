"""A training that is asked to end ends after its step, on all ranks, and says how to go on.

Asked by SIGTERM (Slurm, torchrun), by SIGINT (Ctrl-C), or by a file ``STOP`` in the output folder.
Whichever rank was asked, all agree after every optimiser step and after every batch of a test.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from .process import greatest, rank, say

STOP = "STOP"  # a file of this name in --output_dir ends the training

# What ranks agree on, the weightiest first to be followed: nothing, the file, the signals.
_GO_ON, _BY_FILE, _BY_SIGINT, _BY_SIGTERM = range(4)
_SIGNALS = {signal.SIGINT: _BY_SIGINT, signal.SIGTERM: _BY_SIGTERM}
_EXIT_CODES = {_BY_FILE: 0, _BY_SIGINT: 130, _BY_SIGTERM: 143}
_NAMES = {_BY_FILE: f"file {STOP}", _BY_SIGINT: "SIGINT", _BY_SIGTERM: "SIGTERM"}


class Stopping:
    """What has asked a training to end.

    Args:
        command: the command that goes on with it.
    """

    def __init__(self, command: str):
        self.command = command
        self.has_begun = False  # whether there are steps to end after
        self._folder: Path | None = None
        self._asked, self._interrupted, self._process = _GO_ON, False, os.getpid()

    def listen(self) -> None:
        """Takes SIGINT and SIGTERM from here on."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self._hear)

    def begin(self, folder: Path | None) -> None:
        """Steps come from here on; a file ``STOP`` in the folder, if there is one, counts."""
        self.has_begun, self._folder = True, folder

    @property
    def is_asked(self) -> bool:
        """Whether this process itself was sent a signal."""
        return self._asked != _GO_ON

    def check(self) -> None:
        """Ends the run where any rank was asked to; every rank calls this at the same step.

        Raises:
            SystemExit: 0 for the file, 130 for SIGINT, 143 for SIGTERM.
        """
        asked = self._asked
        if not asked and rank() == 0 and self._folder and (self._folder / STOP).exists():
            asked = _BY_FILE
        asked = greatest(asked)
        if asked != _GO_ON:
            self.end(asked)

    def end(self, asked: int | None = None) -> None:
        """Ends this process with the command to go on with; without an argument, as it was asked.

        Raises:
            SystemExit: always.
        """
        asked = self._asked if asked is None else asked
        if self.has_begun:
            if self._folder and rank() == 0:
                (self._folder / STOP).unlink(missing_ok=True)
            say(f"{_NAMES[asked]}: ended; what was saved is whole. Go on with: {self.command}")
        sys.exit(_EXIT_CODES[asked])

    def _hear(self, number: int, frame) -> None:
        if os.getpid() != self._process:  # a process of the loader, which the training ends
            return
        if number == signal.SIGINT and self._interrupted:
            os._exit(_EXIT_CODES[_BY_SIGINT])
        first, self._interrupted = not self._asked, number == signal.SIGINT or self._interrupted
        self._asked = max(self._asked, _SIGNALS[number])
        when = "after this step" if self.has_begun else "before the first epoch"
        if rank() == 0 and first:  # print may be in the middle of a line
            os.write(2, f"\nqma-net: {_NAMES[self._asked]}, ends {when}\n".encode())
        if not self.has_begun:
            sys.exit(_EXIT_CODES[self._asked])

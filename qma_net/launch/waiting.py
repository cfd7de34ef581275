"""Work that one process does while the others wait, before the process group exists.

A process group times out after 10 minutes if a rank is missing; a data check or a download may take
longer. Ranks therefore wait using the key-value store that the group uses later.
"""

import logging
import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from .torchrun import LaunchError, rank
from .unreadable_images import EVERY_RANK

logger = logging.getLogger(__name__)

POLL = 0.2  # Seconds between checks of the store.
REMINDER = 300  # Seconds between messages of a waiting process.
CONNECT = timedelta(minutes=10)  # Time for all processes to start and connect to the store.
_DONE, _FAILED = b"done", b"failed"


class WaitingRoom:
    """The store through which the processes of a run tell each other that work is done.

    With one process, or without the variables that torchrun sets, nobody waits. Without torchrun,
    the first rank hosts the store, so it must keep this object until the end of the run.
    """

    def __init__(self) -> None:
        self._store: Any = None
        self.processes = int(os.environ.get("WORLD_SIZE", 1))
        if self.processes > 1 and {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
            import torch

            store, _, _ = next(torch.distributed.rendezvous("env://", timeout=CONNECT))
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)
            self._store = torch.distributed.PrefixStore(f"qma_net_attempt_{attempt}", store)

    def close(self) -> None:
        """Release the store."""
        self._store = None

    def once(self, name: str, work: Callable[[], object]) -> None:
        """Call ``work`` on the first rank, while the others wait for it.

        Args:
            name: What is done, for messages, such as "the data check".
            work: The function.

        Raises:
            LaunchError: On waiting ranks, if the work has failed.
        """
        self._do(name, work, key=name, is_worker=rank() == 0, worker="rank 0")

    def once_per_machine(self, name: str, work: Callable[[], object]) -> None:
        """Call ``work`` on the first rank of each machine; see :meth:`once`."""
        machine = os.environ.get("GROUP_RANK", "0")
        is_worker = int(os.environ.get("LOCAL_RANK", 0)) == 0
        worker = "the first rank of this machine"
        self._do(name, work, key=f"{name} {machine}", is_worker=is_worker, worker=worker)

    def _do(
        self, name: str, work: Callable[[], object], *, key: str, is_worker: bool, worker: str
    ) -> None:
        if is_worker:
            result = _FAILED
            try:
                work()
                result = _DONE
            finally:
                if self._store is not None:
                    self._store.set(key, result)
        elif self._store is not None:
            self._wait(name, key, worker)

    def _wait(self, name: str, key: str, worker: str) -> None:
        begin = time.monotonic()
        reminders = 0
        while not self._store.check([key]):
            waited = time.monotonic() - begin
            if waited >= 1 + reminders * REMINDER:
                reminders += 1
                logger.info(
                    *("rank %d is waiting for %s to finish %s", rank(), worker, name),
                    extra={EVERY_RANK: True},
                )
            time.sleep(POLL)
        if self._store.get(key) == _FAILED:
            raise LaunchError(f"{name} failed on {worker}; see its message")

"""Rank, device and synchronization of the processes that torchrun starts."""

import atexit
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from ..core.runs import FolderLock
from ..inference.predictor import usable_device
from ..launch.torchrun import leave_process_group, report_crashes
from .settings import EvaluationError

logger = logging.getLogger(__name__)

# Processes wait for each other while the first one reads all masks, and after their last image. By
# default, they would give up after 30 minutes. If a process fails, torchrun ends the others.
TIMEOUT = timedelta(days=7)


@dataclass(frozen=True)
class DistributedContext:
    """The rank and device of this process; without torchrun, it is the only process."""

    rank: int = 0
    world_size: int = 1
    device: str = "cpu"

    @classmethod
    def from_environment(cls, device: str = "") -> "DistributedContext":
        """Read torchrun's environment variables and join its process group.

        Args:
            device: ``"cpu"``; ``"cuda"`` for the GPU of each process's local rank; or ``"cuda:N"``
                for a single process. Empty: CUDA if it is available.

        Raises:
            QMANetError: See :func:`device_for_process`.
        """
        rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        device = device_for_process(device, world_size=world_size)
        if world_size > 1 and not torch.distributed.is_initialized():
            report_crashes()
            torch.distributed.init_process_group("gloo", timeout=TIMEOUT)
            atexit.register(leave_process_group)
        return cls(rank, world_size, device)

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and logs for all processes."""
        return self.rank == 0

    @contextmanager
    def locked(self, *folders: str | os.PathLike[str]) -> Iterator[None]:
        """Lock folders against other runs; the first process holds the locks for all."""
        with ExitStack() as locks:
            if self.is_first:
                # Locking a folder twice would fail.
                for folder in {Path(folder).resolve(): folder for folder in folders}.values():
                    locks.enter_context(FolderLock(folder))
            yield

    def wait(self) -> None:
        """Wait until all processes have reached this point."""
        if self.world_size > 1:
            torch.distributed.barrier()

    def share(self, value: Any) -> Any:
        """Return the first process's value in all processes."""
        values = [value]
        if self.world_size > 1:
            torch.distributed.broadcast_object_list(values)
        return values[0]

    def log(self, message: str) -> None:
        """Log a message only once, in the first process."""
        if self.is_first:
            logger.info("%s", message)


def device_for_process(name: str, *, world_size: int) -> str:
    """Return the device of this process: on CUDA, the GPU of its local rank.

    Raises:
        ConfigError: If the device is not available.
        EvaluationError: If several processes would share a GPU, or this process has none.
    """
    device = usable_device(name)
    if device.type != "cuda":
        return str(device)
    if device.index is not None and world_size > 1:
        raise EvaluationError(
            f"device {name} cannot be used by {world_size} processes; use cuda, which assigns one "
            "GPU to each process"
        )
    index = int(os.environ.get("LOCAL_RANK", 0)) if device.index is None else device.index
    count = torch.cuda.device_count()
    if index >= count:
        raise EvaluationError(
            f"cuda:{index} does not exist (number of GPUs: {count}); start at most one process per "
            "GPU, or use --device cpu"
        )
    return f"cuda:{index}"

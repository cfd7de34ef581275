"""This process among those that torchrun started."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch

from ..core.runs import FolderLock
from ..inference.predictor import usable_device

ALONE = {"RANK": 0, "WORLD_SIZE": 1}  # torchrun's variables, as they are without it


@dataclass(frozen=True)
class Process:
    """This process among those that torchrun started; alone without it.

    Args:
        rank: its number, from 0.
        world: how many there are.
        device: what it computes on.
    """

    rank: int = 0
    world: int = 1
    device: str = "cpu"

    @classmethod
    def join(cls, device: str = "") -> "Process":
        """Joins the others; on CUDA each takes the device of its local rank.

        Raises:
            ConfigError: for a device that is not there.
        """
        if device:
            usable_device(device)
        rank, world = (int(os.environ.get(name, alone)) for name, alone in ALONE.items())
        if world > 1 and not torch.distributed.is_initialized():
            torch.distributed.init_process_group("gloo")
        if not device:
            local = os.environ.get("LOCAL_RANK", 0)
            device = f"cuda:{local}" if torch.cuda.is_available() else "cpu"
        return cls(rank, world, device)

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and prints what all have in common."""
        return self.rank == 0

    @contextmanager
    def alone_in(self, folder: str | os.PathLike) -> Iterator[None]:
        """Makes a folder and holds it against other runs; the first process does, for all.

        Raises:
            BusyError: where another run holds it.
        """
        with FolderLock(folder) if self.is_first else nullcontext():
            yield

    def wait(self) -> None:
        """Until all are here."""
        if self.world > 1:
            torch.distributed.barrier()

    def say(self, message: str) -> None:
        """Prints once for all."""
        if self.is_first:
            print(message, flush=True)

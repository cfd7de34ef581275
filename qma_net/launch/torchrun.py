"""Rank, environment, command line, errors and end of the current torchrun process."""

import faulthandler
import gc
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from ..core.errors import QMANetError
from ..core.single_process import set_up_single_process, slurm_tasks
from .contracts import replaces

OTHER_RANKS_WAIT = 10  # Seconds in which torchrun ends the other processes after one has failed.


class LaunchError(QMANetError):
    """A run that cannot start or continue."""


def rank() -> int:
    """Return the rank of this process; rank 0 writes files and messages."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0)))


def exit_with_error(error: QMANetError) -> NoReturn:
    """Exit with a one-line message, printed by the first process of each machine.

    The other processes wait for torchrun to end them, and print the message only if it does not.
    Since the same error would occur again, torchrun is terminated before it restarts the processes.
    """
    if int(os.environ.get("LOCAL_RANK", 0)) > 0:
        time.sleep(OTHER_RANKS_WAIT)
    restarts, limit = (
        int(os.environ.get(f"TORCHELASTIC_{name}", 0)) for name in ("RESTART_COUNT", "MAX_RESTARTS")
    )
    if restarts < limit:
        sys.stderr.write(f"qma-net: {error}\n")
        sys.stderr.flush()
        os.kill(os.getppid(), signal.SIGTERM)
        sys.exit(1)
    sys.exit(f"qma-net: {error}")


def report_crashes() -> None:
    """Print the Python stack if native code aborts the process."""
    if not faulthandler.is_enabled():
        faulthandler.enable(2)


def leave_process_group() -> None:
    """Stop torch's threads and processes, which could otherwise crash the interpreter at exit.

    Gloo's threads end with the last reference to the process group. DistributedDataParallel holds
    one, so release all models first. This does not wait for other processes.
    """
    gc.collect()
    if compiling := sys.modules.get("torch._inductor.async_compile"):
        compiling.shutdown_compile_workers()
    distributed = sys.modules.get("torch.distributed")
    if distributed and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def max_over_ranks(number: int) -> int:
    """Return the largest number that any rank passes; every rank must call this."""
    import torch

    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return number
    on_gpu = torch.distributed.get_backend() == "nccl"
    shared = torch.tensor(number, device="cuda" if on_gpu else "cpu")
    torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
    return int(shared)


def resuming_command(script: str, flags: list[str]) -> str:
    """Return the command line of this run, including torchrun, with ``--resume auto``.

    On systems without ``/proc``, it is ``qma-net SCRIPT`` with the flags.
    """
    words = ["qma-net", script, *flags]
    for process in (os.getppid(), os.getpid()):
        file = Path(f"/proc/{process}/cmdline")
        line = file.read_bytes().decode(errors="replace") if file.exists() else ""
        actual = line.split("\0")[:-1]
        if flags and actual[-len(flags) - 1 :] == [script, *flags]:
            words = actual
            break
    if "--resume" in words:
        position = words.index("--resume")
        words = words[:position] + words[position + 2 :]
    words = [word for word in words if not word.startswith("--resume=")]
    return shlex.join([*words, "--resume", "auto"])


def set_up_process(script: str) -> None:
    """Set torchrun's environment variables if torchrun did not; BenCo's scripts need them.

    After a restart by torchrun, this attempt also gets its own part of the store.

    Raises:
        LaunchError: If test_complexity, which is not distributed, was started in several processes,
            or if Slurm started several processes without torchrun.
    """
    count = int(os.environ.get("WORLD_SIZE", slurm_tasks()))
    if script == "test_complexity" and count > 1:
        raise LaunchError(
            f"test_complexity runs in one process, not {count}; start it without torchrun"
        )
    if "RANK" not in os.environ and slurm_tasks() > 1:
        raise LaunchError(
            f"Slurm runs {slurm_tasks()} tasks, but only torchrun lets them train together; start "
            "the run with torchrun or shell/slurm.sh, or use a single task"
        )
    set_up_single_process()
    attempt = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    if attempt and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        _separate_restart(attempt)


def _separate_restart(attempt: int) -> None:
    """Give a restart by torchrun its own part of the store, which outlives the processes.

    Restarted processes would otherwise try to connect to those that have died.
    """
    import torch

    @replaces("torch.distributed:init_process_group")
    def init_process_group(
        original: Callable, backend: Any = None, init_method: str = "env://", **kwargs: Any
    ) -> None:
        given = {name: kwargs.pop(name) for name in ("rank", "world_size") if name in kwargs}
        store, rank, world_size = next(torch.distributed.rendezvous(init_method, **given))
        store = torch.distributed.PrefixStore(f"attempt_{attempt}", store)
        original(backend, store=store, rank=rank, world_size=world_size, **kwargs)

"""The process that a script of BenCo's runs in: its environment, its lines, what ranks agree on."""

import os
import shlex
import signal
import socket
import sys
import time
from pathlib import Path

from ..core.errors import QMANetError

MARK = "[qma-net] "  # every line of the launcher's begins with it
OTHERS_WAIT = 10  # seconds: torchrun ends the other processes when one has refused


class LaunchError(QMANetError):
    """A run that BenCo's scripts cannot make; one line says got, expected, remedy."""


def rank() -> int:
    """This process's number among all, 0 for the one that writes."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0)))


def say(message: str) -> None:
    """A line from the first process."""
    if rank() == 0:
        print(MARK + message, flush=True)


def say_anywhere(message: str) -> None:
    """A line from whichever process has something to say; BenCo silences ``print`` in most."""
    sys.stdout.write(f"{MARK}{message}\n")
    sys.stdout.flush()


def refuse(error: QMANetError) -> None:
    """Ends the process with one line; of several on a machine, the first one says it.

    The others wait to be ended by torchrun, and speak where the fault was theirs alone. What is
    refused once would be refused again: torchrun is asked to end where it would start it anew.
    """
    if int(os.environ.get("LOCAL_RANK", 0)) > 0:
        time.sleep(OTHERS_WAIT)
    attempts, attempt = (
        int(os.environ.get(f"TORCHELASTIC_{name}", 0)) for name in ("MAX_RESTARTS", "RESTART_COUNT")
    )
    if attempt < attempts:
        print(f"qma-net: {error}", file=sys.stderr, flush=True)
        os.kill(os.getppid(), signal.SIGTERM)
        sys.exit(1)
    sys.exit(f"qma-net: {error}")


def greatest(number: int) -> int:
    """The greatest of all ranks' numbers; every rank has to ask."""
    import torch

    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return number
    on_gpu = torch.distributed.get_backend() == "nccl"
    shared = torch.tensor(number, device="cuda" if on_gpu else "cpu")
    torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
    return int(shared)


def resuming_command(script: str, flags: list[str]) -> str:
    """The command that this run was started with, torchrun's too, and ``--resume auto``."""
    words = ["qma-net", script, *flags]
    for process in (os.getppid(), os.getpid()):
        line = Path(f"/proc/{process}/cmdline")
        found = line.read_bytes().decode(errors="replace").split("\0")[:-1] if line.exists() else []
        if flags and found[-len(flags) - 1 :] == [script, *flags]:
            words = found
            break
    for number, word in enumerate(words):
        if word == "--resume":
            words = words[:number] + words[number + 2 :]
            break
    words = [word for word in words if not word.startswith("--resume=")]
    return shlex.join([*words, "--resume", "auto"])


def set_single_process_environment(script: str) -> None:
    """BenCo's scripts assume torchrun; without it they break on ``model.module``."""
    world = int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", 1)))
    if script == "test_complexity" and world > 1:
        raise LaunchError(
            f"got {world} processes, expected one: test_complexity is not distributed, "
            "start it without torchrun"
        )
    if "RANK" in os.environ or "SLURM_PROCID" in os.environ or "OMPI_COMM_WORLD_RANK" in os.environ:
        return
    single = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    os.environ.update(single, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))


def free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

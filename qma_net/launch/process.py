"""The process that a script of BenCo's runs in: its environment, its last line."""

import os
import socket

from ..errors import QMANetError


class LaunchError(QMANetError):
    """A run that BenCo's scripts cannot make; one line says got, expected, remedy."""


def say(message: str) -> None:
    """A line from the first process."""
    if int(os.environ.get("RANK", 0)) == 0:
        print(f"[qma-net] {message}", flush=True)


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

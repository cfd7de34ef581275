"""Environment variables of torchrun for a process that runs alone."""

import os
import socket


def set_up_single_process() -> None:
    """Set torchrun's environment variables for one process, unless a launcher has set its own."""
    if not {"RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"} & os.environ.keys():
        single = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
        os.environ.update(single, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))


def free_port() -> int:
    """Return a TCP port that is free on the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

"""Environment variables of torchrun for a process that runs alone."""

import os


def set_up_single_process() -> None:
    """Set torchrun's environment variables for one process, unless a launcher has set its own."""
    if not {"RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"} & os.environ.keys():
        single = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
        # No other process needs to know the port, so it is chosen only when it is opened. A port
        # that is chosen now could be taken by then, which may be minutes later.
        os.environ.update(single, MASTER_ADDR="127.0.0.1", MASTER_PORT="0")

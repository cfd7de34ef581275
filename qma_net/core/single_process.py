"""Environment variables of torchrun for a process that runs alone."""

import os


def slurm_tasks() -> int:
    """Return the number of processes that Slurm has started for this step; 1 without Slurm."""
    return int(os.environ.get("SLURM_NTASKS", 1)) if "SLURM_PROCID" in os.environ else 1


def set_up_single_process() -> None:
    """Set torchrun's environment variables for one process, unless a launcher has set its own.

    Slurm also sets variables for a process that runs alone, such as a shell started with srun.
    """
    is_launched = bool({"RANK", "OMPI_COMM_WORLD_RANK"} & os.environ.keys()) or slurm_tasks() > 1
    if not is_launched:
        single = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
        # No other process needs to know the port, so it is chosen only when it is opened. A port
        # that is chosen now could be taken by then, which may be minutes later.
        os.environ.update(single, MASTER_ADDR="127.0.0.1", MASTER_PORT="0")

"""Threads of PyTorch, OpenCV and NumPy on the CPU, set by environment variables.

Each library reads its variables once, when it is loaded, so call these functions before it is
imported. Processes that are started later inherit the variables.
"""

import os
import sys

from .errors import QMANetError
from .workers import available_cores

# The variables with which a user chooses how the threads of OpenMP wait.
WAIT_VARIABLES = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY"}
COUNT_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)


class ThreadsError(QMANetError):
    """A number of threads that cannot be used."""


def let_threads_sleep() -> None:
    """Let OpenMP's threads sleep while they wait for each other, unless the user chose otherwise.

    By default they spin, which can be many times slower as soon as another program uses one of the
    cores (docs/benchmarks.md).
    """
    if not WAIT_VARIABLES & os.environ.keys():
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def limit_threads(count: int | None) -> None:
    """Compute with this number of threads; with None, libraries use one per processor core.

    Raises:
        ThreadsError: If the number is below 1 or above the number of available cores.
    """
    if count is None:
        return
    cores = available_cores()
    if not 1 <= count <= cores:
        raise ThreadsError(
            f"got --threads {count}, expected a number from 1 to {cores}, the processor cores that "
            "this process may use"
        )
    os.environ.update(dict.fromkeys(COUNT_VARIABLES, str(count)))
    for module, function in (("torch", "set_num_threads"), ("cv2", "setNumThreads")):
        if module in sys.modules:  # It has already read its variable.
            getattr(sys.modules[module], function)(count)

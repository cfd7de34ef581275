"""Forks of a process that has imported BenCo and PyTorch, which saves ten seconds for each process.

This module and the process that is forked import nothing of QMA-Net.
"""

import multiprocessing
import os
import subprocess
import sys
from functools import partial
from multiprocessing import forkserver, get_context
from pathlib import Path
from types import ModuleType

# Seconds after which a test gives up waiting for something that should have happened long ago. A
# busy machine may take ten times as long as an idle one.
HANG_TIMEOUT = 300

RUN_MODULE = Path(__file__).with_name("run_module.py")

PRELOADED = [
    "IMDLBenCo.training_scripts.train",
    "torch.distributed.run",
    "transformers.models.segformer.modeling_segformer",
]


def start_fork_server() -> None:
    """Import BenCo in the process that :class:`Fork` forks from.

    Call this before any test starts a process pool: a process has only one fork server, and its
    first user determines what it imports.
    """
    forkserver.set_forkserver_preload(PRELOADED)
    forkserver.ensure_running()


class Fork:
    """A function that runs in a fork, as in a new process, with its output in files.

    Args:
        function: Called without arguments.
        folder: The working directory.
        env: Additional environment variables.
    """

    def __init__(self, function, folder, env=None):
        self.files = [Path(folder) / name for name in (".out", ".err")]
        for file in self.files:
            file.unlink(missing_ok=True)
        arguments = (function, str(folder), *map(str, self.files), env or {})
        self.child = get_context("forkserver").Process(target=_run, args=arguments)
        self.child.start()

    def output(self, number: int = 0) -> str:
        """Return what it has written to standard output (0) or standard error (1) so far."""
        file = self.files[number]
        return file.read_text() if file.exists() else ""

    def wait(self, timeout: float = HANG_TIMEOUT) -> subprocess.CompletedProcess:
        """Wait until it ends and return its exit code and output; it is killed at a timeout."""
        self.child.join(timeout=timeout)
        if self.child.is_alive():
            self.child.kill()
            self.child.join()
        written = [self.output(number) for number in (0, 1)]
        return subprocess.CompletedProcess([], self.child.exitcode, *written)


def run_code(code: str, folder: Path) -> subprocess.CompletedProcess:
    """Run ``python -c CODE`` in a fork and check that it succeeds."""
    done = Fork(partial(_execute, code), folder).wait()
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done


def torchrun(processes: int, *command, flags=()) -> partial:
    """Return the function that runs torchrun, which forks its own process for each rank.

    Args:
        processes: The number of processes.
        command: The path of a script, or ``-m`` and a module, and the arguments.
        flags: Flags of torchrun.
    """
    script, *arguments = map(str, command)
    if script == "-m":
        script = str(RUN_MODULE)
    own = ["--standalone", "--nproc_per_node", str(processes), *map(str, flags)]
    own += ["--run-path", "--start-method", "fork"]
    return partial(_run_torchrun, [*own, script, *arguments])


def _run(function, folder, out, err, env):
    os.chdir(folder)
    os.environ.update(env)
    for number, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = (
        open(number, "w", encoding="utf-8", buffering=1)  # noqa: SIM115
        for number in (1, 2)
    )
    multiprocessing.set_start_method("fork", force=True)  # Not the fork server of the tests.
    import torch

    # After a fork, PyTorch replaces its thread pool when it is next used. If two threads of
    # autograd do this at once, the process aborts ("Invalid thread pool!", ParallelOpenMP.cpp).
    replace_pool = partial(torch.set_num_threads, 1)
    replace_pool()
    os.register_at_fork(after_in_child=replace_pool)  # The ranks of torchrun.
    function()


def _execute(code):
    main = sys.modules["__main__"] = ModuleType("__main__")
    exec(compile(code, "<code>", "exec"), vars(main))


def _run_torchrun(arguments):
    from torch.distributed.run import main

    main(arguments)

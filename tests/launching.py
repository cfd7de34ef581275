"""Helpers that start BenCo's scripts in separate processes, as users do."""

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from functools import partial
from multiprocessing import forkserver, get_context
from pathlib import Path

import cv2
import numpy as np
import torch

from conftest import HANG_TIMEOUT, photograph

MODEL = ["--model", "QMANet", "--size", "b0", "--views", "srm"]
SIZE = ["--image_size", "64", "--if_resizing", "--num_workers", "0", "--no_pin_mem"]
LAUNCHER = ("-m", "qma_net.launch")
FORKED_LAUNCHER = Path(__file__).with_name("forked_launcher.py")  # The same as a file.


def write_tampered_set(folder: Path, count: int = 7) -> None:
    """Write a small dataset of tampered images to ``folder/set``, and ``sets.json``."""
    for name in ("Tp", "Gt"):
        (folder / "set" / name).mkdir(parents=True)
    for i in range(count):
        image, mask = photograph(72, 64, i), np.zeros((72, 64), np.uint8)
        image[20:50, 10:40] = photograph(30, 30, 50 + i)
        mask[20:50, 10:40] = 255
        cv2.imwrite(str(folder / f"set/Tp/{i}.jpg"), image)
        cv2.imwrite(str(folder / f"set/Gt/{i}.png"), mask)
    (folder / "sets.json").write_text(json.dumps({"small": str(folder / "set")}))


def start(
    command,
    folder,
    processes=1,
    launcher=LAUNCHER,
    *,
    check=True,
    env=None,
    prepare=None,
    more=(),
    fresh=False,
    timeout=HANG_TIMEOUT,
):
    """Run a command in a separate process, or in several under torchrun.

    Most runs are forks of a process that has imported BenCo, which saves ten seconds for each
    process. A run with ``fresh``, or of a program other than the launcher or a script, starts new
    interpreters, exactly as users do.

    Args:
        command: The arguments of ``python -m qma_net.launch``, or of ``launcher``.
        folder: The working directory.
        processes: The number of processes; torchrun starts them if there are several.
        launcher: Python's arguments that name the program.
        check: Assert that the exit code is 0.
        env: Additional environment variables.
        prepare: A function that the process calls first; only without torchrun.
        more: Flags of torchrun.
        fresh: Start new interpreters.
        timeout: Seconds.
    """
    command = list(map(str, command))
    if not fresh and (launcher == LAUNCHER or processes > 1):
        script = None if launcher == LAUNCHER else launcher[0]
        options = {"processes": processes, "script": script, "more": more, "env": env}
        done = Launched(command, folder, prepare, **options).wait(timeout)
    else:
        python = [sys.executable]
        if processes > 1:
            python += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
            python += [str(processes), *map(str, more)]
        done = subprocess.run(
            [*python, *launcher, *command],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
            text=True,
            capture_output=True,
            timeout=timeout,
        )
    assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def import_benco_once() -> None:
    """Import BenCo in the process that :class:`Launched` forks from.

    Call this before any test starts a process pool: a process has only one fork server, and its
    first user determines what it imports.
    """
    forkserver.set_forkserver_preload(
        ["IMDLBenCo.training_scripts.train", "qma_net.benco", "torch.distributed.run"]
    )
    forkserver.ensure_running()


class Launched:
    """The launcher in a fork of a process that has imported BenCo, or torchrun with such forks.

    Args:
        command: The arguments of the launcher or of ``script``.
        folder: The working directory.
        prepare: A function that the process calls first; only without torchrun.
        processes: The number of processes; torchrun starts them if there are several.
        script: The script that torchrun runs instead of the launcher.
        more: Flags of torchrun.
        env: Additional environment variables.
    """

    def __init__(
        self, command, folder, prepare=None, *, processes=1, script=None, more=(), env=None
    ):
        self.command = list(map(str, command))
        self.files = [Path(folder) / name for name in (".out", ".err")]
        for file in self.files:
            file.unlink(missing_ok=True)
        run = partial(_run_launcher, self.command, prepare)
        if processes > 1:
            flags = ["--standalone", "--nproc_per_node", str(processes), *map(str, more)]
            script = str(script or FORKED_LAUNCHER)
            # torchrun forks its processes, which therefore need not import anything again.
            flags += ["--run-path", "--start-method", "fork", script, *self.command]
            run = partial(_run_torchrun, flags)
        arguments = (run, str(folder), *map(str, self.files), env or {})
        self.child = get_context("forkserver").Process(target=_run_forked, args=arguments)
        self.child.start()

    def output(self, number: int = 0) -> str:
        """Return what it has written to standard output (0) or standard error (1) so far."""
        file = self.files[number]
        return file.read_text() if file.exists() else ""

    def wait(self, timeout: float = HANG_TIMEOUT) -> subprocess.CompletedProcess:
        """Wait until it ends and return its exit code and output."""
        self.child.join(timeout=timeout)
        written = [self.output(number) for number in (0, 1)]
        return subprocess.CompletedProcess(self.command, self.child.exitcode, *written)


class ForkedTorchrun:
    """``subprocess.Popen`` for a torchrun command of the launcher, which it runs in forks."""

    def __init__(self, command, **options):
        position = command.index("qma_net.launch")
        processes = int(command[command.index("--nproc_per_node") + 1])
        self.folder = tempfile.TemporaryDirectory()
        self.launched = Launched(command[position + 1 :], self.folder.name, processes=processes)

    def __enter__(self):
        done = self.launched.wait()
        self.returncode = done.returncode
        self.stdout = (done.stdout + done.stderr).splitlines(keepends=True)
        return self

    def __exit__(self, *error):
        self.folder.cleanup()


def _run_forked(run, folder, out, err, env):
    """Call a function in the child, with its output in files and as in a new process."""
    os.chdir(folder)
    os.environ.update(env)
    for number, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = (open(n, "w", encoding="utf-8", buffering=1) for n in (1, 2))  # noqa: SIM115
    multiprocessing.set_start_method("fork", force=True)  # Not the fork server of the tests.
    torch.set_num_threads(1)
    run()


def _run_launcher(command, prepare):
    from qma_net.launch.scripts import main

    if prepare:
        prepare()
    main(command)


def _run_torchrun(flags):
    from torch.distributed.run import main

    main(flags)

"""Helpers that start BenCo's scripts in separate processes, as users do."""

import json
import os
import random
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from conftest import photograph
from forks import HANG_TIMEOUT, Fork, torchrun

MODEL = ["--model", "QMANet", "--size", "b0", "--views", "srm"]
SIZE = ["--image_size", "64", "--if_resizing", "--num_workers", "0", "--no_pin_mem"]
LAUNCHER = ("-m", "qma_net.launch")


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


def stable_port() -> int:
    """Return a free port that stays free until torchrun uses it seconds later.

    The system gives ports from 32768 on to connections of all programs. If one of them takes the
    port, the first torchrun fails, and the second one waits for it for ten minutes.
    """
    for port in random.sample(range(20_000, 30_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


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


class Launched(Fork):
    """The launcher in a fork, or torchrun with forks of it.

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
        command = list(map(str, command))
        function = partial(_run_launcher, command, prepare)
        if processes > 1:
            program = [script] if script else LAUNCHER
            function = torchrun(processes, *program, *command, flags=more)
        super().__init__(function, folder, env)


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


def _run_launcher(command, prepare):
    from qma_net.launch.scripts import main

    if prepare:
        prepare()
    main(command)

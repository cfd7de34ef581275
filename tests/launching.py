"""Helpers that start BenCo's scripts in separate processes, as users do."""

import json
import os
import subprocess
import sys
from multiprocessing import forkserver, get_context
from pathlib import Path

import cv2
import numpy as np
import torch

from conftest import photograph
from qma_net.launch.torchrun import free_port

MODEL = ["--model", "QMANet", "--size", "b0", "--views", "srm"]
SIZE = ["--image_size", "64", "--if_resizing", "--num_workers", "0", "--no_pin_mem"]
LAUNCHER = ("-m", "qma_net.launch")

ALONE = {
    "RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_RANK": "0",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": str(free_port()),
}


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
    timeout=300,
):
    """Run a command in a separate process, or in several under torchrun.

    Args:
        command: The arguments of ``python -m qma_net.launch``, or of ``launcher``.
        folder: The working directory.
        processes: The number of processes; torchrun starts them if there are several.
        launcher: Python's arguments that name the program.
        check: Assert that the exit code is 0.
        env: Additional environment variables.
        prepare: A function that the process calls first; only without torchrun.
        more: Flags of torchrun.
        timeout: Seconds.
    """
    command = list(map(str, command))
    if processes == 1 and launcher == LAUNCHER:
        done = Launched(command, folder, prepare).wait(timeout)
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
    forkserver.set_forkserver_preload(["IMDLBenCo.training_scripts.train", "qma_net.benco"])
    forkserver.ensure_running()


class Launched:
    """The launcher in a fork of a process that has imported BenCo, which saves 8 seconds."""

    def __init__(self, command, folder, prepare=None):
        self.command = list(map(str, command))
        self.files = [Path(folder) / name for name in (".out", ".err")]
        for file in self.files:
            file.unlink(missing_ok=True)
        arguments = (self.command, str(folder), *map(str, self.files), prepare)
        self.child = get_context("forkserver").Process(target=_launch, args=arguments)
        self.child.start()

    def output(self, number: int = 0) -> str:
        """Return what it has written to standard output (0) or standard error (1) so far."""
        file = self.files[number]
        return file.read_text() if file.exists() else ""

    def wait(self, timeout: float = 300) -> subprocess.CompletedProcess:
        """Wait until it ends and return its exit code and output."""
        self.child.join(timeout=timeout)
        written = [self.output(number) for number in (0, 1)]
        return subprocess.CompletedProcess(self.command, self.child.exitcode, *written)


def _launch(command, folder, out, err, prepare):
    """Run ``python -m qma_net.launch COMMAND`` in the child, with its output in files."""
    os.chdir(folder)
    for number, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = (open(n, "w", buffering=1) for n in (1, 2))  # noqa: SIM115
    torch.set_num_threads(1)
    from qma_net.launch.scripts import main

    if prepare:
        prepare()
    main(command)

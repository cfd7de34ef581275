"""``predict`` and ``examine`` without the modules and functions that Windows lacks."""

import subprocess
import sys

from PIL import Image

from conftest import ROOT, photograph

# The other packages are imported first, since their versions for Linux use what is removed here.
PROGRAM = """
import os, signal, sys

import cv2, filelock, PIL.Image, safetensors.torch, torch, tqdm
from transformers import SegformerConfig, SegformerModel

for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
for module, names in (
    (os, ("fork", "getuid", "geteuid", "mkfifo", "sched_getaffinity", "sched_setaffinity")),
    (signal, ("SIGHUP", "SIGKILL", "SIGUSR1")),
):
    for name in names:
        delattr(module, name)

from qma_net.cli import main

photo, folder = sys.argv[1:]
main(["predict", photo, "--checkpoint", "random", "--out", folder + "/predict"])
main(["examine", photo, "--checkpoint", "none", "--out", folder + "/examine"])
"""


def test_predict_and_examine_work_without_posix(tmp_path):
    Image.fromarray(photograph(64, 64)).save(tmp_path / "x.jpg")
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "x.jpg"), str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "predict/predictions.csv").is_file()
    assert (tmp_path / "examine/x/report.json").is_file()

"""BenCo's own scripts, copied by ``benco init``: the commands of docs/training.md."""

import json
import os
import shlex
import subprocess
import sys
from argparse import Namespace

import pytest
import torch

from conftest import HANG_TIMEOUT, ROOT
from launching import write_tampered_set

# Runs shell commands, and each script in a fork of this process, which has imported BenCo but not
# QMA-Net. The output and the exit code of a script are written to NUMBER.log and NUMBER.code.
RUN_COMMANDS = """
import json, os, runpy, subprocess, sys
import IMDLBenCo.training_scripts.train, qma_net.build
from IMDLBenCo.cli import main
from qma_net.modeling import config

config.SIZES["tiny"] = ((16, 32, 80, 128), (1, 1, 1, 1))
sys.path.insert(0, "")
for number, words in enumerate(json.loads(sys.argv[1])):
    if words == ["benco", "init"]:
        sys.argv = words
        main()
        continue
    if words[0] != "python":
        subprocess.run(" ".join(words), shell=True, check=True)
        continue
    sys.stdout.flush()
    child = os.fork()
    if not child:
        file = os.open(f"{number}.log", os.O_WRONLY | os.O_CREAT)
        os.dup2(file, 1), os.dup2(file, 2)
        sys.argv = words[1:]
        runpy.run_path(words[1], run_name="__main__")
        sys.exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with open(f"{number}.code", "w") as file:
        file.write(str(code))
"""
TINY_RUN = ["--size", "tiny", "--image_size", "64", "--num_workers", "0", "--no_pin_mem"]
PATHS = {"data/mine": "set", "data/mine_test": "set", "mine_test.json": "sets.json"}


def documented_commands() -> list[list[str]]:
    """Return the commands of the section as words; shell commands other than python unparsed."""
    text = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    section = text.partition("## BenCo's scripts without the launcher\n")[2].partition("\n## ")[0]
    blocks = section.split("```bash\n")[1:]
    lines = "\n".join(block.partition("```")[0] for block in blocks).replace("\\\n", " ")
    commands = [line for line in lines.splitlines() if line.strip()]
    edits = [line for line in commands if line.startswith("sed ")]
    scripts = [shlex.split(line) for line in commands if line.startswith("python ")]
    assert len(edits) + len(scripts) + 1 == len(commands)
    return [["benco", "init"], *([edit] for edit in edits), *scripts]


def shortened(words: list[str], epochs: int) -> list[str]:
    """Make a command suit seven small images; the last of two equal flags counts."""
    if words[0] != "python":
        return words
    words = [PATHS.get(word, word).replace("checkpoint-149", "checkpoint-1") for word in words]
    if "--backbone_weights" in words:
        position = words.index("--backbone_weights")
        del words[position : position + 2]
    if words[1] == "train.py":
        words += ["--epochs", str(epochs), "--batch_size", "2", "--accum_iter", "1"]
    return [*words, *TINY_RUN]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Run the documented commands in a project folder: two epochs, in two runs, and the tests."""
    folder = tmp_path_factory.mktemp("project")
    write_tampered_set(folder)
    commands = documented_commands()
    assert [words[1] for words in commands if words[0] == "python"] == [
        "train.py",
        "train.py",
        "test.py",
        "test_save_images.py",
    ]
    commands = [shortened(words, 2 if "--resume" in words else 1) for words in commands]
    launchers = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    environment = {name: value for name, value in os.environ.items() if name not in launchers}
    done = subprocess.run(
        [sys.executable, "-c", RUN_COMMANDS, json.dumps(commands)],
        cwd=folder,
        env={**environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=HANG_TIMEOUT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def output_of(project, number: int) -> str:
    """Return the output of the script with this number, counted from 0, which must succeed."""
    files = sorted(project.glob("*.code"))
    log = files[number].with_suffix(".log").read_text()
    assert files[number].read_text() == "0", log[-3000:]
    return log


def test_training_runs_without_torchrun(project):
    """It was an UnboundLocalError (global_rank) of train.py."""
    log = output_of(project, 0)
    assert "distributed init (rank 0)" in log
    assert "CUDA is not available, but BenCo's scripts need it" not in log
    assert (project / "runs/own/checkpoint-0.pth").is_file()


def test_training_is_resumed(project):
    """It was an UnpicklingError of torch 2.6 and newer."""
    assert "With optim & sched!" in output_of(project, 1)
    rows = [json.loads(line) for line in (project / "runs/own/log.txt").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1]


def test_checkpoints_are_tested_without_device_flag(project):
    """On a CPU, it was an error that CUDA is not available when the checkpoint was loaded."""
    output_of(project, 2)
    log = (project / "runs/own-test/small/log.txt").read_text()
    assert [json.loads(line)["epoch"] for line in log.splitlines()] == [0, 1]


def test_masks_are_saved_for_a_relative_checkpoint_path(project):
    """It was a FileNotFoundError for runs/own/checkpoint-1.pth/runs/own/checkpoint-1.pth."""
    output_of(project, 3)
    assert len(list((project / "runs/own-images/pred").glob("*.png"))) == 7


def test_variables_of_torchrun_are_not_replaced(monkeypatch):
    from qma_net.core.single_process import set_up_single_process

    monkeypatch.setenv("RANK", "3")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    set_up_single_process()
    assert os.environ["RANK"] == "3"
    assert "WORLD_SIZE" not in os.environ


def test_importing_the_plugin_elsewhere_prepares_no_script(monkeypatch):
    from qma_net.benco import scripts

    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(sys, "argv", ["tool.py", "--checkpoint_path", "a/b.pth"])
    scripts.prepare_benco_script()
    assert "RANK" not in os.environ
    assert sys.argv == ["tool.py", "--checkpoint_path", "a/b.pth"]


def test_checkpoints_of_benco_stay_readable_after_another_has_been_read(tmp_path):
    """``--resume`` failed after ``--init_from``, since torch withdrew the permission."""
    from qma_net.benco.scripts import allow_benco_checkpoints
    from qma_net.weights.reading import read_checkpoint

    path = tmp_path / "checkpoint-0.pth"
    torch.save({"model": {}, "args": Namespace(lr=1e-4)}, path)
    allow_benco_checkpoints()  # As on import.
    read_checkpoint(path)
    assert torch.load(path)["args"] == Namespace(lr=1e-4)

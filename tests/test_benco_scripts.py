"""BenCo's own scripts, copied by ``benco init``: the commands of docs/training.md."""

import json
import os
import runpy
import shlex
import subprocess
import sys
from argparse import Namespace
from functools import partial

import pytest
import torch

from conftest import ROOT, TINY
from forks import Fork, run_code
from launching import write_tampered_set
from qma_net.modeling import config

TINY_RUN = ["--size", "tiny", "--image_size", "64", "--num_workers", "0", "--no_pin_mem"]
PATHS = {"data/mine": "set", "data/mine_test": "set", "mine_test.json": "sets.json"}


def documented_commands() -> list[list[str]]:
    """Return the commands of the section as words, or as one text if the shell must parse them."""
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
    words = [PATHS.get(word, word).replace("checkpoint-149", "checkpoint-1") for word in words]
    if "--backbone_weights" in words:
        position = words.index("--backbone_weights")
        del words[position : position + 2]
    if words[1] == "train.py":
        words += ["--epochs", str(epochs), "--batch_size", "2", "--accum_iter", "1"]
    return [*words, *TINY_RUN]


def run_script(words: list[str]) -> None:
    """Run a script as the main program, with a model size that is small enough for tests."""
    config.SIZES["tiny"] = TINY
    sys.path.insert(0, "")
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Run the documented commands in a project folder: two epochs, in two runs, and the tests.

    Returns:
        The folder, and the output of each script by its name; "--resume" for the resumed run.
    """
    folder = tmp_path_factory.mktemp("project")
    write_tampered_set(folder)
    outputs = {}
    for words in documented_commands():
        if words == ["benco", "init"]:
            run_code(
                f"import sys; sys.argv = {words}; from IMDLBenCo.cli import main; main()", folder
            )
        elif words[0] == "python":
            is_resumed = "--resume" in words
            words = shortened(words, epochs=2 if is_resumed else 1)
            done = Fork(partial(run_script, words[1:]), folder).wait()
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
            outputs["--resume" if is_resumed else words[1]] = done.stdout + done.stderr
        else:
            subprocess.run(words[0], shell=True, check=True, cwd=folder)
    assert list(outputs) == ["train.py", "--resume", "test.py", "test_save_images.py"]
    return folder, outputs


def test_training_runs_without_torchrun(project):
    """It was an UnboundLocalError (global_rank) of train.py."""
    folder, outputs = project
    assert "distributed init (rank 0)" in outputs["train.py"]
    assert "CUDA is not available, but BenCo's scripts need it" not in outputs["train.py"]
    assert (folder / "runs/own/checkpoint-0.pth").is_file()


def test_training_is_resumed(project):
    """It was an UnpicklingError of torch 2.6 and newer."""
    folder, outputs = project
    assert "With optim & sched!" in outputs["--resume"]
    log = (folder / "runs/own/log.txt").read_text(encoding="utf-8")
    assert [json.loads(line)["epoch"] for line in log.splitlines()] == [0, 1]


def test_checkpoints_are_tested_without_device_flag(project):
    """On a CPU, it was an error that CUDA is not available when the checkpoint was loaded."""
    log = (project[0] / "runs/own-test/small/log.txt").read_text(encoding="utf-8")
    assert [json.loads(line)["epoch"] for line in log.splitlines()] == [0, 1]


def test_masks_are_saved_for_a_relative_checkpoint_path(project):
    """It was a FileNotFoundError for runs/own/checkpoint-1.pth/runs/own/checkpoint-1.pth."""
    assert len(list((project[0] / "runs/own-images/pred").glob("*.png"))) == 7


def test_variables_of_torchrun_are_not_replaced(monkeypatch):
    from qma_net.core.single_process import set_up_single_process

    monkeypatch.setenv("RANK", "3")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    set_up_single_process()
    assert os.environ["RANK"] == "3"
    assert "WORLD_SIZE" not in os.environ


@pytest.fixture
def slurm(monkeypatch):
    """Imitate the environment of a task of Slurm, in a run without torchrun."""
    variables = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    for name in variables:
        monkeypatch.setenv(name, "")  # So that it is restored.
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_PROCID", "0")
    return monkeypatch


@pytest.mark.parametrize("tasks", ["1", None])
def test_single_process_in_a_shell_of_slurm_is_set_up(slurm, tasks):
    """BenCo then chose its mode for Slurm, which divides by the number of GPUs."""
    from qma_net.launch.torchrun import set_up_process

    slurm.delenv("SLURM_NTASKS", raising=False)
    if tasks:
        slurm.setenv("SLURM_NTASKS", tasks)
    set_up_process("train")
    assert (os.environ["RANK"], os.environ["WORLD_SIZE"]) == ("0", "1")


def test_several_tasks_of_slurm_without_torchrun_are_rejected(slurm):
    from qma_net.launch.torchrun import LaunchError, set_up_process

    slurm.setenv("SLURM_NTASKS", "4")
    with pytest.raises(LaunchError, match=r"Slurm runs 4 tasks, .* torchrun or shell/slurm\.sh"):
        set_up_process("train")
    with pytest.raises(LaunchError, match="test_complexity runs in one process, not 4"):
        set_up_process("test_complexity")
    slurm.delenv("SLURM_PROCID")  # In a shell of the allocation, outside of its tasks.
    set_up_process("train")
    assert os.environ["RANK"] == "0"


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

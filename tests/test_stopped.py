"""Interrupted commands: unwritable folders, concurrent runs, SIGKILL and full disks.

``QMA_NET_KILLS`` is the number of times that each command is killed (see ``shell/endurance.sh``).
The moments are drawn with a fixed seed over the duration of the whole command.
"""

import json
import multiprocessing
import os
import random
import resource
import sys
import time
from argparse import Namespace
from pathlib import Path

import cv2
import pytest
import torch

from conftest import TINY, photograph
from launching import write_tampered_set
from qma_net import build, cli
from qma_net.core.runs import FolderLock
from qma_net.examine.page import REPORT
from qma_net.modeling import config
from qma_net.weights.checkpoint import CONFIG_KEY, NETWORK_PREFIX, config_to_extra_state
from sample_archives import ARCHIVES

KILLS = int(os.environ.get("QMA_NET_KILLS", 2))
SEED = 20261124


def predict(work: Path, out: Path) -> list:
    return ["predict", work / "photos", "--checkpoint", work / "checkpoint-0.pth", "--out", out]


def examine(work: Path, out: Path) -> list:
    return ["examine", work / "photos", "--checkpoint", "none", "--out", out]


def evaluate(work: Path, out: Path) -> list:
    sources = ["--checkpoint", work / "checkpoint-0.pth", "--test-sets", work / "sets.json"]
    return ["evaluate", *sources, "--out", out, "--workers", 0, "--batch-size", 1, "--save-masks"]


def robust(work: Path, out: Path) -> list:
    sources = ["--checkpoint", work / "checkpoint-0.pth", "--test-sets", work / "sets.json"]
    attacks = ["--attacks", "gaussian-blur", "--batch-size", 1]
    return ["robust", *sources, "--out", out, "--workers", 0, *attacks, "--save-masks"]


def prepare(work: Path, out: Path) -> list:
    source = ["--source", work / "archive"]
    return ["data", "prepare", "Coverage", *source, "--out", out, "--partial"]


def synth(work: Path, out: Path) -> list:
    counts = ["--count", 24, "--test-count", 3, "--image-size", 64, "--workers", 1]
    return ["data", "synth", "--photos", work / "photos", "--out", out, *counts]


def convert(work: Path, out: Path) -> list:
    return ["convert", work / "checkpoint-0.pth", "--out", out]


def report(work: Path, out: Path) -> list:
    return ["report", work / "results", "--out", out / "report.html"]


COMMANDS = (predict, examine, evaluate, robust, prepare, synth, convert, report)
READS_BENCO = {evaluate, robust}
each = pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)


@pytest.fixture(autouse=True)
def unchanged_cuda(monkeypatch):
    """Keep commands that run in this process from patching torch for the tests after them."""
    monkeypatch.setattr("qma_net.launch.cuda_to_cpu.redirect_cuda_to_cpu", lambda: None)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with photos, a test set, a checkpoint and results, for all commands."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "photos").mkdir()
    for number in range(6):
        pixels = photograph(200, 240, number)
        cv2.imwrite(str(folder / f"photos/{number}.png"), pixels)
    write_tampered_set(folder, count=4)
    config.SIZES["tiny"] = TINY
    torch.manual_seed(0)
    model = build.build_qma_net("tiny", views="srm", drop_path=0.0)
    state = {f"{NETWORK_PREFIX}{name}": tensor for name, tensor in model.state_dict().items()}
    state[CONFIG_KEY] = config_to_extra_state(model.config)
    args = {"image_size": 64, "if_resizing": True, "if_padding": False}
    content = {"model": state, "args": Namespace(**args)}
    torch.save(content, folder / "checkpoint-0.pth")
    ARCHIVES["Coverage"](folder / "archive")
    (folder / "results/run").mkdir(parents=True)
    rows = [{"epoch": epoch, "train_total_loss": 1 / (1 + epoch)} for epoch in range(5)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "results/run/log.txt").write_text(lines)
    return folder


def error_of(argv, capsys) -> str:
    """Run a command that fails, and return its one-line message."""
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in argv])
    message = str(ended.value)
    if ended.value.code == 1:
        message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("qma-net: ")
    assert "\n" not in message
    return message


@each
@pytest.mark.parametrize("kind", ["a file", "under a file", "read-only"])
def test_unwritable_output_gives_one_line_error(command, kind, work, tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"mine")
    out = {
        "a file": tmp_path / "file",
        "under a file": tmp_path / "file/out",
        "read-only": Path("/sys/out"),  # Not even root can write here.
    }[kind]
    assert str(out.parent) in error_of(command(work, out), capsys)
    assert (tmp_path / "file").read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "command",
    [command for command in COMMANDS if command is not convert],
    ids=lambda command: command.__name__,
)
def test_concurrent_run_is_rejected(command, work, tmp_path, capsys):
    out = tmp_path / "out"
    if command in READS_BENCO:
        context = multiprocessing.get_context("forkserver")
        other = context.Process(target=hold_and_wait, args=(out,))
        other.start()
        while not (out / "held").exists():
            time.sleep(0.01)
        try:
            assert "another run is writing to" in error_of(command(work, out), capsys)
        finally:
            other.kill()
            other.join()
        cli.main([str(word) for word in command(work, out)])  # The lock ended with its process.
        return
    with FolderLock(tmp_path / "out.unfinished" if command is synth else out):
        assert "another run is writing to" in error_of(command(work, out), capsys)


def hold_and_wait(folder):
    with FolderLock(folder):
        (folder / "held").touch()
        time.sleep(60)


# SIGKILL and full disks, in child processes


def run_command(argv, out, max_bytes):
    """Run a command in a child process, with its output in files and a limit on file sizes."""
    for number, file in ((1, f"{out}.out"), (2, f"{out}.err")):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = (open(n, "w", encoding="utf-8", buffering=1) for n in (1, 2))  # noqa: SIM115
    torch.set_num_threads(1)
    config.SIZES["tiny"] = TINY
    if max_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, max_bytes))
    cli.main([str(word) for word in argv])


def begin(command, work, out, max_bytes=0):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["IMDLBenCo.training_scripts.train", "qma_net.benco", "qma_net.evaluation.robust"]
        + ["qma_net.examine.pipeline", "qma_net.synth.synthesise", "qma_net.report"]
    )
    child = context.Process(target=run_command, args=(command(work, out), out, max_bytes))
    child.start()
    return child


def contents(out: Path) -> dict[str, bytes]:
    """Return the files of a run without its folder and date, and without journals."""
    files = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        is_journal = path.name.startswith(".") or path.name == "prepare.jsonl"
        if path.is_file() and not is_journal and path.name != "report.html":
            content = path.read_bytes().replace(str(out).encode(), b"OUT")
            if path.name == REPORT:
                content = json.dumps({**json.loads(content), "date": ""}).encode()
            files[name] = content
    return files


@pytest.mark.slow
@each
def test_same_command_completes_a_killed_run(command, work, tmp_path, record):
    for name in ("first", "whole"):  # The first one also imports modules.
        started = time.monotonic()
        child = begin(command, work, tmp_path / name)
        child.join(300)
        seconds = time.monotonic() - started
        assert child.exitcode == 0, (tmp_path / f"{name}.err").read_text()[-2000:]
    whole = contents(tmp_path / "whole")
    assert whole
    out, moments = tmp_path / "killed", random.Random(f"{SEED} {command.__name__}")
    killed_running = 0
    for _ in range(KILLS):
        child = begin(command, work, out)
        child.join(moments.uniform(0, seconds))
        killed_running += child.is_alive()
        child.kill()
        child.join()
        for name, content in (contents(out) if out.exists() else {}).items():
            if name in whole and name.endswith((".png", ".jpg", ".md", ".tex")):
                assert content == whole[name], f"{name} is incomplete"
    child = begin(command, work, out)
    child.join(300)
    assert child.exitcode == 0, (tmp_path / "killed.err").read_text()[-2000:]
    assert contents(out) == whole
    name = command.__name__
    record(
        f"{name}: SIGKILL {KILLS} times, {killed_running} of them while it was running: "
        "completed to the same bytes"
    )


@pytest.mark.slow
@each
def test_full_disk_gives_one_line_error_and_leaves_no_partial_files(command, work, tmp_path):
    # More than a command prints, less than it writes.
    max_bytes = 12_000 if command in READS_BENCO else 1_500
    out = tmp_path / "out"
    child = begin(command, work, out, max_bytes)
    child.join(300)
    errors = (tmp_path / "out.err").read_text()
    assert child.exitcode == 1
    assert "Traceback" not in errors
    assert "File too large" in errors.strip().splitlines()[-1]
    assert not list(tmp_path.rglob("*.tmp"))
    child = begin(command, work, out)
    child.join(300)
    assert child.exitcode == 0, (tmp_path / "out.err").read_text()[-2000:]

"""Every command that writes: refused in one line, and killed at any moment without a loss.

``QMA_NET_KILLS`` is how often each command is killed (``shell/endurance.sh`` says how often); the
moments are drawn with a fixed seed over the time that the whole command takes.
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
from miniatures import ARCHIVES
from qma_net import build, cli
from qma_net.core.runs import FolderLock
from qma_net.examine.examination_page import REPORT
from qma_net.modeling import config
from qma_net.weights.checkpoint import CONFIG_KEY, NETWORK_PREFIX, config_to_extra_state

KILLS = int(os.environ.get("QMA_NET_KILLS", 2))
SEED = 20261124


def predict(work: Path, out: Path) -> list:
    return ["predict", work / "photos", "--checkpoint", work / "checkpoint-0.pth", "--out", out]


def examine(work: Path, out: Path) -> list:
    return ["examine", work / "photos", "--checkpoint", "none", "--out", out]


def evaluate(work: Path, out: Path) -> list:
    where = ["--checkpoint", work / "checkpoint-0.pth", "--test-sets", work / "sets.json"]
    return ["evaluate", *where, "--out", out, "--workers", 0, "--batch-size", 1, "--save-masks"]


def robust(work: Path, out: Path) -> list:
    where = ["--checkpoint", work / "checkpoint-0.pth", "--test-sets", work / "sets.json"]
    attacks = ["--attacks", "gaussian-blur", "--batch-size", 1]
    return ["robust", *where, "--out", out, "--workers", 0, *attacks, "--save-masks"]


def prepare(work: Path, out: Path) -> list:
    return ["data", "prepare", "Coverage", "--source", work / "archive", "--out", out]


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
def cuda_as_it_is(monkeypatch):
    """Commands that run in this process leave torch as it is, for the tests after them."""
    monkeypatch.setattr("qma_net.launch.cuda_to_cpu.redirect_cuda_to_cpu", lambda: None)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with what every command reads: photographs, a set, a checkpoint, results."""
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


def refused(argv, capsys) -> str:
    """The one line that a command ends with."""
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
def test_an_output_that_cannot_be_written_is_one_line(command, kind, work, tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"mine")
    out = {
        "a file": tmp_path / "file",
        "under a file": tmp_path / "file/out",
        "read-only": Path("/sys/out"),  # also for root
    }[kind]
    said = refused(command(work, out), capsys)
    assert str(out.parent) in said
    assert (tmp_path / "file").read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "command", [one for one in COMMANDS if one is not convert], ids=lambda one: one.__name__
)
def test_a_second_run_at_once_is_refused(command, work, tmp_path, capsys):
    out = tmp_path / "out"
    if command in READS_BENCO:
        context = multiprocessing.get_context("forkserver")
        other = context.Process(target=hold_and_wait, args=(out,))
        other.start()
        while not (out / "held").exists():
            time.sleep(0.01)
        try:
            assert "another run is writing to" in refused(command(work, out), capsys)
        finally:
            other.kill()
            other.join()
        cli.main([str(word) for word in command(work, out)])  # the hold died with its process
        return
    with FolderLock(tmp_path / "out.unfinished" if command is synth else out):
        assert "another run is writing to" in refused(command(work, out), capsys)


def hold_and_wait(folder):
    with FolderLock(folder):
        (folder / "held").touch()
        time.sleep(60)


# Killed, and a disk that is full: in processes of their own


def run_command(argv, out, room):
    """In a child: the command, its output to files; ``room`` bounds what it may write."""
    for number, file in ((1, f"{out}.out"), (2, f"{out}.err")):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = (open(n, "w", buffering=1) for n in (1, 2))  # noqa: SIM115
    torch.set_num_threads(1)
    config.SIZES["tiny"] = TINY
    if room:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    cli.main([str(word) for word in argv])


def begin(command, work, out, room=0):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["IMDLBenCo.training_scripts.train", "qma_net.benco", "qma_net.evaluation.robust"]
        + ["qma_net.examine.examine", "qma_net.synth.synthesise", "qma_net.report"]
    )
    child = context.Process(target=run_command, args=(command(work, out), out, room))
    child.start()
    return child


def describe_content(out: Path) -> dict[str, bytes]:
    """The files of a finished run, without what names its folder or its hour."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_file() and path.name not in (".running", "report.html", "prepare.jsonl"):
            content = path.read_bytes().replace(str(out).encode(), b"OUT")
            if path.name == REPORT:
                content = json.dumps({**json.loads(content), "date": ""}).encode()
            found[name] = content
    return found


@pytest.mark.slow
@each
def test_killed_at_any_moment_the_same_command_completes_it(command, work, tmp_path, record):
    for name in ("first", "whole"):  # the first one also waits for imports
        started = time.monotonic()
        child = begin(command, work, tmp_path / name)
        child.join(300)
        seconds = time.monotonic() - started
        assert child.exitcode == 0, (tmp_path / f"{name}.err").read_text()[-2000:]
    whole = describe_content(tmp_path / "whole")
    assert whole
    out, moments = tmp_path / "killed", random.Random(f"{SEED} {command.__name__}")
    living = 0
    for _ in range(KILLS):
        child = begin(command, work, out)
        child.join(moments.uniform(0, seconds))
        living += child.is_alive()
        child.kill()
        child.join()
        for name, content in (describe_content(out) if out.exists() else {}).items():
            if name in whole and name.endswith((".png", ".jpg", ".md", ".tex")):
                assert content == whole[name], f"{name} is not whole"
    child = begin(command, work, out)
    child.join(300)
    assert child.exitcode == 0, (tmp_path / "killed.err").read_text()[-2000:]
    assert describe_content(out) == whole
    name = command.__name__
    record(
        f"{name}: SIGKILL {KILLS} times, {living} of them in mid-run: completed to the same bytes"
    )


@pytest.mark.slow
@each
def test_a_full_disk_is_one_line_and_what_was_written_is_whole(command, work, tmp_path):
    # Bytes of a file: more than a command says, less than it writes.
    room = 12_000 if command in READS_BENCO else 1_500
    out = tmp_path / "out"
    child = begin(command, work, out, room)
    child.join(300)
    said = (tmp_path / "out.err").read_text()
    assert child.exitcode == 1
    assert "Traceback" not in said
    assert "File too large" in said.strip().splitlines()[-1]
    assert not list(tmp_path.rglob("*.tmp"))
    child = begin(command, work, out)
    child.join(300)
    assert child.exitcode == 0, (tmp_path / "out.err").read_text()[-2000:]

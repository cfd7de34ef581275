"""Training with BenCo's train.py: resuming, stopping, non-finite losses, bad data and flags."""

import errno
import json
import math
import multiprocessing
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import time
from argparse import Namespace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import ROOT, TINY
from forks import HANG_TIMEOUT, run_code
from launching import SIZE, Launched, start, write_tampered_set
from qma_net.core.errors import QMANetError
from qma_net.core.files import ContentError, read_json_lines
from qma_net.launch.checkpoints import (
    delete_old_checkpoints,
    is_new_best,
    keep_parameter_groups,
    newest_intact_checkpoint,
    remove_unfinished,
    save_atomically,
    save_best,
    saved_epochs,
    set_aside_later_epochs,
)
from qma_net.launch.flags import (
    check_model,
    complete_from_checkpoint,
    parse_own_flags,
)
from qma_net.launch.nonfinite_steps import StepGuard
from qma_net.launch.preflight import check_data, check_flags, exclude_faulty_pairs
from qma_net.launch.recipes import require_image_size
from qma_net.launch.stop_requests import STOP_FILE
from qma_net.launch.torchrun import LaunchError, resuming_command
from qma_net.launch.training_hooks import TrainingHooks
from qma_net.launch.unreadable_images import UnreadableImages
from qma_net.modeling import config
from qma_net.weights.checkpoint import load_checkpoint
from qma_net.weights.locate import load_model
from sample_archives import truncate

FLAGS = ["--model", "QMANet", "--size", "tiny", "--views", "srm", *SIZE]
FLAGS += ["--data_path", "set", "--test_data_path", "sets.json", "--batch_size", 2]
FLAGS += ["--accum_iter", 1, "--warmup_epochs", 1, "--lr", 1e-4, "--log_dir", "log"]


def flags(out, *more, epochs=3):
    return ["train", *FLAGS, "--epochs", epochs, "--output_dir", out, *more]


def rows(folder: Path) -> list[dict]:
    return read_json_lines(folder / "log.txt")


@pytest.fixture
def work(tmp_path):
    """Return a folder with seven tampered images for training and testing: 3 steps per epoch."""
    write_tampered_set(tmp_path)
    return tmp_path


# Functions that the child process calls before the launcher starts


def small():
    config.SIZES["tiny"] = TINY


def at_batch(epoch, step, action):
    """Call ``action`` at a training batch of an epoch."""
    small()
    import IMDLBenCo.training_scripts.trainer as trainer

    from qma_net import benco

    position = {"epoch": -1, "step": 0}
    train, forward = trainer.train_one_epoch, benco.QMANet.forward

    def train_one_epoch(model, loader, optimizer, device, number, *args, **kwargs):
        position.update(epoch=number, step=0)
        return train(model, loader, optimizer, device, number, *args, **kwargs)

    def watched(self, *args, **kwargs):
        if self.training:
            if (position["epoch"], position["step"]) == (epoch, step):
                action()
            position["step"] += 1
        return forward(self, *args, **kwargs)

    trainer.train_one_epoch, benco.QMANet.forward = train_one_epoch, watched


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_test_of(epoch):
    small()
    import IMDLBenCo.training_scripts.tester as tester

    test = tester.test_one_epoch

    def die_or_test(*args, **kwargs):
        if kwargs["epoch"] == epoch:
            die()
        return test(*args, **kwargs)

    tester.test_one_epoch = die_or_test


def slow_steps():
    small()
    from qma_net import benco

    forward = benco.QMANet.forward

    def slow(self, *args, **kwargs):
        time.sleep(0.5)
        return forward(self, *args, **kwargs)

    benco.QMANet.forward = slow


def stuck_after_a_step():
    """Complete the first step and hang in the second."""
    fork_loader_processes()
    from qma_net import benco

    forward, steps = benco.QMANet.forward, []

    def stuck(self, *args, **kwargs):
        steps.append(1)
        time.sleep(600 if len(steps) > 1 else 0)
        return forward(self, *args, **kwargs)

    benco.QMANet.forward = stuck


def make_loss_nan(names):
    """Make the loss of every batch that contains one of these images NaN."""
    small()
    from qma_net import benco

    forward = benco.QMANet.forward

    def with_nan(self, *args, **kwargs):
        result = forward(self, *args, **kwargs)
        if self.training and names & set(kwargs["name"]):
            result["backward_loss"] = result["backward_loss"] * math.nan
            result["visual_loss"]["total_loss"] = result["backward_loss"]
        return result

    benco.QMANet.forward = with_nan


def fork_loader_processes():
    """Fork the loader's processes, as is the default outside of the test's fork server."""
    small()
    multiprocessing.set_start_method("fork", force=True)


def pretend_restart():
    """Pretend that torchrun has restarted the processes."""
    small()
    os.environ["TORCHELASTIC_RESTART_COUNT"] = "1"


def limit_file_size():
    """Let no file grow beyond 4 MiB, which fails where a full disk would."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**22, 2**22))


# Checkpoints and resuming


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    write_tampered_set(folder)
    done = start(flags("run", "--test_period", 2, epochs=4), folder, prepare=small)
    return folder / "run", done


def test_every_epoch_is_saved_and_few_checkpoints_are_kept(uninterrupted):
    folder, _ = uninterrupted
    assert saved_epochs(folder) == [0, 2, 3]
    assert [row["epoch"] for row in rows(folder)] == [0, 1, 2, 3]
    note = json.loads((folder / "best/best.json").read_text())
    tested = [0, 2, 3]
    assert note["epoch"] in tested
    assert saved_epochs(folder / "best") == [note["epoch"]]


def test_startup_is_summarized_on_console_and_logged_to_file(uninterrupted):
    folder, done = uninterrupted
    before = done.stdout[: done.stdout.index("Epoch: [0]")].splitlines()
    assert len(before) < 20
    text = "\n".join(before)
    assert "model: QMANet, " in text
    assert "data: set 7" in text
    assert "test sets: small 7" in text
    assert "batch 2 x accumulation 1 x 1 process = 2 images, 3 steps per epoch" in text
    assert "epochs 0 to 3, learning rate 0.0001 to 0, no AMP, cuDNN off" in text
    written = (folder / "startup.txt").read_text()
    assert f"full startup log ({len(written.splitlines())} lines)" in text
    assert "Model = QMANet(" in written
    assert "(AMP) is enabled" not in done.stdout
    assert "Start training" not in done.stdout  # BenCo says so even if no epoch is left.
    assert done.stdout.count("(AMP) is disabled") == 4  # In every epoch.
    assert "0 errors, 0 warnings" in written


def test_run_killed_and_resumed_twice_equals_uninterrupted_run(uninterrupted, work):
    """Kill during an epoch and between saving and testing; truncate a newer checkpoint."""
    command = flags("run", "--test_period", 2, "--resume", "auto", epochs=4)
    first = start(command, work, prepare=partial(at_batch, 1, 1, die), check=False)
    assert first.returncode == -signal.SIGKILL
    run = work / "run"
    assert saved_epochs(run) == [0]
    (run / "checkpoint-3.pth").write_bytes((run / "checkpoint-0.pth").read_bytes()[:-5000])
    (run / ".qma-net-x.tmp").write_bytes(b"half")
    with open(run / "log.txt", "a", encoding="utf-8") as file:
        file.write('{"epoch": 1, "trai')
    second = start(command, work, prepare=partial(die_in_test_of, 2), check=False)
    assert second.returncode == -signal.SIGKILL
    assert "skipping run/checkpoint-3.pth: it is incomplete or damaged" in second.stdout
    assert "resuming from run/checkpoint-0.pth: continuing with epoch 1" in second.stdout
    assert not list(run.glob("*.tmp"))
    (run / "checkpoint-3.pth").unlink(missing_ok=True)
    assert [row["epoch"] for row in rows(run)] == [0, 1]
    third = start(command, work, prepare=small)
    assert "epoch 2 was saved but not logged; testing it without training again" in third.stdout
    assert "Epoch: [2]" not in third.stdout
    whole, resumed = rows(uninterrupted[0]), rows(run)
    assert [list(row) for row in whole] == [list(row) for row in resumed]
    for expected, row in zip(whole, resumed, strict=True):
        assert list(row.values()) == pytest.approx(list(expected.values()), abs=1e-6)
    notes = [(folder / "best/best.json").read_text() for folder in (uninterrupted[0], run)]
    assert notes[0] == notes[1]


def test_new_run_in_folder_with_checkpoints_is_rejected_with_resume_command(work):
    (work / "run").mkdir()
    (work / "run/checkpoint-4.pth").write_bytes(b"")
    done = start(flags("run"), work, prepare=small, check=False)
    assert done.returncode == 1
    # Libraries may print warnings before it when they are first imported.
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("qma-net: ")]
    assert line == done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "--output_dir run already contains checkpoints up to epoch 4" in line
    assert shlex.split(line.partition("resume with: ")[2])[-2:] == ["--resume", "auto"]


def test_folder_without_intact_checkpoint_returns_none(tmp_path, caplog):
    caplog.set_level("INFO", "qma_net")
    (tmp_path / "checkpoint-1.pth").write_bytes(b"PK")
    torch.save({"model": {}}, tmp_path / "checkpoint-0.pth")
    assert newest_intact_checkpoint(tmp_path) is None
    assert "checkpoint-1.pth: it is incomplete or damaged" in caplog.text
    assert "checkpoint-0.pth: it lacks epoch, optimizer" in caplog.text


def test_damaged_checkpoint_is_skipped(tmp_path):
    for epoch in (0, 1):
        state = {"model": {"w": torch.ones(1000)}, "optimizer": {}, "epoch": epoch}
        torch.save(state, tmp_path / f"checkpoint-{epoch}.pth")
    content = bytearray((tmp_path / "checkpoint-1.pth").read_bytes())
    position = content.index(b"\x00\x00\x80\x3f" * 8)
    content[position : position + 4] = b"\x00\x00\x00\x00"  # One weight in mid-file.
    (tmp_path / "checkpoint-1.pth").write_bytes(content)
    assert newest_intact_checkpoint(tmp_path).name == "checkpoint-0.pth"


def test_pruning_keeps_newest_two_every_25th_and_last_epoch(tmp_path):
    for epoch in (0, 3, 24, 25, 26, 27, 28):
        (tmp_path / f"checkpoint-{epoch}.pth").touch()
    delete_old_checkpoints(tmp_path, epochs=29)
    assert saved_epochs(tmp_path) == [0, 25, 27, 28]


@pytest.fixture
def diverged(tmp_path):
    """Return the folder of a run with logged epochs 0 to 29, of which 28 is the best."""
    content = {"model": {}, "optimizer": {}}
    for epoch in (0, 25, 27, 28, 29):
        torch.save({**content, "epoch": epoch}, tmp_path / f"checkpoint-{epoch}.pth")
    save_best(tmp_path, 28, {"a": 0.5})
    log = "".join(json.dumps({"train_loss": 0.1, "epoch": epoch}) + "\n" for epoch in range(30))
    (tmp_path / "log.txt").write_text(log)
    return tmp_path


def resume(folder, checkpoint, start_epoch):
    """Resume as after BenCo's ``load_model``."""
    hooks = TrainingHooks(
        Namespace(save_period=1, max_skipped=50, clip_grad=0.0, fit=""), startup=None, command=""
    )
    args = {"output_dir": str(folder), "resume": str(checkpoint), "start_epoch": start_epoch}
    hooks._resume(Namespace(**args, epochs=150))
    return hooks


@pytest.mark.parametrize("is_own", [True, False])
def test_epochs_after_the_resumed_one_are_set_aside(diverged, tmp_path_factory, is_own, caplog):
    """The next ``--resume auto`` returned to the epochs that diverged."""
    caplog.set_level("INFO", "qma_net")
    before = (diverged / "log.txt").read_text().splitlines(keepends=True)
    best = (diverged / "best/checkpoint-28.pth").read_bytes()
    checkpoint = diverged / "checkpoint-25.pth"
    if not is_own:
        checkpoint = tmp_path_factory.mktemp("other") / "weights.pth"
        checkpoint.write_bytes((diverged / "checkpoint-25.pth").read_bytes())
    resume(diverged, checkpoint, 26)
    assert newest_intact_checkpoint(diverged) == diverged / "checkpoint-25.pth"
    assert saved_epochs(diverged) == [0, 25]
    assert saved_epochs(diverged / "superseded") == [27, 28, 29]
    assert (diverged / "superseded/best/checkpoint-28.pth").read_bytes() == best
    assert not list((diverged / "best").iterdir())
    assert is_new_best(diverged, 0.1)
    assert (diverged / "log.txt").read_text() == "".join(before[:26])
    assert "moved the epochs after 25 to" in caplog.text
    assert (diverged / "superseded/log.txt").read_text() == "".join(before[26:])
    assert "moved the rows of epochs after 25 from log.txt to" in caplog.text


def test_resuming_from_the_newest_epoch_changes_nothing(diverged):
    before = {path: path.is_dir() or path.read_bytes() for path in diverged.rglob("*")}
    hooks = resume(diverged, diverged / "checkpoint-29.pth", 30)
    assert {path: path.is_dir() or path.read_bytes() for path in diverged.rglob("*")} == before
    assert not hooks.to_test


def test_epochs_are_set_aside_completely_after_interruptions(diverged, monkeypatch):
    """Each attempt is interrupted at its second rename; six files are renamed in total."""
    replace = Path.replace
    for _ in range(5):
        renamed = []

        def rename_once(file, target, renamed=renamed):
            renamed.append(target)
            return interrupt() if len(renamed) > 1 else replace(file, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", rename_once)
            with pytest.raises(KeyboardInterrupt):
                set_aside_later_epochs(diverged, 25)
        remove_unfinished(diverged)
    set_aside_later_epochs(diverged, 25)
    assert saved_epochs(diverged) == [0, 25]
    assert not list((diverged / "best").iterdir())
    assert [row["epoch"] for row in rows(diverged)] == list(range(26))


def test_best_epoch_is_saved_even_if_not_due(tmp_path):
    """With --save_period 5 a tested epoch may not have been saved."""
    hooks = TrainingHooks(
        Namespace(save_period=5, max_skipped=50, clip_grad=0.0, fit=""), startup=None, command=""
    )
    hooks.save = lambda: (tmp_path / "checkpoint-3.pth").write_bytes(b"three")
    hooks.test_means = {"a": 0.5, "b": 0.3}
    hooks._save_if_best(tmp_path, 3)
    assert (tmp_path / "best/checkpoint-3.pth").read_bytes() == b"three"
    hooks.save = pytest.fail
    for worse in ({"a": 0.4, "b": 0.4}, {"a": math.nan, "b": 0.9}):
        hooks.test_means = worse
        hooks._save_if_best(tmp_path, 4)
    assert json.loads((tmp_path / "best/best.json").read_text())["epoch"] == 3


def test_best_note_names_existing_file_if_killed_during_replacement(tmp_path, monkeypatch):
    """A kill between the copy and its note leaves the old note and its checkpoint."""
    for epoch in (1, 2):
        (tmp_path / f"checkpoint-{epoch}.pth").write_bytes(bytes([epoch]))
    save_best(tmp_path, 1, {"a": 0.5})
    monkeypatch.setattr("qma_net.launch.checkpoints.write_json", lambda *_: interrupt())
    with pytest.raises(KeyboardInterrupt):
        save_best(tmp_path, 2, {"a": 0.6})
    note = json.loads((tmp_path / "best/best.json").read_text())
    assert (tmp_path / f"best/checkpoint-{note['epoch']}.pth").read_bytes() == b"\x01"


def interrupt():
    raise KeyboardInterrupt


def test_full_disk_keeps_earlier_checkpoints(work):
    prepare = partial(at_batch, 1, 0, limit_file_size)
    done = start(flags("run"), work, prepare=prepare, check=False)
    assert done.returncode == 1
    assert "qma-net: cannot write run/checkpoint-1.pth: " in done.stderr
    assert "Traceback" not in done.stderr
    assert newest_intact_checkpoint(work / "run").name == "checkpoint-0.pth"
    assert not list((work / "run").glob(".*.tmp"))


def test_empty_output_dir_saves_nothing_and_prints_everything(work):
    done = start(flags("", epochs=1), work, prepare=partial(make_loss_nan, {"3.jpg"}))
    assert "Model = QMANet(" in done.stdout
    assert not list(work.rglob("*.pth"))
    assert {path.name for path in work.iterdir()} == {"set", "sets.json", "log", ".out", ".err"}


@pytest.fixture
def misc():
    """Return BenCo's misc module and restore it afterwards, since the launcher does not."""
    import IMDLBenCo.training_scripts.utils.misc as misc

    original = dict(vars(misc))
    load_state_dict = misc.NativeScalerWithGradNormCount.load_state_dict
    yield misc
    vars(misc).update(original)
    misc.NativeScalerWithGradNormCount.load_state_dict = load_state_dict


def test_full_disk_raises_launch_error(misc, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    save_atomically()
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(LaunchError, match=r"cannot write .*: \[Errno 28\] No space .*MiB free\)"):
        misc.save_on_master({}, tmp_path / "checkpoint-0.pth")


@pytest.mark.parametrize("function", ["copy_file", "write_json"])
def test_full_disk_while_the_best_epoch_is_copied_raises_launch_error(
    tmp_path, monkeypatch, function
):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "checkpoint-3.pth").touch()
    monkeypatch.setattr(f"qma_net.launch.checkpoints.{function}", full)
    with pytest.raises(LaunchError, match=r"cannot write .*best/checkpoint-3\.pth: \[Errno 28\]"):
        save_best(tmp_path, 3, {"a": 0.5})


# Stopping


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("SIGTERM", 143),
        ("SIGINT", 130),
        (STOP_FILE, 0),
        pytest.param("SIGINT twice", 130, marks=pytest.mark.slow),
    ],
)
def test_stop_request_ends_after_step_with_resume_command(work, how, code):
    run, twice = work / "run", how == "SIGINT twice"
    running = Launched(flags("run", "--test_period", 9), work, slow_steps)
    deadline = time.monotonic() + HANG_TIMEOUT
    while "Epoch: [1]" not in running.output() and time.monotonic() < deadline:
        time.sleep(0.1)
    if how == STOP_FILE:
        (run / STOP_FILE).touch()
    else:
        os.kill(running.child.pid, getattr(signal, how.split()[0]))
    if twice:
        time.sleep(0.05)
        os.kill(running.child.pid, signal.SIGINT)
    done = running.wait(HANG_TIMEOUT)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert not (run / STOP_FILE).exists()
    assert newest_intact_checkpoint(run).name == "checkpoint-0.pth"
    commands = re.findall(r"Resume with: (.*)", done.stdout)
    assert len(commands) == (0 if twice else 1)
    if not twice:
        words = shlex.split(commands[0])
        assert words[:2] == ["qma-net", "train"]
        assert words[-2:] == ["--resume", "auto"]


def test_resuming_command_repeats_given_command():
    command = [sys.executable, "-c"]
    command += ["from qma_net.launch.torchrun import resuming_command as c; import sys;"]
    command[-1] += " print(c('train', sys.argv[2:]))"
    command += ["train", "--lr", "1e-4", "--resume", "old.pth", "--resume=older.pth"]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert shlex.split(out) == [*command[:-3], "--resume", "auto"]
    assert resuming_command("train", ["--lr", "1"]) == "qma-net train --lr 1 --resume auto"


# Restarts by torchrun

KILLED_ONCE = """
import os, signal, sys
from functools import partial
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_training import at_batch, small
small()
kills = {kills!r}
attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
if attempt < len(kills):
    rank, epoch, step = kills[attempt]
    if int(os.environ["RANK"]) == rank:
        at_batch(epoch, step, lambda: os.kill(os.getpid(), signal.SIGKILL))
from qma_net.launch import main
main()
"""


def run_and_kill(work, kills, *, epochs):
    """Run two processes under torchrun and kill one in each attempt but the last."""
    script = work / "killed.py"
    script.write_text(KILLED_ONCE.format(tests=str(ROOT / "tests"), kills=kills))
    return start(
        flags("run", "--test_period", 9, "--resume", "auto", epochs=epochs),
        work,
        processes=2,
        launcher=(script,),
        more=("--max-restarts", len(kills)),
        env={"PYTHONPATH": str(ROOT)},
        timeout=HANG_TIMEOUT * len(kills),
    )


@pytest.mark.slow
def test_torchrun_restarts_run_killed_five_times(work, record):
    kills = [(0, 0, 0), (1, 1, 0), (0, 2, 0), (1, 3, 0), (0, 3, 0)]
    run_and_kill(work, kills, epochs=4)
    assert [row["epoch"] for row in rows(work / "run")] == [0, 1, 2, 3]
    record(f"train: one of 2 processes killed {len(kills)} times under torchrun: completed")


@pytest.mark.slow
@pytest.mark.parametrize("how", [STOP_FILE, "SIGTERM"])
def test_all_ranks_stop_together(work, how):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", "2", "-m", "qma_net.launch"]
    command += map(str, flags("run", "--test_period", 99, epochs=200))
    command = [word if word != "tiny" else "b0" for word in map(str, command)]
    with open(work / "out", "w", encoding="utf-8") as out:
        running = subprocess.Popen(
            command, cwd=work, stdout=out, stderr=out, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        deadline = time.monotonic() + HANG_TIMEOUT
        while "Epoch: [1]" not in (work / "out").read_text() and time.monotonic() < deadline:
            time.sleep(0.2)
        if how == STOP_FILE:
            (work / "run/STOP").touch()
        else:
            running.send_signal(signal.SIGTERM)
        code = running.wait(HANG_TIMEOUT)
    text = (work / "out").read_text()
    assert (code == 0) == (how == STOP_FILE)
    commands = re.findall(r"Resume with: (.*)", text)
    assert [shlex.split(line) for line in commands] == [[*command, "--resume", "auto"]]
    assert "forcefully exiting" not in text
    assert newest_intact_checkpoint(work / "run")


# Non-finite losses and gradients


def test_non_finite_step_is_skipped_and_reported(work):
    done = start(flags("run", epochs=2), work, prepare=partial(make_loss_nan, {"3.jpg"}))
    skipped = (work / "run/skipped.txt").read_text()
    assert re.search(r"^epoch \d, step \d of 3: loss is not finite: .*3\.jpg", skipped, re.M)
    assert "was skipped because its loss is not finite" in done.stdout
    assert all(np.isfinite(row["train_total_loss"]) for row in rows(work / "run"))
    weights = torch.load(work / "run/checkpoint-1.pth", weights_only=False)["model"]
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_too_many_non_finite_steps_end_run(work):
    prepare = partial(make_loss_nan, {f"{i}.jpg" for i in range(7)})
    done = start(flags("run", "--max_skipped", 1), work, prepare=prepare, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("qma-net: training diverged: 2 optimizer steps in a row had a non-")
    assert "Traceback" not in done.stderr


class Scaler:
    """BenCo's loss scaler with a GradScaler that works on the CPU."""

    def __init__(self, misc, scale):
        self.benco = misc.NativeScalerWithGradNormCount()
        self._scaler = self.benco._scaler = torch.amp.GradScaler("cpu", init_scale=scale)

    def __call__(self, *args, **kwargs):
        return self.benco(*args, **kwargs)


def one_step(misc, tmp_path, *, scale, factor, clip_grad=0.0):
    """Take a step of a weight of 1 with a finite loss whose gradient is ``factor``."""
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    guard = StepGuard(max_skipped=9, clip_grad=clip_grad)
    guard.begin_epoch(0, 1, tmp_path, model, Scaler(misc, scale))
    guard.begin_batch(["a.png"])
    loss = (model.weight * factor).sum()
    if math.isnan(factor):
        loss = (model.weight - 1).abs().sqrt().sum()  # It is 0, with an undefined slope.
    guard(loss, optimizer, parameters=model.parameters(), update_grad=True)
    return guard, model.weight.item()


def test_overflow_during_amp_scale_search_is_not_an_error(misc, tmp_path):
    guard, weight = one_step(misc, tmp_path, scale=65536.0, factor=1e36)
    assert (weight, guard.overflows, guard.skipped) == (1.0, 1, 0)
    assert guard.amp_scale == 32768.0
    guard, weight = one_step(misc, tmp_path, scale=1.0, factor=math.nan)
    assert (weight, guard.overflows, guard.skipped) == (1.0, 0, 1)
    assert "gradient is not finite: a.png" in (tmp_path / "skipped.txt").read_text()
    guard, weight = one_step(misc, tmp_path, scale=65536.0, factor=0.25)
    assert (weight, guard.overflows, guard.skipped) == (0.75, 0, 0)


def test_clip_grad_limits_gradient_norm(misc, tmp_path):
    _, weight = one_step(misc, tmp_path, scale=1024.0, factor=8.0)
    assert weight == -7.0
    _, weight = one_step(misc, tmp_path, scale=1024.0, factor=8.0, clip_grad=0.5)
    assert weight == pytest.approx(0.5, abs=1e-4)


def test_skipped_step_leaves_batch_norm_statistics_unchanged(misc, tmp_path):
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(1))
    guard = StepGuard(max_skipped=9, clip_grad=0.0)
    guard.begin_epoch(0, 1, tmp_path, model, misc.NativeScalerWithGradNormCount())
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    guard.begin_batch(["a.png"])
    loss = model(torch.tensor([[1.0], [math.nan]])).sum()
    guard(loss, optimizer, parameters=model.parameters(), update_grad=True)
    assert guard.skipped == 1
    assert model[0].running_mean.tolist() == [0.0]


def test_constant_buffers_are_not_copied_in_every_step(misc, tmp_path, build_tiny):
    model = torch.nn.ModuleList([build_tiny(drop_path=0.1), torch.nn.BatchNorm1d(1)])
    assert len(list(model.buffers())) > 3
    guard = StepGuard(max_skipped=9, clip_grad=0.0)
    guard.begin_epoch(0, 1, tmp_path, model, misc.NativeScalerWithGradNormCount())
    norm = model[1]
    assert [*map(id, guard._buffers)] == [id(norm.running_mean), id(norm.running_var)]


def test_amp_state_moves_between_cpu_and_gpu(misc):
    from qma_net.launch.checkpoints import accept_empty_amp_state

    on_cpu = misc.NativeScalerWithGradNormCount()
    if torch.cuda.is_available():
        on_cpu._scaler = torch.cuda.amp.GradScaler(enabled=False)
    assert on_cpu.state_dict() == {}
    on_gpu = misc.NativeScalerWithGradNormCount()
    on_gpu._scaler = torch.amp.GradScaler("cpu", init_scale=512.0)
    with pytest.raises(RuntimeError, match="empty"):
        on_gpu.load_state_dict(on_cpu.state_dict())
    accept_empty_amp_state()
    on_gpu.load_state_dict(on_cpu.state_dict())
    assert on_gpu.state_dict()["scale"] == 512.0
    on_cpu.load_state_dict(on_gpu.state_dict())
    other = misc.NativeScalerWithGradNormCount()
    other._scaler = torch.amp.GradScaler("cpu")
    other.load_state_dict(on_gpu.state_dict())
    assert other.state_dict()["scale"] == 512.0


# Data


def test_unreadable_training_image_is_replaced_and_reported(work):
    """The header is intact, so the data check accepts the file; a loader process finds it."""
    truncate(work / "set/Tp/2.jpg")
    test = work / "test"
    test.mkdir()
    write_tampered_set(test)
    command = flags("run", "--num_workers", 1, "--test_data_path", "test/sets.json", epochs=2)
    done = start(command, work, prepare=fork_loader_processes)
    (line,) = set((work / "run/skipped.txt").read_text().splitlines())
    assert line.startswith("set/Tp/2.jpg cannot be used (OSError: ")
    assert line.endswith("; replaced by set/Tp/3.jpg")
    assert done.stdout.count("set/Tp/2.jpg cannot be used") == 1
    assert "(unreadable image 1 of set, limit 10)" in done.stdout


def test_unreadable_test_image_is_not_replaced(work):
    test = work / "test"
    test.mkdir()
    write_tampered_set(test)
    truncate(test / "set/Tp/2.jpg")
    command = flags("run", "--test_data_path", "test/sets.json", epochs=1)
    done = start(command, work, prepare=small, check=False)
    assert done.returncode == 1
    assert "truncated" in done.stderr
    assert rows(work / "run") == []


def report_opencv_threads():
    """Give OpenCV three threads, and write the number that a loader process uses to a file."""
    fork_loader_processes()
    import cv2
    from IMDLBenCo.datasets.iml_datasets import ManiDataset

    cv2.setNumThreads(3)
    get_image = ManiDataset._get_image

    def reporting(self, index):
        if torch.utils.data.get_worker_info():
            with open("threads", "a", encoding="utf-8") as file:
                file.write(f"{cv2.getNumThreads()}\n")
        return get_image(self, index)

    ManiDataset._get_image = reporting


def test_loaders_of_benco_use_one_opencv_thread(work):
    start(flags("run", "--num_workers", 1, epochs=1), work, prepare=report_opencv_threads)
    threads = (work / "threads").read_text().split()
    assert len(threads) > 7  # The training set and the test set have seven images each.
    assert set(threads) == {"1"}


class PartlyUnreadableDataset:
    """A BenCo training set in which some images are unreadable."""

    entry_path = "list.json"

    def __init__(self, size, unreadable):
        self.tp_path = [f"{i}.png" for i in range(size)]
        self.unreadable = unreadable

    def __len__(self):
        return len(self.tp_path)

    def _get_image(self, index):
        if index in self.unreadable:
            raise OSError(f"no {index}")
        return index


def test_too_many_unreadable_images_end_run(tmp_path):
    dataset = PartlyUnreadableDataset(1100, set(range(0, 1100, 2)))
    unreadable = UnreadableImages()
    unreadable.protect(dataset, tmp_path)
    for index in [*range(22), *range(22)]:  # 11 images, each of them twice.
        assert dataset._get_image(index) == index + (index % 2 == 0)
        unreadable.read_reports()
    assert not unreadable.excess
    assert dataset._get_image(22) == 23
    unreadable.read_reports()
    assert "list.json has 12 unreadable images (limit 11)" in str(unreadable.error())
    assert len((tmp_path / "skipped.txt").read_text().splitlines()) == 12


def test_failed_disk_ends_run(tmp_path):
    dataset, unreadable = PartlyUnreadableDataset(20, set(range(20))), UnreadableImages()
    unreadable.protect(dataset, tmp_path)
    with pytest.raises(OSError, match="no 3"):
        dataset._get_image(3)
    unreadable.read_reports()
    assert unreadable.excess


def test_data_with_errors_is_rejected_or_excluded(work):
    import cv2

    cv2.imwrite(str(work / "set/Gt/4.png"), np.zeros((32, 64), np.uint8))
    done = start(flags("run", epochs=1), work, prepare=small, check=False)
    assert done.returncode == 1
    assert "error: size-mismatch, 2 files" in done.stderr
    assert "exclude the pairs with --skip_bad" in done.stderr.splitlines()[-1]
    assert not (work / "run").exists()
    command = flags("run", "--resume", "auto", epochs=1)
    done = start(command, work, prepare=pretend_restart, check=False)
    assert "error: size-mismatch, 2 files" in done.stderr  # Also after a restart.
    done = start(flags("run", "--skip_bad", epochs=1), work, prepare=small)
    assert "--skip_bad: excluded 1 of 7 pairs of set" in done.stdout
    trained = json.loads((work / "run/cleaned/train.json").read_text())
    assert [Path(image).name for image, _ in trained] == [f"{i}.jpg" for i in (0, 1, 2, 3, 5, 6)]
    assert list(json.loads((work / "run/cleaned/test_sets.json").read_text())) == ["small"]


# Refusals in one line


def test_second_run_in_same_folder_is_rejected_while_first_runs(work):
    """The lock ends with the first process, although its loader process survives for seconds."""
    first = Launched(flags("run", "--num_workers", 1, epochs=9), work, stuck_after_a_step)
    deadline = time.monotonic() + HANG_TIMEOUT
    while "Epoch: [0]" not in first.output() and time.monotonic() < deadline:
        time.sleep(0.1)
    (work / "second").mkdir()
    write_tampered_set(work / "second")
    again = flags("../run", "--resume", "auto", epochs=1)
    done = start(again, work / "second", prepare=small, check=False)
    os.kill(first.child.pid, signal.SIGKILL)
    first.wait(60)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("qma-net: ../run is in use: another run is writing to it")
    start(again, work / "second", prepare=small)
    assert saved_epochs(work / "run") == [0]


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--test_data_path", "list.json"], "--test_data_path list.json is a list, not"),
        (["--sead", "1"], "unrecognized arguments: --sead 1; qma-net train --help lists all"),
    ],
)
def test_torchrun_does_not_restart_rejected_run(work, more, line):
    """A mistyped flag was restarted, since argparse exited with a code of its own."""
    (work / "list.json").write_text("[]")
    command = flags("run", *more)
    command[command.index("tiny")] = "b0"
    done = start(command, work, processes=2, more=("--max-restarts", "5"), check=False)
    assert done.returncode == 1
    assert done.stderr.count(f"qma-net: {line}") == 1


@pytest.mark.parametrize(
    ("out", "more", "line"),
    [
        ("/sys/run", [], "cannot write to --output_dir /sys/run: "),
        ("sets.json", [], "cannot write to --output_dir sets.json: "),
        ("sets.json/run", [], "cannot write to --output_dir sets.json/run: "),
        ("sets.json/run", ["--skip_bad"], "[Errno 20] Not a directory: "),
    ],
)
def test_unwritable_output_dir_is_rejected(work, out, more, line):
    done = start(flags(out, *more), work, prepare=small, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"qma-net: {line}")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--if_padding"], "--if_resizing and --if_padding are mutually exclusive; pass one"),
        (["--test_data_path", "list.json"], "--test_data_path list.json is a list, not"),
        (["--device", "cuda"], "--device cuda: CUDA is not available"),
        (["--accum_iter", "16"], "--accum_iter 16 is more than the 3 batches per process"),
        (["--model", "Mesorch"], "Mesorch works only at an image size of 512, not 64"),
        (["--data_path", "synth.json"], "[Errno 2] No such file or directory: 'none.yaml'"),
        (["--threads", "x"], "argument --threads: invalid int value: 'x'; qma-net train --help"),
    ],
)
def test_contradictory_flags_are_rejected(work, more, line):
    if "cuda" in more and torch.cuda.is_available():
        pytest.skip("CUDA is available")
    (work / "synth.json").write_text('[["SynthDataset", "none.yaml"]]')
    (work / "list.json").write_text("[]")
    done = start(flags("run", *more), work, prepare=small, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"qma-net: {line}")
    assert "Traceback" not in done.stderr
    assert not (work / "run").exists()  # Nothing was built.


def test_missing_resizing_and_padding_is_rejected(work):
    command = [word for word in flags("run") if word != "--if_resizing"]
    done = start(command, work, prepare=small, check=False)
    assert (
        "qma-net: --if_resizing and --if_padding are both missing; pass one of them" in done.stderr
    )


def test_failed_start_prints_end_of_startup_log(work):
    command = flags("run", "--log_dir", "set/Tp/0.jpg")  # A file instead of a folder.
    done = start(command, work, prepare=small, check=False)
    assert done.returncode == 1
    assert "Sampler_train" in done.stdout
    assert "Traceback" in done.stderr
    assert "Train transform" in (work / "run/startup.txt").read_text()


def test_wrong_benco_package_and_python_are_rejected(monkeypatch):
    from importlib.metadata import PackageNotFoundError

    from qma_net.launch import scripts

    def installed(*names):
        def version(name):
            if name in names:
                return "0.2.9"
            raise PackageNotFoundError(name)

        monkeypatch.setattr(scripts, "version", version)

    installed("imdlbenco13", "imdlbenco")
    with pytest.raises(
        LaunchError,
        match=r"package imdlbenco13 is installed, .* instead of imdlbenco; run `pip uninstall",
    ):
        scripts._require_benco()
    installed()
    monkeypatch.setattr(sys, "version_info", (3, 13, 1))
    with pytest.raises(LaunchError, match=r"Python 3\.13 is too new .* with Python 3\.11 or 3\.12"):
        scripts._require_benco()


def test_help_describes_all_flags_in_order(work):
    text = " ".join(start(["train", "--help"], work).stdout.split())
    for words in (
        "--size SIZE size of both SegFormer encoders",
        "one of b0, b1, b2, b3, b4, b5 (default: b3)",
        "one of query, conv, mlp (default: query)",
        "--init_from INIT_FROM a model to fine-tune: a checkpoint, a folder of checkpoints",
        "With --resume auto, training resumes",
        "--save_period N save a checkpoint every N epochs",
        "--skip_bad",
        "BenCo's flags:",
        "--test_data_path TEST_DATA_PATH",
    ):
        assert words in text
    in_order = ("--cudnn ", "--save_period N", "--size SIZE", "--init_from INIT", "BenCo's flags:")
    positions = [text.index(words) for words in in_order]
    assert positions == sorted(positions)
    assert ":func:" not in text


def test_benco_init_script_without_cuda_gets_instructions(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("CUDA is available")
    script = "import IMDLBenCo.training_scripts.utils.misc as misc\nimport qma_net.benco\n"
    done = run_code(script, tmp_path)
    two_lines = "from qma_net.launch import redirect_cuda_to_cpu\nredirect_cuda_to_cpu()\n"
    assert two_lines in done.stderr


def test_resuming_from_bare_weights_is_rejected(work):
    """It was a ``KeyError: 'model'`` of BenCo."""
    torch.save({"network.weight": torch.ones(2)}, work / "bare.pth")
    for model in (["--model", "QMANet"], ["--model", "Mesorch"]):
        with pytest.raises(
            LaunchError, match=r"--resume .*bare\.pth: the file lacks epoch, model, optimizer"
        ):
            complete_from_checkpoint([*model, "--resume", str(work / "bare.pth")])


# Fine-tuning


def few_crops():
    """Let BenCo draw eight crops per epoch instead of 1,840."""
    from IMDLBenCo.datasets import BalancedDataset

    assert BalancedDataset.__init__.__defaults__ == (None, 1840)
    BalancedDataset.__init__.__defaults__ = (None, 8)


def test_documented_fine_tuning_of_the_packaged_model(work):
    """Four steps with AdamW change a weight by at most about four times the learning rate."""
    text = (ROOT / "docs/training.md").read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = re.findall(r"^qma-net train .*--init_from qma-net-small.*$", text, re.M)
    words = shlex.split(line)[1:]
    assert words[words.index("--data_path") + 1] == "mine.json"
    assert words[words.index("--test_data_path") + 1] == "mine_test.json"
    (work / "mine.json").write_text('[["NativeDataset", "set"]]')
    (work / "mine_test.json").write_text('{"mine": "set"}')
    tiny = ["--image_size", 64, "--batch_size", 2, "--epochs", 1, "--num_workers", 0]
    start([*words, *tiny, "--no_pin_mem"], work, prepare=few_crops)
    tuned = load_checkpoint(work / "runs/tuned/checkpoint-0.pth")
    assert tuned.preprocessing == config.Preprocessing(64, "native")
    before = dict(load_model("qma-net-small").named_parameters())
    changes = [(p - before[name]).abs().max().item() for name, p in tuned.named_parameters()]
    assert 0 < max(changes) < 1e-3


# Weight decay


def optimizer_of_benco(model):
    """Create the optimizer as BenCo's train.py does."""
    import timm.optim.optim_factory as optim_factory

    args = Namespace(opt="AdamW", lr=1e-3, weight_decay=0.05, betas=(0.9, 0.999), momentum=0.9)
    return optim_factory.create_optimizer(args, model)


def decayed_names(model, optimizer):
    names = {parameter: name for name, parameter in model.named_parameters()}
    decayed = [group for group in optimizer.param_groups if group["weight_decay"]]
    return {names[parameter] for group in decayed for parameter in group["params"]}


def tiny_model():
    from qma_net.benco import QMANet

    return QMANet("tiny", "srm,bayar", query_count=4)


def test_queries_scales_and_bayar_kernels_are_not_decayed():
    model = tiny_model()
    decayed = decayed_names(model, optimizer_of_benco(model))
    spared = {
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.ndim > 1 and name not in decayed
    }
    assert {name.rpartition(".")[2] for name in spared} == {"queries", "weight"}
    queries = [name for name, _ in model.named_parameters() if name.endswith(".queries")]
    assert spared == {*queries, "network.noise_view.bayar.weight"}
    assert not [name for name in decayed if "scale" in name.rpartition(".")[2]]


def test_run_from_before_the_exclusion_continues_with_its_parameter_groups(tmp_path, caplog):
    """The optimizer's state is matched by position, so wrong groups would mix up parameters."""
    caplog.set_level("INFO", "qma_net")
    model = tiny_model()
    model.no_weight_decay = set  # As before.
    former = optimizer_of_benco(model)
    names = decayed_names(model, former)
    for parameter in (p for p in model.parameters() if p.requires_grad):
        parameter.grad = torch.full_like(parameter, parameter.numel())
    former.step()
    path = tmp_path / "checkpoint-0.pth"
    torch.save({"model": {}, "optimizer": former.state_dict(), "epoch": 0}, path)
    del model.no_weight_decay
    optimizer = optimizer_of_benco(model)
    with pytest.raises(ValueError, match="doesn't match the size"):
        optimizer.load_state_dict(former.state_dict())
    keep_parameter_groups(path, model, optimizer, 0.05)
    optimizer.load_state_dict(former.state_dict())
    assert decayed_names(model, optimizer) == names
    for parameter, state in optimizer.state.items():
        # The first moment is a tenth of the gradient.
        assert torch.allclose(state["exp_avg"], torch.full_like(parameter, parameter.numel() / 10))
    assert "this run continues to do so" in caplog.text


def test_new_run_is_resumed_with_its_own_parameter_groups(tmp_path):
    model = tiny_model()
    optimizer = optimizer_of_benco(model)
    before = decayed_names(model, optimizer)
    path = tmp_path / "checkpoint-0.pth"
    torch.save({"model": {}, "optimizer": optimizer.state_dict(), "epoch": 0}, path)
    keep_parameter_groups(path, model, optimizer, 0.05)
    assert decayed_names(model, optimizer) == before


def test_other_parameter_groups_are_rejected(tmp_path):
    """With ``--weight_decay 0`` there is one group."""
    model = tiny_model()
    optimizer = optimizer_of_benco(model)
    path = tmp_path / "checkpoint-0.pth"
    single = torch.optim.AdamW(model.parameters()).state_dict()
    torch.save({"model": {}, "optimizer": single, "epoch": 0}, path)
    with pytest.raises(LaunchError, match=r"its optimizer has groups of \[\d+\] parameters"):
        keep_parameter_groups(path, model, optimizer, 0.05)


# Input that BenCo would accept and fail on later


OWN, _ = parse_own_flags([])


def benco_flags(work, **changes):
    """Return BenCo's flags as its parser returns them, for the data in ``work``."""
    numbers = dict.fromkeys(("batch_size", "test_batch_size", "accum_iter", "test_period"), 2)
    numbers |= {"image_size": 64, "epochs": 3, "log_per_epoch_count": 20, "warmup_epochs": 1}
    numbers |= {"lr": None, "blr": 1e-3, "min_lr": 0.0, "weight_decay": 0.05}
    paths = {"data_path": work / "set", "test_data_path": work / "sets.json"}
    given = numbers | {name: str(path) for name, path in paths.items()}
    given |= {
        "if_resizing": True,
        "if_padding": False,
        "resume": "",
        "output_dir": str(work / "run"),
    }
    return Namespace(**given | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"lr": math.nan},
        {"lr": -1.0},
        {"blr": math.inf},
        {"weight_decay": math.nan},
        {"batch_size": 0},
        {"accum_iter": 0},
        {"test_period": 0},
        {"clip_grad": -1.0},
        {"clip_grad": math.nan},
        {"save_period": -1},
        {"max_skipped": -1},
    ],
    ids=str,
)
def test_invalid_numbers_are_rejected(work, changes):
    """``--lr nan`` ended in a traceback, and ``--clip_grad -1`` reversed the gradients."""
    args = vars(benco_flags(work))
    check_flags(Namespace(**args), OWN, "command")
    (name,) = changes
    args, own = ({**known, **changes} if name in known else known for known in (args, vars(OWN)))
    with pytest.raises(LaunchError, match=f"--{name} .* is invalid; pass a number of at least"):
        check_flags(Namespace(**args), Namespace(**own), "command")


@pytest.mark.parametrize(
    ("flag", "content", "message"),
    [
        ("data_path", {"a": "set"}, "given.json lists datasets; list them in a protocol"),
        ("data_path", [["JsonDataset", "p.json"]], "lists datasets; list them in given.json"),
        ("data_path", [["NativeDataset", "sets.json"]], "sets.json lists datasets"),
        ("data_path", [["JsonDataset", "set"]], "lists set as a JsonDataset; write ManiDataset"),
        ("data_path", [["ManiDataset", "list.json"]], "lists list.json as a ManiDataset; write"),
        ("test_data_path", {"a": "list.json", "b": "p.json"}, "p.json lists datasets"),
        ("test_data_path", {"a": "sets.json"}, "sets.json lists datasets; list them in given.json"),
    ],
)
def test_files_that_benco_reads_in_another_form_are_rejected(
    work, monkeypatch, flag, content, message
):
    """They passed the data check and ended in tracebacks of BenCo."""
    monkeypatch.chdir(work)
    pairs = [[f"set/Tp/{i}.jpg", f"set/Gt/{i}.png"] for i in range(7)]
    (work / "list.json").write_text(json.dumps(pairs))
    (work / "p.json").write_text('[["ManiDataset", "set"], ["JsonDataset", "list.json"]]')
    (work / "given.json").write_text(json.dumps(content))
    for valid in ("set", "list.json", "p.json"):
        check_flags(benco_flags(work, data_path=valid), OWN, "command")
    with pytest.raises(LaunchError, match=f"--{flag} given.json .*{re.escape(message)}"):
        check_flags(benco_flags(work, **{flag: "given.json"}), OWN, "command")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("file", ["list", "protocol", "nested", "tests"])
def test_lists_that_are_not_in_utf_8_are_rejected(work, monkeypatch, encoding, file):
    """The data check accepted a byte order mark, with which BenCo fails."""
    monkeypatch.chdir(work)
    pairs = [[f"set/Tp/{i}.jpg", f"set/Gt/{i}.png"] for i in range(7)]
    contents = {"list": pairs, "protocol": [["ManiDataset", "set"]], "tests": {"a": "set"}}
    contents |= {"nested": [["JsonDataset", "list.json"]]}
    encoded = "list" if file == "nested" else file
    for name, content in contents.items():
        encoding_of_file = encoding if name == encoded else "utf-8"
        (work / f"{name}.json").write_text(json.dumps(content), encoding=encoding_of_file)
    flag = "test_data_path" if file == "tests" else "data_path"
    with pytest.raises(QMANetError, match=rf"{encoded}\.json.* JSON.*(BOM|decode)"):
        check_flags(benco_flags(work, **{flag: f"{file}.json"}), OWN, "command")


def test_missing_settings_of_synthetic_images_are_found(work, monkeypatch):
    """It was a FileNotFoundError when BenCo built the dataset."""
    monkeypatch.chdir(work)
    (work / "protocol.json").write_text('[["SynthDataset", "none.yaml"]]')
    with pytest.raises(FileNotFoundError, match=r"none\.yaml"):
        check_flags(benco_flags(work, data_path="protocol.json"), OWN, "command")


@pytest.mark.parametrize("content", ["{}", '{"none": "empty.json"}', '{"one": "one.json"}'])
def test_test_set_without_a_whole_batch_is_rejected(work, content, monkeypatch):
    """It was an UnboundLocalError of BenCo after the first epoch."""
    monkeypatch.chdir(work)
    (work / "empty.json").write_text("[]")
    (work / "one.json").write_text('[["set/Tp/0.jpg", "set/Gt/0.png"]]')
    (work / "tests.json").write_text(content)
    with pytest.raises(
        LaunchError, match=r"contains no test sets|has [01] images, but BenCo needs"
    ):
        check_flags(benco_flags(work, test_data_path="tests.json"), OWN, "command")


def test_incomplete_batch_is_accepted_under_torchrun(work, monkeypatch):
    """There, BenCo scores it separately."""
    monkeypatch.chdir(work)
    (work / "one.json").write_text('[["set/Tp/0.jpg", "set/Gt/0.png"]]')
    (work / "tests.json").write_text('{"one": "one.json"}')
    monkeypatch.setenv("RANK", "0")
    check_flags(benco_flags(work, test_data_path="tests.json"), OWN, "command")


def test_accumulation_is_compared_with_the_batches_of_a_process(work, monkeypatch):
    """Seven images: three batches of two, or two in each of two processes."""
    check_flags(benco_flags(work, accum_iter=3), OWN, "command")
    with pytest.raises(LaunchError, match="--accum_iter 4 is more than the 3 batches per process"):
        check_flags(benco_flags(work, accum_iter=4), OWN, "command")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(LaunchError, match="--accum_iter 3 is more than the 2 batches per process"):
        check_flags(benco_flags(work, accum_iter=3), OWN, "command")
    protocol = work / "protocol.json"  # BenCo draws 1840 images from each entry.
    protocol.write_text(json.dumps([["ManiDataset", str(work / "set")]]))
    check_flags(benco_flags(work, data_path=str(protocol), accum_iter=460), OWN, "command")
    with pytest.raises(LaunchError, match="--accum_iter 461 is more than the 460 batches"):
        check_flags(benco_flags(work, data_path=str(protocol), accum_iter=461), OWN, "command")


def test_datasets_with_different_sizes_are_rejected(work, monkeypatch):
    """They failed in the first batch that contained both."""
    monkeypatch.chdir(work)
    for name, sizes in (("a", "[[64, 96]]"), ("b", "[[64, 96]]"), ("usual", "[[64, 64]]")):
        (work / f"{name}.yaml").write_text(f"photos: photos\nsizes: {sizes}\n")

    def check(*rows):
        (work / "protocol.json").write_text(json.dumps(rows))
        check_flags(benco_flags(work, data_path="protocol.json"), OWN, "command")

    a, b, usual = (["SynthDataset", f"{name}.yaml"] for name in ("a", "b", "usual"))
    check(a)
    check(a, b)
    check(usual, ["ManiDataset", "set"])
    for other in (usual, ["NativeDataset", "set"], ["ManiDataset", "set"]):
        with pytest.raises(LaunchError, match="combines images of different sizes"):
            check(a, other)


def test_unknown_model_is_reported_with_the_registered_ones():
    check_model(["--image_size", "512"])  # BenCo reports the missing --model.
    message = r"^unknown --model QMAnet; BenCo's registry contains .*\bMesorch\b.*\bQMANet\b"
    with pytest.raises(QMANetError, match=message):
        check_model(["--model", "QMAnet", "--image_size", "512"])


@pytest.mark.parametrize("model", ["Mesorch", "SparseViT"])
@pytest.mark.parametrize("flags", [["--image_size", "512"], [], ["--image_size=512"]])
def test_model_with_a_fixed_size_is_accepted_at_this_size_only(flags, model):
    check_model(["--model", model, *flags])
    check_model(["--model", "QMANet", "--image_size", "64"])
    message = f"{model} works only at an image size of 512, not"
    with pytest.raises(LaunchError, match=f"{message} 64"):
        check_model(["--model", model, "--image_size", "64"])
    with pytest.raises(LaunchError, match=f"{message} native"):
        require_image_size(model, "native")


def test_folder_in_place_of_the_log_is_rejected(work):
    (work / "run/log.txt").mkdir(parents=True)
    with pytest.raises(LaunchError, match=r"run/log\.txt is not a file, so training cannot write"):
        check_flags(benco_flags(work), OWN, "command")


def write_faulty_masks(work, monkeypatch):
    """Write masks of 0 and 1 to the two first of seven files, of which a sample of 3 is read."""
    import cv2

    monkeypatch.setattr("qma_net.launch.preflight.MASK_SAMPLE", 3)  # Files 0, 3 and 6.
    for i in range(2):
        mask = cv2.imread(str(work / f"set/Gt/{i}.png"), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(work / f"set/Gt/{i}.png"), mask // 255)


def test_sample_of_masks_is_read_before_training(work, monkeypatch):
    write_faulty_masks(work, monkeypatch)
    args = benco_flags(work)
    with pytest.raises(LaunchError, match=r"error: mask-values, 1 file\n  .*0\.png: has no value"):
        check_data(args, "")
    check_data(args, "mask-values")


def test_all_masks_are_read_to_exclude_pairs_if_the_sample_has_faults(work, monkeypatch):
    write_faulty_masks(work, monkeypatch)
    exclude_faulty_pairs(benco_flags(work), "")
    trained = json.loads((work / "run/cleaned/train.json").read_text())
    assert [Path(image).stem for image, _ in trained] == ["2", "3", "4", "5", "6"]


def test_pairs_that_share_a_mask_are_excluded_separately(work):
    import cv2

    cv2.imwrite(str(work / "set/Tp/1.jpg"), np.zeros((32, 64, 3), np.uint8))
    rows = [[str(work / f"set/Tp/{i}.jpg"), str(work / "set/Gt/0.png")] for i in range(3)]
    (work / "list.json").write_text(json.dumps(rows))
    exclude_faulty_pairs(benco_flags(work, data_path=str(work / "list.json")), "")
    trained = json.loads((work / "run/cleaned/train.json").read_text())
    assert [Path(image).stem for image, _ in trained] == ["0", "2"]
    (line,) = (work / "run/cleaned/excluded.txt").read_text().splitlines()
    assert line.startswith(f"{work}/set/Tp/1.jpg: size-mismatch: is 64x32, its mask {work}/set/Gt")


def test_excluded_files_are_named_in_log_and_file(work, caplog):
    """Twenty of 25 missing masks are logged; all are in the file."""
    caplog.set_level("INFO", "qma_net")
    rows = [[str(work / f"set/Tp/{i % 7}.jpg"), str(work / f"lost/{i}.png")] for i in range(25)]
    rows.append([str(work / "set/Tp/0.jpg"), str(work / "set/Gt/0.png")])
    (work / "list.json").write_text(json.dumps(rows))
    exclude_faulty_pairs(benco_flags(work, data_path=str(work / "list.json")), "")
    lines = (work / "run/cleaned/excluded.txt").read_text().splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        str(work / f"lost/{i}.png") for i in range(25)
    ]
    assert lines[0].startswith(f"{work}/lost/0.png: missing-file: does not exist")
    logged = [line for line in caplog.messages if "excluded " + str(work / "lost") in line]
    assert [line.partition("excluded ")[2] for line in logged] == lines[:20]
    assert any("... and 5 more, see" in line for line in caplog.messages)


def test_unchanged_lists_are_checked_once(work, caplog, monkeypatch):
    caplog.set_level("INFO", "qma_net")
    monkeypatch.setenv("QMA_NET_CACHE", str(work / "cache"))
    report = check_data(benco_flags(work), "")
    assert check_data(benco_flags(work), "") == report
    skipped = [line.startswith("data check: skipped, since") for line in caplog.messages]
    assert skipped == [False, True]
    (work / "new.png").write_bytes((work / "set/Tp/0.jpg").read_bytes())
    os.replace(work / "new.png", work / "set/Tp/4.jpg")  # Another file under the same name.
    check_data(benco_flags(work), "")
    check_data(benco_flags(work), "duplicate")
    assert len(list((work / "cache/data-checks").iterdir())) == 3


def test_result_with_errors_is_not_stored(work, monkeypatch):
    monkeypatch.setenv("QMA_NET_CACHE", str(work / "cache"))
    (work / "set/Gt/4.png").unlink()
    for _ in range(2):
        with pytest.raises(LaunchError, match="error: unpaired"):
            check_data(benco_flags(work), "")
    assert not (work / "cache").exists()


def test_data_is_checked_if_the_result_cannot_be_stored(work, monkeypatch):
    (work / "file").touch()
    monkeypatch.setenv("QMA_NET_CACHE", str(work / "file"))
    assert "0 errors" in check_data(benco_flags(work), "")


@pytest.mark.parametrize("flag", ["--no-check", "--no_data_check"])
def test_both_names_of_the_flag_skip_the_check(flag):
    own, rest = parse_own_flags([flag])
    assert own.no_data_check
    assert not rest


def test_image_listed_as_tampered_and_authentic_is_rejected(work, monkeypatch):
    rows = [[str(work / "set/Tp/0.jpg"), mask] for mask in (str(work / "set/Gt/0.png"), "Negative")]
    (work / "list.json").write_text(json.dumps(rows))
    args = benco_flags(work, data_path=str(work / "list.json"))
    with pytest.raises(LaunchError, match=r"0\.jpg: is listed as tampered and as authentic in"):
        check_data(args, "")


@pytest.mark.parametrize("mean", ['"high"', "null", "NaN", "[]", "true"])
def test_damaged_record_of_the_best_epoch_is_reported_before_training(tmp_path, mean):
    """A text or null was a TypeError after a whole epoch."""
    (tmp_path / "best").mkdir()
    (tmp_path / "best/best.json").write_text(f'{{"epoch": 3, "mean": {mean}}}')
    for read in (remove_unfinished, partial(is_new_best, mean=0.5)):
        with pytest.raises(ContentError, match=r"best\.json: .* not numbers; .*delete this file"):
            read(tmp_path)


def test_flags_changed_on_resume_are_reported(work):
    start(flags("run", epochs=1), work, prepare=small)
    done = start(flags("run", "--resume", "auto", "--batch_size", 3, epochs=2), work, prepare=small)
    message = r"trained with different flags \(--batch_size 2, now 3; --epochs 1, now 2\)"
    assert re.search(message, done.stdout + done.stderr)
    done = start(flags("run", "--resume", "auto", "--batch_size", 3, epochs=2), work, prepare=small)
    assert "different flags" not in done.stdout + done.stderr

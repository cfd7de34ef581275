"""A training that is killed, stopped, fed with what is broken: with BenCo's real train.py."""

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
from launching import SIZE, Launched, start, write_tampered_set
from miniatures import truncate
from qma_net.core.files import read_journal
from qma_net.launch.finite import FiniteSteps
from qma_net.launch.process import LaunchError, resuming_command
from qma_net.launch.saving import Saving, keep_best, newest_whole, save_atomically, saved_epochs
from qma_net.launch.stopping import STOP
from qma_net.launch.training import Training
from qma_net.launch.unreadable import Unreadable
from qma_net.modeling import config

FLAGS = ["--model", "QMANet", "--size", "tiny", "--views", "srm", *SIZE]
FLAGS += ["--data_path", "set", "--test_data_path", "sets.json", "--batch_size", 2]
FLAGS += ["--accum_iter", 1, "--warmup_epochs", 1, "--lr", 1e-4, "--log_dir", "log"]


def flags(out, *more, epochs=3):
    return ["train", *FLAGS, "--epochs", epochs, "--output_dir", out, *more]


def rows(folder: Path) -> list[dict]:
    return read_journal(folder / "log.txt")


@pytest.fixture
def work(tmp_path):
    """A folder with seven tampered pictures, trained and tested on: three steps an epoch."""
    write_tampered_set(tmp_path)
    return tmp_path


# What happens in the child before the launcher starts


def small():
    config.SIZES["tiny"] = TINY


def at_batch(epoch, step, action):
    """Calls ``action(image)`` at a batch of an epoch, before BenCo's trainer sees its model."""
    small()
    import IMDLBenCo.training_scripts.trainer as trainer

    from qma_net import benco

    now = {"epoch": -1, "step": 0}
    train, forward = trainer.train_one_epoch, benco.QMANet.forward

    def train_one_epoch(model, loader, optimizer, device, number, *args, **kwargs):
        now.update(epoch=number, step=0)
        return train(model, loader, optimizer, device, number, *args, **kwargs)

    def watched(self, *args, **kwargs):
        if self.training:
            if now["epoch"] == epoch and now["step"] == step:
                action()
            now["step"] += 1
        return forward(self, *args, **kwargs)

    trainer.train_one_epoch, benco.QMANet.forward = train_one_epoch, watched


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_test_of(epoch):
    small()
    import IMDLBenCo.training_scripts.tester as tester

    test = tester.test_one_epoch

    def test_one_epoch(model, loader, evaluators, device, epoch_now, *args, **kwargs):
        # the keyword form of BenCo's train.py is `epoch=`; the launcher passes it by position
        if epoch_now == epoch:
            die()
        return test(model, loader, evaluators, device, epoch_now, *args, **kwargs)

    tester.test_one_epoch = test_one_epoch


def slow_steps():
    small()
    from qma_net import benco

    forward = benco.QMANet.forward

    def slow(self, *args, **kwargs):
        time.sleep(0.5)
        return forward(self, *args, **kwargs)

    benco.QMANet.forward = slow


def stuck_after_a_step():
    """The first step is as any; the second is never done."""
    small()
    from qma_net import benco

    forward, steps = benco.QMANet.forward, []

    def stuck(self, *args, **kwargs):
        steps.append(1)
        time.sleep(600 if len(steps) > 1 else 0)
        return forward(self, *args, **kwargs)

    benco.QMANet.forward = stuck


def not_a_number(names):
    """The loss of a batch with one of these images is NaN."""
    small()
    from qma_net import benco

    forward = benco.QMANet.forward

    def spoilt(self, *args, **kwargs):
        result = forward(self, *args, **kwargs)
        if self.training and names & set(kwargs["name"]):
            result["backward_loss"] = result["backward_loss"] * math.nan
            result["visual_loss"]["total_loss"] = result["backward_loss"]
        return result

    benco.QMANet.forward = spoilt


def forking():
    """The loader's processes are forked, as they are where nothing else was chosen."""
    small()
    multiprocessing.set_start_method("fork", force=True)


def restarted():
    """By torchrun, after a process has died."""
    small()
    os.environ["TORCHELASTIC_RESTART_COUNT"] = "1"


def no_room():
    """No file may grow over 4 MiB: what a full disk says at the same place."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**22, 2**22))


# Never lose more than an epoch


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    write_tampered_set(folder)
    done = start(flags("run", "--test_period", 2, epochs=4), folder, prepare=small)
    return folder / "run", done


def test_a_checkpoint_an_epoch_and_few_on_disk(uninterrupted):
    folder, _ = uninterrupted
    assert saved_epochs(folder) == [0, 2, 3]
    assert [row["epoch"] for row in rows(folder)] == [0, 1, 2, 3]
    note = json.loads((folder / "best/best.json").read_text())
    tested = [0, 2, 3]
    assert note["epoch"] in tested
    assert saved_epochs(folder / "best") == [note["epoch"]]


def test_the_start_is_a_summary_and_a_file(uninterrupted):
    folder, done = uninterrupted
    before = done.stdout[: done.stdout.index("Epoch: [0]")].splitlines()
    assert len(before) < 20
    text = "\n".join(before)
    assert "model: QMANet, " in text
    assert "data: set 7" in text
    assert "test sets: small 7" in text
    assert "batch 2 x accumulation 1 x 1 process = 2 images, 3 an epoch" in text
    assert "epochs 0 to 3, learning rate 0.0001 to 0, no AMP, cuDNN off" in text
    written = (folder / "startup.txt").read_text()
    assert f"the whole start, {len(written.splitlines())} lines" in text
    assert "Model = QMANet(" in written
    assert "0 errors, 0 warnings" in written


def test_killed_and_resumed_twice_it_is_the_uninterrupted_run(uninterrupted, work):
    """In mid-epoch, and between saving and testing; beside a newer checkpoint that is cut off."""
    command = flags("run", "--test_period", 2, "--resume", "auto", epochs=4)
    first = start(command, work, prepare=partial(at_batch, 1, 1, die), check=False)
    assert first.returncode == -signal.SIGKILL
    run = work / "run"
    assert saved_epochs(run) == [0]
    (run / "checkpoint-3.pth").write_bytes((run / "checkpoint-0.pth").read_bytes()[:-5000])
    (run / ".checkpoint-1.pth.x.tmp").write_bytes(b"half")
    with open(run / "log.txt", "a") as file:
        file.write('{"epoch": 1, "trai')
    second = start(command, work, prepare=partial(die_in_test_of, 2), check=False)
    assert second.returncode == -signal.SIGKILL
    assert "run/checkpoint-3.pth is passed over: it is not whole" in second.stdout
    assert "Resume run/checkpoint-0.pth: epoch 1 comes next" in second.stdout
    assert not list(run.glob("*.tmp"))
    (run / "checkpoint-3.pth").unlink(missing_ok=True)
    assert [row["epoch"] for row in rows(run)] == [0, 1]
    third = start(command, work, prepare=small)
    assert "epoch 2 was not logged: without training, its tests come next" in third.stdout
    assert "Epoch: [2]" not in third.stdout
    whole, resumed = rows(uninterrupted[0]), rows(run)
    assert [list(row) for row in whole] == [list(row) for row in resumed]
    for one, other in zip(whole, resumed, strict=True):
        assert list(one.values()) == pytest.approx(list(other.values()), abs=1e-6)
    notes = [(folder / "best/best.json").read_text() for folder in (uninterrupted[0], run)]
    assert notes[0] == notes[1]


def test_a_start_over_another_run_is_refused_with_the_command_that_goes_on(work):
    (work / "run").mkdir()
    (work / "run/checkpoint-4.pth").write_bytes(b"")
    done = start(flags("run"), work, prepare=small, check=False)
    assert done.returncode == 1
    # what libraries warn of when they are first imported stands before it
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("qma-net: ")]
    assert line == done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "got checkpoints to epoch 4 in run and no --resume" in line
    assert shlex.split(line.partition("go on there: ")[2])[-2:] == ["--resume", "auto"]


def test_no_whole_checkpoint_starts_at_0(tmp_path, capsys):
    (tmp_path / "checkpoint-1.pth").write_bytes(b"PK")
    torch.save({"model": {}}, tmp_path / "checkpoint-0.pth")
    assert newest_whole(tmp_path) is None
    said = capsys.readouterr().out
    assert "checkpoint-1.pth is passed over: it is not whole" in said
    assert "checkpoint-0.pth is passed over: it holds no epoch, optimizer" in said


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    for epoch in (0, 1):
        state = {"model": {"w": torch.ones(1000)}, "optimizer": {}, "epoch": epoch}
        torch.save(state, tmp_path / f"checkpoint-{epoch}.pth")
    content = bytearray((tmp_path / "checkpoint-1.pth").read_bytes())
    place = content.index(b"\x00\x00\x80\x3f" * 8)
    content[place : place + 4] = b"\x00\x00\x00\x00"  # one weight, in the middle of the file
    (tmp_path / "checkpoint-1.pth").write_bytes(content)
    assert newest_whole(tmp_path).name == "checkpoint-0.pth"


def test_what_is_kept_on_disk(tmp_path):
    for epoch in (0, 3, 24, 25, 26, 27, 28, 90):
        (tmp_path / f"checkpoint-{epoch}.pth").touch()
    Saving(1)._prune(tmp_path, newest=28, epochs=29)
    assert saved_epochs(tmp_path) == [0, 25, 27, 28, 90]


def test_the_best_of_unsaved_epochs_is_saved(tmp_path):
    """With --save_period 5 an epoch that is tested may not have been saved."""
    training = Training(
        Namespace(save_period=5, max_skipped=50, clip_grad=0.0, fit=""), startup=None, command=""
    )
    training.is_main_process = lambda: True
    training.save = lambda: (tmp_path / "checkpoint-3.pth").write_bytes(b"three")
    training.figures = {"a": 0.5, "b": 0.3}
    training._keep_best(tmp_path, 3)
    assert (tmp_path / "best/checkpoint-3.pth").read_bytes() == b"three"
    training.save = pytest.fail
    for worse in ({"a": 0.4, "b": 0.4}, {"a": math.nan, "b": 0.9}):
        training.figures = worse
        training._keep_best(tmp_path, 4)
    assert json.loads((tmp_path / "best/best.json").read_text())["epoch"] == 3


def test_the_best_is_replaced_without_a_moment_between(tmp_path, monkeypatch):
    """Killed after the copy, before its note: the note still names a file that is there."""
    for epoch in (1, 2):
        (tmp_path / f"checkpoint-{epoch}.pth").write_bytes(bytes([epoch]))
    keep_best(tmp_path, 1, {"a": 0.5})
    monkeypatch.setattr("qma_net.launch.saving.write_text", lambda *_: die_softly())
    with pytest.raises(KeyboardInterrupt):
        keep_best(tmp_path, 2, {"a": 0.6})
    note = json.loads((tmp_path / "best/best.json").read_text())
    assert (tmp_path / f"best/checkpoint-{note['epoch']}.pth").read_bytes() == b"\x01"


def die_softly():
    raise KeyboardInterrupt


def test_a_full_disk_loses_nothing_that_was_saved(work):
    prepare = partial(at_batch, 1, 0, no_room)
    done = start(flags("run"), work, prepare=prepare, check=False)
    assert done.returncode == 1
    assert "qma-net: got a disk that refused run/checkpoint-1.pth (" in done.stderr
    assert "Traceback" not in done.stderr
    assert newest_whole(work / "run").name == "checkpoint-0.pth"
    assert not list((work / "run").glob(".*.tmp"))


def test_an_empty_output_dir_saves_nothing(work):
    """BenCo's own meaning of it; everything is then printed."""
    done = start(flags("", epochs=1), work, prepare=partial(not_a_number, {"3.jpg"}))
    assert "Model = QMANet(" in done.stdout
    assert not list(work.rglob("*.pth"))
    assert {path.name for path in work.iterdir()} == {"set", "sets.json", "log", ".out", ".err"}


@pytest.fixture
def misc():
    """BenCo's misc module, restored afterwards: the launcher patches it for good."""
    import IMDLBenCo.training_scripts.utils.misc as misc

    kept = dict(vars(misc))
    load_state_dict = misc.NativeScalerWithGradNormCount.load_state_dict
    yield misc
    vars(misc).update(kept)
    misc.NativeScalerWithGradNormCount.load_state_dict = load_state_dict


def test_no_space_left_is_one_line(misc, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    save_atomically()
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(LaunchError, match=r"got a disk that refused .*: \[Errno 28\] No space"):
        misc.save_on_master({}, tmp_path / "checkpoint-0.pth")


# Stopped


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("SIGTERM", 143),
        ("SIGINT", 130),
        ("STOP", 0),
        pytest.param("SIGINT twice", 130, marks=pytest.mark.slow),
    ],
)
def test_stopped_it_ends_after_the_step_and_says_how_to_go_on(work, how, code):
    run, twice = work / "run", how == "SIGINT twice"
    running = Launched(flags("run", "--test_period", 9), work, slow_steps)
    deadline = time.monotonic() + 120
    while "Epoch: [1]" not in running.output() and time.monotonic() < deadline:
        time.sleep(0.1)
    if how == STOP:
        (run / STOP).touch()
    else:
        os.kill(running.child.pid, getattr(signal, how.split()[0]))
    if twice:
        time.sleep(0.05)
        os.kill(running.child.pid, signal.SIGINT)
    done = running.wait(60)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert not (run / STOP).exists()
    assert newest_whole(run).name == "checkpoint-0.pth"
    said = re.findall(r"Go on with: (.*)", done.stdout)
    assert len(said) == (0 if twice else 1)
    if not twice:
        words = shlex.split(said[0])
        assert words[:2] == ["qma-net", "train"]
        assert words[-2:] == ["--resume", "auto"]


def test_the_command_that_goes_on_is_the_one_given(monkeypatch):
    command = [sys.executable, "-c"]
    command += ["from qma_net.launch.process import resuming_command as c; import sys;"]
    command[-1] += " print(c('train', sys.argv[2:]))"
    command += ["train", "--lr", "1e-4", "--resume", "old.pth", "--resume=older.pth"]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert shlex.split(out) == [*command[:-3], "--resume", "auto"]
    assert resuming_command("train", ["--lr", "1"]) == "qma-net train --lr 1 --resume auto"


# Restarted by torchrun

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
    """Two processes under torchrun, of which one is killed in each attempt but the last."""
    script = work / "killed.py"
    script.write_text(KILLED_ONCE.format(tests=str(ROOT / "tests"), kills=kills))
    return start(
        flags("run", "--test_period", 9, "--resume", "auto", epochs=epochs),
        work,
        processes=2,
        launcher=(script,),
        more=("--max-restarts", len(kills)),
        env={"PYTHONPATH": str(ROOT)},
        timeout=300 * len(kills),
    )


@pytest.mark.slow
def test_torchrun_restarts_a_run_killed_five_times(work, record):
    kills = [(0, 0, 0), (1, 1, 0), (0, 2, 0), (1, 3, 0), (0, 3, 0)]
    run_and_kill(work, kills, epochs=4)
    assert [row["epoch"] for row in rows(work / "run")] == [0, 1, 2, 3]
    record(f"train: one of 2 processes killed {len(kills)} times under torchrun: completed")


@pytest.mark.slow
@pytest.mark.parametrize("how", [STOP, "SIGTERM"])
def test_all_ranks_stop_together_under_torchrun(work, how):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", "2", "-m", "qma_net.launch"]
    command += map(str, flags("run", "--test_period", 99, epochs=200))
    command = [word if word != "tiny" else "b0" for word in map(str, command)]
    with open(work / "out", "w") as out:
        running = subprocess.Popen(
            command, cwd=work, stdout=out, stderr=out, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        deadline = time.monotonic() + 120
        while "Epoch: [1]" not in (work / "out").read_text() and time.monotonic() < deadline:
            time.sleep(0.2)
        if how == STOP:
            (work / "run/STOP").touch()
        else:
            running.send_signal(signal.SIGTERM)
        code = running.wait(60)
    text = (work / "out").read_text()
    assert (code == 0) == (how == STOP)
    said = re.findall(r"Go on with: (.*)", text)
    assert [shlex.split(line) for line in said] == [[*command, "--resume", "auto"]]
    assert "forcefully exiting" not in text
    assert newest_whole(work / "run")


# Numbers stay sane


def test_a_step_that_is_not_finite_is_left_out_and_named(work):
    done = start(flags("run", epochs=2), work, prepare=partial(not_a_number, {"3.jpg"}))
    skipped = (work / "run/skipped.txt").read_text()
    assert re.search(r"^epoch \d, step \d of 3: loss is not finite: .*3\.jpg", skipped, re.M)
    assert "is left out, its loss is not finite" in done.stdout
    assert all(np.isfinite(row["train_total_loss"]) for row in rows(work / "run"))
    weights = torch.load(work / "run/checkpoint-1.pth", weights_only=False)["model"]
    assert all(one.isfinite().all() for one in weights.values())


def test_too_many_of_them_end_the_run(work):
    prepare = partial(not_a_number, {f"{i}.jpg" for i in range(7)})
    done = start(flags("run", "--max_skipped", 1), work, prepare=prepare, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("qma-net: got 2 optimiser steps in a row with a non-finite loss")
    assert "Traceback" not in done.stderr


class Scaler:
    """BenCo's loss scaler on the CPU, with a GradScaler that works there."""

    def __init__(self, misc, scale):
        self.benco = misc.NativeScalerWithGradNormCount()
        self._scaler = self.benco._scaler = torch.amp.GradScaler("cpu", init_scale=scale)

    def __call__(self, *args, **kwargs):
        return self.benco(*args, **kwargs)


def one_step(misc, tmp_path, *, scale, factor, clip_grad=0.0):
    """A step of a weight of 1 with a loss whose gradient is ``factor``, and finite."""
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    steps = FiniteSteps(max_skipped=9, clip_grad=clip_grad)
    steps.begin(0, 1, tmp_path, model, Scaler(misc, scale))
    steps.batch(["a.png"])
    loss = (model.weight * factor).sum()
    if math.isnan(factor):
        loss = (model.weight - 1).abs().sqrt().sum()  # 0, and its slope is not defined
    steps(loss, optimizer, parameters=model.parameters(), update_grad=True)
    return steps, model.weight.item()


def test_an_overflow_of_amp_s_scale_search_is_no_fault(misc, tmp_path):
    steps, weight = one_step(misc, tmp_path, scale=65536.0, factor=1e36)
    assert (weight, steps.overflown, steps.skipped) == (1.0, 1, 0)
    assert steps.amp_scale == 32768.0
    steps, weight = one_step(misc, tmp_path, scale=1.0, factor=math.nan)
    assert (weight, steps.overflown, steps.skipped) == (1.0, 0, 1)
    assert "gradient is not finite: a.png" in (tmp_path / "skipped.txt").read_text()
    steps, weight = one_step(misc, tmp_path, scale=65536.0, factor=0.25)
    assert (weight, steps.overflown, steps.skipped) == (0.75, 0, 0)


def test_clip_grad_is_the_largest_norm_of_a_step(misc, tmp_path):
    _, weight = one_step(misc, tmp_path, scale=1024.0, factor=8.0)
    assert weight == -7.0
    _, weight = one_step(misc, tmp_path, scale=1024.0, factor=8.0, clip_grad=0.5)
    assert weight == pytest.approx(0.5, abs=1e-4)


def test_batch_norms_keep_no_trace_of_a_skipped_step(misc, tmp_path):
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(1))
    steps = FiniteSteps(max_skipped=9, clip_grad=0.0)
    steps.begin(0, 1, tmp_path, model, misc.NativeScalerWithGradNormCount())
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    steps.batch(["a.png"])
    loss = model(torch.tensor([[1.0], [math.nan]])).sum()
    steps(loss, optimizer, parameters=model.parameters(), update_grad=True)
    assert steps.skipped == 1
    assert model[0].running_mean.tolist() == [0.0]


def test_an_empty_amp_scaler_is_taken_and_a_full_one_too(misc):
    """A checkpoint of a CPU on a GPU, and the other way round."""
    from qma_net.launch.patches import take_empty_scalers

    on_cpu = misc.NativeScalerWithGradNormCount()
    if torch.cuda.is_available():
        on_cpu._scaler = torch.cuda.amp.GradScaler(enabled=False)
    assert on_cpu.state_dict() == {}
    on_gpu = misc.NativeScalerWithGradNormCount()
    on_gpu._scaler = torch.amp.GradScaler("cpu", init_scale=512.0)
    with pytest.raises(RuntimeError, match="empty"):
        on_gpu.load_state_dict(on_cpu.state_dict())
    take_empty_scalers()
    on_gpu.load_state_dict(on_cpu.state_dict())
    assert on_gpu.state_dict()["scale"] == 512.0
    on_cpu.load_state_dict(on_gpu.state_dict())
    other = misc.NativeScalerWithGradNormCount()
    other._scaler = torch.amp.GradScaler("cpu")
    other.load_state_dict(on_gpu.state_dict())
    assert other.state_dict()["scale"] == 512.0


# Data


def test_an_unreadable_image_is_replaced_and_named(work):
    """By a process of the loader; its header is whole, so that the check before lets it pass."""
    truncate(work / "set/Tp/2.jpg")
    test = work / "test"
    test.mkdir()
    write_tampered_set(test)
    command = flags("run", "--num_workers", 1, "--test_data_path", "test/sets.json", epochs=2)
    done = start(command, work, prepare=forking)
    (line,) = set((work / "run/skipped.txt").read_text().splitlines())
    assert line.startswith("set/Tp/2.jpg cannot be used (OSError: ")
    assert line.endswith("set/Tp/3.jpg takes its place")
    assert done.stdout.count("set/Tp/2.jpg cannot be used") == 1
    assert "image 1 of set, at most 10" in done.stdout


def test_an_unreadable_test_image_is_not_replaced(work):
    test = work / "test"
    test.mkdir()
    write_tampered_set(test)
    truncate(test / "set/Tp/2.jpg")
    command = flags("run", "--test_data_path", "test/sets.json", epochs=1)
    done = start(command, work, prepare=small, check=False)
    assert done.returncode == 1
    assert "truncated" in done.stderr
    assert rows(work / "run") == []


class Broken:
    """A training set of BenCo's of which some images cannot be read."""

    entry_path = "list.json"

    def __init__(self, size, broken):
        self.tp_path = [f"{i}.png" for i in range(size)]
        self.broken = broken

    def __len__(self):
        return len(self.tp_path)

    def _get_image(self, index):
        if index in self.broken:
            raise OSError(f"no {index}")
        return index


def test_too_many_unreadable_images_end_the_run(tmp_path, capsys):
    dataset, unreadable = Broken(1100, set(range(0, 1100, 2))), Unreadable()
    unreadable.protect(dataset, tmp_path)
    for index in [*range(22), *range(22)]:  # 11, each of them twice
        assert dataset._get_image(index) == index + (index % 2 == 0)
        unreadable.read_reports()
    assert not unreadable.too_many
    assert dataset._get_image(22) == 23
    unreadable.read_reports()
    assert "12 unusable images in list.json (at most 11)" in str(unreadable.error())
    assert len((tmp_path / "skipped.txt").read_text().splitlines()) == 12


def test_a_disk_that_is_gone_ends_the_run(tmp_path):
    dataset, unreadable = Broken(20, set(range(20))), Unreadable()
    unreadable.protect(dataset, tmp_path)
    with pytest.raises(OSError, match="no 3"):
        dataset._get_image(3)
    unreadable.read_reports()
    assert unreadable.too_many


def test_faulty_data_is_refused_or_left_out(work):
    import cv2

    cv2.imwrite(str(work / "set/Gt/4.png"), np.zeros((32, 64), np.uint8))
    done = start(flags("run", epochs=1), work, prepare=small, check=False)
    assert done.returncode == 1
    assert "error: size-mismatch, 2 files" in done.stderr
    assert "leave the pairs out with --skip_bad" in done.stderr.splitlines()[-1]
    assert not (work / "run").exists()
    command = flags("run", "--resume", "auto", epochs=1)
    done = start(command, work, prepare=restarted, check=False)
    assert "error: size-mismatch, 2 files" in done.stderr  # also by an attempt after the first
    done = start(flags("run", "--skip_bad", epochs=1), work, prepare=small)
    assert "--skip_bad: 1 of 7 pairs of set left out" in done.stdout
    trained = json.loads((work / "run/cleaned/train.json").read_text())
    assert [Path(image).name for image, _ in trained] == [f"{i}.jpg" for i in (0, 1, 2, 3, 5, 6)]
    assert list(json.loads((work / "run/cleaned/test_sets.json").read_text())) == ["small"]


# Refused in one line


def test_a_second_training_in_a_folder_is_refused(work):
    """While the first one runs; and not for longer, however it ends."""
    first = Launched(flags("run", epochs=9), work, stuck_after_a_step)
    deadline = time.monotonic() + 120
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
    assert last.startswith("qma-net: got ../run, which another run is writing to, expected")
    start(again, work / "second", prepare=small)
    assert saved_epochs(work / "run") == [0]


def test_what_is_refused_is_not_tried_again_by_torchrun(work):
    (work / "list.json").write_text("[]")
    command = flags("run", "--test_data_path", "list.json")
    command[command.index("tiny")] = "b0"
    done = start(command, work, processes=2, more=("--max-restarts", "5"), check=False)
    assert done.returncode == 1
    assert done.stderr.count("qma-net: got --test_data_path list.json, which is a list") == 1


@pytest.mark.parametrize("out", ["/sys/run", "sets.json", "sets.json/run"])
def test_an_output_that_cannot_be_written_to_is_one_line(work, out):
    done = start(flags(out), work, prepare=small, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"qma-net: got --output_dir {out}, expected a folder that can be")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--if_padding"], "got both --if_resizing and --if_padding, expected"),
        (["--test_data_path", "list.json"], "got --test_data_path list.json, which is a list"),
        (["--device", "cuda"], "got --device cuda and no CUDA device, expected"),
        (["--accum_iter", "16"], "got --accum_iter 16 with 3 batches per process"),
    ],
)
def test_what_cannot_be_run_is_one_line(work, more, line):
    if "cuda" in more and torch.cuda.is_available():
        pytest.skip("there is CUDA")
    (work / "list.json").write_text("[]")
    done = start(flags("run", *more), work, prepare=small, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"qma-net: {line}")
    assert "Traceback" not in done.stderr


def test_neither_resizing_nor_padding_is_one_line(work):
    command = [word for word in flags("run") if word != "--if_resizing"]
    done = start(command, work, prepare=small, check=False)
    assert "qma-net: got neither of the two, expected --if_resizing" in done.stderr


def test_a_start_that_fails_shows_the_end_of_its_record(work):
    command = flags("run", "--log_dir", "set/Tp/0.jpg")  # a file where a folder is wanted
    done = start(command, work, prepare=small, check=False)
    assert done.returncode == 1
    assert "Sampler_train" in done.stdout
    assert "Traceback" in done.stderr
    assert "Train transform" in (work / "run/startup.txt").read_text()


def test_the_wrong_package_and_python_are_named(monkeypatch):
    from importlib.metadata import PackageNotFoundError

    from qma_net.launch import scripts

    def installed(*names):
        def version(name):
            if name in names:
                return "0.2.9"
            raise PackageNotFoundError(name)

        monkeypatch.setattr(scripts, "version", version)

    installed("imdlbenco13", "imdlbenco")
    with pytest.raises(LaunchError, match=r"got imdlbenco13, .* expected imdlbenco: pip uninstall"):
        scripts._require_benco()
    installed()
    monkeypatch.setattr(sys, "version_info", (3, 13, 1))
    with pytest.raises(LaunchError, match=r"got Python 3\.13 .* expected Python 3\.11 or 3\.12"):
        scripts._require_benco()


def test_help_says_what_the_model_s_flags_may_be(work):
    said = " ".join(start(["train", "--help"], work).stdout.split())
    for words in (
        "--size SIZE MiT size of both backbones",
        "one of b0, b1, b2, b3, b4, b5 (default b3)",
        "one of query, conv, mlp (default query)",
        "--init_from INIT_FROM a checkpoint of BenCo's trainer to start from",
        "--save_period N a checkpoint every N epochs",
        "--skip_bad",
        "BenCo's flags:",
        "--test_data_path TEST_DATA_PATH",
    ):
        assert words in said
    assert said.index("--init_from") < said.index("--save_period") or "--cudnn" in said
    assert ":func:" not in said


def test_a_script_of_benco_init_without_a_gpu_is_told_two_lines(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is CUDA")
    script = "import IMDLBenCo.training_scripts.utils.misc as misc\nimport qma_net.benco\n"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    two_lines = "from qma_net.launch import redirect_cuda_to_cpu\nredirect_cuda_to_cpu()\n"
    assert two_lines in done.stderr

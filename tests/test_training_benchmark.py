"""benchmarks.training: reading BenCo's logs, and a small training run."""

import json
import math
from importlib.util import find_spec

import cv2
import numpy as np
import pytest

from benchmarks import training
from conftest import photograph

CPU = """\
[13:16:45.1] log_dir: /tmp/run
[13:16:47.4] Epoch: [0]  [ 0/41]  eta: 0:00:41  lr: 0.000000  total_loss: [local: 0.6115 | reduced: 0.6115]  time: 1.0000  data: 0.5000
[13:17:01.9] Epoch: [0]  [20/41]  eta: 0:00:15  lr: 0.000049  total_loss: [local: nan | reduced: nan]  time: 0.8000  data: 0.4000
[13:17:15.5] Epoch: [0]  [40/41]  eta: 0:00:00  lr: 0.000098  total_loss: [local: inf | reduced: 0.5690]  time: 0.5000  data: 0.1000
[13:17:15.5] Epoch: [0] Total time: 0:00:29 (0.7094 s / it)
[13:17:16.0] Test: [0]  [0/2]  eta: 0:00:00    time: 0.1000  data: 0.0500
"""  # noqa: E501
CUDA = """\
[09:00:00.0] Epoch: [0]  [  0/301]  eta: 0:09:00  lr: 0.000000  loss: [local: 1.0000 | reduced: 1.0000]  time: 9.0000  data: 5.0000  max mem: 900
[09:00:09.0] Epoch: [0]  [ 20/301]  eta: 0:05:00  lr: 0.000001  loss: [local: 1.0000 | reduced: 1.0000]  time: 0.5000  data: 0.2500  max mem: 15000
[09:00:19.0] Epoch: [0]  [ 30/301]  eta: 0:05:00  lr: 0.000001  loss: [local: 1.0000 | reduced: 1.0000]  time: 7.0000  data: 7.0000  max mem: 15321
"""  # noqa: E501


def test_training_lines_of_log_are_read():
    assert training.read_log(CPU) == [
        training.LogLine(0, 1.0, 0.5, None),
        training.LogLine(20, 0.8, 0.4, None),
        training.LogLine(40, 0.5, 0.1, None),
    ]
    assert [line.memory for line in training.read_log(CUDA)] == [900, 15000, 15321]


def test_steady_state_ignores_first_iteration_and_incomplete_windows():
    # The log on the CPU has two complete windows, of which the first tenth, rounded up, is ignored.
    result = training.steady_state(training.read_log(CPU), batch=4)
    assert result == {"images_per_second": 8, "waiting_share": 0.2, "peak_memory_mib": None}
    result = training.steady_state(training.read_log(CUDA), batch=4)
    assert result == {"images_per_second": 8, "waiting_share": 0.5, "peak_memory_mib": 15321}


def test_steady_state_ignores_first_tenth_but_averages_all_of_a_short_run():
    lines = [training.LogLine(20 * i, 9.0 if i < 3 else 0.5, 0.0, None) for i in range(16)]
    # Of 15 windows, the first two are ignored.
    assert training.steady_state(lines, 1)["images_per_second"] == 2
    assert training.steady_state([lines[0], training.LogLine(5, 0.25, 0.0, None)], 1) == {
        "images_per_second": 4,
        "waiting_share": 0,
        "peak_memory_mib": None,
    }


def test_status_names_reason_of_failure():
    error = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
    assert training.status(1, f"Traceback\n[rank0]: {error}\n") == "out of memory"
    log = "Traceback\nValueError: got 3 | 4\n[W1] a warning at the end\n"
    assert training.status(1, log) == "failed (1): ValueError: got 3 | 4"
    assert training.status(-9, "") == "failed (-9): no output"
    assert training.status(0, "another format") == "failed (0): no iteration in BenCo's log"
    assert training.status(0, CPU) == "ok"


def test_largest_batch_that_fits_is_named():
    common = {"model": "QMANet", "cudnn": "on"}
    results = [{**common, "batch": batch, "status": "ok"} for batch in (8, 16)]
    results += [{**common, "batch": 32, "status": "out of memory"}]
    assert training.largest_batches(results) == [
        "QMANet, cuDNN on: largest batch size that fits: 16 (32 does not)"
    ]


def test_losses_of_all_steps_are_counted(tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    with tensorboard.SummaryWriter(tmp_path) as writer:
        for step, value in enumerate((0.5, math.nan, math.inf, 0.25)):
            writer.add_scalar("train_loss/total_loss", value, step)
        writer.add_scalar("lr", math.nan, 0)
    assert training.count_losses(tmp_path) == {"losses": 4, "nonfinite_losses": 2}


@pytest.mark.slow
def test_small_training_run_is_measured(tmp_path, capsys, monkeypatch):
    if find_spec("IMDLBenCo") is None:  # Importing it would take six seconds.
        pytest.skip("imdlbenco is not installed")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("Tp", "Gt"):
        (tmp_path / "set" / name).mkdir(parents=True)
    for i in range(3):
        mask = np.zeros((72, 64), np.uint8)
        mask[20:50, 10:40] = 255
        cv2.imwrite(str(tmp_path / f"set/Tp/{i}.jpg"), photograph(72, 64, i))
        cv2.imwrite(str(tmp_path / f"set/Gt/{i}.png"), mask)
    flags = "--models QMANet --size b0 --image-size 64 --batch 2 --steps 3 --workers 0"
    flags += f" --device cpu --data {tmp_path}/set --out {tmp_path}/out"
    training.main(flags.split())
    (result,) = json.loads((tmp_path / "out/training.json").read_text(encoding="utf-8"))["results"]
    assert result["status"] == "ok"
    assert result["images_per_second"] > 0
    assert 0 <= result["waiting_share"] < 1
    assert result["peak_memory_mib"] > 100
    assert result["losses"] == 3 * 3  # Three steps with a total, a mask and an edge loss each.
    assert result["nonfinite_losses"] == 0
    row = training.format_row(result)
    assert row.startswith("| QMANet | 2 | float32 | - |")
    assert row.endswith("| yes (9) |")
    assert row in capsys.readouterr().out
    assert row in (tmp_path / "out/training.md").read_text(encoding="utf-8")

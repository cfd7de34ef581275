"""benchmarks.peers: its numbers, and one tiny run to its tables and picture."""

import json

import pytest
import torch

pytest.importorskip("IMDLBenCo.model_zoo", reason="BenCo's models are not installed")

from benchmarks.peers import measure, tables
from benchmarks.peers.__main__ import main
from qma_net.modeling import config


@pytest.fixture
def one_thread():
    """Tiny tensors on every core wait for each other when the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_quartiles_lie_between_the_values():
    assert tables.quartiles([4.0, 1.0, 3.0, 2.0]) == (1.75, 2.5, 3.25)  # 1 + 3/4, 2 + 1/2, 3 + 1/4


def test_a_ratio_is_the_median_of_the_rounds_ratios():
    # A machine twice as slow in its second round: 1/2, 2/4, 9/3; the medians' ratio is 2/3.
    results = {"seconds": {"a": [1, 2, 9], "b": [2, 4, 3]}}
    assert tables.ratio(results, "a", "b") == 0.5
    assert tables.ratio(results, "a", "c") is None


def test_a_share_is_of_the_fastest_kernel_in_the_precision_of_the_row():
    results = {
        "machine": {"bfloat16": True},
        "shown": 8,
        "flops": {"QMA-Net b3": 30.0},
        "kernels": dict.fromkeys(["matmul", "bf16 matmul", *measure.WHOLE], 10),
        "seconds": {
            "QMA-Net b3, forward 8": [6.0],  # 5 FLOP/s
            "QMA-Net b3 mixed, forward 8": [3.0],  # 10 FLOP/s
            "convolution NCHW": [2.0],
            "convolution channels last": [1.0],  # 10 FLOP/s
            "bf16 matmul": [0.5],  # 20 FLOP/s
        },
    }
    assert tables.share(results, "QMA-Net b3", measure.WHOLE) == pytest.approx(0.5)
    assert tables.share(results, "QMA-Net b3 mixed", measure.MATMUL) == pytest.approx(0.5)
    assert tables.share(results, "QMA-Net b3", measure.MATMUL) is None


def test_resident_peak_sees_memory_that_is_gone_again():
    used = measure.resident_peak(lambda: torch.ones(64, 2**20 // 4))  # 64 MiB
    assert 60 < used < 80


def test_a_short_run_writes_what_it_measured(one_thread, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(config.SIZES, "b3", config.SIZES["tiny"])
    for module in (measure, tables):
        monkeypatch.setattr(module, "REFERENCE", 32)
    main(
        ["--device", "cpu", "--models", "QMA-Net b3", "QMA-Net b3 mixed", "MantraNet"]
        + ["--sizes", "32", "64", "--batches", "1", "2", "--rounds", "1", "--no-memory"]
        + ["--train-size", "32", "--train-batch", "2", "--out", str(tmp_path)]
    )
    results = json.loads((tmp_path / "peers.json").read_text())
    text = (tmp_path / "peers.md").read_text()
    assert text in capsys.readouterr().out
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")
    once = {what: seconds[0] for what, seconds in results["seconds"].items()}
    small, large = (once[f"QMA-Net b3, forward {side}"] for side in (32, 64))
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    cells = {row[0]: row[1:] for row in reversed(rows)}  # the first table of several wins
    assert cells["QMA-Net b3"][2].startswith(f"{1e3 * small:.1f} [")
    grown = large / small
    assert cells["time of QMA-Net b3, forward 64 / at 32"][:2] == ["<= 4.60", f"{grown:.3f}"]
    growth = next(row for row in rows if row[0] == "QMA-Net b3" and row[-1] == f"{grown / 4:.2f}")
    assert growth[1] == cells["QMA-Net b3"][2]
    best = max(n / once[f"QMA-Net b3, batch {n}"] for n in (1, 2))
    assert cells["QMA-Net b3"][4].startswith(f"{best:.2f} (")
    step = once["MantraNet, training"]
    assert ["MantraNet", f"{1e3 * step:.1f} [{1e3 * step:.1f}, {1e3 * step:.1f}]"] in [
        row[:2] for row in rows
    ]
    assert cells["time of QMA-Net b3, forward 32 / TruFor's"] == ["<= 0.48", "not measured", "-"]
    assert cells["MantraNet"][1] == "-"  # fvcore cannot trace it
    assert f"`-` MantraNet, FLOPs: {results['failed']['MantraNet, FLOPs']}" in text

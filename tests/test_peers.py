"""benchmarks.peers: the calculation of its results, and a small run."""

import json

import pytest
import torch

pytest.importorskip("IMDLBenCo.model_zoo", reason="BenCo's models are not installed")

from benchmarks.peers import measure, tables
from benchmarks.peers.__main__ import main
from qma_net.modeling import config


@pytest.fixture
def one_thread():
    """Use one thread, because several that compute tiny tensors wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_quartiles_are_interpolated():
    assert tables.quartiles([4.0, 1.0, 3.0, 2.0]) == (1.75, 2.5, 3.25)  # 1 + 3/4, 2 + 1/2, 3 + 1/4


def test_ratio_is_median_of_ratios_of_rounds():
    # The ratios are 1/2, 2/4 and 9/3; the ratio of the medians would be 2/3.
    results = {"seconds": {"a": [1, 2, 9], "b": [2, 4, 3]}}
    assert tables.ratio(results, "a", "b") == 0.5
    assert tables.ratio(results, "a", "c") is None


def test_relative_speed_uses_fastest_kernel_in_precision_of_row():
    results = {
        "machine": {"bfloat16": True},
        "shown": 8,
        "flops": {"QMA-Net b3": 30.0},
        "kernels": dict.fromkeys(["matmul", "bf16 matmul", *measure.WHOLE_CONVOLUTIONS], 10),
        "seconds": {
            "QMA-Net b3, forward 8": [6.0],  # 5 FLOP/s
            "QMA-Net b3 mixed, forward 8": [3.0],  # 10 FLOP/s
            "convolution NCHW": [2.0],
            "convolution channels last": [1.0],  # 10 FLOP/s
            "bf16 matmul": [0.5],  # 20 FLOP/s
        },
    }
    speed = tables.relative_speed(results, "QMA-Net b3", measure.WHOLE_CONVOLUTIONS)
    assert speed == pytest.approx(0.5)
    speed = tables.relative_speed(results, "QMA-Net b3 mixed", measure.MATMUL)
    assert speed == pytest.approx(0.5)
    assert tables.relative_speed(results, "QMA-Net b3", measure.MATMUL) is None


def test_resident_peak_includes_freed_memory():
    peak = measure.resident_peak(lambda: torch.ones(64, 2**20 // 4))  # 64 MiB
    assert 60 < peak < 80


def test_small_run_writes_consistent_results(one_thread, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(config.SIZES, "b3", config.SIZES["tiny"])
    for module in (measure, tables):
        monkeypatch.setattr(module, "REFERENCE", 32)
    main(
        ["--device", "cpu", "--models", "QMA-Net b3", "QMA-Net b3 mixed", "MantraNet"]
        + ["--sizes", "32", "64", "--batches", "1", "2", "--rounds", "1", "--no-memory"]
        + ["--train-size", "32", "--train-batch", "2", "--out", str(tmp_path)]
    )
    results = json.loads((tmp_path / "peers.json").read_text(encoding="utf-8"))
    text = (tmp_path / "peers.md").read_text(encoding="utf-8")
    assert text in capsys.readouterr().out
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")
    seconds = {key: times[0] for key, times in results["seconds"].items()}
    small, large = (seconds[f"QMA-Net b3, forward {size}"] for size in (32, 64))
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    cells = {row[0]: row[1:] for row in reversed(rows)}  # The first table with a row wins.
    assert cells["QMA-Net b3"][2].startswith(f"{1e3 * small:.1f} [")
    growth = large / small
    target = cells["time of QMA-Net b3 at 64, relative to 32"]
    assert target[:2] == ["<= 4.60", f"{growth:.3f}"]
    relative_growth = f"{growth / 4:.2f}"
    (row,) = [row for row in rows if row[0] == "QMA-Net b3" and row[-1] == relative_growth]
    assert row[1] == cells["QMA-Net b3"][2]
    best = max(n / seconds[f"QMA-Net b3, batch {n}"] for n in (1, 2))
    assert cells["QMA-Net b3"][4].startswith(f"{best:.2f} (")
    step = f"{1e3 * seconds['MantraNet, training']:.1f}"
    assert ["MantraNet", f"{step} [{step}, {step}]"] in [row[:2] for row in rows]
    target = cells["time of QMA-Net b3 at 32, relative to TruFor"]
    assert target == ["<= 0.48", "not measured", "-"]
    assert cells["MantraNet"][1] == "-"  # fvcore cannot trace it.
    assert f"`-` MantraNet, FLOPs: {results['failed']['MantraNet, FLOPs']}" in text

"""The evidence benchmark: models, baselines, tables, and one complete tiny run."""

import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from argparse import Namespace
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from IMDLBenCo.registry import MODELS
from IMDLBenCo.training_scripts.utils.misc import create_argparser
from safetensors.torch import load_file

from benchmarks.evidence import __main__ as comparison
from benchmarks.evidence import models, ship, small
from benchmarks.evidence.__main__ import main as evidence_main
from benchmarks.evidence.baselines import everything, noise_inconsistency
from benchmarks.evidence.page import Results
from benchmarks.evidence.plan import STAGES, Plan, comparisons, read_plans
from benchmarks.evidence.records import Records, collect
from conftest import ROOT, photograph
from qma_net.core.errors import QMANetError
from qma_net.core.files import sha256
from qma_net.core.untrusted import format_csv
from qma_net.evaluation.metrics import pixel_metrics
from qma_net.evaluation.results import COLUMNS
from qma_net.inference.predictor import QMANetPredictor
from qma_net.modeling.config import Preprocessing
from qma_net.modeling.interaction import DFCM
from qma_net.modeling.losses import dice_loss, edge_target
from qma_net.modeling.noise import SRM
from qma_net.modeling.qma_net import to_image_size
from qma_net.synth.curriculum import stages, with_changes
from qma_net.synth.photographs import split_by

TINY_FLAGS = {"size": "tiny", "views": "srm,bayar"}


@pytest.mark.parametrize("size", comparisons())
def test_every_row_names_a_registered_model(size):
    import IMDLBenCo.model_zoo  # noqa: F401  (registers BenCo's models)

    plan = Plan.read(size)
    assert plan.stage in stages()
    assert len({row.folder for row in plan.rows}) == len(plan.rows)
    assert {row.question for row in plan.rows[1:]} <= {"idea", "reading", "baseline"}
    for row in plan.rows:
        parser = create_argparser(MODELS.get(row.model))
        _, unknown = parser.parse_known_args(plan.model_flags(row))
        assert set(unknown) <= {"--find_unused_parameters"}, row
    assert plan.model_flags(plan.rows[0])[:2] == ["--size", plan.common["size"]]


def test_plan_longer_trains_rows_of_the_plan_cpu_for_more_epochs():
    plans = read_plans()
    short, longer = plans["cpu"], plans["longer"]
    assert longer["epochs"] > short["epochs"]
    assert longer["rows"][0] == short["rows"][0]
    assert all(row in short["rows"] for row in longer["rows"])
    separate = {"epochs", "seeds", "rows"}
    assert {key: longer[key] for key in longer.keys() - separate} == {
        key: short[key] for key in short.keys() - separate
    }


def test_page_has_only_tables_of_questions_in_the_plan():
    tables = {name: Results(Records(), Plan.read(name)).tables for name in comparisons()}
    assert tables == {
        "cpu": [("idea", "baseline"), ("reading",)],
        "longer": [("idea", "baseline")],
        "gpu": [("idea", "baseline"), ("reading",)],
    }


def test_weights_of_noiseprint_are_passed_to_the_models_that_need_them(tmp_path):
    weights = tmp_path / "noiseprint++.th"
    plan = Plan.read("gpu", str(weights))
    with pytest.raises(QMANetError, match=r"QMA-Net has the view noiseprint, but .* is not a file"):
        plan.require_noiseprint(plan.rows)
    weights.write_bytes(b"weights")
    plan.require_noiseprint(plan.rows)
    with_weights = {row.name for row in plan.rows if str(weights) in plan.model_flags(row)}
    without = {"SRM only", "Bayar only", "SegFormer-B0 on RGB", "Mesorch", "SparseViT"}
    assert {row.name for row in plan.rows} - with_weights == without
    flags = plan.model_flags(plan.rows[0])
    assert flags[flags.index("--noiseprint_weights") + 1] == str(weights)
    Plan.read("gpu").require_noiseprint([row for row in plan.rows if row.name in without])
    Plan.read("cpu").require_noiseprint(Plan.read("cpu").rows)


def test_missing_weights_of_noiseprint_give_one_line_before_anything_is_written(tmp_path, capsys):
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as error:
        evidence_main(["gpu", "--photos", str(tmp_path), "--out", str(out)])
    assert error.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "--noiseprint is not set; pass the path of noiseprint++.th" in line
    assert not out.exists()


def test_alternative_readings_have_the_flags_of_qma_net():
    ours = inspect.signature(MODELS.get("QMANet").__init__)
    for name in ("QMANetTruncatedSRM", "QMANetOwnGCM", "QMANetFourESM"):
        assert inspect.signature(MODELS.get(name).__init__) == ours


def test_truncated_srm_is_clamped_and_rescaled():
    rgb = torch.from_numpy(photograph(64, 64)).permute(2, 0, 1)[None] / 255
    full, truncated = SRM()(rgb), models.TruncatedSRM()(rgb)
    limit = 3 * 35 / 2.4
    assert truncated.abs().max() == pytest.approx(limit)
    inside = full.abs() < 3
    assert inside.any()
    assert torch.allclose(truncated[inside], full[inside] * 35 / 2.4)
    network = MODELS.get("QMANetTruncatedSRM")(**TINY_FLAGS).network
    assert isinstance(network.noise_view.srm, models.TruncatedSRM)


def test_gcm_per_direction_adds_the_parameters_that_sharing_saves():
    def parameters(module):
        return sum(p.numel() for p in module.parameters())

    of_b3 = list(zip((64, 128, 320, 512), (1, 2, 5, 8), (8, 4, 2, 1), strict=True))
    added = sum(parameters(models.OwnGCM(*stage)) - parameters(DFCM(*stage)) for stage in of_b3)
    assert added / 1e6 == pytest.approx(1.26, abs=0.005)  # docs/reading-the-paper.md
    rgb, noise = torch.randn(2, 1, 16, 16, 16)
    torch.manual_seed(1)
    own = models.OwnGCM(16, 1, 2)
    own.attend_noise.load_state_dict(own.attend.state_dict())
    shared = DFCM(16, 1, 2)
    shared.load_state_dict(own.state_dict(), strict=False)
    for actual, expected in zip(own(rgb, noise), shared(rgb, noise), strict=True):
        assert torch.equal(actual, expected)


def test_four_esms_are_trained_on_the_mean_of_their_losses():
    model = MODELS.get("QMANetFourESM")(**TINY_FLAGS, bce=1.0).eval()
    image = torch.randn(1, 3, 64, 64)
    mask = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
    mask[..., 16:48, 16:48] = 1
    result = model(image, mask)
    edges = edge_target(mask)
    maps = [edge.detach() for edge in model.network.edge_head.maps]
    each = [dice_loss(to_image_size(edge, (64, 64)), edges) for edge in maps]
    losses = {name: loss.item() for name, loss in result["visual_loss"].items()}
    assert [edge.shape[-1] for edge in maps] == [16, 8, 4, 2]
    assert losses["edge_loss"] == pytest.approx(float(sum(each)) / 4, abs=1e-6)
    expected = 0.2 * losses["seg_loss"] + 0.8 * sum(each) / 4 + losses["bce_loss"]
    assert result["backward_loss"].item() == pytest.approx(float(expected), abs=1e-5)
    result["backward_loss"].backward()
    assert all(
        any(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())
        for head in model.network.edge_head.heads
    )


def test_block_noise_baseline_localizes_stronger_noise():
    rng = np.random.default_rng(0)
    rgb = np.full((96, 128, 3), 120.0) + rng.normal(0, 2, (96, 128, 3))
    truth = np.zeros((96, 128), bool)
    truth[32:64, 48:96] = True
    rgb[truth] += rng.normal(0, 12, rgb[truth].shape)
    mask = noise_inconsistency(np.clip(rgb, 0, 255).astype(np.uint8))
    assert (mask.min(), mask.max()) == (0, 1)
    assert pixel_metrics(mask, truth)["f1"] > 0.95
    assert pixel_metrics(everything(rgb), truth)["f1"] == pytest.approx(2 * 1 / 8 / (1 + 1 / 8))


def write_run(out, row, seed, f1):
    """Write the result tables of a run whose images have the given F1 on every test set."""
    folder = out / row / str(seed) / "evaluate"
    folder.mkdir(parents=True)
    for name in ("splices", *stages(), "untouched"):
        rows = [
            dict.fromkeys(["permute_f1", "precision", "recall", "best_f1"], 0.5)
            | {"name": f"{i}.png", "label": 1, "f1": value, "iou": value / 2, "auc": 0.5}
            | {"score": 0.5, "marked": 0.25, "path": f"/{i}.png"}
            for i, value in enumerate(f1)
        ]
        (folder / f"{name}.csv").write_text(format_csv(COLUMNS, rows))


@pytest.fixture
def results(tmp_path):
    plan = Plan.read("cpu")
    plan = replace(plan, common={**plan.common, "size": "tiny"})
    write_run(tmp_path, "qma-net", 0, [0.5, 0.7])
    write_run(tmp_path, "qma-net", 1, [0.6, 0.8])
    write_run(tmp_path, "without-dfcm", 0, [0.1, 0.3])  # Worse by 0.4 with both seeds.
    write_run(tmp_path, "without-dfcm", 1, [0.2, 0.4])
    write_run(tmp_path, "conv-decoder", 0, [0.7, 0.6])  # Better and worse.
    write_run(tmp_path, "mlp-decoder", 0, [0.7, 0.9])  # Better by 0.2, worse by 0.1.
    write_run(tmp_path, "mlp-decoder", 1, [0.5, 0.7])
    records = Records()
    collect(records, tmp_path, plan)
    return Results(records, plan)


def test_comparison_reports_uncertain_differences(results):
    differences = {
        row.name: results.difference("QMA-Net", row.name)
        for row in results.rows
        if row.name != "QMA-Net"
    }
    assert differences == {
        "without DFCM": "-0.400 [-0.400, -0.400]",
        "conv decoder": "+0.050 [-0.100, +0.200]; includes 0; one seed",
        "MLP decoder": "+0.050 [+0.050, +0.050]; seeds disagree",
    }
    assert results.rows[0].name == "QMA-Net"
    assert "| QMA-Net |" in (table := results.comparison("reading"))
    assert "| 0.600, 0.700 |" in table
    assert "| (seed 0) |" in results.on_splices("conv decoder")
    results.records.runs["conv decoder", 3] = results.records.runs["conv decoder", 0]
    assert "(seeds 0, 3) |" in results.on_splices("conv decoder")
    results.records.runs["level 4 only", 2] = results.records.runs["conv decoder", 0]
    assert results.difference("QMA-Net", "level 4 only") == "no common seed"
    assert "| QMA-Net | 0.650 |" in (table := results.test_sets())
    assert "| 25.0% |" in table


def test_recorded_runs_are_extended_and_replaced_by_later_ones(results, tmp_path):
    recorded, later = tmp_path / "docs", tmp_path / "later"
    recorded.mkdir()
    results.records.robust = [("none", 0, 0.6), ("blur", 3, 0.4)]
    results.records.write(recorded, "cpu")
    write_run(later, "qma-net", 1, [0.2, 0.4])
    write_run(later, "qma-net", 2, [0.3, 0.3])
    records = Records.read(recorded, "cpu")
    assert Results(records, results.plan).blocks() == results.blocks()
    collect(records, later, results.plan)
    assert records.seeds("QMA-Net") == [0, 1, 2]
    assert "| 0.600, 0.300, 0.300 |" in Results(records, results.plan).comparison(
        "idea", "baseline"
    )
    assert "| blur | 3: 0.400 |" in results.robustness()
    write_run(later, "conv-decoder", 2, [0.3, 0.3, 0.5])
    with pytest.raises(QMANetError, match="conv decoder was tested on 3 splices that differ"):
        collect(records, later, results.plan)


@pytest.mark.parametrize(("seeds", "attacked"), [([], ["0"]), ([1], []), ([1, 0], ["0"])])
def test_attacks_are_applied_to_the_first_seed_of_the_plan_only(
    tmp_path, monkeypatch, seeds, attacked
):
    started = []
    monkeypatch.setattr(comparison, "prepare", lambda *given: {})
    for part in ("train", "test"):
        monkeypatch.setattr(comparison.TrainingRun, part, lambda self: True)
    monkeypatch.setattr(
        comparison.TrainingRun,
        "_start",
        lambda self, command, flags: started.append((command, self.folder)) or True,
    )
    given = {"noiseprint": None, "epochs": None, "minutes": 1, "jobs": 1, "workers": 0}
    rows = "QMA-Net,without DFCM"
    args = Namespace(size="cpu", seeds=seeds, rows=rows, out=str(tmp_path), **given)
    comparison.run_comparison(args)
    assert started == [("robust", tmp_path / "qma-net" / seed) for seed in attacked]


def test_each_step_of_the_small_model_starts_from_the_previous_weights(tmp_path, monkeypatch):
    """The run is stopped after training; the next call only evaluates."""
    plans = read_plans()
    plan = plans["small"]
    for side in (64, 80):
        step = next(step for step in reversed(plan["steps"]) if "sources" in step)
        step["sources"].append({"stage": "copies", "sizes": [[side, side]]})
    names, started = [step["name"] for step in plan["steps"]], []

    def run(self, command, flags, folder, title, epoch_images=None):
        if len(started) == len(names):
            return False
        given = dict(pairwise(map(str, flags)))
        started.append((title, command, given))
        if command == "train":
            folder.mkdir(parents=True)
            last = int(given["--epochs"]) - 1
            (folder / "log.txt").write_text(f'{{"epoch": {last}}}\n')
            (folder / f"checkpoint-{last}.pth").touch()
        return True

    monkeypatch.setattr(small, "read_plans", lambda: plans)
    monkeypatch.setattr(small.Clock, "run", run)
    monkeypatch.setattr(small, "format_means", lambda folder, names: "")
    sets = {name: tmp_path / f"{name}.json" for name in stages()}
    tested = []
    monkeypatch.setattr(small, "test_images", lambda *given: tested.append(given[1:]) or sets)
    for folder in ("CAMERA", "CCP", "WEB"):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        (tmp_path / "photos" / folder / "a.jpg").touch()
    args = Namespace(
        size="small",
        out=str(tmp_path / "out"),
        epochs=7,
        photos=str(tmp_path / "photos"),
        labels=None,
        minutes=1,
        jobs=1,
        workers=3,
        real=[],
    )
    small.run_small(args)
    assert [(title, command) for title, command, _ in started] == [
        (name, "train") for name in names
    ]
    first, *_, last = (given for *_, given in started)
    # The last two steps have their own size and test images.
    assert (first["--image_size"], last["--image_size"]) == ("192", "256")
    folders = [tmp_path / "out" / name for name in ("data", f"{names[-1]}/data")]
    own, recipe = ["realistic", "copies"], plan["recipe"]
    assert [tested[-3], tested[-1]] == [
        (folders[0], 192, 100, [*STAGES], recipe),
        (folders[1], 256, 160, own, recipe),
    ]
    assert "--init_from" not in first
    previous = tmp_path / f"out/{names[-2]}/checkpoint-{plan['steps'][-2]['epochs'] - 1}.pth"
    assert (last["--init_from"], last["--epochs"], last["--num_workers"]) == (
        str(previous),
        "7",
        "3",
    )
    sources = next(step["sources"] for step in reversed(plan["steps"]) if "sources" in step)
    datasets = [
        yaml.safe_load(Path(p).read_text(encoding="utf-8"))
        for _, p in read_json(last["--data_path"])
    ]
    assert [dataset["stage"] for dataset in datasets] == [source["stage"] for source in sources]
    assert [dataset.get("sizes") for dataset in datasets][-2:] == [[[64, 64]], [[80, 80]]]
    # The photos that are reserved for packaging are not used in any step.
    assert recipe == {
        "split": "hash",
        "test_share": 0.15,
        "validation_share": 0.1,
        "held_out": ["CAMERA"],
    }
    assert all(dataset["recipe"] == recipe for dataset in datasets)
    easy = [yaml.safe_load(Path(p).read_text()) for _, p in read_json(first["--data_path"])]
    assert easy[1]["recipe"] == {**recipe, "kinds": [1.0, 0.0, 0.0], "area": [0.05, 0.4]}
    started.clear()
    small.run_small(args)  # Resumes: finished trainings are only evaluated.
    assert [(title, command) for title, command, _ in started] == [(n, "evaluate") for n in names]
    assert all(with_changes(stages()[d["stage"]], d.get("recipe", {}), "") for d in datasets)
    args.real = [str(tmp_path / "photos/WEB")]
    with pytest.raises(QMANetError, match="WEB"):  # Not one of the test sets with halves.
        small.run_small(args)
    (tmp_path / "photos/CAMERA/a.jpg").unlink()
    with pytest.raises(QMANetError, match="photos has no photos in a folder CAMERA, which are"):
        small.run_small(args)


def test_threshold_is_chosen_within_the_limit_of_authentic_pixels():
    """Hand-derived: an image of 4 pixels, of which 2 are manipulated (scores 0.9 and 0.3)."""
    counts = np.zeros((2, ship.BINS), int)
    counts[1, [900, 300]] = 1
    counts[0, [100, 350]] = 1
    f1, marked = ship.scores(counts)
    assert f1[[0, 200, 300, 301, 351, 901]] == pytest.approx([2 / 3, 0.8, 0.8, 0.5, 2 / 3, 0])
    assert marked[[0, 200, 301, 901]].tolist() == [1, 0.75, 0.5, 0]
    authentic = np.zeros((2, ship.BINS), int)
    authentic[0, :450] = 1
    authentic[0, 0] = 551  # 449 of 1,000 above 0: at most 1 % from 0.44 on.
    lenient = np.zeros((2, ship.BINS), int)
    lenient[0, 0] = 1  # Allows every threshold, but the other group does not.
    groups = {"cameras": [authentic], "others": [lenient]}
    threshold, table = ship.choose_threshold({"one": [counts]}, groups, ["cameras"])
    assert threshold == 0.44  # The lowest allowed threshold with F1 = 2/3.
    assert "| **0.440** | 0.667 | 0.667 | 1.00% | 0.00% |" in table
    # The limit does not apply to the other group.
    assert ship.choose_threshold({"one": [counts]}, groups, ["others"])[0] == 0.101


def test_threshold_that_marks_too_much_everywhere_is_rejected():
    counts = np.zeros((2, ship.BINS), int)
    counts[:, -1] = 1
    with pytest.raises(QMANetError, match="marks more than 1% of authentic pixels at every thresh"):
        ship.choose_threshold({"one": [counts]}, {"cameras": [counts]}, ["cameras"])


@pytest.fixture
def reserved(tmp_path):
    """Create photos in three folders, and a step that holds out ``new`` and ignores ``other``."""
    for number in range(40):
        folder = "new" if number < 9 else "old" if number < 32 else "other"
        path = tmp_path / "photos" / folder / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), photograph(64, 80, number))
    recipe = {"split": "hash", "test_share": 0.4, "validation_share": 0.3, "held_out": ["new"]}
    recipe |= {"image_size": 64}
    source = {"stage": "one-trace", "recipe": recipe}
    step = {"name": "last", "epochs": 1, "sources": [source], "authentic": ["new", "old"]}
    step |= {"data": "data", "test_stages": ["one-trace"], "recipe": recipe}
    step["average"] = {"first": 0.75}
    return tmp_path / "photos", step


def test_threshold_and_comparison_use_different_reserved_photos(reserved):
    folder, step = reserved
    photos = ship.ReservedPhotos.find(folder, None, step)
    assert (len(photos.choosing["new"]), len(photos.comparing["new"])) == (4, 5)
    chosen, compared = (
        {path for group in groups.values() for path in group}
        for groups in (photos.choosing, photos.comparing)
    )
    assert not chosen & compared
    assert {*photos.test} == compared | {*photos.choosing["new"]}
    recipe = with_changes(stages()["one-trace"], step["sources"][0]["recipe"], "")
    names = [f"old/{number}.png" for number in range(9, 32)]
    split = split_by(folder, names, replace(recipe, held_out=()), 0)
    assert {*photos.choosing["old"]} == {folder / name for name in split["validation"]}
    assert {*photos.comparing["old"]} == {folder / name for name in split["test"]}
    (folder / "few").mkdir()
    shutil.copy(folder / "new/0.png", folder / "few/0.png")
    (folder / "new/0.png").unlink()
    with pytest.raises(QMANetError, match="few has too few usable photos"):
        ship.ReservedPhotos.find(folder, None, step | {"authentic": ["few"]})


def test_finished_training_is_packaged_with_calibration_and_card(
    reserved, build_tiny, tmp_path, monkeypatch
):
    """Everything except the comparison with real images, whose arguments are checked."""
    folder, step = reserved
    out = tmp_path / "out"
    (out / "last").mkdir(parents=True)
    (out / "last/log.txt").write_text('{"epoch": 0}\n')
    model = build_tiny("b0").eval()
    model.preprocessing = Preprocessing(64, fit="native")
    model.save_pretrained(tmp_path / "trained")
    (out / "last/checkpoint-0.pth").touch()
    (out / "data").mkdir()
    image, truth = tmp_path / "image.png", tmp_path / "truth.png"
    cv2.imwrite(str(image), photograph(64, 64))
    cv2.imwrite(str(truth), np.eye(64, dtype=np.uint8) * 255)
    (out / "data/one-trace.json").write_text(json.dumps([[str(image), str(truth)]]))
    load = QMANetPredictor.from_pretrained
    first = build_tiny("b0").eval()
    first.save_pretrained(out / "first")
    monkeypatch.setattr(ship, "small_steps", lambda name: [{"name": "first", "epochs": 1}, step])
    monkeypatch.setattr(ship, "checkpoint_path", lambda folder, epoch: folder)
    monkeypatch.setattr(
        QMANetPredictor,
        "from_pretrained",
        lambda path: load(tmp_path / "trained" if path == out / "last/checkpoint-0.pth" else path),
    )
    monkeypatch.setattr(ship, "MAX_MARKED", 1.0)  # The model is untrained.
    given = []
    monkeypatch.setattr(ship, "compare", lambda *args: given.append(args) or "| table |")
    monkeypatch.setattr(ship, "half_of", lambda *args: [[str(image), str(truth)]])
    words = ["--photos", folder, "--out", out, "--real", tmp_path / "real", "--half", "test"]
    monkeypatch.setattr(sys, "argv", ["ship", *map(str, words)])
    ship.main()
    target = out / "qma-net-small"
    packaged = load(target)
    photos = ship.ReservedPhotos.find(folder, None, step)
    assert packaged.model.calibration.count == len(photos.test)
    name = "tamper_queries.queries"
    expected = 0.25 * model.state_dict()[name] + 0.75 * first.state_dict()[name]
    torch.testing.assert_close(packaged.model.state_dict()[name], expected, atol=1e-3, rtol=1e-3)
    assert packaged.model.calibration.native
    ((_, authentic, half, models, comparison),) = given
    assert (authentic, half) == (photos.comparing, "test")
    assert models == {"previous": "qma-net-small", "new": str(target)}
    assert comparison.name.startswith("comparison-test-")
    card = (target / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: qma-net")
    assert "<!-- real -->\n| table |\n<!-- end -->" in card
    assert (
        "F1, one-trace | F1, real | mean | new, marked | old, marked"
        in (out / "threshold.md").read_text()
    )


def test_unfinished_training_is_not_packaged(tmp_path, monkeypatch, capsys):
    words = ["ship", "--photos", str(tmp_path), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    ship.main()
    assert "The step longer is not finished; run benchmarks.evidence" in capsys.readouterr().out


def test_chosen_threshold_is_mapped_to_0_5_when_packaging(build_tiny, tmp_path):
    model = build_tiny("b0").eval()
    model.preprocessing = Preprocessing(64, fit="native")
    image = photograph(64, 96)
    before = QMANetPredictor(model).predict(image).mask
    threshold = float(np.quantile(before, 0.7))
    ship.write(QMANetPredictor(model), threshold, tmp_path / "model")
    state = load_file(tmp_path / "model/model.safetensors")
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}
    after = QMANetPredictor.from_pretrained(tmp_path / "model")
    assert after.preprocessing.fit == "native"
    shifted = before * (1 - threshold) / (before * (1 - threshold) + (1 - before) * threshold)
    assert np.abs(after.predict(image).mask - shifted).max() < 0.01
    assert (after.predict(image).mask > 0.5).mean() == pytest.approx(0.3, abs=0.02)


def read_json(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


@pytest.mark.slow
def test_evidence_script_resumes_where_it_was_stopped(tmp_path):
    """Run the documented command with one epoch, stop it midway, and resume it until the tables."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(12):
        cv2.imwrite(str(photos / f"{number}.png"), photograph(256, 256, number))
    out = tmp_path / "out"

    def run(**variables):
        environment = os.environ | {
            "PHOTOS": str(photos), "OUT": str(out), "EPOCHS": "1", "SEEDS": "0", "JOBS": "2",
            "ROWS": "QMA-Net,SegFormer-B0 on RGB", "VENV": os.environ.get("VIRTUAL_ENV", ""),
        }  # fmt: skip
        command = ["bash", "shell/evidence.sh", "cpu"]
        process = subprocess.run(
            command, cwd=ROOT, env=environment | variables, capture_output=True, text=True
        )
        return process.returncode, process.stdout + process.stderr

    code, text = run(MINUTES="0.5")
    assert code == 0, text
    assert "0 of 2 runs are complete" in text
    assert "No run of QMA-Net is complete yet" in text
    code, text = run()
    assert code == 0, text
    assert "2 of 2 runs are complete" in text
    before = (out / "qma-net/0/log.txt").stat().st_mtime_ns
    assert run()[0] == 0
    assert (out / "qma-net/0/log.txt").stat().st_mtime_ns == before
    page = (out / "evidence.md").read_text()
    assert re.search(r"\| QMA-Net \| 12\.95 \| 0\.\d{3} \[", page)
    assert "*every pixel marked*" in page
    assert (out / "evidence/cpu-curves.png").is_file()


@pytest.mark.slow
def test_script_trains_and_packages_the_small_model_after_an_interruption(tmp_path):
    """Run the documented command with tiny settings of the same plan, and kill it midway."""
    for name in ("benchmarks", "benco_configs", "docs/evidence", "qma_net", "shell"):
        unneeded = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / "repository" / name, ignore=unneeded)
    # The environment exists; installing this copy would redirect it.
    environment = tmp_path / "repository/shell/env.sh"
    environment.write_text("help_wanted() { false; }\nmake_environment() { :; }\n")
    path = tmp_path / "repository/benco_configs/evidence.yaml"
    plans = yaml.safe_load(path.read_text())
    plan = plans["small"]
    for step in plan["steps"]:
        step |= {"image_size": 64, "epochs": 1, "epoch_images": 16, "batch_size": 8}
        step |= {"test_images": 16} if "test_images" in step else {}
        for source in step.get("sources", []):
            source |= {"sizes": [[64, 96]]} if "sizes" in source else {}
    plan |= {"test_images": 16}
    path.write_text(yaml.safe_dump(plans))
    photos, out = tmp_path / "photos", tmp_path / "out"
    for number in range(150):  # Enough for the random split to put some into each part.
        file = photos / ("CAMERA", "CCP", "WEB")[number % 3] / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), photograph(128, 160, number))

    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    def run(*, stop_after=None):
        """Run the script to the end, or kill it when a step has been trained."""
        process = subprocess.Popen(
            ["bash", "shell/evidence.sh", "small"],
            cwd=tmp_path / "repository",
            env=os.environ | {"PHOTOS": str(photos), "OUT": str(out), "PATH": programs},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        lines = []
        try:
            for line in process.stdout:
                lines.append(line)
                if stop_after and line.startswith(f"{stop_after}: train "):
                    return "".join(lines)
            assert process.wait() == 0, "".join(lines)
            return "".join(lines)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def trained(text):
        return re.findall(r"^(\w+): train [\d.]+ min$", text, re.MULTILINE)

    text = run(stop_after="finish")
    assert trained(text) == ["easy", "mixture", "finish"], text
    text = run()
    assert trained(text) == ["more", "native", "longer"], text
    assert "| threshold | F1, realistic | F1, copies | mean |" in (out / "threshold.md").read_text()
    packaged = QMANetPredictor.from_pretrained(out / "qma-net-small")
    assert packaged.preprocessing.fit == "native"
    reserved = [
        path
        for path in photos.glob("*/*")
        if path.parent.name == "CAMERA" or int(sha256(path)[:16], 16) < 0.15 * 2**64
    ]
    assert packaged.calibration.count == len(reserved) > 50
    assert (out / "qma-net-small/README.md").read_text().startswith("---\nlibrary_name: qma-net")
    assert trained(run()) == []

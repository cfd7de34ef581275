"""Exact evaluation and robustness: every image counts once, and interrupted runs continue."""

import json
import logging
import os
import shutil
from datetime import timedelta

import cv2
import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from sklearn.metrics import f1_score, jaccard_score, roc_auc_score

from conftest import photograph
from forks import Fork, torchrun
from qma_net.core.files import ContentError, PathError, sha256
from qma_net.core.runs import BusyError, FolderLock, Journal
from qma_net.evaluation import distributed
from qma_net.evaluation import evaluate as ev
from qma_net.evaluation import robust as rb
from qma_net.evaluation.attacks import read_attacks
from qma_net.evaluation.distributed import DistributedContext, device_for_process
from qma_net.evaluation.evaluate import evaluate
from qma_net.evaluation.results import is_complete, read_result_table
from qma_net.evaluation.settings import AS_TRAINED, EvaluationError, Settings
from qma_net.modeling.config import ConfigError, Preprocessing
from qma_net.weights.locate import load_model
from sample_archives import set_rows, write_set

SMALL = Settings("resize", 64, 2)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A list of seven tampered and three authentic images, and an untrained b0."""
    from qma_net.benco import QMANet

    folder = tmp_path_factory.mktemp("evaluate")
    write_set(folder / "set")
    rows = set_rows(folder / "set", 7)
    for i in range(3):
        path = folder / f"authentic{i}.png"
        cv2.imwrite(str(path), photograph(80, 70, 90 + i))
        rows.insert(3 * i, [str(path), "Negative"])
    (folder / "mixed.json").write_text(json.dumps(rows))
    (folder / "sets.json").write_text(json.dumps({"Mixed": str(folder / "mixed.json")}))
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="random encoders"):
        model = QMANet(size="b0", views="srm")
    with torch.no_grad():  # Predictions on both sides of the threshold.
        for name, parameter in model.network.named_parameters():
            if "bias" in name and parameter.shape == (1,):
                parameter.zero_()
    torch.save({"model": model.state_dict(), "epoch": 0}, folder / "checkpoint-0.pth")
    return folder


@pytest.fixture(scope="module")
def single(work):
    """Results of one process, with masks."""
    evaluate(
        [work / "checkpoint-0.pth"],
        [work / "sets.json"],
        work / "single",
        settings=SMALL,
        workers=0,
        save_masks="npy",
    )
    return work / "single"


def masks_of(folder):
    return [np.load(path) for path in sorted((folder / "Mixed_masks").iterdir())]


def test_two_processes_give_the_results_of_one(work, single, tmp_path):
    """Ten images in batches of two: one process has three batches and the other has two."""
    flags = ["--checkpoint", work / "checkpoint-0.pth", "--test-sets", work / "sets.json"]
    flags += ["--out", work / "both", "--image-size", 64, "--batch-size", 2, "--device", "cpu"]
    command = ["-m", "qma_net", "evaluate", *flags, "--save-masks", "--workers", 0]
    done = Fork(torchrun(2, *command), tmp_path).wait()
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (json.loads((f / "Mixed.json").read_text()) for f in (single, work / "both"))
    assert (two["n_tampered"], two["n_authentic"]) == (7, 3)
    for first, second in zip(masks_of(single), masks_of(work / "both"), strict=True):
        assert first.dtype == np.float32
        np.testing.assert_allclose(first, second, atol=1e-5)
    for key in ("pixel_f1", "permute_f1", "iou", "auc", "authentic_marked", "image_auc"):
        assert one[key] == pytest.approx(two[key], abs=1e-6), key
    names = [row["path"] for row in read_result_table(work / "both/Mixed.csv")]
    assert names == [image for image, _ in json.loads((work / "mixed.json").read_text())]


def test_metrics_agree_with_scikit_learn_on_the_saved_masks(work, single):
    """The ground truth is read by BenCo."""
    from IMDLBenCo.datasets import JsonDataset

    truths = JsonDataset(str(work / "mixed.json"), is_resizing=True, output_size=(64, 64))
    rows = read_result_table(single / "Mixed.csv")
    columns = {name: [] for name in ("f1", "permute_f1", "iou", "auc")}
    marked, scores, labels = [], [], []
    for index, (row, mask) in enumerate(zip(rows, masks_of(single), strict=True)):
        item = truths[index]
        scores.append(row["score"])
        labels.append(item["label"])
        squares = sliding_window_view(mask, (4, 4))  # Of a mask of 64x64 pixels.
        assert row["score"] == pytest.approx(squares.mean(axis=(2, 3)).max(), abs=1e-6)
        if not item["label"]:
            marked.append((mask > 0.5).mean())
            assert row["f1"] is row["auc"] is None
            continue
        y, p = item["mask"].numpy().ravel() > 0.5, mask.ravel() > 0.5
        f1 = f1_score(y, p)
        expected = {
            "f1": f1,
            "permute_f1": max(f1, f1_score(y, ~p)),
            "iou": jaccard_score(y, p),
            "auc": roc_auc_score(y, mask.ravel()),
        }
        for name, value in expected.items():
            columns[name].append(value)
            assert row[name] == pytest.approx(value, abs=1e-6), name
    result = json.loads((single / "Mixed.json").read_text())
    assert result["pixel_f1"] == pytest.approx(np.mean(columns["f1"]), abs=1e-6)
    for name in ("permute_f1", "iou", "auc"):
        assert result[name] == pytest.approx(np.mean(columns[name]), abs=1e-6)
    assert result["authentic_marked"] == pytest.approx(np.mean(marked), abs=1e-6)
    assert result["image_auc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-6)
    low, high = result["intervals"]["pixel_f1"]
    assert low <= result["pixel_f1"] <= high
    assert result["header"]["checkpoint_sha256"]
    assert result["header"]["versions"]["imdlbenco"] == "0.1.45"


def test_complete_results_are_kept_and_changed_settings_are_rejected(work, single, caplog):
    caplog.set_level(logging.INFO, "qma_net")
    before = (single / "Mixed.json").read_bytes()
    arguments = [work / "checkpoint-0.pth"], [work / "sets.json"], single
    evaluate(*arguments, settings=SMALL, workers=0)
    assert "Mixed.json is already complete" in caplog.text
    with pytest.raises(
        EvaluationError, match=r"of a different evaluation \(image_size 64, now 96\)"
    ):
        evaluate(*arguments, settings=Settings("resize", 96, 2), workers=0)
    assert (single / "Mixed.json").read_bytes() == before


def test_unavailable_device_gives_one_line_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="CUDA is not available"):
        DistributedContext.from_environment("cuda")
    with pytest.raises(ConfigError, match="got device 'gpu', expected cpu, cuda"):
        DistributedContext.from_environment("gpu")


def test_processes_wait_for_longer_than_the_default_of_30_minutes(monkeypatch):
    given = {}
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "report_crashes", lambda: None)
    monkeypatch.setattr(distributed.atexit, "register", lambda function: None)
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda *_, **options: given.update(options)
    )
    DistributedContext.from_environment("cpu")
    assert given["timeout"] >= timedelta(days=1)


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize("device", ["", "cuda"])
def test_every_process_computes_on_the_gpu_of_its_local_rank(two_gpus, monkeypatch, device):
    for local_rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", local_rank)
        assert DistributedContext.from_environment(device).device == f"cuda:{local_rank}"
        assert device_for_process(device, world_size=2) == f"cuda:{local_rank}"
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(EvaluationError, match=r"cuda:2 does not exist \(number of GPUs: 2\)"):
        device_for_process(device, world_size=3)


def test_numbered_gpu_requires_a_single_process(two_gpus, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device_for_process("cuda:0", world_size=1) == "cuda:0"
    assert device_for_process("cpu", world_size=2) == "cpu"
    with pytest.raises(
        EvaluationError, match="device cuda:0 cannot be used by 2 processes; use cuda"
    ):
        device_for_process("cuda:0", world_size=2)
    with pytest.raises(EvaluationError, match="cuda:2 does not exist"):
        device_for_process("cuda:2", world_size=1)


class Answer(torch.nn.Module):
    """A registered model without image-level head, with a prediction that a flag determines."""

    def __init__(self, how: str = "perfect"):
        super().__init__()
        self.how = how
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, image, mask, shape_mask=None, *args, **kwargs):
        kwargs["name"]  # Some of BenCo's models need it.
        answer = {
            "perfect": mask,
            "inverted": 1 - mask,
            "constant": torch.full_like(mask, 0.7),
            "empty": torch.zeros_like(mask),
            "grown": torch.nn.functional.max_pool2d(mask.float(), 3, stride=1, padding=1),
            "edge": torch.nn.functional.pad(torch.zeros_like(mask)[..., 1:], (0, 1), value=1),
            "bright": torch.sigmoid(3 * image.mean(1, keepdim=True)),
        }[self.how]
        return {"pred_mask": answer.float(), "pred_label": None}


@pytest.fixture
def registered(tmp_path, monkeypatch):
    from IMDLBenCo.registry import MODELS

    monkeypatch.setitem(MODELS.module_dict, "Answer", Answer)
    torch.save({"model": Answer().state_dict()}, tmp_path / "answer.pth")
    return tmp_path / "answer.pth"


def interrupt_after(count, monkeypatch):
    """Interrupt an evaluation once, after ``count`` batches; return a list of all their indices."""
    seen, is_pending, original = [], True, ev.measure_batch

    def measure_batch(evaluated, images, batch, settings):
        nonlocal is_pending
        if is_pending and len(seen) == count:
            is_pending = False
            raise KeyboardInterrupt
        seen.append(batch["index"].tolist())
        return original(evaluated, images, batch, settings)

    monkeypatch.setattr(ev, "measure_batch", measure_batch)
    return seen


def test_interrupted_run_continues(work, registered, tmp_path, monkeypatch):
    """Interrupted after three batches; the next run computes only the other two."""
    seen = interrupt_after(3, monkeypatch)
    sources = [registered], [work / "sets.json"]
    options = {"settings": SMALL, "model": "Answer", "workers": 0}
    with pytest.raises(KeyboardInterrupt):
        evaluate(*sources, tmp_path / "stopped", **options)
    assert not (tmp_path / "stopped/Mixed.json").exists()
    rows = tmp_path / "stopped/.Mixed.unfinished/0.jsonl"
    rows.write_text(rows.read_text() + '\n{"index": 9, "na')  # An incomplete line.
    evaluate(*sources, tmp_path / "stopped", **options)
    assert seen == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    evaluate(*sources, tmp_path / "whole", **options)
    files = [(tmp_path / f"{run}/Mixed.csv").read_bytes() for run in ("stopped", "whole")]
    assert files[0] == files[1]
    assert sorted(p.name for p in (tmp_path / "stopped").iterdir()) == ["Mixed.csv", "Mixed.json"]


def test_masks_are_saved_for_results_that_were_computed_without_them(
    work, registered, tmp_path, monkeypatch
):
    """The flag had no effect on complete results, nor on the finished rows of a stopped run."""
    seen, out = interrupt_after(2, monkeypatch), tmp_path / "out"
    options = {"settings": SMALL, "model": "Answer", "workers": 0}
    sources = [registered], [work / "sets.json"]
    with pytest.raises(KeyboardInterrupt):
        evaluate(*sources, out, **options)
    evaluate(*sources, out, save_masks="npy", **options)
    assert seen == [[0, 1], [2, 3], *([i, i + 1] for i in range(0, 10, 2))]
    assert len(masks_of(out)) == 10
    evaluate(*sources, out, save_masks="npy", **options)
    assert len(seen) == 7  # Nothing is missing.
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    evaluate(*sources, out, save_masks="png", **options)
    assert len(list((out / "Mixed_masks").iterdir())) == 20
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_new_evaluation_deletes_the_masks_of_another_model(work, registered, tmp_path):
    """The report showed them as masks of the new model."""
    sources = [registered], [work / "set"], tmp_path
    options = {"settings": SMALL, "model": "Answer", "workers": 0}
    evaluate(*sources, save_masks="npy", **options)
    (tmp_path / "set_masks/own.npy").touch()
    (tmp_path / "set.json").unlink()
    evaluate(*sources, model_flags=["--how", "empty"], **options)
    assert [file.name for file in (tmp_path / "set_masks").iterdir()] == ["own.npy"]


def test_unfinished_rows_of_other_settings_are_discarded(work, registered, tmp_path):
    """Rows of another batch size, and rows of a version that recorded no settings with them."""
    rows = {
        "0.jsonl": {"identity": {"set": "Mixed", "batch_size": 99}},
        "1.jsonl": {"index": 0, "name": "0.png", "path": "elsewhere/0.png", "score": 1.0},
    }
    folder = tmp_path / "out/.Mixed.unfinished"
    folder.mkdir(parents=True)
    for name, row in rows.items():
        (folder / name).write_text(json.dumps(row) + "\n")
    options = {"settings": SMALL, "model": "Answer", "workers": 0}
    evaluate([registered], [work / "sets.json"], tmp_path / "out", **options)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"Mixed.csv", "Mixed.json"}
    assert len(read_result_table(tmp_path / "out/Mixed.csv")) == 10


def test_folder_in_use_by_another_run_is_rejected(work, registered, tmp_path):
    """A run with one checkpoint may use a folder that a run with several is writing to."""
    other = tmp_path / "other.pth"
    other.write_bytes(registered.read_bytes())
    checkpoints, sets, out = [registered, other], [work / "set"], tmp_path / "out"
    options = {"settings": SMALL, "model": "Answer", "workers": 0}
    for run, busy in (
        (evaluate, out),
        (evaluate, out / "answer"),
        (evaluate, out / "other"),
        (rb.robust, out / "other/set"),
    ):
        with FolderLock(busy), pytest.raises(BusyError, match=f"{busy} is in use"):
            run(checkpoints, sets, out, **options)
    assert not [path for path in out.rglob("*") if path.is_file()]


def test_progress_bars_can_be_disabled(work, registered, tmp_path, capfd):
    options = {"settings": SMALL, "model": "Answer", "workers": 0}
    evaluate([registered], [work / "set"], tmp_path / "shown", **options)
    assert "set: 100%" in capfd.readouterr().err
    evaluate([registered], [work / "set"], tmp_path / "quiet", progress=False, **options)
    assert capfd.readouterr() == ("", "")


# pixel_f1, permute_f1, iou, auc, authentic_marked, image_accuracy (3 of 10 images are authentic).
EXPECTED = {
    "perfect": (1, 1, 1, 1, 0, 1),
    "inverted": (0, 1, 0, 0, 1, 0.7),
    "constant": (None, None, None, 0.5, 1, 0.7),
    "empty": (0, None, 0, 0.5, 0, 0.3),
}


@pytest.mark.parametrize("how", EXPECTED)
def test_metrics_equal_values_derived_by_hand(work, registered, tmp_path, how):
    """The model is another registered model with its own flag."""
    evaluate(
        [registered],
        [work / "sets.json"],
        tmp_path / how,
        settings=SMALL,
        model="Answer",
        model_flags=["--how", how],
        workers=0,
    )
    got = json.loads((tmp_path / how / "Mixed.json").read_text())
    names = ("pixel_f1", "permute_f1", "iou", "auc", "authentic_marked", "image_accuracy")
    for name, value in zip(names, EXPECTED[how], strict=True):
        assert value is None or got[name] == pytest.approx(value), name
    # Predicting every pixel as tampered gives F1 = 2 a / (1 + a) for an area a at 64x64 pixels.
    areas = [row["area"] for row in areas_of(work)]
    everything = np.mean([2 * a / (1 + a) for a in areas])
    if how == "constant":
        assert got["pixel_f1"] == pytest.approx(everything)
        assert got["iou"] == pytest.approx(np.mean(areas))
    if how == "empty":
        assert got["permute_f1"] == pytest.approx(everything)
        assert got["precision"] is None
        assert got["n_undefined"]["precision"] == 7
    assert got["score_source"] == "largest probability"
    assert got["header"]["model_flags"] == {"how": how}


def test_nan_mask_aborts_evaluation(work, tmp_path, capsys):
    """Sorting NaN gave such a mask an F1 of 0.000 and an AUC of 0.668."""
    from qma_net.cli import main

    content = torch.load(work / "checkpoint-0.pth", weights_only=False)
    for tensor in content["model"].values():
        if tensor.is_floating_point():
            tensor.mul_(1e30)  # Finite, but a layer overflows.
    torch.save(content, tmp_path / "overflowing.pth")
    flags = ["--checkpoint", tmp_path / "overflowing.pth", "--test-sets", work / "sets.json"]
    flags += ["--out", tmp_path / "out", "--image-size", 64, "--device", "cpu", "--workers", 0]
    message = rf"^qma-net: {tmp_path}/overflowing\.pth outputs NaN or infinity .* {work}/\S+\.png: "
    with pytest.raises(SystemExit, match=message):
        main(["evaluate", *map(str, flags)])
    assert not (tmp_path / "out/Mixed.json").exists()


def test_result_table_with_nan_is_rejected(work, single, tmp_path):
    table = (single / "Mixed.csv").read_text().splitlines()
    cells = table[1].split(",")
    cells[table[0].split(",").index("score")] = "nan"
    (tmp_path / "Mixed.csv").write_text("\n".join([table[0], ",".join(cells)]))
    with pytest.raises(ContentError, match="score is nan in the row of"):
        read_result_table(tmp_path / "Mixed.csv")


def areas_of(work):
    from IMDLBenCo.datasets import ManiDataset

    truths = ManiDataset(str(work / "set"), is_resizing=True, output_size=(64, 64))
    return [{"area": float(truths[i]["mask"].mean())} for i in range(7)]


def test_checkpoint_selected_on_test_sets_is_recorded(work, registered, tmp_path):
    """Only the checkpoint named in best.json is marked; the other result files are unchanged."""
    options = {"settings": SMALL, "model": "Answer", "workers": 0}
    (tmp_path / "best").mkdir()
    (tmp_path / "best/best.json").write_text(json.dumps({"epoch": 3, "mean": 0.5, "test_sets": {}}))
    headers = []
    for name in ("best/checkpoint-3.pth", "best/checkpoint-4.pth", "answer.pth"):
        checkpoint = tmp_path / name
        if not checkpoint.exists():
            checkpoint.write_bytes(registered.read_bytes())
        evaluate([checkpoint], [work / "set"], tmp_path / checkpoint.stem, **options)
        headers.append(json.loads((tmp_path / checkpoint.stem / "set.json").read_text())["header"])
    assert headers[0].pop("picked_on") == "training's test sets"
    for header in headers:
        header.pop("checkpoint")
    assert headers[0] == headers[1] == headers[2]


class EdgeAnswer(torch.nn.Module):
    """Requires an edge mask, as IML-ViT and MVSS-Net do, and a device, as ManTraNet does."""

    def __init__(self, device=torch.device("meta")):  # noqa: B008  (as BenCo has it)
        super().__init__()
        assert device == "cpu"
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, image, mask, edge_mask, *args, **kwargs):
        assert edge_mask.shape == mask.shape
        assert 0 < edge_mask.mean() < 1
        return {"pred_mask": mask, "pred_label": None}


@pytest.mark.parametrize("fit", ["resize", "pad", "native"])
def test_models_receive_the_edge_mask_and_the_device_that_they_require(
    work, tmp_path, monkeypatch, fit
):
    from IMDLBenCo.registry import MODELS

    monkeypatch.setitem(MODELS.module_dict, "EdgeAnswer", EdgeAnswer)
    torch.save({"model": EdgeAnswer("cpu").state_dict()}, tmp_path / "edge.pth")
    settings = Settings(fit, 96, 1 if fit == "native" else 3)
    options = {"settings": settings, "model": "EdgeAnswer", "workers": 0, "device": "cpu"}
    evaluate([tmp_path / "edge.pth"], [work / "set"], tmp_path / "out", **options)
    result = json.loads((tmp_path / "out/set.json").read_text())
    assert result["pixel_f1"] == 1
    assert result["header"]["model_flags"] == {}


def test_padding_does_not_affect_metrics(work, registered, tmp_path):
    """In BenCo, IoU and AUC of a constant map depend on the padding."""
    sources = [registered], [work / "set"]
    options = {"model": "Answer", "model_flags": ["--how", "constant"], "workers": 0}
    padded = Settings("pad", 96, 3)
    evaluate(*sources, tmp_path / "out", settings=padded, save_masks="npy", **options)
    rows = read_result_table(tmp_path / "out/set.csv")
    areas = [(cv2.imread(str(work / f"set/Gt/{i}.png"), 0) > 127).mean() for i in range(7)]
    assert [row["iou"] for row in rows] == pytest.approx(areas)
    assert np.load(tmp_path / "out/set_masks/000000_0.npy").shape == (72, 64)
    options["model_flags"] = ["--how", "edge"]  # Marks the last column, which is padding.
    evaluate(*sources, tmp_path / "edge", settings=padded, **options)
    assert {row["score"] for row in read_result_table(tmp_path / "edge/set.csv")} == {0}
    with pytest.raises(EvaluationError, match="larger than the padded 64x64"):
        evaluate(*sources, tmp_path / "crop", settings=Settings("pad", 64, 3), **options)


def test_native_evaluation_keeps_original_image_sizes(work, registered, tmp_path):
    evaluate(
        [registered],
        [work / "sets.json"],
        tmp_path,
        settings=Settings("native"),
        model="Answer",
        model_flags=["--how", "perfect"],
        workers=0,
        save_masks="png",
    )
    shapes = {
        cv2.imread(str(path), cv2.IMREAD_UNCHANGED).shape
        for path in (tmp_path / "Mixed_masks").iterdir()
    }
    assert shapes == {(72, 64), (80, 70)}
    assert json.loads((tmp_path / "Mixed.json").read_text())["pixel_f1"] == 1


def test_two_checkpoints_are_compared_per_image(work, registered, tmp_path):
    again = tmp_path / "other.pth"
    again.write_bytes(registered.read_bytes())
    options = {"settings": SMALL, "model": "Answer", "workers": 0}
    evaluate([registered, again], [work / "set"], tmp_path / "out", **options)
    assert (tmp_path / "out/answer/set.json").is_file()
    got = json.loads((tmp_path / "out/comparison.json").read_text())["set"]["other - answer"]
    assert got["pixel_f1"] == {"difference": 0, "interval": [0, 0], "p_value": 1, "n": 7}


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (("a/one.pth", "b/two.pth"), ("one", "two")),
        (("runs/a/c.pth", "runs/b/c.pth"), ("runs-a-c", "runs-b-c")),
        (("a/runs/cat/c.pth", "b/runs/cat/c.pth"), ("a-runs-cat-c", "b-runs-cat-c")),
        (("m.v1/", "m.v2/"), ("m.v1", "m.v2")),
        (("a/c.pth", "a/c.safetensors"), ("c.pth", "c.safetensors")),
        (("a/m.v1/", "b/m.v1/"), ("top-a-m", "top-b-m")),
    ],
)
def test_result_folders_of_several_checkpoints_are_distinct(tmp_path, paths, names):
    """The third to the fifth pair were rejected as the same checkpoint."""
    checkpoints = [tmp_path / "top" / path for path in paths]
    for checkpoint, path in zip(checkpoints, paths, strict=True):
        (checkpoint if path.endswith("/") else checkpoint.parent).mkdir(parents=True, exist_ok=True)
        if not path.endswith("/"):
            checkpoint.touch()
    folders = ev.result_folders(checkpoints, tmp_path / "out")
    assert folders == {
        path: tmp_path / "out" / name for path, name in zip(checkpoints, names, strict=True)
    }
    (tmp_path / "link").symlink_to(checkpoints[0])
    linked = ev.result_folders([checkpoints[0], tmp_path / "link"], tmp_path / "out")
    assert linked[tmp_path / "link"] == tmp_path / "out/link"
    with pytest.raises(EvaluationError, match="the same checkpoint was given twice"):
        ev.result_folders([checkpoints[0], checkpoints[0]], tmp_path / "out")


def test_checkpoints_next_to_the_root_have_plain_names(monkeypatch):
    """The parts of the path included the root, so the name started with a slash."""
    monkeypatch.setattr(ev.Path, "exists", lambda path: True)
    folders = ev.result_folders(["/run1/c.pth", "/run2/c.pth"], ev.Path("out"))
    assert [folder.name for folder in folders.values()] == ["run1-c", "run2-c"]


def test_save_pretrained_directory_gives_the_results_of_its_checkpoint(work, tmp_path):
    """The weights file in the directory does so too, and the result header records it."""
    load_model(work / "checkpoint-0.pth").save_pretrained(tmp_path / "saved")
    weights = tmp_path / "saved/model.safetensors"
    rows, headers = {}, {}
    for name, path in {
        "file": work / "checkpoint-0.pth",
        "directory": tmp_path / "saved",
        "weights": weights,
    }.items():
        evaluate([path], [work / "set"], tmp_path / name, settings=SMALL, workers=0)
        rows[name] = (tmp_path / name / "set.csv").read_bytes()
        headers[name] = json.loads((tmp_path / name / "set.json").read_text())["header"]
    assert rows["file"] == rows["directory"] == rows["weights"]
    for name in ("directory", "weights"):
        assert headers[name]["checkpoint"] == str(weights)
        assert headers[name]["checkpoint_sha256"] == sha256(weights)
    (tmp_path / "saved/checkpoint-1.pth").touch()  # Left by a training in the same folder.
    assert load_model(weights).weights_file == weights


@pytest.mark.filterwarnings("ignore:QMA-Net starts with random encoders")
def test_flags_of_the_loss_are_recorded_from_the_checkpoint(work, tmp_path):
    """The default values were recorded, so the report showed the model as the paper's."""
    from qma_net.benco import QMANet

    loss = {"alpha": 0.5, "beta": 0.25, "dice_smoothing": 1e-5, "bce": 1.0}
    state = QMANet(size="tiny", views="srm", **loss).state_dict()
    torch.save({"model": state}, tmp_path / "checkpoint-0.pth")
    load_model(tmp_path / "checkpoint-0.pth").save_pretrained(tmp_path / "saved")
    for name in ("checkpoint-0.pth", "saved"):
        out = tmp_path / "out" / name
        evaluate([tmp_path / name], [work / "set"], out, settings=SMALL, workers=0)
        flags = json.loads((out / "set.json").read_text())["header"]["model_flags"]
        assert loss.items() <= flags.items()
    # A checkpoint of an earlier version stores the configuration only.
    content = json.loads(bytes(state["_extra_state"].tolist()))
    assert content.pop("loss") == loss
    old = torch.tensor(list(json.dumps(content).encode()), dtype=torch.uint8)
    torch.save({"model": state | {"_extra_state": old}}, tmp_path / "old.pth")
    assert load_model(tmp_path / "old.pth").loss is None
    QMANet(size="tiny", views="srm").load_state_dict(state | {"_extra_state": old})


def test_packaged_model_is_evaluated_with_the_preprocessing_of_its_training(work, tmp_path):
    evaluate(["qma-net-small"], [work / "set"], tmp_path, settings=AS_TRAINED, workers=0)
    header = json.loads((tmp_path / "set.json").read_text())["header"]
    assert header["fit"] == "native"
    assert header["checkpoint"].endswith("qma-net-small/model.safetensors")
    assert "synthetic manipulations only" in header["about"]


def test_images_too_small_for_original_resolution_are_rejected_before_evaluation(work, tmp_path):
    """The network raised a ValueError in the middle of the test set."""
    write_set(tmp_path / "set", 2)
    for part in ("Tp", "Gt"):
        cv2.imwrite(str(tmp_path / f"set/{part}/2.png"), np.full((90, 31), 255, np.uint8))
    arguments = [work / "checkpoint-0.pth"], [tmp_path / "set"], tmp_path / "out"
    options = {"workers": 0, "allow": ["mask-inverted"]}
    message = r"/set/Tp/2\.png has 31x90 pixels, expected at least 32x32 .*too small: 1\)"
    with pytest.raises(EvaluationError, match=message):
        evaluate(*arguments, settings=Settings("native"), **options)
    assert not list((tmp_path / "out").iterdir())
    evaluate(*arguments, settings=SMALL, **options)
    with pytest.raises(EvaluationError, match="invalid number of workers -1: expected at least 0"):
        evaluate(*arguments, workers=-1)


def test_invalid_input_gives_one_line_error_and_keeps_complete_sets(work, registered, tmp_path):
    write_set(tmp_path / "bad", 2)
    cv2.imwrite(str(tmp_path / "bad/Gt/1.png"), np.zeros((9, 9), np.uint8))
    (tmp_path / "none.json").write_text("[]")
    good = {"settings": SMALL, "model": "Answer", "workers": 0}

    def refused(match, checkpoints=(registered,), sets=(work / "set",), error=ValueError, **more):
        with pytest.raises(error, match=match) as raised:
            evaluate(checkpoints, sets, tmp_path / "out", **{**good, **more})
        assert "\n" not in str(raised.value)

    evaluate([registered], [work / "set"], tmp_path / "out", **good)
    kept = (tmp_path / "out/set.json").read_bytes()
    refused("absent' does not exist .* folder", sets=[tmp_path / "absent"])
    refused("Tp/1.png .size-mismatch.", sets=[work / "set", tmp_path / "bad"])
    refused("contains no images", sets=[tmp_path / "none.json"])
    refused("several test sets are named 'set'", sets=[work / "set", work / "set"])
    refused(
        "absent.pth does not exist", checkpoints=[tmp_path / "absent.pth"], sets=[tmp_path / "no"]
    )
    refused("the same checkpoint was given twice", checkpoints=[registered, registered])
    refused("unknown --model NoNet; BenCo's registry contains ", model="NoNet")
    refused("checkpoint of Answer", checkpoints=[work / "checkpoint-0.pth"])
    refused("contains no QMANet configuration", checkpoints=[registered], model="QMANet")
    assert (tmp_path / "out/set.json").read_bytes() == kept


def test_interrupted_robustness_sweep_gives_identical_files(
    work, registered, tmp_path, monkeypatch
):
    """The 18 settings of the paper, in one run and in two."""
    flags = {"workers": 0, "settings": Settings("resize", 64, 4), "model": "Answer"}
    flags["model_flags"] = ["--how", "bright"]
    sources = [registered], [work / "set"]
    rb.robust(*sources, tmp_path / "first", **flags)

    original, count = ev.evaluate_set, iter(range(100))

    def interrupted(*args, **options):
        if next(count) == 9:
            raise KeyboardInterrupt
        return original(*args, **options)

    monkeypatch.setattr(ev, "evaluate_set", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rb.robust(*sources, tmp_path / "second", **flags)
    monkeypatch.setattr(ev, "evaluate_set", original)
    flags["workers"] = 1
    rb.robust(*sources, tmp_path / "second", **flags)
    files = {path.name: path.read_bytes() for path in (tmp_path / "first/set").iterdir()}
    again = {path.name: path.read_bytes() for path in (tmp_path / "second/set").iterdir()}
    assert files == again
    assert len(files) == 2 * 19 + 1
    for attack, levels in (
        ("gaussian-blur", (3, 23)),
        ("gaussian-noise-variance", (3, 23)),
        ("jpeg", (100, 50)),
    ):
        for level in levels:
            assert f"{attack}-{level}.json" in files
    averages = json.loads(files["averages.json"])
    blur = [json.loads(files[f"gaussian-blur-{k}.json"])["auc"] for k in (3, 7, 11, 15, 19, 23)]
    assert averages["gaussian-blur"]["auc"] == pytest.approx(np.mean(blur))
    assert averages["clean"]["auc"] == json.loads(files["clean.json"])["auc"]


def test_attacks_have_the_strength_of_their_level():
    """Noise with standard deviation 19 and with variance 19, and JPEG with quality 50."""
    grey = np.full((400, 400, 3), 128, np.uint8)
    attacks = read_attacks(names=["gaussian-noise", "gaussian-noise-variance", "jpeg"])
    by_level = {(attack.name, attack.level): attack for attack in attacks}
    for name, deviation in (("gaussian-noise", 19), ("gaussian-noise-variance", 19**0.5)):
        attack = by_level[name, 19]
        attack.seed(0)
        first = attack.transform(image=grey)["image"]
        assert first.astype(float).std() == pytest.approx(deviation, rel=0.02)
        attack.seed(0)
        assert (attack.transform(image=grey)["image"] == first).all()
        attack.seed(1)
        assert (attack.transform(image=grey)["image"] != first).any()
    photo = photograph(64, 64)
    # albumentations passes RGB to OpenCV, which expects BGR, so the JPEG has red and blue swapped.
    by_hand = cv2.imdecode(cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], 1)
    assert (by_level["jpeg", 50].transform(image=photo)["image"] == by_hand).all()


def test_attacks_are_read_from_a_file_and_invalid_ones_are_rejected(tmp_path):
    line = "- {name: median, paper: true, transform: MedianBlur, unit: pixels, levels: [5], "
    (tmp_path / "a.yaml").write_text(line + "arguments: {blur_limit: [LEVEL, LEVEL]}}\n")
    (attack,) = read_attacks(tmp_path / "a.yaml")
    assert attack.transform is attack.transform
    assert attack.transform(image=photograph(40, 40))["image"].shape == (40, 40, 3)
    with pytest.raises(EvaluationError, match="unknown attack 'fog'; choose from median"):
        read_attacks(tmp_path / "a.yaml", ["fog"])
    (tmp_path / "b.yaml").write_text(line.replace("MedianBlur", "Nothing") + "arguments: {}}\n")
    with pytest.raises(EvaluationError, match="is not a valid albumentations transform"):
        read_attacks(tmp_path / "b.yaml")
    (tmp_path / "c.yaml").write_text(line + "arguments: {blur: LEVEL}}\n")
    message = r"attack median: MedianBlur with arguments \{'blur': 5\} is not a valid"
    with pytest.raises(EvaluationError, match=message):
        read_attacks(tmp_path / "c.yaml")


def test_attack_file_without_attacks_of_the_paper_is_applied(
    work, registered, tmp_path, monkeypatch
):
    """Only entries with ``paper: true`` were used, so this was an evaluation without attacks."""
    from qma_net.cli import main

    monkeypatch.setattr("qma_net.launch.cuda_to_cpu.redirect_cuda_to_cpu", lambda: None)
    line = "- {name: median, transform: MedianBlur, unit: pixels, levels: [5], "
    (tmp_path / "a.yaml").write_text(line + "arguments: {blur_limit: [LEVEL, LEVEL]}}\n")
    flags = ["--checkpoint", registered, "--test-sets", work / "set", "--out", tmp_path / "out"]
    flags += ["--model", "Answer", "--image-size", 64, "--device", "cpu", "--workers", 0]
    main(["robust", *map(str, flags), "--attack-file", str(tmp_path / "a.yaml")])
    assert (tmp_path / "out/set/median-5.json").is_file()
    for content in ("[]", line.replace("[5]", "[]") + "arguments: {}}\n"):
        (tmp_path / "b.yaml").write_text(content)
        with pytest.raises(SystemExit, match=r"^qma-net: no attack to apply; define at"):
            main(["robust", *map(str, flags), "--attack-file", str(tmp_path / "b.yaml")])


def test_unknown_model_flags_are_rejected(work, tmp_path, capsys):
    with pytest.raises(SystemExit):
        evaluate(
            [work / "checkpoint-0.pth"],
            [work / "set"],
            tmp_path,
            settings=SMALL,
            model_flags=["--nonsense", "1"],
        )
    assert "unrecognized arguments: --nonsense 1" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_test_set_name_cannot_escape_the_result_folder(tmp_path):
    """Names come from JSON files of test sets, which may be untrusted."""
    with pytest.raises(
        PathError, match=r"cannot use the name '\.\./\.\./ESCAPED\.json' in .*to a plain"
    ):
        is_complete(tmp_path / "out/deep", "../../ESCAPED", {})
    assert not list(tmp_path.iterdir())


def write_faulty_set(folder, kind):
    """Write a set of four images of which two have a fault that headers do not reveal."""
    write_set(folder, 4)
    rows = set_rows(folder, 4)
    for image, mask in rows[:2]:
        pixels = cv2.imread(mask, cv2.IMREAD_GRAYSCALE)
        if kind == "zero-one":
            cv2.imwrite(mask, pixels // 255)
        elif kind == "alpha":
            cv2.imwrite(mask, np.dstack([np.full_like(pixels, 255)] * 3 + [pixels]))
        elif kind == "colored":
            cv2.imwrite(mask, np.dstack([pixels, pixels * 0, 255 - pixels]))
        elif kind == "empty":
            cv2.imwrite(mask, pixels * 0)
        elif kind == "rotated":
            Image.fromarray(cv2.imread(image)[..., ::-1]).save(image, exif=rotated_by_90())
            cv2.imwrite(mask, np.rot90(pixels))
    if kind == "inverted":
        for _, mask in rows:
            pixels = np.full((72, 64), 255, np.uint8)
            pixels[20:40, 10:30] = 0  # 9 % of the image.
            cv2.imwrite(mask, pixels)
    rows += rows[:2] if kind == "twice" else []
    rows += [[rows[0][0], "Negative"]] if kind == "contradictory" else []
    (folder / "list.json").write_text(json.dumps(rows))
    return folder / "list.json"


def rotated_by_90():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


# The number of faulty files, the name of the problem and a part of the message.
FAULTS = {
    "zero-one": (2, "mask-values", "no value above 127"),
    "alpha": (2, "mask-values", "region in the alpha channel, which BenCo ignores"),
    "colored": (2, "mask-values", "colored in"),
    "empty": (2, "empty-mask", "although its image is listed as tampered"),
    "inverted": (4, "mask-inverted", "which BenCo reads as tampered"),
    "rotated": (2, "exif-orientation", "a mask of the rotated image, but BenCo reads pixels as"),
    "twice": (2, "duplicate", "listed more than once"),
    "contradictory": (1, "duplicate", "listed as tampered and as authentic"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_data_that_would_invalidate_the_metrics_is_rejected(registered, tmp_path, kind):
    """All of these were evaluated, or ended in an AssertionError of BenCo (rotated)."""
    count, problem, text = FAULTS[kind]
    arguments = [registered], [write_faulty_set(tmp_path / "set", kind)], tmp_path / "out"
    options = {"settings": SMALL, "model": "Answer", "workers": 0}
    message = rf"^{count} files would invalidate .*\({problem}: .*{text}.*--allow {problem} to"
    with pytest.raises(EvaluationError, match=message):
        evaluate(*arguments, **options)
    assert not (tmp_path / "out").exists()
    if kind != "rotated":  # BenCo cannot read it.
        evaluate(*arguments, allow=[problem], **options)
        result = json.loads((tmp_path / "out/list.json").read_text())
        assert result["n_tampered"] == (6 if kind == "twice" else 4)


def test_single_mask_of_a_large_region_is_only_mentioned(registered, tmp_path, caplog):
    caplog.set_level(logging.INFO, "qma_net")
    write_set(tmp_path / "set", 4)
    cv2.imwrite(str(tmp_path / "set/Gt/0.png"), np.full((72, 64), 255, np.uint8))
    options = {"settings": SMALL, "model": "Answer", "workers": 0}
    evaluate([registered], [tmp_path / "set"], tmp_path / "out", **options)
    assert f"1 masks are mostly white, such as {tmp_path}/set/Gt/0.png" in caplog.text


def test_replaced_masks_of_the_same_size_are_not_evaluated_as_before(registered, tmp_path):
    """Only paths and file sizes were compared, and all BMP files of one shape have the same."""
    write_set(tmp_path / "set", 2)
    rows = set_rows(tmp_path / "set", 2)
    for row in rows:
        row[1] = row[1].replace(".png", ".bmp")
        cv2.imwrite(row[1], np.tile(np.uint8([[0, 255]]), (72, 32)))
    (tmp_path / "list.json").write_text(json.dumps(rows))
    arguments = [registered], [tmp_path / "list.json"], tmp_path / "out"
    options = {"settings": SMALL, "model": "Answer", "workers": 0}
    evaluate(*arguments, **options)
    evaluate(*arguments, **options)  # Nothing has changed.
    times = os.stat(rows[0][1])
    cv2.imwrite(rows[0][1], np.tile(np.uint8([[255, 0]]), (72, 32)))
    os.utime(rows[0][1], ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(EvaluationError, match=r"a different evaluation \(content_sha256 "):
        evaluate(*arguments, **options)
    # Results of an earlier version do not record the content and stay valid.
    result = json.loads((tmp_path / "out/list.json").read_text())
    del result["header"]["content_sha256"]
    (tmp_path / "out/list.json").write_text(json.dumps(result))
    evaluate(*arguments, **options)


def test_image_size_has_no_effect_at_original_resolution_and_is_not_recorded(
    registered, tmp_path, caplog
):
    caplog.set_level(logging.INFO, "qma_net")
    write_set(tmp_path / "set", 2)
    options = {"model": "Answer", "workers": 0}
    arguments = [registered], [tmp_path / "set"], tmp_path / "out"
    evaluate(*arguments, settings=Settings("native", 64), **options)
    header = json.loads((tmp_path / "out/set.json").read_text())["header"]
    assert (header["fit"], header["image_size"]) == ("native", 512)
    assert "--image-size 64 has no effect at original resolution" in caplog.text
    # A model that was trained at original resolution can be evaluated on resized images.
    trained = Preprocessing(image_size=128, fit="native")
    assert Settings("resize", 64).completed(trained) == Settings("resize", 64)


def test_ignored_border_is_excluded_and_recorded(registered, tmp_path):
    """The prediction is the mask, grown by one pixel: only pixels of the border are wrong."""
    write_set(tmp_path / "set", 2)
    arguments = [registered], [tmp_path / "set"]
    options = {"model": "Answer", "model_flags": ["--how", "grown"], "workers": 0}
    results = {}
    for border in (0, 1):
        settings = Settings("native", ignore_border=border)
        evaluate(*arguments, tmp_path / str(border), settings=settings, **options)
        results[border] = json.loads((tmp_path / str(border) / "set.json").read_text())
    # The regions have 40 x 40 and 35 x 40 of 72 x 64 pixels.
    f1 = [2 * h * 40 / (h * 40 + (h + 2) * 42) for h in (40, 35)]
    assert results[0]["pixel_f1"] == pytest.approx(np.mean(f1))
    fpr = [((h + 2) * 42 - h * 40) / (72 * 64 - h * 40) for h in (40, 35)]
    assert results[0]["fpr"] == pytest.approx(np.mean(fpr))
    assert results[0]["tpr"] == results[1]["pixel_f1"] == results[1]["mcc"] == 1
    assert results[1]["fpr"] == 0
    assert "ignore_border" not in results[0]["header"]
    assert results[1]["header"]["ignore_border"] == 1
    for recorded, now in ((0, 1), (1, 0)):
        settings = Settings("native", ignore_border=now)
        message = rf"a different evaluation \(ignore_border {recorded}, now {now}\)"
        with pytest.raises(EvaluationError, match=message):
            evaluate(*arguments, tmp_path / str(recorded), settings=settings, **options)
    with pytest.raises(EvaluationError, match="invalid border -1"):
        Settings(ignore_border=-1)


def test_results_by_manipulation_type(registered, tmp_path):
    """CASIA's file names contain the type: D is splicing, S is copy-move."""
    rows = []
    write_set(tmp_path / "source", 3)
    for i, letter in enumerate("DSS"):
        row = [str(tmp_path / f"{part}_{letter}_NRN_{i}.png") for part in ("Tp", "Gt")]
        for source, target in zip(set_rows(tmp_path / "source", 3)[i], row, strict=True):
            shutil.copy(source, target)
        rows.append(row)
    (tmp_path / "casia.json").write_text(json.dumps(rows))
    (tmp_path / "sets.json").write_text(json.dumps({"CASIAv2": str(tmp_path / "casia.json")}))
    options = {"model": "Answer", "model_flags": ["--how", "constant"], "workers": 0}
    settings = Settings("native")
    sets = [tmp_path / "sets.json"]
    evaluate([registered], sets, tmp_path / "out", settings=settings, **options)
    result = json.loads((tmp_path / "out/CASIAv2.json").read_text())
    areas = [h * 40 / (72 * 64) for h in (40, 35, 30)]  # The IoU of a prediction of all pixels.
    assert set(result["types"]) == {"splice", "copy-move"}
    assert result["types"]["splice"]["n_tampered"] == 1
    assert result["types"]["splice"]["iou"] == pytest.approx(areas[0])
    assert result["types"]["copy-move"]["n_tampered"] == 2
    assert result["types"]["copy-move"]["iou"] == pytest.approx(np.mean(areas[1:]))
    table = read_result_table(tmp_path / "out/CASIAv2.csv")
    assert [row["type"] for row in table] == ["splice", "copy-move", "copy-move"]
    evaluate(
        [registered], [tmp_path / "source"], tmp_path / "unknown", settings=settings, **options
    )
    assert "types" not in json.loads((tmp_path / "unknown/source.json").read_text())


def test_progress_at_original_resolution_counts_pixels(registered, tmp_path, capfd):
    """One image of 64 x 36 and one of 128 x 72: after the first, a fifth is done."""
    rows = []
    for i, size in enumerate(((36, 64), (72, 128))):
        write_set(tmp_path / str(i), 1, size)
        rows += set_rows(tmp_path / str(i), 1)
    (tmp_path / "list.json").write_text(json.dumps(rows))
    options = {"settings": Settings("native"), "model": "Answer", "workers": 0}
    evaluate([registered], [tmp_path / "list.json"], tmp_path / "out", **options)
    bar = capfd.readouterr().err
    assert "11.5k/11.5k" in bar  # 64 * 36 + 128 * 72 = 11520
    assert "pixel/s" in bar


def test_result_table_of_an_earlier_version_is_read(single, tmp_path):
    table = (single / "Mixed.csv").read_text().splitlines()
    assert table[0].startswith(
        "name,label,f1,permute_f1,iou,auc,precision,recall,best_f1,score,marked,path,"
    )
    first = [",".join(line.split(",")[:12]) for line in table]
    (tmp_path / "Mixed.csv").write_text("\n".join(first))
    now, before = read_result_table(single / "Mixed.csv"), read_result_table(tmp_path / "Mixed.csv")
    assert [row["f1"] for row in before] == [row["f1"] for row in now]
    assert before[1]["mcc"] is None
    assert any(row["mcc"] for row in now)


@pytest.mark.parametrize("suffix", ["json", "csv"])
def test_result_emptied_by_a_loss_of_power_is_computed_again(work, registered, tmp_path, suffix):
    arguments = [registered], [work / "set"], tmp_path / "out"
    options = {"settings": SMALL, "model": "Answer", "workers": 0}
    evaluate(*arguments, **options)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    (tmp_path / f"out/set.{suffix}").write_bytes(b"")
    evaluate(*arguments, **options)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_row_without_all_fields_is_computed_again(work, registered, tmp_path, monkeypatch):
    """A row of an index only ended in KeyError: 'score_source'."""
    arguments = [registered], [work / "set"]
    options = {"settings": SMALL, "model": "Answer", "workers": 0}
    evaluate(*arguments, tmp_path / "whole", **options)
    with monkeypatch.context() as patch:
        patch.setattr(ev, "write_result", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            evaluate(*arguments, tmp_path / "out", **options)
    journal = Journal(tmp_path / "out/.set.unfinished/0.jsonl")
    identity, first, *others = journal.read()
    journal.write([identity, {"index": first["index"]}, *others])
    # A process that is not used now may have written the newest row.
    Journal(journal.path.with_name("7.jsonl")).write([identity, {"index": first["index"]}])
    evaluate(*arguments, tmp_path / "out", **options)
    files = [(tmp_path / f"{name}/set.csv").read_bytes() for name in ("out", "whole")]
    assert files[0] == files[1]

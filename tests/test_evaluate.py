"""Exact evaluation and robustness: nothing dropped, nothing mixed, nothing lost."""

import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, jaccard_score, roc_auc_score

from conftest import photograph
from miniatures import set_rows, write_set
from qma_net.core.files import PathError
from qma_net.evaluation import evaluate as ev
from qma_net.evaluation import robust as rb
from qma_net.evaluation.attacks import read_attacks
from qma_net.evaluation.evaluate import evaluate
from qma_net.evaluation.process import Process
from qma_net.evaluation.rows import Rows, read_rows
from qma_net.evaluation.settings import AS_TRAINED, EvaluationError, Settings
from qma_net.modeling.config import ConfigError
from qma_net.weights.locate import load_model
from qma_net.weights.reading import sha256

SMALL = Settings("resize", 64, 2)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Seven tampered and three authentic pictures as a list, and a b0 that knows nothing."""
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
    with pytest.warns(UserWarning, match="random backbones"):
        model = QMANet(size="b0", views="srm")
    with torch.no_grad():  # answers on both sides of the threshold
        for name, parameter in model.network.named_parameters():
            if "bias" in name and parameter.shape == (1,):
                parameter.zero_()
    torch.save({"model": model.state_dict(), "epoch": 0}, folder / "checkpoint-0.pth")
    return folder


def run(*command, processes=1, check=True):
    python = [sys.executable]
    if processes > 1:
        python += ["-m", "torch.distributed.run", "--standalone"]
        python += ["--nproc_per_node", str(processes)]
    done = subprocess.run(
        [*python, "-m", "qma_net", *map(str, command)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert not check or done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def alone(work):
    """Evaluated in this process, masks kept."""
    evaluate(
        [work / "checkpoint-0.pth"],
        [work / "sets.json"],
        work / "alone",
        settings=SMALL,
        workers=0,
        save_masks="npy",
    )
    return work / "alone"


def masks_of(folder):
    return [np.load(path) for path in sorted((folder / "Mixed_masks").iterdir())]


def test_two_processes_give_what_one_gives(work, alone):
    """10 images in batches of 2: 3 batches for one process and 2 for the other."""
    flags = ["--checkpoint", work / "checkpoint-0.pth", "--test-sets", work / "sets.json"]
    flags += ["--out", work / "both", "--image-size", 64, "--batch-size", 2, "--device", "cpu"]
    run("evaluate", *flags, "--save-masks", "--workers", 0, processes=2)
    one, two = (json.loads((f / "Mixed.json").read_text()) for f in (alone, work / "both"))
    assert (two["n_tampered"], two["n_authentic"]) == (7, 3)
    for first, second in zip(masks_of(alone), masks_of(work / "both"), strict=True):
        assert first.dtype == np.float32
        np.testing.assert_allclose(first, second, atol=1e-5)
    for key in ("pixel_f1", "permute_f1", "iou", "auc", "authentic_marked", "image_auc"):
        assert one[key] == pytest.approx(two[key], abs=1e-6), key
    names = [row["path"] for row in read_rows(work / "both/Mixed.csv")]
    assert names == [image for image, _ in json.loads((work / "mixed.json").read_text())]


def test_every_figure_follows_from_the_masks(work, alone):
    """scikit-learn on the saved masks and BenCo's own truth says the same."""
    from IMDLBenCo.datasets import JsonDataset

    truths = JsonDataset(str(work / "mixed.json"), is_resizing=True, output_size=(64, 64))
    rows = read_rows(alone / "Mixed.csv")
    columns = {name: [] for name in ("f1", "permute_f1", "iou", "auc")}
    marked, scores, labels = [], [], []
    for index, (row, mask) in enumerate(zip(rows, masks_of(alone), strict=True)):
        item = truths[index]
        scores.append(row["score"])
        labels.append(item["label"])
        top = np.sort(mask.ravel())[::-1][: int(0.01 * mask.size)]
        assert row["score"] == pytest.approx(top.mean(), abs=1e-6)
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
    result = json.loads((alone / "Mixed.json").read_text())
    assert result["pixel_f1"] == pytest.approx(np.mean(columns["f1"]), abs=1e-6)
    for name in ("permute_f1", "iou", "auc"):
        assert result[name] == pytest.approx(np.mean(columns[name]), abs=1e-6)
    assert result["authentic_marked"] == pytest.approx(np.mean(marked), abs=1e-6)
    assert result["image_auc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-6)
    low, high = result["intervals"]["pixel_f1"]
    assert low <= result["pixel_f1"] <= high
    assert result["header"]["checkpoint_sha256"]
    assert result["header"]["versions"]["imdlbenco"] == "0.1.45"


def test_a_finished_set_is_kept_and_another_is_refused(work, alone, capsys):
    before = (alone / "Mixed.json").read_bytes()
    where = [work / "checkpoint-0.pth"], [work / "sets.json"], alone
    evaluate(*where, settings=SMALL, workers=0)
    assert "is there already" in capsys.readouterr().out
    with pytest.raises(EvaluationError, match=r"of another evaluation \(image_size 64"):
        evaluate(*where, settings=Settings("resize", 96, 2), workers=0)
    assert (alone / "Mixed.json").read_bytes() == before


def test_a_device_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="torch finds no CUDA, expected cpu"):
        Process.join("cuda")
    with pytest.raises(ConfigError, match="got device 'gpu', expected cpu, cuda"):
        Process.join("gpu")


class Answer(torch.nn.Module):
    """A model of the registry that has no image-level head and answers as it is told."""

    def __init__(self, how: str = "perfect"):
        super().__init__()
        self.how = how
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, image, mask, shape_mask=None, *args, **kwargs):
        kwargs["name"]  # BenCo's loaders give it, and some models want it
        answer = {
            "perfect": mask,
            "inverted": 1 - mask,
            "constant": torch.full_like(mask, 0.7),
            "empty": torch.zeros_like(mask),
            "bright": torch.sigmoid(3 * image.mean(1, keepdim=True)),
        }[self.how]
        return {"pred_mask": answer.float(), "pred_label": None}


@pytest.fixture
def registered(tmp_path, monkeypatch):
    from IMDLBenCo.registry import MODELS

    monkeypatch.setitem(MODELS.module_dict, "Answer", Answer)
    torch.save({"model": Answer().state_dict()}, tmp_path / "answer.pth")
    return tmp_path / "answer.pth"


def test_a_stopped_run_continues(work, registered, tmp_path, monkeypatch):
    """Killed after three batches; the next run computes the other two only."""
    seen = []

    def judge(subject, images, batch, settings):
        if stop and len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(batch["index"].tolist())
        return real(subject, images, batch, settings)

    real, stop = ev.judge, True
    monkeypatch.setattr(ev, "judge", judge)
    where = [registered], [work / "sets.json"]
    how = {"settings": SMALL, "model": "Answer", "workers": 0}
    with pytest.raises(KeyboardInterrupt):
        evaluate(*where, tmp_path / "stopped", **how)
    assert not (tmp_path / "stopped/Mixed.json").exists()
    rows = tmp_path / "stopped/.Mixed.unfinished/0.jsonl"
    rows.write_text(rows.read_text() + '\n{"index": 9, "na')  # the line it was killed on
    stop = False
    evaluate(*where, tmp_path / "stopped", **how)
    assert seen == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    evaluate(*where, tmp_path / "whole", **how)
    files = [(tmp_path / f"{run}/Mixed.csv").read_bytes() for run in ("stopped", "whole")]
    assert files[0] == files[1]
    assert sorted(p.name for p in (tmp_path / "stopped").iterdir()) == ["Mixed.csv", "Mixed.json"]


# pixel_f1, permute_f1, iou, auc, authentic_marked, image_accuracy (3 of 10 are authentic)
EXPECTED = {
    "perfect": (1, 1, 1, 1, 0, 1),
    "inverted": (0, 1, 0, 0, 1, 0.7),
    "constant": (None, None, None, 0.5, 1, 0.7),
    "empty": (0, None, 0, 0.5, 0, 0.3),
}


@pytest.mark.parametrize("how", EXPECTED)
def test_answers_worked_out_by_hand(work, registered, tmp_path, how):
    """Another model of the registry, with a flag of its own."""
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
    # marking everything: F1 = 2 a / (1 + a) with the area a of each mask at 64x64
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


def areas_of(work):
    from IMDLBenCo.datasets import ManiDataset

    truths = ManiDataset(str(work / "set"), is_resizing=True, output_size=(64, 64))
    return [{"area": float(truths[i]["mask"].mean())} for i in range(7)]


def test_a_checkpoint_that_test_sets_picked_says_so(work, registered, tmp_path):
    """Only the one that best.json names; every other result file stays as it was."""
    how = {"settings": SMALL, "model": "Answer", "workers": 0}
    (tmp_path / "best").mkdir()
    (tmp_path / "best/best.json").write_text(json.dumps({"epoch": 3, "mean": 0.5, "test_sets": {}}))
    headers = []
    for name in ("best/checkpoint-3.pth", "best/checkpoint-4.pth", "answer.pth"):
        checkpoint = tmp_path / name
        if not checkpoint.exists():
            checkpoint.write_bytes(registered.read_bytes())
        evaluate([checkpoint], [work / "set"], tmp_path / checkpoint.stem, **how)
        headers.append(json.loads((tmp_path / checkpoint.stem / "set.json").read_text())["header"])
    assert headers[0].pop("picked_on") == "training's test sets"
    for header in headers:
        header.pop("checkpoint")
    assert headers[0] == headers[1] == headers[2]


class EdgeAnswer(torch.nn.Module):
    """Insists on an edge mask, as IML-ViT and MVSS-Net do, and on a device, as ManTraNet does."""

    def __init__(self, device=torch.device("meta")):  # noqa: B008  (as BenCo has it)
        super().__init__()
        assert device == "cpu"
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, image, mask, edge_mask, *args, **kwargs):
        assert edge_mask.shape == mask.shape
        assert 0 < edge_mask.mean() < 1
        return {"pred_mask": mask, "pred_label": None}


@pytest.mark.parametrize("fit", ["resize", "pad", "native"])
def test_models_get_the_edge_mask_and_the_device_they_insist_on(work, tmp_path, monkeypatch, fit):
    from IMDLBenCo.registry import MODELS

    monkeypatch.setitem(MODELS.module_dict, "EdgeAnswer", EdgeAnswer)
    torch.save({"model": EdgeAnswer("cpu").state_dict()}, tmp_path / "edge.pth")
    settings = Settings(fit, 96, 1 if fit == "native" else 3)
    how = {"settings": settings, "model": "EdgeAnswer", "workers": 0, "device": "cpu"}
    evaluate([tmp_path / "edge.pth"], [work / "set"], tmp_path / "out", **how)
    result = json.loads((tmp_path / "out/set.json").read_text())
    assert result["pixel_f1"] == 1
    assert result["header"]["model_flags"] == {}


def test_padding_counts_the_photograph_only(work, registered, tmp_path):
    """BenCo's IoU and AUC of a constant map depend on the padding; ours do not."""
    where = [registered], [work / "set"]
    how = {"model": "Answer", "model_flags": ["--how", "constant"], "workers": 0}
    padded = Settings("pad", 96, 3)
    evaluate(*where, tmp_path / "out", settings=padded, save_masks="npy", **how)
    rows = read_rows(tmp_path / "out/set.csv")
    areas = [(cv2.imread(str(work / f"set/Gt/{i}.png"), 0) > 127).mean() for i in range(7)]
    assert [row["iou"] for row in rows] == pytest.approx(areas)
    assert np.load(tmp_path / "out/set_masks/000000_0.npy").shape == (72, 64)
    with pytest.raises(EvaluationError, match="larger than the padded 64x64"):
        evaluate(*where, tmp_path / "crop", settings=Settings("pad", 64, 3), **how)


def test_native_takes_every_image_at_its_own_size(work, registered, tmp_path):
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


def test_two_checkpoints_are_compared_image_by_image(work, registered, tmp_path):
    again = tmp_path / "other.pth"
    again.write_bytes(registered.read_bytes())
    how = {"settings": SMALL, "model": "Answer", "workers": 0}
    evaluate([registered, again], [work / "set"], tmp_path / "out", **how)
    assert (tmp_path / "out/answer/set.json").is_file()
    got = json.loads((tmp_path / "out/comparison.json").read_text())["set"]["other - answer"]
    assert got["pixel_f1"] == {"difference": 0, "interval": [0, 0], "p_value": 1, "n": 7}


def test_a_directory_of_save_pretrained_gives_what_its_checkpoint_gave(work, tmp_path):
    """And its weights stand for it, as in the header of its results."""
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
    (tmp_path / "saved/checkpoint-1.pth").touch()  # a training's, beside them
    assert load_model(weights).weights_file == weights


def test_the_package_s_own_model_is_shown_images_as_it_was_trained(work, tmp_path):
    evaluate(["qma-net-small"], [work / "set"], tmp_path, settings=AS_TRAINED, workers=0)
    header = json.loads((tmp_path / "set.json").read_text())["header"]
    assert header["fit"] == "native"
    assert header["checkpoint"].endswith("qma-net-small/model.safetensors")
    assert "made forgeries alone" in header["about"]


def test_bad_input_is_one_clear_line_and_finished_sets_are_kept(work, registered, tmp_path):
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
    refused("there is none", sets=[tmp_path / "absent"])
    refused("1.png .size-mismatch.", sets=[work / "set", tmp_path / "bad"])
    refused("without images", sets=[tmp_path / "none.json"])
    refused("two test sets named 'set'", sets=[work / "set", work / "set"])
    refused("there is none of that name", checkpoints=[tmp_path / "absent.pth"])
    refused("a checkpoint twice", checkpoints=[registered, registered])
    refused("expected one of BenCo's registry: ", model="NoNet")
    refused("checkpoint of Answer", checkpoints=[work / "checkpoint-0.pth"])
    refused("without the configuration of a QMANet", checkpoints=[registered], model="QMANet")
    assert (tmp_path / "out/set.json").read_bytes() == kept


def test_the_paper_s_sweep_repeats_to_the_byte_and_continues(
    work, registered, tmp_path, monkeypatch
):
    """18 settings, once through, once killed in the middle and continued."""
    flags = {"workers": 0, "settings": Settings("resize", 64, 4), "model": "Answer"}
    flags["model_flags"] = ["--how", "bright"]
    where = [registered], [work / "set"]
    rb.robust(*where, tmp_path / "first", **flags)

    real, count = rb.evaluate_set, iter(range(100))

    def killed(*args, **options):
        if next(count) == 9:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(rb, "evaluate_set", killed)
    with pytest.raises(KeyboardInterrupt):
        rb.robust(*where, tmp_path / "second", **flags)
    monkeypatch.setattr(rb, "evaluate_set", real)
    flags["workers"] = 1
    rb.robust(*where, tmp_path / "second", **flags)
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


def test_attacks_are_what_their_names_say(work):
    """Noise of deviation 19 and of variance 19, before resizing; JPEG of exactly that quality."""
    grey = np.full((400, 400, 3), 128, np.uint8)
    attacks = read_attacks(names=["gaussian-noise", "gaussian-noise-variance", "jpeg"])
    found = {(attack.name, attack.level): attack for attack in attacks}
    for name, deviation in (("gaussian-noise", 19), ("gaussian-noise-variance", 19**0.5)):
        attack = found[name, 19]
        attack.seed(0)
        first = attack.transform(image=grey)["image"]
        assert first.astype(float).std() == pytest.approx(deviation, rel=0.02)
        attack.seed(0)
        assert (attack.transform(image=grey)["image"] == first).all()
        attack.seed(1)
        assert (attack.transform(image=grey)["image"] != first).any()
    photo = photograph(64, 64)
    # albumentations hands its RGB to OpenCV as it is, so red and blue change places in the JPEG
    by_hand = cv2.imdecode(cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], 1)
    assert (found["jpeg", 50].transform(image=photo)["image"] == by_hand).all()


def test_another_attack_is_another_line(tmp_path):
    line = "- {name: median, paper: true, transform: MedianBlur, unit: pixels, levels: [5], "
    (tmp_path / "a.yaml").write_text(line + "arguments: {blur_limit: [LEVEL, LEVEL]}}\n")
    (attack,) = read_attacks(tmp_path / "a.yaml")
    assert attack.transform is attack.transform
    assert attack.transform(image=photograph(40, 40))["image"].shape == (40, 40, 3)
    with pytest.raises(EvaluationError, match="got attack 'fog', expected one of median"):
        read_attacks(tmp_path / "a.yaml", ["fog"])
    (tmp_path / "b.yaml").write_text(line.replace("MedianBlur", "Nothing") + "arguments: {}}\n")
    with pytest.raises(EvaluationError, match="expected a transform of albumentations"):
        read_attacks(tmp_path / "b.yaml")
    (tmp_path / "c.yaml").write_text(line + "arguments: {blur: LEVEL}}\n")
    with pytest.raises(EvaluationError, match=r"got attack median \{'blur': 5\}, expected"):
        read_attacks(tmp_path / "c.yaml")


def test_unknown_flags_are_refused(work, tmp_path, capsys):
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


def test_a_set_s_name_cannot_lead_out_of_the_results(tmp_path):
    """The name stands in a JSON of test sets, which may be anybody's."""
    with pytest.raises(PathError, match=r"got '\.\./\.\./ESCAPED\.json' for .*expected a plain"):
        Rows(tmp_path / "out/deep", "../../ESCAPED", {}, Process())
    assert not list(tmp_path.iterdir())

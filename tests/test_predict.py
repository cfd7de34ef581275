"""``qma-net predict``: what travels with a checkpoint, and results that nothing spoils."""

import argparse
import csv
import io
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import photograph
from qma_net import QMANetPredictor, cli
from qma_net.core.runs import FolderLock
from qma_net.inference.photograph import PhotographError, read_photograph
from qma_net.modeling.config import ConfigError
from qma_net.modeling.state import WeightsError
from qma_net.weights.locate import load_model

ABOUT = "demo: not for cases"


@pytest.fixture
def checkpoint(build_tiny, tmp_path):
    """A file of a trainer's, resized to 64 pixels; more of what it holds may be given."""
    from qma_net.weights.checkpoint import CONFIG_KEY, config_to_extra_state

    model = build_tiny()
    state = {f"network.{name}": tensor for name, tensor in model.state_dict().items()}
    state[CONFIG_KEY] = config_to_extra_state(model.config)

    def write(name="checkpoint-3.pth", about="", **flags):
        args = {"image_size": 64, "if_resizing": True, "if_padding": False, **flags}
        content = {"model": state, "args": argparse.Namespace(**args)}
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        torch.save(content | ({"about": about} if about else {}), path)
        return path

    return write


@pytest.fixture
def photos(tmp_path):
    """Two folders with a photograph of the same name, and one of another."""
    for i, name in enumerate(("a/x.png", "b/x.png", "b/y.jpg")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(photograph(50, 70, i)).save(tmp_path / name)
    return tmp_path


def predict(checkpoint, out, *words):
    cli.main(["predict", *map(str, words), "--checkpoint", str(checkpoint), "--out", str(out)])


def rows_of(out):
    with open(out / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_size_of_training_travels_with_the_weights(checkpoint, tmp_path):
    """From the trainer's flags to the predictor, through save_pretrained too; a flag overrides."""
    path = checkpoint(about=ABOUT)
    QMANetPredictor.from_pretrained(path).model.save_pretrained(tmp_path / "hub")
    kept = json.loads((tmp_path / "hub/preprocessor_config.json").read_text())
    assert kept == {"image_size": 64, "fit": "resize"}
    pixels = photograph(90, 120)
    asked = QMANetPredictor(load_model(path), image_size=64).predict(pixels)
    for source in (path, tmp_path / "hub"):
        predictor = QMANetPredictor.from_pretrained(source)
        prediction = predictor.predict(pixels)
        assert np.array_equal(prediction.mask, asked.mask)
        assert prediction.notes == (ABOUT,)
        other = QMANetPredictor.from_pretrained(source, image_size=96).predict(pixels)
        assert not np.array_equal(other.mask, asked.mask)
        assert "resized to 96x96, where training had it resized to 64x64" in other.notes


def test_a_model_trained_with_padding_sees_photographs_padded(checkpoint):
    predictor = QMANetPredictor.from_pretrained(checkpoint(if_resizing=False, if_padding=True))
    seen = []
    predictor.model.noise_view.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    small, large = predictor.predict(photograph(40, 60)), predictor.predict(photograph(40, 100))
    assert [shape[2:] for shape in seen] == [(64, 64), (40, 100)]
    assert (small.mask.shape, large.mask.shape) == ((40, 60), (40, 100))
    assert small.notes == ()
    assert "larger than the 64x64 of training" in large.notes[0]


def test_what_a_checkpoint_is_stands_with_every_result(checkpoint, photos, capsys):
    out = photos / "out"
    predict(checkpoint(about=ABOUT), out, photos / "a/x.png")
    said = capsys.readouterr().err
    assert f"photographs resized to 64x64; {ABOUT}" in said
    assert "no probability that the photograph is a forgery" in said
    assert rows_of(out)[0]["notes"] == ABOUT
    kept = json.loads((out / "predictions.json").read_text())
    assert (kept["about"], kept["image_size"], kept["threshold"]) == (ABOUT, 64, 0.5)
    assert len(kept["checkpoint_sha256"]) == 64


def test_runs_into_one_folder_add_up(checkpoint, photos):
    """Nothing of the first run is overwritten, and nothing that is done is done again."""
    path, out = checkpoint(), photos / "out"
    predict(path, out, photos / "a/x.png")
    first = (out / "x_mask.png").read_bytes()
    predict(path, out, photos / "a", photos / "b")
    assert (out / "x_mask.png").read_bytes() == first
    names = {row["file"].removeprefix(f"{photos}/"): row["mask"] for row in rows_of(out)}
    assert names == {"a/x.png": "x_mask.png", "b/x.png": "x_2_mask.png", "b/y.jpg": "y_mask.png"}
    before = {file.name: file.stat().st_mtime_ns for file in out.glob("*.png")}
    predict(path, out, photos / "a", photos / "b")
    assert before == {file.name: file.stat().st_mtime_ns for file in out.glob("*.png")}
    later = (out / "x_mask.png").stat().st_mtime + 10
    os.utime(photos / "a/x.png", (later, later))  # another photograph under the same name
    predict(path, out, photos / "a")
    assert (out / "x_mask.png").stat().st_mtime_ns > before["x_mask.png"]
    assert len(rows_of(out)) == 3


def test_other_settings_need_another_folder(checkpoint, photos):
    path, out = checkpoint(), photos / "out"
    predict(path, out, photos / "a")
    with pytest.raises(
        SystemExit, match=r"threshold 0\.5\), expected threshold 0\.7: give another"
    ):
        predict(path, out, photos / "b", "--threshold", "0.7")


def test_a_folder_s_own_masks_are_no_photographs(checkpoint, photos):
    path = checkpoint()
    for _ in range(2):
        predict(path, photos / "b", photos / "b")
    assert sorted(row["mask"] for row in rows_of(photos / "b")) == ["x_mask.png", "y_mask.png"]


def test_a_stopped_run_keeps_its_rows_and_goes_on(checkpoint, photos, monkeypatch, capsys):
    path, out, look = checkpoint(), photos / "out", QMANetPredictor.predict

    def stopped(self, image, **settings):
        if image.name.endswith("b/x.png"):
            raise KeyboardInterrupt
        return look(self, image, **settings)

    monkeypatch.setattr(QMANetPredictor, "predict", stopped)
    with pytest.raises(SystemExit) as ended:
        predict(path, out, photos / "a", photos / "b")
    assert ended.value.code == 130
    assert "interrupted; finished work is kept" in capsys.readouterr().err
    assert [row["mask"] for row in rows_of(out)] == ["x_mask.png"]
    with open(out / "predictions.csv", "a") as table:
        table.write("torn,0.4")  # as a kill leaves it
    monkeypatch.setattr(QMANetPredictor, "predict", look)
    predict(path, out, photos / "a", photos / "b")
    assert sorted(row["mask"] for row in rows_of(out)) == [
        "x_2_mask.png",
        "x_mask.png",
        "y_mask.png",
    ]


def test_a_pipe_is_read(checkpoint, photos, monkeypatch, capsys):
    """``-`` is the standard input, called stdin; another one does not overwrite the first."""
    path, out = checkpoint(), photos / "out"

    def piped(data):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))

    for i, name in enumerate(("b/y.jpg", "a/x.png")):
        piped((photos / name).read_bytes())
        predict(path, out, "-", *([photos / "a"] if i else []))
    masks = [(row["file"].removeprefix(f"{photos}/"), row["mask"]) for row in rows_of(out)]
    assert masks == [
        ("stdin", "stdin_mask.png"),
        ("stdin", "stdin_2_mask.png"),
        ("a/x.png", "x_mask.png"),
    ]
    expected = QMANetPredictor.from_pretrained(path).predict(photos / "b/y.jpg").mask
    mask = np.asarray(Image.open(out / "stdin_mask.png"))
    assert np.abs(mask / 255 - expected).max() < 1 / 255
    piped(b"")
    with pytest.raises(SystemExit):
        predict(path, out, "-")
    assert "got stdin, expected a complete photograph" in capsys.readouterr().err
    piped((photos / "b/y.jpg").read_bytes())
    cli.main(["examine", "-", "--checkpoint", "none", "--out", str(photos / "reports")])
    report = json.loads((photos / "reports/stdin/report.json").read_text())
    assert (report["file"], report["format"], report["width"]) == ("stdin", "JPEG", 70)


@pytest.mark.parametrize("size", [(1, 1), (8, 3000), (31, 200)])
def test_what_is_too_small_to_judge_says_so(checkpoint, tmp_path, size):
    Image.fromarray(photograph(*size)).save(tmp_path / "small.png")
    predict(checkpoint(), tmp_path / "out", tmp_path / "small.png")
    (row,) = rows_of(tmp_path / "out")
    assert row["notes"].startswith(f"too small to judge: {size[1]}x{size[0]} pixels")
    assert (row["width"], row["height"]) == (str(size[1]), str(size[0]))
    assert QMANetPredictor.from_pretrained(checkpoint()).predict(photograph(32, 32)).notes == ()


class Terminal(io.StringIO):
    """A standard error that a person looks at."""

    def isatty(self):
        return True


def test_a_bar_of_tiles_is_for_a_terminal_and_a_large_photograph(checkpoint, photos, monkeypatch):
    """With the time left; nothing of it in a log, and none where one tile is all."""
    Image.fromarray(photograph(64, 64)).save(photos / "small.png")
    Image.fromarray(photograph(50, 1200)).save(photos / "large.png")
    path, said = checkpoint(), []
    for i, (stream, name) in enumerate(
        ((Terminal(), "large"), (io.StringIO(), "large"), (Terminal(), "small"))
    ):
        monkeypatch.setattr("sys.stderr", stream)
        predict(path, photos / f"out{i}", photos / f"{name}.png", "--native")
        said.append("tiles:" in stream.getvalue())
        assert "predict: 100%" in stream.getvalue()
    assert said == [True, False, False]
    monkeypatch.setattr("sys.stderr", stream := Terminal())
    words = ["--checkpoint", str(path), "--out", str(photos / "reports"), "--native"]
    cli.main(["examine", str(photos / "large.png"), *words])
    assert "tiles:" in stream.getvalue()


def test_two_runs_at_once_are_refused(checkpoint, photos):
    with FolderLock(photos / "out"), pytest.raises(SystemExit, match="another run is writing to"):
        predict(checkpoint(), photos / "out", photos / "a")
    predict(checkpoint(), photos / "out", photos / "a")


@pytest.mark.parametrize("threshold", ["50", "-0.1", "nan"])
def test_a_threshold_is_a_probability(checkpoint, photos, threshold):
    with pytest.raises(SystemExit, match="expected a probability from 0 to 1"):
        predict(checkpoint(), photos / "out", photos / "a", f"--threshold={threshold}")
    assert not (photos / "out").exists()


def test_cuda_where_there_is_none_is_one_line(checkpoint, photos, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="torch finds no CUDA, expected cpu"):
        predict(checkpoint(), photos / "out", photos / "a", "--device", "cuda")
    with pytest.raises(ConfigError, match="got device 'gpu', expected cpu, cuda"):
        QMANetPredictor.from_pretrained(checkpoint(), device="gpu")


def test_of_a_training_s_folder_the_newest_is_taken(checkpoint, tmp_path):
    for epoch in (2, 10, 9):
        path = checkpoint(f"run/checkpoint-{epoch}.pth")
    assert load_model(path.parent).weights_file.name == "checkpoint-10.pth"


def test_a_hub_id_without_a_network_is_one_quick_line():
    with pytest.raises(WeightsError, match="no such file, and the hub cannot be reached") as error:
        load_model("nobody/nothing")
    assert "\n" not in str(error.value)


def test_a_mistyped_flag_names_the_nearest(capsys):
    for words, nearest in (
        (["predict", "x.jpg", "--checkpoint=random", "--out=o", "--treshold", "1"], "--threshold"),
        (["data", "check", "x", "--fats"], "--fast"),
    ):
        with pytest.raises(SystemExit):
            cli.main(words)
        assert f"did you mean {nearest}?" in capsys.readouterr().err


def test_convert_leaves_an_edited_model_card(checkpoint, tmp_path):
    command = ["convert", str(checkpoint()), "--out", str(tmp_path / "hub")]
    cli.main(command)
    (tmp_path / "hub/README.md").write_text("mine")
    cli.main(command)
    assert (tmp_path / "hub/README.md").read_text() == "mine"


def test_addresses_and_pdfs_get_their_own_sentence(tmp_path):
    with pytest.raises(PhotographError, match=r"got the address https://x\.org/a\.jpg.*save the"):
        read_photograph("https://x.org/a.jpg")
    (tmp_path / "photo.jpg").write_bytes(b"%PDF-1.7\n...")
    with pytest.raises(PhotographError, match=r"photo\.jpg.*it is a PDF; take the picture out"):
        read_photograph(tmp_path / "photo.jpg")

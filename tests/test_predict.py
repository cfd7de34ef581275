"""``qma-net predict``: settings stored in checkpoints, resumable runs and result files."""

import argparse
import csv
import io
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import photograph
from qma_net import QMANetPredictor, cli
from qma_net.core.runs import FolderLock, Run
from qma_net.examine import examine_files
from qma_net.inference.photograph import PhotographError, read_photograph
from qma_net.inference.predict import predict_files
from qma_net.modeling.config import ADDED_FIELDS, ConfigError
from qma_net.modeling.state import WeightsError
from qma_net.weights.locate import load_model

ABOUT = "demo: not for cases"


@pytest.fixture
def checkpoint(build_tiny, tmp_path):
    """Write a trainer's checkpoint with images resized to 64 pixels; flags can be overridden."""
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
    """Two folders with photos of the same name, and a third photo."""
    for i, name in enumerate(("a/x.png", "b/x.png", "b/y.jpg")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(photograph(50, 70, i)).save(tmp_path / name)
    return tmp_path


def predict(checkpoint, out, *words):
    cli.main(["predict", *map(str, words), "--checkpoint", str(checkpoint), "--out", str(out)])


def rows_of(out):
    with open(out / "predictions.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_training_size_is_stored_with_the_weights(checkpoint, tmp_path):
    path = checkpoint(about=ABOUT)
    QMANetPredictor.from_pretrained(path).model.save_pretrained(tmp_path / "hub")
    preprocessor = json.loads((tmp_path / "hub/preprocessor_config.json").read_text())
    assert preprocessor == {"image_size": 64, "fit": "resize"}
    pixels = photograph(90, 120)
    expected = QMANetPredictor(load_model(path), image_size=64).predict(pixels)
    for source in (path, tmp_path / "hub"):
        predictor = QMANetPredictor.from_pretrained(source)
        prediction = predictor.predict(pixels)
        assert np.array_equal(prediction.mask, expected.mask)
        assert prediction.notes == (ABOUT,)
        other = QMANetPredictor.from_pretrained(source, image_size=96).predict(pixels)
        assert not np.array_equal(other.mask, expected.mask)
        assert "resized to 96x96; in training resized to 64x64" in other.notes
        predictor = QMANetPredictor.from_pretrained(source, image_size=96)
        assert predictor.predict(pixels, native=True).notes == (ABOUT,)


def test_image_size_is_rejected_for_prediction_at_original_resolution(checkpoint, photos, tmp_path):
    """It was ignored, and each result had a note that the photo was resized."""
    words = [photos / "b", "--native", "--image-size", "96"]
    with pytest.raises(
        SystemExit, match=r"^qma-net: --image-size has no effect with --native; omit"
    ):
        predict(checkpoint(), tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()


def test_photos_are_padded_for_a_model_trained_with_padding(checkpoint):
    predictor = QMANetPredictor.from_pretrained(checkpoint(if_resizing=False, if_padding=True))
    shapes = []
    predictor.model.noise_view.register_forward_pre_hook(
        lambda _, args: shapes.append(args[0].shape)
    )
    small, large = predictor.predict(photograph(40, 60)), predictor.predict(photograph(40, 100))
    assert [shape[2:] for shape in shapes] == [(64, 64), (40, 100)]
    assert (small.mask.shape, large.mask.shape) == ((40, 60), (40, 100))
    assert small.notes == ()
    assert "larger than the 64x64 of training" in large.notes[0]


def test_results_describe_the_checkpoint(checkpoint, photos, capsys):
    out = photos / "out"
    predict(checkpoint(about=ABOUT), out, photos / "a/x.png")
    messages = capsys.readouterr().err
    assert f"qma-net: processing photos resized to 64x64\nqma-net: {ABOUT}\n" in messages
    assert "not the probability that the photo has been tampered with" in messages
    assert rows_of(out)[0]["notes"] == ABOUT
    settings = json.loads((out / "predictions.json").read_text())
    assert (settings["about"], settings["image_size"], settings["threshold"]) == (ABOUT, 64, 0.5)
    assert len(settings["checkpoint_sha256"]) == 64


def test_second_run_adds_to_the_folder_and_repeats_only_replaced_photos(checkpoint, photos):
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
    os.utime(photos / "a/x.png", (later, later))  # Another photo with the same name.
    predict(path, out, photos / "a")
    assert (out / "x_mask.png").stat().st_mtime_ns > before["x_mask.png"]
    assert len(rows_of(out)) == 3


def test_changed_settings_require_another_folder(checkpoint, photos):
    path, out = checkpoint(), photos / "out"
    predict(path, out, photos / "a")
    with pytest.raises(
        SystemExit,
        match=r"different settings \(threshold 0\.5, now 0\.7\); choose a different folder",
    ):
        predict(path, out, photos / "b", "--threshold", "0.7")


def test_masks_of_an_earlier_run_are_not_predicted(checkpoint, photos):
    path = checkpoint()
    for _ in range(2):
        predict(path, photos / "b", photos / "b")
    assert sorted(row["mask"] for row in rows_of(photos / "b")) == ["x_mask.png", "y_mask.png"]


def test_images_of_an_examination_are_predicted_only_if_they_are_named(
    checkpoint, photos, tmp_path, caplog
):
    path, out = checkpoint(), tmp_path / "out"
    predictor = QMANetPredictor.from_pretrained(path)
    examine_files([photos / "b"], photos / "b/reports", predictor, progress=False)
    predict(path, out, photos / "b")
    assert sorted(Path(row["file"]).name for row in rows_of(out)) == ["x.png", "y.jpg"]
    assert "skipped 10 files that earlier runs of qma-net wrote" in caplog.text
    mask = photos / "b/reports/x/mask.png"
    predict(path, tmp_path / "named", mask)
    assert [row["file"] for row in rows_of(tmp_path / "named")] == [str(mask)]


def test_interrupted_run_is_continued(checkpoint, photos, monkeypatch, capsys):
    path, out, original = checkpoint(), photos / "out", QMANetPredictor.predict

    def interrupted(self, image, **settings):
        if image.name.endswith("b/x.png"):
            raise KeyboardInterrupt
        return original(self, image, **settings)

    monkeypatch.setattr(QMANetPredictor, "predict", interrupted)
    with pytest.raises(SystemExit) as end:
        predict(path, out, photos / "a", photos / "b")
    assert end.value.code == 130
    assert "interrupted; finished work is kept" in capsys.readouterr().err
    assert [row["mask"] for row in rows_of(out)] == ["x_mask.png"]
    with open(out / "predictions.csv", "a", encoding="utf-8") as table:
        table.write("torn,0.4")  # An incomplete line of a killed process.
    monkeypatch.setattr(QMANetPredictor, "predict", original)
    predict(path, out, photos / "a", photos / "b")
    assert sorted(row["mask"] for row in rows_of(out)) == [
        "x_2_mask.png",
        "x_mask.png",
        "y_mask.png",
    ]


def test_files_of_the_user_are_not_overwritten(checkpoint, photos):
    path, folder = checkpoint(), photos / "a"
    (folder / "x_mask.png").write_bytes(b"mine")
    (folder / "x_2_overlay.png").write_bytes(b"mine, too")
    predict(path, folder, folder / "x.png")
    assert (folder / "x_mask.png").read_bytes() == b"mine"
    assert (folder / "x_2_overlay.png").read_bytes() == b"mine, too"
    (row,) = rows_of(folder)
    assert (row["mask"], row["overlay"]) == ("x_3_mask.png", "x_3_overlay.png")
    assert not (folder / "x_overlay.png").exists()


def test_images_of_an_interrupted_run_are_replaced(checkpoint, photos, monkeypatch):
    """A run that stops between writing the images and recording them leaves no duplicates."""
    path, out = checkpoint(), photos / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Run, "finish", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(SystemExit):
            predict(path, out, photos / "a")
    assert (out / "x_overlay.png").exists()
    predict(path, out, photos / "a")
    assert sorted(file.name for file in out.glob("*.png")) == ["x_mask.png", "x_overlay.png"]
    assert [row["mask"] for row in rows_of(out)] == ["x_mask.png"]


def test_replaced_photo_of_another_size_is_predicted_again(checkpoint, photos):
    path, out, photo = checkpoint(), photos / "out", photos / "a/x.png"
    predict(path, out, photo)
    time = photo.stat().st_mtime_ns
    Image.fromarray(photograph(60, 80, 9)).save(photo)
    os.utime(photo, ns=(time, time))
    predict(path, out, photo)
    assert [(row["mask"], row["width"]) for row in rows_of(out)] == [("x_mask.png", "80")]


def test_deleted_mask_is_regenerated_and_edited_mask_is_kept(checkpoint, photos):
    path, out = checkpoint(), photos / "out"
    predict(path, out, photos / "b")
    (out / "x_mask.png").unlink()
    (out / "y_mask.png").write_bytes(b"edited")
    predict(path, out, photos / "b")
    assert Image.open(out / "x_mask.png").size == (70, 50)
    assert (out / "y_mask.png").read_bytes() == b"edited"
    assert sorted(row["mask"] for row in rows_of(out)) == ["x_mask.png", "y_mask.png"]


@pytest.mark.parametrize("name", ["x_mask.png", "x_overlay.png"])
def test_image_emptied_by_a_loss_of_power_is_regenerated(checkpoint, photos, name):
    path, out = checkpoint(), photos / "out"
    predict(path, out, photos / "a")
    (out / name).write_bytes(b"")
    predict(path, out, photos / "a")
    assert Image.open(out / name).size == Image.open(out / "x_mask.png").size == (70, 50)
    assert [row["mask"] for row in rows_of(out)] == ["x_mask.png"]


def test_damaged_outputs_are_written_again(checkpoint, photos):
    """None of them is read back, except for the journal."""
    path, out = checkpoint(), photos / "out"
    predict(path, out, photos / "a")
    before = rows_of(out)
    (out / "predictions.json").write_text("[]")
    (out / "predictions.csv").write_bytes(b"\0" * 1000)
    predict(path, out, photos / "a", out)  # The table also names the masks to leave out.
    assert rows_of(out)[:1] == before
    assert "threshold" in json.loads((out / "predictions.json").read_text())


def test_predictions_without_journal_are_rejected(checkpoint, photos):
    path, out = checkpoint(), photos / "out"
    predict(path, out, photos / "a")
    (out / ".predict.jsonl").unlink()
    table = (out / "predictions.csv").read_bytes()
    with pytest.raises(SystemExit, match=r"but not \.predict\.jsonl, .*choose a different folder"):
        predict(path, out, photos / "b")
    assert (out / "predictions.csv").read_bytes() == table


def test_progress_bars_can_be_disabled(checkpoint, photos, monkeypatch):
    Image.fromarray(photograph(50, 1200)).save(photos / "large.png")
    predictor = QMANetPredictor.from_pretrained(checkpoint())
    monkeypatch.setattr("sys.stderr", stream := Terminal())
    large = [photos / "large.png"]
    predict_files(large, photos / "out", predictor, native=True, progress=False)
    examine_files([*large, photos / "a"], photos / "reports", predictor, progress=False)
    assert stream.getvalue() == ""


def test_standard_input_is_read_and_does_not_overwrite_earlier_results(
    checkpoint, photos, monkeypatch, capsys
):
    path, out = checkpoint(), photos / "out"

    def pipe(data):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))

    for i, name in enumerate(("b/y.jpg", "a/x.png")):
        pipe((photos / name).read_bytes())
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
    pipe(b"")
    with pytest.raises(SystemExit):
        predict(path, out, "-")
    assert "cannot read stdin" in capsys.readouterr().err
    pipe((photos / "b/y.jpg").read_bytes())
    cli.main(["examine", "-", "--checkpoint", "none", "--out", str(photos / "reports")])
    report = json.loads((photos / "reports/stdin/report.json").read_text())
    assert (report["file"], report["format"], report["width"]) == ("stdin", "JPEG", 70)


@pytest.mark.parametrize("size", [(1, 1), (8, 3000), (31, 200)])
def test_small_photo_is_noted_as_too_small_to_judge(checkpoint, tmp_path, size):
    Image.fromarray(photograph(*size)).save(tmp_path / "small.png")
    predict(checkpoint(), tmp_path / "out", tmp_path / "small.png")
    (row,) = rows_of(tmp_path / "out")
    assert row["notes"].startswith(f"too small to judge: {size[1]}x{size[0]} pixels")
    assert (row["width"], row["height"]) == (str(size[1]), str(size[0]))
    assert QMANetPredictor.from_pretrained(checkpoint()).predict(photograph(32, 32)).notes == ()


class Terminal(io.StringIO):
    """A standard error stream that is a terminal."""

    def isatty(self):
        return True


def test_tile_bar_is_shown_on_terminals_for_large_photos_only(checkpoint, photos, monkeypatch):
    Image.fromarray(photograph(64, 64)).save(photos / "small.png")
    Image.fromarray(photograph(50, 1200)).save(photos / "large.png")
    path, shown = checkpoint(), []
    for i, (stream, name) in enumerate(
        ((Terminal(), "large"), (io.StringIO(), "large"), (Terminal(), "small"))
    ):
        monkeypatch.setattr("sys.stderr", stream)
        predict(path, photos / f"out{i}", photos / f"{name}.png", "--native")
        shown.append("tiles:" in stream.getvalue())
        assert "predict: 100%" in stream.getvalue()
    assert shown == [True, False, False]
    monkeypatch.setattr("sys.stderr", stream := Terminal())
    words = ["--checkpoint", str(path), "--out", str(photos / "reports"), "--native"]
    cli.main(["examine", str(photos / "large.png"), *words])
    assert "tiles:" in stream.getvalue()


def test_concurrent_predict_run_is_rejected(checkpoint, photos):
    with FolderLock(photos / "out"), pytest.raises(SystemExit, match="another run is writing to"):
        predict(checkpoint(), photos / "out", photos / "a")
    predict(checkpoint(), photos / "out", photos / "a")


@pytest.fixture
def overflowing(checkpoint):
    """Write a checkpoint with finite weights whose mask is NaN, since a layer overflows."""
    path = checkpoint("overflowing.pth")
    content = torch.load(path, weights_only=False)
    for tensor in content["model"].values():
        if tensor.is_floating_point():
            tensor.mul_(1e30)
    torch.save(content, path)
    return path


def test_nan_mask_aborts_predict_and_examine(overflowing, photos, capsys):
    """A mask of NaN exceeds no threshold, so it would look like an authentic photo."""
    message = rf"^qma-net: {overflowing} outputs NaN or infinity .* for {photos}/a/x\.png: "
    out = photos / "out"
    with pytest.raises(SystemExit, match=message):
        predict(overflowing, out, photos / "a")
    assert rows_of(out) == []
    assert list(out.glob("*.png")) == []
    words = ["--checkpoint", str(overflowing), "--out", str(photos / "reports")]
    with pytest.raises(SystemExit, match=message):
        cli.main(["examine", str(photos / "a"), *words])
    assert list((photos / "reports").glob("*/report.*")) == []
    words = ["--checkpoint", str(overflowing), "--out", str(photos / "calibrated"), "--photos"]
    with pytest.raises(SystemExit, match=message):
        cli.main(["calibrate", *words, str(photos / "a")])


@pytest.mark.parametrize("threshold", ["50", "-0.1", "nan"])
def test_threshold_outside_zero_to_one_is_rejected(checkpoint, photos, threshold):
    with pytest.raises(SystemExit, match="expected a number from 0 to 1"):
        predict(checkpoint(), photos / "out", photos / "a", f"--threshold={threshold}")
    assert not (photos / "out").exists()


def test_unavailable_cuda_gives_one_line_error(checkpoint, photos, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        SystemExit, match="CUDA is not available; omit --device to choose automatically"
    ):
        predict(checkpoint(), photos / "out", photos / "a", "--device", "cuda")
    with pytest.raises(ConfigError, match="got device 'gpu', expected cpu, cuda"):
        QMANetPredictor.from_pretrained(checkpoint(), device="gpu")


def test_newest_checkpoint_of_training_folder_is_used(checkpoint, tmp_path):
    for epoch in (2, 10, 9):
        path = checkpoint(f"run/checkpoint-{epoch}.pth")
    assert load_model(path.parent).weights_file.name == "checkpoint-10.pth"


def test_hub_id_without_network_gives_one_line_error():
    with pytest.raises(
        WeightsError, match="cannot find nobody/nothing, and the Hugging Face Hub cannot be reached"
    ) as error:
        load_model("nobody/nothing")
    assert "\n" not in str(error.value)


def test_predictions_with_mixed_precision_have_a_folder_of_their_own(checkpoint, photos, tmp_path):
    path = checkpoint()
    predict(path, tmp_path / "out", photos / "a")
    assert "mixed" not in json.loads((tmp_path / "out/predictions.json").read_text())
    with pytest.raises(SystemExit, match=r"different settings \(mixed None, now True\)"):
        predict(path, tmp_path / "out", photos, "--mixed")


def test_single_photo_is_rejected_by_predict_iter(checkpoint, photos):
    predictor = QMANetPredictor.from_pretrained(checkpoint())
    path = photos / "b/y.jpg"
    with Image.open(path) as image:
        pixels = np.asarray(image)
        sources = (str(path), path, path.read_bytes(), image, pixels, read_photograph(path))
        for photo in (*sources, pixels[..., 0]):
            with pytest.raises(ConfigError, match="got one photo of type"):
                predictor.predict_iter(photo)
    for several in (np.array([str(path)]), pixels[None], pixels[None, ..., 0]):
        assert len(list(predictor.predict_iter(several))) == 1


def test_score_is_explained_only_if_there_is_one(checkpoint, tmp_path, capsys):
    (tmp_path / "x.jpg").write_text("no photo")
    with pytest.raises(SystemExit):
        predict(checkpoint(), tmp_path / "out", tmp_path / "x.jpg")
    assert "score: " not in capsys.readouterr().err
    Image.fromarray(photograph(50, 70)).save(tmp_path / "y.png")
    predict(checkpoint(), tmp_path / "out", tmp_path / "y.png")
    assert "score: " in capsys.readouterr().err


def test_mistyped_flag_gets_a_suggestion(capsys):
    for words, nearest in (
        (["predict", "x.jpg", "--checkpoint=random", "--out=o", "--treshold", "1"], "--threshold"),
        (["data", "check", "x", "--fats"], "--fast"),
    ):
        with pytest.raises(SystemExit):
            cli.main(words)
        assert f"did you mean {nearest}?" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "calibration.json"])
def test_convert_does_not_overwrite_another_model(checkpoint, tmp_path, name):
    hub = tmp_path / "hub"
    hub.mkdir()
    (hub / name).write_text('{"model_type": "segformer"}')
    with pytest.raises(SystemExit, match=f"hub contains {name}, which does not belong to a QMA"):
        cli.main(["convert", str(checkpoint()), "--out", str(hub)])
    assert [path.name for path in hub.iterdir()] == [name]
    assert (hub / name).read_text() == '{"model_type": "segformer"}'


def test_convert_replaces_a_model_of_an_earlier_version(checkpoint, tmp_path):
    """Such a model loads, but its folder was refused as that of a different kind of model."""
    command = ["convert", str(checkpoint()), "--out", str(tmp_path / "hub")]
    cli.main(command)
    file = tmp_path / "hub/config.json"
    config = json.loads(file.read_text())
    earlier = {key: value for key, value in config.items() if key not in ADDED_FIELDS}
    file.write_text(json.dumps(earlier))
    load_model(tmp_path / "hub")
    cli.main(command)
    assert json.loads(file.read_text()) == config


def test_interrupted_convert_is_repeated(checkpoint, tmp_path):
    command = ["convert", str(checkpoint()), "--out", str(tmp_path / "hub")]
    cli.main(command)
    (tmp_path / "hub/config.json").unlink()  # It is written after the weights.
    cli.main(command)
    assert (tmp_path / "hub/config.json").is_file()


def test_convert_keeps_an_edited_model_card(checkpoint, tmp_path):
    command = ["convert", str(checkpoint()), "--out", str(tmp_path / "hub")]
    cli.main(command)
    (tmp_path / "hub/README.md").write_text("mine")
    cli.main(command)
    assert (tmp_path / "hub/README.md").read_text() == "mine"


def test_urls_and_pdfs_get_a_helpful_error(tmp_path):
    with pytest.raises(
        PhotographError, match=r"got the URL https://x\.org/a\.jpg.*download the image"
    ):
        read_photograph("https://x.org/a.jpg")
    (tmp_path / "photo.jpg").write_bytes(b"%PDF-1.7\n...")
    with pytest.raises(PhotographError, match=r"photo\.jpg.*it is a PDF; extract the image"):
        read_photograph(tmp_path / "photo.jpg")


def test_photos_in_folders_are_recognized_by_content(checkpoint, tmp_path, capsys):
    """Suffixes are often missing or wrong, and macOS stores attributes in ``._name.jpg``."""
    folder = tmp_path / "card"
    (folder / "DCIM").mkdir(parents=True)
    (folder / ".Trashes").mkdir()
    image = Image.fromarray(photograph(50, 70))
    names = ("a.jfif", "b.jpe", "c.mpo", "d", "e.dat", "DCIM/f.JPG", "g.png")
    for name in (*names, "h.nef", ".hidden.jpg", ".Trashes/i.jpg"):
        image.save(folder / name, "TIFF" if name == "h.nef" else "JPEG")
    apple_double = bytes.fromhex("00051607 00020000") + b"Mac OS X        " + bytes(60)
    (folder / "DCIM/._f.JPG").write_bytes(apple_double)
    (folder / "Thumbs.db").write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(500))
    (folder / "f.xmp").write_text("<x:xmpmeta/>")
    (folder / "BMW.txt").write_text("BMW is a text that begins like a bitmap, and is long enough.")
    os.mkfifo(folder / "pipe.jpg")
    predict(checkpoint(), tmp_path / "out", folder)
    rows = rows_of(tmp_path / "out")
    assert {row["file"] for row in rows} == {str(folder / name) for name in names}
    assert {row["error"] for row in rows} == {""}
    errors = capsys.readouterr().err
    skipped = ".hidden.jpg, BMW.txt, ._f.JPG, Thumbs.db, f.xmp, ..."
    assert f"qma-net: skipped 7 files that are not photos: {skipped}\n" in errors
    predict(checkpoint(), tmp_path / "matches", f"{folder}/*.*", f"{folder}/DCIM/*")
    matched = {row["file"] for row in rows_of(tmp_path / "matches")}
    assert matched == {str(folder / name) for name in names if name != "d"}


def test_damaged_photos_and_explicit_non_photos_are_errors(checkpoint, tmp_path, capsys):
    folder = tmp_path / "card"
    folder.mkdir()
    Image.fromarray(photograph(50, 70)).save(folder / "a.jpg")
    (folder / "empty.jpg").touch()
    (folder / "notes.txt").write_text("a note")
    path = checkpoint()
    with pytest.raises(SystemExit) as end:
        predict(path, tmp_path / "out", folder)
    assert end.value.code == 1
    errors = {row["file"]: row["error"] for row in rows_of(tmp_path / "out")}
    assert errors[str(folder / "a.jpg")] == ""
    assert "it is empty" in errors[str(folder / "empty.jpg")]
    assert "skipped 1 file that is not a photo: notes.txt" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        predict(path, tmp_path / "named", folder / "notes.txt")
    assert "it is a text file" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["predict", "examine"])
def test_jpeg_with_a_short_scan_header_does_not_end_the_run(checkpoint, tmp_path, command):
    """The header of a scan is 12 bytes long, of which each file lacks some."""
    folder = tmp_path / "photos"
    folder.mkdir()
    intact = folder / "z.jpg"
    Image.fromarray(photograph(50, 70)).save(intact)
    for length in range(2, 12):
        header = b"\xff\xda\0" + bytes([length])
        data = intact.read_bytes().replace(b"\xff\xda\0\x0c", header)
        assert header in data
        (folder / f"{length}.jpg").write_bytes(data)
    words = ["--checkpoint", str(checkpoint()), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as end:
        cli.main([command, str(folder), *words])
    assert end.value.code == 1
    name = "z_mask.png" if command == "predict" else "z/report.json"
    assert (tmp_path / "out" / name).is_file()


@pytest.mark.parametrize("command", ["predict", "examine"])
def test_pipes_devices_and_huge_files_are_rejected(checkpoint, tmp_path, command, capsys):
    """Earlier versions waited for a pipe, read a device forever and loaded a sparse 1 TB file."""
    os.mkfifo(tmp_path / "pipe.jpg")
    with open(tmp_path / "sparse.jpg", "wb") as file:
        file.truncate(2**40)
    photos = [tmp_path / "pipe.jpg", tmp_path / "sparse.jpg", Path("/dev/zero")]
    words = ["--checkpoint", str(checkpoint()), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as end:
        cli.main([command, *map(str, photos), *words])
    assert end.value.code == 1
    errors = capsys.readouterr().err
    assert f"cannot read {photos[0]}: it is not a regular file\n" in errors
    assert f"cannot read {photos[1]}: it is too large: 1099511627776 bytes, expected" in errors
    assert "cannot read /dev/zero: it is not a regular file\n" in errors


def test_endless_standard_input_is_rejected(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("qma_net.inference.photograph.MAX_FILE_BYTES", 10**6)
    with open("/dev/zero", "rb") as zeros:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(zeros, encoding="utf-8"))
        with pytest.raises(SystemExit):
            predict(checkpoint(), tmp_path / "out", "-")
    assert "cannot read stdin: it is larger than 1000000 bytes" in capsys.readouterr().err

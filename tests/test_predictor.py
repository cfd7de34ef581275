"""Prediction: sizes, tiles, saved models, the command and the exported graph."""

import csv
import json
from dataclasses import asdict
from itertools import pairwise, product

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from conftest import photograph
from qma_net import QMANetPredictor
from qma_net.examine import examine_photo
from qma_net.inference.photograph import PhotographError
from qma_net.inference.preprocessing import fit_to_model
from qma_net.inference.tiles import NoiseRows, blend_tiles, tile_spans
from qma_net.modeling.config import ARCHITECTURE, ConfigError, Preprocessing, QMANetConfig
from qma_net.modeling.noise import normalized
from qma_net.modeling.qma_net import QMANetModel, QMANetOutput
from qma_net.modeling.state import WeightsError
from sample_archives import broken_photographs


@pytest.fixture
def predictor(build_tiny):
    torch.manual_seed(0)
    return QMANetPredictor(build_tiny(), image_size=96)


def test_mask_has_the_size_of_the_photo(predictor):
    prediction = predictor.predict(photograph(70, 130))
    assert prediction.mask.shape == prediction.binary.shape == (70, 130)
    assert prediction.mask.dtype == np.float32
    assert 0 <= prediction.mask.min() <= prediction.mask.max() <= 1
    assert (prediction.binary == (prediction.mask > 0.5)).all()
    assert prediction.overlay().shape == (70, 130, 3)
    assert 0 <= prediction.score <= 1


def test_mask_equals_model_output_for_input_from_benco_loader(predictor, tmp_path):
    from IMDLBenCo.datasets import JsonDataset

    path = tmp_path / "a.png"
    Image.fromarray(photograph(70, 130)).save(path)
    (tmp_path / "l.json").write_text(json.dumps([[str(path), "Negative"]]))
    item = JsonDataset(str(tmp_path / "l.json"), is_resizing=True, output_size=(96, 96))[0]
    with torch.no_grad():
        mask = predictor.model(item["image"][None]).mask_logits.sigmoid()[0, 0].numpy()
    expected = cv2.resize(mask, (130, 70), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(predictor.predict(path).mask, expected, atol=1e-5)


def test_native_prediction_does_not_resize(predictor):
    image = photograph(70, 101)
    with torch.no_grad():
        logits = predictor.model(normalized(image)).mask_logits
    np.testing.assert_allclose(
        predictor.predict(image, native=True).mask, logits.sigmoid()[0, 0].numpy(), atol=1e-6
    )
    with pytest.raises(
        PhotographError, match=r"at least 32x32 .* original resolution; omit native"
    ):
        predictor.predict(photograph(20, 60), native=True)
    assert predictor.predict(photograph(20, 60)).mask.shape == (20, 60)
    # Models that always process photos at original resolution have no option to omit.
    predictor.preprocessing = Preprocessing(fit="native")
    for native in (False, True):
        with pytest.raises(PhotographError, match="resolution; the photo is too small to judge"):
            predictor.predict(photograph(20, 60), native=native)


def test_tta_averages_over_mirror_images(predictor):
    image = photograph(64, 64)
    masks = []
    for flip in ((), (1,), (0,), (0, 1)):
        flipped = np.ascontiguousarray(np.flip(image, flip))
        masks.append(np.flip(predictor.predict(flipped, native=True).mask, flip))
    mask = predictor.predict(image, native=True, tta=True).mask
    np.testing.assert_allclose(mask, np.mean(masks, axis=0), atol=1e-6)


def test_list_of_photos_gives_list_of_predictions(predictor):
    photos = [photograph(40, 50, 1), photograph(60, 40, 2)]
    predictions = predictor.predict(photos, threshold=0.3)
    assert [prediction.mask.shape for prediction in predictions] == [(40, 50), (60, 40)]
    assert (predictions[0].binary == (predictor.predict(photos[0]).mask > 0.3)).all()


@pytest.mark.parametrize("oversize", ["native", "crop", "shrink"])
@pytest.mark.parametrize("fit", ["resize", "pad", "native"])
@pytest.mark.parametrize("size", [(40, 60), (64, 64), (70, 130)])
def test_model_input_is_restored_to_the_photo(fit, oversize, size):
    pixels = ramp_image(*size)
    fitted = fit_to_model(pixels, Preprocessing(64, fit), oversize=oversize)
    is_cropped = fit == "pad" and oversize == "crop" and max(size) > 64
    expected = pixels[:64, :64] if is_cropped else pixels
    restored = fitted.restore(fitted.pixels[..., 0].astype(np.float32))
    assert restored.shape == expected.shape[:2]
    assert np.abs(restored - expected[..., 0]).mean() < 3
    is_large = max(size) > 64
    is_native = fit == "native" or (fit == "pad" and is_large and oversize == "native")
    assert fitted.is_native == is_native
    assert fitted.pixels.shape[:2] == (size if is_native else (64, 64))


# --- tiles ---------------------------------------------------------------------------------


def ramp_image(height, width):
    """Return an image that is smooth in both directions."""
    y, x = np.mgrid[:height, :width]
    value = 0.5 + 0.25 * np.sin(x / 90) + 0.25 * np.cos(y / 70)
    return (255 * value).astype(np.uint8)[..., None].repeat(3, axis=2)


def test_photo_that_fits_into_one_tile_is_not_divided(predictor):
    image = photograph(80, 96)
    small = QMANetPredictor(predictor.model, tile=96, overlap=32)
    large = QMANetPredictor(predictor.model, tile=512, overlap=32)
    assert (small.predict(image, native=True).mask == large.predict(image, native=True).mask).all()


@pytest.mark.parametrize(
    ("length", "tile", "overlap"), [(333, 96, 32), (1000, 256, 64), (97, 96, 32)]
)
def test_tile_spans_have_equal_size_on_the_encoder_grid(length, tile, overlap):
    spans = tile_spans(length, tile, overlap)
    sizes = {-(-(span.stop - span.start) // 32) * 32 for span in spans}
    assert len(sizes) == 1
    assert sizes.pop() <= tile
    assert (spans[0].start, spans[-1].stop) == (0, length)
    assert all(span.start % 32 == 0 for span in spans)
    assert all(a.stop - b.start >= overlap for a, b in pairwise(spans))


def test_length_slightly_above_a_tile_gives_two_small_spans():
    """Two spans of the largest size would overlap almost completely."""
    assert tile_spans(110, 96, 32) == [slice(0, 96), slice(32, 110)]
    assert tile_spans(1100, 1024, 128) == [slice(0, 640), slice(480, 1100)]
    assert tile_spans(1024, 1024, 128) == [slice(0, 1024)]


def test_tiles_with_consistent_predictions_reproduce_the_image():
    image = ramp_image(210, 333)[..., 0] / np.float32(255)
    np.testing.assert_allclose(
        blend_tiles(tile_spans(210, 96, 32), tile_spans(333, 96, 32), image.__getitem__),
        image,
        atol=1e-6,
    )


def test_tiles_with_different_predictions_are_blended_without_seams():
    """Neighboring pixels differ by no more than the slope of the weights."""
    levels = iter(np.random.default_rng(0).random(100))

    def predict_tile(region):
        return np.full((400, 400), next(levels), np.float32)[region]

    mask = blend_tiles(*2 * [tile_spans(400, 160, 64)], predict_tile)
    steps = max(np.abs(np.diff(mask, axis=0)).max(), np.abs(np.diff(mask, axis=1)).max())
    assert 0 < steps < 1.7 / 64  # The steepest slope is 1.5.
    assert mask.std() > 0.1


@pytest.mark.parametrize("views", ["srm,bayar", "srm,bayar,noiseprint"])
def test_noise_view_of_tiles_equals_that_of_the_whole_photo(
    build_tiny, noiseprint_file, monkeypatch, views
):
    """The noise view is computed once, in blocks with a margin."""
    weights = str(noiseprint_file) if "noiseprint" in views else ""
    view = build_tiny(views=views, noiseprint_weights=weights).noise_view
    monkeypatch.setattr("qma_net.inference.tiles.BLOCK_PIXELS", 2**12)
    monkeypatch.setattr("qma_net.inference.tiles.BAND_ROWS", 48)
    image = photograph(150, 170)
    with torch.inference_mode():
        whole = view(normalized(image))
        computed, blocks = [], []
        view.register_forward_pre_hook(lambda _, args: computed.append(args[0].shape))
        noise = NoiseRows(view, image, torch.device("cpu"), lambda: blocks.append(1))
        for rows, columns in product(tile_spans(150, 96, 32), tile_spans(170, 96, 32)):
            part = noise.crop((rows, columns))
            torch.testing.assert_close(part, whole[:, :, rows, columns], atol=1e-4, rtol=1e-4)
    assert len(computed) == len(blocks) > 4
    margins = 2 * view.reach
    assert sum((h - margins) * (w - margins) for _, _, h, w in computed) <= 150 * 170


def test_large_photo_is_predicted_in_blended_tiles(predictor):
    """The expected mask is computed by hand, with the noise view of the whole photo."""
    image = photograph(70, 130)
    tiled = QMANetPredictor(predictor.model, tile=96, overlap=32)
    with torch.no_grad():
        noise = predictor.model.noise_view(normalized(image))
        masks = [
            predictor.model(normalized(image[:, part]), noise=noise[..., part]).mask_logits
            for part in (slice(0, 96), slice(64, 130))
        ]
    left, right = (mask.sigmoid()[0, 0].numpy() for mask in masks)
    t = (np.arange(32, dtype=np.float32) + 0.5) / 32
    ramp = 6 * t**5 - 15 * t**4 + 10 * t**3
    expected = np.concatenate(
        [left[:, :64], left[:, 64:] * (1 - ramp) + right[:, :32] * ramp, right[:, 32:]], axis=1
    )
    mask = tiled.predict(image, native=True).mask
    np.testing.assert_allclose(mask, expected, atol=1e-6)


def test_tiles_that_do_not_fit_the_encoders_are_rejected(predictor):
    for tile, overlap in ((100, 32), (96, 40), (96, 96), (96, 0)):
        with pytest.raises(ConfigError, match="expected multiples of 32, with the overlap below"):
            QMANetPredictor(predictor.model, tile=tile, overlap=overlap)


@pytest.mark.parametrize(("tta", "total"), [(False, 6), (True, 24)])
def test_progress_counts_tiles_and_can_stop_the_prediction(predictor, tta, total):
    tiled = QMANetPredictor(predictor.model, tile=96, overlap=32)
    image, calls = photograph(100, 200), []

    def note(done, total):
        calls.append((done, total))

    tiled.predict(image, native=True, tta=tta, progress=note)
    assert calls[0] == (0, total)
    assert list(dict.fromkeys(calls)) == [(done, total) for done in range(total + 1)]

    def stop(done, total):
        if done == 2:
            raise StopPrediction

    forward_passes = []
    predictor.model.register_forward_pre_hook(lambda *_: forward_passes.append(1))
    with pytest.raises(StopPrediction):
        tiled.predict(image, native=True, tta=tta, progress=stop)
    assert len(forward_passes) == 2
    calls.clear()
    predictor.predict(image, progress=note)
    assert calls == [(0, 1), (0, 1), (1, 1)]
    calls.clear()
    examine_photo(tiled, image, native=True, progress=note)
    assert calls[-1] == (6, 6)


class StopPrediction(Exception):
    """Raised by a progress callback."""


# --- saved models ---------------------------------------------------------------------------


def test_saved_model_is_loaded_bit_for_bit(predictor, tmp_path):
    predictor.model.save_pretrained(tmp_path / "model")
    names = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert names == ["README.md", "config.json", "model.safetensors"]
    loaded = QMANetPredictor.from_pretrained(tmp_path / "model", device="cpu", image_size=96)
    assert loaded.model.config == predictor.model.config
    state = loaded.model.state_dict()
    assert all((state[k] == v).all() for k, v in predictor.model.state_dict().items())
    image = photograph(50, 60)
    assert (loaded.predict(image).mask == predictor.predict(image).mask).all()
    card = (tmp_path / "model/README.md").read_text()
    assert "library_name: qma-net" in card
    assert "image-manipulation-localization" in card


def test_checkpoint_of_benco_trainer_is_converted(tmp_path, capsys):
    from qma_net.benco import QMANet
    from qma_net.cli import main

    with pytest.warns(UserWarning, match="random encoders"):
        model = QMANet(size="tiny", views="srm,bayar")
    checkpoint = tmp_path / "checkpoint-3.pth"
    optimizer = {"state": {0: torch.zeros(10**6)}}
    torch.save({"model": model.state_dict(), "optimizer": optimizer, "epoch": 3}, checkpoint)
    main(["convert", str(checkpoint), "--out", str(tmp_path / "out")])
    assert (tmp_path / "out/model.safetensors").stat().st_size < checkpoint.stat().st_size - 3e6
    image = photograph(50, 60)
    masks = [
        QMANetPredictor.from_pretrained(path, device="cpu").predict(image, native=True).mask
        for path in (checkpoint, tmp_path / "out")
    ]
    assert (masks[0] == masks[1]).all()


def test_paths_without_a_model_give_one_line_errors(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/config.json").write_text('{"hidden_size": 3}')
    (tmp_path / "half").mkdir()
    config = asdict(QMANetConfig(size="tiny", views="srm"))
    (tmp_path / "half/config.json").write_text(json.dumps(config | {"architecture": ARCHITECTURE}))
    (tmp_path / "old").mkdir()
    (tmp_path / "old/config.json").write_text(json.dumps(config))
    for path, match in (
        (tmp_path / "empty", "has no config.json"),
        (tmp_path / "foreign", "is not the configuration of a QMA-Net"),
        (tmp_path / "half", "cannot read the weights .*half"),
        (tmp_path / "old", "has architecture 1, written by qma-net 0.1.0, .* needs architecture 2"),
        (tmp_path / "absent.pth", "cannot find .*absent"),
        ("nobody/nothing", "pass a checkpoint, a folder written by save_pretrained"),
    ):
        with pytest.raises(WeightsError, match=match) as raised:
            QMANetPredictor.from_pretrained(path)
        assert "\n" not in str(raised.value)


# --- the command ---------------------------------------------------------------------------


def test_command_reports_files_that_are_not_photos_and_continues(predictor, tmp_path, capsys):
    from qma_net.cli import main

    predictor.model.save_pretrained(tmp_path / "model")
    photos = tmp_path / "photos"
    photos.mkdir()
    reasons = broken_photographs(photos)
    Image.fromarray(photograph(50, 60)).save(photos / "good.png")
    Image.fromarray(photograph(30, 40)).save(photos / "good.tif")
    out = tmp_path / "out"
    files = [str(photos / name) for name in reasons if name != "folder.jpg"]
    with pytest.raises(SystemExit) as end:
        main(
            ["predict", str(photos / "good.*"), *files, "--checkpoint", str(tmp_path / "model")]
            + ["--out", str(out)]
        )
    assert end.value.code == 1
    errors = capsys.readouterr().err
    with open(out / "predictions.csv", encoding="utf-8") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert len(rows) == 2 + len(files)
    for name in reasons.keys() - {"folder.jpg"}:
        assert rows[str(photos / name)]["error"] in errors
        assert rows[str(photos / name)]["score"] == ""
    row = rows[str(photos / "good.tif")]
    assert (row["mask"], row["overlay"]) == ("good_2_mask.png", "good_2_overlay.png")
    assert (row["width"], row["height"]) == ("40", "30")
    mask = np.asarray(Image.open(out / "good_mask.png"))
    assert mask.shape == (50, 60)
    assert float(row["score"]) > 0
    pngs = {f"good{number}_{kind}.png" for number in ("", "_2") for kind in ("mask", "overlay")}
    results = {".predict.jsonl", "predictions.csv", "predictions.json"}
    assert {path.name for path in out.iterdir()} == results | pngs


def test_random_weights_are_noted(tmp_path, capsys):
    from qma_net.cli import main

    Image.fromarray(photograph(64, 64)).save(tmp_path / "a.png")
    flags = ["--out", str(tmp_path / "out"), "--checkpoint", "random", "--device", "cpu"]
    main(["predict", str(tmp_path / "a.png"), *flags])
    assert "RANDOM WEIGHTS" in capsys.readouterr().err
    assert "RANDOM WEIGHTS" in (tmp_path / "out/predictions.csv").read_text()


# --- ONNX ----------------------------------------------------------------------------------


def test_traced_model_accepts_other_batch_and_image_sizes(build_tiny):
    from qma_net.inference.export import MaskOnly, trace

    network = MaskOnly(build_tiny(views="srm").eval())
    with torch.no_grad():
        program = trace(network).module()
        for shape in ((1, 3, 96, 64), (3, 3, 128, 160)):
            image = torch.randn(shape)
            torch.testing.assert_close(program(image), network(image))


@pytest.mark.slow  # Tracing takes more than a minute.
def test_onnx_agrees_with_pytorch(build_tiny, noiseprint_file, tmp_path, caplog):
    pytest.importorskip("onnxruntime", reason="the export tools are not installed")
    import onnxruntime

    from qma_net.inference.export import export_onnx

    Image.fromarray(photograph(100, 150)).save(tmp_path / "a.jpg")
    model = build_tiny(views="srm,bayar,noiseprint", noiseprint_weights=str(noiseprint_file))
    caplog.set_level("INFO", logger="qma_net")
    line = export_onnx(model, tmp_path / "model.onnx", [tmp_path / "a.jpg"])
    assert caplog.messages[0].startswith("writing the graph")
    assert caplog.messages[-1].startswith("verifying it with inputs of 1x3x64x64, 2x3x96x160")
    assert "1x3x64x64, 2x3x96x160, 1x3x256x192, 1x3x96x128" in line
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (image,) = session.get_inputs()
    assert image.shape[1] == 3
    assert all(isinstance(image.shape[d], str) for d in (0, 2, 3))
    assert {"tensor(float)"} == {io.type for io in (image, *session.get_outputs())}


def test_export_with_differing_output_is_not_written(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="the export tools are not installed")
    from qma_net.inference import export

    class Linear(QMANetModel):
        def __init__(self):
            torch.nn.Module.__init__(self)
            self.weight = torch.nn.Parameter(torch.tensor(0.5))

        def forward(self, image):
            return QMANetOutput(image[:, :1] * self.weight, [])

    model, write = Linear(), export._write

    def write_and_change(network, path):
        write(network, path)
        model.weight.data += shift

    monkeypatch.setattr(export, "_write", write_and_change)
    shift = 0.0
    export.export_onnx(model, tmp_path / "same.onnx")
    shift = 0.1
    with pytest.raises(export.ExportError, match=r"got differences .* expected at most 0\.001"):
        export.export_onnx(model, tmp_path / "x.onnx")
    (tmp_path / "same.onnx").unlink()
    assert list(tmp_path.iterdir()) == []

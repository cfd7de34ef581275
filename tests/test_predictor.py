"""From a photograph to a mask: sizes, tiles, directories, the command, the exported graph."""

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
from miniatures import broken_photographs
from qma_net import QMANetPredictor
from qma_net.inference.photograph import PhotographError
from qma_net.inference.tiles import NoiseRows, blended, spans
from qma_net.modeling.config import ARCHITECTURE, ConfigError, QMANetConfig
from qma_net.modeling.noise import normalised
from qma_net.modeling.qma_net import QMANetModel, QMANetOutput
from qma_net.modeling.state import WeightsError


@pytest.fixture
def predictor(build_tiny):
    torch.manual_seed(0)
    return QMANetPredictor(build_tiny(), image_size=96)


def test_a_photograph_at_its_own_size(predictor):
    prediction = predictor.predict(photograph(70, 130))
    assert prediction.mask.shape == prediction.binary.shape == (70, 130)
    assert prediction.mask.dtype == np.float32
    assert 0 <= prediction.mask.min() <= prediction.mask.max() <= 1
    assert (prediction.binary == (prediction.mask > 0.5)).all()
    assert prediction.overlay().shape == (70, 130, 3)
    assert 0 <= prediction.score <= 1


def test_it_is_what_benco_s_loader_and_our_model_say(predictor, tmp_path):
    """Resized and normalised as in training: the same mask within rounding."""
    from IMDLBenCo.datasets import JsonDataset

    path = tmp_path / "a.png"
    Image.fromarray(photograph(70, 130)).save(path)
    (tmp_path / "l.json").write_text(json.dumps([[str(path), "Negative"]]))
    item = JsonDataset(str(tmp_path / "l.json"), is_resizing=True, output_size=(96, 96))[0]
    with torch.no_grad():
        mask = predictor.model(item["image"][None]).mask_logits.sigmoid()[0, 0].numpy()
    expected = cv2.resize(mask, (130, 70), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(predictor.predict(path).mask, expected, atol=1e-5)


def test_native_does_not_resize(predictor):
    image = photograph(70, 101)
    with torch.no_grad():
        logits = predictor.model(normalised(image)).mask_logits
    np.testing.assert_allclose(
        predictor.predict(image, native=True).mask, logits.sigmoid()[0, 0].numpy(), atol=1e-6
    )
    with pytest.raises(PhotographError, match="expected at least 32x32 at its own size"):
        predictor.predict(photograph(20, 60), native=True)
    assert predictor.predict(photograph(20, 60)).mask.shape == (20, 60)


def test_tta_is_the_mean_over_the_mirror_images(predictor):
    image = photograph(64, 64)
    looks = []
    for flip in ((), (1,), (0,), (0, 1)):
        turned = np.ascontiguousarray(np.flip(image, flip))
        looks.append(np.flip(predictor.predict(turned, native=True).mask, flip))
    got = predictor.predict(image, native=True, tta=True).mask
    np.testing.assert_allclose(got, np.mean(looks, axis=0), atol=1e-6)


def test_a_batch_is_a_list(predictor):
    photos = [photograph(40, 50, 1), photograph(60, 40, 2)]
    got = predictor.predict(photos, threshold=0.3)
    assert [one.mask.shape for one in got] == [(40, 50), (60, 40)]
    assert (got[0].binary == (predictor.predict(photos[0]).mask > 0.3)).all()


# --- tiles ---------------------------------------------------------------------------------


def ramp_image(height, width):
    """Smooth in both directions, and a function of the position alone."""
    y, x = np.mgrid[:height, :width]
    value = 0.5 + 0.25 * np.sin(x / 90) + 0.25 * np.cos(y / 70)
    return (255 * value).astype(np.uint8)[..., None].repeat(3, axis=2)


def test_what_fits_in_one_tile_is_looked_at_as_it_is(predictor):
    image = photograph(80, 96)
    small = QMANetPredictor(predictor.model, tile=96, overlap=32)
    large = QMANetPredictor(predictor.model, tile=512, overlap=32)
    assert (small.predict(image, native=True).mask == large.predict(image, native=True).mask).all()


@pytest.mark.parametrize(
    ("length", "tile", "overlap"), [(333, 96, 32), (1000, 256, 64), (97, 96, 32)]
)
def test_spans_are_small_and_of_one_size_on_the_encoders_grid(length, tile, overlap):
    found = spans(length, tile, overlap)
    sizes = {-(-(span.stop - span.start) // 32) * 32 for span in found}
    assert len(sizes) == 1
    assert sizes.pop() <= tile
    assert (found[0].start, found[-1].stop) == (0, length)
    assert all(span.start % 32 == 0 for span in found)
    assert all(a.stop - b.start >= overlap for a, b in pairwise(found))


def test_a_little_more_than_a_tile_makes_two_small_ones():
    """Not two of the largest size that share nearly everything."""
    assert spans(110, 96, 32) == [slice(0, 96), slice(32, 110)]
    assert spans(1100, 1024, 128) == [slice(0, 640), slice(480, 1100)]
    assert spans(1024, 1024, 128) == [slice(0, 1024)]


def test_tiles_cover_everything_and_agree_where_looks_agree():
    """A look that depends on the pixel alone is reproduced wherever tiles lie."""
    image = ramp_image(210, 333)[..., 0] / np.float32(255)
    np.testing.assert_allclose(
        blended(spans(210, 96, 32), spans(333, 96, 32), image.__getitem__), image, atol=1e-6
    )


def test_no_border_shows_where_looks_differ():
    """Every tile says something else; the blend steps by no more than the ramps' slope."""
    levels = iter(np.random.default_rng(0).random(100))

    def look(place):
        return np.full((400, 400), next(levels), np.float32)[place]

    mask = blended(*2 * [spans(400, 160, 64)], look)
    steps = max(np.abs(np.diff(mask, axis=0)).max(), np.abs(np.diff(mask, axis=1)).max())
    assert 0 < steps < 1.7 / 64  # 1.5 where a ramp is steepest
    assert mask.std() > 0.1


@pytest.mark.parametrize("views", ["srm,bayar", "srm,bayar,noiseprint"])
def test_the_noise_of_tiles_is_that_of_the_whole_photograph(
    build_tiny, noiseprint_file, monkeypatch, views
):
    """Computed once, in blocks; without the margin the blocks' borders would show."""
    weights = str(noiseprint_file) if "noiseprint" in views else ""
    view = build_tiny(views=views, noiseprint_weights=weights).noise_view
    monkeypatch.setattr("qma_net.inference.tiles.BLOCK_PIXELS", 2**12)
    monkeypatch.setattr("qma_net.inference.tiles.BAND", 48)
    image = photograph(150, 170)
    with torch.inference_mode():
        whole = view(normalised(image))
        computed, blocks = [], []
        view.register_forward_pre_hook(lambda _, args: computed.append(args[0].shape))
        noise = NoiseRows(view, image, torch.device("cpu"), lambda: blocks.append(1))
        for rows, columns in product(spans(150, 96, 32), spans(170, 96, 32)):
            part = noise.of((rows, columns))
            torch.testing.assert_close(part, whole[:, :, rows, columns], atol=1e-4, rtol=1e-4)
    assert len(computed) == len(blocks) > 4
    margins = 2 * view.reach
    assert sum((h - margins) * (w - margins) for _, _, h, w in computed) <= 150 * 170


def test_a_large_photograph_is_its_tiles_with_the_noise_of_the_whole(predictor):
    """By hand: the model on each tile, with the noise view of the photograph, blended."""
    image = photograph(70, 130)
    tiled = QMANetPredictor(predictor.model, tile=96, overlap=32)
    with torch.no_grad():
        noise = predictor.model.noise_view(normalised(image))
        masks = [
            predictor.model(normalised(image[:, part]), noise=noise[..., part]).mask_logits
            for part in (slice(0, 96), slice(64, 130))
        ]
    left, right = (mask.sigmoid()[0, 0].numpy() for mask in masks)
    t = (np.arange(32, dtype=np.float32) + 0.5) / 32
    ramp = 6 * t**5 - 15 * t**4 + 10 * t**3
    expected = np.concatenate(
        [left[:, :64], left[:, 64:] * (1 - ramp) + right[:, :32] * ramp, right[:, 32:]], axis=1
    )
    got = tiled.predict(image, native=True).mask
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_tiles_that_do_not_fit_the_encoders_are_refused(predictor):
    for tile, overlap in ((100, 32), (96, 40), (96, 96), (96, 0)):
        with pytest.raises(ConfigError, match="expected multiples of 32, the overlap below"):
            QMANetPredictor(predictor.model, tile=tile, overlap=overlap)


@pytest.mark.parametrize(("tta", "total"), [(False, 6), (True, 24)])
def test_progress_counts_tiles_and_stops(predictor, tta, total):
    """(0, total) first, every tile after it; what it raises ends the work."""
    tiled, image, said = (
        QMANetPredictor(predictor.model, tile=96, overlap=32),
        photograph(100, 200),
        [],
    )

    def note(done, total):
        said.append((done, total))

    tiled.predict(image, native=True, tta=tta, progress=note)
    assert said[0] == (0, total)
    assert list(dict.fromkeys(said)) == [(done, total) for done in range(total + 1)]

    def stop(done, total):
        if done == 2:
            raise StopAsking

    seen = []
    predictor.model.register_forward_pre_hook(lambda *_: seen.append(1))
    with pytest.raises(StopAsking):
        tiled.predict(image, native=True, tta=tta, progress=stop)
    assert len(seen) == 2
    said.clear()
    predictor.predict(image, progress=note)
    assert said == [(0, 1), (0, 1), (1, 1)]
    said.clear()
    tiled.examine(image, native=True, progress=note)
    assert said[-1] == (6, 6)


class StopAsking(Exception):
    """What a person who has seen enough raises."""


# --- directories ---------------------------------------------------------------------------


def test_round_trip_is_bitwise(predictor, tmp_path):
    predictor.model.save_pretrained(tmp_path / "model")
    names = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert names == ["README.md", "config.json", "model.safetensors"]
    again = QMANetPredictor.from_pretrained(tmp_path / "model", device="cpu", image_size=96)
    assert again.model.config == predictor.model.config
    state = again.model.state_dict()
    assert all((state[k] == v).all() for k, v in predictor.model.state_dict().items())
    image = photograph(50, 60)
    assert (again.predict(image).mask == predictor.predict(image).mask).all()
    card = (tmp_path / "model/README.md").read_text()
    assert "library_name: qma-net" in card
    assert "image-manipulation-localization" in card


def test_a_checkpoint_of_benco_s_trainer_converts(tmp_path, capsys):
    from qma_net.benco import QMANet
    from qma_net.cli import main

    with pytest.warns(UserWarning, match="random backbones"):
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


def test_what_is_no_model_is_one_clear_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/config.json").write_text('{"hidden_size": 3}')
    (tmp_path / "half").mkdir()
    config = asdict(QMANetConfig(size="tiny", views="srm"))
    (tmp_path / "half/config.json").write_text(json.dumps(config | {"architecture": ARCHITECTURE}))
    (tmp_path / "old").mkdir()
    (tmp_path / "old/config.json").write_text(json.dumps(config))
    for path, match in (
        (tmp_path / "empty", "without config.json"),
        (tmp_path / "foreign", "expected the configuration of a QMA-Net"),
        (tmp_path / "half", "expected the weights that belong to its config"),
        (tmp_path / "old", "of architecture 1, written by qma-net 0.1.0, expected architecture 2"),
        (tmp_path / "absent.pth", "there is no such file"),
        ("nobody/nothing", "expected a checkpoint, a directory of save_pretrained or a hub id"),
    ):
        with pytest.raises(WeightsError, match=match) as raised:
            QMANetPredictor.from_pretrained(path)
        assert "\n" not in str(raised.value)


# --- the command ---------------------------------------------------------------------------


def test_the_command_reports_bad_files_and_goes_on(predictor, tmp_path, capsys):
    from qma_net.cli import main

    predictor.model.save_pretrained(tmp_path / "model")
    photos = tmp_path / "photos"
    photos.mkdir()
    reasons = broken_photographs(photos)
    Image.fromarray(photograph(50, 60)).save(photos / "good.png")
    Image.fromarray(photograph(30, 40)).save(photos / "good.tif")
    out = tmp_path / "out"
    files = [str(photos / name) for name in reasons if name != "folder.jpg"]
    with pytest.raises(SystemExit) as ended:
        main(
            ["predict", str(photos / "good.*"), *files, "--checkpoint", str(tmp_path / "model")]
            + ["--out", str(out)]
        )
    assert ended.value.code == 1
    errors = capsys.readouterr().err
    with open(out / "predictions.csv") as file:
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
    assert {path.name for path in out.iterdir()} == {"predictions.csv", "predictions.json", *pngs}


def test_a_model_that_knows_nothing_must_be_asked_for_by_name(tmp_path, capsys):
    from qma_net.cli import main

    Image.fromarray(photograph(64, 64)).save(tmp_path / "a.png")
    flags = ["--out", str(tmp_path / "out"), "--checkpoint", "random", "--device", "cpu"]
    main(["predict", str(tmp_path / "a.png"), *flags])
    assert "RANDOM WEIGHTS" in capsys.readouterr().err
    assert "RANDOM WEIGHTS" in (tmp_path / "out/predictions.csv").read_text()


# --- ONNX ----------------------------------------------------------------------------------


@pytest.mark.slow  # a minute and more of tracing
def test_onnx_agrees_on_three_sizes_and_a_photograph(build_tiny, noiseprint_file, tmp_path):
    pytest.importorskip("onnxruntime", reason="the export tools are not installed")
    import onnxruntime

    from qma_net.inference.export import export_onnx

    Image.fromarray(photograph(100, 150)).save(tmp_path / "a.jpg")
    model = build_tiny(views="srm,bayar,noiseprint", noiseprint_weights=str(noiseprint_file))
    said = []
    line = export_onnx(model, tmp_path / "model.onnx", [tmp_path / "a.jpg"], say=said.append)
    assert said[0].startswith("writing the graph")
    assert said[-1] == "checking it on 1x3x96x128"
    assert "1x3x64x64, 2x3x96x160, 1x3x256x192, 1x3x96x128" in line
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (image,) = session.get_inputs()
    assert image.shape[1] == 3
    assert all(isinstance(image.shape[d], str) for d in (0, 2, 3))
    assert {"tensor(float)"} == {io.type for io in (image, *session.get_outputs())}


def test_a_graph_that_differs_is_not_left_behind(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="the export tools are not installed")
    from qma_net.inference import export

    class Linear(QMANetModel):
        def __init__(self):
            torch.nn.Module.__init__(self)
            self.weight = torch.nn.Parameter(torch.tensor(0.5))

        def forward(self, image):
            return QMANetOutput(image[:, :1] * self.weight, [])

    model, write = Linear(), export._write

    def written_then_changed(network, path):
        write(network, path)
        model.weight.data += shift

    monkeypatch.setattr(export, "_write", written_then_changed)
    shift = 0.0
    export.export_onnx(model, tmp_path / "same.onnx")
    shift = 0.1
    with pytest.raises(export.ExportError, match=r"got differences .* expected at most 0\.001"):
        export.export_onnx(model, tmp_path / "x.onnx")
    (tmp_path / "same.onnx").unlink()
    assert list(tmp_path.iterdir()) == []

"""qma-net-small, the model included in the package."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import qma_net
from benchmarks.evidence.ship import histogram, scores
from conftest import ROOT
from qma_net import QMANetPredictor, cli
from qma_net.synth.camera import encode_png
from qma_net.synth.curriculum import stage
from qma_net.synth.manipulate import generate_image
from qma_net.synth.photographs import Photographs
from qma_net.weights.names import SMALL

PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket")  # The model was not trained on these.


@pytest.fixture(scope="module")
def predictor():
    return QMANetPredictor.from_pretrained(SMALL, "cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Save photos of scikit-image at 70% of their size as JPEG files, as a camera would."""
    data = pytest.importorskip("skimage.data", reason="the demo's packages are not installed")
    folder = tmp_path_factory.mktemp("photos")
    for name in PHOTOGRAPHS:
        photo = cv2.resize(
            getattr(data, name)(), None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA
        )
        cv2.imwrite(str(folder / f"{name}.jpg"), photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    return folder


def test_packaged_model_has_metadata_and_is_under_30_mb(predictor):
    folder = ROOT / "qma_net/weights" / SMALL
    weights = folder / "model.safetensors"
    assert weights.stat().st_size <= 30e6
    assert {tensor.dtype for tensor in load_file(weights).values()} == {torch.float16}
    model = predictor.model
    assert (model.config.size, model.config.views) == ("b0", "srm,bayar")
    assert predictor.preprocessing.fit == "native"
    assert model.calibration.native
    assert model.calibration.count >= 100
    assert "@@" not in (folder / "README.md").read_text()


def test_model_locates_splices_in_unseen_photos(predictor, photos, tmp_path):
    recipe = replace(stage("histories"), image_size=224)
    source = Photographs(photos, [f"{name}.jpg" for name in PHOTOGRAPHS])
    histograms = []
    for seed in range(12):
        data, mask, _ = generate_image(np.random.default_rng(seed), "splice", source, recipe)
        (tmp_path / "image.jpg").write_bytes(data)
        (tmp_path / "mask.png").write_bytes(encode_png(mask))
        files = tmp_path / "image.jpg", tmp_path / "mask.png"
        histograms.append(histogram(predictor, *files))
    f1 = np.array([scores(counts)[0] for counts in histograms])
    f1_of_marking_everything = f1[:, 0].mean()
    assert f1[:, 500].mean() > 2 * f1_of_marking_everything
    authentic = [predictor.predict(path).mask > 0.5 for path in photos.iterdir()]
    assert np.mean([marked.mean() for marked in authentic]) < 0.05


def test_model_is_the_default_of_predict(photos, tmp_path, capsys):
    out = tmp_path / "masks"
    cli.main(["predict", str(photos / "chelsea.jpg"), "--out", str(out), "--device", "cpu"])
    assert (out / "chelsea_mask.png").is_file()
    assert "at original resolution" in capsys.readouterr().err
    assert SMALL in (out / "predictions.json").read_text()
    assert qma_net.__version__ in (out / "predictions.json").read_text()

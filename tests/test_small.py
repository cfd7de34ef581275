"""qma-net-small, the model that comes with the package."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import qma_net
from benchmarks.evidence.ship import SHIPS, counted, scores
from conftest import ROOT
from qma_net import QMANetPredictor, cli
from qma_net.synth.camera import png_bytes
from qma_net.synth.curriculum import stage
from qma_net.synth.maker import make_image
from qma_net.synth.photographs import Photographs
from qma_net.weights.names import SMALL

PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket")  # none of those that it learnt from


@pytest.fixture(scope="module")
def predictor():
    return QMANetPredictor.from_pretrained(SMALL, "cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Photographs that ship with scikit-image, at half their size, as cameras save them."""
    data = pytest.importorskip("skimage.data", reason="the demo's packages are not installed")
    folder = tmp_path_factory.mktemp("photos")
    for name in PHOTOGRAPHS:
        photo = cv2.resize(
            getattr(data, name)(), None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA
        )
        cv2.imwrite(str(folder / f"{name}.jpg"), photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    return folder


def test_it_travels_whole(predictor):
    folder = ROOT / "qma_net/weights" / SMALL
    weights = folder / "model.safetensors"
    assert weights.stat().st_size <= 30e6
    assert {one.dtype for one in load_file(weights).values()} == {torch.float16}
    model = predictor.model
    assert (model.config.size, model.config.views) == ("b0", "srm,bayar")
    assert predictor.preprocessing.fit == "native"
    assert model.calibration.native
    assert model.calibration.count >= 100
    assert "@@" not in (folder / "README.md").read_text()


def test_it_finds_what_it_was_taught(predictor, photos, tmp_path):
    recipe = replace(stage("histories"), image_size=224)
    source = Photographs(photos, [f"{name}.jpg" for name in PHOTOGRAPHS])
    found = []
    for seed in range(12):
        data, mask, _ = make_image(np.random.default_rng(seed), "splice", source, recipe)
        (tmp_path / "image.jpg").write_bytes(data)
        (tmp_path / "mask.png").write_bytes(png_bytes(mask))
        found.append(counted(predictor, str(tmp_path / "image.jpg"), str(tmp_path / "mask.png")))
    f1 = np.array([scores(one)[0] for one in found])
    everything = f1[:, 0].mean()
    assert f1[:, 500].mean() > 2 * everything
    untouched = [predictor.predict(path).mask > 0.5 for path in photos.iterdir()]
    assert np.mean([one.mean() for one in untouched]) < SHIPS[1]


def test_it_is_what_predict_takes(photos, tmp_path, capsys):
    out = tmp_path / "masks"
    cli.main(["predict", str(photos / "chelsea.jpg"), "--out", str(out), "--device", "cpu"])
    assert (out / "chelsea_mask.png").is_file()
    assert "at their own size" in capsys.readouterr().err
    assert SMALL in (out / "predictions.json").read_text()
    assert qma_net.__version__ in (out / "predictions.json").read_text()

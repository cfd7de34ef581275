"""Checkpoints that earlier versions wrote are models to this one, with the same answers."""

import json
import lzma
import shutil
from pathlib import Path

import numpy as np
import pytest

from conftest import photograph
from qma_net import QMANetPredictor
from qma_net.modeling import config

STORED = Path(__file__).parent / "stored"
VERSIONS = sorted(place.name for place in STORED.glob("architecture-*/"))
SMALL = ((8, 16, 40, 64), (1, 1, 1, 1))


@pytest.fixture(params=VERSIONS)
def stored(request, tmp_path, monkeypatch):
    """A stored version's directory with its weights unpacked, and its answer."""
    monkeypatch.setitem(config.SIZES, "small", SMALL)
    place = shutil.copytree(STORED / request.param, tmp_path / "stored")
    for packed in place.glob("*.xz"):
        packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
    return place, json.loads((STORED / f"{request.param}.json").read_text())


def test_there_is_one_of_this_architecture():
    assert f"architecture-{config.ARCHITECTURE}" in VERSIONS


@pytest.mark.parametrize("entry", ["checkpoint-3.pth", ""])
def test_a_stored_checkpoint_answers_as_it_did(stored, entry):
    """BenCo's file, and the directory of save_pretrained."""
    place, answer = stored
    predictor = QMANetPredictor.from_pretrained(place / entry, device="cpu")
    assert (predictor.preprocessing.image_size, predictor.preprocessing.fit) == (64, "resize")
    mask = predictor.predict(photograph(64, 64, 0)).mask
    blocks = mask.reshape(8, 8, 8, 8).mean(axis=(1, 3))
    assert np.ptp(answer) > 0.1  # an answer that any other model would give is none
    np.testing.assert_allclose(blocks, answer, atol=1e-4)

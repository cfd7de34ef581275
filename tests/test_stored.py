"""Checkpoints from earlier versions load and give the same masks as when they were stored."""

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
VERSIONS = sorted(folder.name for folder in STORED.glob("architecture-*/"))
SMALL = ((8, 16, 40, 64), (1, 1, 1, 1))


@pytest.fixture(params=VERSIONS)
def stored(request, tmp_path, monkeypatch):
    """Return the unpacked directory of a stored version and its expected mask."""
    monkeypatch.setitem(config.SIZES, "small", SMALL)
    folder = shutil.copytree(STORED / request.param, tmp_path / "stored")
    for packed in folder.glob("*.xz"):
        packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
    return folder, json.loads((STORED / f"{request.param}.json").read_text())


def test_current_architecture_has_a_stored_checkpoint():
    assert f"architecture-{config.ARCHITECTURE}" in VERSIONS


@pytest.mark.parametrize("entry", ["checkpoint-3.pth", ""])
def test_stored_checkpoint_gives_the_same_mask_as_before(stored, entry):
    """Test both BenCo's checkpoint and a directory written by save_pretrained."""
    folder, expected = stored
    predictor = QMANetPredictor.from_pretrained(folder / entry, device="cpu")
    assert (predictor.preprocessing.image_size, predictor.preprocessing.fit) == (64, "resize")
    mask = predictor.predict(photograph(64, 64, 0)).mask
    blocks = mask.reshape(8, 8, 8, 8).mean(axis=(1, 3))
    assert np.ptp(expected) > 0.1  # A constant mask would prove nothing.
    np.testing.assert_allclose(blocks, expected, atol=1e-4)

"""Shared fixtures: tiny sizes, the shared data, photographs to work with."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub: no test asks a network

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from qma_net import build
from qma_net.modeling import config

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("QMA_NET_SHARED", ROOT.parent / "shared"))

TINY = ((16, 32, 80, 128), (1, 1, 1, 1))


def pytest_collection_finish():
    """Imports BenCo for all launches, before a test starts a pool of ours: see launching.py."""
    if launching := sys.modules.get("launching"):
        launching.import_benco_once()


@pytest.fixture(autouse=True)
def tiny_size(monkeypatch):
    """Adds a size small enough for tests."""
    monkeypatch.setitem(config.SIZES, "tiny", TINY)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def shared():
    """A file or folder of ../shared, or a skip that says which one is absent."""

    def find(relative: str) -> Path:
        path = SHARED / relative
        if not path.exists():
            pytest.skip(f"{path} is absent (set QMA_NET_SHARED to the folder of shared data)")
        return path

    return find


@pytest.fixture
def record():
    """Adds a line to the file of ``QMA_NET_RECORD``, which ``shell/endurance.sh`` prints."""

    def add(line: str) -> None:
        if file := os.environ.get("QMA_NET_RECORD"):
            with open(file, "a") as lines:
                lines.write(line + "\n")

    return add


@pytest.fixture
def build_tiny():
    """Builds a tiny model without weights, quietly."""

    def build_one(size="tiny", **choices):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return build.build_qma_net(size, **{"views": "srm,bayar", "drop_path": 0.0, **choices})

    return build_one


def published_noiseprint(seed: int = 0) -> torch.nn.Sequential:
    """A DnCNN in the layout NoisePrint++ is published in, with lively batch norms."""
    torch.manual_seed(seed)
    layers = [torch.nn.Conv2d(3, 64, 3, padding=1), torch.nn.ReLU()]
    for _ in range(15):
        norm = torch.nn.BatchNorm2d(64)
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.normal_(norm.bias, std=0.1)
        norm.running_mean.normal_(std=0.1)
        norm.running_var.uniform_(0.5, 2)
        layers += [torch.nn.Conv2d(64, 64, 3, padding=1, bias=False), norm, torch.nn.ReLU()]
    layers.append(torch.nn.Conv2d(64, 1, 3, padding=1))
    return torch.nn.Sequential(*layers).eval()


@pytest.fixture
def noiseprint_file(tmp_path):
    """A file like the published noiseprint++.th, with random weights."""
    path = tmp_path / "noiseprint.th"
    torch.save({"network": published_noiseprint().state_dict(), "global_step": 1}, path)
    return path


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth, slightly noisy uint8 picture that is cheap to make."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 16
    phases = rng.uniform(0, 6, (3, 2))
    waves = [np.sin(y + a) + np.cos(x + b) for a, b in phases]
    noise = rng.normal(0, 6, (height, width, 3))
    return np.clip(128 + 40 * np.stack(waves, axis=-1) + noise, 0, 255).astype(np.uint8)

"""Shared fixtures: small models, the shared data and synthetic photos."""

import os

# No test uses the network. huggingface_hub reads this variable when it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"

import atexit
import logging
import shutil
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from forks import start_fork_server
from qma_net import build
from qma_net.modeling import config

# Results of data checks are not stored in the home folder.
if "QMA_NET_CACHE" not in os.environ:
    os.environ["QMA_NET_CACHE"] = tempfile.mkdtemp(prefix="qma-net-cache-")
    atexit.register(shutil.rmtree, os.environ["QMA_NET_CACHE"], ignore_errors=True)

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("QMA_NET_SHARED", ROOT.parent / "shared"))

TINY = ((16, 32, 80, 128), (1, 1, 1, 1))

pytest_plugins = ["serving"]  # The fixtures of the tests of `qma-net serve`.

# The files that take longest. They run first, so that no process is left with a long one at the
# end while the others have nothing to do.
LONGEST = (
    "test_launch.py",
    "test_serve_attacks.py",
    "test_training.py",
    "test_demo.py",
    "test_serve.py",
    "test_serve_page.py",
    "test_evaluate.py",
    "test_report.py",
    "test_fuzz.py",
    "test_shell.py",
    "test_figures.py",
    "test_stopped.py",
    "test_predict.py",
)


def pytest_configure(config):
    """Let pytest-xdist keep the order of the files instead of sorting them by number of tests."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    """Move the longest files to the front."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


FORKING = {"launching", "test_benco", "test_evaluate", "test_reliability"}  # They need forks.


def pytest_collection_finish(session):
    """Import BenCo before a test starts a process pool, if a test needs it."""
    if FORKING & sys.modules.keys() and not session.config.option.collectonly:
        start_fork_server()


@pytest.fixture(autouse=True)
def tiny_size(monkeypatch):
    """Add a model size that is small enough for tests."""
    monkeypatch.setitem(config.SIZES, "tiny", TINY)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def restored_logging():
    """Undo the logging configuration of the command line, which lasts as long as its process."""
    logger = logging.getLogger("qma_net")
    handlers, level = logger.handlers[:], logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.fixture
def shared():
    """Return a function that finds a file of the shared data, or skips the test without it."""

    def find(relative: str) -> Path:
        path = SHARED / relative
        if not path.exists():
            pytest.skip(
                f"{path} does not exist; set QMA_NET_SHARED to the folder of the shared data"
            )
        return path

    return find


@pytest.fixture
def record():
    """Return a function that adds a line to the summary of ``shell/endurance.sh``."""

    def add(line: str) -> None:
        if file := os.environ.get("QMA_NET_RECORD"):
            with open(file, "a", encoding="utf-8") as summary:
                summary.write(line + "\n")

    return add


@pytest.fixture
def build_tiny():
    """Return a function that builds a small model with random weights, without warnings."""

    def build_one(size="tiny", **options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return build.build_qma_net(size, **{"views": "srm,bayar", "drop_path": 0.0, **options})

    return build_one


def published_noiseprint(seed: int = 0) -> torch.nn.Sequential:
    """Build a DnCNN in the published layout of NoisePrint++, with random batch norms."""
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
    """Write a file like the published noiseprint++.th, with random weights."""
    path = tmp_path / "noiseprint.th"
    torch.save({"network": published_noiseprint().state_dict(), "global_step": 1}, path)
    return path


@contextmanager
def cpu_at_most(seconds: float):
    """Assert that the block takes at most this CPU time, which other processes hardly change."""
    start = time.process_time()
    yield
    assert time.process_time() - start < seconds


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Create a smooth RGB image with some noise, uint8 of shape (height, width, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 16
    phases = rng.uniform(0, 6, (3, 2))
    waves = [np.sin(y + a) + np.cos(x + b) for a, b in phases]
    noise = rng.normal(0, 6, (height, width, 3))
    return np.clip(128 + 40 * np.stack(waves, axis=-1) + noise, 0, 255).astype(np.uint8)

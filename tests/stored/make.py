"""Create the stored checkpoint of the current architecture, once per architecture.

    PYTHONPATH=tests python tests/stored/make.py

``architecture-N/`` holds the same model as a checkpoint of BenCo's trainer and as written by
save_pretrained; ``architecture-N.json`` is its mask of a synthetic photo. Existing files are never
replaced, because they represent the files that users have.
"""

import argparse
import json
import lzma
import sys
import warnings
from pathlib import Path

import torch

from conftest import photograph
from qma_net.inference.predictor import QMANetPredictor
from qma_net.modeling import config
from qma_net.modeling.config import ARCHITECTURE, QMANetConfig
from qma_net.modeling.qma_net import QMANetModel
from qma_net.weights.checkpoint import (
    CONFIG_KEY,
    NETWORK_PREFIX,
    config_to_extra_state,
    load_checkpoint,
)

HERE = Path(__file__).parent
SMALL = ((8, 16, 40, 64), (1, 1, 1, 1))
PATTERN = 509  # The weights repeat after this many values, so that the file compresses well.
SIDE = 64


def blocks(mask) -> list[list[float]]:
    """Return the means of a mask's blocks of 8x8 pixels."""
    means = mask.reshape(SIDE // 8, 8, SIDE // 8, 8).mean(axis=(1, 3))
    return [[round(float(value), 6) for value in row] for row in means]


def main() -> None:
    folder = HERE / f"architecture-{ARCHITECTURE}"
    if folder.exists():
        sys.exit(f"{folder} exists and must not change: users have such files")
    warnings.simplefilter("ignore")
    config.SIZES["small"] = SMALL
    torch.manual_seed(0)
    model = QMANetModel.from_config(QMANetConfig(size="small", views="srm,bayar")).eval()
    values = (torch.randn(PATTERN).clamp(-3, 3) * 4).round() / 4
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                pattern = values.repeat(-(-parameter.numel() // PATTERN))[: parameter.numel()]
                scale = 2.0 ** parameter.std().log2().round()
                parameter.copy_(pattern.view(parameter.shape) * scale)
    state = {
        f"{NETWORK_PREFIX}{name}": tensor.contiguous()
        for name, tensor in model.state_dict().items()
    }
    content = {
        "model": state | {CONFIG_KEY: config_to_extra_state(model.config)},
        "optimizer": {},
        "epoch": 3,
        "scaler": {},
        "args": argparse.Namespace(image_size=SIDE, if_resizing=True, if_padding=False),
    }
    folder.mkdir()
    file = folder / "checkpoint-3.pth"
    torch.save(content, file)
    model = load_checkpoint(file)
    model.save_pretrained(folder)
    mask = QMANetPredictor(model).predict(photograph(SIDE, SIDE, 0)).mask
    (HERE / f"{folder.name}.json").write_text(json.dumps(blocks(mask)) + "\n")
    for large in (file, folder / "model.safetensors"):
        large.with_name(f"{large.name}.xz").write_bytes(lzma.compress(large.read_bytes(), preset=9))
        large.unlink()
    (folder / "README.md").unlink()


if __name__ == "__main__":
    main()

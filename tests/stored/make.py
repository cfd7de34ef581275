"""Makes the stored checkpoints of this version's architecture, once.

    PYTHONPATH=tests python tests/stored/make.py

``architecture-N.pth.xz`` is a checkpoint of BenCo's trainer, ``architecture-N/`` the same model by
save_pretrained, ``architecture-N.json`` its answer to a photograph. A file that is there is never
made again: it stands for what users have.
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
PATTERN = 509  # weights repeat after so many and are few, so that the file packs well
SIDE = 64


def blocks(mask) -> list[list[float]]:
    """Means of a mask's 8x8 pixel blocks."""
    means = mask.reshape(SIDE // 8, 8, SIDE // 8, 8).mean(axis=(1, 3))
    return [[round(float(value), 6) for value in row] for row in means]


def main() -> None:
    place = HERE / f"architecture-{ARCHITECTURE}"
    if place.exists():
        sys.exit(f"{place} is there: it stands for what users have")
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
    place.mkdir()
    file = place / "checkpoint-3.pth"
    torch.save(content, file)
    model = load_checkpoint(file)
    model.save_pretrained(place)
    answer = QMANetPredictor(model).predict(photograph(SIDE, SIDE, 0)).mask
    (HERE / f"{place.name}.json").write_text(json.dumps(blocks(answer)) + "\n")
    for large in (file, place / "model.safetensors"):
        large.with_name(f"{large.name}.xz").write_bytes(lzma.compress(large.read_bytes(), preset=9))
        large.unlink()
    (place / "README.md").unlink()


if __name__ == "__main__":
    main()

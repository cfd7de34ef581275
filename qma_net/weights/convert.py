"""Conversion of a checkpoint to a ``save_pretrained`` directory."""

import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..core.files import ContentError, atomic_write, read_json_object
from ..modeling.config import QMANetConfig
from ..modeling.hub import CALIBRATION_NAME, CONFIG_NAME, PREPROCESSOR_NAME, WEIGHTS_FILE
from ..modeling.qma_net import QMANetModel
from ..modeling.state import WeightsError, require_tensors
from .locate import load_model
from .reading import read_checkpoint, unwrap_state


def convert(source: str | os.PathLike[str], out: str | os.PathLike[str]) -> None:
    """Convert any source that :func:`.load_model` accepts to a ``save_pretrained`` directory.

    Raises:
        WeightsError: If the source cannot be read, or if ``out`` contains other files that would be
            overwritten. An earlier QMA-Net there is replaced.
    """
    model, folder = load_model(source), Path(out)
    names = (CONFIG_NAME, WEIGHTS_FILE, PREPROCESSOR_NAME, CALIBRATION_NAME)
    existing = [name for name in names if (folder / name).exists()]
    if existing and not _is_qma_net(folder, model):
        raise WeightsError(
            f"{folder} contains {existing[0]}, which does not belong to a QMA-Net and would be "
            "overwritten; choose a different folder"
        )
    model.save_pretrained(folder)


def write_state_dict(source: str | os.PathLike[str], out: str | os.PathLike[str]) -> None:
    """Write the weights of a checkpoint of any model as a bare state dict.

    BenCo's TruFor reads such a file in its third phase of training.

    Raises:
        WeightsError: If the source cannot be read or is not a checkpoint.
    """
    state = unwrap_state(read_checkpoint(source, mapped=True))
    require_tensors(state, f"{source} (checkpoint)")
    with atomic_write(out) as temporary:
        torch.save(dict(state), temporary)


def _is_qma_net(folder: Path, model: QMANetModel) -> bool:
    try:
        if (folder / CONFIG_NAME).exists():
            config = read_json_object(folder / CONFIG_NAME, "a configuration")
            return set(QMANetConfig.required_names()) <= config.keys()
        # An interrupted run can leave the weights without a configuration.
        with safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
            return set(file.keys()) == model.state_dict().keys()
    except (ContentError, OSError, SafetensorError):
        return False

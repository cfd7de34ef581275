"""Description of weight files, as printed by ``qma-net weights FILE``."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..core.files import read_json_object, sha256
from ..modeling.backbone import FOREIGN_HEADS, MiT, remap_official
from ..modeling.config import SIZES
from ..modeling.hub import CONFIG_NAME, WEIGHTS_FILE
from ..modeling.noise import NoisePrint
from ..modeling.qma_net import QMANetModel
from ..modeling.state import WeightsError, load_strictly, require_tensors
from .checkpoint import CONFIG_KEY, Checkpoint
from .locate import load_model, newest_checkpoint
from .reading import read_checkpoint, unwrap_state
from .sources import NOISEPRINT_SHA256, PUBLISHED, mit_state, noiseprint_from_published

HUGGING_FACE_FILES = (WEIGHTS_FILE, "pytorch_model.bin")  # In a folder with a config.json.


def describe(path: str | os.PathLike[str]) -> str:
    """Return a one-line description of weights, after checking that they are complete.

    Args:
        path: A file of weights, a folder of checkpoints (the newest is described), or a folder
            written by ``save_pretrained``, with QMA-Net or with Hugging Face's SegFormer.

    Raises:
        WeightsError: If QMA-Net cannot use the weights.
        ContentError: If the configuration in a folder cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        newest = newest_checkpoint(path)
        return describe(newest) if newest else _describe_saved(path, path)
    if path.is_file() and path.name in HUGGING_FACE_FILES:
        return _describe_saved(path, path.parent)
    content = read_checkpoint(path)
    state = unwrap_state(content)
    if CONFIG_KEY in state:
        checkpoint = Checkpoint.from_content(content, path)
        return f"{path}: a complete QMA-Net checkpoint ({_facts(checkpoint.build())})"
    require_tensors(state, str(path))
    if "patch_embed1.proj.weight" in state:
        return f"{path}: complete MiT-{_mit_size(remap_official(state), path)}"
    load_strictly(NoisePrint(), noiseprint_from_published(state, path), f"{path} (NoisePrint++)")
    published = sha256(path) == NOISEPRINT_SHA256
    checksum = "SHA-256 as published" if published else "SHA-256 differs from the published file's"
    return f"{path}: a complete NoisePrint++ ({checksum})"


def _describe_saved(path: Path, folder: Path) -> str:
    """Describe a folder written by ``save_pretrained``, or the weights file ``path`` in it."""
    config = folder / CONFIG_NAME
    if path.is_file() and not config.is_file():
        raise WeightsError(f"{path} cannot be used without the {CONFIG_NAME} of its folder; add it")
    if config.is_file() and "hidden_sizes" in read_json_object(config, "a configuration"):
        size = _mit_size(mit_state(folder), folder)
        return f"{path}: complete MiT-{size}; pass the folder as --backbone_weights"
    files = [item.name for item in PUBLISHED if (folder / item.name).is_file()]
    if files and not config.is_file():
        raise WeightsError(
            f"{folder} has no {CONFIG_NAME}, but contains {', '.join(files)}; pass the path of a "
            "file, not of the folder"
        )
    return f"{path}: a complete QMA-Net ({_facts(load_model(folder))})"


def _facts(model: QMANetModel) -> str:
    """Describe a model by its flags, the preprocessing in training, and its notice for users."""
    facts = [" ".join(model.config.as_flags())]
    if model.preprocessing:
        facts.append(f"images {model.preprocessing}")
    if model.about:
        facts.append(model.about)
    return "; ".join(facts)


def _mit_size(state: Mapping[str, Tensor], path: str | os.PathLike[str]) -> str:
    shapes = {name: tensor.shape for name, tensor in state.items()}
    with torch.device("meta"):
        for size in SIZES:
            expected = MiT(*SIZES[size], drop_path=0.0).state_dict()
            if shapes == {name: tensor.shape for name, tensor in expected.items()}:
                return f"{size.upper()} weights (--size {size})"
    raise WeightsError(
        f"{path} is not a complete MiT: its {len(shapes)} tensors do not match "
        f"any of {', '.join(SIZES)} (ignoring the heads {', '.join(FOREIGN_HEADS)}); download it "
        "again"
    )

"""Description of weight files, as printed by ``qma-net weights FILE``."""

import os
from collections.abc import Mapping

import torch
from torch import Tensor

from ..modeling.backbone import FOREIGN_HEADS, MiT, remap_official
from ..modeling.config import SIZES
from ..modeling.noise import NoisePrint
from ..modeling.state import WeightsError, load_strictly, require_tensors
from .checkpoint import CONFIG_KEY, Checkpoint
from .reading import read_checkpoint, sha256, unwrap_state
from .sources import NOISEPRINT_SHA256, noiseprint_from_published


def describe(path: str | os.PathLike[str]) -> str:
    """Return one line on the content of a weights file, after checking that it is complete.

    Raises:
        WeightsError: If QMA-Net cannot use the file.
    """
    content = read_checkpoint(path)
    state = unwrap_state(content)
    if CONFIG_KEY in state:
        checkpoint = Checkpoint.from_content(content, path)
        checkpoint.build()
        facts = [" ".join(checkpoint.config.as_flags())]
        if checkpoint.preprocessing:
            facts.append(f"images {checkpoint.preprocessing}")
        if checkpoint.about:
            facts.append(checkpoint.about)
        return f"{path}: a complete QMA-Net checkpoint ({'; '.join(facts)})"
    require_tensors(state, str(path))
    if "patch_embed1.proj.weight" in state:
        return f"{path}: complete MiT-{_mit_size(remap_official(state), path)}"
    load_strictly(NoisePrint(), noiseprint_from_published(state, path), f"{path} (NoisePrint++)")
    published = sha256(path) == NOISEPRINT_SHA256
    checksum = "SHA-256 as published" if published else "SHA-256 differs from the published file's"
    return f"{path}: a complete NoisePrint++ ({checksum})"


def _mit_size(state: Mapping[str, Tensor], path: str | os.PathLike[str]) -> str:
    shapes = {name: tensor.shape for name, tensor in state.items()}
    with torch.device("meta"):
        for size in SIZES:
            expected = MiT(*SIZES[size], drop_path=0.0).state_dict()
            if shapes == {name: tensor.shape for name, tensor in expected.items()}:
                return f"{size.upper()} weights (--size {size})"
    raise WeightsError(
        f"{path} is not a complete MiT: its {len(shapes)} tensors match none of "
        f"{', '.join(SIZES)} (ignoring the heads {', '.join(FOREIGN_HEADS)}); download it again"
    )

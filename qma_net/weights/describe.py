"""What ``qma-net weights FILE`` says."""

import os
from collections.abc import Mapping

import torch
from torch import Tensor

from ..modeling.backbone import FOREIGN_HEADS, MiT, remap_official
from ..modeling.config import SIZES
from ..modeling.noise import NoisePrint
from ..modeling.state import WeightsError, load_strictly, require_tensors
from .checkpoint import CONFIG_KEY, Checkpoint
from .reading import read_checkpoint, sha256, state_in
from .sources import NOISEPRINT_SHA256, noiseprint_of


def describe(path: str | os.PathLike) -> str:
    """What a file of weights is and whether it fits, in one line.

    Raises:
        WeightsError: when it is nothing that QMA-Net can use.
    """
    content = read_checkpoint(path)
    state = state_in(content)
    if CONFIG_KEY in state:
        checkpoint = Checkpoint.of(content, path)
        checkpoint.build()
        facts = [" ".join(checkpoint.config.as_flags())]
        facts += [f"photographs {checkpoint.preprocessing}"] if checkpoint.preprocessing else []
        facts += [checkpoint.about] if checkpoint.about else []
        return f"{path}: a complete QMA-Net checkpoint ({'; '.join(facts)})"
    require_tensors(state, str(path))
    if "patch_embed1.proj.weight" in state:
        return f"{path}: {_describe_mit(remap_official(state), path)}"
    load_strictly(NoisePrint(), noiseprint_of(state, path), f"{path} (NoisePrint++)")
    published = sha256(path) == NOISEPRINT_SHA256
    seal = "SHA-256 as published" if published else "SHA-256 differs from the published file's"
    return f"{path}: a complete NoisePrint++ ({seal})"


def _describe_mit(state: Mapping[str, Tensor], path: str | os.PathLike) -> str:
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    with torch.device("meta"):
        for size in SIZES:
            expected = MiT(*SIZES[size], drop_path=0.0).state_dict()
            if shapes == {name: tuple(tensor.shape) for name, tensor in expected.items()}:
                return f"complete MiT-{size.upper()} weights (--size {size})"
    raise WeightsError(
        f"got {path} with {len(shapes)} tensors in MiT naming, expected those of one of "
        f"{', '.join(SIZES)} (heads {', '.join(FOREIGN_HEADS)} are left out): is it complete?"
    )

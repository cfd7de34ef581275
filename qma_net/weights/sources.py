"""Weights that others publish: who, on what terms, and how they are read."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..modeling.backbone import remap_official
from ..modeling.config import SIZES
from ..modeling.noise import NoisePrint, fold_noiseprint
from ..modeling.qma_net import QMANetModel
from ..modeling.state import WeightsError, load_strictly, require_tensors
from .reading import read_state

NOISEPRINT_SHA256 = "51c153596efecdfc9bdff1b961d63855b943e6a8fd37083cc7499e60b36dd8bf"
NOISEPRINT_SOURCE = (
    "github.com/grip-unina/TruFor, TruFor_train_test/pretrained_models/noiseprint++/noiseprint++.th"
)

NOISEPRINT_MISSING = (
    "got the noiseprint view without noiseprint_weights: give the path of noiseprint++.th "
    f"(published in {NOISEPRINT_SOURCE}; nonprofit research use), "
    'or go without it: views="srm,bayar"'
)


@dataclass(frozen=True)
class PublishedWeights:
    """One set of weights that others publish."""

    name: str
    purpose: str
    source: str
    terms: str
    sha256: str = ""


PUBLISHED = (
    PublishedWeights(
        "noiseprint++.th",
        "NoisePrint++ view (--noiseprint_weights)",
        NOISEPRINT_SOURCE,
        "GRIP-UNINA licence of TruFor: nonprofit research, keep the notice, credit the authors",
        NOISEPRINT_SHA256,
    ),
    *(
        PublishedWeights(
            f"mit_{size}.pth",
            f"ImageNet backbones of --size {size} (--backbone_weights)",
            f"huggingface.co/nvidia/mit-{size} (give the id nvidia/mit-{size}, or its folder), or "
            f"mit_{size}.pth from the links in github.com/NVlabs/SegFormer",
            "NVIDIA Source Code License for SegFormer: non-commercial research and evaluation",
        )
        for size in SIZES
    ),
)


# --- NoisePrint++ -------------------------------------------------------------------------


def noiseprint_state(path: str | os.PathLike) -> dict[str, Tensor]:
    """State of :class:`NoisePrint` from a file; see :func:`noiseprint_of`."""
    return noiseprint_of(read_state(path), path)


def noiseprint_of(published: Mapping[str, Tensor], path: str | os.PathLike) -> dict[str, Tensor]:
    """State of :class:`NoisePrint` from the published file's, a bare state dict, or TruFor's.

    Raises:
        WeightsError: when what ``path`` holds is no NoisePrint++.
    """
    require_tensors(published, f"{path} (NoisePrint++)")
    content = {name.removeprefix("module."): value for name, value in published.items()}
    for prefix in ("dncnn.", "layers."):  # inside TruFor; BenCo's DnCNN wraps the sequence
        if any(name.startswith(prefix) for name in content):
            content = {
                name.removeprefix(prefix): value
                for name, value in content.items()
                if name.startswith(prefix)
            }
    try:
        return fold_noiseprint(content)
    except KeyError as error:
        raise WeightsError(
            f"got {path} without tensor {error}, expected NoisePrint++ (17 convolutions, batch "
            f"norms unfolded) as published in {NOISEPRINT_SOURCE}"
        ) from error


def load_noiseprint(noiseprint: NoisePrint, path: str | os.PathLike) -> None:
    """Loads and folds the published NoisePrint++; see :func:`noiseprint_state`."""
    load_strictly(noiseprint, noiseprint_state(path), f"{path} (NoisePrint++)")


# --- MiT ----------------------------------------------------------------------------------


def mit_state(source: str | os.PathLike) -> dict[str, Tensor]:
    """State of :class:`MiT` from an official file, a Hugging Face directory, or an id.

    Raises:
        WeightsError: when the source is none of these.
    """
    source = str(source)
    if os.path.isfile(source):
        state = read_state(source)
        require_tensors(state, f"{source} (backbone weights)")
        return remap_official(state)
    is_id = re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not re.search(
        r"\.(pth|pt|th|bin|safetensors)$", source
    )
    if not (os.path.isdir(source) or is_id):
        raise WeightsError(
            f"got backbone_weights={source!r}, expected an official mit_bX.pth file, a Hugging "
            "Face directory, or an id such as nvidia/mit-b3: there is no such file"
        )
    return _hugging_face_state(source)


def _hugging_face_state(source: str) -> dict[str, Tensor]:
    from transformers import SegformerModel

    try:
        model, report = SegformerModel.from_pretrained(source, output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"got backbone_weights={source!r}, expected a directory or hub id that holds a "
            f"SegFormer ({type(error).__name__}: {str(error).strip().splitlines()[0][:200]})"
        ) from error
    faults = sorted(report["missing_keys"]) + [str(key) for key in report["mismatched_keys"]]
    if faults:
        raise WeightsError(
            f"got {source!r} with {len(faults)} of the encoder's tensors missing or of another "
            f"shape (first: {faults[0]}), expected a complete SegFormer encoder"
        )
    return model.state_dict()


def load_backbones(model: QMANetModel, size: str, source: str | os.PathLike) -> None:
    """Starts both backbones from the same ImageNet weights (paper, section 3.2).

    Raises:
        WeightsError: when they are not there, or are of another size.
    """
    state = mit_state(source)
    for backbone in (model.rgb_backbone, model.noise_backbone):
        load_strictly(backbone, state, f"{source} (backbone weights for --size {size})")

"""Published weights of NoisePrint++ and SegFormer: sources, terms, conversion and loading."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..core.errors import first_line
from ..modeling.backbone import remap_official
from ..modeling.config import SIZES
from ..modeling.noise import NoisePrint, fold_noiseprint
from ..modeling.qma_net import QMANetModel
from ..modeling.state import WeightsError, load_strictly, require_tensors
from .reading import is_hub_id, read_state

NOISEPRINT_SHA256 = "51c153596efecdfc9bdff1b961d63855b943e6a8fd37083cc7499e60b36dd8bf"
NOISEPRINT_SOURCE = (
    "github.com/grip-unina/TruFor, TruFor_train_test/pretrained_models/noiseprint++/noiseprint++.th"
)


@dataclass(frozen=True)
class PublishedWeights:
    """Weights published by other projects."""

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
        "GRIP-UNINA license of TruFor: nonprofit research, keep the notice, credit the authors",
        NOISEPRINT_SHA256,
    ),
    *(
        PublishedWeights(
            f"mit_{size}.pth",
            f"ImageNet encoders of --size {size} (--backbone_weights)",
            f"huggingface.co/nvidia/mit-{size} (pass the ID nvidia/mit-{size}, or its folder), or "
            f"mit_{size}.pth from the links in github.com/NVlabs/SegFormer",
            "NVIDIA Source Code License for SegFormer: non-commercial research and evaluation",
        )
        for size in SIZES
    ),
)


def noiseprint_state(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the published NoisePrint++; see :func:`noiseprint_from_published`."""
    return noiseprint_from_published(read_state(path), path)


def noiseprint_from_published(
    published: Mapping[str, Tensor], path: str | os.PathLike[str]
) -> dict[str, Tensor]:
    """Convert published tensors, of a bare DnCNN or of TruFor, to a :class:`NoisePrint` state.

    Raises:
        WeightsError: If they do not contain a complete NoisePrint++; the message names the path.
    """
    require_tensors(published, f"{path} (NoisePrint++)")
    state = {name.removeprefix("module."): tensor for name, tensor in published.items()}
    for prefix in ("dncnn.", "layers."):  # Prefixes used by TruFor and by BenCo's DnCNN.
        if any(name.startswith(prefix) for name in state):
            state = {
                name.removeprefix(prefix): tensor
                for name, tensor in state.items()
                if name.startswith(prefix)
            }
    try:
        return fold_noiseprint(state)
    except KeyError as error:
        raise WeightsError(
            f"{path} is not NoisePrint++ (17 convolutions, batch norms not folded): it has no "
            f"tensor {error}; download the published file, {NOISEPRINT_SOURCE}"
        ) from error


def load_noiseprint(noiseprint: NoisePrint, path: str | os.PathLike[str]) -> None:
    """Load the published NoisePrint++; see :func:`noiseprint_from_published`."""
    load_strictly(noiseprint, noiseprint_state(path), f"{path} (NoisePrint++)")


def mit_state(source: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a MiT's state from an official ``mit_bX.pth``, a Hugging Face folder or a Hub ID.

    Raises:
        WeightsError: If the source is none of these or is incomplete.
    """
    source = str(source)
    if os.path.isfile(source):
        state = read_state(source)
        require_tensors(state, f"{source} (encoder weights)")
        return remap_official(state)
    if not (os.path.isdir(source) or is_hub_id(source)):
        raise WeightsError(
            f"cannot find the encoder weights {source!r}; pass an official mit_bX.pth file, a "
            "Hugging Face folder, or a Hub ID such as nvidia/mit-b3"
        )
    return _hugging_face_state(source)


def _hugging_face_state(source: str) -> dict[str, Tensor]:
    from transformers import SegformerModel

    loaded: Any
    try:
        loaded = SegformerModel.from_pretrained(source, output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"cannot load a SegFormer from {source!r} ({type(error).__name__}: "
            f"{first_line(error)}); check the folder, or the Hub ID and the network"
        ) from error
    model, report = loaded
    faults = sorted(report["missing_keys"]) + [str(key) for key in report["mismatched_keys"]]
    if faults:
        raise WeightsError(
            f"{source!r} is not a complete SegFormer encoder: {len(faults)} tensors are missing "
            f"or have the wrong shape (first: {faults[0]}); download it again"
        )
    state: dict[str, Tensor] = model.state_dict()
    return state


def load_backbones(model: QMANetModel, source: str | os.PathLike[str]) -> None:
    """Load the same ImageNet weights into both encoders (section 3.2); see :func:`mit_state`.

    Raises:
        WeightsError: If the weights are missing or of the wrong size.
    """
    state = mit_state(source)
    for backbone in (model.rgb_backbone, model.noise_backbone):
        load_strictly(backbone, state, f"{source} (encoder weights for --size {model.config.size})")

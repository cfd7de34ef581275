"""Every file of weights enters here: read, remap, load strictly. And who publishes which."""

import hashlib
import json
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from . import __version__
from .build import SIZES, QMANetConfig, assemble
from .modeling.backbone import FOREIGN_HEADS, remap_official
from .modeling.noise import NoisePrint, fold_noiseprint
from .modeling.qma_net import QMANetModel

NOISEPRINT_SHA256 = "51c153596efecdfc9bdff1b961d63855b943e6a8fd37083cc7499e60b36dd8bf"
NOISEPRINT_SOURCE = (
    "github.com/grip-unina/TruFor, TruFor_train_test/pretrained_models/noiseprint++/noiseprint++.th"
)
NOISEPRINT_MISSING = (
    "got the noiseprint view without noiseprint_weights: give the path of noiseprint++.th "
    f"(published in {NOISEPRINT_SOURCE}; nonprofit research use), "
    'or go without it: views="srm,bayar"'
)

# Where a QMANetConfig stands in a state dict of the registered model (torch's own suffix),
# and where the network's own tensors stand.
CONFIG_KEY = "_extra_state"
NETWORK_PREFIX = "network."


class WeightsError(ValueError):
    """Weights that are missing, unreadable, foreign or of another size; one line says which."""


@dataclass(frozen=True)
class Published:
    """One set of weights that others publish."""

    name: str
    purpose: str
    source: str
    terms: str
    sha256: str = ""


PUBLISHED = (
    Published(
        "noiseprint++.th",
        "NoisePrint++ view (--noiseprint_weights)",
        NOISEPRINT_SOURCE,
        "GRIP-UNINA licence of TruFor: nonprofit research, keep the notice, credit the authors",
        NOISEPRINT_SHA256,
    ),
    *(
        Published(
            f"mit_{size}.pth",
            f"ImageNet backbones of --size {size} (--backbone_weights)",
            f"huggingface.co/nvidia/mit-{size} (give the id nvidia/mit-{size}, or its folder), or "
            f"mit_{size}.pth from the links in github.com/NVlabs/SegFormer",
            "NVIDIA Source Code License for SegFormer: non-commercial research and evaluation",
        )
        for size in SIZES
    ),
)


def read_checkpoint(path: str | os.PathLike) -> dict:
    """What a file of tensors holds, on the CPU. Nothing in it is executed.

    Files of BenCo's trainer also hold their ``argparse.Namespace``, which is allowed.

    Raises:
        WeightsError: when there is no such file, or it is truncated or not a PyTorch file.
    """
    import argparse

    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"got {path}, expected a file of weights: there is no such file")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise WeightsError(_unreadable(path, error)) from error
    if not isinstance(content, dict):
        raise WeightsError(
            f"got a {type(content).__name__} in {path}, expected a dictionary of tensors: "
            "is this the right file?"
        )
    return content


def read_state(path: str | os.PathLike) -> Mapping:
    """The state dict in a file, out of the container that its publisher put it in.

    Raises:
        WeightsError: see :func:`read_checkpoint`.
    """
    content = read_checkpoint(path)
    for container in ("network", "state_dict", "model"):
        if isinstance(content.get(container), Mapping):
            return content[container]
    return content


_UNREADABLE = (
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    ValueError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


def _unreadable(path: Path, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else "no content"
    return (
        f"got {path} ({path.stat().st_size:,} bytes), expected a complete PyTorch file of "
        f"weights: download or copy it again ({type(error).__name__}: {reason})"
    )


def sha256(path: str | os.PathLike) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Loads a state that must fit in every name and shape.

    Raises:
        WeightsError: naming what is missing, unknown or of another shape.
    """
    expected = module.state_dict()
    missing = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected]
    reshaped = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    faults = [
        f"{len(names)} {fault} (first: {names[0]})"
        for names, fault in (
            (missing, "missing"),
            (unknown, "unknown"),
            (reshaped, "of another shape"),
        )
        if names
    ]
    if faults:
        raise WeightsError(
            f"got {len(state)} tensors in {what}, expected the {len(expected)} of "
            f"{type(module).__name__}: {'; '.join(faults)}. Is it the right file and size?"
        )
    module.load_state_dict(state)


# --- NoisePrint++ -------------------------------------------------------------------------


def noiseprint_state(path: str | os.PathLike) -> dict[str, Tensor]:
    """State of :class:`NoisePrint` from the published file, a bare state dict, or TruFor.

    Raises:
        WeightsError: when the file holds no NoisePrint++.
    """
    content = read_state(path)
    content = {name.removeprefix("module."): value for name, value in content.items()}
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
        return remap_official(read_state(source))
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
    """Starts both backbones from the same ImageNet weights (SPEC 3.4).

    Raises:
        WeightsError: when they are not there, or are of another size.
    """
    state = mit_state(source)
    for backbone in (model.rgb_backbone, model.noise_backbone):
        load_strictly(backbone, state, f"{source} (backbone weights for --size {size})")


# --- checkpoints --------------------------------------------------------------------------


def checkpoint_config(path: str | os.PathLike) -> QMANetConfig:
    """The configuration that a checkpoint of BenCo's trainer carries.

    Raises:
        WeightsError: when it carries none; names the flags to give instead.
    """
    return _config_of(read_state(path), path)


def load_checkpoint(path: str | os.PathLike) -> QMANetModel:
    """Rebuilds the model of a checkpoint of BenCo's trainer; no flags are needed.

    Raises:
        WeightsError: when the file cannot be read, carries no configuration, or does not fit.
    """
    state = read_state(path)
    model = assemble(_config_of(state, path))
    load_strictly(model, _network_of(state), f"{path} (checkpoint)")
    return model


def load_into(model: QMANetModel, config: QMANetConfig, path: str | os.PathLike) -> None:
    """Starts a built model from a checkpoint (``--init_from``): weights only, no optimiser.

    Raises:
        WeightsError: when the checkpoint is of another architecture, naming the flags to give.
    """
    state = read_state(path)
    require_same_architecture(_config_of(state, path), config, f"checkpoint {path}")
    load_strictly(model, _network_of(state), f"{path} (checkpoint)")


def require_same_architecture(got: QMANetConfig, built: QMANetConfig, what: str) -> None:
    """Raises :class:`WeightsError` when two configurations differ in more than drop path."""
    differing = [
        name
        for name in QMANetConfig.names()
        if name != "drop_path" and getattr(got, name) != getattr(built, name)
    ]
    if differing:
        flags = " ".join(f"--{name} {getattr(got, name)}" for name in differing)
        mine = " ".join(f"--{name} {getattr(built, name)}" for name in differing)
        raise WeightsError(
            f"got a {what} of a model with {flags}, expected one with {mine}: give {flags}"
        )


def config_to_extra_state(config: QMANetConfig) -> Tensor:
    """A configuration as UTF-8 JSON in a uint8 tensor.

    A tensor, because tracing (fvcore, ONNX), safetensors and every tool that walks over a state
    dict expect nothing else in it.
    """
    text = json.dumps({"qma_net": __version__, "config": asdict(config)})
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def config_from_extra_state(extra: object, what: str) -> QMANetConfig:
    """The configuration in a state dict's extra state, checked.

    Raises:
        WeightsError: when it is not one; names the flags to give instead.
    """
    try:
        config = json.loads(bytes(extra.tolist()))["config"]
    except (AttributeError, TypeError, ValueError, KeyError):
        config = {}
    if set(config) != set(QMANetConfig.names()):
        flags = " ".join(f"--{name}" for name in QMANetConfig.names())
        raise WeightsError(
            f"got a {what} without the configuration of a QMANet, expected a checkpoint of "
            f"BenCo's trainer with --model QMANet: build the model with the flags it was trained "
            f"with ({flags}) and load the tensors into its network"
        )
    return QMANetConfig(**config)


def _config_of(state: Mapping, path: str | os.PathLike) -> QMANetConfig:
    return config_from_extra_state(state.get(CONFIG_KEY), f"checkpoint {path}")


def _network_of(state: Mapping) -> dict[str, Tensor]:
    return {
        name.removeprefix(NETWORK_PREFIX): tensor
        for name, tensor in state.items()
        if name != CONFIG_KEY
    }


# --- what `qma-net weights FILE` says -----------------------------------------------------


def describe(path: str | os.PathLike) -> str:
    """What a file of weights is and whether it fits, in one line.

    Raises:
        WeightsError: when it is nothing that QMA-Net can use.
    """
    state = read_state(path)
    if CONFIG_KEY in state:
        flags = " ".join(checkpoint_config(path).as_flags())
        load_checkpoint(path)
        return f"{path}: a complete QMA-Net checkpoint ({flags})"
    if "patch_embed1.proj.weight" in state:
        return f"{path}: {_describe_mit(path)}"
    load_noiseprint(NoisePrint(), path)
    published = sha256(path) == NOISEPRINT_SHA256
    seal = "SHA-256 as published" if published else "SHA-256 differs from the published file's"
    return f"{path}: a complete NoisePrint++ ({seal})"


def _describe_mit(path: str | os.PathLike) -> str:
    state = mit_state(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    with torch.device("meta"):
        for size in SIZES:
            expected = assemble(QMANetConfig(size=size, views="srm")).rgb_backbone.state_dict()
            if shapes == {name: tuple(tensor.shape) for name, tensor in expected.items()}:
                return f"complete MiT-{size.upper()} weights (--size {size})"
    raise WeightsError(
        f"got {path} with {len(shapes)} tensors in MiT naming, expected those of one of "
        f"{', '.join(SIZES)} (heads {', '.join(FOREIGN_HEADS)} are left out): is it complete?"
    )

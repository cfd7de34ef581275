"""Checkpoints written by BenCo's trainer: reading, checking and rebuilding the model."""

import argparse
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from .. import __version__
from ..core.files import to_json
from ..core.untrusted import MAX_ABOUT, one_line
from ..modeling.config import ARCHITECTURE, ConfigError, Preprocessing, QMANetConfig
from ..modeling.qma_net import QMANetModel
from ..modeling.state import (
    WeightsError,
    config_from_saved,
    load_strictly,
    loss_from_saved,
    require_tensors,
)
from .reading import read_checkpoint, unwrap_state

# Names in the state dict of the model that is registered with BenCo: the entry that holds the
# QMANetConfig and the flags of the loss (torch's suffix for extra state), and the prefix of the
# network's tensors.
CONFIG_KEY = "_extra_state"
NETWORK_PREFIX = "network."

MAX_CONFIG_BYTES = 2**16


@dataclass(frozen=True)
class Checkpoint:
    """Content of a checkpoint.

    Attributes:
        path: File of the checkpoint.
        config: Configuration of the model.
        network: Tensors of the model.
        preprocessing: How images were fed to it in training; None if unknown.
        about: Notice for users; see :class:`~qma_net.modeling.hub.HubModule`.
        loss: Flags of the loss in training; None if unknown.
    """

    path: Path
    config: QMANetConfig
    network: Mapping[str, Tensor]
    preprocessing: Preprocessing | None = None
    about: str = ""
    loss: Mapping[str, float] | None = None

    @classmethod
    def read(cls, path: str | os.PathLike[str], *, mapped: bool = False) -> Self:
        """Read a checkpoint file; if ``mapped``, the tensors stay in the file until they are used.

        Raises:
            WeightsError: If the file cannot be read or contains no configuration.
        """
        if Path(path).is_dir():
            raise WeightsError(
                f"{path} is a folder, not a checkpoint; load a folder written by save_pretrained "
                "with QMANetModel.from_pretrained or QMANetPredictor.from_pretrained"
            )
        return cls.from_content(read_checkpoint(path, mapped), path)

    @classmethod
    def from_content(cls, content: Mapping[Any, Any], path: str | os.PathLike[str]) -> Self:
        """Build from the content of a checkpoint file that has already been read.

        Raises:
            WeightsError: If it contains no valid configuration, or entries that are not tensors.
        """
        source = f"checkpoint {path}"
        state = unwrap_state(content)
        config = config_from_extra_state(state.get(CONFIG_KEY), source)
        require_tensors(state, source)
        about = one_line(content.get("about", ""), MAX_ABOUT)
        return cls(
            path=Path(path),
            config=config,
            network={
                name.removeprefix(NETWORK_PREFIX): tensor
                for name, tensor in state.items()
                if name != CONFIG_KEY
            },
            preprocessing=preprocessing_from_args(content.get("args")),
            about=about if isinstance(about, str) else "",
            loss=loss_from_saved(_read_extra_state(state[CONFIG_KEY]).get("loss")),
        )

    def build(self) -> QMANetModel:
        """Build the model with the checkpoint's weights.

        Raises:
            WeightsError: If the tensors do not match the configuration.
        """
        model = QMANetModel.from_config(self.config)
        load_strictly(model, self.network, f"{self.path} (checkpoint)")
        model.preprocessing, model.about, model.loss = self.preprocessing, self.about, self.loss
        model.weights_file = self.path
        return model

    def load_into(self, model: QMANetModel) -> None:
        """Load the weights into a model of the same architecture, to fine-tune it.

        Raises:
            WeightsError: If the architecture differs (the message names the flags to pass), or if
                the tensors do not match it.
        """
        require_same_architecture(self.config, model.config, f"checkpoint {self.path}")
        load_strictly(model, self.network, f"{self.path} (checkpoint)")


def load_checkpoint(path: str | os.PathLike[str]) -> QMANetModel:
    """Rebuild the model of a ``checkpoint-<epoch>.pth`` written by BenCo's trainer.

    Returns:
        The model on the CPU, in training mode.

    Raises:
        WeightsError: If the file cannot be read, contains no configuration or does not match it.
    """
    return Checkpoint.read(path).build()


def preprocessing_from_args(args: object) -> Preprocessing | None:
    """Derive the preprocessing, if possible, from the flags that BenCo's trainer stores."""
    flags = vars(args) if isinstance(args, argparse.Namespace) else {}
    if "image_size" not in flags:
        return None
    fit = "pad" if flags.get("if_padding") else "resize"
    try:
        return Preprocessing(image_size=flags["image_size"], fit=flags.get("fit", fit))
    except ConfigError:
        return None


def require_same_architecture(stored: QMANetConfig, built: QMANetConfig, source: str) -> None:
    """Check that the configurations of weights and of a model match.

    They may differ in drop path and in the initial scale of the DFCMs.

    Raises:
        WeightsError: If they differ; the message names ``source`` and the flags to pass.
    """
    differing = [
        name
        for name in QMANetConfig.field_names()
        if name not in ("drop_path", "dfcm_scale") and getattr(stored, name) != getattr(built, name)
    ]
    if differing:
        flags = " ".join(f"--{name} {getattr(stored, name)}" for name in differing)
        built_flags = " ".join(f"--{name} {getattr(built, name)}" for name in differing)
        raise WeightsError(
            f"{source} belongs to a model with {flags}, but this model has {built_flags}; "
            f"pass {flags}"
        )


def config_to_extra_state(config: QMANetConfig, loss: Mapping[str, float] | None = None) -> Tensor:
    """Encode a configuration, and the flags of the loss, as UTF-8 JSON in a uint8 tensor.

    It is a tensor because tracing (fvcore, ONNX), safetensors and other tools that process state
    dicts accept nothing else.
    """
    content = {"qma_net": __version__, "architecture": ARCHITECTURE, "config": asdict(config)}
    content |= {"loss": dict(loss)} if loss else {}
    return torch.tensor(list(to_json(content).encode()), dtype=torch.uint8)


def config_from_extra_state(extra: object, source: str) -> QMANetConfig:
    """Decode and check the configuration in :data:`CONFIG_KEY` of a state dict.

    Raises:
        WeightsError: If it is missing, invalid, or of a different version of the architecture.
    """
    content = _read_extra_state(extra)
    config: dict[str, Any] = {}
    with suppress(TypeError, ValueError, KeyError):
        config = dict(content["config"])
    names = QMANetConfig.field_names()
    if not set(QMANetConfig.required_names()) <= set(config) <= set(names):
        flags = " ".join(f"--{name}" for name in names)
        raise WeightsError(
            f"{source} contains no QMANet configuration; pass a checkpoint written by training "
            f"with --model QMANet, or build the model with the flags used in training ({flags}) "
            "and load the tensors into its network"
        )
    return config_from_saved({**content, **config}, source)


def _read_extra_state(extra: object) -> dict[str, Any]:
    """Decode the JSON object in :data:`CONFIG_KEY` of a state dict; return {} if it is invalid."""
    if (
        isinstance(extra, Tensor)
        and extra.dtype == torch.uint8
        and extra.dim() == 1
        and extra.numel() <= MAX_CONFIG_BYTES
    ):
        with suppress(ValueError, RuntimeError):
            content = json.loads(bytes(extra.tolist()))
            return content if isinstance(content, dict) else {}
    return {}

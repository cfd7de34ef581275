"""Checkpoints of QMA-Net: which model they hold, and that model rebuilt."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from .. import __version__
from ..modeling.config import ARCHITECTURE, QMANetConfig
from ..modeling.qma_net import QMANetModel
from ..modeling.state import WeightsError, load_strictly, require_this_architecture
from .reading import read_state

# Where a QMANetConfig stands in a state dict of the registered model (torch's own suffix),
# and where the network's own tensors stand.
CONFIG_KEY = "_extra_state"
NETWORK_PREFIX = "network."


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of BenCo's trainer, read once: its configuration and the network's tensors."""

    path: Path
    config: QMANetConfig
    network: Mapping[str, Tensor]

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Checkpoint":
        """Reads a file; see :meth:`of` for what must be in it."""
        return cls.of(read_state(path), path)

    @classmethod
    def of(cls, state: Mapping, path: str | os.PathLike) -> "Checkpoint":
        """The checkpoint that a state dict from ``path`` is.

        Raises:
            WeightsError: when it carries no configuration; names the flags to give instead.
        """
        config = config_from_extra_state(state.get(CONFIG_KEY), f"checkpoint {path}")
        network = {
            name.removeprefix(NETWORK_PREFIX): tensor
            for name, tensor in state.items()
            if name != CONFIG_KEY
        }
        return cls(Path(path), config, network)

    def build(self) -> QMANetModel:
        """The model that it holds.

        Raises:
            WeightsError: when the tensors are not those of its configuration.
        """
        model = QMANetModel.from_config(self.config)
        load_strictly(model, self.network, f"{self.path} (checkpoint)")
        return model

    def load_into(self, model: QMANetModel) -> None:
        """Starts a built model from it (``--init_from``): weights only, no optimiser.

        Raises:
            WeightsError: when it is of another architecture, naming the flags to give.
        """
        require_same_architecture(self.config, model.config, f"checkpoint {self.path}")
        load_strictly(model, self.network, f"{self.path} (checkpoint)")


def load_checkpoint(path: str | os.PathLike) -> QMANetModel:
    """Rebuilds the model of a checkpoint of BenCo's trainer; no flags are needed.

    Raises:
        WeightsError: when the file cannot be read, carries no configuration, or does not fit.
    """
    return Checkpoint.read(path).build()


def load_model(path: str | os.PathLike) -> QMANetModel:
    """A model from a checkpoint, a directory of ``save_pretrained`` or a hub id.

    Raises:
        WeightsError: for anything else.
    """
    if Path(path).is_file():
        return load_checkpoint(path)
    if Path(path).is_dir() or str(path).count("/") == 1:
        try:
            return QMANetModel.from_pretrained(str(path))
        except (OSError, ValueError) as error:
            if isinstance(error, WeightsError):
                raise
            reason = str(error).strip().splitlines()[0]
            raise WeightsError(
                f"got {path}, expected a checkpoint, a directory of save_pretrained or a hub id: "
                f"{reason}"
            ) from None
    raise WeightsError(
        f"got {path}, expected a checkpoint, a directory of save_pretrained or a hub id "
        "(owner/name): there is no such file"
    )


def checkpoint_config(path: str | os.PathLike) -> QMANetConfig:
    """The configuration that a checkpoint carries; the file is mapped, no other tensor is read.

    Raises:
        WeightsError: see :meth:`Checkpoint.of`.
    """
    return Checkpoint.of(read_state(path, mapped=True), path).config


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
    content = {"qma_net": __version__, "architecture": ARCHITECTURE, "config": asdict(config)}
    text = json.dumps(content)
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def config_from_extra_state(extra: object, what: str) -> QMANetConfig:
    """The configuration in a state dict's extra state, checked.

    Raises:
        WeightsError: when it is not one (names the flags to give instead), or of another version
            of the architecture.
    """
    try:
        content = json.loads(bytes(extra.tolist()))
        config = content["config"]
    except (AttributeError, TypeError, ValueError, KeyError):
        content, config = {}, {}
    if set(config) != set(QMANetConfig.names()):
        flags = " ".join(f"--{name}" for name in QMANetConfig.names())
        raise WeightsError(
            f"got a {what} without the configuration of a QMANet, expected a checkpoint of "
            f"BenCo's trainer with --model QMANet: build the model with the flags it was trained "
            f"with ({flags}) and load the tensors into its network"
        )
    require_this_architecture(content, what)
    return QMANetConfig(**config)

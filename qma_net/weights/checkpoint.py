"""Checkpoints of QMA-Net: which model they hold, and that model rebuilt."""

import argparse
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from .. import __version__
from ..modeling.config import ARCHITECTURE, ConfigError, Preprocessing, QMANetConfig
from ..modeling.qma_net import QMANetModel
from ..modeling.state import WeightsError, load_strictly, require_tensors, require_this_architecture
from .reading import read_checkpoint, state_in

# Where a QMANetConfig stands in a state dict of the registered model (torch's own suffix),
# and where the network's own tensors stand.
CONFIG_KEY = "_extra_state"
NETWORK_PREFIX = "network."
LONGEST_CONFIG = 2**16  # bytes


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, read once.

    Attributes:
        path: where its weights were.
        config: of the model.
        network: the model's tensors.
        preprocessing: how photographs reached it in training; None where the file does not say.
        about: what its user must know; see :class:`~qma_net.modeling.qma_net.QMANetModel`.
    """

    path: Path
    config: QMANetConfig
    network: Mapping[str, Tensor]
    preprocessing: Preprocessing | None = None
    about: str = ""

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Checkpoint":
        """Reads a file; see :meth:`of` for what must be in it."""
        return cls.of(read_checkpoint(path), path)

    @classmethod
    def of(cls, content: Mapping, path: str | os.PathLike) -> "Checkpoint":
        """The checkpoint that the content of the file ``path`` is.

        Raises:
            WeightsError: when it carries no configuration; names the flags to give instead.
        """
        state = state_in(content)
        config = config_from_extra_state(state.get(CONFIG_KEY), f"checkpoint {path}")
        require_tensors(state, f"checkpoint {path}")
        network = {
            name.removeprefix(NETWORK_PREFIX): tensor
            for name, tensor in state.items()
            if name != CONFIG_KEY
        }
        about = content.get("about", "")
        return cls(
            path=Path(path),
            config=config,
            network=network,
            preprocessing=preprocessing_in(content.get("args")),
            about=about if isinstance(about, str) else "",
        )

    def build(self) -> QMANetModel:
        """The model that it holds.

        Raises:
            WeightsError: when the tensors are not those of its configuration.
        """
        model = QMANetModel.from_config(self.config)
        load_strictly(model, self.network, f"{self.path} (checkpoint)")
        model.preprocessing, model.about = self.preprocessing, self.about
        model.weights_file = self.path
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


def mapped_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """A checkpoint whose tensors stay in the file: for what it says of itself.

    Raises:
        WeightsError: see :meth:`Checkpoint.of`.
    """
    return Checkpoint.of(read_checkpoint(path, mapped=True), path)


def checkpoint_config(path: str | os.PathLike) -> QMANetConfig:
    """The configuration that a checkpoint carries; see :func:`mapped_checkpoint`."""
    return mapped_checkpoint(path).config


def preprocessing_in(args: object) -> Preprocessing | None:
    """What the flags say that BenCo's trainer keeps in a checkpoint; None where they do not."""
    flags = vars(args) if isinstance(args, argparse.Namespace) else {}
    if "image_size" not in flags:
        return None
    fit = "pad" if flags.get("if_padding") else "resize"
    try:
        return Preprocessing(image_size=flags["image_size"], fit=flags.get("fit", fit))
    except ConfigError:
        return None


def require_same_architecture(got: QMANetConfig, built: QMANetConfig, what: str) -> None:
    """Raises :class:`WeightsError` when two configurations differ in more than drop path."""
    differing = [
        name
        for name in QMANetConfig.field_names()
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
        readable = (
            extra.dtype == torch.uint8 and extra.dim() == 1 and extra.numel() <= LONGEST_CONFIG
        )
        content = json.loads(bytes(extra.tolist())) if readable else {}
        config = dict(content["config"])
    except (AttributeError, TypeError, ValueError, KeyError, RecursionError):
        content, config = {}, {}
    if set(config) != set(QMANetConfig.field_names()):
        flags = " ".join(f"--{name}" for name in QMANetConfig.field_names())
        raise WeightsError(
            f"got a {what} without the configuration of a QMANet, expected a checkpoint of "
            f"BenCo's trainer with --model QMANet: build the model with the flags it was trained "
            f"with ({flags}) and load the tensors into its network"
        )
    require_this_architecture(content, what)
    try:
        return QMANetConfig(**config)
    except ConfigError as error:
        raise WeightsError(f"got a {what} of no QMA-Net: {error}") from None

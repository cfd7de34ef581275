"""Loading a model from a file, a folder of checkpoints, a saved directory or the Hub."""

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from huggingface_hub import constants

from ..core.errors import QMANetError, first_line
from ..core.files import read_json_object
from ..modeling import hub
from ..modeling.config import Preprocessing, QMANetConfig
from ..modeling.hub import CONFIG_NAME, WEIGHTS_FILE
from ..modeling.qma_net import QMANetModel
from ..modeling.state import WeightsError
from .checkpoint import Checkpoint, load_checkpoint
from .names import SMALL
from .reading import is_hub_id

T = TypeVar("T")

SOURCES = (
    "pass a checkpoint, a folder written by save_pretrained or a Hugging Face Hub ID (owner/name)"
)


def load_model(path: str | os.PathLike[str]) -> QMANetModel:
    """Load a model from any supported source.

    Args:
        path: One of

            - a checkpoint written by BenCo's trainer, or a folder of them (the newest is used);
            - a folder written by ``save_pretrained``, or the weights file in it;
            - a Hugging Face Hub ID;
            - ``"qma-net-small"``, the model included in the package.

    Returns:
        The model on the CPU.

    Raises:
        WeightsError: If there is no such source or its content is invalid.
    """
    return _read(Path(path), load_checkpoint, QMANetModel.from_pretrained)


def read_config(path: str | os.PathLike[str]) -> QMANetConfig:
    """Read the configuration of a source, as for :func:`load_model`, without building the model.

    Raises:
        WeightsError: If there is no such source or its content is invalid.
    """
    return _read(
        Path(path), lambda file: Checkpoint.read(file, mapped=True).config, hub.read_config
    )


def read_preprocessing(path: str | os.PathLike[str]) -> Preprocessing | None:
    """Read the preprocessing of a source, as for :func:`load_model`, if it is known.

    Raises:
        WeightsError: If there is no such source or its content is invalid.
    """
    return _read(
        Path(path),
        lambda file: Checkpoint.read(file, mapped=True).preprocessing,
        hub.read_preprocessing,
    )


def _read(path: Path, read_checkpoint: Callable[[Path], T], read_saved: Callable[..., T]) -> T:
    """Find a source, and read it as a checkpoint or as a saved model."""
    if path.is_file():
        is_saved = path.name == WEIGHTS_FILE
        return _saved(path.parent, read_saved) if is_saved else read_checkpoint(path)
    if path.is_dir():
        newest = newest_checkpoint(path)
        return read_checkpoint(newest) if newest else _saved(path, read_saved)
    if str(path) == SMALL:
        return _saved(Path(__file__).parent / SMALL, read_saved)
    if not is_hub_id(path.as_posix()):
        raise WeightsError(f"cannot find {path}; {SOURCES}")
    try:
        return _saved(path, read_saved, local_files_only=True)
    except WeightsError as error:
        if not _hub_is_reachable():
            raise WeightsError(
                f"cannot find {path}, and the Hugging Face Hub cannot be reached; {SOURCES}"
            ) from error
    return _saved(path, read_saved)


def read_source(source: str | os.PathLike[str], *, mapped: bool = False) -> Checkpoint:
    """Read a model to fine-tune, from any source that :func:`load_model` accepts.

    If ``mapped``, the tensors of a checkpoint file stay in it until they are used.

    Raises:
        WeightsError: If there is no such source or its content is invalid.
    """
    path = Path(source)
    newest = newest_checkpoint(path) if path.is_dir() else None
    if newest or (path.is_file() and path.name != WEIGHTS_FILE):
        return Checkpoint.read(newest or path, mapped=mapped)
    model = load_model(path)
    return Checkpoint(path, model.config, model.state_dict(), model.preprocessing, model.about)


def newest_checkpoint(folder: str | os.PathLike[str]) -> Path | None:
    """Return the ``checkpoint-<epoch>.pth`` of the highest epoch; None if there is none."""
    files = [file for file in Path(folder).glob("checkpoint-*.pth") if file.stem[11:].isdigit()]
    return max(files, key=lambda file: int(file.stem[11:]), default=None)


def _saved(source: Path, read: Callable[..., T], *, local_files_only: bool = False) -> T:
    config = source / CONFIG_NAME
    if source.is_dir() and not config.is_file():  # from_pretrained also logs a message of its own.
        raise WeightsError(
            f"{source} has no {CONFIG_NAME}; pass a directory written by save_pretrained, or "
            "convert a checkpoint with `qma-net convert`"
        )
    try:
        if config.is_file():  # from_pretrained crashes if its content is invalid.
            read_json_object(config, "the configuration of a QMA-Net")
        return read(source.as_posix(), local_files_only=local_files_only)
    except QMANetError as error:
        raise WeightsError(str(error)) from error
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot read {source}: {first_line(error)}; {SOURCES}") from None


def _hub_is_reachable(seconds: float = 2.0) -> bool:
    """Return whether the Hub answers; huggingface_hub would keep trying for half a minute."""
    address = urlsplit(constants.ENDPOINT)
    reached = threading.Event()

    def connect() -> None:
        with suppress(OSError):
            port = address.port or (443 if address.scheme == "https" else 80)
            socket.create_connection((address.hostname or "", port), timeout=seconds).close()
            reached.set()

    if constants.HF_HUB_OFFLINE:
        return False
    # In a thread, because name resolution has no timeout.
    threading.Thread(target=connect, daemon=True).start()
    return reached.wait(seconds)

"""A model from wherever a user says it is: a file, a folder, a directory for the hub, the hub."""

import json
import os
import re
import socket
import threading
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from ..modeling.hub import CONFIG_NAME, WEIGHTS_FILE
from ..modeling.qma_net import QMANetModel
from ..modeling.state import WeightsError
from .checkpoint import LONGEST_CONFIG, load_checkpoint
from .names import SMALL


def load_model(path: str | os.PathLike) -> QMANetModel:
    """A model from a checkpoint, a folder of them, a directory of ``save_pretrained`` or a hub id.

    Of a training's folder the newest ``checkpoint-<epoch>.pth`` is taken, and the weights of
    ``save_pretrained`` stand for their directory. ``"qma-net-small"`` is the model that comes with
    the package.

    Raises:
        WeightsError: for anything else.
    """
    path = Path(path)
    if path.is_file():
        is_saved = path.name == WEIGHTS_FILE
        return _from_directory(path.parent) if is_saved else load_checkpoint(path)
    if path.is_dir():
        newest = newest_checkpoint(path)
        return load_checkpoint(newest) if newest else _from_directory(path)
    if str(path) == SMALL:
        return _from_directory(Path(__file__).parent / SMALL)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(path)) or path.suffix in (".pth", ".pt", ".th"):
        raise WeightsError(
            f"got {path}, expected a checkpoint, a directory of save_pretrained or a hub id "
            "(owner/name): there is no such file"
        )
    try:
        return _from_pretrained(str(path), local_files_only=True)
    except WeightsError as error:
        if not _hub_answers():
            raise WeightsError(
                f"got {path}, expected a checkpoint, a directory of save_pretrained or a hub id: "
                "there is no such file, and the hub cannot be reached from here"
            ) from error
    return _from_pretrained(str(path))


def newest_checkpoint(folder: str | os.PathLike) -> Path | None:
    """The ``checkpoint-<epoch>.pth`` of the highest epoch in a folder; None without any."""
    files = [file for file in Path(folder).glob("checkpoint-*.pth") if file.stem[11:].isdigit()]
    return max(files, key=lambda file: int(file.stem[11:]), default=None)


def _require_object(file: Path) -> None:
    """Refuses a ``config.json`` that is no JSON object, before huggingface_hub trips over it."""
    if not file.is_file():
        return  # said by from_pretrained
    try:
        text = file.read_text() if file.stat().st_size <= LONGEST_CONFIG else ""
        is_object = isinstance(json.loads(text), dict)
    except (OSError, ValueError, RecursionError):
        is_object = False
    if not is_object:
        raise WeightsError(
            f"got {file}, expected the configuration of a QMA-Net, the JSON object that "
            "save_pretrained writes"
        )


def _from_directory(path: Path) -> QMANetModel:
    _require_object(path / CONFIG_NAME)
    return _from_pretrained(str(path))


def _from_pretrained(path: str, **options) -> QMANetModel:
    try:
        return QMANetModel.from_pretrained(path, **options)
    except (OSError, ValueError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(
            f"got {path}, expected a checkpoint, a directory of save_pretrained or a hub id: "
            f"{str(error).strip().splitlines()[0]}"
        ) from None


def _hub_answers(seconds: float = 2.0) -> bool:
    """Whether the hub can be reached at all; huggingface_hub itself tries for half a minute."""
    address = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    answers = []

    def knock() -> None:
        with suppress(OSError):
            port = address.port or (443 if address.scheme == "https" else 80)
            socket.create_connection((address.hostname, port), timeout=seconds).close()
            answers.append(True)

    if os.environ.get("HF_HUB_OFFLINE", "0") in ("1", "true", "True", "ON", "YES"):
        return False
    thread = threading.Thread(target=knock, daemon=True)  # a resolver may take its time
    thread.start()
    thread.join(seconds)
    return bool(answers)

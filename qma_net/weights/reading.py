"""Reads files of tensors; nothing in them is executed. The only ``torch.load``."""

import argparse
import hashlib
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch

from ..modeling.state import WeightsError


def read_checkpoint(path: str | os.PathLike, mapped: bool = False) -> dict:
    """What a file of tensors holds, on the CPU. Nothing in it is executed.

    ``mapped`` leaves the tensors in the file until they are used.

    Files of BenCo's trainer also hold their ``argparse.Namespace``, which is allowed.

    Raises:
        WeightsError: when there is no such file, or it is truncated or not a PyTorch file.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"got {path}, expected a file of weights: there is no such file")
    mapped = mapped and zipfile.is_zipfile(path)  # torch's older format cannot be
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except _UNREADABLE as error:
        raise WeightsError(_unreadable(path, error)) from error
    if not isinstance(content, dict):
        raise WeightsError(
            f"got a {type(content).__name__} in {path}, expected a dictionary of tensors: "
            "is this the right file?"
        )
    return content


def read_state(path: str | os.PathLike, mapped: bool = False) -> Mapping:
    """The state dict in a file, out of the container that its publisher put it in.

    Raises:
        WeightsError: see :func:`read_checkpoint`.
    """
    return state_in(read_checkpoint(path, mapped))


def state_in(content: Mapping) -> Mapping:
    """The state dict in what a file holds, out of the container that its publisher put it in."""
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

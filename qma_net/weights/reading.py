"""Reading files of tensors without executing code in them; contains the only ``torch.load``."""

import argparse
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile, is_zipfile

import torch

from ..core.errors import first_line
from ..modeling.state import WeightsError

_UNREADABLE = (EOFError, KeyError, OSError, RuntimeError, ValueError, UnpicklingError, BadZipFile)


def read_checkpoint(path: str | os.PathLike[str], mapped: bool = False) -> dict[Any, Any]:
    """Read a PyTorch file to the CPU without executing code in it.

    Files written by BenCo's trainer also contain its ``argparse.Namespace``, which is allowed. If
    ``mapped``, the tensors stay in the file until they are used.

    Raises:
        WeightsError: If the file is missing, truncated or not a PyTorch file.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"got {path}, expected a weights file: there is no such file")
    mapped = mapped and is_zipfile(path)  # PyTorch's older format cannot be mapped.
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except _UNREADABLE as error:
        raise WeightsError(
            f"got {path} ({path.stat().st_size:,} bytes), expected a complete PyTorch file: "
            f"download or copy it again ({type(error).__name__}: {first_line(error)})"
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(
            f"got a {type(content).__name__} in {path}, expected a dictionary of tensors: "
            "is this the right file?"
        )
    return content


def read_state(path: str | os.PathLike[str]) -> Mapping[Any, Any]:
    """Read the state dict in a file; see :func:`read_checkpoint`."""
    return unwrap_state(read_checkpoint(path))


def unwrap_state(content: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Return the state dict in the content of a file, which publishers nest under various keys."""
    for key in ("network", "state_dict", "model"):
        if isinstance(state := content.get(key), Mapping):
            return state
    return content


def is_hub_id(source: str) -> bool:
    """Return whether a source that is no local path can be a Hugging Face id, ``owner/name``."""
    is_file_name = source.endswith((".pth", ".pt", ".th", ".bin", ".safetensors"))
    return re.fullmatch(r"[\w.-]+/[\w.-]+", source) is not None and not is_file_name


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

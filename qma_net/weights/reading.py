"""Reading files of tensors without executing code in them; contains the only ``torch.load``."""

import argparse
import os
import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import torch

from ..core.errors import first_line
from ..core.images import HEADER_SIZE, IMAGE_CONTENTS, describe_content
from ..modeling.state import WeightsError


def read_checkpoint(path: str | os.PathLike[str], mapped: bool = False) -> dict[Any, Any]:
    """Read a PyTorch file to the CPU without executing code in it.

    Files written by BenCo's trainer also contain its ``argparse.Namespace``, which is allowed. If
    ``mapped``, the tensors stay in the file until they are used.

    Raises:
        WeightsError: If the file is missing, truncated or not a PyTorch file.
    """
    path = Path(path)
    if path.is_dir():
        raise WeightsError(f"{path} is a folder; pass the path of a file of weights")
    if not path.is_file():
        raise WeightsError(f"cannot find the weights file {path}; check the path")
    is_zip = is_zipfile(path)
    if is_zip:
        _require_stored_members(path)
    else:
        _require_no_image(path)
    mapped = mapped and is_zip  # PyTorch's older format cannot be mapped.
    # When the context ends, torch withdraws every permission in the list, even one granted earlier.
    is_permitted = argparse.Namespace in torch.serialization.get_safe_globals()
    try:
        with torch.serialization.safe_globals([] if is_permitted else [argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except MemoryError:
        raise
    except Exception as error:
        # For damaged pickles, torch.load raises nearly anything, such as IndexError.
        raise WeightsError(
            f"{path} ({path.stat().st_size:,} bytes) is not a complete PyTorch file "
            f"({_describe_fault(error)}); download or copy it again"
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(
            f"{path} contains a {type(content).__name__} instead of a dictionary of tensors; "
            "check that it is the right file"
        )
    return content


def _require_no_image(path: Path) -> None:
    """Reject a photo, for which torch.load would give a misleading reason.

    Raises:
        WeightsError: If the file begins like an image.
    """
    with open(path, "rb") as file:
        kind = describe_content(file.read(HEADER_SIZE))
    if kind in IMAGE_CONTENTS:
        raise WeightsError(f"{path} is not a checkpoint: it is {kind} image")


def _describe_fault(error: Exception) -> str:
    """Return why torch.load failed, without its advice to permit the execution of code."""
    if isinstance(error, UnpicklingError):
        found = re.search(r"Unsupported (?:global: GLOBAL \S+|\w+ \S+)", str(error))
        return f"UnpicklingError: {found[0]}" if found else "UnpicklingError"
    return f"{type(error).__name__}: {first_line(error)}"


def _require_stored_members(path: Path) -> None:
    """Reject compressed archives, which PyTorch does not write and which can expand without limit.

    Raises:
        WeightsError: If the sizes of the members add up to more than the size of the file.
    """
    try:
        with ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except (BadZipFile, ValueError, NotImplementedError):
        return  # torch.load reports it.
    if size > path.stat().st_size:
        raise WeightsError(
            f"{path} ({path.stat().st_size:,} bytes) would expand to {size:,} bytes; PyTorch does "
            "not compress its files, so pass the original file"
        )


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
    """Return whether a source that is not a local path can be a Hugging Face Hub ID."""
    is_file_name = source.endswith((".pth", ".pt", ".th", ".bin", ".safetensors"))
    return re.fullmatch(r"[\w.-]+/[\w.-]+", source) is not None and not is_file_name

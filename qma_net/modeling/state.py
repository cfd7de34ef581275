"""Strict loading of state dicts, with one-line errors that state what does not match."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .. import __version__
from ..core.errors import QMANetError
from .config import ARCHITECTURE, LOSS_FLAGS, ConfigError, QMANetConfig


class WeightsError(QMANetError):
    """Weights that are missing or unreadable, or belong to a different model."""


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict that must match the module in names, shapes and kinds of numbers.

    Error messages refer to it as ``source``.

    Raises:
        WeightsError: If a tensor is missing or unknown, has the wrong shape or data type, or is not
            finite.
    """
    require_tensors(state, source)
    expected = module.state_dict()
    common = [name for name in expected if name in state]
    problems = {
        "missing": [name for name in expected if name not in state],
        "unknown": [name for name in state if name not in expected],
        "of the wrong shape": [
            f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
            for name in common
            if state[name].shape != expected[name].shape
        ],
        "with the wrong data type": [
            f"{name} {state[name].dtype} instead of {expected[name].dtype}"
            for name in common
            if state[name].is_floating_point() != expected[name].is_floating_point()
        ],
    }
    report = [
        f"{len(names)} {kind} (first: {names[0]})" for kind, names in problems.items() if names
    ]
    if report:
        raise WeightsError(
            f"the {len(state)} tensors in {source} do not match the {len(expected)} of "
            f"{type(module).__name__}: {'; '.join(report)}. Check that it is the right "
            "file and that --size matches it"
        )
    not_finite = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if not_finite:
        raise WeightsError(
            f"{len(not_finite)} tensors in {source} contain NaN or infinity (first: "
            f"{not_finite[0]}). Training diverged; use an earlier checkpoint"
        )
    module.load_state_dict(state)


def require_tensors(state: Mapping[Any, Any], source: str) -> None:
    """Check that a state dict holds only named, plain tensors of real numbers.

    Raises:
        WeightsError: If an entry is anything else, or if there are no entries; the message names
            the entry and ``source``.
    """
    if not state:
        raise WeightsError(f"{source} contains no tensors; check that it is the right file")
    for name, tensor in state.items():
        if not isinstance(name, str):
            problem = f"the key {str(name)[:40]!r} of type {type(name).__name__}"
        elif not isinstance(tensor, Tensor):
            problem = f"a {type(tensor).__name__} as {name[:80]!r}"
        elif tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            problem = f"a sparse, quantized or empty tensor as {name[:80]!r}"
        elif tensor.is_complex() or tensor.dtype == torch.bool:
            problem = f"a {tensor.dtype} tensor as {name[:80]!r}"
        else:
            continue
        raise WeightsError(f"{source} contains {problem}; expected named tensors of real numbers")


def config_from_saved(saved: Mapping[str, Any], source: str) -> QMANetConfig:
    """Check that weights belong to this version of the network and return their configuration.

    Args:
        saved: Fields of the configuration, ``architecture`` (missing in the first version) and
            ``qma_net``, the version of the package.
        source: Description of the weights for error messages.

    Raises:
        WeightsError: If they belong to a different version or a field is invalid.
    """
    version = saved.get("architecture", 1)
    if version != ARCHITECTURE:
        raise WeightsError(
            f"{source} has architecture {version}, written by qma-net "
            f"{saved.get('qma_net', '0.1.0')}, but qma-net {__version__} needs architecture "
            f"{ARCHITECTURE}; train again, or use the version that wrote it"
        )
    try:
        names = set(QMANetConfig.field_names()) & set(saved)
        return QMANetConfig(**{name: saved[name] for name in names})
    except ConfigError as error:
        raise WeightsError(f"the configuration in {source} is invalid: {error}") from None


def loss_from_saved(saved: object) -> dict[str, float] | None:
    """Return the flags of the loss that were stored with weights, or None if there are none.

    Invalid values are ignored, because the weights can be used without these flags.
    """
    saved = saved if isinstance(saved, dict) else {}
    return {
        name: saved[name]
        for name in LOSS_FLAGS
        if type(saved.get(name)) is float and math.isfinite(saved[name])
    } or None

"""A state dict that fits in every name and shape, or one line that says what does not."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .. import __version__
from ..core.errors import QMANetError
from .config import ARCHITECTURE


class WeightsError(QMANetError):
    """Weights that are missing, unreadable, foreign or of another size; one line says which."""


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Loads a state that must fit in every name, shape and kind of number.

    Raises:
        WeightsError: naming what is missing, unknown, of another shape or kind, or not finite.
    """
    require_tensors(state, what)
    expected = module.state_dict()
    missing = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected]
    reshaped = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    strange = [
        f"{name} {state[name].dtype} instead of {tensor.dtype}"
        for name, tensor in expected.items()
        if name in state and state[name].is_floating_point() != tensor.is_floating_point()
    ]
    faults = [
        f"{len(names)} {fault} (first: {names[0]})"
        for names, fault in (
            (missing, "missing"),
            (unknown, "unknown"),
            (reshaped, "of another shape"),
            (strange, "of another kind of number"),
        )
        if names
    ]
    if faults:
        raise WeightsError(
            f"got {len(state)} tensors in {what}, expected the {len(expected)} of "
            f"{type(module).__name__}: {'; '.join(faults)}. Is it the right file and size?"
        )
    broken = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if broken:
        raise WeightsError(
            f"got {len(broken)} tensors with values that are not finite in {what} (first: "
            f"{broken[0]}), expected numbers: it is of a training that failed, take an earlier one"
        )
    module.load_state_dict(state)


def require_tensors(state: Mapping, what: str) -> None:
    """Refuses a state dict that holds anything but plain tensors of real numbers under names.

    Raises:
        WeightsError: naming the first entry that is something else.
    """
    for name, tensor in state.items():
        if not isinstance(name, str):
            fault = f"the key {str(name)[:40]!r} of type {type(name).__name__}"
        elif not isinstance(tensor, Tensor):
            fault = f"a {type(tensor).__name__} as {name[:80]!r}"
        elif tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            fault = f"a sparse, quantised or empty tensor as {name[:80]!r}"
        elif tensor.is_complex() or tensor.dtype == torch.bool:
            fault = f"a {tensor.dtype} tensor as {name[:80]!r}"
        else:
            continue
        raise WeightsError(f"got {fault} in {what}, expected tensors of real numbers by name")


def require_this_architecture(made: Mapping, what: str) -> None:
    """Refuses tensors of another version of the network.

    Args:
        made: what stands beside the configuration: ``architecture`` (absent in the first) and
            ``qma_net``, the version that wrote it.
        what: names them in the error.

    Raises:
        WeightsError: naming the version that made them.
    """
    got = made.get("architecture", 1)
    if got != ARCHITECTURE:
        raise WeightsError(
            f"got a {what} of architecture {got}, made by qma-net {made.get('qma_net', '0.1.0')}, "
            f"expected architecture {ARCHITECTURE}, which qma-net {__version__} builds: train it "
            "again, or use it with the version that made it"
        )

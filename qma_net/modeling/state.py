"""A state dict that fits in every name and shape, or one line that says what does not."""

from collections.abc import Mapping

from torch import Tensor, nn

from .. import __version__
from ..errors import QMANetError
from .config import ARCHITECTURE


class WeightsError(QMANetError):
    """Weights that are missing, unreadable, foreign or of another size; one line says which."""


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Loads a state that must fit in every name and shape.

    Raises:
        WeightsError: naming what is missing, unknown or of another shape.
    """
    expected = module.state_dict()
    missing = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected]
    reshaped = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    faults = [
        f"{len(names)} {fault} (first: {names[0]})"
        for names, fault in (
            (missing, "missing"),
            (unknown, "unknown"),
            (reshaped, "of another shape"),
        )
        if names
    ]
    if faults:
        raise WeightsError(
            f"got {len(state)} tensors in {what}, expected the {len(expected)} of "
            f"{type(module).__name__}: {'; '.join(faults)}. Is it the right file and size?"
        )
    module.load_state_dict(state)


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

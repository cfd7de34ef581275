"""QMA-Net: image manipulation localization, as an IMDL-BenCo plugin or standalone."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .build import build_qma_net
    from .core.errors import QMANetError
    from .inference.prediction import Prediction
    from .inference.predictor import QMANetPredictor
    from .modeling.config import QMANetConfig
    from .modeling.qma_net import QMANetModel
    from .weights.checkpoint import load_checkpoint

__version__ = "0.2.0"

__all__ = [
    "Prediction",
    "QMANetConfig",
    "QMANetError",
    "QMANetModel",
    "QMANetPredictor",
    "__version__",
    "build_qma_net",
    "load_checkpoint",
]

_MODULES = {
    "Prediction": "inference.prediction",
    "QMANetConfig": "modeling.config",
    "QMANetError": "core.errors",
    "QMANetModel": "modeling.qma_net",
    "QMANetPredictor": "inference.predictor",
    "build_qma_net": "build",
    "load_checkpoint": "weights.checkpoint",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``import qma_net`` does not load torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)

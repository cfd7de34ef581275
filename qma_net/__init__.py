"""QMA-Net: image manipulation localization, for IMDL-BenCo and on its own."""

__version__ = "0.2.0"


_HOMES = {
    "build_qma_net": "build",
    "load_checkpoint": "weights.checkpoint",
    "QMANetPredictor": "inference.predictor",
}


__all__ = ["__version__", *_HOMES]


def __getattr__(name: str):
    """Imports a public name when it is first used, so that ``import qma_net`` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'qma_net' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

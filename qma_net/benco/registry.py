"""Models in BenCo's registry."""

from typing import Any

from ..modeling.config import ConfigError


def registered_model(name: str) -> Any:
    """Return the class or function in BenCo's registry that builds a model.

    Raises:
        ConfigError: If no model of this name is registered.
    """
    import IMDLBenCo.model_zoo  # noqa: F401  (registers BenCo's models)
    from IMDLBenCo.registry import MODELS

    from . import QMANet  # noqa: F401  (registers it)

    if not MODELS.has(name):  # MODELS.get would print a table and raise a KeyError.
        known = ", ".join(sorted(MODELS.module_dict))
        raise ConfigError(f"unknown --model {name}; BenCo's registry contains {known}")
    return MODELS.get(name)

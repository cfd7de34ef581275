"""The attacks of ``benco_configs/robustness.yaml``, as albumentations transforms."""

import os
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.files import config_path, read_yaml
from .settings import EvaluationError


@dataclass(frozen=True)
class Attack:
    """One attack at one level.

    Attributes:
        description: Name, level, unit, transform and arguments, for the header of a result file.
        transform: The transform, which is applied to every image. It takes ``image=`` (uint8
            ``(H, W, 3)``) and ``mask=``, and returns a dictionary with the same keys.
    """

    name: str
    level: int
    description: dict[str, Any]
    transform: Callable[..., dict]

    @property
    def stem(self) -> str:
        """The name of its result files, without suffix."""
        return f"{self.name}-{self.level}"

    def seed(self, index: int) -> None:
        """Seed the global generators that albumentations 1.3.0 uses, for one image."""
        random.seed(f"{self.name} {self.level} {index}")
        np.random.seed(random.getrandbits(32))


def read_attacks(
    path: str | os.PathLike[str] | None = None, names: Iterable[str] = ()
) -> list[Attack]:
    """Read attacks from a YAML file; each level of an attack becomes an attack of its own.

    Args:
        path: The file, by default ``benco_configs/robustness.yaml``.
        names: The attacks to read, by default those marked with ``paper: true``, or all if none is.

    Raises:
        ContentError: If the file is not YAML.
        EvaluationError: If the file is not a list of attacks, or if a name, a transform or an
            argument is unknown.
    """
    path = Path(path or config_path("robustness.yaml"))
    entries = read_yaml(path, "a YAML file of attacks")
    if not isinstance(entries, list) or not all(map(_is_attack, entries)):
        raise EvaluationError(
            f"{path} is not a list of attacks with name, unit, levels (integers), transform and "
            "arguments, as in benco_configs/robustness.yaml"
        )
    by_name = {entry["name"]: entry for entry in entries}
    attacks = []
    in_paper = [entry["name"] for entry in entries if entry.get("paper")]
    for name in list(names) or in_paper or by_name:
        if name not in by_name:
            raise EvaluationError(f"unknown attack {name!r}; choose from {', '.join(by_name)}")
        attacks += [_build_attack(by_name[name], level) for level in by_name[name]["levels"]]
    return attacks


def _is_attack(entry: object) -> bool:
    kinds = {"name": str, "unit": str, "levels": list, "transform": str, "arguments": dict}
    return (
        isinstance(entry, dict)
        and all(isinstance(entry.get(key), kind) for key, kind in kinds.items())
        and all(type(level) is int for level in entry["levels"])
        and all(isinstance(key, str) for key in entry["arguments"])
    )


def _at_level(argument: Any, level: int) -> Any:
    """Replace LEVEL in an argument with the level, and LEVEL_SQUARED with its square."""
    if isinstance(argument, list):
        return tuple(_at_level(item, level) for item in argument)
    if argument == "LEVEL":
        return level
    return level**2 if argument == "LEVEL_SQUARED" else argument


def _build_attack(entry: dict[str, Any], level: int) -> Attack:
    import albumentations

    name, transform = entry["name"], entry["transform"]
    arguments = {key: _at_level(value, level) for key, value in entry["arguments"].items()}
    try:
        kind = getattr(albumentations, transform)
        if not issubclass(kind, albumentations.BasicTransform):
            raise TypeError(f"{transform} is not a transform")
        composed = albumentations.Compose([kind(**arguments, p=1)])
    except (AttributeError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise EvaluationError(
            f"attack {name}: {transform} with arguments {arguments} is not a valid albumentations "
            f"transform: {error}"
        ) from None
    description = {
        "name": name,
        "level": level,
        "unit": entry["unit"],
        "transform": transform,
        "arguments": arguments,
    }
    return Attack(name, level, description, composed)

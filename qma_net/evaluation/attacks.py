"""The attacks of ``benco_configs/robustness.yaml`` as transforms of albumentations."""

import os
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.files import ContentError, config_path, read_yaml
from .settings import EvaluationError


@dataclass(frozen=True)
class Attack:
    """One attack at one level.

    Args:
        name: in the YAML file.
        level: its strength.
        unit: of the level, in words.
        transform_name: a transform of albumentations.
        arguments: the transform's, by name.
        transform: that transform, built, and always applied: from ``image=`` (uint8
            ``(H, W, 3)``) and ``mask=`` to a dictionary with the same keys.
    """

    name: str
    level: int
    unit: str
    transform_name: str
    arguments: dict
    transform: Callable[..., dict]

    @property
    def stem(self) -> str:
        """The name of its result files, without an ending."""
        return f"{self.name}-{self.level}"

    def seed(self, index: int) -> None:
        """Seeds what albumentations 1.3.0 draws from, for one image."""
        random.seed(f"{self.name} {self.level} {index}")
        np.random.seed(random.getrandbits(32))

    def describe(self) -> dict:
        """The attack in the header of a result file."""
        return {
            "name": self.name,
            "level": self.level,
            "unit": self.unit,
            "transform": self.transform_name,
            "arguments": self.arguments,
        }


def read_attacks(path: str | os.PathLike | None = None, names: Iterable[str] = ()) -> list[Attack]:
    """The attacks of a YAML file, level by level: the named ones, or else the paper's.

    Raises:
        EvaluationError: for what is no such file, and for a name, a transform or an argument that
            does not exist.
    """
    path = Path(path or config_path("robustness.yaml"))
    try:
        entries = read_yaml(path, "a YAML file of attacks")
    except ContentError as error:
        raise EvaluationError(str(error)) from None
    if not isinstance(entries, list) or not all(map(_is_attack, entries)):
        raise EvaluationError(
            f"got {path}, expected a list of attacks, each with name, unit, levels (whole "
            "numbers), transform and arguments, as in benco_configs/robustness.yaml"
        )
    names = list(names) or [entry["name"] for entry in entries if entry.get("paper")]
    by_name = {entry["name"]: entry for entry in entries}
    for name in names:
        if name not in by_name:
            raise EvaluationError(f"got attack {name!r}, expected one of {', '.join(by_name)}")
    return [_attack(by_name[name], level) for name in names for level in by_name[name]["levels"]]


def _is_attack(entry: object) -> bool:
    kinds = {"name": str, "unit": str, "levels": list, "transform": str, "arguments": dict}
    return (
        isinstance(entry, dict)
        and all(isinstance(entry.get(key), kind) for key, kind in kinds.items())
        and all(type(level) is int for level in entry["levels"])
        and all(isinstance(key, str) for key in entry["arguments"])
    )


def _attack(entry: dict, level: int) -> Attack:
    arguments = {key: _at_level(value, level) for key, value in entry["arguments"].items()}
    return Attack(
        name=entry["name"],
        level=level,
        unit=entry["unit"],
        transform_name=entry["transform"],
        arguments=arguments,
        transform=_build_transform(entry, arguments),
    )


def _at_level(argument, level: int):
    """An argument of the YAML with the level for LEVEL, its square for LEVEL_SQUARED."""
    if isinstance(argument, list):
        return tuple(_at_level(item, level) for item in argument)
    if argument == "LEVEL":
        return level
    return level**2 if argument == "LEVEL_SQUARED" else argument


def _build_transform(entry: dict, arguments: dict) -> Callable[..., dict]:
    import albumentations

    try:
        kind = getattr(albumentations, entry["transform"])
        if not issubclass(kind, albumentations.BasicTransform):
            raise TypeError(f"{entry['transform']} is no transform")
        return albumentations.Compose([kind(**arguments, p=1)])
    except (AttributeError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise EvaluationError(
            f"got attack {entry['name']} {arguments}, expected a transform of albumentations "
            f"and its arguments: {error}"
        ) from None

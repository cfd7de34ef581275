"""The attacks of ``robustness.yaml`` as transforms of albumentations."""

import os
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..files import config_path
from .settings import EvaluationError


@dataclass(frozen=True)
class Attack:
    """One attack at one level: a transform of albumentations and its arguments."""

    name: str
    level: int
    unit: str
    transform_name: str
    arguments: tuple

    @property
    def transform(self):
        """The albumentations transform, always applied."""
        import albumentations

        return albumentations.Compose(
            [getattr(albumentations, self.transform_name)(**dict(self.arguments), p=1)]
        )

    def seed(self, index: int) -> None:
        """Seeds what albumentations 1.3.0 draws from, for one image."""
        random.seed(f"{self.name} {self.level} {index}")
        np.random.seed(random.getrandbits(32))

    def describe(self) -> dict:
        return {
            "name": self.name,
            "level": self.level,
            "unit": self.unit,
            "transform": self.transform_name,
            "arguments": dict(self.arguments),
        }


def read_attacks(path: str | os.PathLike | None = None, names: Iterable[str] = ()) -> list[Attack]:
    """The attacks of a YAML file, level by level: the named ones, or else the paper's.

    Raises:
        EvaluationError: for a name, a transform or an argument that does not exist.
    """
    import yaml

    entries = yaml.safe_load(Path(path or config_path("robustness.yaml")).read_text())
    names = list(names) or [entry["name"] for entry in entries if entry.get("paper")]
    by_name = {entry["name"]: entry for entry in entries}
    attacks = []
    for name in names:
        if name not in by_name:
            known = ", ".join(by_name)
            raise EvaluationError(f"got attack {name!r}, expected one of {known}")
        entry = by_name[name]
        for level in entry["levels"]:
            arguments = tuple((key, _fill(a, level)) for key, a in entry["arguments"].items())
            attack = Attack(name, level, entry["unit"], entry["transform"], arguments)
            try:
                _ = attack.transform
            except (AttributeError, TypeError, ValueError) as error:
                raise EvaluationError(
                    f"got attack {name} {dict(arguments)}, expected a transform of albumentations "
                    f"and its arguments: {error}"
                ) from None
            attacks.append(attack)
    return attacks


def _fill(argument, level: int):
    if isinstance(argument, list):
        return tuple(_fill(item, level) for item in argument)
    return {"LEVEL": level, "LEVEL_SQUARED": level**2}.get(argument, argument)

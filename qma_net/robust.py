"""``qma-net robust``: the exact evaluation under the attacks of ``robustness.yaml``.

An attack comes before resizing, as in BenCo, and is seeded by its name, its level and the image's
number, so that a sweep repeats to the byte in any number of processes. The clean result is
computed once, for all attacks, and is in no average.
"""

import json
import os
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .evaluate import (
    AS_TRAINED,
    EvaluationError,
    Process,
    Settings,
    Subject,
    evaluate_set,
    read_test_sets,
    result_folders,
)
from .files import config_path, write_text
from .metrics import mean

AVERAGED = ("pixel_f1", "permute_f1", "iou", "auc")


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


def robust(
    checkpoints: Sequence[str | os.PathLike],
    test_sets: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    settings: Settings = AS_TRAINED,
    model: str = "QMANet",
    model_flags: Sequence[str] = (),
    device: str = "",
    workers: int = 2,
    save_masks: str = "",
    allow: Iterable[str] = (),
    attacks: Sequence[Attack] | None = None,
) -> None:
    """Writes ``<set>/clean.json``, ``<set>/<attack>-<level>.json`` and ``<set>/averages.json``.

    Arguments as in :func:`qma_net.evaluate.evaluate`; ``attacks`` default to the paper's 18.
    """
    attacks = read_attacks() if attacks is None else attacks
    process = Process.join(device)
    sets = read_test_sets(test_sets, settings, allow, process)
    for checkpoint, folder in result_folders(checkpoints, Path(out)).items():
        subject = Subject.load(model, model_flags, checkpoint, process.device)
        for listing in sets:
            place = folder / listing.name
            for attack in (None, *attacks):
                stem = f"{attack.name}-{attack.level}" if attack else "clean"
                evaluate_set(
                    subject, listing, place, settings, process, workers, save_masks, attack, stem
                )
            if process.is_first:
                write_text(place / "averages.json", json.dumps(averages(place, attacks), indent=1))
    process.wait()


def averages(place: Path, attacks: Sequence[Attack]) -> dict:
    """Per attack, the means over its levels, the clean result beside them and in none."""
    figures = {"clean": json.loads((place / "clean.json").read_text())}
    result = {"clean": {key: figures["clean"][key] for key in AVERAGED}}
    for name in dict.fromkeys(attack.name for attack in attacks):
        levels = [attack.level for attack in attacks if attack.name == name]
        found = [json.loads((place / f"{name}-{level}.json").read_text()) for level in levels]
        result[name] = {key: mean([one[key] for one in found]) for key in AVERAGED}
        result[name]["levels"] = {
            str(level): {key: one[key] for key in AVERAGED}
            for level, one in zip(levels, found, strict=True)
        }
    return result

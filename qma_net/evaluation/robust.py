"""``qma-net robust``: the evaluation of ``qma-net evaluate`` on attacked images.

Attacks are applied before resizing, as in BenCo. Each is seeded with its name, its level and the
index of the image, so results do not depend on the number of processes. The clean result is
computed once per test set and is not part of any average.
"""

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from ..core.files import safe_path, write_json
from .attacks import Attack, read_attacks
from .distributed import DistributedContext
from .evaluate import (
    complete_settings,
    evaluate_set,
    read_test_sets,
    require_uncropped,
    result_folders,
)
from .evaluated_model import EvaluatedModel
from .metrics import mean
from .results import format_means, read_result
from .settings import AS_TRAINED, Settings

AVERAGED = ("pixel_f1", "permute_f1", "iou", "auc")


def robust(
    checkpoints: Sequence[str | os.PathLike[str]],
    test_sets: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    settings: Settings = AS_TRAINED,
    model: str = "QMANet",
    model_flags: Sequence[str] = (),
    device: str = "",
    workers: int = 2,
    save_masks: str = "",
    allow: Collection[str] = (),
    attacks: Sequence[Attack] | None = None,
    progress: bool = True,
) -> None:
    """Write ``<set>/clean.json``, ``<set>/<attack>-<level>.json`` and ``<set>/averages.json``.

    ``attacks`` are by default the 18 of the paper. The other arguments and the exceptions are those
    of :func:`qma_net.evaluation.evaluate.evaluate`.
    """
    attacks = read_attacks() if attacks is None else attacks
    context = DistributedContext.from_environment(device)
    sets = read_test_sets(test_sets, allow, context, progress=progress)
    folders = {
        checkpoint: [safe_path(folder, listing.name) for listing in sets]
        for checkpoint, folder in result_folders(checkpoints, Path(out)).items()
    }
    with context.locked(out, *(folder for of_sets in folders.values() for folder in of_sets)):
        for checkpoint, of_sets in folders.items():
            evaluated = EvaluatedModel.load(model, model_flags, checkpoint, context.device)
            completed = complete_settings(evaluated, settings, context)
            require_uncropped(test_sets, completed, allow, context)
            for listing, folder in zip(sets, of_sets, strict=True):
                for attack in (None, *attacks):
                    evaluate_set(
                        evaluated,
                        listing,
                        folder,
                        settings=completed,
                        context=context,
                        workers=workers,
                        save_masks=save_masks,
                        attack=attack,
                        name=attack.stem if attack else "clean",
                        progress=progress,
                    )
                if context.is_first:
                    write_json(folder / "averages.json", averages(folder, attacks))
                    names = ["clean", *(attack.stem for attack in attacks)]
                    context.log(f"{listing.name}\n{format_means(folder, names, 'attack')}")
        context.wait()


def averages(folder: Path, attacks: Sequence[Attack]) -> dict[str, dict]:
    """Average the results of each attack over its levels; the clean result is separate."""
    clean = read_result(folder / "clean.json")
    result: dict[str, dict] = {"clean": {key: clean[key] for key in AVERAGED}}
    for name in dict.fromkeys(attack.name for attack in attacks):
        levels = {
            str(attack.level): read_result(folder / f"{attack.stem}.json")
            for attack in attacks
            if attack.name == name
        }
        result[name] = {
            **{key: mean([level[key] for level in levels.values()]) for key in AVERAGED},
            "levels": {
                level: {key: values[key] for key in AVERAGED} for level, values in levels.items()
            },
        }
    return result

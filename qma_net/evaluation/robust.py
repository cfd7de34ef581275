"""``qma-net robust``: the exact evaluation under the attacks of ``robustness.yaml``.

An attack comes before resizing, as in BenCo, and is seeded by its name, its level and the image's
number, so that a sweep repeats to the byte in any number of processes. The clean result is
computed once, for all attacks, and is in no average.
"""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..core.files import safe_path, write_text
from .attacks import Attack, read_attacks
from .evaluate import (
    evaluate_set,
    read_test_sets,
    require_uncropped,
    result_folders,
    shown_as,
)
from .metrics import mean
from .process import Process
from .rows import results_table
from .settings import AS_TRAINED, Settings
from .subject import Subject

AVERAGED = ("pixel_f1", "permute_f1", "iou", "auc")


def robust(
    checkpoints: Sequence[str | os.PathLike],
    test_sets: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    *,
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

    Arguments and errors as in :func:`qma_net.evaluation.evaluate.evaluate`; ``attacks`` default
    to the paper's 18.
    """
    attacks = read_attacks() if attacks is None else attacks
    process = Process.join(device)
    sets = read_test_sets(test_sets, allow, process)
    with process.alone_in(out):
        for checkpoint, folder in result_folders(checkpoints, Path(out)).items():
            subject = Subject.load(model, model_flags, checkpoint, process.device)
            shown = shown_as(subject, settings, process)
            require_uncropped(test_sets, shown, allow, process)
            for listing in sets:
                place = safe_path(folder, listing.name)
                for attack in (None, *attacks):
                    evaluate_set(
                        subject,
                        listing,
                        place,
                        settings=shown,
                        process=process,
                        workers=workers,
                        save_masks=save_masks,
                        attack=attack,
                        stem=attack.stem if attack else "clean",
                    )
                if process.is_first:
                    write_text(
                        place / "averages.json", json.dumps(averages(place, attacks), indent=1)
                    )
                    stems = [attack.stem for attack in attacks]
                    process.say(
                        f"{listing.name}\n{results_table(place, ['clean', *stems], 'attack')}"
                    )
        process.wait()


def averages(place: Path, attacks: Sequence[Attack]) -> dict:
    """Per attack, the means over its levels, the clean result beside them and in none."""
    clean = json.loads((place / "clean.json").read_text())
    result = {"clean": {key: clean[key] for key in AVERAGED}}
    for name in dict.fromkeys(attack.name for attack in attacks):
        levels = [attack.level for attack in attacks if attack.name == name]
        found = [json.loads((place / f"{name}-{level}.json").read_text()) for level in levels]
        result[name] = {key: mean([one[key] for one in found]) for key in AVERAGED}
        result[name]["levels"] = {
            str(level): {key: one[key] for key in AVERAGED}
            for level, one in zip(levels, found, strict=True)
        }
    return result

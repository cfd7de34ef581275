"""``qma-net predict``: masks, overlays and a table for many photos."""

import csv
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..core.errors import QMANetError
from ..core.files import write_json, write_png, write_text
from ..core.runs import Run
from ..core.untrusted import file_stem, format_csv
from ..modeling.config import DEFAULT_THRESHOLD
from .photo_files import (
    PREDICTION_COLUMNS,
    PREDICTION_TABLE,
    STDIN,
    display_name,
    file_state,
    find_photos,
    is_current,
    photo_source,
    tile_progress_bar,
    unused_stem,
)
from .photograph import PhotographError, read_photograph
from .prediction import Prediction, as_gray
from .predictor import QMANetPredictor, require_probability

SCORE = (
    "score: highest mean of the mask in any square whose side is about a tenth of the photo's "
    "shorter side. It is not the probability that the photo has been tampered with; authentic "
    "photos can also score high, depending on the model"
)
SETTINGS, JOURNAL = "predictions.json", ".predict.jsonl"
MASK_SUFFIX, OVERLAY_SUFFIX = "_mask.png", "_overlay.png"


class PredictionsError(QMANetError):
    """A folder with predictions from a run that cannot be resumed."""


def predict_files(
    names: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    predictor: QMANetPredictor,
    *,
    threshold: float = DEFAULT_THRESHOLD,
    native: bool = False,
    tta: bool = False,
    note: str = "",
    progress: bool = True,
) -> list[str]:
    """Write ``<stem>_mask.png`` and ``<stem>_overlay.png`` for each photo, and ``predictions.csv``.

    The mask is 8-bit gray, 255 for a mask value of 1. If the stem is already used by another photo
    or by one of the user's own files, the next free one of ``<stem>_2``, ... is used. A photo gets
    its row in the table as soon as its images are written, so the same call resumes an interrupted
    run. A file that is not a photo gets a row with an error.

    Args:
        names: Files, folders (searched recursively) and patterns; ``-`` is the standard input.
        out: The folder to write to; ``predictions.json`` in it records the model and the settings.
        predictor: The model.
        threshold: In 0..1. Pixels with a higher mask value count as tampered.
        native: Process photos at original resolution.
        tta: Average over the photo and its three flips.
        note: Added to the notes of every row.
        progress: Whether to show progress bars.

    Returns:
        The errors, one line each.

    Raises:
        RunError: If the folder holds predictions of a different model or with different settings.
        PredictionsError: If it holds predictions without the journal that resuming needs.
        BusyError: If another run is writing to the folder.
    """
    require_probability(threshold)
    paths, errors, out = find_photos(names), [], Path(out)
    if (out / PREDICTION_TABLE).exists() and not (out / JOURNAL).exists():
        raise PredictionsError(
            f"{out} holds {PREDICTION_TABLE} but not {JOURNAL}, so its run cannot be "
            "resumed; choose a different folder"
        )
    settings = predictor.describe() | {"threshold": threshold, "native": native, "tta": tta}
    with Run(
        out, settings, key=["mask"], required=["file"], journal=JOURNAL, contents="predictions"
    ) as run:
        write_json(out / SETTINGS, settings)
        # The masks are only required to exist, since a user may have edited them.
        current = [
            record
            for record in run.finished.values()
            if is_current(record) and _are_intact(out, record)
        ]
        finished = {record["file"] for record in current}
        replaced = {record["file"]: record for record in run.finished.values()}
        taken = {record["mask"].removesuffix(MASK_SUFFIX) for record in run.finished.values()}
        write_text(out / PREDICTION_TABLE, format_csv(PREDICTION_COLUMNS, current))
        todo = [path for path in paths if path == STDIN or str(path) not in finished]
        done = len(paths) - len(todo)
        bar = tqdm(todo, "predict", len(paths), unit="photo", initial=done, disable=not progress)
        for path in bar:
            name = display_name(path)
            record: dict[str, Any] = {"file": name, **file_state(path)}
            try:
                photograph = read_photograph(photo_source(path), name)
                with tile_progress_bar(enabled=progress) as tile_progress:
                    prediction = predictor.predict(
                        photograph,
                        threshold=threshold,
                        native=native,
                        tta=tta,
                        progress=tile_progress,
                    )
            except PhotographError as error:
                errors.append(str(error))
                _append(out / PREDICTION_TABLE, record | {"error": str(error)})
                continue
            if path != STDIN and name in replaced:
                mask = str(replaced[name]["mask"])
            else:
                stem = file_stem(Path(name).stem)
                mask = unused_stem(run, stem, taken, (MASK_SUFFIX, OVERLAY_SUFFIX)) + MASK_SUFFIX
            overlay = mask.removesuffix(MASK_SUFFIX) + OVERLAY_SUFFIX
            run.claim([out / mask, out / overlay])
            write_png(out / mask, as_gray(prediction.mask))
            profile = prediction.photograph.icc_profile
            write_png(out / overlay, prediction.overlay(), icc_profile=profile)
            record |= _facts(prediction, note) | {"mask": mask, "overlay": overlay}
            run.finish(record)
            _append(out / PREDICTION_TABLE, record)
    return errors


def has_scores(out: str | os.PathLike[str]) -> bool:
    """Return whether the table that :func:`predict_files` wrote to a folder has any score."""
    with open(Path(out) / PREDICTION_TABLE, newline="", encoding="utf-8") as file:
        return any(row["score"] for row in csv.DictReader(file))


def _are_intact(out: Path, record: dict[str, Any]) -> bool:
    """Check that the mask exists, and that no image is empty, as can happen in a power failure."""
    images = [out / record[key] for key in ("mask", "overlay") if key in record]
    return images[0].is_file() and all(p.stat().st_size > 0 for p in images if p.exists())


def _facts(prediction: Prediction, note: str) -> dict[str, Any]:
    facts = prediction.to_dict()
    notes = [*facts["notes"], note] if note else facts["notes"]
    return {
        "score": f"{facts['score']:.6f}",
        "marked": f"{facts['marked']:.6f}",
        "width": facts["width"],
        "height": facts["height"],
        "notes": "; ".join(notes),
    }


def _append(table: Path, record: dict[str, Any]) -> None:
    with open(table, "a", newline="", encoding="utf-8", errors="backslashreplace") as file:
        file.write(format_csv(PREDICTION_COLUMNS, [record], header=False))

"""``qma-net calibrate``: the scores of a model on authentic photos."""

import os
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from ..core.errors import QMANetError
from ..inference.photo_files import find_photos
from ..inference.photograph import PhotographError, decode_photograph, read_bytes
from ..inference.predictor import QMANetPredictor
from ..modeling.calibration import Calibration, PhotoProperties
from ..modeling.hub import CALIBRATION_NAME, CONFIG_NAME, write_calibration
from ..weights.locate import newest_checkpoint
from .evidence import photo_properties
from .metadata import read_facts


class CalibrationError(QMANetError):
    """A calibration without photos, or without a folder to write it to."""


def calibrate(
    predictor: QMANetPredictor,
    photos: Sequence[str | os.PathLike[str]],
    *,
    native: bool = False,
    progress: bool = True,
) -> tuple[Calibration, list[str]]:
    """Measure the scores of authentic photos.

    Args:
        predictor: The model.
        photos: Files, folders (searched recursively) and patterns.
        native: Process the photos at original resolution.
        progress: Whether to show a progress bar.

    Returns:
        The calibration, and one error message for each file that is not a complete photo.

    Raises:
        CalibrationError: If none of the photos can be read.
    """
    scores: list[float] = []
    properties: list[PhotoProperties] = []
    errors: list[str] = []
    for path in tqdm(find_photos(photos), desc="calibrate", unit="photo", disable=not progress):
        try:
            data, name = read_bytes(path)
            photograph = decode_photograph(data, name)
            if photograph.truncation:
                raise PhotographError(f"skipped {path}: {photograph.truncation}")
            prediction = predictor.predict(photograph, native=native)
            scores.append(prediction.score)
            properties.append(photo_properties(photograph, read_facts(data)))
        except PhotographError as error:
            errors.append(str(error))
    if not scores:
        raise CalibrationError(
            f"none of the photos can be read: {', '.join(map(str, photos))}; pass authentic photos"
        )
    calibration = Calibration.from_scores(
        scores, predictor.preprocessing, native=native, photos=properties
    )
    return calibration, errors


def calibration_folder(checkpoint: str, out: str = "") -> Path:
    """Return the folder to which a calibration and, if necessary, the model are written.

    This is ``out`` or, by default, the checkpoint, which must then be a folder written by
    ``save_pretrained``.

    Raises:
        CalibrationError: If ``out`` is empty and the checkpoint is not such a folder.
    """
    folder = Path(out or checkpoint)
    is_saved = (folder / CONFIG_NAME).is_file() and newest_checkpoint(folder) is None
    if not out and not is_saved:
        raise CalibrationError(
            f"got {checkpoint} and no --out, expected a folder written by save_pretrained, which "
            "can hold a calibration; pass --out DIR to write the model and its calibration there"
        )
    return folder


def save_calibration(
    calibration: Calibration, predictor: QMANetPredictor, folder: str | os.PathLike[str]
) -> Path:
    """Write a calibration to a folder, with the model unless it is there; return its path."""
    folder, weights = Path(folder), predictor.model.weights_file
    predictor.model.calibration = calibration
    is_same_folder = weights is not None and Path(weights).parent == folder
    if is_same_folder and (folder / CONFIG_NAME).is_file():
        write_calibration(folder, calibration)
    else:
        predictor.model.save_pretrained(folder)
    return folder / CALIBRATION_NAME

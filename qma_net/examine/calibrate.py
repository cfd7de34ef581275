"""``qma-net calibrate``: what a model's score is on photographs that nobody touched."""

import os
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from ..core.errors import QMANetError
from ..inference.photograph import PhotographError
from ..inference.predict import photographs
from ..inference.predictor import QMANetPredictor
from ..modeling.calibration import Calibration
from ..modeling.hub import CALIBRATION_NAME, CONFIG_NAME, write_calibration
from ..weights.locate import newest_checkpoint


class CalibrationError(QMANetError):
    """Nothing to calibrate with, or nowhere to keep it; one line says what to do."""


def calibrate(
    predictor: QMANetPredictor, photos: Sequence[str], *, native: bool = False
) -> tuple[Calibration, list[str]]:
    """The scores of untouched photographs.

    Args:
        predictor: the model.
        photos: files, folders (searched recursively) and patterns.
        native: at the photographs' own size.

    Returns:
        The calibration, and the errors, one line each, of what is no photograph.

    Raises:
        CalibrationError: when none of them can be read.
    """
    scores, errors = [], []
    for path in tqdm(photographs(photos), desc="calibrate", unit="photo"):
        try:
            scores.append(predictor.predict(path, native=native).score)
        except PhotographError as error:
            errors.append(str(error))
    if not scores:
        raise CalibrationError(
            f"got {', '.join(map(str, photos))}, expected untouched photographs: none can be read"
        )
    return Calibration.from_scores(scores, predictor.preprocessing, native=native), errors


def place_of(checkpoint: str, out: str = "") -> Path:
    """The directory that a calibration is written to.

    Args:
        checkpoint: where the model was loaded from.
        out: a directory of its own; default: the checkpoint, where it is one of save_pretrained.

    Raises:
        CalibrationError: without one.
    """
    place = Path(out or checkpoint)
    is_saved = (place / CONFIG_NAME).is_file() and newest_checkpoint(place) is None
    if not out and not is_saved:
        raise CalibrationError(
            f"got {checkpoint} and no --out, expected a directory of save_pretrained, which can "
            "hold a calibration: give --out DIR, and the model is written there with it"
        )
    return place


def keep(calibration: Calibration, predictor: QMANetPredictor, place: str | os.PathLike) -> Path:
    """Writes a calibration beside the weights that it belongs to; the weights too, if elsewhere.

    Returns:
        The file.
    """
    place, file = Path(place), predictor.model.weights_file
    predictor.model.calibration = calibration
    if file is not None and Path(file).parent == place and (place / CONFIG_NAME).is_file():
        write_calibration(place, calibration)
    else:
        predictor.model.save_pretrained(place)
    return place / CALIBRATION_NAME

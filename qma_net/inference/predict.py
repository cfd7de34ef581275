"""``qma-net predict``: photographs in, masks and overlays and a table out."""

import csv
import glob
import io
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..files import unused, write_png, write_text
from ..modeling.config import QMANetConfig
from ..modeling.qma_net import QMANetModel
from ..pictures import find_images
from .photograph import PhotographError
from .predictor import Prediction, QMANetPredictor

RANDOM = "random"  # the name by which a model that knows nothing must be asked for
COLUMNS = ("file", "score", "marked", "width", "height", "mask", "overlay", "notes", "error")


def predict_files(
    names: Iterable[str],
    out: str | os.PathLike,
    predictor: QMANetPredictor,
    *,
    threshold: float = 0.5,
    native: bool = False,
    tta: bool = False,
    note: str = "",
) -> list[str]:
    """Writes ``<stem>_mask.png``, ``<stem>_overlay.png`` and ``predictions.csv``.

    The mask is 8-bit grey, 255 for certainly manipulated. A second photograph of the same stem
    gets ``<stem>_2_...``; the table says which is which. What is no photograph is a row with an
    error, and the rest go on.

    Args:
        names: files, folders (searched recursively) and patterns.
        out: folder to write to.
        note: added to the notes of every row.

    Returns:
        The errors, one line each.
    """
    out, rows, errors, taken = Path(out), [], [], set()
    for path in tqdm(photographs(names), desc="predict", unit="photo"):
        row = dict.fromkeys(COLUMNS, "") | {"file": str(path)}
        rows.append(row)
        try:
            prediction = predictor.predict(path, threshold=threshold, native=native, tta=tta)
        except PhotographError as error:
            row["error"] = str(error)
            errors.append(str(error))
            continue
        stem = unused(path.stem, taken)
        row |= _written(prediction, out, stem)
        row["notes"] = "; ".join([*prediction.photograph.notes, *([note] if note else [])])
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(out / "predictions.csv", table.getvalue())
    return errors


def photographs(names: Iterable[str]) -> list[Path]:
    """The files that names, folders and patterns stand for; a name that is nothing stays."""
    found = []
    for name in map(str, names):
        path = Path(name)
        if path.is_dir():
            inside = find_images(path)
            if not inside:
                raise PhotographError(f"got {path}, expected photographs in it: there are none")
            found += inside
        elif not path.exists() and (matches := sorted(glob.glob(name, recursive=True))):
            found += [Path(match) for match in matches]
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def load_predictor(checkpoint: str, device: str = "", **options) -> tuple[QMANetPredictor, str]:
    """The predictor of a checkpoint, and a note for its results ("" for a trained one).

    ``options``: see :class:`QMANetPredictor`.

    Raises:
        WeightsError: for what is no checkpoint. No weights are published yet, so there is no
            default either.
    """
    if checkpoint == RANDOM:
        note = "RANDOM WEIGHTS: this mask means nothing"
        print(f"qma-net: {note}; it shows the mechanics only", file=sys.stderr)
        model = QMANetModel.from_config(QMANetConfig(size="b0", views="srm,bayar"))
        return QMANetPredictor(model, device or None, **options), note
    return QMANetPredictor.from_pretrained(checkpoint, device or None, **options), ""


def _written(prediction: Prediction, out: Path, stem: str) -> dict:
    height, width = prediction.mask.shape
    mask, overlay = out / f"{stem}_mask.png", out / f"{stem}_overlay.png"
    write_png(mask, np.rint(prediction.mask * 255).astype(np.uint8))
    write_png(overlay, prediction.overlay())
    return {
        "score": f"{prediction.score:.6f}",
        "marked": f"{prediction.binary.mean():.6f}",
        "width": width,
        "height": height,
        "mask": mask.name,
        "overlay": overlay.name,
    }

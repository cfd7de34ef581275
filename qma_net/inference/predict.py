"""``qma-net predict``: photographs in, masks and overlays and a table out."""

import csv
import glob
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tqdm import tqdm

from ..core.errors import QMANetError
from ..core.files import remove_temporary_files, unique_name, write_png, write_text
from ..core.images import find_images
from ..core.runs import FolderLock
from ..modeling.config import QMANetConfig
from ..modeling.qma_net import QMANetModel
from ..weights.names import RANDOM
from .photograph import PhotographError, read_photograph
from .prediction import Prediction, as_grey
from .predictor import QMANetPredictor, require_probability, usable_device

SCORE = (
    "score: the mean of the most suspicious 1 % of a photograph's pixels. It is no probability "
    "that the photograph is a forgery: untouched ones score too, how high differs by model"
)
STDIN = Path("-")  # the name that stands for what comes through a pipe
TABLE, SETTINGS = "predictions.csv", "predictions.json"
COLUMNS = ("file", "score", "marked", "width", "height", "mask", "overlay", "notes", "error")
MASK_ENDING, OVERLAY_ENDING = "_mask.png", "_overlay.png"


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

    The mask is 8-bit grey, 255 where the model gives a probability of 1. Another photograph of
    the same stem gets ``<stem>_2_...``; the table says which is which. A row stands in the table as
    soon as its pictures are there: a stopped run keeps its rows, and the same call goes on.
    What is no photograph is a row with an error, and the rest go on.

    Args:
        names: files, folders (searched recursively) and patterns; ``-`` is the standard input.
        out: folder to write to; ``predictions.json`` in it says by which model and settings.
        predictor: the model.
        threshold: above it a pixel is called manipulated.
        native: at the photograph's own size.
        tta: averaged over mirror images.
        note: added to the notes of every row.

    Returns:
        The errors, one line each.

    Raises:
        PredictionsError: for a folder with predictions of another model or other settings.
        BusyError: for a folder that another run is writing to.
    """
    require_probability(threshold)
    paths, errors = photographs(names), []
    with FolderLock(out):
        remove_temporary_files(out)
        settings = predictor.describe() | {"threshold": threshold, "native": native, "tta": tta}
        table = Predictions(Path(out), settings)
        with table.open() as add:
            todo = [path for path in paths if not table.has(path)]
            bar = tqdm(todo, desc="predict", unit="photo", initial=len(paths) - len(todo))
            bar.total = len(paths)
            for path in bar:
                row = dict.fromkeys(COLUMNS, "") | {"file": name_of(path)}
                try:
                    photograph = read_photograph(source_of(path), name_of(path))
                    with tile_bar() as progress:
                        prediction = predictor.predict(
                            photograph,
                            threshold=threshold,
                            native=native,
                            tta=tta,
                            progress=progress,
                        )
                except PhotographError as error:
                    errors.append(str(error))
                    add(row | {"error": str(error)})
                    continue
                stem = table.unused_stem(Path(name_of(path)))
                row |= _written(prediction, Path(out), stem)
                notes = (*prediction.notes, note) if note else prediction.notes
                add(row | {"notes": "; ".join(notes)})
    return errors


def name_of(path: Path) -> str:
    """What a photograph is called in results: its path, or ``stdin``."""
    return "stdin" if path == STDIN else str(path)


def source_of(path: Path) -> Path | bytes:
    """What is read of a path that :func:`photographs` gave: its file, or what the pipe brings."""
    return sys.stdin.buffer.read() if path == STDIN else path


@contextmanager
def tile_bar() -> Iterator[Callable[[int, int], None]]:
    """A bar of a photograph's tiles, with the time left, on a terminal; yields ``progress``.

    Of a photograph that is one tile there is none.
    """
    with ExitStack() as stack:
        shown = []

        def progress(done: int, total: int) -> None:
            if total == 1:
                return
            if not shown:
                bar = tqdm(
                    total=total, desc="tiles", unit="tile", leave=False, smoothing=0, disable=None
                )
                shown.append(stack.enter_context(bar))
            shown[0].update(done - shown[0].n)

        yield progress


class PredictionsError(QMANetError):
    """A folder that holds something else; one line says what, and what to do."""


class Predictions:
    """``predictions.csv`` of a folder, a row at a time; rows that are done stay.

    Args:
        folder: of the table and its pictures.
        settings: what made the rows; kept in ``predictions.json``.
    """

    def __init__(self, folder: Path, settings: dict):
        self.table, self.note = folder / TABLE, folder / SETTINGS
        settings = json.loads(json.dumps(settings))
        if self.table.exists() or self.note.exists():
            self._require(settings)
        else:
            write_text(self.note, json.dumps(settings, indent=1) + "\n")
        self.rows = [row for row in read_rows(self.table) if self._is_done(row)]
        self._done = {row["file"] for row in self.rows}
        self._taken = {row["mask"].removesuffix(MASK_ENDING) for row in self.rows}

    def _require(self, settings: dict) -> None:
        try:
            kept = json.loads(self.note.read_text())
        except (OSError, ValueError):
            kept = {}
        differing = [key for key in settings if kept.get(key) != settings[key]]
        if differing:
            key = differing[0]
            raise PredictionsError(
                f"got {self.table.parent} with predictions of another model or other settings "
                f"({key} {kept.get(key)}), expected {key} {settings[key]}: give another --out"
            )

    def _is_done(self, row: dict) -> bool:
        """Whether a row's mask is there, and is later than its photograph, where that is a file."""
        try:
            made = (self.table.parent / row["mask"]).stat().st_mtime
            is_file = row["file"] != name_of(STDIN)
            changed = Path(row["file"]).stat().st_mtime if is_file else made
            return not row["error"] and made >= changed
        except OSError:
            return False

    @contextmanager
    def open(self) -> Iterator[Callable[[dict], None]]:
        """Yields how to add a row, which is in the file when that returns."""
        write_text(self.table, _as_csv([dict(zip(COLUMNS, COLUMNS, strict=True)), *self.rows]))
        with open(self.table, "a", newline="") as file:

            def add(row: dict) -> None:
                file.write(_as_csv([row]))
                file.flush()

            yield add

    def has(self, path: Path) -> bool:
        return str(path) in self._done

    def unused_stem(self, path: Path) -> str:
        """The photograph's stem, with a number behind it where the folder has one of that name."""
        return unique_name(path.stem, self._taken)


def read_rows(table: Path) -> list[dict]:
    """The rows of a ``predictions.csv``; a line that a killed run left torn is passed over."""
    if not table.is_file():
        return []
    text = table.read_text(errors="replace")
    whole = text[: text.rfind("\n") + 1]
    rows = csv.DictReader(io.StringIO(whole, newline=""))
    return [row for row in rows if set(COLUMNS) <= row.keys() and None not in row.values()]


def _as_csv(rows: Iterable[dict]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n").writerows(rows)
    return text.getvalue()


def photographs(names: Iterable[str]) -> list[Path]:
    """The files that names, folders and patterns stand for; a name that is nothing stays.

    ``-`` is :data:`STDIN`.

    Masks and overlays that a ``predictions.csv`` beside them lists are left out of folders and
    patterns.
    """
    found = []
    for name in map(str, names):
        path = Path(name)
        if path == STDIN:
            found.append(path)
        elif path.is_dir():
            inside = _without_our_own(find_images(path))
            if not inside:
                raise PhotographError(f"got {path}, expected photographs in it: there are none")
            found += inside
        elif not path.exists() and (matches := sorted(glob.glob(name, recursive=True))):
            found += _without_our_own(map(Path, matches))
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def _without_our_own(paths: Iterable[Path]) -> list[Path]:
    made, kept = {}, []
    for path in paths:
        if path.parent not in made:
            rows = read_rows(path.parent / TABLE)
            made[path.parent] = {row[column] for row in rows for column in ("mask", "overlay")}
        if path.name not in made[path.parent]:
            kept.append(path)
    return kept


def load_predictor(checkpoint: str, device: str = "", **options) -> tuple[QMANetPredictor, str]:
    """The predictor of a checkpoint, and a note for its results ("" for a trained one).

    ``options``: see :class:`QMANetPredictor`.

    Raises:
        WeightsError: for what is no checkpoint.
    """
    if checkpoint == RANDOM:
        note = "RANDOM WEIGHTS: this mask means nothing"
        print(f"qma-net: {note}; it shows the mechanics only", file=sys.stderr)
        model = QMANetModel.from_config(QMANetConfig(size="b0", views="srm,bayar"))
        return QMANetPredictor(model, usable_device(device), **options), note
    return QMANetPredictor.from_pretrained(checkpoint, device, **options), ""


def _written(prediction: Prediction, out: Path, stem: str) -> dict:
    height, width = prediction.mask.shape
    mask, overlay = out / f"{stem}{MASK_ENDING}", out / f"{stem}{OVERLAY_ENDING}"
    write_png(mask, as_grey(prediction.mask))
    write_png(overlay, prediction.overlay())
    return {
        "score": f"{prediction.score:.6f}",
        "marked": f"{prediction.binary.mean():.6f}",
        "width": width,
        "height": height,
        "mask": mask.name,
        "overlay": overlay.name,
    }

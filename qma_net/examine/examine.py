"""``qma-net examine``: one report per photograph, with a model or without."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from ..core.files import remove_temporary_files, unique_name
from ..core.runs import FolderLock
from ..inference.photograph import PhotographError
from ..inference.predict import name_of, photographs, source_of, tile_bar
from ..inference.predictor import QMANetPredictor, require_probability
from ..modeling.noise import NoisePrint
from ..weights.reading import sha256
from ..weights.sources import load_noiseprint
from .examination import Evidence, Examination, examine, read_evidence, without_model
from .examination_page import MASK, OVERLAY, PAGE, REPORT, write_examination

FILES = {REPORT, PAGE, MASK, OVERLAY}


def examine_files(
    names: Iterable[str],
    out: str | os.PathLike,
    predictor: QMANetPredictor | None = None,
    *,
    threshold: float = 0.5,
    native: bool = False,
    noiseprint_weights: str = "",
    note: str = "",
) -> tuple[list[Path], list[str]]:
    """Writes ``<stem>/report.html`` and ``<stem>/report.json``, with a model mask and overlay.

    A folder of that name with the report of another photograph, or of other settings, stays; the
    new one gets a number. A report that is there already is not made again. What is no photograph
    is one line, and the rest go on.

    Args:
        names: files, folders (searched recursively) and patterns; ``-`` is the standard input.
        out: folder to write to.
        predictor: the model; without one everything but the mask is made.
        threshold: above it a pixel is called manipulated.
        native: at the photograph's own size.
        noiseprint_weights: the published file, for a view of its own.
        note: added to the notes of every report.

    Returns:
        The reports' folders, and the errors, one line each.

    Raises:
        BusyError: for a folder that another run is writing to.
        WeightsError: for weights that are no NoisePrint++.
    """
    require_probability(threshold)
    paths = [path for path in photographs(names) if not _is_our_own(path)]
    settings = _settings(predictor, threshold, native, noiseprint_weights)
    noiseprint = _noiseprint(noiseprint_weights, predictor)
    folders, errors = [], []
    with FolderLock(out):
        reports = Reports(Path(out), settings)
        for path in tqdm(paths, desc="examine", unit="photo", disable=len(paths) < 2):
            folder = reports.finished(path)
            if folder is None:
                try:
                    evidence = read_evidence(source_of(path), name_of(path))
                    examination = _examined(evidence, settings, predictor, noiseprint, note)
                except PhotographError as error:
                    errors.append(str(error))
                    continue
                folder = reports.unused_folder(Path(name_of(path)))
                write_examination(examination, folder)
            folders.append(folder)
    return folders, errors


class Reports:
    """The reports in a folder: which photograph each is of, and by which settings.

    Args:
        folder: of all of them.
        settings: of the reports that are wanted.
    """

    def __init__(self, folder: Path, settings: dict):
        self.folder, self.taken, self.done = folder, set(), {}
        settings = json.loads(json.dumps(settings))
        for place in folder.iterdir():
            remove_temporary_files(place)
            report = _read(place / REPORT)
            if report.get("settings") == settings:
                self.done[report.get("file"), report.get("sha256")] = place
            if report or not place.is_dir() or {file.name for file in place.iterdir()} - FILES:
                self.taken.add(place.name)

    def finished(self, path: Path) -> Path | None:
        """The folder of a report on the same bytes by the same settings; None without."""
        try:
            return self.done.get((str(path), sha256(path)))
        except OSError:  # reading it says what it is instead
            return None

    def unused_folder(self, path: Path) -> Path:
        """The photograph's stem, with a number behind it where that is taken."""
        return self.folder / unique_name(path.stem.strip(". ") or "photograph", self.taken)


def _examined(
    evidence: Evidence,
    settings: dict,
    predictor: QMANetPredictor | None,
    noiseprint: NoisePrint | None,
    note: str,
) -> Examination:
    notes = (note,) if note else ()
    if predictor is None:
        return examine(evidence, settings, noiseprint=noiseprint, notes=notes)
    with tile_bar() as progress:
        return predictor.examined(
            evidence, settings, noiseprint=noiseprint, notes=notes, progress=progress
        )


def _settings(
    predictor: QMANetPredictor | None, threshold: float, native: bool, noiseprint_weights: str
) -> dict:
    chosen = {"noiseprint_sha256": sha256(noiseprint_weights)} if noiseprint_weights else {}
    if predictor is None:
        return without_model() | chosen
    return predictor.examination_settings(threshold=threshold, native=native) | chosen


def _noiseprint(weights: str, predictor: QMANetPredictor | None) -> NoisePrint | None:
    if not weights:
        return None
    noiseprint = NoisePrint()
    load_noiseprint(noiseprint, weights)
    return noiseprint if predictor is None else noiseprint.to(predictor.device)


def _is_our_own(path: Path) -> bool:
    """Whether a picture is a report's mask or overlay."""
    return path.name in FILES and (path.parent / REPORT).is_file()


def _read(report: Path) -> dict:
    try:
        content = json.loads(report.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}

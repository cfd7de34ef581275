"""``qma-net examine``: the steps of an examination, for one photo and for many.

The steps are evidence, prediction, readability, leads, assembly and page. They do not call each
other.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from .. import __version__
from ..core.files import remove_temporary_files, sha256, to_json
from ..core.images import TRANSPOSED_ORIENTATIONS
from ..core.runs import Run
from ..core.untrusted import file_stem, one_line
from ..inference.photo_files import (
    STDIN,
    display_name,
    file_state,
    find_photos,
    is_current,
    photo_source,
    tile_progress_bar,
    unused_stem,
)
from ..inference.photograph import Photograph, PhotographError, PhotoSource
from ..inference.prediction import Prediction
from ..inference.predictor import require_probability
from ..inference.tiles import ProgressCallback
from ..modeling.calibration import Calibration
from ..modeling.config import DEFAULT_THRESHOLD, Preprocessing
from ..modeling.noise import NoisePrint
from ..weights.sources import load_noiseprint
from .content_credentials import require_trust_list
from .evidence import Evidence, read_evidence
from .examination import Examination, assemble
from .index import has_index, write_index
from .leads import Lead, leads, present_grid
from .page import REPORT, write_report
from .readability import readability
from .texts import without_folder

MAX_SHOWN_NAME = 40  # Characters of the current photo's name next to the progress bar.


class Predictor(Protocol):
    """What an examination needs from a model, such as :class:`qma_net.QMANetPredictor`."""

    @property
    def preprocessing(self) -> Preprocessing:
        """How photos are fed to the model."""

    @property
    def calibration(self) -> Calibration | None:
        """The scores of authentic photos, if they were measured."""

    @property
    def noiseprint(self) -> NoisePrint | None:
        """The model's NoisePrint++, if it has one."""

    def describe(self) -> dict[str, Any]:
        """Return the settings that results depend on."""

    def predict(
        self,
        image: Photograph,
        threshold: float = ...,
        native: bool = ...,
        *,
        progress: ProgressCallback | None = ...,
    ) -> Prediction:
        """Predict the mask of a photo."""


def examine_photo(
    predictor: Predictor | None,
    photo: PhotoSource,
    *,
    threshold: float = DEFAULT_THRESHOLD,
    native: bool = False,
    noiseprint: NoisePrint | None = None,
    trust_list: str = "",
    omit_location: bool = False,
    out: str | os.PathLike[str] | None = None,
    progress: ProgressCallback | None = None,
) -> Examination:
    """Examine one photo.

    Args:
        predictor: The model; None to examine the photo without one.
        photo: See :meth:`qma_net.QMANetPredictor.predict`. An array or a PIL image has no file to
            read facts from.
        threshold: In 0..1. Pixels with a higher model output are marked.
        native: Process the photo at original resolution.
        noiseprint: NoisePrint++ with its weights, to compute its view; by default the model's.
        trust_list: See :func:`.content_credentials.read_credentials`.
        omit_location: Leave out metadata that can reveal where the photo was taken; see
            :mod:`.location`.
        out: The folder to which :func:`write_report` writes, if any.
        progress: See :meth:`qma_net.QMANetPredictor.predict`.

    Raises:
        PhotographError: If the source is not an image. An image whose pixels cannot be decoded is
            examined without them; ``evidence.fault`` says why.
        NonFiniteError: If the model outputs NaN or infinity.
        ConfigError: If the threshold is outside 0..1.
    """
    evidence = read_evidence(photo, trust_list=trust_list)
    examination = examine_evidence(
        evidence,
        predictor,
        describe_settings(predictor, threshold=threshold, native=native),
        noiseprint=noiseprint,
        progress=progress,
    )
    if omit_location:
        examination = examination.without_location()
    if out is not None:
        write_report(examination, out)
    return examination


def describe_settings(
    predictor: Predictor | None, *, threshold: float, native: bool
) -> dict[str, Any]:
    """Return the model and the options that an examination depends on.

    Raises:
        ConfigError: If the threshold is outside 0..1.
    """
    require_probability(threshold)
    if predictor is None:
        names = ("about", "checkpoint", "checkpoint_sha256")
        return {"qma_net": __version__, "model": {}, **dict.fromkeys(names, "")}
    options = {"threshold": threshold, "native": native}
    shown = predictor.preprocessing.describe(native=native)
    return predictor.describe() | options | {"shown": shown}


def examine_evidence(
    evidence: Evidence,
    predictor: Predictor | None,
    settings: Mapping[str, Any],
    *,
    noiseprint: NoisePrint | None = None,
    notes: Sequence[str] = (),
    progress: ProgressCallback | None = None,
) -> Examination:
    """Examine a photo that has already been read.

    Without readable pixels, there is no mask and there are no leads. The arguments are those of
    :func:`examine_photo`, except that ``settings`` comes from :func:`describe_settings` and
    ``notes`` are added to those of the examination.
    """
    prediction, calibration = None, None
    views: tuple[Lead, ...] = ()
    photograph = evidence.photograph
    is_jpeg = evidence.facts is not None and evidence.facts.format == "JPEG"
    jpeg = evidence.facts.jpeg if evidence.facts is not None else None
    if predictor is not None:
        calibration = predictor.calibration
        noiseprint = noiseprint or predictor.noiseprint
    if photograph and not photograph.too_small:
        if predictor is not None:
            prediction = predictor.predict(
                photograph,
                threshold=settings["threshold"],
                native=settings["native"],
                progress=progress,
            )
        views = leads(
            photograph.present_pixels,
            noiseprint,
            file_grid=present_grid(photograph) if is_jpeg else None,
            luma_table=jpeg.tables.get(0) if jpeg else None,
            is_transposed=photograph.orientation in TRANSPOSED_ORIENTATIONS,
            file_format=evidence.facts.format if evidence.facts else "",
        )
    return assemble(
        evidence,
        prediction,
        readability(
            photograph.pixels,
            is_jpeg=is_jpeg,
            orientation=photograph.orientation,
            present=photograph.present,
        )
        if photograph
        else None,
        views,
        settings=settings,
        calibration=calibration,
        notes=notes,
    )


def examine_files(
    names: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    predictor: Predictor | None = None,
    *,
    threshold: float = DEFAULT_THRESHOLD,
    native: bool = False,
    noiseprint_weights: str = "",
    trust_list: str = "",
    omit_location: bool = False,
    note: str = "",
    progress: bool = True,
) -> tuple[list[Path], list[str]]:
    """Write ``<stem>/report.html``, ``<stem>/report.json`` and, with a model, mask and overlay.

    If the stem is already used by another photo, by the same photo with different settings or by
    one of the user's own folders, the next free one of ``<stem>_2``, ... is used. Finished reports
    are not regenerated. Files that are not photos are skipped with an error; a damaged image gets
    an error and a report on its file. For several photos, or if the folder already has an index,
    :func:`.index.write_index` ranks all reports in the folder.

    Args:
        names: Files, folders (searched recursively) and patterns; ``-`` is standard input.
        out: The folder to write to. Reports with different settings may share it.
        predictor: The model; None to examine photos without one.
        threshold: In 0..1. Pixels with a higher model output are marked.
        native: Process photos at original resolution.
        noiseprint_weights: The published weights of NoisePrint++, to compute its view; empty for
            none.
        trust_list: See :func:`.content_credentials.read_credentials`.
        omit_location: Leave out metadata that can reveal where the photos were taken.
        note: Added to the notes of every report.
        progress: Whether to show progress bars.

    Returns:
        The folders of the reports, and the errors, one line each.

    Raises:
        BusyError: If another run is writing to the folder.
        ContentError: If the trust list contains no certificates.
        WeightsError: If the weights are not those of NoisePrint++.
    """
    out, notes = Path(out), (note,) if note else ()
    paths = find_photos(names)
    settings = describe_settings(predictor, threshold=threshold, native=native)
    noiseprint = None
    if trust_list:
        require_trust_list(trust_list)
        settings["trust_list_sha256"] = sha256(trust_list)
    if noiseprint_weights:
        settings["noiseprint_sha256"] = sha256(noiseprint_weights)
        noiseprint = NoisePrint()
        load_noiseprint(noiseprint, noiseprint_weights)
        noiseprint.to(getattr(predictor, "device", "cpu"))
    if omit_location:
        settings["omit_location"] = True
    folders: list[Path] = []
    errors: list[str] = []
    digest = hashlib.sha256(to_json(settings, sort_keys=True).encode()).hexdigest()
    journal = f".examine-{digest[:12]}.jsonl"  # Each set of settings has its own journal.
    with Run(
        out, settings, key=["folder"], required=["file"], journal=journal, contents="reports"
    ) as run:
        # The reports are only required to exist, since a user may have edited them.
        finished = {
            record["file"]: record
            for record in run.finished.values()
            if (out / record["folder"] / REPORT).is_file()
        }
        taken = {record["folder"] for record in finished.values()}
        for name in {Path(file).parts[0] for file in run.owned}:
            remove_temporary_files(out / name)
        skipped: list[str] = []
        bar = tqdm(paths, desc="examine", unit="photo", disable=not progress)
        for path in bar:
            name = display_name(path)
            bar.set_postfix_str(one_line(Path(name).name, MAX_SHOWN_NAME))
            record = finished.get(name) if path != STDIN else None
            if record and is_current(record):
                folders.append(out / record["folder"])
                errors += [record["error"]] if record.get("error") else []
                continue
            state = file_state(path)
            try:
                evidence = read_evidence(photo_source(path), name, trust_list=trust_list)
                if record and evidence.facts and evidence.facts.sha256 == record["sha256"]:
                    run.finish(record | state)  # Only the modification time has changed.
                    folders.append(out / record["folder"])
                    errors += [record["error"]] if record.get("error") else []
                    continue
                with tile_progress_bar(enabled=progress) as tile_progress:
                    examination = examine_evidence(
                        evidence,
                        predictor,
                        settings,
                        noiseprint=noiseprint,
                        notes=notes,
                        progress=tile_progress,
                    )
                if omit_location:
                    examination = examination.without_location()
            except PhotographError as error:
                errors.append(str(error))
                skipped.append(without_folder(str(error), name))
                continue
            stem = file_stem(Path(name).stem).strip(". ") or "photograph"
            folder = out / unused_stem(run, stem, taken)
            run.claim([folder])
            write_report(examination, folder)
            file_hash = evidence.facts.sha256 if evidence.facts else None
            row = {"file": name, "folder": folder.name, "sha256": file_hash, **state}
            run.finish(row | ({"error": evidence.fault} if evidence.fault else {}))
            folders.append(folder)
            errors += [evidence.fault] if evidence.fault else []
        if len(paths) > 1 or has_index(out):
            write_index(out, skipped)
    return folders, errors

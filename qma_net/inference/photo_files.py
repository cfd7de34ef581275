"""The photos that a command was given: files, folders, patterns and the standard input."""

import csv
import glob
import io
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from ..core.files import ContentError, open_regular, read_json_object, unique_name
from ..core.images import HEADER_SIZE, IMAGE_CONTENTS, IMAGE_SUFFIXES, describe_content
from ..core.runs import Run
from ..core.untrusted import plain_cell
from .photograph import PhotographError, reject_address
from .tiles import ProgressCallback

logger = logging.getLogger(__name__)

STDIN = Path("-")  # Stands for the standard input.

PREDICTION_TABLE = "predictions.csv"
PREDICTION_COLUMNS = (
    *("file", "score", "marked", "width", "height"),
    *("mask", "overlay", "notes", "error"),
)

# What an examination writes to the folder of a photo, and keys that every report.json has.
REPORT_FILES = ("report.json", "report.html", "mask.png", "overlay.png", "thumbnail.jpg")
REPORT_KEYS = frozenset(("file", "sha256", "leads", "settings"))

NAMED_SKIPPED = 5  # Maximum number of skipped files named in the log.
RAW_SUFFIXES = frozenset(
    ".3fr .arw .cr2 .cr3 .dcr .dng .erf .fff .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf "
    ".raw .rw2 .rwl .srw .x3f".split()
)


def find_photos(names: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """List the photos that names, folders and patterns stand for.

    In folders, which are searched recursively, and patterns, a photo is recognized by its content.
    Files that are not photos are skipped, and the first of them are named in a log message; a file
    that has the suffix of a photo is kept, so that reading it reports the fault. Files that earlier
    runs of qma-net wrote are also skipped, and a log message states their number: masks and
    overlays listed in a ``predictions.csv`` in the same folder, and :data:`REPORT_FILES` in the
    same folder as the report of an examination. A file that is named explicitly is always kept, and
    so is a name that matches nothing. ``-`` becomes :data:`STDIN`.

    Raises:
        PhotographError: If a folder contains no photos, if there are only results of earlier runs,
            or if a name is a URL.
    """
    paths: list[Path] = []
    skipped: list[Path] = []
    outputs: list[Path] = []
    for name in map(str, names):
        reject_address(name)
        path = Path(name)
        if path == STDIN:
            paths.append(path)
        elif os.path.isdir(path):  # Path.is_dir() raises an error for an overlong name.
            photos, others, earlier = _separate(_files_in(path))
            if not (photos or earlier):
                raise PhotographError(f"{path} contains no photos")
            paths += photos
            skipped += others
            outputs += earlier
        elif not os.path.exists(path) and (matches := sorted(glob.glob(name, recursive=True))):
            photos, others, earlier = _separate(map(Path, matches))
            paths += photos
            skipped += others
            outputs += earlier
        else:
            paths.append(path)
    if skipped:
        examples = ", ".join(path.name for path in skipped[:NAMED_SKIPPED])
        more = ", ..." if len(skipped) > NAMED_SKIPPED else ""
        kind = "file that is not a photo" if len(skipped) == 1 else "files that are not photos"
        logger.warning("skipped %d %s: %s%s", len(skipped), kind, examples, more)
    if outputs and not paths:
        raise PhotographError(
            "the input contains no photos other than results of earlier runs, such as "
            f"{outputs[0]}; name a file to include it"
        )
    if count := len(set(outputs) - set(paths)):
        files = "file that an earlier run" if count == 1 else "files that earlier runs"
        logger.warning("skipped %d %s of qma-net wrote; name a file to include it", count, files)
    return list(dict.fromkeys(paths))


def is_photo(path: Path) -> bool:
    """Check whether a file in a folder is to be read as a photo.

    Its content decides, but a file with the suffix of a photo counts as well, since it may be
    damaged. Two kinds of files are rejected by name: hidden files, among them the ``._name.jpg`` in
    which macOS stores attributes, and raw files, some of which begin like a TIFF, although only a
    preview in them could be read.
    """
    if path.name.startswith(".") or path.suffix.lower() in RAW_SUFFIXES:
        return False
    try:
        if not path.is_file():
            return False
        with open_regular(path) as file:
            kind = describe_content(file.read(HEADER_SIZE))
    except (OSError, ContentError):
        kind = ""
    return kind in IMAGE_CONTENTS or path.suffix.lower() in IMAGE_SUFFIXES


def display_name(path: Path) -> str:
    """Return the name of a photo in results: its path, or ``stdin``."""
    return "stdin" if path == STDIN else str(path)


def photo_source(path: Path) -> Path | BinaryIO:
    """Return what to read for a path from :func:`find_photos`: the path or the standard input."""
    return sys.stdin.buffer if path == STDIN else path


def file_state(path: Path) -> dict[str, int]:
    """Return the size and modification time of a photo, to detect that it has been replaced.

    The result is empty for the standard input and for files that do not exist.
    """
    try:
        status = None if path == STDIN else path.stat()
    except (OSError, ValueError):
        status = None
    return {"file_bytes": status.st_size, "file_mtime_ns": status.st_mtime_ns} if status else {}


def is_current(record: dict[str, Any]) -> bool:
    """Check that a recorded photo has not been replaced.

    The record contains its :func:`file_state`. The result of a photo that no longer exists counts
    as current.
    """
    state = file_state(Path(record["file"]))
    return "file_bytes" not in record or all(record[key] == state[key] for key in state)


def unused_stem(run: Run, stem: str, taken: set[str], suffixes: Sequence[str] = ("",)) -> str:
    """Return the stem, with a number if results of that name would overwrite other files.

    The run's own files may be overwritten, unless their stem is ``taken`` by another result; the
    returned stem is added to ``taken``. The names of the results are the stem followed by each of
    the suffixes.
    """
    while True:
        candidate = unique_name(stem, taken)
        files = [candidate + suffix for suffix in suffixes]
        if all(file in run.owned or not (run.folder / file).exists() for file in files):
            return candidate


@contextmanager
def tile_progress_bar(*, enabled: bool = True) -> Iterator[ProgressCallback]:
    """Yield a progress callback that shows a bar of a photo's tiles, if there are several."""
    # With a delay, the bar of a single tile, which is never updated, does not appear.
    with tqdm(
        desc="tiles",
        unit="tile",
        leave=False,
        smoothing=0,
        mininterval=0,
        delay=1e-6,
        disable=None if enabled else True,
    ) as bar:

        def progress(finished: int, total: int) -> None:
            if total > 1:
                bar.total = total
                bar.update(finished - bar.n)

        yield progress


def _files_in(folder: Path) -> list[Path]:
    """List the files in a folder and in its subfolders that are not hidden, sorted by path."""
    paths: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(parent, name) for name in names]
    return sorted(paths)


def _separate(paths: Iterable[Path]) -> tuple[list[Path], list[Path], list[Path]]:
    """Separate photos from other files and from what earlier runs of qma-net wrote.

    Folders that a pattern matches count as photos, so that reading them reports the fault.
    """
    photos: list[Path] = []
    others: list[Path] = []
    outputs: list[Path] = []
    written: dict[Path, set[str]] = {}
    for path in paths:
        if path.parent not in written:
            written[path.parent] = _written_files(path.parent)
        if path.name in written[path.parent]:
            outputs.append(path)
        else:
            (photos if path.is_dir() or is_photo(path) else others).append(path)
    return photos, others, outputs


def _written_files(folder: Path) -> set[str]:
    """Return the names of the files in a folder that predictions or an examination wrote."""
    names = _prediction_files(folder / PREDICTION_TABLE)
    return names | set(REPORT_FILES) if _is_report(folder / REPORT_FILES[0]) else names


def _is_report(path: Path) -> bool:
    try:
        return path.is_file() and read_json_object(path, "a report").keys() >= REPORT_KEYS
    except (ContentError, OSError):
        return False


def _prediction_files(table: Path) -> set[str]:
    """Return the names of the masks and overlays that a table lists."""
    if not table.is_file():
        return set()
    text = table.read_text(encoding="utf-8", errors="replace")
    complete = text[: text.rfind("\n") + 1]  # An interrupted run can leave a torn line.
    rows = csv.DictReader(io.StringIO(complete, newline=""))
    return {plain_cell(row.get(key) or "") for row in rows for key in ("mask", "overlay")}

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

from ..core.files import ContentError, open_regular, unique_name
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


NAMED_SKIPPED = 5  # Skipped files that are named in the log.
RAW_SUFFIXES = frozenset(
    ".3fr .arw .cr2 .cr3 .dcr .dng .erf .fff .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf "
    ".raw .rw2 .rwl .srw .x3f".split()
)


def find_photos(names: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """List the photos that names, folders and patterns stand for.

    In folders, which are searched recursively, and patterns, a photo is recognized by its content.
    Files that are not photos are skipped, and the first of them are named in a log message; a file
    that has the suffix of a photo is kept, so that reading it reports the fault. Masks and overlays
    that a ``predictions.csv`` in their folder lists are left out. A name that matches nothing is
    kept, too. ``-`` becomes :data:`STDIN`.

    Raises:
        PhotographError: If a folder contains no photos, or if a name is an address.
    """
    paths: list[Path] = []
    skipped: list[Path] = []
    for name in map(str, names):
        reject_address(name)
        path = Path(name)
        if path == STDIN:
            paths.append(path)
        elif path.is_dir():
            photos, others = _separate(_files_in(path))
            if not photos:
                raise PhotographError(f"{path} contains no photos")
            paths += photos
            skipped += others
        elif not path.exists() and (matches := sorted(glob.glob(name, recursive=True))):
            photos, others = _separate(map(Path, matches))
            paths += photos
            skipped += others
        else:
            paths.append(path)
    if skipped:
        examples = ", ".join(path.name for path in skipped[:NAMED_SKIPPED])
        more = ", ..." if len(skipped) > NAMED_SKIPPED else ""
        kind = "file that is not a photo" if len(skipped) == 1 else "files that are not photos"
        logger.warning("skipped %d %s: %s%s", len(skipped), kind, examples, more)
    return list(dict.fromkeys(paths))


def is_photo(path: Path) -> bool:
    """Check whether a file in a folder is to be read as a photo.

    Its content decides. A file with the suffix of a photo counts as well, since it may be damaged,
    unless its name marks it as something else: hidden files, among them the ``._name.jpg`` in which
    macOS stores attributes, and raw files, which begin like a TIFF but contain only a preview.
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
    """Return what to read for a path of :func:`find_photos`: the path, or the standard input."""
    return sys.stdin.buffer if path == STDIN else path


def file_state(path: Path) -> dict[str, int]:
    """Return the size and modification time of a photo, to recognize when it is replaced.

    Empty for the standard input and for files that do not exist.
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
    returned stem is added to ``taken``. Suffixes are what follows the stem in the names of the
    results.
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
    """List what is in a folder and its subfolders, sorted by path, without hidden subfolders."""
    paths: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(parent, name) for name in names]
    return sorted(paths)


def _separate(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Separate photos, except for predictions, from other files.

    Folders that a pattern matches count as photos, so that reading them reports the fault.
    """
    photos: list[Path] = []
    others: list[Path] = []
    for path in paths:
        (photos if path.is_dir() or is_photo(path) else others).append(path)
    return _without_predictions(photos), others


def _without_predictions(paths: Iterable[Path]) -> list[Path]:
    outputs: dict[Path, set[str]] = {}
    photos = []
    for path in paths:
        if path.parent not in outputs:
            outputs[path.parent] = _prediction_files(path.parent / PREDICTION_TABLE)
        if path.name not in outputs[path.parent]:
            photos.append(path)
    return photos


def _prediction_files(table: Path) -> set[str]:
    """Return the names of the masks and overlays that a table lists."""
    if not table.is_file():
        return set()
    text = table.read_text(encoding="utf-8", errors="replace")
    complete = text[: text.rfind("\n") + 1]  # An interrupted run can leave a torn line.
    rows = csv.DictReader(io.StringIO(complete, newline=""))
    return {plain_cell(row.get(key) or "") for row in rows for key in ("mask", "overlay")}

"""The photos that a command was given: files, folders, patterns and the standard input."""

import csv
import glob
import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..core.files import unique_name
from ..core.images import find_images
from ..core.runs import Run
from .photograph import PhotographError
from .tiles import ProgressCallback

STDIN = Path("-")  # Stands for the standard input.

PREDICTION_TABLE = "predictions.csv"
PREDICTION_COLUMNS = (
    *("file", "score", "marked", "width", "height"),
    *("mask", "overlay", "notes", "error"),
)


def find_photos(names: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """List the files that names, folders and patterns stand for.

    A name that matches nothing is kept, so that reading it reports the fault. Masks and overlays
    that a ``predictions.csv`` in their folder lists are left out of folders, which are searched
    recursively, and patterns. ``-`` becomes :data:`STDIN`.

    Raises:
        PhotographError: If a folder contains no images.
    """
    paths: list[Path] = []
    for name in map(str, names):
        path = Path(name)
        if path == STDIN:
            paths.append(path)
        elif path.is_dir():
            inside = _without_predictions(find_images(path))
            if not inside:
                raise PhotographError(f"{path} contains no photos")
            paths += inside
        elif not path.exists() and (matches := sorted(glob.glob(name, recursive=True))):
            paths += _without_predictions(map(Path, matches))
        else:
            paths.append(path)
    return list(dict.fromkeys(paths))


def display_name(path: Path) -> str:
    """Return the name of a photo in results: its path, or ``stdin``."""
    return "stdin" if path == STDIN else str(path)


def photo_source(path: Path) -> Path | bytes:
    """Return what to read for a path of :func:`find_photos`: the path, or the piped bytes."""
    return sys.stdin.buffer.read() if path == STDIN else path


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
    """Check that the photo of a record with its :func:`file_state` has not been replaced.

    The result of a photo that no longer exists counts as current.
    """
    state = file_state(Path(record["file"]))
    return "file_bytes" not in record or all(record[key] == state[key] for key in state)


def unused_stem(run: Run, stem: str, taken: set[str], suffixes: Sequence[str] = ("",)) -> str:
    """Return the stem, with a number if results of that name would overwrite other files.

    The run's own files may be overwritten, unless their stem is ``taken`` by another result; the
    new stem is added to these. Suffixes are what follows the stem in the names of the results.
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
    return {row.get(column) or "" for row in rows for column in ("mask", "overlay")}

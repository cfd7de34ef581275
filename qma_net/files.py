"""Files that appear complete or not at all: written beside, then renamed."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_beside(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a path beside ``path`` to write to; renames it when the block ends without error.

    The folder is made where it is missing. The name beside ends in ``.tmp``, so that
    nobody takes it for the file: tell a library that chooses a format by suffix which one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    beside = Path(beside)
    try:
        yield beside
        beside.chmod(0o666 & ~_umask())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a whole text file, or leaves what was there."""
    with written_beside(path) as beside:
        beside.write_text(text)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def config_path(name: str) -> Path:
    """A file of ``benco_configs/``: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parent
    places = [folder / "benco_configs" / name for folder in (package, package.parent)]
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(f"got no {name}, expected it at {places[0]} or {places[1]}")

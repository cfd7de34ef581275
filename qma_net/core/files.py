"""Files that appear complete or not at all; journals, whose rows are kept one by one."""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import QMANetError

RUNNING = ".running"  # in a folder that is written to: held by the process that does
NAME_BYTES = 255  # of a file's name, on the usual file systems


class PathError(QMANetError):
    """A name that leads out of the folder it is for, or that no file can have."""


class ContentError(QMANetError):
    """A file that holds something else than it should."""


class BusyError(QMANetError):
    """A folder that another run is writing to."""


@contextmanager
def written_beside(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a path beside ``path`` to write to; renames it when the block ends without error.

    The folder is made where it is missing. The name beside ends in ``.tmp``, so that
    nobody takes it for the file: tell a library that chooses a format by suffix which one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:50]}.", suffix=".tmp")
    os.close(handle)
    beside = Path(beside)
    try:
        yield beside
        beside.chmod(0o666 & ~_umask())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def clear_halves(folder: str | os.PathLike, names: Iterable[str] = ("*",)) -> None:
    """Removes what killed runs left of files that were written beside; for a folder that is held.

    Args:
        folder: where they are; it may be missing.
        names: of the whole files, as patterns; default: all.
    """
    for name in names:
        for half in Path(folder).glob(f".{name[:50]}.????????.tmp"):
            half.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a whole text file in UTF-8, or leaves what was there.

    What no encoding has, as in names that are no UTF-8 on disk, is written as ``\\udc80``.
    """
    with written_beside(path) as beside:
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_png(path: str | os.PathLike, pixels) -> None:
    """Writes uint8 ``(H, W)`` or ``(H, W, 3)`` as a whole PNG, or leaves what was there."""
    from PIL import Image

    with written_beside(path) as beside:
        Image.fromarray(pixels).save(beside, format="PNG")


def copy_file(source: str | os.PathLike, target: str | os.PathLike) -> None:
    """Copies a whole file's bytes, or leaves what was there."""
    with written_beside(target) as beside:
        shutil.copyfile(source, beside)


def read_object(path: str | os.PathLike, expected: str) -> dict:
    """The object that a JSON file holds.

    Args:
        path: the file.
        expected: what it should be, and what to do, for the error.

    Raises:
        ContentError: for a file that holds no object.
        OSError: for one that cannot be read.
    """
    try:
        content = json.loads(Path(path).read_bytes())
        fault = f"it holds a {type(content).__name__}"
    except RecursionError:
        content, fault = None, "it is nested too deep"
    except ValueError as error:
        content, fault = None, str(error)
    if not isinstance(content, dict):
        raise ContentError(f"got {path}, expected {expected}: {fault}")
    return content


def read_yaml(path: str | os.PathLike, expected: str) -> object:
    """What a YAML file holds; one with anchors, by which a small file can stand for any size, not.

    Args:
        path: the file.
        expected: what it should be, for the error.

    Raises:
        ContentError: for what cannot be read as YAML.
        OSError: for a file that cannot be read.
    """
    import yaml

    try:
        text = Path(path).read_text()
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise ValueError("anchors are not read: write their values")
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        fault = (str(error).splitlines() or [type(error).__name__])[0]
        raise ContentError(f"got {path}, expected {expected}: {fault}") from None


def read_journal(path: str | os.PathLike, needed: Iterable[str] = ()) -> list[dict]:
    """The rows of a journal, objects with the keys that are needed; none where there is no file.

    A line that a kill has torn, or that is no such object, is passed over.
    """
    path, rows = Path(path), []
    for line in path.read_text(errors="replace").split("\n") if path.is_file() else ():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and set(needed) <= row.keys():
            rows.append(row)
    return rows


@contextmanager
def open_journal(path: str | os.PathLike) -> Iterator[Callable[[object], None]]:
    """Yields how to add a row of JSON, a line each, on disk as soon as it is added.

    A line that a killed run left torn is ended first, so that it takes no other with it.
    """
    with open(path, "a+b") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")

        def add(row: object) -> None:
            file.write((json.dumps(row) + "\n").encode())
            file.flush()

        yield add


@contextmanager
def alone(folder: str | os.PathLike) -> Iterator[None]:
    """Makes a folder and holds it against a second run; the hold ends with the process.

    Raises:
        BusyError: where another run holds it.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise _busy(folder) from None
    finally:
        os.close(handle)


def hold(folder: str | os.PathLike) -> int:
    """Makes a folder and holds it against other processes, until this one ends.

    For processes that fork others, which would share :func:`alone`'s hold and may outlive this one
    by seconds. What is held is a hidden file in the folder.

    Returns:
        The file's handle; closing it ends the hold.

    Raises:
        BusyError: where another process holds it.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    file = Path(folder, RUNNING)
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if file.exists() and os.path.samestat(os.fstat(handle), file.stat()):
                return handle  # and not a file that another run has just left and removed
        except BlockingIOError:
            os.close(handle)
            raise _busy(folder) from None
        os.close(handle)


@contextmanager
def held(folder: str | os.PathLike) -> Iterator[None]:
    """As :func:`hold`, until the block ends."""
    handle = hold(folder)
    try:
        yield
    finally:
        Path(folder, RUNNING).unlink(missing_ok=True)
        os.close(handle)


def _busy(folder: str | os.PathLike) -> BusyError:
    return BusyError(
        f"got {folder}, which another run is writing to, expected a folder of its own: wait for "
        "that run, or give another"
    )


def inside(folder: str | os.PathLike, name: str, *, nested: bool = False) -> Path:
    """The path of a name in a folder, for every name of others that becomes a path we write.

    Args:
        folder: where the file or folder is to be.
        name: a plain name; a relative path if ``nested``.
        nested: whether folders may come before the name, with ``/`` between them.

    Raises:
        PathError: for what would not be in the folder or is no name for a file: absolute, ``..``,
            empty, with a separator, NUL or another control character, of more than 255 bytes.
    """
    name = str(name)
    expected = "a path inside it" if nested else "a plain name"
    for part in name.split("/") if nested else [name]:
        encoded = part.encode(errors="surrogatepass")
        if part in ("", ".", ".."):
            fault = "leads out of it or names nothing"
        elif "/" in part or "\\" in part or os.path.splitdrive(part)[0]:
            fault = "has a separator"
        elif not part.isprintable() and any(ord(c) < 32 or ord(c) == 127 for c in part):
            fault = "has a control character"
        elif len(encoded) > NAME_BYTES:
            fault = f"has {len(encoded)} bytes, at most {NAME_BYTES} can be a name"
        else:
            continue
        shown = name if len(name) <= 80 else f"{name[:77]}..."
        raise PathError(f"got {shown!r} for {folder}, expected {expected}: it {fault}; rename it")
    return Path(folder, name)


def unused(name: str, taken: set[str]) -> str:
    """The name, with a number behind it where it is taken; it is taken from then on."""
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    taken.add(candidate)
    return candidate


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def config_path(name: str) -> Path:
    """A file of ``benco_configs/``: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parents[1]
    places = [folder / "benco_configs" / name for folder in (package, package.parent)]
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(f"got no {name}, expected it at {places[0]} or {places[1]}")

"""Atomic file writing, safe file names, and reading of JSON and YAML files."""

import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import QMANetError, first_line

if TYPE_CHECKING:
    import numpy as np

TEMPORARY_PREFIX, TEMPORARY_SUFFIX = ".qma-net-", ".tmp"
MAX_JSON_BYTES = 2**26
MAX_NAME_BYTES = 255  # The limit of the usual file systems for one file name.


class PathError(QMANetError):
    """A file name that points outside its folder or that no file can have."""


class ContentError(QMANetError):
    """A file whose content is not what was expected."""


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path to write to, and rename it to ``path`` if the block succeeds.

    Missing parent folders are created. The temporary name ends in ``.tmp``, so a library that
    chooses the format by suffix must be told which format to write.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(TEMPORARY_SUFFIX, TEMPORARY_PREFIX, path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporary_files(folder: str | os.PathLike[str]) -> None:
    """Remove the temporary files that interrupted runs left in a folder.

    Call this only while holding the folder's lock; the folder may be missing.
    """
    for path in Path(folder).glob(f"{TEMPORARY_PREFIX}*{TEMPORARY_SUFFIX}"):
        path.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    r"""Write a UTF-8 text file atomically.

    Characters that cannot be encoded, as in file names that are not valid UTF-8, are written
    as escapes such as ``\udc80``.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def to_json(content: object, *, indent: int | None = None, sort_keys: bool = False) -> str:
    """Format an object as JSON; undefined values must be None.

    Raises:
        ContentError: If it contains NaN or infinity, which JSON does not have.
    """
    try:
        return json.dumps(content, indent=indent, sort_keys=sort_keys, allow_nan=False)
    except ValueError as error:
        raise ContentError(f"cannot write JSON with NaN or infinite numbers ({error})") from None


def write_json(path: str | os.PathLike[str], content: object) -> None:
    """Write an object as indented JSON atomically; see :func:`to_json`."""
    write_text(path, to_json(content, indent=1) + "\n")


def write_png(
    path: str | os.PathLike[str], pixels: "np.ndarray", *, icc_profile: bytes = b""
) -> None:
    """Write uint8 pixels, ``(H, W)`` or ``(H, W, 3)``, as a PNG file atomically."""
    from PIL import Image

    with atomic_write(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", icc_profile=icc_profile or None)


def copy_file(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Copy a file's bytes atomically."""
    with atomic_write(target) as temporary:
        shutil.copyfile(source, temporary)


def read_bytes(path: str | os.PathLike[str], *, limit: int) -> bytes:
    """Read a regular file of at most ``limit`` bytes.

    Raises:
        ContentError: If the path is a pipe, a socket or a device, which could block or never end,
            or if the file is larger.
        OSError: If the file cannot be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise ContentError(f"{path} is too large: {size} bytes, expected at most {limit} bytes")
        return file.read(limit)


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a regular file for reading.

    Raises:
        ContentError: If the path is a pipe, a socket or a device, which could block or never end.
        OSError: If the file cannot be opened.
    """
    file = open(path, "rb", opener=_open_without_blocking)  # noqa: SIM115
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise ContentError(f"{path} is not a regular file")


def _open_without_blocking(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file in hexadecimal; see :func:`open_regular`."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json_object(path: str | os.PathLike[str], expected: str) -> dict:
    """Read a JSON file that holds one object; the error message says what was ``expected``.

    Raises:
        ContentError: If the file is not valid JSON, holds something other than an object, is not a
            regular file or is larger than :data:`MAX_JSON_BYTES`.
        OSError: If the file cannot be read.
    """
    content: object = None
    try:
        content = json.loads(read_bytes(path, limit=MAX_JSON_BYTES))
        fault = f"it contains a JSON {type(content).__name__}"
    except RecursionError:
        fault = "it is nested too deeply"
    except ValueError as error:
        fault = str(error)
    if not isinstance(content, dict):
        raise ContentError(f"cannot read {path}: {fault}; expected {expected}")
    return content


def read_json_lines(path: str | os.PathLike[str], required: Iterable[str] = ()) -> list[dict]:
    """Read the objects of a JSON Lines file; return an empty list if the file is missing.

    Lines that are incomplete or damaged or lack a required key are skipped. NaN and infinity are
    accepted, since other programs write them.
    """
    rows: list[dict] = []
    if not Path(path).is_file():
        return rows
    for line in Path(path).read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and row.keys() >= set(required):
            rows.append(row)
    return rows


def read_yaml(path: str | os.PathLike[str], expected: str) -> object:
    """Read a YAML file; aliases are rejected, since they can expand without limit.

    Raises:
        ContentError: If the file is not valid YAML or contains an alias.
        OSError: If the file cannot be read.
    """
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise ValueError("anchors and aliases are not supported; write out the values")
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ContentError(
            f"cannot read {path}: {first_line(error)}; expected {expected}"
        ) from None


def safe_path(folder: str | os.PathLike[str], name: object, *, nested: bool = False) -> Path:
    """Join a folder and an untrusted file name, or a relative path with ``/`` if ``nested``.

    Raises:
        PathError: If the name is absolute, empty or longer than 255 bytes, or contains ``..``,
            a separator, a NUL or another control character.
    """
    name = str(name)
    expected = "a relative path" if nested else "a plain file name"
    for part in name.split("/") if nested else [name]:
        encoded = part.encode(errors="surrogatepass")
        if part in ("", ".", ".."):
            fault = "it is empty or points outside the folder"
        elif "/" in part or "\\" in part or os.path.splitdrive(part)[0]:
            fault = "it contains a path separator"
        elif any(ord(c) < 32 or ord(c) == 127 for c in part):
            fault = "it contains a control character"
        elif len(encoded) > MAX_NAME_BYTES:
            fault = f"it has {len(encoded)} bytes, the limit is {MAX_NAME_BYTES}"
        else:
            continue
        short = name if len(name) <= 80 else f"{name[:77]}..."
        raise PathError(
            f"cannot use the name {short!r} in {folder}: {fault}; rename it to {expected}"
        )
    return Path(folder, name)


def unique_name(name: str, taken: set[str]) -> str:
    """Return the name, with a number appended if it is taken, and add it to ``taken``."""
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    taken.add(candidate)
    return candidate


def config_path(name: str) -> Path:
    """Locate a file of ``benco_configs/``: inside an installed package or in a checkout.

    Raises:
        FileNotFoundError: If the file is in neither place.
    """
    package = Path(__file__).parents[1]
    candidates = [folder / "benco_configs" / name for folder in (package, package.parent)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"{name} not found; looked for {candidates[0]} and {candidates[1]}")

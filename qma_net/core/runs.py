"""Resumable runs: a folder lock, the run's identity and a journal of finished items.

Every command that writes many files works like this::

    with Run(out, settings, key=("file",), journal=".predict.jsonl", contents="predictions") as run:
        for path in run.pending(paths):
            ...                                        # write the item's files atomically
            run.finish({"file": str(path)}, outputs=[mask])

If the process stops at any point, running the command again resumes after the last finished item. A
run with different settings is rejected, and so is a second process that writes to the same folder.
"""

import json
import os
import zlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, Self, TypeVar

from filelock import FileLock, Timeout

from .errors import QMANetError
from .files import ContentError, read_json_lines, remove_temporary_files, to_json, write_text

LOCK_NAME = ".qma-net.lock"
CHECKSUM, CLAIM = "crc32", "claim"

Item = TypeVar("Item")


class BusyError(QMANetError):
    """A folder that another process is writing to."""


class RunError(QMANetError):
    """A folder that holds the results of a run with different settings."""


class FolderLock:
    """Exclusive access to a folder, which is created if it is missing.

    The operating system releases the lock when the process ends, however it ends. Forked
    children do not inherit it.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)
        self._lock = FileLock(self.folder / LOCK_NAME)

    def acquire(self) -> Self:
        """Lock the folder.

        Raises:
            BusyError: If another process holds the lock.
            OSError: If the folder cannot be created or written to.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise BusyError(
                f"{self.folder} is in use: another run is writing to it; wait for that run to "
                "finish or choose a different folder"
            ) from None
        return self

    def release(self) -> None:
        """Unlock the folder and remove the lock file."""
        with suppress(OSError):  # Windows cannot remove a file that is open.
            Path(self._lock.lock_file).unlink()
        self._lock.release()

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Journal:
    """A JSON Lines file to which rows are appended one at a time, each with a checksum."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._file: BinaryIO | None = None

    def read(self) -> list[dict]:
        """Return all valid rows, without their checksums; none if the file is missing.

        Incomplete or damaged rows are skipped. A journal without any checksum was written by
        an earlier version and is accepted as it is, except for rows with NaN or infinity.
        """
        rows = [row for row in read_json_lines(self.path) if _is_finite(row)]
        if not any(CHECKSUM in row for row in rows):
            return rows
        return [row for row in rows if row.pop(CHECKSUM, None) == _checksum(row)]

    def write(self, rows: Iterable[dict]) -> None:
        """Replace the file's content atomically."""
        self.close()
        write_text(self.path, "".join(map(_line, rows)))

    def append(self, row: dict) -> None:
        """Append a row; it is in the file when this returns."""
        if self._file is None:
            # Rewriting removes an incomplete last line, which would damage the next row, and adds
            # checksums to the rows from an earlier version.
            self.write(self.read())
            self._file = open(self.path, "ab")  # noqa: SIM115  (closed by close())
        self._file.write(_line(row).encode())
        self._file.flush()

    def close(self) -> None:
        """Close the file; a later :meth:`append` opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


class Run:
    """A resumable run that writes to one folder; a context manager.

    Entering locks the folder, removes temporary files of interrupted runs, compares the identity
    and reads what is finished. The journal's first row is the identity; every other row is the
    record of a finished item, or claims files that are about to be written.

    Args:
        folder: Where the run writes; created if it is missing.
        identity: The settings that every finished item depends on; JSON-serializable.
        key: The fields of a record that identify its item.
        journal: The journal's file name.
        contents: What the folder holds, for error messages ("predictions").
        required: Further fields of a complete record; without them, an item is not finished.
        shared: Whether several processes write to the folder at once, each with its own journal.
            The caller then holds the lock, and the ``*.jsonl`` files of all processes are read.

    Attributes:
        finished: The record of each finished item, by key (a tuple if there are several fields).
        owned: The files, relative to the folder, that this run or an interrupted one before it
            has written or was about to write. Any other file belongs to the user.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        identity: dict,
        *,
        key: Sequence[str],
        journal: str,
        contents: str,
        required: Iterable[str] = (),
        shared: bool = False,
    ):
        self.folder = Path(folder)
        self.identity: dict = json.loads(to_json(identity))
        self.finished: dict[Hashable, dict] = {}
        self.owned: set[str] = set()
        self._fields, self._key = {*key, *required}, itemgetter(*key)
        self._contents, self._shared = contents, shared
        self._lock = None if shared else FolderLock(self.folder)
        self._journal = Journal(self.folder / journal)

    def __enter__(self) -> Self:
        """Lock the folder; the exceptions are those of `FolderLock.acquire` and `reload`."""
        if self._lock:
            self._lock.acquire()
            remove_temporary_files(self.folder)
        try:
            self.reload()
            if not _has_content(self._journal.path):
                self._journal.write([{"identity": self.identity}])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.close()
        if self._lock:
            self._lock.release()

    def reload(self) -> None:
        """Read the finished items again, including those of other processes.

        Raises:
            RunError: If a journal was written with different settings or its first line is damaged.
        """
        self.finished = {}
        paths = sorted(self.folder.glob("*.jsonl")) if self._shared else [self._journal.path]
        for path in filter(_has_content, paths):
            first, *rows = Journal(path).read() or [{}]
            self._require_identity(first, path)
            for row in filter(self._is_valid, rows):
                self.owned.update(row.get(CLAIM, ()), row.get("outputs", ()))
                if self._fields <= row.keys() and self._outputs_exist(row):
                    with suppress(TypeError):  # A damaged key, such as a list, is not hashable.
                        self.finished[self._key(row)] = row

    def pending(
        self, items: Iterable[Item], key: Callable[[Item], Hashable] = str
    ) -> Iterator[Item]:
        """Yield the items that are not finished; ``key`` maps an item to its key."""
        return (item for item in items if key(item) not in self.finished)

    def claim(self, paths: Iterable[str | os.PathLike[str]]) -> None:
        """Record files before they are written, so that a later run recognizes them as its own."""
        names = [self._name(path) for path in paths]
        self._journal.append({CLAIM: names})
        self.owned.update(names)

    def finish(self, record: dict, outputs: Iterable[str | os.PathLike[str]] = ()) -> None:
        """Record an item as finished, with a JSON-serializable record that contains its key.

        When the run is resumed, the item is pending again if one of its output files is missing
        or has a different size.
        """
        sizes = {self._name(path): os.path.getsize(path) for path in outputs}
        row = record | ({"outputs": sizes} if sizes else {})
        self.owned.update(sizes)
        self._journal.append(row)
        self.finished[self._key(row)] = row

    def retain(self, keep: Callable[[dict], bool]) -> None:
        """Drop the finished items for which ``keep`` returns false."""
        self.finished = {key: row for key, row in self.finished.items() if keep(row)}
        claims = [{CLAIM: sorted(self.owned)}] if self.owned else []
        self._journal.write([{"identity": self.identity}, *claims, *self.finished.values()])

    def remove_journal(self) -> None:
        """Remove the journal once the run is complete and its results stand on their own."""
        self._journal.close()
        self._journal.path.unlink(missing_ok=True)

    def _require_identity(self, first: dict, path: Path) -> None:
        # Earlier versions wrote the identity without a key of its own.
        recorded = first.get("identity", first)
        if recorded == self.identity:
            return
        if not isinstance(recorded, dict) or not recorded.keys() & self.identity.keys():
            fault = f"the first line of {path.name} is damaged, so its settings are unknown"
        else:
            fault = f"it was made with different settings ({difference(recorded, self.identity)})"
        raise RunError(
            f"{self.folder} contains {self._contents} of a run that cannot be resumed: {fault}; "
            "choose a different folder or delete this one"
        )

    def _name(self, path: str | os.PathLike[str]) -> str:
        return Path(os.path.relpath(path, self.folder)).as_posix()

    def _is_valid(self, row: dict) -> bool:
        """Check the types of a row's fields, since rows of old journals have no checksum."""
        return (
            isinstance(row.get("outputs", {}), dict)
            and isinstance(row.get(CLAIM, []), list)
            and all(isinstance(name, str) for name in row.get(CLAIM, []))
            and all(
                isinstance(row[name], str | int | float | None)
                for name in self._fields & row.keys()
            )
        )

    def _outputs_exist(self, row: dict) -> bool:
        outputs = row.get("outputs", {})
        try:
            return all(os.path.getsize(self.folder / name) == outputs[name] for name in outputs)
        except OSError:
            return False


def difference(recorded: dict, requested: dict) -> str:
    """Name the first setting that differs: ``"seed 1, now 0"``."""
    old, new = _flat(recorded), _flat(requested)
    for name in (*new, *old):
        before, now = old.get(name), new.get(name)
        if before != now:
            too_long = max(len(str(before)), len(str(now))) > 80
            return f"{name} differs" if too_long else f"{name} {before}, now {now}"
    return "none"


def _flat(settings: dict, prefix: str = "") -> dict[str, object]:
    """Flatten nested dictionaries to dotted names."""
    flat: dict[str, object] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _is_finite(row: dict) -> bool:
    try:
        to_json(row)
    except ContentError:
        return False
    return True


def _checksum(row: dict) -> str:
    return f"{zlib.crc32(to_json(row).encode()):08x}"


def _line(row: dict) -> str:
    return to_json(row | {CHECKSUM: _checksum(row)}) + "\n"

"""What an interrupted ``data prepare`` has finished, and what must go before it continues.

The journal's first line is the identity of the run (the dataset and the flags that a finished
file depends on), every other one the record of an image: its name in the source, what was
written of it or why it was left out, the stamp of what it was made from, and its manipulation type
where only the archive's table tells that.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from ..core.files import open_journal, read_journal, safe_path, write_text
from .plan import Job, PrepareError

REPORT, JOURNAL = "prepare.json", "prepare.jsonl"


class PresentFiles:
    """Which files are in the folder written, asked of the disk one folder at a time."""

    def __init__(self, out: Path):
        self._out, self._names = out, {}

    def __contains__(self, path: str) -> bool:
        """Whether there is a file of this path, relative to the folder written."""
        folder, _, name = path.rpartition("/")
        if folder not in self._names:
            place = self._out / folder
            self._names[folder] = set(os.listdir(place)) if place.is_dir() else set()
        return name in self._names[folder]


def is_unfinished(out: Path) -> bool:
    """Whether a folder is one that a ``data prepare`` has begun and not ended."""
    return (out / JOURNAL).is_file() and not (out / REPORT).is_file()


def stamp_of(source: Path, job: Job) -> list:
    """Targets, and sizes and times of the sources: with another stamp a job is done again."""
    stats = [os.stat(source / file) for file in (job.image, job.mask) if file]
    return [job.target, job.mask_target, *([one.st_size, one.st_mtime_ns] for one in stats)]


def is_done(record: dict, *, stamp: list, repair: bool, present: PresentFiles) -> bool:
    """Whether a record is of these sources, would come out the same now, and has its files."""
    if record["stamp"] != stamp:
        return False
    if record["repair"] != repair and ("left_out" in record or "repaired" in record):
        return False
    return all(target in present for target in _targets(record))


def read_records(out: Path, identity: dict) -> dict[str, dict]:
    """What earlier runs finished, by image.

    Raises:
        PrepareError: for a folder that holds something else.
    """
    if not (out / JOURNAL).is_file():
        others = [name for name in ("Tp", "Gt", "Au") if (out / name).exists()]
        if others:
            raise PrepareError(
                f"got --out {out} with {others[0]}/ but no {JOURNAL}, expected a folder of its own "
                "or one that data prepare made: choose another"
            )
        return {}
    kept, *records = read_journal(out / JOURNAL) or [None]
    records = [record for record in records if "image" in record]
    if kept != identity:
        raise PrepareError(
            f"got {_as_flags(identity)} for {out}, which was made with "
            f"{_as_flags(kept) if kept else 'an unreadable ' + JOURNAL}: choose another --out, "
            "or delete it"
        )
    return {record["image"]: record for record in records}


def recorded_types(out: Path) -> dict[Path, str]:
    """The manipulation types that a table told ``data prepare``, by the image written."""
    rows = read_journal(out / JOURNAL, ("target", "type"))
    return {out / row["target"]: row["type"] for row in rows}


@contextmanager
def open_records(
    out: Path, identity: dict, records: Iterable[dict]
) -> Iterator[Callable[[dict], None]]:
    """Writes the journal anew, of these records only, and yields how to add one."""
    write_text(out / JOURNAL, "".join(json.dumps(row) + "\n" for row in (identity, *records)))
    with open_journal(out / JOURNAL) as add:
        yield add


def make_room(
    out: Path, jobs: Iterable[Job], *, obsolete: Iterable[dict], kept: Iterable[dict]
) -> None:
    """Makes the folders; takes out what a killed run left unfinished and what is obsolete.

    Args:
        out: the folder written.
        jobs: of the whole dataset.
        obsolete: records whose files are to go.
        kept: records whose files stay; subsets share masks.

    Raises:
        PathError: for a record whose files are outside the folder; nothing of it is deleted.
    """
    targets = [target for job in jobs for target in (job.target, job.mask_target) if target]
    folders = {str(PurePosixPath(target).parent) for target in targets}
    for folder in [out, *(out / folder for folder in folders)]:
        folder.mkdir(parents=True, exist_ok=True)
        for file in folder.glob(".*.tmp"):
            file.unlink()
    needed = {record.get("mask_target") for record in kept}
    for record in obsolete:
        for target in _targets(record):
            if target not in needed:
                safe_path(out, target, nested=True).unlink(missing_ok=True)


def _targets(record: dict) -> list[str]:
    """The files that a record is of, relative to the folder written."""
    return [record[part] for part in ("target", "mask_target") if record.get(part)]


def _as_flags(identity: dict) -> str:
    """An identity as it is said on the command line."""
    flags = [str(identity["dataset"])]
    flags += [f"--max-side {identity['max_side']}"] if identity["max_side"] else []
    quality = identity["jpeg_quality"]
    return " ".join(flags + ([f"--jpeg-quality {quality}"] if quality else []))

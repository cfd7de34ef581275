"""What an interrupted ``data prepare`` has finished, and what must go before it continues."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from ..files import written_beside
from .plan import Job, Plan, PrepareError

REPORT, JOURNAL = "prepare.json", "prepare.jsonl"


class _Present:
    """Whether files are in the folder written, asked one folder at a time."""

    def __init__(self, out: Path):
        self._out, self._names = out, {}

    def __contains__(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        if folder not in self._names:
            place = self._out / folder
            self._names[folder] = set(os.listdir(place)) if place.is_dir() else set()
        return name in self._names[folder]


def _stamp(source: Path, job: Job) -> list:
    """Targets, and sizes and times of the sources: with another stamp a job is done again."""
    stats = [os.stat(source / file) for file in (job.image, job.mask) if file]
    return [job.target, job.mask_target, *([one.st_size, one.st_mtime_ns] for one in stats)]


def _is_done(record: dict, stamp: list, repair: bool, present: _Present) -> bool:
    if record["stamp"] != stamp:
        return False
    if record["repair"] != repair and ("left_out" in record or "repaired" in record):
        return False
    return all(record[part] in present for part in _parts_of(record))


def _parts_of(record: dict) -> list[str]:
    return [part for part in ("target", "mask_target") if record.get(part)]


def _read_journal(out: Path, identity: dict) -> dict[str, dict]:
    """What earlier runs finished, by image; a torn last line of a killed run is passed over."""
    file = out / JOURNAL
    if not file.is_file():
        others = [name for name in ("Tp", "Gt", "Au") if (out / name).exists()]
        if others:
            raise PrepareError(
                f"got --out {out} with {others[0]}/ but no {JOURNAL}, expected a folder of its own "
                "or one that data prepare made: choose another"
            )
        return {}
    lines = []
    for line in file.read_text().split("\n"):
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    if not lines or lines[0] != identity:
        raise PrepareError(
            f"got {_flags(identity)} for {out}, which was made with "
            f"{_flags(lines[0]) if lines else 'an unreadable ' + JOURNAL}: choose another --out, "
            "or delete it"
        )
    return {record["image"]: record for record in lines[1:]}


def _flags(identity: dict) -> str:
    flags = [str(identity["dataset"])]
    flags += [f"--max-side {identity['max_side']}"] if identity["max_side"] else []
    quality = identity["jpeg_quality"]
    return " ".join(flags + ([f"--jpeg-quality {quality}"] if quality else []))


@contextmanager
def _journal(out: Path, identity: dict, records: dict[str, dict]) -> Iterator:
    """Writes the journal anew without what is obsolete, and yields how to add to it."""
    with written_beside(out / JOURNAL) as beside, open(beside, "w") as file:
        for line in [identity, *records.values()]:
            file.write(json.dumps(line) + "\n")
    with open(out / JOURNAL, "a", buffering=1) as file:
        yield lambda record: file.write(json.dumps(record) + "\n")


def _clear(out: Path, plan: Plan, obsolete: list[dict], kept: dict[str, dict]) -> None:
    """Makes the folders; takes out what a killed run left unfinished and what is obsolete."""
    folders = {str(PurePosixPath(job.target).parent) for job in plan.jobs}
    folders |= {str(PurePosixPath(job.mask_target).parent) for job in plan.jobs if job.mask}
    for folder in [out, *(out / folder for folder in folders)]:
        folder.mkdir(parents=True, exist_ok=True)
        for file in folder.glob(".*.tmp"):
            file.unlink()
    needed = {record.get("mask_target") for record in kept.values()}  # subsets share masks
    for record in obsolete:
        for part in _parts_of(record):
            if record[part] not in needed:
                (out / record[part]).unlink(missing_ok=True)

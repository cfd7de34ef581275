"""A published archive made into what BenCo reads: one engine for the table of ``published.py``.

Masks become single-channel PNGs of 0 and 255 with their image's size and stem; images keep their
bytes. Every finished file is noted in ``prepare.jsonl``, so that a killed run is completed by the
next one; ``prepare.json`` is the report, and is there when everything is. The source is only read.
"""

import csv
import fcntl
import io
import json
import os
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from .. import __version__
from ..files import copy_file, cores, write_png, write_text, written_beside
from .listing import NEGATIVE
from .published import DATASETS, Published, as_benco, black, total
from .repair import UNTURN

REPORT, JOURNAL = "prepare.json", "prepare.jsonl"
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".rar", ".7z", ".bz2")
ORIENTATION = 0x0112  # EXIF tag
JPEG_QUALITY = 95  # of images that are resized; colour at full resolution
SHOWN = 20


class PrepareError(ValueError):
    """A source or a folder that cannot be used; one line says what was got and expected."""


@dataclass(frozen=True)
class Job:
    """One image to write: its source and its mask's (None: authentic), and both targets.

    ``target`` has no suffix yet; paths are relative to the source, or to the folder written.
    """

    image: str
    mask: str | None
    target: str
    mask_target: str = ""
    note: str = ""


@dataclass
class Plan:
    """What is to be written, what is not and why, and what is worth saying.

    ``authentic`` are authentic images that a table names, ``None`` where names tell them.
    """

    jobs: list[Job] = field(default_factory=list)
    left_out: list[dict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    authentic: list[str] | None = None

    def leave_out(self, file: str, why: str) -> None:
        self.left_out.append({"file": file, "why": why})


@dataclass(frozen=True)
class Settings:
    """What a worker needs to know."""

    dataset: str
    source: Path
    out: Path
    max_side: int
    repair: bool
    link: bool


@dataclass
class Prepared:
    """The report, as ``prepare.json`` holds it; the checker's, ``None`` where nothing was done."""

    report: dict
    out: Path
    done_now: int
    checked: object = None

    def text(self) -> str:
        """What a person reads."""
        report, lines = self.report, []
        if self.checked is None:
            lines.append(f"nothing to do: {self.out} is as this source and these flags make it")
        written, paper = report["tampered"], report["paper"]
        lines.append(f"{report['dataset']}: {written} of the paper's {paper} tampered images")
        if report["authentic"]:
            lines.append(f"{report['authentic']} authentic images in Au/")
        for title, rows in (
            ("left out", report["left_out"]),
            ("repaired", report["repaired"]),
            ("paired by other names", report["renamed"]),
        ):
            if rows:
                lines.append(f"{len(rows)} {title}:")
                lines += [f"  {row['file']}: {row['why']}" for row in rows[:SHOWN]]
            if len(rows) > SHOWN:
                lines.append(f"  ... and {len(rows) - SHOWN} more, in {self.out / REPORT}")
        lines += report["notes"]
        lines.append(f"masks: {report['mask_rule']}")
        lines.append(f"layout: {report['layout']}; verified on {report['verified_on']}")
        lines += [f"not verified: {item}" for item in report["unverified"]]
        if self.checked is not None:
            lines.append(self.checked.text())
        return "\n".join(lines)


def prepare(
    name: str,
    source: str | os.PathLike,
    out: str | os.PathLike,
    max_side: int = 0,
    authentic: bool = False,
    repair: bool = False,
    link: bool = False,
    jpeg_quality: int | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Prepared:
    """Converts one published dataset; a second run with the same arguments does nothing.

    Args:
        name: one of :data:`~qma_net.data.published.DATASETS`.
        source: the unpacked archive, any folder above it, or a folder of its pieces.
        out: the dataset's own folder: gets ``Tp/``, ``Gt/`` (TampCOCO: one pair per subset).
        max_side: larger images are reduced to this long side in pixels, JPEG as JPEG 95 without
            colour subsampling, others as PNG; masks are reduced by area and cut at one half. 0:
            images keep their bytes, EXIF orientation included, which BenCo ignores.
        authentic: also ``Au/`` and ``<name>_with_authentic.json``.
        repair: keeps images whose mask has another size: a transposed mask is turned by 90
            degrees counter-clockwise (TruFor's choice; which way is right is not known), another
            is resized to the nearest pixel. Without it they are left out and reported.
        link: hard links in place of copies, where the file system allows them.
        jpeg_quality: which of AutoSplice's three versions: 100 (default), 90 or 75.
        workers: processes, default one per core.
        progress: show a progress bar.

    Raises:
        PrepareError: for a source that is not this dataset, or an ``out`` that is something else.
    """
    dataset = find(name)
    source, out = Path(source), Path(out).resolve()
    _refuse_places(source, out)
    if max_side < 0:
        raise PrepareError(f"got --max-side {max_side}, expected a side in pixels, or 0 for none")
    if jpeg_quality is None:
        jpeg_quality = 100 if "{quality}" in dataset.image else None
    elif "{quality}" not in dataset.image:
        raise PrepareError(f"got --jpeg-quality with {dataset.name}, only AutoSplice has versions")
    plan = plan_jobs(dataset, source, authentic, jpeg_quality)
    identity = {"dataset": dataset.name, "max_side": max_side, "jpeg_quality": jpeg_quality}
    settings = Settings(dataset.name, source, out, max_side, repair, link)
    with _alone(out):
        records = _read_journal(out, identity)
        stamps = {job.image: _stamp(source, job) for job in plan.jobs}
        present = _Present(out)
        kept = {
            image: record
            for image, record in records.items()
            if image in stamps and _is_done(record, stamps[image], repair, present)
        }
        todo = [job for job in plan.jobs if job.image not in kept]
        flags = identity | {"authentic": authentic, "repair": repair}
        finished = _read_report(out)
        if finished and len(kept) == len(records) == len(plan.jobs):
            report = _report(dataset, source, plan, kept) | {"settings": flags}
            lists = _lists(dataset, plan, kept, out)
            if report | {"check": finished["check"]} == finished and all(
                file.is_file() and file.read_text() == text for file, text in lists.items()
            ):
                return Prepared(finished, out, 0)
        (out / REPORT).unlink(missing_ok=True)
        _clear(out, plan, [records[image] for image in records.keys() - kept.keys()], kept)
        with _journal(out, identity, kept) as note:
            for record in _convert_all(settings, todo, workers, progress):
                record |= {"stamp": stamps[record["image"]], "repair": repair}
                note(record)
                kept[record["image"]] = record
        lists = _lists(dataset, plan, kept, out)
        for file, text in lists.items():
            write_text(file, text)
        checked = _check(dataset, lists, out, workers, progress)
        report = _report(dataset, source, plan, kept) | {"settings": flags}
        report["check"] = {"errors": len(checked.errors), "warnings": len(checked.warnings)}
        write_text(out / REPORT, json.dumps(report, indent=1))
        return Prepared(report, out, len(todo), checked)


def find(name: str) -> Published:
    """A dataset by name, without regard to case."""
    for known, dataset in DATASETS.items():
        if known.lower() == name.lower():
            return dataset
    raise PrepareError(f"got {name!r}, expected one of {', '.join(DATASETS)}")


def facts() -> str:
    """The table of facts, for a person."""
    lines = []
    for item in DATASETS.values():
        lines += [
            f"{item.name} ({item.role}, {item.tampered} tampered images in the paper)",
            f"  published: {item.where}",
            f"  terms: {item.terms}",
            f"  layout: {item.layout}",
            f"  masks: {item.rule}",
            f"  verified on: {item.verified_on}",
            *(f"  not verified: {line}" for line in item.unverified),
            *(f"  note: {line}" for line in item.notes),
        ]
    return "\n".join(lines)


def plan_jobs(
    dataset: Published, source: Path, authentic: bool = False, jpeg_quality: int | None = None
) -> Plan:
    """Which image goes with which mask, by the dataset's own way of saying so.

    Raises:
        PrepareError: when ``source`` does not hold the dataset, or holds it twice.
    """
    files = sorted(_files(source))
    plan = Plan()
    if dataset.parts:
        pairs = _by_lists(dataset, source, files, plan)
    elif dataset.table:
        pairs = _by_table(dataset, source, files, plan)
    else:
        pairs = _by_names(dataset, source, files, plan, jpeg_quality)
    plan.jobs = _unique_targets(list(pairs))
    if not plan.jobs:
        raise PrepareError(f"got {source}, expected {dataset.name}: no image has a mask there")
    if authentic:
        rows = plan.authentic
        if rows is None:
            rows = [file for file, _ in _matches(dataset.authentic or "(?!)", files)]
        plan.jobs += _unique_targets([Job(file, None, f"Au/{_stem(file)}") for file in rows])
        if not rows:
            plan.notes.append(f"no authentic images: {dataset.name} has none, or none is there")
    return plan


def _by_names(dataset, source, files, plan, jpeg_quality) -> Iterator[Job]:
    images = _matches(dataset.image, files, jpeg_quality)
    found = _matches(dataset.mask, files)
    _refuse_twice(found, source)
    masks = {key: file for file, key in found}
    if not images or not masks:
        raise PrepareError(_not_found(dataset, source, files, "masks" if images else "images"))
    _refuse_twice([(file, (key, _stem(file).lower())) for file, key in images], source)
    lonely = [(file, key) for file, key in images if key not in masks]
    others = _by_rest(dataset, lonely, masks.keys() - {key for _, key in images})
    for file, key in images:
        mask, note = masks.get(key), ""
        if mask is None and key in others:
            mask = masks[others[key]]
            note = f"paired with {_name(mask)} by what the names end in"
        if mask is None:
            plan.leave_out(file, "has no mask")
        else:
            yield _job(file, mask, note=note)
    unused = len(masks.keys() - {key for _, key in images} - set(others.values()))
    if unused:
        plan.notes.append(f"{unused} masks have no image")


def _by_rest(dataset, lonely, masks) -> dict:
    """Keys of images to keys of masks where a part of both names is unique on either side."""
    if not dataset.or_match:
        return {}
    found = []
    for keys in ([key for _, key in lonely], masks):
        by_rest = defaultdict(list)
        for key in keys:
            if match := re.search(dataset.or_match, key[-1]):
                by_rest[match[1]].append(key)
        found.append({rest: keys[0] for rest, keys in by_rest.items() if len(keys) == 1})
    images, masks = found
    return {images[rest]: masks[rest] for rest in images.keys() & masks.keys()}


def _by_table(dataset, source, files, plan) -> Iterator[Job]:
    tables = [file for file in files if file.lower().endswith(dataset.table)]
    if len(tables) != 1:
        raise PrepareError(
            f"got {source} with {len(tables)} tables named {dataset.table}, expected one: "
            f"{dataset.layout}"
        )
    root = PurePosixPath(tables[0]).parents[2]
    there = {file.lower(): file for file in files}
    text = (source / tables[0]).read_text(encoding="utf-8-sig")
    header = text.partition("\n")[0]
    delimiter = max("|,;\t", key=header.count)
    plan.notes.append(f"{_name(tables[0])}: delimiter {delimiter!r}")
    plan.authentic, seen = [], set()
    for row in csv.DictReader(io.StringIO(text), delimiter=delimiter):
        row = {key.strip().lower(): (value or "").strip() for key, value in row.items() if key}
        if not {"probefilename", "probemaskfilename", "istarget"} <= row.keys():
            raise PrepareError(
                f"got {source / tables[0]} with columns {header.strip()!r}, expected "
                "ProbeFileName, ProbeMaskFileName and IsTarget"
            )
        image, mask = (str(root / row[column]) for column in ("probefilename", "probemaskfilename"))
        if image in seen:
            continue
        seen.add(image)
        if image.lower() not in there:
            plan.leave_out(image, "is named by the table but not there")
        elif row["istarget"].upper() != "Y":
            plan.authentic.append(there[image.lower()])
        elif mask.lower() not in there:
            plan.leave_out(image, f"its mask {row['probemaskfilename']} is not there")
        else:
            yield _job(there[image.lower()], there[mask.lower()])


def _by_lists(dataset, source, files, plan) -> Iterator[Job]:
    tail = {"/".join(PurePosixPath(file).parts[-2:]).lower(): file for file in files}
    folders = defaultdict(list)
    for file, key in _matches(dataset.image, files):
        folders[key[0]].append(file)
    lists = {_name(file).lower(): file for file in files if file.lower().endswith(".txt")}
    for part in dataset.parts:
        file = lists.get(f"{part}_coco_list.txt")
        if file is not None:
            lines = (source / file).read_text().split("\n")
            rows = [line.strip().split(",") for line in lines if line.strip()]
        elif part in folders:
            rows = [[image] for image in folders[part]]
            plan.notes.append(f"{part}: no {part}_COCO_list.txt, so all of {part}_images/ is taken")
        else:
            plan.notes.append(f"{part}: neither {part}_COCO_list.txt nor {part}_images/ is there")
            continue
        unique = {row[0]: row[1] if len(row) > 1 else _mask_of(row[0], part) for row in rows}
        absent = 0
        for image, mask in unique.items():
            found = [
                tail.get("/".join(PurePosixPath(path).parts[-2:]).lower()) for path in (image, mask)
            ]
            if None in found:
                absent += 1
                what = "is listed but not there" if found[0] is None else f"lacks its mask {mask}"
                plan.leave_out(image, what)
                continue
            masks = PurePosixPath(mask).parts[-2].split("_")[0]
            shared = PurePosixPath(mask).name.replace(".png", ".jpg")
            yield Job(
                found[0], found[1], f"{part}/Tp/{_stem(image)}", f"{masks}/Gt/{_stem(shared)}.png"
            )
        plan.notes.append(
            f"{part}: {len(rows)} lines, {len(unique)} different, {absent} name absent files"
        )
    if not folders:
        raise PrepareError(_not_found(dataset, source, files, "images"))


def _mask_of(image: str, part: str) -> str:
    """The mask's path by the published lists' rule: no quality in the name, .png everywhere."""
    name = re.sub(r"_aligned_Q\d+", "", PurePosixPath(image).name).replace(".jpg", ".png")
    return f"{'bcm' if part == 'bcmc' else part}_masks/{name}"


def _matches(pattern: str, files, jpeg_quality=None) -> list[tuple[str, tuple]]:
    """Files that a pattern finds, with the key that joins images and masks."""
    pattern = re.compile(pattern.replace("{quality}", str(jpeg_quality)), re.IGNORECASE)
    found = []
    for file in files:
        if match := pattern.search(file):
            groups = match.groupdict()
            part = (groups.get("part") or "").lower()
            found.append((file, (part, (groups.get("key") or "").lower())))
    return found


def _job(image: str, mask: str, note: str = "") -> Job:
    return Job(image, mask, f"Tp/{_stem(image)}", f"Gt/{_stem(image)}.png", note)


def _unique_targets(jobs: list[Job]) -> list[Job]:
    """Images of one name get their folder's before it."""
    count = Counter(job.target for job in jobs)
    if len(count) == len(jobs):
        return jobs
    longer = []
    for job in jobs:
        if count[job.target] > 1:
            stem = f"{PurePosixPath(job.image).parent.name}_{_stem(job.image)}"
            masks = f"Gt/{stem}.png" if job.mask else ""
            folder = PurePosixPath(job.target).parent
            job = Job(job.image, job.mask, f"{folder}/{stem}", masks, job.note)
        longer.append(job)
    _refuse_twice([(job.image, job.target) for job in longer], "the source")
    return longer


def _refuse_twice(found: list[tuple], source: Path | str) -> None:
    """Raises where two files have one key."""
    first = {}
    for file, key in found:
        if key in first:
            raise PrepareError(
                f"got {first[key]} and {file} in {source}, expected one of the two: point --source "
                "at one copy of the dataset"
            )
        first[key] = file


def _not_found(dataset: Published, source: Path, files: list[str], what: str) -> str:
    packed = [file for file in files if file.lower().endswith(ARCHIVES)]
    remedy = f"; unpack {', '.join(packed[:3])} first" if packed else ""
    return (
        f"got {source} with {len(files)} files and no {what} of {dataset.name} among them, "
        f"expected {dataset.layout}{remedy}"
    )


def _files(source: Path) -> Iterator[str]:
    """All files under the source, relative, without hidden ones and what macOS adds to archives."""
    for folder, folders, names in os.walk(source, followlinks=True):
        folders[:] = [name for name in folders if name[0] != "." and name != "__MACOSX"]
        place = Path(folder).relative_to(source)
        yield from ((place / name).as_posix() for name in names if name[0] != ".")


def _stem(file: str) -> str:
    return PurePosixPath(file).stem


def _name(file: str) -> str:
    return PurePosixPath(file).name


def _refuse_places(source: Path, out: Path) -> None:
    if not source.is_dir():
        raise PrepareError(
            f"got --source {source}, expected the folder of an unpacked archive: there is none"
        )
    if out == source.resolve() or source.resolve() in out.parents:
        raise PrepareError(f"got --out {out} inside --source {source}, expected a folder apart")


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Makes the folder and holds it against a second run."""
    out.mkdir(parents=True, exist_ok=True)
    handle = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise PrepareError(f"got --out {out}, which another run is writing: wait for it") from None
    finally:
        os.close(handle)


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


def _convert_all(settings: Settings, todo: list[Job], workers, progress) -> Iterator[dict]:
    workers = min(workers or cores(), max(1, len(todo) // 8))
    one = partial(_convert, settings)
    with tqdm(total=len(todo), desc=settings.dataset, unit="image", disable=not progress) as bar:
        if workers <= 1:
            for job in todo:
                yield one(job)
                bar.update()
            return
        context = get_context("forkserver")
        context.set_forkserver_preload([__name__])
        with ProcessPoolExecutor(workers, context, _leave_with_parent) as pool:
            try:
                for record in pool.map(one, todo, chunksize=8):
                    yield record
                    bar.update()
            except BrokenExecutor:
                raise PrepareError(
                    f"got {workers} processes, of which one was killed (memory?): run it again "
                    "with fewer --workers; what is finished stays"
                ) from None


def _leave_with_parent() -> None:
    """Ends this worker when the command is killed, which would leave it waiting for ever."""
    cv2.setNumThreads(1)

    def wait() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _convert(settings: Settings, job: Job) -> dict:
    """Writes one image and its mask; returns what was written, or why not."""
    try:
        return {"image": job.image} | _written(settings, job)
    except _LeftOut as reason:
        started = settings.out / f"{job.target}{PurePosixPath(job.image).suffix}"
        started.unlink(missing_ok=True)  # by a killed run, from other sources
        return {"image": job.image, "left_out": str(reason)}


class _LeftOut(Exception):
    """Why an image cannot be used."""


def _written(settings: Settings, job: Job) -> dict:
    dataset = DATASETS[settings.dataset]
    with _opened(settings.source / job.image, "it") as image:
        size = image.size
        shrunk = _shrunk(size, settings.max_side)
        record = {}
        if job.mask is not None:
            pixels, grey = _read_mask(dataset, settings.source / job.mask)
            record = {"grey": grey} if grey else {}
            if pixels.shape[::-1] != size:
                pixels, record["repaired"] = _fitted(pixels, image, settings, job)
            if not pixels.any():
                raise _LeftOut(f"its mask {_name(job.mask)} marks nothing ({dataset.rule})")
        suffix = PurePosixPath(job.image).suffix
        if shrunk == size:
            _copy(
                settings.source / job.image, settings.out / f"{job.target}{suffix}", settings.link
            )
        else:
            suffix = _save_reduced(image, shrunk, settings.out, job.target, suffix)
    record["target"] = f"{job.target}{suffix}"
    if job.mask is not None:
        pixels = pixels if shrunk == size else _reduced(pixels, shrunk)
        write_png(settings.out / job.mask_target, np.where(pixels, 255, 0).astype(np.uint8))
        record["mask_target"] = job.mask_target
    return record


@contextmanager
def _opened(path: Path, what: str) -> Iterator[Image.Image]:
    """An image with its header read; what Pillow cannot read is left out."""
    try:
        if path.stat().st_size == 0:
            raise _LeftOut(f"{what} is empty (0 bytes): fetch it again")
        with Image.open(path) as image:
            yield image
    except _LeftOut:
        raise
    except (OSError, SyntaxError, ValueError, TypeError, EOFError) as error:
        raise _LeftOut(f"{what} cannot be decoded ({str(error).splitlines()[0]})") from None


def _read_mask(dataset: Published, path: Path) -> tuple[np.ndarray, float]:
    """The tampered pixels, bool ``(H, W)``, and the share that is neither black nor white."""
    if path.suffix.lower() == ".npz":
        return dataset.read(_read_array(path)), 0.0
    with _opened(path, f"its mask {path.name}") as image:
        if image.mode.startswith(("I", "F")):
            values = np.asarray(image).astype(np.float32)
            values = (values / 257 if values.max() > 255 else values).astype(np.uint8)
            mask = np.repeat(values[..., None], 3, axis=-1)
        else:
            mask = np.asarray(image.convert("RGB"))
    grey = 0.0
    if dataset.read in (as_benco, black):
        sums = total(mask)
        grey = round(float(((sums > 0) & (sums < 765)).mean()), 4)
    return dataset.read(mask), grey


def _read_array(path: Path) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as content:
            array = content["arr_0"].squeeze()
    except Exception as error:  # a torn zip raises nearly anything
        raise _LeftOut(f"its mask {path.name} cannot be read ({error})") from None
    if array.ndim != 2:
        raise _LeftOut(f"its mask {path.name} has shape {array.shape}, expected (H, W)")
    return array


def _fitted(pixels, image: Image.Image, settings: Settings, job: Job) -> tuple[np.ndarray, str]:
    """A mask of another size than its image made to fit, and how; or a reason not to."""
    (height, width), size = pixels.shape, image.size
    transposed = (height, width) == size
    orientation = image.getexif().get(ORIENTATION, 1)  # decodes a PNG
    if transposed and orientation in UNTURN:
        turned = Image.fromarray(pixels).transpose(UNTURN[orientation])
        return np.asarray(turned), "mask turned back as its photograph's EXIF orientation says"
    dataset = DATASETS[settings.dataset]
    known = "known fault: " if _stem(job.image) in dataset.known_faults else ""
    fault = f"{known}mask {width}x{height}, image {size[0]}x{size[1]}"
    subsets = [PurePosixPath(path).parent.parent for path in (job.target, job.mask_target)]
    if subsets[0] != subsets[1]:
        raise _LeftOut(f"{fault}, and the mask is another subset's")
    if not settings.repair:
        raise _LeftOut(f"{fault}; {dataset.remedy}, or --repair it")
    if transposed:
        how = "turned by 90 degrees counter-clockwise, which may be the wrong way: look at it"
        return np.ascontiguousarray(np.rot90(pixels)), f"{fault}; {how}"
    resized = cv2.resize(pixels.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return resized > 0, f"{fault}; mask resized to the nearest pixel"


def _shrunk(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """The size with its long side at most ``max_side``, if that is given."""
    scale = max_side / max(size)
    if not max_side or scale >= 1:
        return size
    return tuple(max(1, round(side * scale)) for side in size)


def _reduced(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask reduced by area and cut at one half; one that would vanish keeps what it touches."""
    shares = cv2.resize(pixels.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    half = shares > 0.5
    return half if half.any() else shares > 0


def _save_reduced(image, size, out: Path, target: str, suffix: str) -> str:
    """Writes the image at another size; returns its suffix."""
    with_mode = image if image.mode in ("L", "RGB") else image.convert("RGB")
    try:
        pixels = np.asarray(with_mode)
    except OSError as error:
        raise _LeftOut(f"it cannot be decoded ({error})") from None
    reduced = Image.fromarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
    if image.format in ("JPEG", "MPO"):
        suffix = suffix if suffix.lower() in (".jpg", ".jpeg") else ".jpg"
        options = {"format": "JPEG", "quality": JPEG_QUALITY, "subsampling": 0}
    else:
        suffix, options = ".png", {"format": "PNG"}
    with written_beside(out / f"{target}{suffix}") as beside:
        reduced.save(beside, **options)
    return suffix


def _copy(source: Path, target: Path, link: bool) -> None:
    if link:
        target.unlink(missing_ok=True)
        try:
            os.link(source.resolve(), target)
            return
        except OSError:  # another file system
            pass
    copy_file(source, target)


def _lists(dataset: Published, plan: Plan, records: dict, out: Path) -> dict[Path, str]:
    """The JSON lists that go beside the folders, by file."""
    rows = defaultdict(list)
    for job in plan.jobs:
        record = records.get(job.image, {})
        if "target" not in record:
            continue
        mask = str(out / record["mask_target"]) if job.mask else NEGATIVE
        row = [str(out / record["target"]), mask]
        if dataset.parts:
            rows[f"{job.target.split('/')[0]}_COCO_list"].append(row)
        elif job.mask and dataset.list_name:
            rows[dataset.list_name].append(row)
        rows[f"{dataset.name}_with_authentic"].append(row)
    if not any(job.mask is None for job in plan.jobs):
        rows.pop(f"{dataset.name}_with_authentic", None)
    texts = {name: ",\n".join(map(json.dumps, list_)) for name, list_ in rows.items()}
    return {out / f"{name}.json": f"[\n{text}\n]\n" for name, text in texts.items()}


def _check(dataset: Published, lists: Iterable[Path], out: Path, workers, progress: bool):
    """The checker's report on what was written; a mostly white mask may be right here."""
    from .check import check

    paths = [file for file in lists if not file.stem.endswith("_with_authentic")]
    return check(
        paths if dataset.parts else [out],
        workers=workers,
        allow=("mask-inverted",),
        progress=progress,
    )


def _report(dataset: Published, source: Path, plan: Plan, records: dict) -> dict:
    left_out, repaired, renamed, grey = list(plan.left_out), [], [], []
    counts = Counter()
    for job in plan.jobs:
        record = records[job.image]
        if "left_out" in record:
            left_out.append({"file": job.image, "why": record["left_out"]})
            continue
        counts["tampered" if job.mask else "authentic"] += 1
        if "repaired" in record:
            repaired.append({"file": job.image, "why": record["repaired"]})
        if job.note:
            renamed.append({"file": job.image, "why": job.note})
        if "grey" in record:
            grey.append((record["grey"], job.image))
    notes = [*(f"note: {note}" for note in dataset.notes), *plan.notes]
    if grey:
        most, file = max(grey)
        notes.append(
            f"{len(grey)} masks have pixels between black and white, at most {most:.1%} ({file}): "
            "where the cut matters"
        )
    return {
        "dataset": dataset.name,
        "made_by": f"qma-net {__version__}",
        "source": str(source.resolve()),
        "paper": dataset.tampered,
        "tampered": counts["tampered"],
        "authentic": counts["authentic"],
        "left_out": left_out,
        "repaired": repaired,
        "renamed": renamed,
        "notes": notes,
        "mask_rule": dataset.rule,
        "layout": dataset.layout,
        "verified_on": dataset.verified_on,
        "unverified": list(dataset.unverified),
    }


def _read_report(out: Path) -> dict | None:
    file = out / REPORT
    return json.loads(file.read_text()) if file.is_file() else None

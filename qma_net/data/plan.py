"""Which image of a published archive goes with which mask: the dataset's own way of saying so."""

import csv
import io
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from ..core.errors import QMANetError
from .published import PublishedDataset

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".rar", ".7z", ".bz2")


class PrepareError(QMANetError):
    """A source or a folder that cannot be used; one line says what was got and expected."""


@dataclass(frozen=True)
class Job:
    """One image to write: its source and its mask's (None: authentic), and both targets.

    ``target`` has no suffix yet; paths are relative to the source, or to the folder written.
    ``type`` is the manipulation type of a tampered image, ``None`` where nothing tells it.
    """

    image: str
    mask: str | None
    target: str
    mask_target: str = ""
    note: str = ""
    type: str | None = None


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
        """Adds an image that is not written, and the reason."""
        self.left_out.append({"file": file, "why": why})


def plan_jobs(
    dataset: PublishedDataset,
    source: Path,
    *,
    authentic: bool = False,
    jpeg_quality: int | None = None,
) -> Plan:
    """Which image goes with which mask, by the dataset's own way of saying so.

    Args:
        dataset: as it is published.
        source: the unpacked archive, or any folder around it.
        authentic: also plan the authentic images.
        jpeg_quality: which version, of a dataset with several.

    Raises:
        PrepareError: when ``source`` does not hold the dataset, or holds it twice.
    """
    files = sorted(_files_under(source))
    plan = Plan()
    if dataset.parts:
        jobs = _jobs_by_lists(dataset, source, files, plan)
    elif dataset.table:
        jobs = _jobs_by_table(dataset, source, files, plan)
    else:
        jobs = _jobs_by_names(dataset, source, files, plan, jpeg_quality)
    plan.jobs = _unique_targets(list(jobs))
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


def _jobs_by_names(
    dataset: PublishedDataset,
    source: Path,
    files: list[str],
    plan: Plan,
    jpeg_quality: int | None,
) -> Iterator[Job]:
    """Pairs by the groups ``part`` and ``key`` of the dataset's two patterns."""
    images = _matches(dataset.image, files, jpeg_quality)
    found = _matches(dataset.mask, files)
    _refuse_twice(found, source)
    masks = {key: file for file, key in found}
    if not images or not masks:
        raise _nothing_found(dataset, source, files, "masks" if images else "images")
    _refuse_twice([(file, (key, _stem(file).lower())) for file, key in images], source)
    lonely_images = [key for _, key in images if key not in masks]
    lonely_masks = masks.keys() - {key for _, key in images}
    others = _matched_by_common_text(dataset.or_match, lonely_images, lonely_masks)
    for file, key in images:
        mask, note = masks.get(key), ""
        if mask is None and key in others:
            mask = masks[others[key]]
            note = f"paired with {_name(mask)} by what the names end in"
        if mask is None:
            plan.leave_out(file, "has no mask")
        else:
            yield _tampered(file, mask, type_=dataset.type_of(_name(file)), note=note)
    unused = len(lonely_masks - set(others.values()))
    if unused:
        plan.notes.append(f"{unused} masks have no image")


def _matched_by_common_text(
    pattern: str, images: Iterable[tuple], masks: Iterable[tuple]
) -> dict[tuple, tuple]:
    """Keys of images to keys of masks where what a pattern finds is unique on either side."""
    if not pattern:
        return {}
    found = []
    for keys in (images, masks):
        by_text = defaultdict(list)
        for key in keys:
            if match := re.search(pattern, key[-1]):
                by_text[match[1]].append(key)
        found.append({text: keys[0] for text, keys in by_text.items() if len(keys) == 1})
    images, masks = found
    return {images[text]: masks[text] for text in images.keys() & masks.keys()}


def _jobs_by_table(
    dataset: PublishedDataset, source: Path, files: list[str], plan: Plan
) -> Iterator[Job]:
    """Pairs by the rows of the dataset's own CSV."""
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
    plan.authentic, seen, untold = [], set(), 0
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
            type_ = dataset.type_in_row(row)
            untold += type_ is None
            yield _tampered(there[image.lower()], there[mask.lower()], type_=type_)
    if untold:
        plan.notes.append(
            f"{_name(tables[0])}: {untold} tampered images without one manipulation type, so their "
            "types are not counted"
        )


def _jobs_by_lists(
    dataset: PublishedDataset, source: Path, files: list[str], plan: Plan
) -> Iterator[Job]:
    """Pairs by the dataset's own lists, one per subset; all of a subset that has no list."""
    tail = {"/".join(PurePosixPath(file).parts[-2:]).lower(): file for file in files}
    folders = defaultdict(list)
    for file, key in _matches(dataset.image, files):
        folders[key[0]].append(file)
    lists = {_name(file).lower(): file for file in files if file.lower().endswith(".txt")}
    for part in dataset.parts:
        listed = f"{dataset.list_name.format(part=part)}.txt"
        file = lists.get(listed.lower())
        if file is not None:
            lines = (source / file).read_text().split("\n")
            rows = [line.strip().split(",") for line in lines if line.strip()]
        elif part in folders:
            rows = [[image] for image in folders[part]]
            plan.notes.append(f"{part}: no {listed}, so all of {part}_images/ is taken")
        else:
            plan.notes.append(f"{part}: neither {listed} nor {part}_images/ is there")
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
            # Subsets share masks, whose names differ from the first image's in .png throughout.
            owner = PurePosixPath(mask).parts[-2].split("_")[0]
            shared = _stem(PurePosixPath(mask).name.replace(".png", ".jpg"))
            yield Job(
                image=found[0],
                mask=found[1],
                target=f"{part}/Tp/{_stem(image)}",
                mask_target=f"{owner}/Gt/{shared}.png",
                type=dataset.type_of(_name(image), part),
            )
        plan.notes.append(
            f"{part}: {len(rows)} lines, {len(unique)} different, {absent} name absent files"
        )
    if not folders:
        raise _nothing_found(dataset, source, files, "images")


def _mask_of(image: str, part: str) -> str:
    """The mask's path by the published lists' rule: no quality in the name, .png everywhere."""
    name = re.sub(r"_aligned_Q\d+", "", PurePosixPath(image).name).replace(".jpg", ".png")
    return f"{'bcm' if part == 'bcmc' else part}_masks/{name}"


def _matches(
    pattern: str, files: list[str], jpeg_quality: int | None = None
) -> list[tuple[str, tuple[str, str]]]:
    """Files that a pattern finds, with the (part, key) that joins images and masks."""
    pattern = re.compile(pattern.replace("{quality}", str(jpeg_quality)), re.IGNORECASE)
    found = []
    for file in files:
        if match := pattern.search(file):
            groups = match.groupdict()
            part = (groups.get("part") or "").lower()
            found.append((file, (part, (groups.get("key") or "").lower())))
    return found


def _tampered(image: str, mask: str, *, type_: str | None, note: str = "") -> Job:
    """A job whose targets have the image's stem."""
    stem = _stem(image)
    return Job(
        image, mask, target=f"Tp/{stem}", mask_target=f"Gt/{stem}.png", note=note, type=type_
    )


def _unique_targets(jobs: list[Job]) -> list[Job]:
    """Images of one name get their folder's before it."""
    count = Counter(job.target for job in jobs)
    if len(count) == len(jobs):
        return jobs
    longer = []
    for job in jobs:
        if count[job.target] > 1:
            stem = f"{PurePosixPath(job.image).parent.name}_{_stem(job.image)}"
            folder = PurePosixPath(job.target).parent
            mask_target = f"Gt/{stem}.png" if job.mask else ""
            job = replace(job, target=f"{folder}/{stem}", mask_target=mask_target)
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


def _nothing_found(
    dataset: PublishedDataset, source: Path, files: list[str], what: str
) -> PrepareError:
    packed = [file for file in files if file.lower().endswith(ARCHIVES)]
    remedy = f"; unpack {', '.join(packed[:3])} first" if packed else ""
    return PrepareError(
        f"got {source} with {len(files)} files and no {what} of {dataset.name} among them, "
        f"expected {dataset.layout}{remedy}"
    )


def _files_under(source: Path) -> Iterator[str]:
    """All files under the source, relative, without hidden ones and what macOS adds to archives."""
    for folder, folders, names in os.walk(source, followlinks=True):
        folders[:] = [name for name in folders if name[0] != "." and name != "__MACOSX"]
        place = Path(folder).relative_to(source)
        yield from ((place / name).as_posix() for name in names if name[0] != ".")


def _stem(file: str) -> str:
    return PurePosixPath(file).stem


def _name(file: str) -> str:
    return PurePosixPath(file).name

"""Pairing the images and masks of a published archive, before anything is converted."""

import codecs
import csv
import io
import os
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from ..core.errors import QMANetError
from ..core.files import read_bytes
from .published import PublishedDataset

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".rar", ".7z", ".bz2")
TABLE_COLUMNS = {"probefilename", "probemaskfilename", "istarget"}
MAX_TEXT_BYTES = 2**28  # Of a list or a table; the largest published list has about 20 MB.
SHOWN_FOLDERS = 8  # In the description of a source's layout.

Key = tuple[str, str]  # The groups `part` and `key`, which join images and masks.


class PrepareError(QMANetError):
    """A source or an output folder that cannot be used."""


@dataclass(frozen=True)
class Job:
    """One image to convert. Paths are relative to the source or to the output folder."""

    image: str
    mask: str | None  # None for an authentic image.
    target: str  # Where to write the image, without suffix.
    mask_target: str = ""
    note: str = ""  # How it was paired, if not by name.
    type: str | None = None  # The manipulation type, None if unknown.


@dataclass
class Plan:
    """The images to convert."""

    dataset: PublishedDataset
    source: Path
    files: list[str]  # The paths of all files of the source.
    jobs: list[Job] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)  # "file" and "why" of images.
    notes: list[str] = field(default_factory=list)  # Remarks for the report.
    authentic: list[str] | None = None  # Authentic images if a table lists them.

    def leave_out(self, file: str, why: str) -> None:
        """Record an image that cannot be used."""
        self.left_out.append({"file": file, "why": why})

    def found_layout(self) -> list[str]:
        """Describe the folders with the most files, one per line with an example."""
        by_folder = defaultdict(list)
        for file in self.files:
            path = PurePosixPath(file)
            by_folder[path.parent, path.suffix.lower()].append(file)
        folders = sorted(by_folder.values(), key=len, reverse=True)
        lines = [f"{len(files)} files such as {files[0]}" for files in folders[:SHOWN_FOLDERS]]
        if len(folders) > SHOWN_FOLDERS:
            lines.append(f"... and {len(folders) - SHOWN_FOLDERS} more folders")
        return lines

    def expected_layout(self) -> list[str]:
        """Describe the published layout, with examples."""
        return [self.dataset.layout, *(f"for example {file}" for file in self.dataset.examples)]


def plan_jobs(
    dataset: PublishedDataset, source: Path, *, authentic: bool, jpeg_quality: int | None
) -> Plan:
    """Pair images and masks by the dataset's lists, table or file names; see :func:`.prepare`.

    Raises:
        PrepareError: If ``source`` does not contain the dataset, or contains it twice.
    """
    plan = Plan(dataset, source, sorted(_files_under(source)))
    if dataset.parts:
        jobs = _jobs_by_lists(plan)
    elif dataset.table:
        jobs = _jobs_by_table(plan)
    else:
        jobs = _jobs_by_names(plan, jpeg_quality)
    plan.jobs = _with_unique_targets(list(jobs))
    if not plan.jobs:
        raise PrepareError(f"no {dataset.name} image in '{source}' has a mask")
    if authentic:
        images = plan.authentic
        if images is None:
            images = [file for file, _ in _matches(dataset.authentic or "(?!)", plan.files)]
        plan.jobs += _with_unique_targets([Job(file, None, f"Au/{_stem(file)}") for file in images])
        if not images:
            plan.notes.append(f"no authentic images found for {dataset.name}")
    return plan


def _jobs_by_names(plan: Plan, jpeg_quality: int | None) -> Iterator[Job]:
    """Pair images and masks by the groups ``part`` and ``key`` of the dataset's two patterns."""
    dataset = plan.dataset
    images = _matches(dataset.image, plan.files, jpeg_quality)
    mask_matches = _matches(dataset.mask, plan.files)
    _require_unique(mask_matches, plan.source)
    masks = {key: file for file, key in mask_matches}
    if not images or not masks:
        raise _not_found(plan, "masks" if images else "images")
    _require_unique([(file, (key, _stem(file).lower())) for file, key in images], plan.source)
    unpaired_images = [key for _, key in images if key not in masks]
    unpaired_masks = masks.keys() - {key for _, key in images}
    others: dict[Key, Key] = {}
    notes: dict[Key, str] = {}
    for pattern in dataset.or_match:
        pairs = _pair_by_common_parts(pattern, unpaired_images, unpaired_masks)
        for image, other, parts in pairs:
            others[image] = other
            notes[image] = f"paired with {_name(masks[other])}, which shares {', '.join(parts)}"
        unpaired_images = [key for key in unpaired_images if key not in others]
        unpaired_masks = unpaired_masks - set(others.values())
    for file, key in images:
        mask = masks.get(others.get(key, key))
        if mask is None:
            plan.leave_out(file, "has no mask")
            continue
        manipulation = dataset.type_of(_name(file))
        yield _tampered(file, mask, manipulation=manipulation, note=notes.get(key, ""))
    if unpaired_masks:
        plan.notes.append(f"{len(unpaired_masks)} masks have no image")


def _pair_by_common_parts(
    pattern: str, images: Iterable[Key], masks: Iterable[Key]
) -> list[tuple[Key, Key, tuple[str, ...]]]:
    """Pair keys in which the pattern captures the same groups, in any order.

    A pair is omitted if a third key has the same groups.

    Returns:
        For each pair, the key of the image, the key of the mask, and the groups.
    """
    by_parts: dict[tuple[str, ...], tuple[list[Key], list[Key]]] = defaultdict(lambda: ([], []))
    for side, keys in enumerate((images, masks)):
        for key in keys:
            if match := re.search(pattern, key[-1]):
                by_parts[tuple(sorted(match.groups()))][side].append(key)
    return [
        (image[0], mask[0], parts)
        for parts, (image, mask) in by_parts.items()
        if len(image) == len(mask) == 1
    ]


def _jobs_by_table(plan: Plan) -> Iterator[Job]:
    """Pair images and masks by the rows of the dataset's CSV file."""
    dataset, source = plan.dataset, plan.source
    tables = [file for file in plan.files if file.lower().endswith(dataset.table)]
    if len(tables) != 1:
        raise PrepareError(
            f"'{source}' contains {len(tables)} tables named {dataset.table} instead of one; "
            f"expected layout: {dataset.layout}"
        )
    root = PurePosixPath(tables[0]).parents[2]
    by_lower_name = {file.lower(): file for file in plan.files}
    text = _read_text(source / tables[0])
    header = text.partition("\n")[0]
    delimiter = max("|,;\t", key=header.count)
    plan.notes.append(f"{_name(tables[0])}: delimiter {delimiter!r}")
    plan.authentic = []
    seen: set[str] = set()
    untyped = 0
    try:
        rows = list(csv.DictReader(io.StringIO(text), delimiter=delimiter))
    except csv.Error as error:
        raise PrepareError(
            f"cannot read {source / tables[0]} as a CSV file: {error}; download it again"
        ) from None
    for row in rows:
        row = {key.strip().lower(): (value or "").strip() for key, value in row.items() if key}
        if not row.keys() >= TABLE_COLUMNS:
            raise PrepareError(
                f"{source / tables[0]} has the columns {header.strip()[:200]!r}, which do not "
                "include ProbeFileName, ProbeMaskFileName and IsTarget; use the table of the "
                "original archive"
            )
        name, mask_name = (str(root / row[key]) for key in ("probefilename", "probemaskfilename"))
        if name in seen:
            continue
        seen.add(name)
        image, mask = by_lower_name.get(name.lower()), by_lower_name.get(mask_name.lower())
        if image is None:
            plan.leave_out(name, "is named in the table but missing")
        elif row["istarget"].upper() != "Y":
            plan.authentic.append(image)
        elif mask is None:
            plan.leave_out(name, f"its mask {row['probemaskfilename']} is missing")
        else:
            manipulation = dataset.type_in_row(row)
            untyped += manipulation is None
            yield _tampered(image, mask, manipulation=manipulation)
    if untyped:
        plan.notes.append(
            f"{_name(tables[0])}: types are not counted, since {untyped} tampered images do not "
            "have exactly one manipulation type"
        )


def _jobs_by_lists(plan: Plan) -> Iterator[Job]:
    """Pair by the dataset's lists, one per subset; if a list is missing, use the whole subset."""
    dataset, files = plan.dataset, plan.files
    by_tail = {_tail(file): file for file in files}
    folders = defaultdict(list)
    for file, key in _matches(dataset.image, files):
        folders[key[0]].append(file)
    lists = {_name(file).lower(): file for file in files if file.lower().endswith(".txt")}
    for part in dataset.parts:
        list_name = f"{dataset.list_name.format(part=part)}.txt"
        list_file = lists.get(list_name.lower())
        if list_file is not None:
            lines = _read_text(plan.source / list_file).split("\n")
            rows = [line.strip().split(",") for line in lines if line.strip()]
        elif part in folders:
            rows = [[image] for image in folders[part]]
            plan.notes.append(f"{part}: {list_name} is missing, so all of {part}_images/ is used")
        else:
            plan.notes.append(f"{part}: both {list_name} and {part}_images/ are missing")
            continue
        unique = {row[0]: row[1] if len(row) > 1 else _mask_of(row[0], part) for row in rows}
        missing = 0
        for listed_image, listed_mask in unique.items():
            image, mask = by_tail.get(_tail(listed_image)), by_tail.get(_tail(listed_mask))
            if image is None or mask is None:
                missing += 1
                why = "is listed but missing" if image is None else f"lacks its mask {listed_mask}"
                plan.leave_out(listed_image, why)
                continue
            # Subsets share masks. A mask's name has .png where its original image's name has .jpg.
            mask_part = PurePosixPath(listed_mask).parent.name.split("_")[0]
            if mask_part not in dataset.parts:
                missing += 1
                plan.leave_out(listed_image, f"its mask {listed_mask} is not in {part}_masks/")
                continue
            mask_stem = _stem(_name(listed_mask).replace(".png", ".jpg"))
            target, mask_target = (
                f"{part}/Tp/{_stem(listed_image)}",
                f"{mask_part}/Gt/{mask_stem}.png",
            )
            yield Job(image, mask, target, mask_target, type=dataset.types.get(part))
        plan.notes.append(
            f"{part}: {len(rows)} lines, {len(unique)} unique, {missing} with missing files"
        )
    if not folders:
        raise _not_found(plan, "images")


def _mask_of(image: str, part: str) -> str:
    """Derive the mask's path by the lists' rule: no quality in the name, .png for every .jpg."""
    name = re.sub(r"_aligned_Q\d+", "", _name(image)).replace(".jpg", ".png")
    return f"{'bcm' if part == 'bcmc' else part}_masks/{name}"


def _matches(
    pattern: str, files: list[str], jpeg_quality: int | None = None
) -> list[tuple[str, Key]]:
    """Return the files that match a pattern, with their keys in lower case."""
    regex = re.compile(pattern.replace("{quality}", str(jpeg_quality)), re.IGNORECASE)
    matches = []
    for match in filter(None, map(regex.search, files)):
        groups = match.groupdict()
        key = ((groups.get("part") or "").lower(), (groups.get("key") or "").lower())
        matches.append((match.string, key))
    return matches


def _tampered(image: str, mask: str, *, manipulation: str | None, note: str = "") -> Job:
    stem = _stem(image)
    return Job(image, mask, f"Tp/{stem}", f"Gt/{stem}.png", note, manipulation)


def _with_unique_targets(jobs: list[Job]) -> list[Job]:
    """Prepend the folder's name to the targets of images that have the same name."""
    count = Counter(job.target for job in jobs)
    unique = []
    for job in jobs:
        if count[job.target] > 1:
            stem = f"{PurePosixPath(job.image).parent.name}_{_stem(job.image)}"
            target = f"{PurePosixPath(job.target).parent}/{stem}"
            job = replace(job, target=target, mask_target=f"Gt/{stem}.png" if job.mask else "")
        unique.append(job)
    _require_unique([(job.image, job.target) for job in unique], "the source")
    return unique


def _require_unique(files: Iterable[tuple[str, Hashable]], source: Path | str) -> None:
    """Raise an error if two files have the same key."""
    first: dict[Hashable, str] = {}
    for file, key in files:
        if key in first:
            raise PrepareError(
                f"{source} contains both {first[key]} and {file}, which have the same name; pass "
                "a --source that contains the dataset only once"
            )
        first[key] = file


def _not_found(plan: Plan, what: str) -> PrepareError:
    packed = [file for file in plan.files if file.lower().endswith(ARCHIVES)]
    remedy = f"; unpack {', '.join(packed[:3])} first" if packed else ""
    return PrepareError(
        f"no {plan.dataset.name} {what} found in '{plan.source}' ({len(plan.files)} files); "
        f"expected layout: {plan.dataset.layout}{remedy}"
    )


def _files_under(source: Path) -> Iterator[str]:
    """Yield relative paths of all files except hidden ones and what macOS adds to archives.

    Symbolic links are followed, except to a folder that contains them, and no link is followed
    twice; otherwise, the search would never end if links point to each other.
    """
    entered: set[tuple[str, str]] = set()
    pending: list[tuple[Path, str, tuple[str, ...]]]
    pending = [(source, "", (os.path.realpath(source),))]
    while pending:
        folder, relative, parents = pending.pop()
        with suppress(PermissionError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name[0] == "." or entry.name == "__MACOSX":
                    continue
                if not entry.is_dir():
                    yield relative + entry.name
                    continue
                target, link = os.path.realpath(entry.path), (parents[-1], entry.name)
                if target not in parents and link not in entered:
                    entered.add(link)
                    path = f"{relative}{entry.name}/"
                    pending.append((Path(entry.path), path, (*parents, target)))


def _read_text(path: Path) -> str:
    """Read a list or a table in UTF-8, UTF-16 or, failing that, Latin-1.

    Raises:
        ContentError: If it is not a regular file or is too large.
    """
    data = read_bytes(path, limit=MAX_TEXT_BYTES)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _name(file: str) -> str:
    return PurePosixPath(file).name


def _stem(file: str) -> str:
    return PurePosixPath(file).stem


def _tail(file: str) -> str:
    """Return the file's name and folder in lower case."""
    return "/".join(PurePosixPath(file).parts[-2:]).lower()

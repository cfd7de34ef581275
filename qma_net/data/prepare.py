"""Conversion of a published dataset to what BenCo reads (``data prepare``).

Masks become single-channel PNGs of 0 and 255 with the size and the stem of their image. Images keep
their bytes unless they are downscaled. Finished images are recorded in ``prepare.jsonl``, so that
an interrupted run can be resumed; the report ``prepare.json`` is written last. The source is not
modified.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from .. import __version__
from ..core.files import (
    read_json_object,
    remove_temporary_files,
    safe_path,
    to_json,
    write_json,
    write_text,
)
from ..core.runs import Run
from ..core.workers import map_in_processes
from .check import Report, check
from .convert import Conversion, convert
from .listing import NEGATIVE, PREPARE_JOURNAL, PREPARE_REPORT
from .plan import Job, Plan, PrepareError, plan_jobs
from .published import ALL_DATASETS, count_types, dataset_named

COMPLETE_SHARE = 0.95  # Below this fraction of the published images, a dataset is incomplete.
SHOWN_PER_REASON = 20  # Number of files that the printed report names per reason.


@dataclass
class Prepared:
    """The result of :func:`prepare`."""

    report: dict  # The content of prepare.json.
    out: Path
    processed: int  # Number of images that this run converted or left out.
    plan: Plan
    checked: Report | None = None  # The final check; None if there was nothing to do.

    @property
    def is_complete(self) -> bool:
        """Whether nearly all published images were converted; see :data:`COMPLETE_SHARE`."""
        return self.report["tampered"] >= COMPLETE_SHARE * self.plan.dataset.tampered

    def layouts(self) -> str:
        """Describe the source's layout next to the expected one."""
        dataset = self.plan.dataset
        lines = [
            f"{dataset.name} is incomplete: {self.report['tampered']} of "
            f"{dataset.published_count} tampered images. Compare the layouts:",
            f"found in {self.plan.source}:",
            *(f"  {line}" for line in self.plan.found_layout()),
            "expected:",
            *(f"  {line}" for line in self.plan.expected_layout()),
            "Pass a different --source, or --partial if an incomplete dataset is intended.",
        ]
        return "\n".join(lines)

    def text(self) -> str:
        """Format the report for printing."""
        report, lines = self.report, []
        if self.checked is None:
            lines.append(f"nothing to do: {self.out} is up to date")
        count = self.plan.dataset.published_count
        lines.append(f"{report['dataset']}: {report['tampered']} of {count} tampered images")
        if report["authentic"]:
            lines.append(f"{report['authentic']} authentic images in Au/")
        titles = {"left_out": "left out", "renamed": "paired despite different names"}
        for key in ("left_out", "repaired", "renamed"):
            rows = report[key]
            if rows:
                lines.append(f"{len(rows)} {titles.get(key, key)}:")
                lines += [f"  {row['file']}: {row['why']}" for row in rows[:SHOWN_PER_REASON]]
            if len(rows) > SHOWN_PER_REASON:
                more = len(rows) - SHOWN_PER_REASON
                lines.append(f"  ... and {more} more, see {self.out / PREPARE_REPORT}")
        lines += report["notes"]
        lines.append(f"tampered pixels: {report['mask_rule']}")
        lines.append(f"layout: {report['layout']}; tested on {report['verified_on']}")
        lines += [f"not verified: {item}" for item in report["unverified"]]
        if self.checked is not None:
            lines.append(self.checked.text())
        return "\n".join(lines)


def prepare(
    name: str,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    max_side: int = 0,
    authentic: bool = False,
    repair: bool = False,
    link: bool = False,
    jpeg_quality: int | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Prepared:
    """Convert a published dataset, or resume its conversion.

    Args:
        name: One of :data:`~.published.ALL_DATASETS`, ignoring case.
        source: The unpacked archive, or any folder that contains it.
        out: The dataset's own folder, for ``Tp/`` and ``Gt/`` (one pair per subset of TampCOCO).
        max_side: Downscale images whose longer side exceeds this number of pixels: JPEGs to JPEG at
            quality 95 without chroma subsampling, others to PNG. Masks are averaged and thresholded
            at one half. With 0, images keep their bytes, including the EXIF orientation, which
            BenCo ignores.
        authentic: Also write ``Au/`` and ``<name>_with_authentic.json``.
        repair: Keep images whose mask has the wrong size, instead of leaving them out. A transposed
            mask is rotated by 90 degrees counter-clockwise, as in TruFor (the right direction is
            unknown); any other mask is resized with nearest-neighbor interpolation.
        link: Use hard links instead of copies if the file system supports them.
        jpeg_quality: Version of AutoSplice: 100 (default), 90 or 75.
        workers: Number of processes, by default one per core.
        progress: Show progress bars.

    Raises:
        PrepareError: If the source is not this dataset, or ``out`` contains something else.
        QMANetError: If ``out`` was written with different settings or is in use, or if a worker
            process was killed. The next run resumes.
    """
    dataset, part = dataset_named(name)
    if dataset is None or part:
        raise PrepareError(f"unknown dataset {name!r}; choose one of {', '.join(ALL_DATASETS)}")
    source, out = Path(source), Path(out).resolve()
    _check_folders(source, out, dataset.parts)
    if max_side < 0:
        raise PrepareError(f"--max-side {max_side} is negative; pass a size in pixels, or 0")
    if jpeg_quality is None:
        jpeg_quality = 100 if "{quality}" in dataset.image else None
    elif "{quality}" not in dataset.image:
        raise PrepareError(
            f"--jpeg-quality does not apply to {dataset.name}; only AutoSplice has several versions"
        )
    plan = plan_jobs(dataset, source, authentic=authentic, jpeg_quality=jpeg_quality)
    if max_side and dataset.role != "training":
        plan.notes.append(f"--max-side {max_side} {dataset.max_side_rule()}")
    identity = {"dataset": dataset.name, "max_side": max_side, "jpeg_quality": jpeg_quality}
    settings = identity | {"authentic": authentic, "repair": repair}
    conversion = Conversion(
        dataset=dataset, source=source, out=out, max_side=max_side, repair=repair, link=link
    )
    contents = "prepared images"
    with Run(out, identity, key=("image",), journal=PREPARE_JOURNAL, contents=contents) as run:
        stamps = {job.image: _stamp(source, job) for job in plan.jobs}
        # Types from a table are recorded, since they cannot be derived from the written files.
        types = {job.image: {"type": job.type} for job in plan.jobs if job.type and dataset.table}
        current, obsolete = {}, []
        for record in run.finished.values():
            image = record["image"]
            if _is_current(record, stamp=stamps.get(image), repair=repair, out=out):
                record.update(types.get(image, {}))
                current[image] = record
            else:
                obsolete.append(record)
        old_report: dict = {}
        if (out / PREPARE_REPORT).is_file():
            expected = "the report of `qma-net data prepare`; delete it or choose a different --out"
            old_report = read_json_object(out / PREPARE_REPORT, expected)
        if old_report and not obsolete and len(current) == len(plan.jobs):
            report = _report(plan, current, settings)
            report["check"] = check_result = old_report.get("check")
            lists = _lists(plan, current, out)
            is_checked = isinstance(check_result, dict) and "errors" in check_result
            if is_checked and report == old_report and all(map(_contains, lists, lists.values())):
                return Prepared(old_report, out, processed=0, plan=plan)
        (out / PREPARE_REPORT).unlink(missing_ok=True)
        targets = {file for job in plan.jobs for file in (job.target, job.mask_target) if file}
        for folder in {(out / file).parent for file in targets}:
            folder.mkdir(parents=True, exist_ok=True)
            remove_temporary_files(folder)
        _delete_files(out, obsolete, keep=current.values())
        run.retain(lambda record: record["image"] in current)
        todo = list(run.pending(plan.jobs, key=lambda job: job.image))
        records = map_in_processes(convert, conversion, todo, workers)
        for record in tqdm(records, dataset.name, len(todo), unit="image", disable=not progress):
            image = record["image"]
            run.finish(record | {"stamp": stamps[image], "repair": repair} | types.get(image, {}))
        lists = _lists(plan, run.finished, out)
        for file, rows in lists.items():
            write_text(file, "[\n" + ",\n".join(map(to_json, rows)) + "\n]\n")
        subsets = [file for file in lists if not file.stem.endswith("_with_authentic")]
        checked = check(
            subsets if dataset.parts else [out],
            workers=workers,
            allow=["mask-inverted"],  # Published masks may be mostly white.
            progress=progress,
        )
        report = _report(plan, run.finished, settings)
        report["check"] = {"errors": len(checked.errors), "warnings": len(checked.warnings)}
        write_json(out / PREPARE_REPORT, report)
        return Prepared(report, out, len(todo), plan, checked)


def _check_folders(source: Path, out: Path, parts: tuple[str, ...]) -> None:
    if not source.is_dir():
        raise PrepareError(
            f"--source '{source}' is not a folder; pass the folder of an unpacked archive"
        )
    if source.resolve() in (out, *out.parents):
        raise PrepareError(f"--out '{out}' is inside --source '{source}'; choose a separate folder")
    folders = [name for name in ("Tp", "Gt", "Au", *parts) if (out / name).exists()]
    if folders and not (out / PREPARE_JOURNAL).is_file():
        raise PrepareError(
            f"--out '{out}' contains {folders[0]}/ but no {PREPARE_JOURNAL}; choose an empty "
            "folder or one created by data prepare"
        )


def _stamp(source: Path, job: Job) -> list:
    """Return what a finished image depends on: its targets, and the sources' sizes and times."""
    stats = [os.stat(source / file) for file in (job.image, job.mask) if file]
    return [job.target, job.mask_target, *([stat.st_size, stat.st_mtime_ns] for stat in stats)]


def _is_current(record: dict, *, stamp: list | None, repair: bool, out: Path) -> bool:
    """Return whether an image's files exist and converting it again would give the same files."""
    if not _is_intact(record, has_mask=bool(stamp and stamp[1])):
        return False
    depends_on_repair = "left_out" in record or "repaired" in record
    if record.get("stamp") != stamp or (depends_on_repair and record.get("repair") != repair):
        return False
    return all((out / target).is_file() for target in _targets(record))


def _is_intact(record: dict, *, has_mask: bool) -> bool:
    """Return whether a record has valid fields; journals without checksums may be damaged."""
    texts = [record[key] for key in ("left_out", "repaired", "type") if key in record]
    files = 0 if "left_out" in record else 1 + has_mask
    return (
        all(isinstance(text, str) for text in texts)
        and isinstance(record.get("grey", 0.0), float)
        and len(_targets(record)) == files
    )


def _targets(record: dict) -> list[str]:
    targets = [record.get(key) for key in ("target", "mask_target")]
    return [target for target in targets if target and isinstance(target, str)]


def _delete_files(out: Path, obsolete: Iterable[dict], *, keep: Iterable[dict]) -> None:
    """Delete the files of obsolete records, except masks that are shared with records to keep."""
    needed = {record.get("mask_target") for record in keep}
    for record in obsolete:
        paths = {target: safe_path(out, target, nested=True) for target in _targets(record)}
        for target in paths.keys() - needed:
            paths[target].unlink(missing_ok=True)


def _lists(plan: Plan, records: dict, out: Path) -> dict[Path, list[list[str]]]:
    """Return the rows of the JSON lists to write next to the folders, by file."""
    dataset = plan.dataset
    with_authentic = f"{dataset.name}_with_authentic"
    rows = defaultdict(list)
    for job in plan.jobs:
        record = records.get(job.image, {})
        if "target" not in record:
            continue
        mask = str(out / record["mask_target"]) if job.mask else NEGATIVE
        row = [str(out / record["target"]), mask]
        if job.mask and dataset.list_name:
            rows[dataset.list_name.format(part=job.target.split("/")[0])].append(row)
        rows[with_authentic].append(row)
    if all(job.mask for job in plan.jobs):
        rows.pop(with_authentic, None)
    return {out / f"{name}.json": items for name, items in rows.items()}


def _contains(file: Path, rows: list[list[str]]) -> bool:
    try:
        return json.loads(file.read_bytes()) == rows
    except (OSError, ValueError):
        return False


def _report(plan: Plan, records: dict, settings: dict) -> dict:
    """Return the content of ``prepare.json`` except for the result of the check."""
    dataset = plan.dataset
    left_out, repaired, renamed, grey = list(plan.left_out), [], [], []
    types, authentic = [], 0
    for job in plan.jobs:
        record = records[job.image]
        if "left_out" in record:
            left_out.append({"file": job.image, "why": record["left_out"]})
            continue
        if job.mask:
            types.append(job.type)
        else:
            authentic += 1
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
            f"{len(grey)} masks have pixels between black and white, at most {most:.1%} ({file}); "
            "these depend on the threshold"
        )
    by_type = count_types(types)
    return {
        "dataset": dataset.name,
        "made_by": f"qma-net {__version__}",
        "source": str(plan.source.resolve()),
        "paper" if dataset.in_paper else "published": dataset.tampered,
        "tampered": len(types),
        "authentic": authentic,
        **({"types": by_type} if by_type else {}),
        "left_out": left_out,
        "repaired": repaired,
        "renamed": renamed,
        "notes": notes,
        "mask_rule": dataset.rule,
        "layout": dataset.layout,
        "verified_on": dataset.verified_on,
        "unverified": list(dataset.unverified),
        "settings": settings,
    }

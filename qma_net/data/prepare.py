"""A published archive made into what BenCo reads: one engine for the table of ``published.py``.

Masks become single-channel PNGs of 0 and 255 with their image's size and stem; images keep their
bytes. Every finished file is noted in ``prepare.jsonl``, so that a killed run is completed by the
next one; ``prepare.json`` is the report, and is there when everything is. The source is only read.
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .. import __version__
from ..core.files import read_json_object, write_text
from ..core.runs import FolderLock
from .check import check
from .convert import Conversion, convert_all
from .findings import Report
from .journal import (
    REPORT,
    PresentFiles,
    is_done,
    make_room,
    open_records,
    read_records,
    stamp_of,
)
from .listing import NEGATIVE
from .plan import Plan, PrepareError, plan_jobs
from .published import DATASETS, PublishedDataset, count_types

SHOWN_PER_REASON = 20  # files


@dataclass
class Prepared:
    """What a run did.

    ``report`` is as ``prepare.json`` holds it, ``done_now`` the number of images that this run
    looked at, ``checked`` the checker's report, ``None`` where there was nothing to do.
    """

    report: dict
    out: Path
    done_now: int
    checked: Report | None = None

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
                lines += [f"  {row['file']}: {row['why']}" for row in rows[:SHOWN_PER_REASON]]
            if len(rows) > SHOWN_PER_REASON:
                more = len(rows) - SHOWN_PER_REASON
                lines.append(f"  ... and {more} more, in {self.out / REPORT}")
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
    *,
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
        WorkersError: when a process was killed; the next run goes on where it was.
    """
    dataset = find_dataset(name)
    source, out = Path(source), Path(out).resolve()
    _refuse_places(source, out)
    if max_side < 0:
        raise PrepareError(f"got --max-side {max_side}, expected a side in pixels, or 0 for none")
    if jpeg_quality is None:
        jpeg_quality = 100 if "{quality}" in dataset.image else None
    elif "{quality}" not in dataset.image:
        raise PrepareError(f"got --jpeg-quality with {dataset.name}, only AutoSplice has versions")
    plan = plan_jobs(dataset, source, authentic=authentic, jpeg_quality=jpeg_quality)
    if max_side and dataset.role == "test":
        plan.notes.append(f"--max-side {max_side} {dataset.max_side_rule()}")
    identity = {"dataset": dataset.name, "max_side": max_side, "jpeg_quality": jpeg_quality}
    conversion = Conversion(
        dataset=dataset.name, source=source, out=out, max_side=max_side, repair=repair, link=link
    )
    with FolderLock(out):
        records = read_records(out, identity)
        stamps = {job.image: stamp_of(source, job) for job in plan.jobs}
        types = _types_to_record(dataset, plan)
        present = PresentFiles(out)
        kept = {
            image: record | types.get(image, {})
            for image, record in records.items()
            if image in stamps
            and is_done(record, stamp=stamps[image], repair=repair, present=present)
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
        obsolete = [records[image] for image in records.keys() - kept.keys()]
        make_room(out, plan.jobs, obsolete=obsolete, kept=kept.values())
        with open_records(out, identity, kept.values()) as add:
            for record in convert_all(conversion, todo, workers=workers, progress=progress):
                record |= {"stamp": stamps[record["image"]], "repair": repair}
                record |= types.get(record["image"], {})
                add(record)
                kept[record["image"]] = record
        lists = _lists(dataset, plan, kept, out)
        for file, text in lists.items():
            write_text(file, text)
        checked = check(
            _to_check(dataset, lists, out),
            workers=workers,
            allow=["mask-inverted"],  # a mostly white mask may be right here
            progress=progress,
        )
        report = _report(dataset, source, plan, kept) | {"settings": flags}
        report["check"] = {"errors": len(checked.errors), "warnings": len(checked.warnings)}
        write_text(out / REPORT, json.dumps(report, indent=1))
        return Prepared(report, out, len(todo), checked)


def find_dataset(name: str) -> PublishedDataset:
    """A published dataset by name, without regard to case.

    Raises:
        PrepareError: where there is none of this name.
    """
    for known, dataset in DATASETS.items():
        if known.lower() == name.lower():
            return dataset
    raise PrepareError(f"got {name!r}, expected one of {', '.join(DATASETS)}")


def _refuse_places(source: Path, out: Path) -> None:
    if not source.is_dir():
        raise PrepareError(
            f"got --source {source}, expected the folder of an unpacked archive: there is none"
        )
    if out == source.resolve() or source.resolve() in out.parents:
        raise PrepareError(f"got --out {out} inside --source {source}, expected a folder apart")


def _types_to_record(dataset: PublishedDataset, plan: Plan) -> dict[str, dict]:
    """What the journal adds to an image's record: the type, where only the table tells it."""
    if not dataset.table:
        return {}
    return {job.image: {"type": job.type} for job in plan.jobs if job.type}


def _lists(dataset: PublishedDataset, plan: Plan, records: dict, out: Path) -> dict[Path, str]:
    """The JSON lists that go beside the folders, by file."""
    rows = defaultdict(list)
    for job in plan.jobs:
        record = records.get(job.image, {})
        if "target" not in record:
            continue
        mask = str(out / record["mask_target"]) if job.mask else NEGATIVE
        row = [str(out / record["target"]), mask]
        if job.mask and dataset.list_name:
            rows[dataset.list_name.format(part=job.target.split("/")[0])].append(row)
        rows[f"{dataset.name}_with_authentic"].append(row)
    if not any(job.mask is None for job in plan.jobs):
        rows.pop(f"{dataset.name}_with_authentic", None)
    texts = {name: ",\n".join(map(json.dumps, list_)) for name, list_ in rows.items()}
    return {out / f"{name}.json": f"[\n{text}\n]\n" for name, text in texts.items()}


def _to_check(dataset: PublishedDataset, lists: Iterable[Path], out: Path) -> list[Path]:
    """What was written, in the forms that BenCo takes: the subsets' lists, or the folder."""
    if not dataset.parts:
        return [out]
    return [file for file in lists if not file.stem.endswith("_with_authentic")]


def _report(dataset: PublishedDataset, source: Path, plan: Plan, records: dict) -> dict:
    """What ``prepare.json`` holds, but for the flags and the check.

    ``types`` is the number of tampered images of each manipulation type; it is absent where not
    all are known.
    """
    left_out, repaired, renamed, grey = list(plan.left_out), [], [], []
    counts, types = Counter(), []
    for job in plan.jobs:
        record = records[job.image]
        if "left_out" in record:
            left_out.append({"file": job.image, "why": record["left_out"]})
            continue
        counts["tampered" if job.mask else "authentic"] += 1
        types += [job.type] if job.mask else []
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
    by_type = count_types(types)
    return {
        "dataset": dataset.name,
        "made_by": f"qma-net {__version__}",
        "source": str(source.resolve()),
        "paper": dataset.tampered,
        "tampered": counts["tampered"],
        "authentic": counts["authentic"],
        **({"types": by_type} if by_type else {}),
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
    expected = "the report of data prepare: choose another --out, or delete it"
    return read_json_object(file, expected) if file.is_file() else None

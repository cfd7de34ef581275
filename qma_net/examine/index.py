"""The index of a folder of reports: a page that ranks the photos by score, and a table."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import QMANetError
from ..core.files import ContentError, read_bytes, read_json_object, write_text
from ..core.html import data_uri
from ..core.untrusted import format_csv
from .page import PAGE, REPORT, THUMBNAIL, render_template

logger = logging.getLogger(__name__)

INDEX, TABLE = "index.html", "examinations.csv"
MARK = '<meta name="generator" content="qma-net examine">'  # Recognizes our own index.
COLUMNS = (
    *("rank", "file", "report", "score", "marked", "unreadable", "as_high", "calibrated_on"),
    *("not_comparable", "format", "width", "height", "bytes", "camera", "taken"),
    *("last_modified", "saved_by", "signs", "error"),
)
TABLE_MARK = ",".join(COLUMNS[:3])  # The beginning of our own table.
MAX_THUMBNAIL_BYTES = 2**18
# The types of a report's entries that the index uses; all items of a list have the same type.
TEXT, COUNT, NUMBER = str | None, int | None, int | float | None
REPORT_TYPES: Mapping[str, Any] = {
    "file": str,
    **dict.fromkeys(("format", "error", "resaved"), TEXT),
    **dict.fromkeys(("width", "height", "bytes", "as_high", "calibrated_on"), COUNT),
    **dict.fromkeys(("score", "marked", "unreadable_share"), NUMBER),
    "not_comparable": [str],
    "leads": [{"name": str, "result": TEXT, "regions": list}],
}
ORIGIN_TYPES: Mapping[str, Any] = {
    "statements": dict,
    "ai_statements": [str],
    "contradictions": [str],
}


@dataclass(frozen=True)
class Entry:
    """A report in the folder.

    Attributes:
        folder: The name of its folder.
        report: The content of its ``report.json``.
    """

    folder: str
    report: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "Entry":
        """Read a ``report.json``.

        Raises:
            ContentError: If it is not the report of an examination.
            OSError: If it cannot be read.
        """
        report = read_json_object(path, "the report of an examination")
        origin = report.get("origin")
        is_valid = _has_type(report, REPORT_TYPES)
        if not is_valid or (origin is not None and not _has_type(origin, ORIGIN_TYPES)):
            raise ContentError(f"{path} is not the report of an examination")
        return cls(path.parent.name, report)

    @property
    def score(self) -> float:
        """The score; -1 if there is none."""
        score = self.report.get("score")
        return -1 if score is None else score

    @property
    def statements(self) -> dict[str, str]:
        """Camera, dates and software according to the file."""
        statements = (self.report.get("origin") or {}).get("statements", {})
        return {name: str(text) for name, text in statements.items()}

    @property
    def signs(self) -> list[str]:
        """Where to look first: signs of AI use or copying, contradictions, leads with findings."""
        origin = self.report.get("origin") or {}
        leads = [lead for lead in self.report["leads"] if lead["regions"]]
        return [
            *(f"Signs of AI use: {text}" for text in origin.get("ai_statements", [])),
            *origin.get("contradictions", []),
            *(f"{lead['name']}: {lead['result']}" for lead in leads),
            *(["This may be a screenshot or a copy."] if self.report.get("resaved") else []),
        ]

    def row(self, rank: int) -> dict[str, Any]:
        """Return the report's row of the table; the columns are :data:`COLUMNS`."""
        names = ("file", "score", "marked", "format", "width", "height", "bytes", "error")
        compared = () if self.report["not_comparable"] else ("as_high", "calibrated_on")
        return {
            **{name: self.report.get(name) for name in (*names, *compared)},
            "rank": rank if self.score >= 0 else None,
            "report": f"{self.folder}/{PAGE}",
            "unreadable": self.report.get("unreadable_share"),
            "not_comparable": "; ".join(self.report["not_comparable"]),
            "camera": self.statements.get("camera"),
            "taken": self.statements.get("taken"),
            "last_modified": self.statements.get("last modified"),
            "saved_by": self.statements.get("saved by"),
            "signs": " ".join(self.signs),
        }


def write_index(out: Path, skipped: Sequence[str]) -> None:
    """Write ``index.html`` and ``examinations.csv`` for all reports in a folder.

    If :func:`foreign_files` finds any, neither is written and a warning is logged.

    Args:
        out: The folder of the reports.
        skipped: What could not be examined in this run, one line each.
    """
    foreign = foreign_files(out)
    for path in foreign:
        logger.warning(
            "%s is not, or no longer, a file of qma-net examine, so it is kept and the index of "
            "the reports is not written; move the file or choose another folder",
            path,
        )
    if foreign:
        return
    entries = sorted(_entries(out), key=lambda entry: (-entry.score, entry.folder))
    rows = [entry.row(rank) for rank, entry in enumerate(entries, 1)]
    settings = {str(entry.report.get("settings")) for entry in entries if entry.score >= 0}
    page = render_template(
        "index.html.j2",
        entries=[
            {"row": row, "entry": entry, "thumbnail": _thumbnail(out / entry.folder)}
            for row, entry in zip(rows, entries, strict=True)
        ],
        skipped=skipped,
        mark=MARK,
        is_mixed=len(settings) > 1,
    )
    write_text(out / TABLE, format_csv(COLUMNS, rows))
    write_text(out / INDEX, page)


def has_index(out: Path) -> bool:
    """Return whether a folder contains an index that :func:`write_index` wrote."""
    return MARK in _head(out / INDEX)


def foreign_files(out: Path) -> list[Path]:
    """List files named like those of the index that were not written by :func:`write_index`.

    A table that another program has converted is one of them.
    """
    foreign = [out / INDEX] if (out / INDEX).exists() and not has_index(out) else []
    if (out / TABLE).exists() and not _head(out / TABLE).startswith(TABLE_MARK):
        foreign.append(out / TABLE)
    return foreign


def _head(path: Path) -> str:
    """Return the first characters of a text file; empty if it cannot be read."""
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            return file.read(5000)
    except OSError:
        return ""


def _entries(out: Path) -> list[Entry]:
    entries = []
    for path in sorted(out.glob(f"*/{REPORT}")):
        try:
            entry = Entry.read(path)
        except (ContentError, OSError) as error:
            logger.warning("%s is left out of the index: %s", path.parent, error)
        else:
            if (path.parent / PAGE).is_file():
                entries.append(entry)
    return entries


def _has_type(value: object, expected: Any) -> bool:
    if isinstance(expected, Mapping):
        return isinstance(value, dict) and all(
            _has_type(value.get(name), part) for name, part in expected.items()
        )
    if isinstance(expected, list):
        return isinstance(value, list) and all(_has_type(item, expected[0]) for item in value)
    return isinstance(value, expected)


def _thumbnail(folder: Path) -> str:
    try:
        return data_uri(read_bytes(folder / THUMBNAIL, limit=MAX_THUMBNAIL_BYTES), "image/jpeg")
    except (QMANetError, OSError):
        return ""

"""The index of a folder of reports: a page that ranks the photos by score, and a table."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import QMANetError
from ..core.files import read_bytes, read_json_object, write_text
from ..core.html import data_uri, environment, render
from ..core.untrusted import format_csv
from .page import PAGE, REPORT, THUMBNAIL, percent
from .texts import printable

logger = logging.getLogger(__name__)

INDEX, TABLE = "index.html", "examinations.csv"
MARK = '<meta name="generator" content="qma-net examine">'  # Recognizes our own index.
COLUMNS = (
    *("rank", "file", "report", "score", "marked", "unreadable", "as_high", "calibrated_on"),
    *("not_comparable", "format", "width", "height", "bytes", "camera", "taken", "saved_by"),
    *("signs", "error"),
)
MAX_THUMBNAIL_BYTES = 2**18


@dataclass(frozen=True)
class Entry:
    """A report in the folder.

    Attributes:
        folder: The name of its folder.
        report: The content of its ``report.json``.
    """

    folder: str
    report: dict[str, Any]

    @property
    def score(self) -> float:
        """The score; -1 without a mask."""
        score = self.report.get("score")
        return float(score) if isinstance(score, int | float) else -1

    @property
    def statements(self) -> dict[str, str]:
        """Camera, dates and software according to the file."""
        return (self.report.get("origin") or {}).get("statements") or {}

    @property
    def signs(self) -> list[str]:
        """What to look at first: signs of AI use, contradictions and leads with a finding."""
        origin = self.report.get("origin") or {}
        leads = [lead for lead in self.report.get("leads", []) if lead["regions"]]
        return [
            *(f"Signs of AI use: {text}" for text in origin.get("ai_statements", [])),
            *origin.get("contradictions", []),
            *(f"{lead['name']}: {lead['result']}" for lead in leads),
            *(["This may be a screenshot or a copy."] if self.report.get("resaved") else []),
        ]

    def row(self, rank: int) -> dict[str, Any]:
        """Return its row of the table; the columns are :data:`COLUMNS`."""
        names = ("file", "score", "marked", "as_high", "calibrated_on", "format", "width", "height")
        return {
            **{name: self.report.get(name) for name in (*names, "bytes", "error")},
            "rank": rank if self.score >= 0 else None,
            "report": f"{self.folder}/{PAGE}",
            "unreadable": self.report.get("unreadable_share"),
            "not_comparable": "; ".join(self.report.get("not_comparable", [])),
            "camera": self.statements.get("camera"),
            "taken": self.statements.get("taken"),
            "saved_by": self.statements.get("saved by"),
            "signs": " ".join(self.signs),
        }


def write_index(out: Path, skipped: Sequence[str]) -> bool:
    """Write ``index.html`` and ``examinations.csv`` for all reports in a folder.

    An ``index.html`` that is not ours is kept; a warning is logged.

    Args:
        out: The folder of the reports.
        skipped: What could not be examined, one line each.

    Returns:
        Whether the files were written.
    """
    if (out / INDEX).exists() and not has_index(out):
        logger.warning("%s was not written by qma-net examine and is kept", out / INDEX)
        return False
    entries = sorted(_entries(out), key=lambda entry: (-entry.score, entry.folder))
    rows = [entry.row(rank) for rank, entry in enumerate(entries, 1)]
    settings = {str(entry.report.get("settings")) for entry in entries if entry.score >= 0}
    environment(__package__).filters.update(printable=printable, percent=percent)
    page = render(
        __package__,
        "index.html.j2",
        entries=[
            {"row": row, "entry": entry, "thumbnail": _thumbnail(out / entry.folder)}
            for row, entry in zip(rows, entries, strict=True)
        ],
        skipped=skipped,
        mark=MARK,
        is_mixed=len(settings) > 1,
        file_name=lambda path: printable(Path(str(path)).name),
    )
    write_text(out / TABLE, format_csv(COLUMNS, rows))
    write_text(out / INDEX, page)
    return True


def has_index(out: Path) -> bool:
    """Return whether a folder contains an index that :func:`write_index` wrote."""
    try:
        with open(out / INDEX, encoding="utf-8", errors="replace") as file:
            return MARK in file.read(5000)
    except OSError:
        return False


def _entries(out: Path) -> list[Entry]:
    entries = []
    for path in sorted(out.glob(f"*/{REPORT}")):
        try:
            report = read_json_object(path, "the report of an examination")
            entry = Entry(path.parent.name, report)
            entry.row(0)
        except (QMANetError, OSError, AttributeError, KeyError, TypeError):
            logger.warning("%s is left out of the index: it is not a report", path)
        else:
            if (path.parent / PAGE).is_file():
                entries.append(entry)
    return entries


def _thumbnail(folder: Path) -> str:
    try:
        return data_uri(read_bytes(folder / THUMBNAIL, limit=MAX_THUMBNAIL_BYTES), "image/jpeg")
    except (QMANetError, OSError):
        return ""

"""Examination of photos: file facts, mask, readability, leads and a report."""

from .evidence import Evidence, read_evidence
from .examination import Examination
from .page import render_page, write_report
from .pipeline import examine_evidence, examine_files, examine_photo

__all__ = [
    "Evidence",
    "Examination",
    "examine_evidence",
    "examine_files",
    "examine_photo",
    "read_evidence",
    "render_page",
    "write_report",
]

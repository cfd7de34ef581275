"""Findings of ``data check``: stable problem names, and reports as text and as JSON."""

import os
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field

from ..core.errors import QMANetError
from .facts import AllFacts
from .listing import Listing, Pair
from .published import DATASETS

SHOWN_PER_PROBLEM = 20
NOT_SEEN_FAST = (
    "--fast: checked only headers and file sizes, not pixels (damage behind the header), mask "
    "values, duplicates and near-duplicates"
)

# These names are stable. The problems colour-mode and relative-path are never errors.
ERRORS = (
    "unreadable size-mismatch unpaired mask-values mask-inverted empty-mask missing-file "
    "exif-orientation duplicate near-duplicate larger-than-training"
).split()


class FindingsError(QMANetError):
    """An unknown problem to allow."""


@dataclass(frozen=True)
class Finding:
    """A problem of one file.

    Attributes:
        problem: Its stable name.
        remedy: What was found, what to do and what ``--fix`` does.
        fixable: Whether a copy made by ``--fix`` does not have the problem.
    """

    file: str
    problem: str
    remedy: str
    fixable: bool


@dataclass
class Report:
    """Findings by severity, at most one per file and problem.

    Attributes:
        allow: Problems that are reported as warnings.
        errors: What makes BenCo read the data wrongly.
        warnings: What it reads in another way than the files suggest, and allowed problems.
        sets: A row for each dataset: its ``name`` and ``path``; the paper's ``dataset`` with this
            name, and the ``part`` if it is a subset's list (``TampCOCO`` and ``sp`` for
            ``sp_COCO_list``); the number of ``tampered`` and ``authentic`` images; the
            ``smallest`` and ``largest`` resolution by area, width x height, empty if unknown; and
            ``types``, the number of tampered images of each type in :data:`~.published.TYPES`.
            ``dataset``, ``part`` and ``types`` are absent if unknown.
        pairs: Each dataset and its pairs, as the file names suggest, whose files exist.
        facts: What is known about the files of these pairs.

    Raises:
        FindingsError: If a problem in ``allow`` is not one of :data:`ERRORS`.
    """

    allow: Collection[str] = ()
    errors: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    sets: list[dict] = field(default_factory=list)
    pairs: list[tuple[Listing, list[Pair]]] = field(default_factory=list, repr=False)
    facts: AllFacts = field(default_factory=AllFacts, repr=False)
    _reported: set[tuple[str, str]] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        unknown = set(self.allow) - set(ERRORS)
        if unknown:
            raise FindingsError(
                f"got --allow {', '.join(sorted(unknown))}, expected some of {', '.join(ERRORS)}"
            )

    def error(
        self,
        file: str | os.PathLike[str],
        problem: str,
        advice: str,
        *,
        fix: str = "",
        harmless: bool = False,
    ) -> None:
        """Add an error, or a warning if it is harmless or allowed.

        ``advice`` states what was found and what to do; ``fix`` is what ``--fix`` does.
        """
        if (str(file), problem) in self._reported:
            return
        self._reported.add((str(file), problem))
        findings = self.warnings if harmless or problem in self.allow else self.errors
        remedy = f"{advice} ({fix})" if fix else advice
        findings.append(Finding(str(file), problem, remedy, bool(fix)))

    def warning(
        self, file: str | os.PathLike[str], problem: str, advice: str, *, fix: str = ""
    ) -> None:
        """Add a warning; see :meth:`error`."""
        self.error(file, problem, advice, fix=fix, harmless=True)

    def as_dict(self) -> dict:
        """Return the output of ``--json``."""
        errors, warnings = (
            [{"file": item.file, "problem": item.problem, "remedy": item.remedy} for item in items]
            for items in (self.errors, self.warnings)
        )
        return {"errors": errors, "warnings": warnings, "sets": self.sets}

    def text(self) -> str:
        """Format the report for printing: findings by problem, then the counts."""
        lines = []
        for severity, findings in (("error", self.errors), ("warning", self.warnings)):
            by_problem = defaultdict(list)
            for finding in findings:
                by_problem[finding.problem].append(finding)
            for problem, group in by_problem.items():
                lines.append(f"{severity}: {problem}, {_plural(len(group), 'file')}")
                lines += [f"  {item.file}: {item.remedy}" for item in group[:SHOWN_PER_PROBLEM]]
                if len(group) > SHOWN_PER_PROBLEM:
                    more = len(group) - SHOWN_PER_PROBLEM
                    lines.append(f"  ... and {more} more (--json lists all)")
        lines.append(_counts_table(self.sets))
        errors, warnings = len(self.errors), len(self.warnings)
        lines.append(f"{_plural(errors, 'error')}, {_plural(warnings, 'warning')}")
        return "\n".join(lines)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _counts_table(sets: list[dict]) -> str:
    """Compare counts and resolutions with Tables 3 and 4 for datasets of the paper."""
    lines = ["| set | tampered | authentic | resolutions | in the paper |", "|---|---|---|---|---|"]
    for row in sets:
        paper = DATASETS.get(row.get("dataset", "")) if "part" not in row else None
        expected = f"{paper.tampered}, {paper.smallest} to {paper.largest}" if paper else ""
        sizes = f"{row['smallest']} to {row['largest']}"
        lines.append(
            f"| {row['name']} | {row['tampered']} | {row['authentic']} | {sizes} | {expected} |"
        )
    return "\n".join(lines)

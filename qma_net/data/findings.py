"""A dataset's faults by name, and how a person and a program read them."""

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from ..core.errors import QMANetError
from .published import DATASETS

SHOWN_PER_PROBLEM = 20
NOT_SEEN_FAST = (
    "--fast: looked at headers and file sizes only, not at pixels (damage behind the header), mask "
    "values, duplicates and near-duplicates"
)

# The names of problems are stable. Warnings alone: colour-mode, relative-path.
ERRORS = (
    "unreadable size-mismatch unpaired mask-values mask-inverted empty-mask missing-file "
    "exif-orientation duplicate near-duplicate larger-than-training"
).split()


class FindingsError(QMANetError):
    """A problem to be allowed that no dataset can have; one line names those there are."""


@dataclass(frozen=True)
class Finding:
    """A fault: the file, the problem's stable name, what was found and what to do.

    ``advice`` is written for a person. ``fixable`` says that a copy made by ``--fix`` has not the
    fault, ``fixed_how`` in which words, ``otherwise`` what a person may do in place of that.
    """

    file: str
    problem: str
    advice: str
    fixable: bool = False
    fixed_how: str = "(--fix does)"
    otherwise: str = ""

    @property
    def remedy(self) -> str:
        """What was found and what to do, and whether ``--fix`` does it."""
        return self.advice + (f" {self.fixed_how}" if self.fixable else "") + self.otherwise

    def as_dict(self) -> dict:
        """What ``--json`` prints of it."""
        return {"file": self.file, "problem": self.problem, "remedy": self.remedy}


@dataclass
class Report:
    """Findings by severity, and a row of counts and resolutions per dataset.

    The keys of a row of ``sets`` are described in :mod:`.check`, which makes it.
    """

    errors: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    sets: list[dict] = field(default_factory=list)

    def as_dict(self) -> dict:
        """What ``--json`` prints."""
        return {
            "errors": [finding.as_dict() for finding in self.errors],
            "warnings": [finding.as_dict() for finding in self.warnings],
            "sets": self.sets,
        }

    def text(self) -> str:
        """What a person reads: findings by problem, then the counts beside the paper's."""
        lines = []
        for title, findings in (("error", self.errors), ("warning", self.warnings)):
            by_problem = defaultdict(list)
            for finding in findings:
                by_problem[finding.problem].append(finding)
            for problem, group in by_problem.items():
                lines.append(f"{title}: {problem}, {len(group)} file{'s' * (len(group) > 1)}")
                lines += [f"  {one.file}: {one.remedy}" for one in group[:SHOWN_PER_PROBLEM]]
                if len(group) > SHOWN_PER_PROBLEM:
                    more = len(group) - SHOWN_PER_PROBLEM
                    lines.append(f"  ... and {more} more (--json lists all)")
        lines.append(_counts_table(self.sets))
        counts = ((len(self.errors), "error"), (len(self.warnings), "warning"))
        lines.append(", ".join(f"{n} {word}{'s' * (n != 1)}" for n, word in counts))
        return "\n".join(lines)


class DraftReport(Report):
    """A report that is being written: one finding per file and problem.

    Args:
        allow: problems that become warnings.

    Raises:
        FindingsError: for a problem to allow that is not one of :data:`ERRORS`.
    """

    def __init__(self, allow: Iterable[str]):
        super().__init__()
        self._allow, self._seen = set(allow), set()
        unknown = self._allow - set(ERRORS)
        if unknown:
            raise FindingsError(
                f"got --allow {', '.join(sorted(unknown))}, expected some of {', '.join(ERRORS)}"
            )

    def error(self, file: str | os.PathLike, problem: str, advice: str, **fix) -> None:
        """Adds an error, or a warning where it is allowed; ``fix`` is as in :class:`Finding`."""
        findings = self.warnings if problem in self._allow else self.errors
        self._add(findings, Finding(str(file), problem, advice, **fix))

    def warning(self, file: str | os.PathLike, problem: str, advice: str, **fix) -> None:
        """Adds a warning; ``fix`` is as in :class:`Finding`."""
        self._add(self.warnings, Finding(str(file), problem, advice, **fix))

    def _add(self, findings: list[Finding], finding: Finding) -> None:
        if (finding.file, finding.problem) not in self._seen:
            self._seen.add((finding.file, finding.problem))
            findings.append(finding)


def _counts_table(sets: list[dict]) -> str:
    """Counts and resolutions, beside Tables 3 and 4 where a row is a whole dataset of theirs."""
    lines = ["| set | tampered | authentic | resolutions | in the paper |", "|---|---|---|---|---|"]
    for row in sets:
        paper = DATASETS.get(row.get("dataset")) if "part" not in row else None
        beside = f"{paper.tampered}, {paper.smallest} to {paper.largest}" if paper else ""
        sizes = f"{row['smallest']} to {row['largest']}"
        lines.append(
            f"| {row['name']} | {row['tampered']} | {row['authentic']} | {sizes} | {beside} |"
        )
    return "\n".join(lines)

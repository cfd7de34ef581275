"""A dataset's faults by name, and how a person and a program read them."""

from collections import defaultdict
from dataclasses import asdict, dataclass, field

SHOWN_PER_PROBLEM = 20

# The names of problems are stable. Warnings alone: colour-mode, relative-path.
ERRORS = (
    "unreadable size-mismatch unpaired mask-values mask-inverted empty-mask missing-file "
    "exif-orientation duplicate larger-than-training"
).split()


@dataclass(frozen=True)
class Finding:
    """A fault: the file, the problem's stable name, what was found and what to do."""

    file: str
    problem: str
    remedy: str


@dataclass
class Report:
    """Findings by severity, and a row of figures per dataset."""

    errors: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    sets: list[dict] = field(default_factory=list)

    def as_dict(self) -> dict:
        """What ``--json`` prints."""
        return {
            "errors": [asdict(finding) for finding in self.errors],
            "warnings": [asdict(finding) for finding in self.warnings],
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


class _Judge(Report):
    """A report under way: one finding per file and problem, and the allowed ones as warnings."""

    def __init__(self, allow: set[str]):
        super().__init__()
        unknown = allow - set(ERRORS)
        if unknown:
            raise ValueError(
                f"got --allow {', '.join(sorted(unknown))}, expected some of {', '.join(ERRORS)}"
            )
        self._allow, self._seen = allow, set()

    def error(self, file, problem: str, remedy: str) -> None:
        if problem in self._allow:
            self.warning(file, problem, remedy)
        else:
            self._add(self.errors, file, problem, remedy)

    def warning(self, file, problem: str, remedy: str) -> None:
        self._add(self.warnings, file, problem, remedy)

    def _add(self, findings, file, problem, remedy) -> None:
        if (str(file), problem) not in self._seen:
            self._seen.add((str(file), problem))
            findings.append(Finding(str(file), problem, remedy))


def _counts_table(sets: list[dict]) -> str:
    """Counts and resolutions, beside Tables 3 and 4 where the name is one of theirs."""
    from .published import DATASETS

    known = {name.lower(): dataset for name, dataset in DATASETS.items()}
    lines = ["| set | tampered | authentic | resolutions | in the paper |", "|---|---|---|---|---|"]
    for row in sets:
        paper = known.get(row["name"].lower())
        beside = f"{paper.tampered}, {paper.smallest} to {paper.largest}" if paper else ""
        sizes = f"{row['smallest']} to {row['largest']}"
        lines.append(
            f"| {row['name']} | {row['tampered']} | {row['authentic']} | {sizes} | {beside} |"
        )
    return "\n".join(lines)

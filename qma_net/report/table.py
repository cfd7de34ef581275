"""The report's tables, and their formatting as Markdown and LaTeX."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from ..core.html import environment

if TYPE_CHECKING:
    from jinja2 import Environment

MINUS, TIMES, DASH = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}", "\N{EM DASH}"

# The sections of a table.
PUBLISHED, MEASURED, DIFFERENCE = "As published", "Measured here", "Measured here minus published"
PAIRED = "Paired difference on the same images: ablation minus QMA-Net (ours)"
PAIRED_MODELS = "Paired difference on the same images: other model minus QMA-Net (ours)"

NO_RESULT = "no result file"

LATEX = {  # Characters that LaTeX interprets, or that its fonts lack.
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "_%&#${}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    MINUS: "$-$",
    DASH: "---",
    TIMES: r"$\times$",
    "<": "$<$",
    ">": "$>$",
}


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""

    text: str = ""
    detail: str = ""  # Smaller text below, for example an interval.
    hint: str = ""  # An explanation, which the HTML page shows as a tooltip.


MISSING = Cell(DASH, hint=NO_RESULT)


@dataclass(frozen=True)
class Row:
    """A row: its section, its labels and its cells; our own rows are highlighted."""

    section: str
    labels: Sequence[str]
    cells: Sequence[Cell] = ()
    is_ours: bool = False


@dataclass
class Table:
    """A table in the report."""

    key: str  # Name of its files, and its anchor on the page.
    title: str
    labels: Sequence[str]  # Headings of the columns that contain the labels of the rows.
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)  # Other columns, by group.
    rows: list[Row] = field(default_factory=list)  # The sections may be mixed.
    notes: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)  # They produce the missing results.
    # The columns in which higher or lower values are better; others are not compared.
    higher: Collection[str] = ()
    lower: Collection[str] = ()
    same: Sequence[int] = ()  # Indices of the labels that must be equal for rows to be compared.

    @property
    def width(self) -> int:
        """Number of columns, not counting those of the labels."""
        return sum(map(len, self.groups.values()))

    @property
    def caption(self) -> str:
        """The title without the number of the table."""
        return re.sub(r"^Table [0-9]+: ", "", self.title)

    @property
    def sections(self) -> dict[str, list[Row]]:
        """The rows by section, in order of first appearance."""
        names = dict.fromkeys(row.section for row in self.rows)
        return {name: [row for row in self.rows if row.section == name] for name in names}

    @property
    def is_measured(self) -> bool:
        """Whether it contains any result of ours, even an incomplete one."""
        ours = [cell for row in self.rows if row.section != PUBLISHED for cell in row.cells]
        return any(cell.text and cell != MISSING for cell in ours)


def ranked_cells(table: Table) -> dict[int, str]:
    """Find the best and second-best values of a table, at the precision with which they are shown.

    Published and measured values are compared with each other; differences are not ranked.

    Returns:
        ``"best"`` or ``"second"`` by the ``id`` of the cell. Equal values have the same rank. A
        column whose known values are all equal has no ranks.
    """
    ranks: dict[int, str] = {}
    names = [name for names in table.groups.values() for name in names]
    rows: dict[tuple[str, ...], list[Row]] = {}
    for row in table.rows:
        if row.section in (PUBLISHED, MEASURED) and row.cells:
            rows.setdefault(tuple(row.labels[i] for i in table.same), []).append(row)
    for alike in rows.values():
        for column, name in enumerate(names):
            cells = [row.cells[column] for row in alike]
            values = {id(cell): value for cell in cells if (value := _value(cell)) is not None}
            best_first = sorted(set(values.values()), reverse=name in table.higher)
            if len(best_first) > 1 and (name in table.higher or name in table.lower):
                for value, rank in zip(best_first, ("best", "second"), strict=False):
                    ranks |= {key: rank for key, other in values.items() if other == value}
    return ranks


def _value(cell: Cell) -> float | None:
    """Return the number that a cell shows, or None if it shows something else."""
    try:
        return float(cell.text.replace(MINUS, "-"))
    except ValueError:
        return None


def format_number(value: float, decimals: int = 3, *, sign: bool = False) -> str:
    """Format a number with a typographic minus sign, and with a plus sign if ``sign`` is set."""
    return f"{value:{'+' if sign else ''}.{decimals}f}".replace("-", MINUS)


def write_table(table: Table, suffix: str) -> str:
    """Format a table as GitHub's Markdown (``md``) or as LaTeX with booktabs (``tex``)."""
    ranks = ranked_cells(table)
    template = _environment(suffix).get_template(f"table.{suffix}.j2")
    return template.render(table=table, rank_of=lambda cell: ranks.get(id(cell)))


def escape_latex(text: object) -> str:
    """Join text into one line and escape the characters that LaTeX would interpret."""
    return "".join(LATEX.get(letter, letter) for letter in " ".join(str(text).split()))


def escape_markdown(text: object) -> str:
    """Join text into one line and escape what Markdown would interpret inside a table."""
    return re.sub(r"([|*_<>])", r"\\\1", " ".join(str(text).split()))


@cache
def _environment(suffix: str) -> "Environment":
    """Create the template environment of a format; every inserted text is escaped for it."""
    escape = {"md": escape_markdown, "tex": escape_latex}[suffix]
    return environment(__package__).overlay(
        block_start_string="<%",  # The default delimiters contain braces, which LaTeX needs.
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        autoescape=False,
        # Values that the template marks with `safe` are inserted unchanged.
        finalize=lambda value: value if hasattr(value, "__html__") else escape(value),
    )

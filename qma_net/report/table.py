"""The report's tables, and their writer for Markdown, LaTeX and HTML."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from ..core.html import environment

if TYPE_CHECKING:
    from jinja2 import Environment

MINUS, TIMES, DASH = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}", "\N{EM DASH}"

# The sections of a table.
PUBLISHED, MEASURED, DIFFERENCE = "As published", "Measured here", "Measured here minus published"
PAIRED = "Measured here: ablation minus QMA-Net (ours) on the same images"

NO_RESULT = "no result file"

LATEX = {  # Characters with a meaning in LaTeX, or without a glyph in its fonts.
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
    detail: str = ""  # Shown smaller under the text, for example an interval.
    hint: str = ""  # An explanation, which the HTML page shows as a tooltip.


MISSING = Cell(DASH, hint=NO_RESULT)


@dataclass(frozen=True)
class Row:
    """A row: the section it belongs to, its labels and its cells; rows of ours are highlighted."""

    section: str
    labels: Sequence[str]
    cells: Sequence[Cell] = ()
    is_ours: bool = False


@dataclass
class Table:
    """A table of the report."""

    key: str  # Name of its files, and its anchor on the page.
    title: str
    labels: Sequence[str]  # Headings of the columns with the rows' labels.
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)  # Other columns by heading.
    rows: list[Row] = field(default_factory=list)  # Of several sections, in any order.
    notes: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)  # These produce the missing results.

    @property
    def width(self) -> int:
        """Number of columns, without those of the labels."""
        return sum(map(len, self.groups.values()))

    @property
    def caption(self) -> str:
        """The title without the number of the paper's table."""
        return re.sub(r"^Table [0-9]+: ", "", self.title)

    @property
    def sections(self) -> dict[str, list[Row]]:
        """The rows by section, in order of first appearance."""
        names = dict.fromkeys(row.section for row in self.rows)
        return {name: [row for row in self.rows if row.section == name] for name in names}

    @property
    def is_measured(self) -> bool:
        """Whether it contains any result of ours, complete or not."""
        ours = [cell for row in self.rows if row.section != PUBLISHED for cell in row.cells]
        return any(cell.text and cell != MISSING for cell in ours)


def format_number(value: float, decimals: int = 3, *, sign: bool = False) -> str:
    """Format a number with a typographic minus sign, and with a plus sign if ``sign`` is set."""
    return f"{value:{'+' if sign else ''}.{decimals}f}".replace("-", MINUS)


def write_table(table: Table, suffix: str) -> str:
    """Format a table as GitHub's Markdown (``md``) or as LaTeX with booktabs (``tex``)."""
    return _environment(suffix).get_template(f"table.{suffix}.j2").render(table=table)


def escape_latex(text: object) -> str:
    """Write a text in one line and escape the characters that LaTeX would interpret."""
    return "".join(LATEX.get(letter, letter) for letter in " ".join(str(text).split()))


def escape_markdown(text: object) -> str:
    """Write a text in one line and escape what Markdown would interpret inside a table."""
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
        # A value that the template marks with `safe` is inserted as it is.
        finalize=lambda value: value if hasattr(value, "__html__") else escape(value),
    )

"""What tables and figures of the report are, and tables written as Markdown and as LaTeX."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

MINUS, TIMES, DASH = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}", "\N{EM DASH}"

ABSENT = "no result file"  # why a cell is missing: nothing was measured for it

LATEX = {  # what LaTeX would take for a command, or cannot set
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
    """What stands in a cell, smaller text under it, and what a reader learns by pointing at it."""

    text: str
    small: str = ""
    why: str = ""


MISSING = Cell(DASH, why=ABSENT)


@dataclass(frozen=True)
class Row:
    """Labels and cells; rows of one ``block`` stand together under its name."""

    block: str
    labels: tuple[str, ...]
    cells: tuple[Cell, ...]
    is_ours: bool = False


@dataclass
class Table:
    """A table of the report.

    ``groups`` are pairs of a heading and the names under it; ``commands`` make what is missing;
    ``key`` names its files.
    """

    key: str
    title: str
    labels: tuple[str, ...]
    groups: list[tuple[str, list[str]]]
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)

    @property
    def width(self) -> int:
        """Columns besides those of the labels."""
        return sum(len(names) for _, names in self.groups)

    @property
    def blocks(self) -> list[tuple[str, list[Row]]]:
        """The rows under their blocks' names, in the order in which they came."""
        names = dict.fromkeys(row.block for row in self.rows)
        return [(name, [row for row in self.rows if row.block == name]) for name in names]


@dataclass(frozen=True)
class Figure:
    """A figure of the report: a PNG, and what stands over and under it."""

    path: Path
    title: str
    caption: str


def to_markdown(table: Table) -> str:
    """The table as GitHub's Markdown; a block's name stands in a row of its own."""
    names = [*table.labels]
    for group, inner in table.groups:
        names += [f"{group}: {name}" if group else name for name in inner]
    lines = [f"**{_markdown(table.title)}**", "", _markdown_row(map(_markdown, names))]
    lines.append(_markdown_row(["---"] * len(table.labels) + ["---:"] * table.width))
    for block, rows in table.blocks:
        lines.append(_markdown_row([f"*{_markdown(block)}*", *[""] * (len(names) - 1)]))
        for row in rows:
            cells = [f"{cell.text} {cell.small}".strip() for cell in row.cells]
            lines.append(_markdown_row(map(_markdown, [*row.labels, *cells])))
    lines += ["", *(f"- {_markdown(note)}" for note in table.notes)]
    lines += [f"- Missing; made by `{command}`" for command in table.commands]
    return "\n".join(lines).rstrip() + "\n"


def _markdown(text: str) -> str:
    return re.sub(r"([|*_<>])", r"\\\1", text)


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def latex(text: str) -> str:
    """Text with what LaTeX would take for a command made harmless."""
    return "".join(LATEX.get(letter, letter) for letter in text)


def to_latex(table: Table) -> str:
    r"""The table for ``\usepackage{booktabs}``; intervals stand under their numbers."""
    columns = len(table.labels) + table.width
    lines = [
        r"\begin{table}[t]",
        r"  \centering\small",
        rf"  \caption{{{latex(re.sub(r'^Table [0-9]+: ', '', table.title))}.}}",
        rf"  \label{{tab:{table.key}}}",
        rf"  \begin{{tabular}}{{{'l' * len(table.labels)}{'r' * table.width}}}",
        r"    \toprule",
    ]
    blank = [""] * len(table.labels)
    if any(group for group, _ in table.groups):
        heads = [
            rf"\multicolumn{{{len(inner)}}}{{c}}{{{latex(group)}}}" for group, inner in table.groups
        ]
        lines.append(_latex_row([*blank, *heads]))
        lines.append(f"    {''.join(_rules(table))}")
    names = [latex(name) for _, inner in table.groups for name in inner]
    lines.append(_latex_row([*map(latex, table.labels), *names]))
    for block, rows in table.blocks:
        lines += [
            r"    \midrule",
            rf"    \multicolumn{{{columns}}}{{l}}{{\emph{{{latex(block)}}}}} \\",
        ]
        lines += [
            _latex_row([*map(latex, row.labels), *map(_latex_cell, row.cells)]) for row in rows
        ]
    lines += [r"    \bottomrule", r"  \end{tabular}"]
    lines += [f"  % {note}" for note in [*table.notes, *table.commands]]
    return "\n".join([*lines, r"\end{table}", ""])


def _latex_row(cells: Iterable[str]) -> str:
    return f"    {' & '.join(cells)} \\\\"


def _rules(table: Table) -> Iterable[str]:
    """A line under every group's heading."""
    at = len(table.labels) + 1
    for group, inner in table.groups:
        if group:
            yield rf"\cmidrule(lr){{{at}-{at + len(inner) - 1}}}"
        at += len(inner)


def _latex_cell(cell: Cell) -> str:
    if not cell.small:
        return latex(cell.text)
    return rf"\shortstack[r]{{{latex(cell.text)}\\{{\tiny {latex(cell.small)}}}}}"


WRITERS: dict[str, Callable[[Table], str]] = {"md": to_markdown, "tex": to_latex}

"""Untrusted text, such as file names, on the terminal, in tables and in names of new files."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MAX_LINE = 2000  # characters
MAX_ABOUT = 400  # Characters of the notice in a checkpoint.
MAX_STEM_BYTES = 200  # This leaves room for a number and a suffix in a name of 255 bytes.

# A spreadsheet evaluates a cell that begins with one of these.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def one_line(text: object, limit: int = MAX_LINE) -> str:
    r"""Escape everything that is not printable, such as ``\n`` and ``\x1b``, and limit the length.

    A terminal obeys some control characters, and a line break could imitate a message of ours.
    """
    shown = str(text)
    rest = f"... ({len(shown)} characters)" if len(shown) > limit else ""
    return "".join(map(_escaped, shown[:limit])) + rest


def printable_lines(text: object) -> str:
    """Escape each line of a text like :func:`one_line`, but keep the line breaks."""
    return "\n".join(map(one_line, str(text).split("\n")))


def file_stem(name: str) -> str:
    """Return a stem for new files: the name, shortened and without unprintable characters."""
    stem = "".join(c if c.isprintable() else "_" for c in name)
    return stem.encode()[:MAX_STEM_BYTES].decode(errors="ignore")


def format_csv(
    columns: Sequence[str], rows: Iterable[Mapping[str, Any]], *, header: bool = True
) -> str:
    """Format rows as CSV; undefined values become empty cells, and unlisted columns are left out.

    Texts that a spreadsheet would evaluate as a formula are preceded by an apostrophe, as OWASP
    recommends against CSV injection; :func:`plain_cell` removes it. Numbers remain numbers.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows({name: _cell(row.get(name)) for name in columns} for row in rows)
    return text.getvalue()


def plain_cell(text: str) -> str:
    """Return the text that :func:`format_csv` wrote to a cell."""
    return text[1:] if text[:1] == "'" and text[1:].startswith(FORMULA_STARTS) else text


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = value.replace("\r", "\\r")  # The csv module of Python 3.11 would not quote it.
    return f"'{text}" if value.startswith(FORMULA_STARTS) else text


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")

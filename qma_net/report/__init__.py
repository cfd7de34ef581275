"""``qma-net report``: what was measured, and every table and figure of the paper, from files alone.

``results.py`` finds what there is, with ``complexity.py`` and ``logs.py`` for what BenCo wrote;
``paper.py`` knows what the paper printed (``benco_configs/paper_tables.yaml``); ``measured.py``
looks up what a run has for a cell of it; ``tables.py``, ``counts.py`` and ``beyond.py`` put one
beside the other; ``layout.py`` writes tables; ``curves.py`` and ``figures/`` draw; ``page.py`` puts
all of it on one page.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from ..core.files import alone, clear_halves, write_text
from .curves import draw_curves
from .layout import WRITERS, Figure
from .page import page
from .results import ReportError, Results, collect
from .tables import all_tables

__all__ = ["report"]


def report(dirs: Sequence[str | os.PathLike], out: str | os.PathLike) -> list[Path]:
    """Writes the page, and beside it ``tables/*.md``, ``tables/*.tex`` and ``figures/*.png``.

    Args:
        dirs: folders with results, searched to the bottom.
        out: the HTML file.

    Returns:
        Everything written, the page last.

    Raises:
        ReportError: in one line, for folders without any result, or an ``out`` that is a folder.
        BusyError: for a folder that another run is writing to.
    """
    out = Path(out)
    if out.is_dir() or out.suffix.lower() not in (".html", ".htm"):
        raise ReportError(f"got --out {out}, expected the name of an HTML file: add report.html")
    results = collect(dirs)
    tables = all_tables(results)
    with alone(out.parent):
        clear_halves(out.parent, [out.name])
        for folder in ("tables", "figures"):
            clear_halves(out.parent / folder)
        written = []
        for table in tables:
            for suffix, write in WRITERS.items():
                path = out.parent / "tables" / f"{table.key}.{suffix}"
                write_text(path, write(table))
                written.append(path)
        figures = _paper_figures(results, out.parent / "figures")
        figures += draw_curves(results.curves, out.parent / "figures", results.notes)
        write_text(out, page(results, tables, figures, dirs))
        return [*written, *(figure.path for figure in figures), out]


def _paper_figures(results: Results, folder: Path) -> list[Figure]:
    """The paper's figures; none, and a note, without matplotlib."""
    try:
        from .figures.draw import draw_all
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        results.notes.append("matplotlib is not installed: no figures")
        return []
    return draw_all(results, folder)
